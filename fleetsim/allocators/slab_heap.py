# SPDX-License-Identifier: Apache-2.0
"""A task's heap of jemalloc or tcmalloc on a host: what the cheap model wants populated is what the simulated kernel is asked for.

One area stands for all mappings. It grows as the allocator maps (jemalloc: 2 MiB, then each mapping a size class larger; tcmalloc: by
1 MiB) and never shrinks: what is free goes back by madvise(MADV_DONTNEED), and stays mapped.
Leaves out: where in the mappings free pages lie (they are given back evenly), huge pages, arenas shared between threads.
Source: jemalloc 5.3.0 src/ehooks.c, src/pac.c, src/pages.c; gperftools 2.10 src/page_heap.cc, src/system-alloc.cc.
"""

from __future__ import annotations

from fleetsim.allocators.glibc_trim import FAR, ZAP_BUDGET
from fleetsim.allocators.jemalloc_sizes import page_class, page_class_size
from fleetsim.allocators.slab_laws import MIB, ONE
from fleetsim.allocators.slab_model import (
    ALL,
    AT_RANDOM,
    IN_ORDER,
    free_blocks,
    look_at_time,
    malloc_blocks,
    pool_pages,
    purge,
    resident_bytes,
)
from fleetsim.allocators.tables import JEMALLOC
from fleetsim.hardware.cpu import MADVISE
from fleetsim.law import law
from fleetsim.linux.brk import bring_back, populate, resize_area, swapped_between, zap_range

PAGE = 4096
MAPPING = 2 * MIB
LOOK_NS_MIN = 100_000_000  # BACKGROUND_THREAD_MIN_INTERVAL_NS
LOOKS = 50  # of the background thread in a decay time: it sleeps until so much is due that a purge is worth it
SLACK_PAGES = 512  # so much more than the blocks themselves a part of a loop may take: one slab of every class


@law
def slab_pages(row, h):
    """Pages that heap `h` has populated or wants populated.

    Source: slab_model.py resident_bytes.
    """
    heap = row["slab_heaps"][row["heaps"][h]["slab"]]
    return (resident_bytes(heap, row["slab_classes"]) + PAGE - 1) // PAGE


@law
def grow_mappings(row, h, pages):
    """Map until there is room for `pages` pages.

    returns  bool  False: ENOMEM

    Source: src/extent.c extent_grow_retained (jemalloc); src/page_heap.cc GrowHeap, kMinSystemAlloc (tcmalloc).
    """
    heap = row["heaps"][h]
    slab = row["slab_heaps"][heap["slab"]]
    area = row["areas"][heap["area"]]
    while area["pages"] < pages:
        size = (pages - area["pages"] + 255) // 256 * 256
        if slab["kind"] == JEMALLOC:
            size = page_class_size(page_class(MAPPING) + int(slab["mappings"])) // PAGE
        row["spent_ns"] += row["cost"][MADVISE]
        if not resize_area(row, heap["area"], size):
            return False
        slab["mappings"] += 1
    return True


@law
def slab_malloc(row, h, blocks, least, most):
    """`blocks` calls of malloc() on heap `h`, for sizes uniform in least..most.

    returns  int64  calls that got memory; fewer: ENOMEM

    Source: src/jemalloc.c imalloc_body; src/tcmalloc.cc do_malloc.
    """
    heap = row["heaps"][h]
    slab = row["slab_heaps"][heap["slab"]]
    asked = blocks * (least + most) // (2 * PAGE)
    room = max(0, asked + asked // 4 + SLACK_PAGES - pool_pages(slab))
    before = slab_pages(row, h)
    if not grow_mappings(row, h, before + room) and not grow_mappings(row, h, before + asked):
        return 0
    done = malloc_blocks(slab, row["slab_classes"], blocks, least, most)
    after = slab_pages(row, h)
    if slab["pages"] > 0:  # blocks that lie where others were touch what is in swap of it
        out = swapped_between(row, heap["area"], 0, FAR)
        reused = max(0, asked - max(0, after - before))
        slab["stir"] = min(out, slab["stir"] + out * min(reused, int(slab["pages"])) // slab["pages"])
    slab["dead_high"] = slab["blocks"]
    heap["blocks"] = slab["blocks"]
    return done


@law
def slab_free(row, h, how, share):
    """Free a share of the live blocks of heap `h`.

    how      int64  ALL, IN_ORDER or AT_RANDOM
    share    int64  30-bit fixed point
    returns  int64  blocks freed

    Source: src/arena.c arena_dalloc, src/decay.h decay_immediately; src/tcmalloc.cc do_free.
    """
    slab = row["slab_heaps"][row["heaps"][h]["slab"]]
    freed = free_blocks(slab, row["slab_classes"], how, share)
    if slab["kind"] == JEMALLOC and slab["decay_ms"] == 0:
        purge(slab)
    return freed


@law
def slab_free_range(row, h, low, high):
    """Free the blocks with numbers low..high−1, as far as they live: an end of those that do, or all.

    returns  int64  blocks freed

    Source: the recordings' driver (mfree first:f, last:f, all).
    """
    slab = row["slab_heaps"][row["heaps"][h]["slab"]]
    first, end = int(slab["dead_low"]), int(slab["dead_high"])
    a, b = max(low, first), min(high, end)
    if b <= a:
        return 0
    if a == first:
        slab["dead_low"] = b
    else:
        slab["dead_high"] = a
    if a == first and b == end:
        return slab_free(row, h, ALL, ONE)
    return slab_free(row, h, IN_ORDER, (b - a) * ONE // (end - first))


@law
def slab_free_random(row, h, share):
    """Free a share (30-bit fixed point) of the live blocks, any of them.

    returns  int64  blocks freed

    Source: the recordings' driver (mfree random:f).
    """
    return slab_free(row, h, AT_RANDOM, share)


@law
def slab_look(row, h):
    """The task is about to call its allocator, or its background thread looks: what may not be kept any longer is to go.

    A loop of calls takes less than one of the 200 steps of a decay, so what it frees counts as freed at the next look, as in life.

    Source: src/arena.c arena_decay_ticks; src/background_thread.c background_work_sleep_once.
    """
    look_at_time(row["slab_heaps"][row["heaps"][h]["slab"]], row["now_ns"] + row["spent_ns"] + row["wait_ns"])


@law
def slab_settle(row, th, h):
    """Fault in, fetch from swap and give back what the last calls made necessary.

    returns  bool  False: not all is done, come back

    Source: mm/memory.c, mm/madvise.c by way of linux/brk.py.
    """
    heap = row["heaps"][h]
    slab = row["slab_heaps"][heap["slab"]]
    area = heap["area"]
    while slab["stir"] > 0:
        done = bring_back(row, th, area, 0, FAR, slab["stir"])
        if done == 0:
            return False
        slab["stir"] -= min(slab["stir"], done) if done > 0 else slab["stir"]
    wanted = slab_pages(row, h)
    while slab["pages"] < wanted:
        done = populate(row, th, area, 0, wanted, wanted - slab["pages"])
        if done == 0:
            return False
        slab["pages"] += done
    if slab["pages"] > wanted:
        row["spent_ns"] += row["cost"][MADVISE]
        slab["pages"] -= zap_range(row, area, 0, FAR, min(ZAP_BUDGET, slab["pages"] - wanted))
    return slab["pages"] == wanted


@law
def next_look(row, h):
    """When the background thread of heap `h` looks again; a far away instant if it has none or there is nothing to purge.

    Source: src/background_thread.c background_thread_sleep, decay_ns_until_purge.
    """
    slab = row["slab_heaps"][row["heaps"][h]["slab"]]
    if slab["background"] == 0 or slab["decay_ms"] < 0 or (pool_pages(slab) == 0 and slab["pages"] == slab_pages(row, h)):
        return 1 << 62
    return row["now_ns"] + max(LOOK_NS_MIN, int(slab["decay_ms"]) * 1_000_000 // LOOKS)
