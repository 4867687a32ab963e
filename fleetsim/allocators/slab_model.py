# SPDX-License-Identifier: Apache-2.0
"""The cheap model of jemalloc and tcmalloc for a task of a fleet: counts per size class instead of blocks.

A class knows its live blocks, its slabs, how many of those have free regions (holey) and how many regions that is (spare). Freed
slabs and large blocks join a pool of free pages that are still populated. What differs between the two is law: how large slabs
are, what merged free memory is purged at once, and how the pool shrinks (jemalloc by time, tcmalloc by pages freed).
A class in use is a row of a table that all heaps of a host share (`SLAB_CLASS`), and a heap is the chain of its rows.
Leaves out: thread caches, order of addresses in the pool, several arenas; expected values throughout.
Source: jemalloc 5.3.0 and gperftools 2.10 by way of their exact simulators, to which tests/allocators/test_slab_model.py ties it.
"""

from __future__ import annotations

from fleetsim.allocators.jemalloc_decay import SMOOTHSTEP_BITS
from fleetsim.allocators.slab_laws import (
    ONE,
    decay_share,
    empty_share,
    kept_of_run,
    power_q,
    purged_by_chance,
    returned_pages,
    sizes_within,
)
from fleetsim.allocators.slab_table import class_row, classes_of, drop_classes
from fleetsim.allocators.tables import JEMALLOC, NR_POOL_COHORTS, TCMALLOC
from fleetsim.law import law

PAGE = 4096
ALL, IN_ORDER, AT_RANDOM = 0, 1, 2
"""What is freed: everything, the first or last share of the blocks, or a share of them at random."""
DESCRIPTION = (128, 48)  # bytes by which jemalloc, tcmalloc describe an extent, a span
CACHED_UP_TO = 96 << 10  # mean bytes of large blocks above which few are small enough for a thread's cache (32 KiB)
LARGE_EXTENT = 4  # pages from which jemalloc merges a free extent at once


@law
def pool_pages(heap):
    """Populated free pages.

    Source: sum of the cohorts.
    """
    total = 0
    for c in range(NR_POOL_COHORTS):
        total += int(heap["pool"][c])
    return total


@law
def pages_in_use(heap, table):
    """Populated pages of slabs and large blocks.

    Source: the definition of slabs.
    """
    total, i = int(heap["large_pages"]), heap["head"]
    classes = classes_of(heap)
    while i >= 0:
        total += int(table[i]["slabs"]) * classes[table[i]["k"], 1]
        i = table[i]["next"]
    return total


@law
def allocated_bytes(heap, table):
    """Bytes of the regions and large blocks that hold live blocks.

    Source: src/ctl.c stats.allocated (jemalloc); src/tcmalloc.cc generic.current_allocated_bytes.
    """
    total, i = int(heap["large_pages"]) * PAGE, heap["head"]
    classes = classes_of(heap)
    while i >= 0:
        total += int(table[i]["live"]) * classes[table[i]["k"], 0]
        i = table[i]["next"]
    return total


@law
def resident_bytes(heap, table):
    """Resident bytes: slabs, large blocks, the pool, and what describes them.

    Source: src/pa_extra.c pa_shard_stats_merge (jemalloc); src/tcmalloc.cc ExtractStats (tcmalloc).
    """
    described, i = int(heap["large_live"]), heap["head"]
    while i >= 0:
        described += table[i]["slabs"]
        i = table[i]["next"]
    return (pages_in_use(heap, table) + pool_pages(heap)) * PAGE + described * DESCRIPTION[heap["kind"]]


@law
def take_pages(heap, pages):
    """`pages` pages come out of the pool, as far as it goes, the youngest first.

    Source: src/pac.c pac_alloc_real (dirty extents first); src/page_heap.cc SearchFreeAndLargeLists.
    """
    for c in range(NR_POOL_COHORTS - 1, -1, -1):
        got = min(pages, heap["pool"][c])
        heap["pool"][c] -= got
        heap["first"][c] -= got
        pages -= got


@law
def give_pages(heap, pages):
    """`pages` populated pages join the pool.

    Source: src/pac.c pac_dalloc_impl; src/page_heap.cc Delete.
    """
    last = NR_POOL_COHORTS - 1
    if heap["since"][last] >= 0:
        heap["pool"][0] += heap["pool"][1]  # the two oldest become one
        heap["first"][0] += heap["first"][1]
        heap["since"][0] = heap["since"][1]
        for c in range(1, last):
            heap["pool"][c], heap["first"][c], heap["since"][c] = heap["pool"][c + 1], heap["first"][c + 1], heap["since"][c + 1]
        heap["pool"][last], heap["first"][last] = 0, 0
    heap["pool"][last] += pages
    heap["first"][last] += pages
    heap["since"][last] = -1
    heap["freed"] += pages // 2


@law
def malloc_class(heap, table, i, blocks):
    """`blocks` blocks of the class in row `i`: free regions of the lowest slabs first, then new slabs.

    Source: src/arena.c arena_cache_bin_fill_small; src/central_freelist.cc RemoveRange.
    """
    c, classes = table[i], classes_of(heap)
    regions = classes[c["k"], 2]
    c["live"] += blocks
    take = min(blocks, c["spare"])
    if take > 0:
        c["holey"] -= int(c["holey"]) * take // c["spare"]
        c["spare"] -= take
    new = (blocks - take + regions - 1) // regions
    c["slabs"] += new
    over = new * regions - (blocks - take)
    c["spare"] += over
    c["holey"] += 1 if over > 0 else 0
    take_pages(heap, new * classes[c["k"], 1])


@law
def malloc_blocks(heap, table, blocks, least, most):
    """`blocks` calls of malloc() for sizes uniform in least..most, each block written once.

    returns  int64  calls that got memory; fewer: the table of classes is full

    Source: src/jemalloc.c imalloc_body; src/tcmalloc.cc do_malloc.
    """
    above, done, seen, width = 0, 0, 0, most - least + 1
    got, asked, before = 0, 0, int(heap["blocks"])  # of many small loops the shares add up to those of one large one
    classes = classes_of(heap)
    for k in range(len(classes)):
        seen += sizes_within(least, most, above, classes[k, 0])
        here = max(0, min(blocks, (before + blocks) * seen // width - before * seen // width) - done)
        done += here
        if here > 0:
            i = class_row(heap, table, k)
            if i >= 0:
                malloc_class(heap, table, i, here)
                got += here
                asked += here * (max(least, above + 1) + min(most, classes[k, 0])) // 2
        above = classes[k, 0]
    rest = blocks - done
    if rest > 0:
        mean = (max(least, above + 1) + most) // 2
        pages = rest * mean // PAGE + rest * (1 if heap["kind"] == JEMALLOC else 0) + rest // 2
        heap["large_live"] += rest
        heap["large_pages"] += pages
        take_pages(heap, pages)
        got += rest
        asked += rest * mean
    heap["blocks"] += got
    heap["live"] += got
    heap["asked"] += asked
    return got


@law
def free_class_at_random(heap, table, i, share):
    """A share of the blocks of the class in row `i` is freed at random.

    share    int64  30-bit fixed point
    returns  int64  slabs that are empty then

    Source: independent chances: a slab is empty if each region is free.
    """
    c, classes = table[i], classes_of(heap)
    regions, slabs, holey, live = classes[c["k"], 2], int(c["slabs"]), int(c["holey"]), int(c["live"])
    full = slabs - holey
    free_in_holey = min(ONE, int(c["spare"]) * ONE // max(1, holey * regions))
    free_after = free_in_holey + ((ONE - free_in_holey) * share >> 30)
    empty = (full * empty_share(share, regions) + holey * empty_share(free_after, regions)) >> 30
    still_full = full * power_q(ONE - share, regions) >> 30
    live -= live * share >> 30
    slabs -= empty
    c["live"] = live
    c["slabs"] = slabs
    c["holey"] = slabs - still_full
    c["spare"] = slabs * regions - live
    return empty


@law
def free_class_in_order(heap, table, i, share):
    """A share of the blocks of the class in row `i`, those beside each other, is freed.

    share    int64  30-bit fixed point
    returns  int64  slabs that are empty then

    Source: src/arena.c arena_slab_reg_alloc (regions are given out in order).
    """
    c, classes = table[i], classes_of(heap)
    regions, slabs, live = classes[c["k"], 2], int(c["slabs"]), int(c["live"])
    freed = live * share >> 30
    empty = min(slabs, freed // regions)
    live -= freed
    slabs -= empty
    c["live"] = live
    c["slabs"] = slabs
    c["spare"] = slabs * regions - live
    c["holey"] = min(slabs, c["holey"] + (1 if freed > 0 else 0))
    return empty


@law
def free_classes(heap, table, how, share):
    """free_blocks for the blocks of size classes.

    returns  (int64 pages of slabs that are empty then, bool some of those are large enough to be merged at once)

    Source: src/arena.c arena_dalloc_bin_locked_handle_newly_empty; src/central_freelist.cc ReleaseToSpans.
    """
    pages, merges, classes = 0, False, classes_of(heap)
    i = heap["head"]
    while i >= 0:
        c = table[i]
        if c["slabs"] > 0:
            random = how == AT_RANDOM
            empty = free_class_at_random(heap, table, i, share) if random else free_class_in_order(heap, table, i, share)
            if share == ONE:  # what was partly free is as well
                empty += c["slabs"]
                c["slabs"] = 0
                c["holey"] = 0
                c["spare"] = 0
                c["live"] = 0
            pages += empty * classes[c["k"], 1]
            merges = merges or (empty > 0 and classes[c["k"], 1] >= LARGE_EXTENT)
        i = c["next"]
    return pages, merges


@law
def free_blocks(heap, table, how, share):
    """Free a share of all blocks: beside each other or at random; the pages that are free then join the pool, or are purged at once.

    how      int64  ALL, IN_ORDER or AT_RANDOM
    share    int64  30-bit fixed point
    returns  int64  blocks freed

    Source: src/extent.c extent_record; src/page_heap.cc Delete.
    """
    share = ONE if how == ALL else share
    before, blocks = int(heap["large_pages"]), int(heap["large_live"])
    pages, merges = free_classes(heap, table, how, share)
    merges = merges or blocks > 0
    gone = before * share >> 30
    heap["large_live"] -= blocks * share >> 30
    heap["large_pages"] -= gone
    pages += gone
    if heap["kind"] == JEMALLOC and merges and (share == ONE or how == IN_ORDER):
        pages = min(pages, kept_of_run(pages, how, share == ONE and before * PAGE > CACHED_UP_TO * blocks, heap["threshold"]))
    elif heap["kind"] == JEMALLOC and blocks > 0:
        pages -= min(pages, purged_by_chance(before, share, before * PAGE // blocks, heap["threshold"]))
    give_pages(heap, pages)
    if heap["kind"] == TCMALLOC:
        due = returned_pages(heap["freed"], int(heap["rate_q"])) - heap["returned"]
        heap["returned"] += due
        take_pages(heap, min(pool_pages(heap), 2 * due))
    live = heap["large_live"]
    i = heap["head"]
    while i >= 0:
        live += table[i]["live"]
        i = table[i]["next"]
    freed = heap["live"] - live
    heap["asked"] -= heap["asked"] * share >> 30 if freed < heap["live"] else heap["asked"]
    heap["live"] = live
    drop_classes(heap, table, 0)
    return freed


@law
def purge(heap):
    """All free pages are given back: mallctl arena.<i>.purge of jemalloc, MallocExtension::ReleaseFreeMemory of tcmalloc.

    Source: src/pac.c pac_decay_all; src/page_heap.cc ReleaseAtLeastNPages.
    """
    for c in range(NR_POOL_COHORTS):
        heap["pool"][c], heap["first"][c] = 0, 0


@law
def look_at_time(heap, now):
    """The task is active (or has a background thread) and looks at the time: jemalloc purges what it may not keep any more.

    What was freed since the last look counts as freed now.

    Source: src/pac.c pac_maybe_decay_purge; src/decay.c decay_backlog_update.
    """
    if heap["kind"] == JEMALLOC:
        for c in range(NR_POOL_COHORTS):
            if heap["since"][c] < 0:
                heap["since"][c] = now
            kept = int(heap["first"][c]) * decay_share(now - heap["since"][c], int(heap["decay_ms"])) >> SMOOTHSTEP_BITS
            heap["pool"][c] = min(heap["pool"][c], kept)
