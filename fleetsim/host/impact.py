# SPDX-License-Identifier: Apache-2.0
"""Harm that a user of the host would notice, measured: a task killed, or a task that does not keep its pace.

`killed` opens when the kernel kills a task and closes when it runs again (or stays open). `slow` opens when a paced
thread did less than half of what its pace asked for during ten seconds, and closes after ten seconds at 80 % and more:
the distance between the two keeps it from flapping. Nothing here looks at memory: only at work not done.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.events import IMPACT_END, IMPACT_START, record
from fleetsim.linux.mm_types import NR_THREADS, NS_PER_S

WINDOW_NS = 10 * NS_PER_S
IMPACT_SLOW, IMPACT_KILLED = 0, 1
IMPACT_NAMES = ("slow", "killed")
OPENS_BELOW, CLOSES_ABOVE = 50, 80  # percent of the pace


@law
def measure_pace(row):
    """Compare every paced thread's progress with its pace since the last comparison.

    Source: fleetsim's own definition of the impact `slow`.
    """
    for th in range(NR_THREADS):
        thread = row["threads"][th]
        if thread["used"] == 0:
            if row["slow_open"][th]:
                row["slow_open"][th] = 0
                record(row, IMPACT_END, thread["task"], IMPACT_SLOW, th, 0, 0, 0, 0, 0, 0)
            row["slow_seen"][th][0] = 0
            row["slow_seen"][th][1] = 0
            continue
        program = row["programs"][th]
        done = program["progress"] - row["slow_seen"][th][0]
        due = pace_due(row, program) - row["slow_seen"][th][1]
        row["slow_seen"][th][0] += done
        row["slow_seen"][th][1] += due
        if due <= 0:
            continue
        percent = 100 * done // due
        if row["slow_open"][th] == 0 and percent < OPENS_BELOW:
            row["slow_open"][th] = 1
            record(row, IMPACT_START, thread["task"], IMPACT_SLOW, th, percent, 0, 0, 0, 0, 0)
        elif row["slow_open"][th] and percent >= CLOSES_ABOVE:
            row["slow_open"][th] = 0
            record(row, IMPACT_END, thread["task"], IMPACT_SLOW, th, percent, 0, 0, 0, 0, 0)


@law
def pace_due(row, program):
    """Pages that a thread's pace has asked for so far.

    Source: fleetsim's own definition; the pace of the op under way counts from its begin.
    """
    if program["op"] >= program["ops"] or program["fresh_op"]:
        return program["due"]
    op = row["ops"][program["first"] + program["op"]]
    if op["ns_per_quantum"] <= 0:
        return program["progress"]
    asked = (row["now_ns"] - program["begun_ns"]) * 64 // op["ns_per_quantum"]
    if op["pages"] > 0:
        asked = min(asked, op["pages"])
    return program["due"] + asked
