# SPDX-License-Identifier: Apache-2.0
"""Bare Docker and systemd services: who restarts what, and what `docker inspect` and `systemctl show` tell of it."""

from __future__ import annotations

from typing import Any

import pytest

from fleetsim.containers.inspect import docker_inspect, seconds, systemctl_show
from tests.containers.pod_worlds import PodWorld, pod_world, script_pod

HOG = "mmap_anon a 100 | touch a 100 100 | sleep 100000"
FAMILY = {"master": "sleep 1000", "child": HOG}


def docker(*args: Any, **more: Any) -> PodWorld:
    return pod_world(script_pod(*args, **more), runtime="docker")


def inspected(w: PodWorld, name: str = "app") -> dict[str, Any]:
    return docker_inspect(w.row, w.shard.names_of(0), name, seconds)


def test_docker_inspect_tells_of_a_kill_by_the_oom_killer() -> None:
    w = docker("app", HOG, limits=40, restart="Never").at(5)
    state = inspected(w)["State"]
    assert (state["Status"], state["OOMKilled"], state["ExitCode"], state["Pid"]) == ("exited", True, 137, 0)


def test_an_exit_with_an_error_is_not_oomkilled_and_137_alone_is_not_either() -> None:
    """`exit code 137` means SIGKILL, whoever sent it (kernel-laws §18)."""
    w = docker("app", "sleep 1000", restart="Never")
    w.command(2, "kill", task="app")
    state = inspected(w.at(4))["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (False, 137)


def test_docker_says_oomkilled_of_a_container_that_lives_on_without_a_child() -> None:
    w = docker("app", limits=40, processes=FAMILY).at(5)
    state = inspected(w)["State"]
    assert (state["Status"], state["OOMKilled"]) == ("running", True)
    assert [k for k, _ in w.story("oom_kill", "process_oom_killed", "container_exit")] == ["oom_kill", "process_oom_killed"]


@pytest.mark.parametrize(
    ("restart", "max_retries", "code", "restarts"),
    [("Never", -1, 1, 0), ("OnFailure", 3, 1, 3), ("OnFailure", -1, 0, 0), ("Always", -1, 0, 7), ("UnlessStopped", -1, 1, 7)],
)
def test_docker_restart_policies(restart: str, max_retries: int, code: int, restarts: int) -> None:
    """no | on-failure:3 | on-failure | always | unless-stopped; within 13 s a doubling delay from 100 ms restarts about seven times."""
    w = docker("app", f"sleep 0.1 | exit {code}", restart=restart, max_retries=max_retries).at(13)
    found = inspected(w)
    assert found["RestartCount"] == pytest.approx(restarts, abs=1 if restarts == 7 else 0)
    assert found["State"]["Restarting"] == (restarts == 7)


def test_a_systemd_service_that_fails_five_times_in_ten_seconds_stays_failed() -> None:
    w = pod_world(script_pod("app", "sleep 0.1 | exit 1", restart="OnFailure"), runtime="systemd", memory_mib=128).at(30)
    shown = systemctl_show(w.row, w.shard.names_of(0), "app")
    assert (shown["ActiveState"], shown["Result"], shown["NRestarts"]) == ("failed", "exit-code", "4")
    assert [k for k, _ in w.story("start_limit_hit")] == ["start_limit_hit"]


def test_systemd_stops_the_whole_unit_when_a_child_is_killed_unless_it_is_told_to_continue() -> None:
    shown = {}
    for policy in ("stop", "continue"):
        w = pod_world(script_pod("app", limits=40, processes=FAMILY, oom_policy=policy, restart="Never"), runtime="systemd")
        shown[policy] = systemctl_show(w.at(6).row, w.shard.names_of(0), "app")
    assert (shown["stop"]["ActiveState"], shown["stop"]["Result"]) == ("failed", "oom-kill")
    assert (shown["continue"]["ActiveState"], shown["continue"]["SubState"]) == ("active", "running")
    assert shown["continue"]["MemoryMax"] == str(40 << 20)


def test_oom_policy_kill_is_the_kernels_group_kill() -> None:
    w = pod_world(script_pod("app", limits=40, processes=FAMILY, oom_policy="kill", restart="Never"), runtime="systemd").at(6)
    assert set(w.kills()) == {"master", "child"}


def test_a_units_states_follow_their_table() -> None:
    """inactive → active → activating (auto-restart) → active → failed: each is a move of lifecycle.UNIT, or the run would stop."""
    w = pod_world(script_pod("app", "sleep 1.95 | exit 1", restart="OnFailure"), runtime="systemd", memory_mib=128)
    names = w.shard.names_of(0)
    seen = []
    for tenth in range(9, 60):
        state = systemctl_show(w.at(tenth / 10).row, names, "app")["ActiveState"]
        seen += [state] if not seen or seen[-1] != state else []
    assert seen[:5] == ["inactive", "active", "activating", "active", "activating"] or seen[:2] == ["active", "activating"]


def test_a_unit_that_somebody_kills_ended_by_a_signal() -> None:
    w = pod_world(script_pod("app", "sleep 1000", restart="Never"), runtime="systemd", memory_mib=128)
    w.command(2, "kill", task="app")
    shown = systemctl_show(w.at(3).row, w.shard.names_of(0), "app")
    assert (shown["ActiveState"], shown["Result"]) == ("failed", "signal")
