# SPDX-License-Identifier: Apache-2.0
"""The life of one alert: inactive → pending → firing, as Prometheus' rules/alerting.go (v2.42) moves it.

The table is the implementation. `present`: the expression returned the alert at this evaluation. `due`:
while present, it has been so for at least `for`; while absent, `keep_firing_for` (0: none) has run out.

    state      present  due      next
    inactive   no       ·        inactive
    inactive   yes      no       pending
    inactive   yes      yes      firing      (for: 0)
    pending    no       ·        inactive
    pending    yes      no       pending
    pending    yes      yes      firing
    firing     yes      ·        firing
    firing     no       no       firing      (kept)
    firing     no       yes      inactive

Leaves out: restoring `for` after a restart of Prometheus (ours never restarts), and Prometheus' memory of resolved
alerts, which only serves notifications.
"""

from __future__ import annotations

from dataclasses import dataclass

INACTIVE, PENDING, FIRING = 0, 1, 2
STATE_NAMES = ("inactive", "pending", "firing")

NEXT = {
    (INACTIVE, False, False): INACTIVE,
    (INACTIVE, False, True): INACTIVE,
    (INACTIVE, True, False): PENDING,
    (INACTIVE, True, True): FIRING,
    (PENDING, False, False): INACTIVE,
    (PENDING, False, True): INACTIVE,
    (PENDING, True, False): PENDING,
    (PENDING, True, True): FIRING,
    (FIRING, True, False): FIRING,
    (FIRING, True, True): FIRING,
    (FIRING, False, False): FIRING,
    (FIRING, False, True): INACTIVE,
}


@dataclass
class AlertState:
    """One label set of one alerting rule. `step` at every evaluation, in order of time."""

    for_ms: int
    keep_ms: int
    state: int = INACTIVE
    active_since_ms: int = 0  # what ALERTS_FOR_STATE shows
    absent_since_ms: int | None = None

    def step(self, now_ms: int, present: bool) -> int:
        if present:
            self.absent_since_ms = None
            if self.state == INACTIVE:
                self.active_since_ms = now_ms
            due = now_ms - self.active_since_ms >= self.for_ms
        else:
            if self.absent_since_ms is None:
                self.absent_since_ms = now_ms
            due = now_ms - self.absent_since_ms >= self.keep_ms
        self.state = NEXT[self.state, present, due]
        return self.state
