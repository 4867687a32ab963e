# SPDX-License-Identifier: Apache-2.0
"""How large a simulated JVM makes its generations: eden after each collection, when marking starts, how the heap grows and shrinks.

Source: HotSpot 17: g1Policy.cpp calculate_young_list_desired_min_length, update_young_list_target_length; g1HeapSizingPolicy.cpp;
g1IHOPControl.cpp; genCollectedHeap and cardGeneration.cpp compute_new_size.
Leaves out: adaptive IHOP, the confidence intervals of G1's predictions, MinHeapDeltaBytes.
"""

from __future__ import annotations

from fleetsim.law import ONE_Q, Q, law
from fleetsim.workloads.jvm_heap import grow, young_max
from fleetsim.workloads.jvm_state import (
    CAPACITY,
    COLLECTOR,
    COPY_KIB,
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
    STAGE,
    STARTING,
    SURVIVAL_Q,
    SURVIVOR_RATIO,
    SURVIVORS,
    YOUNG_MIN_PERCENT,
)


@law
def affordable_eden(jvm):
    """Bytes of eden that G1 expects to collect within its pause goal, survivors at hand included.

    Source: g1Policy.cpp G1YoungLengthPredictor::will_fit.
    """
    ns = (PAUSE_GOAL_NS - PAUSE_NS[G1]) * jvm[GC_THREADS] - (jvm[SURVIVORS] >> 10) * COPY_KIB[G1]
    per_mib = max(1, COPY_KIB[G1] * jvm[SURVIVAL_Q] >> 10)  # ns per MiB of eden: 2^20ths of it survive
    return max(0, ns) // per_mib << 20


@law
def set_eden(jvm):
    """How much eden will hold until its next collection.

        G1: young = min(60 % of capacity, what is free but for the reserve, what the pause goal affords), at least 5 %; mixed: 5 %
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
    if jvm[PHASE] != MIXING and jvm[STAGE] != STARTING:  # it has no experience yet
        free = capacity - jvm[OLD_USED] - capacity * RESERVE_PERCENT // 100
        wanted = max(least, min(young_max(jvm, capacity), min(free, affordable_eden(jvm))))
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
    """G1 commits more when collections take more than 1/13 of the time: 40 % of what is uncommitted, at most as much again.

    Source: GCTimeRatio 12; g1HeapSizingPolicy.cpp young_collection_expansion_amount (G1ExpandByPercentOfAvailable 20, scaled by 2).
    """
    if jvm[COLLECTOR] == G1 and pause_ns * 13 > since_ns:
        grow(jvm, jvm[CAPACITY] + min(jvm[CAPACITY], (jvm[HEAP_MAX] - jvm[CAPACITY]) * 2 // 5))


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

    Source: g1Predictions.hpp, g1Analytics.cpp (decaying average, α = 0.3).
    """
    share_q = (survived >> 10 << Q) // max(1, eden >> 10)
    jvm[SURVIVAL_Q] = (7 * jvm[SURVIVAL_Q] + 3 * min(ONE_Q, share_q)) // 10
