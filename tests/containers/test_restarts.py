# SPDX-License-Identifier: Apache-2.0
"""When what died starts again: the kubelet's back-off, Docker's restart policies, systemd's Restart= and start limit."""

from __future__ import annotations

import pytest

from fleetsim.containers.restarts import RESTARTS_AFTER as AFTER
from fleetsim.containers.restarts import StartLimit, crash_loop_delay, docker_delay, service_result, wants_restart

S = 10**9


def test_a_container_that_crashes_at_once_starts_later_and_later() -> None:
    """T-17.4: starts at t = 0, 10, 30, 70, 150, 310, 610, 910 …"""
    t, delay, starts = 0, 0, [0]
    for _ in range(7):
        delay = crash_loop_delay(delay, delay)
        t += delay
        starts.append(t // S)
    assert starts == [0, 10, 30, 70, 150, 310, 610, 910]


def test_ten_minutes_without_a_failure_begin_it_anew() -> None:
    assert crash_loop_delay(160 * S, 600 * S) == 300 * S
    assert crash_loop_delay(160 * S, 600 * S + 1) == 10 * S


def test_docker_doubles_from_a_tenth_of_a_second_to_a_minute() -> None:
    delay, delays = 0, []
    for _ in range(12):
        delay = docker_delay(delay, 1 * S)
        delays.append(delay / S)
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60]
    assert docker_delay(25 * S, 11 * S) == S // 10, "it ran for more than ten seconds"


@pytest.mark.parametrize(
    ("policy", "after_success", "after_failure"),
    [("Always", True, True), ("OnFailure", False, True), ("Never", False, False), ("UnlessStopped", True, True)],
)
def test_the_restart_policy_looks_at_the_exit_code(policy: str, after_success: bool, after_failure: bool) -> None:
    assert wants_restart(policy, 0) == after_success
    assert wants_restart(policy, 137) == after_failure


def test_systemd_starts_five_times_in_ten_seconds_and_then_gives_up() -> None:
    limit: StartLimit | None = StartLimit()
    for n in range(5):
        assert limit is not None
        limit = limit.start(n * S)
    assert limit is not None and limit.start(9 * S) is None
    again = limit.start(11 * S)
    assert again is not None and again.starts == 1, "the interval is over"


@pytest.mark.parametrize(
    ("exit_code", "oom", "result"),
    [(0, False, "success"), (143, False, "success"), (1, False, "exit-code"), (139, False, "signal"), (137, True, "oom-kill")],
)
def test_how_a_service_ended(exit_code: int, oom: bool, result: str) -> None:
    assert service_result(exit_code, oom) == result


def test_after_what_systemd_restarts() -> None:
    """systemd.service(5), the table of Restart=."""
    table = {policy: [r in results for r in ("success", "exit-code", "signal", "oom-kill")] for policy, results in AFTER.items()}
    assert table == {
        "no": [False, False, False, False],
        "always": [True, True, True, True],
        "on-success": [True, False, False, False],
        "on-failure": [False, True, True, True],
        "on-abnormal": [False, False, True, True],
        "on-abort": [False, False, True, False],
    }
