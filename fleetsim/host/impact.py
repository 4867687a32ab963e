# SPDX-License-Identifier: Apache-2.0
"""Harm that a user of the host would notice, measured: a task killed, or a task that does not keep its pace.

`killed` opens when the kernel kills a task and closes when somebody does its work again: it is restarted; for a child, its parent forks
the next one or begins anew; for a pod of a Deployment, the pod has left (what is missing then is a replica). Else it stays open.
`slow` opens when a paced thread did less than half of what its pace asked for during ten seconds, and closes after ten seconds at
80 % and more: the distance between the two keeps it from flapping. A server has two more, each measured over ten seconds and closed by
ten seconds that are in order: `latency`, when more of its requests than its objective allows took longer than that says (or none is
answered while the oldest waits longer), and `errors`, when more than one in a hundred failed: refused, given up, or broken off.
`unresponsive` is a host on which nobody got anything done for nine tenths of ten seconds, because all waited for memory.
Nothing here looks at memory: only at work not done.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.events import IMPACT_END, IMPACT_START, record
from fleetsim.linux.mm_types import NR_THREADS, NS_PER_S, PSI_FULL, PSI_MEM
from fleetsim.workloads.arrivals import DONE, FAILED, LATE
from fleetsim.workloads.requests import observe, stuck_ns
from fleetsim.workloads.works import NR_WORKS

WINDOW_NS = 10 * NS_PER_S
IMPACT_SLOW, IMPACT_KILLED, IMPACT_LATENCY, IMPACT_ERRORS, IMPACT_UNRESPONSIVE = range(5)
IMPACT_NAMES = ("slow", "killed", "latency", "errors", "unresponsive")
FAILED_PERMILLE = 10  # of a thousand requests in ten seconds so many may fail
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


@law
def measure_host(row):
    """Did all that wanted to work wait for memory?

    Source: PSI memory full (kernel/sched/psi.c) over the last ten seconds; nine tenths are fleetsim's own definition.
    """
    total = row["psi_total_ns"][PSI_MEM][PSI_FULL]
    stalled = total - row["full_seen_ns"]
    row["full_seen_ns"] = total
    is_open = 1 if stalled * 10 >= WINDOW_NS * 9 else 0
    row["stalled_open"] = set_impact(row, -1, IMPACT_UNRESPONSIVE, row["stalled_open"], is_open, -1, stalled * 1000 // WINDOW_NS)


@law
def set_impact(row, t, impact, was_open, is_open, w, permille):
    """Tell the history if an impact of a server opened or closed.

    returns  int64  is_open

    Source: fleetsim's own definition of the impacts `latency` and `errors`.
    """
    if is_open != was_open:
        record(row, IMPACT_START if is_open > 0 else IMPACT_END, t, impact, w, permille, 0, 0, 0, 0, 0)
    return is_open


@law
def measure_servers(row):
    """Compare what every server did for its users since the last look with its objectives.

    Source: fleetsim's own definition of the impacts `latency` and `errors`.
    """
    for w in range(NR_WORKS):
        work = row["works"][w]
        server = work["server"]
        if server["used"] == 0:
            continue
        observe(row, server)
        window = server["window"]
        done, late, failed = window[DONE], window[LATE], window[FAILED]
        waiting = server["backlog"] > 0 and stuck_ns(row, server) > server["slo_ns"]
        if server["slo_ns"] > 0 and (done > 0 or waiting):
            permille = 1000 * late // done if done > 0 else 1000
            is_open = 1 if permille > server["late_permille"] else 0
            server["late_open"] = set_impact(row, work["task"], IMPACT_LATENCY, server["late_open"], is_open, w, permille)
        if done + failed > 0:
            permille = 1000 * failed // (done + failed)
            is_open = 1 if permille > FAILED_PERMILLE else 0
            server["failing_open"] = set_impact(row, work["task"], IMPACT_ERRORS, server["failing_open"], is_open, w, permille)
        window[:] = 0
