# SPDX-License-Identifier: Apache-2.0
"""What a simulated JVM knows of itself: the slots of its row of works, its costs, and its memory areas.

    YOUNG   ordered: eden is swept from its start and reused after every collection, survivors stand behind what eden filled
    OLD     random: first the live data that requests look at, then the rest (live data nobody looks at, leaks, garbage)
    NATIVE  ordered: metaspace, code cache, touched stacks, direct buffers, the collector's own structures

Both parts of the heap together never have more pages than the heap is large: a region that passes from one to the other is given back
by the one and taken by the other. Sizes are bytes unless they say pages.
Costs: processor time of OpenJDK 17.0.15's collections, objects of 256 bytes (`tests/ground_truth/calibration/jvm.json`): lines through
its young pauses, 0.94 ms per MiB copied and 6.7 ms of two threads (G1), 1.31 and 0.85 ms (Serial). Of that the logs' Sys (0.5 ms per
MiB, 2.5 µs a page) is faults on new pages, which the kernel here charges by itself. Full collections 0.9 to 2.8 s per GiB that is left
(G1), 0.7 to 1.4 (Serial), the more the more had to move. Marking, remark and cleanup: the same program's logs.
"""

from __future__ import annotations

PAGE = 4096
MIB = 1 << 20
SERIAL, G1 = 0, 1
COLLECTORS = ("serial", "g1")

ARGUMENTS = (
    "collector",
    "heap_max",
    "heap_initial",
    "region",
    "gc_threads",
    "concurrent_threads",
    "live",
    "hot",
    "native",
    "request_bytes",
    "leak_bytes",
    "tenured_permille",
    "background",
    "cpu_ns",
    "looks",
    "start_ns",
    "exit_on_oom",
    "periodic_ns",
    "free_min",
    "free_max",
    "ihop",
    "tables",
)
(
    COLLECTOR,  # SERIAL or G1
    HEAP_MAX,  # -Xmx
    HEAP_INITIAL,  # -Xms
    REGION,  # region size (Serial: the grain of its generations)
    GC_THREADS,  # ParallelGCThreads
    CONCURRENT_THREADS,  # ConcGCThreads
    LIVE_SET,  # data that stay, filled at the start
    HOT,  # of them what requests look at
    NATIVE_BYTES,  # memory outside the heap
    REQUEST_BYTES,  # what a request allocates
    LEAK_BYTES,  # … and leaves behind, reachable for ever
    TENURED_PERMILLE,  # of a thousand allocated bytes so many live long: each replaces an old one, which is garbage then
    BACKGROUND,  # bytes allocated per second without requests
    CPU_NS,  # processor time of a request
    LOOKS,  # pages of the hot data that a request looks at
    START_NS,  # processor time of starting
    EXIT_ON_OOM,  # 1: -XX:+ExitOnOutOfMemoryError
    PERIODIC_NS,  # G1PeriodicGCInterval, 0: never
    FREE_MIN,  # MinHeapFreeRatio, percent
    FREE_MAX,  # MaxHeapFreeRatio, percent
    IHOP,  # InitiatingHeapOccupancyPercent
    TABLES,  # of NATIVE_BYTES the collector's tables, which are touched as far as the heap is
) = range(22)
(
    STAGE,  # STARTING, FILLING or SERVING
    YOUNG,  # areas, one more than their rows; 0: none
    OLD,
    NATIVE,
    CAPACITY,  # committed heap
    EDEN_MAX,  # eden is collected when it holds so much
    EDEN,  # allocated since the last collection …
    EDEN_LONG,  # … of it what will live long
    SURVIVORS,  # long-lived bytes that are still young
    OLD_USED,
    OLD_LIVE,
    GOAL,  # long-lived data that are reachable
    FILLED,  # bytes of the live set that are allocated
    CURSOR,  # next page of YOUNG
    LEFT,  # pages that were allocated and not yet written to
    SWEPT,  # pages written to since memory was last under pressure
    LOOKS_LEFT,  # accesses to the hot data that are still to be made
    BATCHES,  # batches so far
    NATIVE_AT,  # cursor in NATIVE
    LAST_NS,  # background allocation is counted up to here
    PHASE,  # IDLE, MARKING or MIXING
    MARK_HOT,  # pages that marking has not visited yet …
    MARK_COLD,
    MARK_READY_NS,  # … and when it goes on
    MIXED_LEFT,  # mixed collections still to come
    MIXED_BYTES,  # what each of them reclaims
    SURVIVAL_Q,  # 2^20ths of eden that survived lately
    GC,  # collection under way, 0: none
    GC_BEGAN_NS,
    GC_SWAP_NS,  # of its pause the time for which it waited for swap
    GC_STARTED,  # 1: it knows what it has to do …
    COPY_YOUNG,  # … pages it still copies to survivors …
    COPY_OLD,  # … to the old generation …
    WALK_HOT,  # … visits in the hot data …
    WALK_COLD,  # … and in the rest
    LAST_GC_NS,
    FULL_RUN,  # full collections in a row that shrank (ShrinkHeapInSteps)
    OUT_OF_MEMORY,  # 1: OutOfMemoryError was thrown, and no collection has found room since
    COUNT,  # jvm_gc_pause_seconds_count of PAUSES, four …
) = range(22, 61)
SUM_US = COUNT + 4  # … and jvm_gc_pause_seconds_sum, in µs
GC_LIVE = SUM_US + 4  # jvm_gc_live_data_size_bytes: old data after the last full collection or marking
ERRORS = GC_LIVE + 1  # OutOfMemoryErrors
COPY_NS = ERRORS + 1  # what G1 takes copying a MiB to cost, of a pause …
COPY_VAR_NS2 = ERRORS + 2  # … and its variance
COPIED = FULL_RUN  # G1, which does not shrink in steps: bytes that the young collection under way copies
NR_USED = ERRORS + 3

STARTING, FILLING, SERVING = range(3)
IDLE, MARKING, MIXING = range(3)
NO_GC, YOUNG_GC, CONCURRENT_START, MIXED_GC, FULL_GC, REMARK, CLEANUP = range(7)
GC_NAMES = ("", "young", "concurrent start", "mixed", "full", "remark", "cleanup")
PAUSES = ("young", "mixed", "full", "remark and cleanup")

PAUSE_GOAL_NS = 200_000_000  # MaxGCPauseMillis
YOUNG_MIN_PERCENT, YOUNG_MAX_PERCENT = 5, 60  # G1NewSizePercent, G1MaxNewSizePercent
RESERVE_PERCENT, WASTE_PERCENT, MIXED_COUNT = 10, 5, 8  # G1ReservePercent, G1HeapWastePercent, G1MixedGCCountTarget
LIVE_THRESHOLD = 85  # G1MixedGCLiveThresholdPercent
SURVIVOR_RATIO, MAX_TENURING = 8, 15

PAUSE_NS = (850_000, 3_300_000)  # Serial, G1: a pause in which nothing survives, of each of the collector's threads
COPY_KIB = (930, 500)  # ns of processor time per KiB that survives, besides the faults on pages that are new
COPY_GUESS_NS = (60, 30, 30, 15, 15, 10, 10, 9)  # per byte, what G1 takes copying to cost before it has copied; by its threads
COMPACT_KIB, COMPACT_HOLES = (605, 590), (390, 1_370)  # of a full collection per KiB that is live; on top where there was garbage
MARK_KIB = 900  # of concurrent marking
REMARK_NS, CLEANUP_NS = 3_000_000, 300_000
