# SPDX-License-Identifier: Apache-2.0
"""The local engine with real hosts: the same bits whatever runs them, and a run directory that says what happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fleetsim.errors import BadInput
from fleetsim.fleet.controller import RunResult, run_scenario
from fleetsim.fleet.local import HOSTS_PER_SHARD_MAX, LocalEngine, shard_size
from fleetsim.fleet.plan import make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.observe.catalog import profile
from fleetsim.rundir.reader import RunDirectory

SCENARIO = """\
summary: x
seed: 3
duration: 2m
fleet:
  - hosts: {hosts}
    name: web
    memory: 1GiB
    labels: {{site: north}}
    pods:
      - {{name: app, workload: script, requests: 64MiB, limits: 128MiB, ops: [mmap_anon h 64, touch h 64 32, rewrite h 0 4 random]}}
timeline:
  - {{at: 20s, fault: leaking_allocator, on: web-1/app, rate: 4MiB/s}}
"""


def scenario(folder: Path, hosts: int = 3) -> Path:
    file = folder / "incident.yaml"
    file.write_text(SCENARIO.format(hosts=hosts), encoding="utf-8")
    return file


def run(folder: Path, out: str, **options: object) -> RunResult:
    return run_scenario(scenario(folder), folder / out, **options)  # type: ignore[arg-type]


def test_one_thread_and_four_give_the_same_history(tmp_path: Path) -> None:
    one, four = run(tmp_path, "one", threads=1), run(tmp_path, "four", threads=4)
    assert one.history_hash == four.history_hash
    assert one.impacts >= 2, "the leak is back after a restart"


def test_another_seed_gives_another_history(tmp_path: Path) -> None:
    assert run(tmp_path, "a").history_hash != run(tmp_path, "b", seed=4).history_hash


def test_the_run_directory_says_what_happened(tmp_path: Path) -> None:
    result = run(tmp_path, "out")
    directory = RunDirectory(tmp_path / "out")
    assert directory.manifest.history_hash == result.history_hash
    assert (directory.manifest.seed, directory.manifest.metric_profile) == (3, "full")
    assert [target.labels["instance"] for target in directory.targets] == ["web-0", "web-1", "web-2"]
    assert all(target.labels["site"] == "north" and target.labels["job"] == "node-exporter" for target in directory.targets)
    assert [(place.name, place.host) for place in directory.placements] == [("app", f"web-{n}") for n in range(3)]
    assert "node_memory_MemFree_bytes" in directory.exporters["node_exporter"]
    (expectation,) = directory.expectations
    assert (expectation.kind, expectation.on_hosts, expectation.on_subjects) == ("impact", ["web-1"], ["app"])
    kinds = [event.kind for event in directory.history]
    assert kinds.count("boot") == 3
    assert "oom_kill" in kinds and "fault_start" in kinds


def test_every_host_is_scraped_every_fifteen_seconds_at_its_own_instant(tmp_path: Path) -> None:
    run(tmp_path, "out")
    directory = RunDirectory(tmp_path / "out")
    ups = [number for number, labels in enumerate(directory.series) if labels["__name__"] == "up"]
    assert len(ups) == 3
    ids, times, values = directory.columns(ups)
    offsets = set()
    for number in ups:
        own = times[ids == number]
        assert len(own) == 8
        assert np.all(np.abs(np.diff(own) - 15_000) < 20)
        offsets.add(int(own[0]))
    assert len(offsets) == 3
    assert np.all(values == 1)


class Kept:
    """A sink that keeps samples by host."""

    def __init__(self) -> None:
        self.labels: list[dict[str, str]] = []
        self.rows: dict[tuple[str, str], list[tuple[int, bytes]]] = {}

    def series(self, labels: Mapping[str, str]) -> int:
        self.labels.append(dict(labels))
        return len(self.labels) - 1

    def samples(self, ids: NDArray[np.int64], times_ms: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        for number, t, value in zip(ids, times_ms, values, strict=True):
            labels = self.labels[int(number)]
            key = (labels["instance"], json.dumps(labels, sort_keys=True))
            self.rows.setdefault(key, []).append((int(t), value.tobytes()))


def test_a_host_that_joins_the_fleet_changes_nothing_for_the_others(tmp_path: Path) -> None:
    seen = []
    for hosts in (3, 5):
        sink = Kept()
        plan = make_plan(load_scenario(scenario(tmp_path, hosts)))
        engine = LocalEngine(profile("standard"), sink, threads=2)
        engine.start(plan)
        engine.advance(plan.duration_ns, [c for c in plan.commands() if c.t_ns < plan.duration_ns])
        engine.stop()
        seen.append({key: rows for key, rows in sink.rows.items() if key[0] in ("web-0", "web-1", "web-2")})
    assert seen[0] and seen[0] == seen[1]


def test_shards_are_cut_by_the_number_of_hosts_alone() -> None:
    assert [shard_size(hosts) for hosts in (1, 3, 32, 33, 1000, 100_000)] == [1, 1, 1, 2, 32, HOSTS_PER_SHARD_MAX]


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="not empty"):
        run(tmp_path, "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
