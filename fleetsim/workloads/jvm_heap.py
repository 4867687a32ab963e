# SPDX-License-Identifier: Apache-2.0
"""The heap of a simulated JVM as pages: allocation sweeps eden, promotion grows the old generation, and capacity bounds both.

Leaves out: humongous objects, thread-local buffers, the region a page belongs to, compressed class space.
Source: HotSpot 17, src/hotspot/share/gc/g1 and gc/serial (what is where; sizes are those of jvm_state.py).
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import ORDERED, PART_LAST, UNIFORM, access, access_rest, free_range, is_resident, map_anonymous, touch
from fleetsim.workloads.jvm_state import (
    CAPACITY,
    COLLECTOR,
    COUNT,
    CURSOR,
    EDEN,
    EDEN_LONG,
    EDEN_MAX,
    FILLED,
    G1,
    GOAL,
    HEAP_INITIAL,
    HEAP_MAX,
    HOT,
    LEFT,
    NATIVE,
    NATIVE_BYTES,
    OLD,
    OLD_USED,
    PAGE,
    REGION,
    SWEPT,
    TABLES,
    YOUNG,
    YOUNG_MAX_PERCENT,
)

CHUNK = 4096  # pages in one go
STEP_NS = 50_000_000  # a step does not go on beyond that much of a bill


@law
def young_max(jvm, heap):
    """The most that the young generation may have of a heap of `heap` bytes.

    Source: G1MaxNewSizePercent 60; Serial's NewRatio 2 (GenArguments::initialize_size_info).
    """
    if jvm[COLLECTOR] == G1:
        return heap * YOUNG_MAX_PERCENT // 100
    return heap // 3 // 65_536 * 65_536


@law
def map_heap(row, th, jvm):
    """Reserve all that it may use: address space, no memory yet.

    returns  bool  False: ENOMEM

    Source: os::reserve_memory (MAP_NORESERVE); Leaves out: committing, which maps again with accounting.
    """
    hot = max(1, jvm[HOT] // PAGE) if jvm[HOT] > 0 else 0
    young = map_anonymous(row, th, young_max(jvm, jvm[HEAP_MAX]) * 17 // 16 // PAGE + 64, ORDERED, 0, 0)
    old = map_anonymous(row, th, jvm[HEAP_MAX] // PAGE + 64, UNIFORM, hot, 0)
    native = map_anonymous(row, th, jvm[NATIVE_BYTES] // PAGE + 1, ORDERED, 0, 0)
    jvm[YOUNG], jvm[OLD], jvm[NATIVE] = young + 1, old + 1, native + 1
    jvm[CAPACITY] = jvm[HEAP_INITIAL]
    return young >= 0 and old >= 0 and native >= 0


@law
def heap_pages(row, jvm):
    """Pages of the heap that were touched and not given back since.

    Source: fleetsim's own representation.
    """
    return row["areas"][jvm[YOUNG] - 1]["touched"] + row["areas"][jvm[OLD] - 1]["touched"]


@law
def own_pages(jvm):
    """Pages outside the heap that a JVM touches when it starts: all but the collector's tables.

    Source: VmRSS of a JVM that does nothing; its tables are reserved and not touched (tests/ground_truth/calibration/jvm_memory.json).
    """
    return (jvm[NATIVE_BYTES] - jvm[TABLES]) // PAGE


@law
def touch_tables(row, th, jvm):
    """The collector's tables are touched as far as the heap is: cards at once, G1's mark bitmaps when it has marked.

    Source: a byte of card table and two of offsets and counts for 512 bytes of heap, two bitmaps of a bit for 8 bytes.
    """
    size = jvm[TABLES]
    if jvm[COLLECTOR] == G1 and jvm[COUNT + 2] + jvm[COUNT + 3] == 0:
        size = size * 192 // 1216  # 3/512 of 3/512 + 2/64
    a = jvm[NATIVE] - 1
    missing = own_pages(jvm) + size * heap_pages(row, jvm) // jvm[HEAP_MAX] - row["areas"][a]["touched"]
    if missing > 0:
        touch(row, th, a, min(missing, CHUNK))


@law
def give_back(row, th, jvm, pages):
    """Give back up to `pages` pages of free regions: of what eden will use last, then of the old generation's end.

    Source: G1RegionToSpaceMapper uncommit; a region that changes its generation keeps its pages in reality.
    """
    area = row["areas"][jvm[YOUNG] - 1]
    gone = min(pages, area["touched"] - min(area["touched"], jvm[CURSOR]))
    if gone > 0:
        free_range(row, th, jvm[YOUNG] - 1, 0, PART_LAST, gone)
    area = row["areas"][jvm[OLD] - 1]
    gone = min(pages - gone, area["touched"] - min(area["touched"], jvm[OLD_USED] // PAGE))
    if gone > 0:
        free_range(row, th, jvm[OLD] - 1, 0, PART_LAST, gone)


@law
def fill_area(row, th, jvm, a, pages):
    """Touch up to `pages` more pages of heap area `a`, within the capacity.

    returns  int64  pages; 0: come back

    Source: first touch of committed memory (no AlwaysPreTouch); kernel-laws §16.1.
    """
    over = heap_pages(row, jvm) + pages - (jvm[CAPACITY] // PAGE + 64)
    if over > 0:
        give_back(row, th, jvm, over)
    done = touch(row, th, a, pages)
    return pages if done < 0 else done  # it cannot be larger than it is: the last page is used again


@law
def write_young(row, th, jvm, pages):
    """Write to the next `pages` pages of the young generation.

    returns  int64  pages done; 0: come back

    Source: bump-pointer allocation.
    """
    a = jvm[YOUNG] - 1
    area = row["areas"][a]
    if jvm[CURSOR] >= area["pages"]:
        jvm[CURSOR] = 0
    at = jvm[CURSOR]
    if at >= area["touched"]:
        done = fill_area(row, th, jvm, a, min(pages, area["pages"] - at))
    else:
        done = max(0, access(row, th, a, at, min(pages, area["touched"] - at), 0, 1))
    jvm[CURSOR] += done
    jvm[SWEPT] += done
    return done


@law
def sweep(row, th, jvm):
    """Go on writing to what was allocated. While all of it is in memory and nobody reclaims, one look in a batch is enough.

    returns  bool  True: done

    Source: TLAB allocation; design §3.2 (quiet groups are not visited).
    """
    a = jvm[YOUNG] - 1
    calm = is_resident(row, a)
    if not calm:
        jvm[SWEPT] = 0
    while jvm[LEFT] > 0:
        done = write_young(row, th, jvm, min(CHUNK, jvm[LEFT]))
        if done == 0:
            return False
        jvm[LEFT] -= done
        touched = row["areas"][a]["touched"]
        if calm and jvm[SWEPT] >= touched and jvm[CURSOR] + jvm[LEFT] <= touched:
            jvm[CURSOR] += jvm[LEFT]
            jvm[LEFT] = 0
        if row["spent_ns"] + row["wait_ns"] > STEP_NS:
            return jvm[LEFT] == 0
    return True


@law
def allocate(jvm, size, long_lived):
    """`size` bytes are allocated in eden, of them `long_lived` that stay reachable; `sweep` writes to them.

    Source: fleetsim's own.
    """
    before = jvm[EDEN] // PAGE
    jvm[EDEN] += size
    jvm[EDEN_LONG] += long_lived
    jvm[LEFT] += jvm[EDEN] // PAGE - before


@law
def eden_room(jvm):
    """Bytes that eden still takes before it is collected.

    Source: fleetsim's own.
    """
    return max(0, jvm[EDEN_MAX] - jvm[EDEN])


@law
def fill_live(jvm, size):
    """Allocate up to `size` bytes of the live set.

    returns  int64  bytes

    Source: a service that reads its data when it starts.
    """
    jvm[FILLED] += size
    jvm[GOAL] += size
    allocate(jvm, size, size)
    return size


@law
def grow(jvm, needed):
    """Commit more if `needed` bytes of heap do not fit.

    Source: G1CollectedHeap::expand, OneContigSpaceCardGeneration::expand.
    """
    grain = jvm[REGION]
    jvm[CAPACITY] = max(jvm[CAPACITY], min(jvm[HEAP_MAX], (needed + grain - 1) // grain * grain))


@law
def write_old(row, th, jvm, pages):
    """Up to `pages` pages of the old generation are copied to: new ones at its end first, else some of its free ones.

    returns  int64  pages done; 0: come back

    Source: G1 takes free regions from the bottom of the heap for old ones; first touch or reuse.
    """
    a = jvm[OLD] - 1
    missing = jvm[OLD_USED] // PAGE - row["areas"][a]["touched"]
    if missing > 0:
        return fill_area(row, th, jvm, a, min(pages, missing))
    area = row["areas"][a]
    cold = area["touched"] - (0 if area["groups"] == 1 else jvm[HOT] // PAGE)
    return access_rest(row, th, a, area["groups"] - 1, pages, cold, 1)
