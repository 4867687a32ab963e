# SPDX-License-Identifier: Apache-2.0
# Every target is all the set-up it needs, from a fresh clone on a machine with python3 (3.11+), git and make.
#
#   make demo        the main job: two incidents, judged by the real Prometheus
#   make test        the tests (≤ 15 minutes)          make test-slow   what must take longer
#   make test-programs  10,000 random programs on random machines (5 minutes; PROGRAMS=n for another number)
#   make lint        formatting, types, import layers   make format      puts the formatting right
#   make bench       the figures of docs/benchmarks.md  make clean       takes away what the targets made
#   make measure     the real Redis, JVM and PostgreSQL measured on this machine (25 minutes), for docs/calibration.md
#   make calibrate   the models in the measured situations: model against measurement, printed and put into docs/calibration.md
#
# Narrow a test run with ARGS:  make test ARGS="tests/verdict -k staleness"

SHELL := /bin/bash
VENV := .venv
PYTEST := $(VENV)/bin/python -m pytest
# Whole files per worker: what a file sets up once (a Prometheus, a reference run) is then set up once.
PARALLEL := -n 2 --dist loadfile
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup warm prometheus tools demo test test-slow test-programs lint format bench measure calibrate clean

help:
	@sed -n '4,12s/^# \{0,1\}//p' Makefile

setup:
	@scripts/ensure-venv.sh

prometheus:
	@scripts/ensure-prometheus.sh

tools:
	@scripts/ensure-prometheus.sh --optional
	@scripts/ensure-test-tools.sh
	@scripts/ensure-calibration-tools.sh --optional redis

demo: setup prometheus
	$(VENV)/bin/fleetsim check \
	  --rules chaos_scenarios/rules/free-memory.yml \
	  --rules chaos_scenarios/rules/available-memory.yml \
	  chaos_scenarios/leak-one-container.yaml \
	  chaos_scenarios/page-cache-fills-memory.yaml

# Two cold workers would compile the same laws twice: once, before they start.
warm: setup
	@$(VENV)/bin/python -m fleetsim.host.warm

test: setup tools warm
	$(PYTEST) $(PARALLEL) -m "not slow" $(ARGS)

# pytest's exit code 5 means that nothing is marked slow (or ARGS selected nothing slow): said, and not a failure.
test-slow: setup tools warm
	@$(PYTEST) $(PARALLEL) -m slow $(ARGS); code=$$?; \
	if [ $$code -eq 5 ]; then echo "no test is marked slow: nothing to run"; exit 0; fi; exit $$code

PROGRAMS ?= 10000
test-programs: setup warm
	FLEETSIM_PROGRAMS=$(PROGRAMS) $(PYTEST) -n 2 -m slow tests/host/test_programs.py $(ARGS)

lint: setup
	$(PYTEST) -n 0 tests/test_tidy.py

format: setup
	$(VENV)/bin/ruff check --fix-only --quiet . || true
	$(VENV)/bin/ruff format .

bench: setup
	$(VENV)/bin/fleetsim bench $(ARGS)

# Real programs, on unix sockets and for the length of the measurement only. PROGRAM=redis_save measures one.
measure: setup
	scripts/ensure-calibration-tools.sh $(firstword $(subst _, ,$(PROGRAM)))
	$(VENV)/bin/python -m scripts.calibrate $(PROGRAM)
	$(VENV)/bin/python -m scripts.calibrate.table
	$(VENV)/bin/python -m scripts.calibrate.compare --page

# Small hosts for some virtual seconds each: plain Python has done them before the laws were compiled.
calibrate: setup
	NUMBA_DISABLE_JIT=1 $(VENV)/bin/python -m scripts.calibrate.compare

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .benchmarks
	find fleetsim tests -name __pycache__ -type d -prune -exec rm -rf {} +
