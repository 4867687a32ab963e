# SPDX-License-Identifier: Apache-2.0
"""How large a simulated JVM makes its generations: eden after each collection, when marking starts, how the heap grows and shrinks.

Source: HotSpot 17: g1Policy.cpp calculate_young_list_desired_min_length, update_young_list_target_length; g1HeapSizingPolicy.cpp;
g1IHOPControl.cpp; genCollectedHeap and cardGeneration.cpp compute_new_size.
G1 begins with a guess of what copying costs (30 ns a byte with two threads, many times what it does) that loses three tenths of its
weight in each collection: until then eden stays at its least, which was seen with the real one (docs/calibration.md).
Leaves out: adaptive IHOP (switched off it changes nothing there), MinHeapDeltaBytes.
"""

from __future__ import annotations

from fleetsim.law import ONE_Q, Q, law
from fleetsim.linux.syscalls import int_sqrt
from fleetsim.workloads.jvm_heap import grow, young_max
from fleetsim.workloads.jvm_state import (
    CAPACITY,
    COLLECTOR,
    COPIED,
    COPY_GUESS_NS,
    COPY_NS,
    COPY_VAR_NS2,
    COUNT,
    EDEN_MAX,
    FREE_MAX,
    FREE_MIN,
    FULL_RUN,
    G1,
    GC_THREADS,
    HEAP_INITIAL,
    HEAP_MAX,
    IHOP,
    MAX_TENURING,
    MIXING,
    OLD_USED,
    PAUSE_GOAL_NS,
    PAUSE_NS,
    PHASE,
    REGION,
    RESERVE_PERCENT,
    SURVIVAL_Q,
    SURVIVOR_RATIO,
    SURVIVORS,
    YOUNG_MIN_PERCENT,
)

COPY_NS_MAX = 500_000_000  # so that a variance fits 63 bits


@law
def copying_expected(jvm):
    """ns of a pause that G1 expects copying a MiB not to exceed: the mean and half a deviation, and more than that with few samples.

    Source: g1Predictions.hpp stddev_estimate (G1ConfidencePercent 50).
    """
    mean, few = jvm[COPY_NS], 4 - min(4, jvm[COUNT])  # one sample is the guess
    return mean + max(int_sqrt(jvm[COPY_VAR_NS2]), mean * few // 2) // 2


@law
def affordable_eden(jvm, free):
    """Bytes of eden that G1 expects to collect within its pause goal, survivors at hand included, and to find room for in `free` bytes.

        of eden E and what is thought to survive of it: base + copying(survivors + s·E) ≤ goal, 2.2·s·E ≤ free − E

    Source: g1Policy.cpp G1YoungLengthPredictor::will_fit (TargetPLABWastePct 10, G1ConfidencePercent 50).
    Leaves out: the cards it expects to scan; survival by the age of a region, and its deviation.
    """
    survival_q, mib_ns = jvm[SURVIVAL_Q], copying_expected(jvm)
    ns = PAUSE_GOAL_NS - PAUSE_NS[G1] - (jvm[SURVIVORS] >> 10) * mib_ns // 1024
    in_time = max(0, ns) // max(1, mib_ns * (survival_q >> 10) >> 10) << 20
    return min(in_time, (free >> 10) * 1024 // (1024 + 22 * (survival_q >> 10) // 10) << 10)


@law
def set_eden(jvm):
    """How much eden will hold until its next collection.

        G1: young = min(60 % of capacity, what is free but for the reserve, what it expects to be able to collect), at least 5 %;
            mixed: 5 %
        Serial: 8/10 of a third of the capacity

    Source: see the module.
    """
    capacity = jvm[CAPACITY]
    if jvm[COLLECTOR] != G1:
        eden = young_max(jvm, capacity) * SURVIVOR_RATIO // (SURVIVOR_RATIO + 2)
        old_max = jvm[HEAP_MAX] - young_max(jvm, jvm[HEAP_MAX])
        jvm[EDEN_MAX] = max(0, eden - max(0, jvm[OLD_USED] - old_max))  # what a full collection finds no room for stays in eden
        return
    least = max(jvm[REGION], capacity * YOUNG_MIN_PERCENT // 100)
    wanted = least
    if jvm[PHASE] != MIXING:
        free = max(0, capacity - jvm[OLD_USED] - jvm[SURVIVORS] - capacity * RESERVE_PERCENT // 100)
        wanted = max(least, min(young_max(jvm, capacity), jvm[SURVIVORS] + affordable_eden(jvm, free)))
    young = min(wanted, capacity - jvm[OLD_USED])  # the reserve is used before a full collection
    jvm[EDEN_MAX] = max(0, young - jvm[SURVIVORS]) // jvm[REGION] * jvm[REGION]


@law
def survivors_kept(jvm, fresh):
    """Long-lived bytes that stay in survivor space after a collection in which `fresh` of them came out of eden; the rest is promoted.

        what fits half of survivor space stays for up to 15 collections; when more was there than that, the older ones go, and
        fresh ones stay as far as the space reaches

    Source: TargetSurvivorRatio 50 of young/8 (G1) or young/10 (Serial), MaxTenuringThreshold 15: ageTable.cpp compute_tenuring_threshold.
    Leaves out: ages; of those that stay a 15th goes each time.
    """
    older = jvm[SURVIVORS]
    space = (jvm[EDEN_MAX] + older) // (SURVIVOR_RATIO if jvm[COLLECTOR] == G1 else SURVIVOR_RATIO + 2)
    if older > space // 2:
        older = 0
    if older + fresh > space // 2:
        return min(space, max(fresh, space // 2))
    return fresh + older - older // MAX_TENURING


@law
def marking_threshold(jvm):
    """Old bytes above which G1 starts to mark.

    Source: InitiatingHeapOccupancyPercent of the capacity (g1IHOPControl.cpp G1StaticIHOPControl, and the adaptive one's start).
    """
    return jvm[CAPACITY] * jvm[IHOP] // 100


@law
def grow_for_time(jvm, pause_ns, since_ns):
    """G1 commits more, every fourth young pause, if pauses take more than 1/13 of the time (less in a heap below half its maximum).

        a fifth of what is uncommitted, at most as much again as there is; twice that where pauses took 3.5 times as much

    since_ns  int64  from the end of the last collection to the end of this one

    Source: GCTimeRatio 12; g1HeapSizingPolicy.cpp young_collection_expansion_amount (MinOverThresholdForGrowth 4,
    G1ExpandByPercentOfAvailable 20). Leaves out: the pauses before this one, four of which have to be too long.
    """
    if jvm[COLLECTOR] != G1 or jvm[COUNT] < 5 or jvm[COUNT] % 4 != 1:  # the first pause has none before it to measure from
        return
    capacity, most = jvm[CAPACITY], jvm[HEAP_MAX]
    threshold = min(1000, max(130, 2000 * (capacity >> 10) // max(1, most >> 10)))  # thousandths of 1/13
    over = 13_000 * (pause_ns >> 10) // max(1, since_ns >> 10) - threshold
    if over <= 0:
        return
    percent = max(20, over // 10) if over < 1000 else 100
    if over > 1500:
        percent = min(200, 100 + (over - 1500) // 20)
    grow(jvm, capacity + min(capacity, (most - capacity) // 5) * percent // 100)


@law
def resize(jvm, used):
    """After a full collection, and in G1 after remark: between MinHeapFreeRatio and MaxHeapFreeRatio of the heap are to be free.

    Source: g1HeapSizingPolicy.cpp full_collection_resize_amount; cardGeneration.cpp compute_new_size (ShrinkHeapInSteps: 0, 10, 40, 100 %
    of it in full collections that follow one another), here for both generations together. -Xms is not the least heap (-XX:MinHeapSize is).
    """
    grow(jvm, used * 100 // max(1, 100 - jvm[FREE_MIN]))
    if jvm[FREE_MAX] >= 100:
        return
    wanted = max(used * 100 // (100 - jvm[FREE_MAX]), min(jvm[HEAP_INITIAL], 8 << 20))
    wanted = (wanted + jvm[REGION] - 1) // jvm[REGION] * jvm[REGION]
    excess = jvm[CAPACITY] - wanted
    if excess <= 0:
        jvm[FULL_RUN] = 0
        return
    if jvm[COLLECTOR] != G1:
        run = jvm[FULL_RUN]
        jvm[FULL_RUN] = min(3, run + 1)
        percent = 0 if run == 0 else (10 if run == 1 else (40 if run == 2 else 100))
        excess = excess * percent // 100
    jvm[CAPACITY] -= excess


@law
def note_survival(jvm, survived, eden):
    """Remember what share of eden survived, the newer the more.

    Source: g1SurvRateGroup.cpp, numberSeq.cpp AbsSeq::add (decaying average, α = 0.3).
    """
    share_q = (survived >> 10 << Q) // max(1, eden >> 10)
    jvm[SURVIVAL_Q] = (7 * jvm[SURVIVAL_Q] + 3 * min(ONE_Q, share_q)) // 10


@law
def note_copying(jvm, pause_ns):
    """Remember what a MiB cost in a young pause, faults and waits for swap included, the newer the more; and the variance.

    Source: g1Policy.cpp record_collection_pause_end (cost per byte), numberSeq.cpp AbsSeq::add. Leaves out: that there are means of
    their own while marking goes on.
    """
    if jvm[COPIED] > 0:
        ns = min(COPY_NS_MAX, max(0, pause_ns - PAUSE_NS[G1]) * 1024 // max(1, jvm[COPIED] >> 10))
        jvm[COPY_NS] = (7 * jvm[COPY_NS] + 3 * ns) // 10
        off = ns - jvm[COPY_NS]
        jvm[COPY_VAR_NS2] = (7 * jvm[COPY_VAR_NS2] + 3 * off * off) // 10


@law
def expect(jvm):
    """What G1 expects before it has collected: that copying is slow, as if the machine were.

    Source: g1Analytics.cpp cost_per_byte_ms_defaults, g1SurvRateGroup.cpp (0.4 survives).
    """
    jvm[COPY_NS] = COPY_GUESS_NS[min(max(1, jvm[GC_THREADS]), len(COPY_GUESS_NS)) - 1] << 20
    jvm[SURVIVAL_Q] = ONE_Q * 2 // 5
