# SPDX-License-Identifier: Apache-2.0
"""How far a run is, in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fleetsim.fleet import progress
from fleetsim.fleet.progress import Speedometer, clock
from fleetsim.units import NS_PER_S


def test_durations_as_a_clock_shows_them() -> None:
    assert [clock(s * NS_PER_S) for s in (0, 59, 60, 750, 3600, 3900, 90_000)] == [
        "0s",
        "59s",
        "1m00s",
        "12m30s",
        "1h00m",
        "1h05m",
        "25h00m",
    ]


def test_what_is_said_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s)
    plan: Any = SimpleNamespace(hosts=range(1234), duration_ns=3600 * NS_PER_S)
    speed = Speedometer(plan, 0)
    now_s = 110.0
    assert speed.says(600 * NS_PER_S, 10, "") == "10m00s of 1h00m, 50s left, 60 × real time, 1,234 hosts, epoch 10"
    for _ in range(progress.WINDOW):  # what was long ago does not count
        now_s += 100.0
        told = speed.says(600 * NS_PER_S + int((now_s - 110) * NS_PER_S), 11, "web-3 took 2.0 × the median")
    assert told == "43m20s of 1h00m, 16m40s left, 1.0 × real time, web-3 took 2.0 × the median, 1,234 hosts, epoch 11"
