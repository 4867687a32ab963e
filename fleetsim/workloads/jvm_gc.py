# SPDX-License-Identifier: Apache-2.0
"""Collections of a simulated JVM: what each must copy and visit, page by page through the kernel, while all its workers stand still.

A pause is what the processor needs for the bytes that are copied or traced, shared by the collector's threads, and what the kernel takes
until those pages are there: a page in swap is read by the thread that comes to it. Nobody asks how much is swapped out.

    young     survivors of eden and of survivor space are copied; what is too old or too much is promoted
    mixed     the same, and an eighth of the old regions that are worth it
    full      all that is live is visited, compacted and written
    remark    ends concurrent marking (jvm_mark.py): regions without live objects are free, the heap is resized

Leaves out: reference processing, class unloading, remembered sets (the young collections' old pages), evacuation failure as such.
Source: HotSpot 17, gc/g1/g1CollectedHeap.cpp, gc/serial/genMarkSweep.cpp; kernel-laws §16.1.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import GC_PAUSE, access_rest, compute, write_log
from fleetsim.workloads.arrivals import IO
from fleetsim.workloads.jvm_heap import CHUNK, STEP_NS, give_back, grow, heap_pages, touch_tables, write_old, write_young, young_max
from fleetsim.workloads.jvm_sizes import grow_for_time, marking_threshold, note_copying, note_survival, resize, set_eden, survivors_kept
from fleetsim.workloads.jvm_state import (
    CAPACITY,
    CLEANUP,
    CLEANUP_NS,
    COLLECTOR,
    COMPACT_HOLES,
    COMPACT_KIB,
    CONCURRENT_START,
    COPIED,
    COPY_KIB,
    COPY_OLD,
    COPY_YOUNG,
    COUNT,
    CURSOR,
    EDEN,
    EDEN_LONG,
    FULL_GC,
    G1,
    GC,
    GC_BEGAN_NS,
    GC_LIVE,
    GC_STARTED,
    GC_SWAP_NS,
    GC_THREADS,
    GOAL,
    HEAP_MAX,
    HOT,
    IDLE,
    LAST_GC_NS,
    LEFT,
    LIVE_THRESHOLD,
    MARK_COLD,
    MARK_HOT,
    MARK_READY_NS,
    MARKING,
    MIXED_BYTES,
    MIXED_COUNT,
    MIXED_GC,
    MIXED_LEFT,
    MIXING,
    NO_GC,
    OLD,
    OLD_LIVE,
    OLD_USED,
    PAGE,
    PAUSE_NS,
    PHASE,
    REMARK,
    REMARK_NS,
    REQUEST_BYTES,
    RESERVE_PERCENT,
    SUM_US,
    SURVIVORS,
    WALK_COLD,
    WALK_HOT,
    WASTE_PERCENT,
    YOUNG_GC,
    YOUNG_MIN_PERCENT,
)

LONG_PAUSE_NS = 500_000_000  # the history is told of these


@law
def begin_gc(row, jvm, kind):
    """The world stops for a collection; `collect` does it.

    Source: a safepoint; the time to reach it is left out.
    """
    jvm[GC] = kind
    jvm[GC_BEGAN_NS] = row["now_ns"]
    jvm[GC_STARTED] = 0
    jvm[GC_SWAP_NS] = 0


@law
def collection_for(jvm):
    """Eden is full: what is to be done.

    returns  int64  YOUNG_GC, MIXED_GC or FULL_GC

    Source: Serial: TenuredGeneration::promotion_attempt_is_safe; G1: evacuation that finds no free region ends in a full collection.
    """
    promoted = jvm[EDEN_LONG] + jvm[SURVIVORS]
    room = jvm[HEAP_MAX] - (0 if jvm[COLLECTOR] == G1 else young_max(jvm, jvm[HEAP_MAX]))
    if jvm[EDEN] == 0 or jvm[OLD_USED] + promoted > room:  # empty and yet full: a young one would free nothing
        return FULL_GC
    return MIXED_GC if jvm[PHASE] == MIXING else YOUNG_GC


@law
def plan_mixed(jvm):
    """Plan the collection of an eighth of the old regions that are worth it, beside the young ones.

    Source: G1MixedGCCountTarget; the regions chosen are as live as the mean of the average one and of the last that is worth it
    (jvm_state.py: it fits what was measured).
    """
    garbage = jvm[OLD_USED] - jvm[OLD_LIVE]
    reclaimed = max(0, min(jvm[MIXED_BYTES], garbage))
    live = (1000 * (jvm[OLD_LIVE] >> 10) // max(1, jvm[OLD_USED] >> 10) + 10 * LIVE_THRESHOLD) // 2  # permille
    copied = reclaimed * live // max(1, 1000 - live)
    jvm[OLD_USED] -= reclaimed
    jvm[WALK_COLD] = copied // PAGE
    jvm[COPY_OLD] += copied // PAGE
    return (copied >> 10) * COPY_KIB[jvm[COLLECTOR]]


@law
def plan_young(server, jvm, kind):
    """What a young or mixed collection copies. Requests that are being served hold half of what they allocate, on average.

    returns  int64  processor time

    Source: g1CollectedHeap.cpp evacuate_collection_set, serial/defNewGeneration.cpp collect; kernel-laws §16.1.
    """
    busy = min(server["present"], server["workers"]) * jvm[REQUEST_BYTES] // 2
    busy = min(busy, max(0, jvm[EDEN] - jvm[EDEN_LONG]))
    alive = jvm[EDEN_LONG] + jvm[SURVIVORS]
    spent = PAUSE_NS[jvm[COLLECTOR]] * jvm[GC_THREADS] + (alive + busy >> 10) * COPY_KIB[jvm[COLLECTOR]]
    note_survival(jvm, jvm[EDEN_LONG] + busy, jvm[EDEN])
    if jvm[COLLECTOR] == G1:
        jvm[COPIED] = alive + busy
    keep = survivors_kept(jvm, jvm[EDEN_LONG])
    jvm[OLD_USED] += alive - keep
    jvm[OLD_LIVE] = min(jvm[GOAL], jvm[OLD_LIVE] + alive - keep)
    jvm[SURVIVORS] = keep
    jvm[COPY_YOUNG] = (keep + busy) // PAGE
    jvm[COPY_OLD] = (alive - keep) // PAGE
    if kind == MIXED_GC:
        spent += plan_mixed(jvm)
    return spent


@law
def plan_full(jvm):
    """What a full collection visits: all that is live, to mark it and to move it together.

    returns  int64  processor time

    Source: g1FullCollector.cpp, serial/genMarkSweep.cpp; kernel-laws §16.1; costs: jvm_state.py.
    """
    alive = jvm[EDEN_LONG] + jvm[SURVIVORS]
    hot = min(jvm[HOT], jvm[OLD_LIVE]) // PAGE
    jvm[WALK_HOT] = hot
    jvm[WALK_COLD] = jvm[OLD_LIVE] // PAGE - hot
    jvm[COPY_OLD] = alive // PAGE
    moved = COMPACT_HOLES[jvm[COLLECTOR]] * min(jvm[OLD_USED], 9 * max(0, jvm[OLD_USED] - jvm[OLD_LIVE]) // 2) // max(1, jvm[OLD_USED])
    live = jvm[OLD_LIVE] + alive
    jvm[OLD_LIVE] = min(jvm[GOAL], live)
    jvm[OLD_USED] = jvm[OLD_LIVE]
    jvm[SURVIVORS] = 0
    return PAUSE_NS[jvm[COLLECTOR]] * jvm[GC_THREADS] + (live >> 10) * (COMPACT_KIB[jvm[COLLECTOR]] + moved)


@law
def plan(row, th, server, jvm):
    """Decide what the collection has to do, and put its processor time on the bill.

    Source: see the parts.
    """
    kind = jvm[GC]
    if kind == FULL_GC:
        spent = plan_full(jvm)
    elif kind == REMARK:
        spent = REMARK_NS
    elif kind == CLEANUP:
        spent = CLEANUP_NS
    else:
        spent = plan_young(server, jvm, kind)
    if kind not in (REMARK, CLEANUP):
        jvm[EDEN] = 0
        jvm[EDEN_LONG] = 0
        jvm[LEFT] = 0
        grow(jvm, jvm[OLD_USED] + jvm[SURVIVORS])
    compute(row, th, spent)
    jvm[GC_STARTED] = 1


@law
def visit_cold(row, th, jvm, pages, left, all_of_it):
    """Visit `pages` of `left` live pages of the old generation that no request looks at.

    all_of_it  int64  1: a walk over all of them, 0: over some
    returns    int64  pages done; 0: come back

    Source: live objects and garbage lie side by side in the regions: as much of the one is in swap as of the other.
    """
    a = jvm[OLD] - 1
    area = row["areas"][a]
    hot = 0 if area["groups"] == 1 else jvm[HOT] // PAGE
    used = area["touched"] - hot
    live = jvm[OLD_LIVE] // PAGE - hot
    of = left + max(0, used - live) if all_of_it > 0 else used
    return access_rest(row, th, a, area["groups"] - 1, pages, of, 0)


@law
def go_on(row, th, jvm):
    """Visit and copy pages until all is done or the bill is long.

    returns  bool  True: all is done

    Source: the collector's threads touch each page once, reading where they trace and writing where they copy.
    """
    while jvm[WALK_HOT] + jvm[WALK_COLD] + jvm[COPY_OLD] + jvm[COPY_YOUNG] > 0:
        if row["spent_ns"] + row["wait_ns"] > STEP_NS and jvm[GC_STARTED] > 1:
            return False
        jvm[GC_STARTED] = 2
        if jvm[WALK_HOT] > 0:
            done = access_rest(row, th, jvm[OLD] - 1, 0, min(CHUNK, jvm[WALK_HOT]), jvm[WALK_HOT], 1)
            jvm[WALK_HOT] -= done
        elif jvm[WALK_COLD] > 0:
            full = 1 if jvm[GC] == FULL_GC else 0
            done = visit_cold(row, th, jvm, min(CHUNK, jvm[WALK_COLD]), jvm[WALK_COLD], full)
            jvm[WALK_COLD] -= done
        elif jvm[COPY_OLD] > 0:
            done = write_old(row, th, jvm, min(CHUNK, jvm[COPY_OLD]))
            jvm[COPY_OLD] -= done
        else:
            done = write_young(row, th, jvm, min(CHUNK, jvm[COPY_YOUNG]))
            jvm[COPY_YOUNG] -= done
        if done <= 0:
            return False
    return True


@law
def share_threads(row, threads):
    """The collector's threads work side by side: their bill shrinks to the time that passes.

    Source: ParallelGCThreads; leaves out: threads that run out of work before the others.
    """
    computing = max(1, min(threads, row["cpus"]))
    row["spent_ns"] //= computing
    row["reclaim_ns"] //= computing
    row["wait_ns"] //= threads
    for kind in range(len(row["stall_ns"])):
        row["stall_ns"][kind] //= threads


@law
def start_marking(row, jvm):
    """Concurrent marking begins: every live page of the old generation is to be visited.

    Source: g1ConcurrentMark.cpp; it is started by a young collection (Concurrent Start).
    """
    jvm[PHASE] = MARKING
    hot = min(jvm[HOT], jvm[OLD_LIVE]) // PAGE
    jvm[MARK_HOT] = hot
    jvm[MARK_COLD] = jvm[OLD_LIVE] // PAGE - hot
    jvm[MARK_READY_NS] = row["now_ns"]


@law
def after_remark(row, th, jvm):
    """Marking is over: the heap is resized, and mixed collections follow if there is enough garbage in regions that are worth it.

    Source: g1ConcurrentMark.cpp remark (resize_heap_if_necessary), g1CollectionSetChooser.cpp: regions more than 85 % live are not
    worth it, nor is the last 5 % of the heap. Leaves out: regions without any live object, which remark frees at once.
    """
    jvm[GC_LIVE] = jvm[OLD_LIVE]
    resize(jvm, jvm[OLD_USED] + jvm[EDEN] + jvm[SURVIVORS])
    dense = jvm[OLD_LIVE] * (100 - LIVE_THRESHOLD) // LIVE_THRESHOLD
    worth = jvm[OLD_USED] - jvm[OLD_LIVE] - dense - jvm[CAPACITY] * WASTE_PERCENT // 100
    jvm[PHASE] = IDLE
    if worth > 0:
        jvm[PHASE] = MIXING
        jvm[MIXED_LEFT] = MIXED_COUNT
        jvm[MIXED_BYTES] = worth // MIXED_COUNT


@law
def after_young(row, jvm, kind, pause_ns, end_ns):
    """Sizes for what comes next; marking starts when the old generation holds enough.

    Source: g1Policy.cpp record_collection_pause_end.
    """
    grow_for_time(jvm, pause_ns, end_ns - jvm[LAST_GC_NS])
    if jvm[COLLECTOR] == G1 and kind != MIXED_GC:
        note_copying(jvm, pause_ns)
    if kind == MIXED_GC:
        jvm[MIXED_LEFT] -= 1
        if jvm[MIXED_LEFT] <= 0:
            jvm[PHASE] = IDLE
    if jvm[COLLECTOR] != G1:
        grow(jvm, jvm[OLD_USED] * 3 // 2)
        return
    grow(jvm, jvm[OLD_USED] + jvm[SURVIVORS] + jvm[CAPACITY] * (YOUNG_MIN_PERCENT + RESERVE_PERCENT) // 100)
    if jvm[PHASE] == IDLE and (kind == CONCURRENT_START or jvm[OLD_USED] > marking_threshold(jvm)):
        start_marking(row, jvm)


@law
def pause_kind(kind):
    """Which of PAUSES a collection counts as.

    Source: fleetsim's own (Micrometer: "end of minor GC", "end of major GC" and "No GC").
    """
    if kind in (YOUNG_GC, CONCURRENT_START):
        return 0
    return 1 if kind == MIXED_GC else (2 if kind == FULL_GC else 3)


@law
def conclude(row, th, jvm):
    """The world goes on. Tells the history of a long pause, and counts it.

    Source: gcTraceTime; Micrometer's jvm.gc.pause counts the same.
    """
    kind = jvm[GC]
    end = row["now_ns"] + row["spent_ns"] + row["wait_ns"]
    pause = end - jvm[GC_BEGAN_NS]
    of = pause_kind(kind)
    jvm[COUNT + of] += 1
    jvm[SUM_US + of] += pause // 1000
    if pause >= LONG_PAUSE_NS:
        write_log(row, th, GC_PAUSE, kind, pause // 1_000_000, jvm[GC_SWAP_NS] // 1_000_000)
    jvm[GC] = NO_GC
    if kind == REMARK:
        after_remark(row, th, jvm)
        begin_gc(row, jvm, CLEANUP)
        jvm[GC_BEGAN_NS] = end
    elif kind == FULL_GC:
        jvm[PHASE] = IDLE
        jvm[GC_LIVE] = jvm[OLD_LIVE]
        resize(jvm, jvm[OLD_USED])
    elif kind != CLEANUP:
        after_young(row, jvm, kind, pause, end)
    if kind not in (REMARK, CLEANUP):
        jvm[CURSOR] = 0
        jvm[LAST_GC_NS] = end
        set_eden(jvm)
    touch_tables(row, th, jvm)
    excess = heap_pages(row, jvm) - jvm[CAPACITY] // PAGE - 64
    if excess > 0:
        give_back(row, th, jvm, excess)


@law
def collect(row, th, server, jvm):
    """One step of the collection under way.

    returns  bool  True: it is over

    Source: see the module.
    """
    if jvm[GC_STARTED] == 0:
        plan(row, th, server, jvm)
    done = go_on(row, th, jvm)
    share_threads(row, max(1, jvm[GC_THREADS]))
    jvm[GC_SWAP_NS] += row["stall_ns"][IO]
    if done:
        conclude(row, th, jvm)
    return done
