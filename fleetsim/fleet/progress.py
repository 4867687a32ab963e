# SPDX-License-Identifier: Apache-2.0
"""How far a run is, for people: epochs, virtual time, speed, hosts, what is left, who is slow.

Leaves out: how it is shown (the command line's business). Nothing here has a say in the run.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

from fleetsim.fleet.plan import Plan
from fleetsim.units import NS_PER_S

WINDOW = 20
"""The speed is that of the last so many looks: the first ones compile, and an incident is slower than a calm hour."""


class Progress(Protocol):
    """Told what is being done, how much of it is done (0..1), and more for those who have room for it."""

    def __call__(self, stage: str, share: float, detail: str = "") -> None: ...


def silent(stage: str, share: float, detail: str = "") -> None:
    """Nobody looks."""


def clock(duration_ns: int) -> str:
    """`12m30s`, `1h05m`, `42s`."""
    minutes, seconds = divmod(duration_ns // NS_PER_S, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"


class Speedometer:
    def __init__(self, plan: Plan, now_ns: int) -> None:
        self._hosts, self._duration_ns = len(plan.hosts), plan.duration_ns
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), now_ns)], WINDOW)

    def says(self, now_ns: int, epochs: int, slowest: str) -> str:
        """`12m30s of 30m, 3s left, 340 × real time, 20 hosts, epoch 91`, and who is slow; what matters most first: a line may be cut."""
        self._seen.append((time.monotonic(), now_ns))
        (since_s, since_ns), (at_s, at_ns) = self._seen[0], self._seen[-1]
        speed = (at_ns - since_ns) / NS_PER_S / max(at_s - since_s, 1e-6)
        left_s = round((self._duration_ns - now_ns) / NS_PER_S / max(speed, 1e-6))
        words = [
            f"{clock(now_ns)} of {clock(self._duration_ns)}",
            f"{clock(min(left_s, 10**7) * NS_PER_S)} left",
            f"{speed:,.0f} × real time" if speed >= 10 else f"{speed:.1f} × real time",
            *([slowest] if slowest else []),
            f"{self._hosts:,} host{'' if self._hosts == 1 else 's'}",
            f"epoch {epochs:,}",
        ]
        return ", ".join(words)
