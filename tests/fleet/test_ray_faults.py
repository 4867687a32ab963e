# SPDX-License-Identifier: Apache-2.0
"""Whoever dies on Ray, an actor, a machine, the driver: the run comes to the end that it would have had, and nothing is left over."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from fleetsim.fleet.checkpoint import Every
from fleetsim.fleet.controller import RunResult, resume_plan, run_plan
from fleetsim.fleet.plan import Plan
from tests.fleet.coupled import coupled_file
from tests.fleet.ray_worlds import PROFILE, TWO_MINUTES, kill_9, killing, pids_of, ray_engine, samples_of, session_of, started

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("every", [0, 15])
def test_kill_9_of_actors_between_and_inside_epochs(plan: Plan, local: RunResult, tmp_path: Path, every: int) -> None:
    killed: list[int] = []
    deaths = {
        5: kill_9(0, killed),
        44: kill_9(1, killed),
        45: kill_9(0, killed, in_s=0.05),
        80: kill_9(1, killed, in_s=0.01),
        118: kill_9(0, killed),
    }
    with ray_engine("local", 4) as engine:
        result = run_plan(plan, tmp_path / "run", PROFILE, engine=killing(engine, deaths), every=Every(epochs=every))
    assert len(set(killed)) == 5, "each time another process"
    assert result.history_hash == local.history_hash
    assert samples_of(result.out) == samples_of(local.out)


def test_without_checkpoints_the_calls_that_are_kept_for_an_actor_that_dies_stay_within_a_bound(
    plan: Plan, local: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is beyond it is on disk, as a state of the hosts; of those there is one at a time, and none in the end."""
    monkeypatch.setattr("fleetsim.fleet.ray_engine.SINCE_BYTES_MAX", 20_000)
    folder = tmp_path / "run" / "checkpoint"
    killed: list[int] = []
    seen: list[str] = []

    def look(engine: Any) -> None:
        states = list(folder.glob("actors-*"))
        assert len(states) <= 1
        assert engine._since_bytes == sum(len(one) + 100 for since in engine._since for one in since) <= 20_000
        seen.extend(state.name for state in states)

    deaths: dict[int, Any] = dict.fromkeys(range(1, 120), look)
    deaths |= {60: kill_9(0, killed), 61: kill_9(1, killed, in_s=0.01), 110: kill_9(0, killed)}
    with ray_engine("local", 4) as engine:
        result = run_plan(plan, tmp_path / "run", PROFILE, engine=killing(engine, deaths))
    assert len(set(killed)) == 3
    assert len(set(seen)) >= 3, "three times the calls were too many"
    assert not list(folder.glob("actors-*"))
    assert result.history_hash == local.history_hash
    assert samples_of(result.out) == samples_of(local.out)


def test_when_a_machine_is_lost_its_hosts_go_on_on_another(plan: Plan, local: RunResult, tmp_path: Path, cluster: Any) -> None:
    """kill -9 of a raylet: its actors die with it, and Ray starts them anew on the machine that is left."""
    import ray

    seen: list[set[str]] = []
    names: list[str] = []

    def lose_a_machine(engine: Any) -> None:
        seen.append(set(engine._nodes()))
        names.extend(ray.util.list_named_actors())
        (worker,) = [node for node in cluster.list_all_nodes() if not node.head]
        for info in worker.all_processes["raylet"]:
            os.kill(info.process.pid, signal.SIGKILL)

    with ray_engine(cluster.address, 3) as engine:
        result = run_plan(plan, tmp_path / "run", PROFILE, engine=killing(engine, {50: lose_a_machine}), every=Every(epochs=15))
    assert len(seen[0]) == 2, "the actors were on both machines"
    assert sorted(names) == ["fleetsim hosts node-1 - node-2", "fleetsim hosts shop-0 - shop-2", "fleetsim hosts shop-3 - node-0"]
    assert result.history_hash == local.history_hash


def test_a_cluster_that_is_not_ours_stays_as_it_is_and_its_machines_need_not_see_the_run_directory(
    plan: Plan, local: RunResult, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a token that no machine finds, every block of samples comes through Ray."""
    from fleetsim.fleet import ray_engine as module

    duty = module.Duty
    monkeypatch.setattr(module, "Duty", lambda **fields: duty(**{**fields, "token": "of another machine"}))
    before = pids_of(cluster)
    killed: list[int] = []
    deaths = {30: kill_9(0, killed), 90: kill_9(1, killed)}
    with ray_engine(cluster.address, 4) as engine:
        result = run_plan(plan, tmp_path / "run", PROFILE, engine=killing(engine, deaths), every=Every(epochs=25))
    assert result.history_hash == local.history_hash
    assert samples_of(result.out) == samples_of(local.out)
    assert all(Path(f"/proc/{pid}").exists() for pid in before)
    assert not list((tmp_path / "run" / "samples").glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_when_the_driver_ends_nothing_of_it_runs_on_and_the_run_can_be_gone_on_with(
    local: RunResult, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    process = started(coupled_file(tmp_path), "--out", out, "--profile", "standard", "--checkpoint-every", 7, "--ray", "local")
    while not (out / "checkpoint" / "00003").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    assert len(session_of(process)) > 3
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does it: to Ray's processes too
    else:
        process.send_signal(number)
    _, stderr = process.communicate(timeout=TWO_MINUTES)
    assert process.returncode == (130 if number == signal.SIGINT else -9), stderr
    assert "Traceback" not in stderr
    deadline = time.monotonic() + TWO_MINUTES  # Ray's agents look for their raylet every half minute
    while session_of(process) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not session_of(process)
    assert resume_plan(out).history_hash == local.history_hash
