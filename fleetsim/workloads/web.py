# SPDX-License-Identifier: Apache-2.0
"""The `web` workload: a pool of workers that answer requests out of a working set, each request with memory of its own.

It starts by filling its working set (its code's data, its caches) and answers from then on. A request computes, looks at
random pages of the working set, and holds `request_pages` while it is served or waits: when requests pile up so does memory, and
its high-water mark stays, as a program's heap does. With a leak every request leaves some bytes behind.
Leaves out: what the bytes mean; a thread's own stack.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import ORDERED, UNIFORM, access, at_rest, compute, exit_group, map_anonymous, seldom_used, touch
from fleetsim.workloads.requests import come_up, expected, finish, in_parallel, rest, take

PAGE = 4096
CHUNK = 2048  # pages that are touched in one go
QUIET_TICKS = 5  # ticks between two batches while all that it uses is resident
BUSY_NS = 100_000_000  # at most this much work in one batch, as far as known
STARTING, SERVING = 0, 1

ARGUMENTS = ("base_pages", "request_bytes", "leak_bytes", "cpu_ns", "looks", "start_ns")
(
    BASE_PAGES,  # the working set
    REQUEST_BYTES,  # what a request holds while it is there
    LEAK_BYTES,  # what a request leaves behind
    CPU_NS,  # processor time of a request
    LOOKS,  # pages of the working set that a request looks at
    START_NS,  # processor time that starting takes, besides filling the working set
    HELD_PAGES,  # room for requests, pages
    STAGE,  # STARTING or SERVING
    BASE,  # areas, one more than their rows; 0: none
    HELD,
    LEAK,
    LEFT,  # accesses that the batch under way still makes
    LEAKED,  # bytes left behind
) = range(13)


@law
def start(row, th, w):
    """Map what it will use, and fill the working set; then it answers.

    returns  bool  True: it is up

    Source: fleetsim's own.
    """
    web = row["works"][w]["slots"]
    if web[BASE] == 0:
        server = row["works"][w]["server"]
        web[BASE] = map_anonymous(row, th, web[BASE_PAGES], UNIFORM, 0, 1) + 1
        web[HELD_PAGES] = (server["workers"] + server["queue_max"]) * web[REQUEST_BYTES] // PAGE + 1
        web[HELD] = map_anonymous(row, th, web[HELD_PAGES], ORDERED, 0, 0) + 1
        if web[LEAK_BYTES] > 0:
            web[LEAK] = map_anonymous(row, th, row["totalram"] + row["swap_total"], ORDERED, 0, 0) + 1
        if web[BASE] == 0 or web[HELD] == 0:
            exit_group(row, th, 1)  # no memory: it ends as a program does whose allocation failed
            return False
        compute(row, th, web[START_NS])
    return web[BASE] == 0 or touch(row, th, web[BASE] - 1, CHUNK) < 0


@law
def fill(row, th, a, pages):
    """Touch area `a` up to `pages` pages.

    returns  bool  True: it is as full as that

    Source: first touches of malloc'ed memory.
    """
    if a < 0 or row["areas"][a]["touched"] >= pages:
        return True
    return touch(row, th, a, min(CHUNK, pages - row["areas"][a]["touched"])) < 0


@law
def serve(row, th, w):
    """Go on with the batch under way.

    returns  bool  True: it is done

    Source: fleetsim's own.
    """
    work = row["works"][w]
    web, server = work["slots"], work["server"]
    if not fill(row, th, web[HELD] - 1, min(web[HELD_PAGES], server["present"] * web[REQUEST_BYTES] // PAGE)):
        return False
    if not fill(row, th, web[LEAK] - 1, (web[LEAKED] + server["batch"] * web[LEAK_BYTES]) // PAGE):
        return False
    if web[LEFT] > 0 and web[BASE] > 0:
        web[LEFT] -= max(0, access(row, th, web[BASE] - 1, 0, web[LEFT], 0, 0))
    return web[LEFT] <= 0


@law
def ticks_between(row, web, server):
    """Ticks from one batch to the next: more if all that it uses is there and nobody reclaims, or nobody can tell.

    Source: fleetsim's own pacing; no latency depends on it (requests.py).
    """
    a = web[BASE] - 1
    if a < 0:
        return 1
    looks = expected(row, server, QUIET_TICKS * row["tick_ns"]) * web[LOOKS]
    return QUIET_TICKS if at_rest(row, row["areas"][a]["group"], 1) or seldom_used(row, a, looks) else 1


@law
def step(row, th, w):
    """Start, or answer the requests that have come since the last time.

    Source: fleetsim's own.
    """
    work = row["works"][w]
    web, server = work["slots"], work["server"]
    if web[STAGE] == STARTING:
        if start(row, th, w):
            web[STAGE] = SERVING
            come_up(row, server)
        rest(row, th, server, 0)
        return
    ticks = ticks_between(row, web, server)
    if server["batch"] == 0:
        most = server["workers"] * BUSY_NS // max(1, server["service_ns"])
        n = take(row, th, server, max(server["workers"], most))
        web[LEFT] = n * web[LOOKS]
        if n == 0:
            rest(row, th, server, ticks * row["tick_ns"])
            return
        compute(row, th, n * web[CPU_NS])
    done = serve(row, th, w)
    in_parallel(row, server)
    if done:
        web[LEAKED] += server["batch"] * web[LEAK_BYTES]
        finish(row, th, server)
    rest(row, th, server, ticks * row["tick_ns"] if done and server["backlog"] == 0 else 0)
