# SPDX-License-Identifier: Apache-2.0
"""Many seeds: each run is the one that it would have been alone, and the percentiles are those of the runs."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.fleet.controller import run_scenario
from fleetsim.fleet.ensemble import SeedResult, SeedRun, fan_out, how_much_luck, spread
from fleetsim.fleet.plan import make_plan
from fleetsim.fleet.room import PROCESS, host_bytes, runs_that_fit
from fleetsim.fleet.scenario import load_scenario
from fleetsim.observe.catalog import profile
from tests.fleet.coupled import coupled_file

FULL = profile("full")
SEEDS = (3, 4, 5, 6)


def told(folder: Path) -> list[str]:
    return [folder.name, (folder / "history.jsonl").read_text(encoding="utf-8")[:60]]


def test_each_seeds_run_is_the_one_that_it_would_have_been_alone(tmp_path: Path) -> None:
    """Beside each other in threads, and one by one; a whole coupled fleet, so that every part of a run is in it."""
    file = coupled_file(tmp_path)
    scenario = load_scenario(file)
    jobs = [SeedRun(scenario, seed, tmp_path / f"together-{seed}", FULL, after=told) for seed in SEEDS]
    results = sorted(fan_out(jobs, 3), key=lambda result: result.seed)
    alone = [run_scenario(file, tmp_path / f"alone-{seed}", seed=seed) for seed in SEEDS]
    assert [(r.seed, r.history_hash) for r in results] == [(r.seed, r.history_hash) for r in alone]
    assert len({r.history_hash for r in results}) == len(SEEDS), "the seeds differ"
    assert [sum(r.impacts.values()) for r in results] == [r.impacts for r in alone]
    assert [r.judged[0] for r in results] == [f"together-{seed}" for seed in SEEDS], "each was followed by what was asked for"
    assert all((tmp_path / f"together-{seed}" / "manifest.json").is_file() for seed in SEEDS)


def test_nothing_but_the_summary_is_kept_if_that_is_wished(tmp_path: Path) -> None:
    scenario = load_scenario(coupled_file(tmp_path, "75s"))
    (result,) = fan_out([SeedRun(scenario, 3, tmp_path / "run", FULL, keep=False)])
    assert result.out is None and not (tmp_path / "run").exists()


def test_when_it_is_given_up_nothing_runs_on(tmp_path: Path) -> None:
    scenario = load_scenario(coupled_file(tmp_path))
    fan = fan_out([SeedRun(scenario, seed, tmp_path / f"r{seed}", FULL) for seed in range(40)], 2)
    next(fan), next(fan)
    fan.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith(("seed", "shard"))] == []
    assert len(list(tmp_path.glob("r*"))) < 20, "most were never begun"


def result_of(seed: int, first_s: float | None) -> SeedResult:
    at_ns = None if first_s is None else round(first_s * 1e9)
    return SeedResult(seed, f"hash{seed}", at_ns, at_ns, {} if at_ns is None else {"killed": 1}, f"story{seed}", 0.1, None)


@given(st.lists(st.none() | st.integers(0, 1000), min_size=1, max_size=60))
def test_percentiles_are_nearest_ranks_with_what_never_came_after_the_end(values: list[int | None]) -> None:
    results = [result_of(seed, value) for seed, value in enumerate(values)]
    found = spread(results, lambda result: result.first_impact_ns)
    assert (found.runs, found.came) == (len(values), sum(v is not None for v in values))
    for share, got in ((0.1, found.p10_ns), (0.5, found.p50_ns), (0.9, found.p90_ns)):
        # naively: the least value that so large a share of all runs does not exceed; a run in which it never came exceeds all
        fitting = [v for v in values if v is not None and sum(w is not None and w <= v for w in values) >= share * len(values) - 1e-9]
        assert got == (min(fitting) * 10**9 if fitting else None)
    came = [v for v in values if v is not None]
    assert (found.least_ns, found.most_ns) == ((min(came) * 10**9, max(came) * 10**9) if came else (None, None))


def test_what_luck_decides_is_said() -> None:
    base = result_of(1, 60.0)
    assert how_much_luck([base]) == "" and how_much_luck([base, result_of(2, 90.0)]) == ""
    assert "to the last bit" in how_much_luck([base, replace(base, seed=2)])
    assert "only moves the scrapes" in how_much_luck([base, replace(base, seed=2, history_hash="other")])
    assert "to 250 ms" in how_much_luck([base, result_of(2, 60.25)])
    assert how_much_luck([base, result_of(2, None)]) == ""


def test_no_more_runs_at_once_than_fit(tmp_path: Path) -> None:
    plan = make_plan(load_scenario(coupled_file(tmp_path, "75s")))
    assert runs_that_fit(plan, None) is None and runs_that_fit(plan, 0) == 1
    assert runs_that_fit(plan, PROCESS + 3 * len(plan.hosts) * host_bytes() - 1) == 2


@pytest.mark.slow  # a Ray cluster of our own takes half a minute
def test_seeds_on_a_ray_cluster_have_the_same_hashes(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from fleetsim.fleet.ray_cluster import RayCluster
    from fleetsim.fleet.ray_seeds import fan_out_on

    scenario = load_scenario(coupled_file(tmp_path, "75s"))
    here = {r.seed: r.history_hash for r in fan_out([SeedRun(scenario, s, tmp_path / f"here-{s}", FULL) for s in SEEDS])}
    cluster = RayCluster("local", 2)
    try:
        there = {r.seed: r.history_hash for r in fan_out_on(cluster, [SeedRun(scenario, s, tmp_path / f"ray-{s}", FULL) for s in SEEDS])}
    finally:
        cluster.leave()
    assert there == here
