# SPDX-License-Identifier: Apache-2.0
"""How requests arrive at a server, and what is known of it: the row that all workloads with users share.

Arrivals are a rate: constant, or a sine over a day, or what somebody outside sets. What becomes of them is in `requests.py`.
Leaves out: bursts; single requests.
"""

from __future__ import annotations

import numpy as np

from fleetsim.law import law

NS_PER_MS = 1_000_000
LE_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
"""Upper bounds of the latency histogram, as client libraries of Prometheus choose them by default."""
NR_BUCKETS = len(LE_MS) + 1
RATE_NS = 10**12  # a rate counts requests per 1000 s
DONE, LATE, FAILED = 0, 1, 2
COUNTERS = ("arrived", "served", "refused", "timed_out", "broken", "late")
"""Fields of SERVER that count requests since the boot of the host."""
IO = 1  # kind of stall (PSI_IO)

SERVER = np.dtype(
    [
        ("used", "i1"),
        ("ready", "i1"),  # 1: it answers; 0: it starts up, or its process is gone
        ("late_open", "i1"),  # 1: an impact `latency` is open
        ("failing_open", "i1"),  # … `errors`
        ("late_permille", "i2"),  # so many of a thousand requests may take longer than slo_ns
        ("workers", "i4"),  # requests that are served at the same time
        ("queue_max", "i4"),  # requests that may wait; more are refused
        ("cancels", "i1"),  # 1: it notices that a client went away, and drops the request; 0: it serves it for nothing
        ("known", "i1"),  # 1: it was up before, so that clients know of it
        ("rate", "i8"),  # requests per 1000 s on average, also set from outside …
        ("swing", "i8"),  # … so many more at the busiest time, fewer at the quietest
        ("period_ns", "i8"),
        ("peak_ns", "i8"),  # when the busiest time is
        ("since_ns", "i8"),  # arrivals are counted up to here
        ("carry", "i8"),  # part of a request that is still to come, 10^12ths
        ("backlog", "i8"),  # arrived, not begun
        ("oldest_ns", "i8"),  # when the first of them arrived
        ("held_ns", "i8"),  # a delay during which no worker was to be had began then, 0: there was none …
        ("released_ns", "i8"),  # … and ended then
        ("wake_ns", "i8"),  # when the next batch was to begin
        ("free_ns", "i8"),  # when the workers are done with what they took
        ("present", "i4"),  # requests that were there at the same time when the last batch began, waiting or served
        ("batch", "i4"),  # requests under way, 0: none
        ("began_ns", "i8"),  # … since when
        ("work_ns", "i8"),  # … what they took so far, added up
        ("room_ns", "i8"),  # … what they took of the workers' time, with all of them busy
        ("io_ns", "i8"),  # … of that for a disk
        ("majflt", "i8"),  # the task's major faults before them, less those that waited for a disk in other calls
        ("service_ns", "i8"),  # what a request took last, on average
        ("pace_ns", "i8"),  # … and how much later it would have let the next one begin, with all workers busy
        ("finish_ms", "i4"),  # so long it finishes what it has after SIGTERM, taking nothing new; 0: it ends at once
        ("closing", "i1"),  # 1: that is what it does now
        ("timeout_ns", "i8"),  # after that long clients give up; 0: never
        ("slo_ns", "i8"),
        ("arrived", "i8"),
        ("served", "i8"),
        ("refused", "i8"),
        ("timed_out", "i8"),
        ("broken", "i8"),  # requests that failed on the server's side
        ("late", "i8"),  # requests served, but later than the objective
        ("latency_sum_us", "i8"),
        ("buckets", "i8", (NR_BUCKETS,)),  # requests served within LE_MS[k] but not within the bound before it
        ("window", "i8", (3,)),  # requests done, of them late, and failed since the last look
    ]
)


@law
def share_of(count, part, whole):
    """count · part / whole, rounded down, for counts below 2^43 and times below 2^53 ns.

    Source: arithmetic, in 2^20ths of microseconds.
    """
    if part >= whole:
        return count
    if part <= 0:
        return 0
    return count * (((part >> 10) << 20) // max(1, whole >> 10)) >> 20


@law
def sine_q(degrees):
    """2^20 · sin(x), x in degrees: within 0.2 %.

    Source: Bhaskara I's approximation, 4x(180−x) / (40500 − x(180−x)); integers only.
    """
    x = degrees % 360
    half = x % 180
    value = (4 * half * (180 - half) << 20) // (40_500 - half * (180 - half))
    return value if x < 180 else -value


@law
def rate_now(server, now):
    """Requests per 1000 s at the instant `now`.

    Source: a sine over the period, a common picture of a day's load.
    """
    if server["swing"] == 0:
        return server["rate"]
    degrees = (now - server["peak_ns"]) % server["period_ns"] * 360 // server["period_ns"] + 90
    return server["rate"] + (server["swing"] * sine_q(degrees) >> 20)


@law
def lose(server, n, counter):
    """`n` of the requests that wait have failed; what counts them is up to the caller.

    returns  int64  the new value of the counter

    Source: fleetsim's own.
    """
    server["backlog"] -= n
    server["window"][FAILED] += n
    return counter + n


@law
def arrive(row, server):
    """Count what arrived up to now. A server that is shutting down has closed its listening socket: it refuses.

    Source: arrivals are even at the rate.
    """
    passed = row["now_ns"] - server["since_ns"]
    if passed <= 0:
        return
    whole = (
        rate_now(server, row["now_ns"]) * (passed // 1000) + server["carry"]
    )  # in microseconds: no overflow at a million a second for 100 days
    new = whole // (RATE_NS // 1000)
    server["carry"] = whole - new * (RATE_NS // 1000)
    if server["backlog"] == 0:
        server["oldest_ns"] = server["since_ns"]
    server["since_ns"] += passed // 1000 * 1000
    server["arrived"] += new
    server["backlog"] += new
    if server["closing"] > 0 and new > 0:
        server["refused"] = lose(server, new, server["refused"])
