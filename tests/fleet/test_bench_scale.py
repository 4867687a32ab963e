# SPDX-License-Identifier: Apache-2.0
"""The scale bench measures what it says, on fleets that a test can afford; its arithmetic is checked on figures that are known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fleetsim.cli.main import execute
from fleetsim.fleet import room
from fleetsim.fleet.controller import run_plan
from fleetsim.fleet.scale_fleet import NEEDED, containers, scale_plan
from fleetsim.fleet.scale_meter import Measured
from fleetsim.fleet.scale_report import Resources, Row, human
from fleetsim.law import SIZE_CLASS_VARIABLE
from fleetsim.observe.catalog import profile

# 1,000 hosts for 100 s in 20 s of wall time on 2 workers, each busy 15 s, of which 1 s for blocks; the controller took 2 s
KNOWN = Measured(
    hosts=1000,
    workers=2,
    epochs=100,
    simulated_s=100.0,
    wall_s=20.0,
    cpu_s=28.0,
    slowest_s=16.0,
    busy_s=30.0,
    writing_s=2.0,
    driver_s=2.0,
    start_s=9.0,
    seal_s=1.0,
    run_s=100.0,
    worker_bytes=300_000_000,
    driver_bytes=100_000_000,
    samples=40_000,
    sample_file_bytes=100_000,
    events=10,
    history_hash="",
)
ALONE = replace(KNOWN, hosts=500, workers=1, wall_s=18.0)


def test_what_is_worked_out_of_known_figures() -> None:
    row = Row(KNOWN, ALONE, Resources(20_000_000_000, own_memory=True))
    assert row.per_core == 2500
    assert row.efficiency == pytest.approx(0.9)
    assert row.driver_us == pytest.approx(20.0)
    keeps = row.keeps()
    assert keeps["cores"] == pytest.approx(1000 * 2 / 0.28)
    assert keeps["disk"] == pytest.approx(1000 * 2 / 0.02)
    assert keeps["driver"] == pytest.approx(50_000)
    assert keeps["memory"] == pytest.approx(50_000)
    assert row.bottleneck == "cores"
    assert row.shares() == pytest.approx({"busy": 0.75, "waiting": 0.05, "driver": 0.1})


@pytest.mark.parametrize(
    ("first", "changed", "memory"),
    [
        ("memory", {}, 1_000_000_000),
        ("driver", {"driver_s": 19.0}, None),
        ("disk", {"writing_s": 28.0}, None),
        ("cores", {}, None),
    ],
)
def test_the_first_bottleneck_is_the_resource_that_keeps_the_fewest_hosts(
    first: str, changed: dict[str, float], memory: int | None
) -> None:
    row = Row(replace(KNOWN, **changed), ALONE, Resources(memory, own_memory=False))  # type: ignore[arg-type]
    assert row.bottleneck == first
    assert f"first bottleneck {first}" in row.words()


def test_counts_for_people_have_two_digits() -> None:
    assert [human(count) for count in (7.4, 1234, 98_765, 3e12)] == ["7", "1,200", "99,000", "1e9 and more"]


def test_the_fleet_has_its_containers_and_each_serves_and_holds(tmp_path: Path) -> None:
    plan = scale_plan(3, 40)
    assert [len(host.pods) for host in plan.hosts] == [containers()] * 3
    assert len(plan.services[0].replicas) == 3 and len(plan.faults[0].targets) == 1
    run_plan(plan, tmp_path / "run", profile("rules", NEEDED), 2)
    events = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    ready = [event for event in events if event["kind"] == "pod_ready"]
    assert len(ready) == 3 * containers()
    assert not [event for event in events if event["kind"] in ("table_full", "impact_start")]


def test_the_command_measures_two_sizes_in_this_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["bench", "scale", "--hosts", "2,4", "--duration", "33s", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [size["measured"]["hosts"] for size in told["sizes"]] == [2, 4]
    for size in told["sizes"]:
        measured = size["measured"]
        assert measured["epochs"] == 3 and measured["simulated_s"] == 3.0
        assert measured["cpu_s"] > 0 and measured["driver_s"] > 0 and measured["wall_s"] > 0
        assert measured["samples"] > 0 and size["bottleneck"] in size["hosts_kept"]
        assert size["alone"]["workers"] == 1


def test_a_size_that_does_not_fit_is_said_and_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemAvailable:     400000 kB\n", encoding="ascii")
    monkeypatch.setattr(room, "MEMINFO", meminfo)
    assert execute(["bench", "scale", "--hosts", "2,5000000", "--duration", "33s"]) == 0
    assert "5,000,000 hosts: skipped: scale: 5,000,000 hosts need about" in capsys.readouterr().out
    assert execute(["bench", "scale", "--hosts", "5000000"]) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["scale", "--hosts", "ten"], "--hosts is 'ten'; write whole numbers from 1"),
        (["scale", "--hosts", "0"], "--hosts is '0'"),
        (["scale", "--duration", "30s"], "--duration is '30s'; write 31s or more"),
        (["scale", "--stand-in", "1", "--ray", "local"], "--stand-in needs no cluster"),
        (["malloc", "--hosts", "3"], "--hosts goes with fleetsim bench scale, not with fleetsim bench malloc"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["bench", *arguments]) == 2
    assert told in capsys.readouterr().err.splitlines()[0]


@pytest.mark.slow
def test_a_thousand_hosts_run_on_ray_and_the_controller_is_not_what_limits() -> None:
    pytest.importorskip("ray")
    from fleetsim.fleet.bench_scale import run_bench_scale

    result = run_bench_scale(lambda stage, share: None, (1000,), "local", 60)
    (row,) = result.rows
    assert isinstance(row, Row)
    assert row.measured.workers >= 1 and row.measured.worker_bytes > 1000 * 200_000
    assert row.bottleneck != "driver" and row.bytes_per_host < room.host_bytes()


@pytest.mark.slow
def test_small_hosts_come_to_their_end_on_ray_in_little_memory() -> None:
    """The smoke test of a hundred thousand of them (docs/benchmarks.md), with fewer."""
    pytest.importorskip("ray")
    hosts = 3000
    done = subprocess.run(
        [sys.executable, "-m", "fleetsim", "bench", "scale", "--ray", "local", "--hosts", str(hosts), "--duration", "60s", "--json"],
        env={**os.environ, SIZE_CLASS_VARIABLE: "small"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (size,) = json.loads(done.stdout)["sizes"]
    measured = size["measured"]
    assert size["record_bytes"] <= 32 << 10 and size["bytes_per_host"] < 64 << 10
    assert measured["hosts"] == hosts and measured["run_s"] == 60.0
    assert measured["events"] >= hosts * (1 + 2 * 3), "each has booted, and each of its containers has started and become ready"
    assert measured["samples"] >= hosts * 4 * len(NEEDED), "each was scraped four times"
