# SPDX-License-Identifier: Apache-2.0
"""The `idle` workload: a process that takes some memory and sleeps. The example of all there is to a workload's laws.

A workload is its slots (numbers of its own, arguments first), a law that goes on with it, and a line in each of two places of
`works.py`. What a scenario may say of it is a model in `fleetsim/containers/idle.py`.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import ORDERED, map_anonymous, touch

DAY_NS = 86_400 * 10**9
CHUNK = 2048  # pages between two looks at the clock

ARGUMENTS = ("pages",)
(
    PAGES,  # how much it takes
    AREA,  # 0: nothing is mapped yet, else one more than the row of its area
) = range(2)


@law
def step(row, th, w):
    """One chunk of work; says in `ready_ns` when it goes on.

    Source: fleetsim's own.
    """
    idle = row["works"][w]["slots"]
    thread = row["threads"][th]
    if idle[AREA] == 0 and idle[PAGES] > 0:
        idle[AREA] = map_anonymous(row, th, idle[PAGES], ORDERED, 0, 1) + 1
    done = touch(row, th, idle[AREA] - 1, CHUNK) if idle[AREA] > 0 else -1
    thread["ready_ns"] = row["now_ns"] + row["spent_ns"] + row["wait_ns"]
    if done < 0:
        thread["ready_ns"] += DAY_NS
