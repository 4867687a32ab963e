# SPDX-License-Identifier: Apache-2.0
"""A fault that is aimed at a Deployment is one of its template: pods that come while it is on have it, wherever they come to."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetsim.fleet.branch import Brancher
from fleetsim.fleet.controller import RunResult, run_plan
from fleetsim.fleet.following import due, targets
from fleetsim.fleet.plan import Plan, make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.fleet.whatif import Change, what_if
from fleetsim.observe.catalog import profile
from fleetsim.rundir.models import HistoryEvent
from fleetsim.rundir.reader import RunDirectory
from fleetsim.units import NS_PER_S
from fleetsim.verdict.incidents import read_faults, read_impacts, read_incidents

SCENARIO = """\
summary: A release leaks; it is rolled over while it does.
seed: 1
duration: 90s
fleet:
  - hosts: 3
    name: box
    memory: 512MiB
    deployments:
      - {name: web, replicas: 2, workload: idle, memory: 4MiB, limits: 48MiB, restarts: [20s]}
      - {name: api, replicas: 1, workload: idle, memory: 4MiB, limits: 48MiB}
timeline:
  - {at: 10500ms, fault: leaking_allocator, on: web, rate: 2MiB/s, for: 60s}
  - {at: 25s, fault: memory_limit, on: web, limit: 40MiB, for: 20s}
  - {at: 30s, fault: memory_limit, on: one api, limit: 32MiB}
expect:
  - {impact: killed, on: web}
"""
METRICS = profile("rules")


def plan_of(folder: Path, restarts: str | None = None) -> Plan:
    """The scenario's, or with other restarts and no expectation of its own."""
    file = folder / "x.yaml"
    text = SCENARIO if restarts is None else SCENARIO.replace(", restarts: [20s]", restarts).partition("expect:")[0]
    file.write_text(text, encoding="utf-8")
    return make_plan(load_scenario(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("following")
    return run_plan(plan_of(folder), folder / "run", METRICS)


@pytest.fixture
def history(run: RunResult) -> list[HistoryEvent]:
    return RunDirectory(Path(run.out)).history


def test_pods_that_come_leak_too_and_those_that_start_again_leak_again(history: list[HistoryEvent]) -> None:
    leaks = [(e.t_ns / NS_PER_S, str(e.data["task"])) for e in history if e.kind == "command" and e.subject == "start_thread"]
    first, second = sorted({name for t_s, name in leaks if t_s == 10.5})
    assert len(leaks) > 4 and {t_s for t_s, name in leaks if name in (first, second)} == {10.5}
    came = {e.subject: e.t_ns / NS_PER_S for e in history if e.kind == "schedule"}
    begun = {name: t_s for t_s, name in reversed(leaks) if name in came}
    assert {name: round(begun[name] - t_s, 3) for name, t_s in came.items()} == dict.fromkeys(came, 1.0), "at the look that sees it"
    again = [(e.t_ns / NS_PER_S, e.subject) for e in history if e.kind == "restart" and e.t_ns < 69 * NS_PER_S]
    assert again and all(any(name == task and t_s <= at < t_s + 1.001 for at, task in leaks) for t_s, name in again)


def test_when_it_ends_it_ends_for_those_that_are_there(history: list[HistoryEvent]) -> None:
    ended = {str(e.data["task"]) for e in history if e.kind == "command" and e.subject == "stop_thread"}
    assert {e.t_ns for e in history if e.kind == "command" and e.subject == "stop_thread"} == {70_500_000_000}
    assert ended == {e.subject for e in history if e.kind == "schedule"}


def test_limits_are_those_of_the_pods_that_are_there(history: list[HistoryEvent]) -> None:
    written = [(e.t_ns // NS_PER_S, int(e.data["bytes"]) >> 20) for e in history if e.kind == "command" and e.subject == "limit"]
    assert written == [(25, 40)] * 4 + [(30, 32)] * 2 + [(45, 48)] * 4, "two pods of web, each with its slice; one of api"


def test_a_fault_of_some_pods_is_said_to_end_with_them(tmp_path: Path) -> None:
    (note,) = plan_of(tmp_path).notes
    assert note.startswith("memory_limit-3 hits the pods of api that 'on: one api' chose when the run began, and not those that replace")


def test_harm_is_certain_only_if_pods_are_not_replaced_meanwhile(tmp_path: Path) -> None:
    """2 MiB/s for a minute are more than a limit of 48 MiB; but pods that are rolled over at 20 s begin with nothing."""
    expected = [plan.expectations for plan in (plan_of(tmp_path, ""), plan_of(tmp_path, ", restarts: [20s]"))]
    ((brought,), none) = ([e for e in every if e.fault == "leaking_allocator-1"] for every in expected)
    assert none == [] and brought.anywhere and brought.on_subjects is not None and "web" in brought.on_subjects


def test_a_pod_that_its_host_may_yet_refuse_is_sent_nothing(tmp_path: Path) -> None:
    """A command to a process that a host does not have would be the end of the run."""
    plan = plan_of(tmp_path)
    planes = plan.control_planes()
    (leaked, *_), begins = plan.faults, 10_500_000_000
    assert len(due(plan, planes, begins, begins + 1)) == 2
    one, other = next(rollout for rollout in planes[0].rollouts if rollout.deployment.name == "web").pods.values()
    one.arrived = False
    assert [target.pod for target in targets(plan, leaked, planes)] == [other.pod.name]
    (command,) = due(plan, planes, begins, begins + 1)
    assert command.args["task"] == other.pod.name


def test_whoever_judges_knows_where_it_went(run: RunResult, history: list[HistoryEvent]) -> None:
    directory = RunDirectory(Path(run.out))
    run_end = directory.manifest.duration_ns
    leak = next(fault for fault in read_faults(history, run_end) if fault.id == "leaking_allocator-1")
    came = {(e.host, e.subject) for e in history if e.kind == "schedule"}
    assert {host for host, _ in came} <= leak.hosts and {pod for _, pod in came} | {"web"} <= leak.subjects
    impacts = read_impacts(history, run_end)
    killed = [impact for impact in impacts if impact.kind == "killed"]
    assert killed and all("web" in impact.subjects for impact in killed)
    assert "no fault" not in {incident.kind for incident in read_incidents(read_faults(history, run_end), impacts)}
    written, *brought = directory.expectations
    assert written.anywhere and written.on_subjects is not None and "web" in written.on_subjects and brought == []


@pytest.mark.parametrize("at_ms", [5_000, 10_500, 20_700, 33_000])
def test_a_branch_without_it_is_the_run_without_it(at_ms: int, run: RunResult, tmp_path: Path) -> None:
    """Dropped before it begins, as it begins, between two looks, and while new pods have it."""
    at_ns, change = at_ms * 1_000_000, Change(dropped=("leaking_allocator",))
    brancher = Brancher(Path(run.out), tmp_path / "scratch")
    plan = what_if(brancher.order.plan, at_ns, change)
    branch = brancher.branch(plan, at_ns, tmp_path / "branch")
    assert branch.history_hash == run_plan(plan, tmp_path / "whole", METRICS).history_hash != run.history_hash
