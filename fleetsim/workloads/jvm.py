# SPDX-License-Identifier: Apache-2.0
"""The `jvm` workload: a service on a HotSpot JVM with the G1 or the Serial collector.

It starts by reading its live set into the heap, all of which survives the first collections, and answers from then on. A request computes,
looks at pages of the hot live data, and allocates in eden; when eden is full the world stops (`jvm_gc.py`). With a leak each
request leaves bytes that stay reachable. When even a full collection makes no room, the requests that allocate fail with an
OutOfMemoryError, and with `exit_on_oom` the process ends with exit code 3. A kill by the kernel is another thing: it comes from pages.
Leaves out: "GC overhead limit exceeded", which in JDK 17 only the Parallel collector throws (psScavenge.cpp; neither G1 nor Serial look
at UseGCOverheadLimit); threads of their own for concurrent marking, whose processor time is spread over the host's CPUs here.
"""

from __future__ import annotations

from fleetsim.law import ONE_Q, law
from fleetsim.linux.syscalls import OUT_OF_MEMORY_ERROR, access, access_rest, compute, exit_group, is_resident, touch, write_log
from fleetsim.workloads.arrivals import lose, rate_now
from fleetsim.workloads.jvm_gc import begin_gc, collect, collection_for, visit_cold
from fleetsim.workloads.jvm_heap import CHUNK, allocate, eden_room, fill_live, map_heap, own_pages, sweep
from fleetsim.workloads.jvm_sizes import expect, set_eden
from fleetsim.workloads.jvm_state import ARGUMENTS as ARGUMENTS
from fleetsim.workloads.jvm_state import (
    BACKGROUND,
    BATCHES,
    CONCURRENT_START,
    CONCURRENT_THREADS,
    CPU_NS,
    CURSOR,
    EDEN_MAX,
    ERRORS,
    EXIT_ON_OOM,
    FILLED,
    FILLING,
    FULL_GC,
    GC,
    GC_BEGAN_NS,
    GOAL,
    HEAP_MAX,
    HOT,
    IDLE,
    LAST_GC_NS,
    LAST_NS,
    LEAK_BYTES,
    LEFT,
    LIVE_SET,
    LOOKS,
    LOOKS_LEFT,
    MARK_COLD,
    MARK_HOT,
    MARK_KIB,
    MARK_READY_NS,
    MARKING,
    MIB,
    NATIVE,
    NATIVE_AT,
    NO_GC,
    OLD,
    OLD_LIVE,
    OUT_OF_MEMORY,
    PAGE,
    PERIODIC_NS,
    PHASE,
    REGION,
    REMARK,
    REQUEST_BYTES,
    SERVING,
    STAGE,
    START_NS,
    STARTING,
    SWEPT,
    TENURED_PERMILLE,
    YOUNG,
)
from fleetsim.workloads.requests import come_up, finish, in_parallel, rest, take

QUIET_NS = 1_000_000_000  # between two batches while nothing is near
BUSY_NS = 100_000_000  # at most this much work in one batch, as far as known
QUIET_BATCHES = 8
QUIET_CHUNK = 8 * CHUNK  # pages that marking visits in one go then
FILL_BYTES = 16 * MIB
EXIT_BY_FLAG, EXIT_BY_MAIN = 3, 1  # ExitOnOutOfMemoryError; an exception that nobody catches in main
RATE_S = 1000  # rates of requests count 1000 s


@law
def start(row, th, jvm):
    """Map the heap, load classes, compile, start threads.

    returns  bool  True: its own memory is there

    Source: fleetsim's own.
    """
    if jvm[YOUNG] == 0:
        if not map_heap(row, th, jvm):
            exit_group(row, th, EXIT_BY_MAIN)
            return False
        expect(jvm)
        jvm[LAST_NS] = row["now_ns"]
        jvm[LAST_GC_NS] = row["now_ns"]
        set_eden(jvm)
        compute(row, th, jvm[START_NS])
    missing = own_pages(jvm) - row["areas"][jvm[NATIVE] - 1]["touched"]
    return missing <= 0 or touch(row, th, jvm[NATIVE] - 1, min(CHUNK, missing)) < 0


@law
def out_of_memory(row, th, server, jvm):
    """Not even a full collection made room: whoever allocates now fails. The history is told once.

    Source: g1CollectedHeap.cpp satisfy_failed_allocation; collectedHeap report_java_out_of_memory.
    """
    if jvm[OUT_OF_MEMORY] == 0:
        write_log(row, th, OUT_OF_MEMORY_ERROR, jvm[OLD_LIVE] // PAGE, jvm[HEAP_MAX] // PAGE, 0)
    jvm[OUT_OF_MEMORY] = 1
    jvm[ERRORS] += 1
    if jvm[EXIT_ON_OOM] > 0:
        exit_group(row, th, EXIT_BY_FLAG)
    elif jvm[STAGE] == FILLING:
        exit_group(row, th, EXIT_BY_MAIN)


@law
def after_full(row, th, server, jvm):
    """A full collection is over: is there room for what is to be allocated?

    Source: an allocation that fails after a full collection throws (java.lang.OutOfMemoryError: Java heap space).
    """
    if eden_room(jvm) < max(jvm[REGION], jvm[REQUEST_BYTES]):
        out_of_memory(row, th, server, jvm)
    else:
        jvm[OUT_OF_MEMORY] = 0


@law
def fill(row, th, jvm):
    """Go on reading the live set, or collect what is in the way.

    returns  bool  True: all of it is there

    Source: fleetsim's own.
    """
    if jvm[LEFT] == 0:
        size = min(FILL_BYTES, min(eden_room(jvm), jvm[LIVE_SET] - jvm[FILLED]))
        fill_live(jvm, size)
        if size == 0 and jvm[FILLED] < jvm[LIVE_SET]:
            begin_gc(row, jvm, collection_for(jvm))
            return False
    return sweep(row, th, jvm) and jvm[FILLED] >= jvm[LIVE_SET]


@law
def mark(row, th, jvm):
    """Concurrent marking goes on, by threads of its own: what it waits for delays it, not the requests. While all that was touched is
    resident and nobody reclaims, nothing can keep it waiting, and it does more in one go.

    Source: g1ConcurrentMark.cpp; its remark is a pause.
    """
    if jvm[PHASE] != MARKING or row["now_ns"] < jvm[MARK_READY_NS]:
        return
    spent, wait = row["spent_ns"], row["wait_ns"]
    done = 0
    most = QUIET_CHUNK if is_resident(row, jvm[OLD] - 1) else CHUNK
    if jvm[MARK_HOT] > 0:
        done = access_rest(row, th, jvm[OLD] - 1, 0, min(most, jvm[MARK_HOT]), jvm[MARK_HOT], 0)
        jvm[MARK_HOT] -= done
    elif jvm[MARK_COLD] > 0:
        done = visit_cold(row, th, jvm, min(most, jvm[MARK_COLD]), jvm[MARK_COLD], 1)
        jvm[MARK_COLD] -= done
    compute(row, th, max(0, done) * (PAGE >> 10) * MARK_KIB)
    threads = max(1, jvm[CONCURRENT_THREADS])
    took = row["spent_ns"] - spent + row["wait_ns"] - wait
    jvm[MARK_READY_NS] = row["now_ns"] + max(1_000_000, took // threads)
    row["spent_ns"] = spent + (row["spent_ns"] - spent) // max(1, row["cpus"])
    row["wait_ns"] = wait
    if jvm[MARK_HOT] + jvm[MARK_COLD] <= 0:
        begin_gc(row, jvm, REMARK)


@law
def fail_all(server):
    """The requests of this batch fail with an error.

    Source: an OutOfMemoryError in a worker's thread ends its request, not the process.
    """
    server["broken"] = lose(server, server["batch"], server["broken"])
    server["batch"] = 0
    server["oldest_ns"] = server["since_ns"]


@law
def look(row, th, server, jvm):
    """The pages that the batch's requests look at: hot live data at random, and some of the code.

    returns  bool  True: done

    Source: fleetsim's own.
    """
    if jvm[LOOKS_LEFT] > 0 and jvm[HOT] > 0:
        jvm[LOOKS_LEFT] -= max(0, access(row, th, jvm[OLD] - 1, 0, jvm[LOOKS_LEFT], ONE_Q, 0))
        return jvm[LOOKS_LEFT] <= 0
    jvm[LOOKS_LEFT] = 0
    return True


@law
def run_code(row, th, jvm):
    """One slice of what is outside the heap is used: over many batches, all of it.

    Source: fleetsim's own: code, classes and stacks are used all the time.
    """
    a = jvm[NATIVE] - 1
    touched = row["areas"][a]["touched"]
    if touched == 0:
        return
    at = jvm[NATIVE_AT] if jvm[NATIVE_AT] < touched else 0
    jvm[NATIVE_AT] = at + max(0, access(row, th, a, at, touched - at, 0, 0))


@law
def allocate_background(row, jvm):
    """What the process allocates without requests, up to now.

    Source: fleetsim's own: timers, metrics, caches.
    """
    passed = row["now_ns"] - jvm[LAST_NS]
    jvm[LAST_NS] = row["now_ns"]
    size = min(jvm[BACKGROUND] * (passed // 1000) // 1_000_000, eden_room(jvm) + jvm[EDEN_MAX] // 16)
    allocate(jvm, size, size * jvm[TENURED_PERMILLE] // 1000)


@law
def begin_batch(row, th, server, jvm):
    """Take requests, not more than eden has room for, and let them compute and allocate.

    returns  int64  requests

    Source: fleetsim's own.
    """
    allocate_background(row, jvm)
    most = max(server["workers"], server["workers"] * BUSY_NS // max(1, server["service_ns"]))
    if jvm[REQUEST_BYTES] > 0 and jvm[OUT_OF_MEMORY] == 0:
        most = min(most, max(1, (eden_room(jvm) + jvm[EDEN_MAX] // 16) // jvm[REQUEST_BYTES]))
    n = take(row, th, server, most)
    if n > 0 and jvm[OUT_OF_MEMORY] > 0:
        fail_all(server)
        begin_gc(row, jvm, FULL_GC)
        return 0
    leaked = n * jvm[LEAK_BYTES]
    size = n * jvm[REQUEST_BYTES]
    allocate(jvm, max(size, leaked), size * jvm[TENURED_PERMILLE] // 1000 + leaked)
    jvm[GOAL] += leaked
    jvm[LOOKS_LEFT] += n * jvm[LOOKS]
    if n > 0:
        compute(row, th, n * jvm[CPU_NS])
    return n


@law
def skip(row, jvm, n):
    """While all that it uses is resident and nobody reclaims, accesses change nothing but accessed bits: those of eight batches are made
    in one. When that is over only this batch's are left to be made.

    returns  bool  True: nothing is to be done

    Source: design §3.2 (quiet groups are not visited).
    """
    jvm[BATCHES] += 1
    young = jvm[YOUNG] - 1
    if not (is_resident(row, young) and is_resident(row, jvm[OLD] - 1) and is_resident(row, jvm[NATIVE] - 1)):
        jvm[LOOKS_LEFT] = min(jvm[LOOKS_LEFT], n * jvm[LOOKS])
        return False
    touched = row["areas"][young]["touched"]
    if jvm[BATCHES] % QUIET_BATCHES == 0 or jvm[SWEPT] < touched or jvm[CURSOR] + jvm[LEFT] > touched:
        return False
    jvm[CURSOR] += jvm[LEFT]
    jvm[LEFT] = 0
    return True


@law
def until_next(row, server, jvm):
    """How long it may rest: until eden is probably full, marking goes on, or a second has passed.

    returns  int64  ns

    Source: fleetsim's own pacing.
    """
    if server["backlog"] > 0 or jvm[GC] != NO_GC:
        return 0
    rate = rate_now(server, row["now_ns"]) * jvm[REQUEST_BYTES] // RATE_S + jvm[BACKGROUND]
    ns = QUIET_NS
    if rate > 0:
        ns = min(ns, eden_room(jvm) // max(1, rate // 1_000_000) * 1000)
    if jvm[PHASE] == MARKING:
        ns = min(ns, jvm[MARK_READY_NS] - row["now_ns"])
    return max(ns, 1_000_000)


@law
def serve(row, th, server, jvm):
    """Go on with the batch under way, or take the next; then see whether it is time to collect.

    Source: fleetsim's own.
    """
    fresh = server["batch"] == 0 and jvm[LEFT] == 0
    if fresh:
        n = begin_batch(row, th, server, jvm)
        fresh = skip(row, jvm, n)
        if not fresh:
            run_code(row, th, jvm)
    done = fresh or (look(row, th, server, jvm) and sweep(row, th, jvm))
    in_parallel(row, server)
    if not done:
        rest(row, th, server, 0)
        return
    if server["batch"] > 0:
        finish(row, th, server)
    mark(row, th, jvm)
    if jvm[GC] == NO_GC and eden_room(jvm) < max(1, jvm[REQUEST_BYTES]):
        begin_gc(row, jvm, collection_for(jvm))
    if jvm[GC] == NO_GC and jvm[PERIODIC_NS] > 0 and row["now_ns"] - jvm[LAST_GC_NS] >= jvm[PERIODIC_NS] and jvm[PHASE] == IDLE:
        begin_gc(row, jvm, CONCURRENT_START)
    rest(row, th, server, until_next(row, server, jvm))
    if jvm[GC] != NO_GC:
        jvm[GC_BEGAN_NS] = row["threads"][th]["ready_ns"]


@law
def step(row, th, w):
    """Start, fill, answer, or collect. While the world stands still the server's clock does: whoever comes waits from then on.

    Source: fleetsim's own.
    """
    work = row["works"][w]
    jvm, server = work["slots"], work["server"]
    thread = row["threads"][th]
    if jvm[GC] != NO_GC:
        kind = jvm[GC]
        over = collect(row, th, server, jvm)
        if over and kind == FULL_GC:
            after_full(row, th, server, jvm)
        thread["ready_ns"] = row["now_ns"] + row["spent_ns"] + row["wait_ns"]
        return
    if jvm[STAGE] == STARTING:
        if start(row, th, jvm):
            jvm[STAGE] = FILLING
    elif jvm[STAGE] == FILLING:
        if fill(row, th, jvm):
            jvm[STAGE] = SERVING
            jvm[LAST_NS] = row["now_ns"]
            come_up(row, server)
    else:
        serve(row, th, server, jvm)
        return
    rest(row, th, server, 0)
