# SPDX-License-Identifier: Apache-2.0
"""The cheap model of jemalloc and tcmalloc for a task of a fleet: counts per size class instead of blocks.

A class knows its live blocks, its slabs, how many of those have free regions (holey) and how many regions that is (spare). Freed
slabs and large blocks join a pool of free pages that are still populated. What differs between the two is law: how large slabs
are, what merged free memory is purged at once, and how the pool shrinks (jemalloc by time, tcmalloc by pages freed).
Leaves out: thread caches, order of addresses in the pool, several arenas; expected values throughout.
Source: jemalloc 5.3.0 and gperftools 2.10 by way of their exact simulators, to which tests/allocators/test_slab_model.py ties it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fleetsim.allocators import jemalloc_sizes, tcmalloc_sizes
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
from fleetsim.law import law

PAGE = 4096
NR_COHORTS = 8
JEMALLOC, TCMALLOC = 0, 1
ALL, IN_ORDER, AT_RANDOM = 0, 1, 2
"""What is freed: everything, the first or last share of the blocks, or a share of them at random."""
DESCRIPTION = (128, 48)  # bytes by which jemalloc, tcmalloc describe an extent, a span
CACHED_UP_TO = 96 << 10  # mean bytes of large blocks above which few are small enough for a thread's cache (32 KiB)
LARGE_EXTENT = 4  # pages from which jemalloc merges a free extent at once

SLAB_HEAP = np.dtype(
    [
        ("kind", "i8"),
        ("decay_ms", "i8"),
        ("threshold", "i8"),  # bytes from which a free run is purged at once
        ("rate_q", "i8"),  # release rate, 1024ths
        ("live", "i8", (96,)),  # blocks by class
        ("slabs", "i8", (96,)),
        ("holey", "i8", (96,)),  # slabs with free regions
        ("spare", "i8", (96,)),  # free regions
        ("large_live", "i8"),  # blocks above the classes
        ("large_pages", "i8"),  # populated pages of 4 KiB in them
        ("pool", "i8", (NR_COHORTS,)),  # populated free pages by age
        ("first", "i8", (NR_COHORTS,)),  # … there were before any of them was purged
        ("since", "i8", (NR_COHORTS,)),  # ns: when that was first seen, −1: not yet
        ("freed", "i8"),  # pages of 8 KiB ever freed to the page heap
        ("returned", "i8"),  # … that were returned to the kernel for it
    ]
)


def new_heap(
    kind: int, *, decay_ms: int = 10_000, threshold: int = 8 << 20, release_rate: float = 1.0
) -> tuple[np.void, npt.NDArray[np.int64]]:
    """An empty heap, and the table of classes that its laws take: [class, (bytes, pages of 4 KiB per slab, regions)]."""
    row = np.zeros(1, SLAB_HEAP)[0]
    row["kind"], row["decay_ms"], row["threshold"], row["rate_q"] = kind, decay_ms, threshold, round(release_rate * 1024)
    if kind == JEMALLOC:
        small = jemalloc_sizes.SIZE_OF[: jemalloc_sizes.SMALL_CLASSES]
        return row, np.stack([small, jemalloc_sizes.SLAB_PAGES, jemalloc_sizes.REGIONS], 1)
    sizes, pages = tcmalloc_sizes.SIZE_OF[1:], 2 * tcmalloc_sizes.SPAN_PAGES[1:]
    return row, np.stack([sizes, pages, pages * PAGE // sizes], 1)


@law
def pool_pages(row):
    """Populated free pages.

    Source: sum of the cohorts.
    """
    total = 0
    for c in range(NR_COHORTS):
        total += row["pool"][c]
    return total


@law
def pages_in_use(row, classes):
    """Populated pages of slabs and large blocks.

    Source: the definition of slabs.
    """
    total = row["large_pages"]
    for k in range(len(classes)):
        total += row["slabs"][k] * classes[k, 1]
    return total


@law
def resident_bytes(row, classes):
    """Resident bytes: slabs, large blocks, the pool, and what describes them.

    Source: src/pa_extra.c pa_shard_stats_merge (jemalloc); src/tcmalloc.cc ExtractStats (tcmalloc).
    """
    described = row["large_live"]
    for k in range(len(classes)):
        described += row["slabs"][k]
    return (pages_in_use(row, classes) + pool_pages(row)) * PAGE + described * DESCRIPTION[row["kind"]]


@law
def take_pages(row, pages):
    """`pages` pages come out of the pool, as far as it goes, the youngest first.

    Source: src/pac.c pac_alloc_real (dirty extents first); src/page_heap.cc SearchFreeAndLargeLists.
    """
    for c in range(NR_COHORTS - 1, -1, -1):
        got = min(pages, row["pool"][c])
        row["pool"][c] -= got
        row["first"][c] -= got
        pages -= got


@law
def give_pages(row, pages):
    """`pages` populated pages join the pool.

    Source: src/pac.c pac_dalloc_impl; src/page_heap.cc Delete.
    """
    last = NR_COHORTS - 1
    if row["since"][last] >= 0:
        row["pool"][0] += row["pool"][1]  # the two oldest become one
        row["first"][0] += row["first"][1]
        row["since"][0] = row["since"][1]
        for c in range(1, last):
            row["pool"][c], row["first"][c], row["since"][c] = row["pool"][c + 1], row["first"][c + 1], row["since"][c + 1]
        row["pool"][last], row["first"][last] = 0, 0
    row["pool"][last] += pages
    row["first"][last] += pages
    row["since"][last] = -1
    row["freed"] += pages // 2


@law
def malloc_class(row, classes, k, blocks):
    """`blocks` blocks of class `k`: free regions of the lowest slabs first, then new slabs.

    Source: src/arena.c arena_cache_bin_fill_small; src/central_freelist.cc RemoveRange.
    """
    regions = classes[k, 2]
    row["live"][k] += blocks
    take = min(blocks, row["spare"][k])
    if take > 0:
        row["holey"][k] -= row["holey"][k] * take // row["spare"][k]
        row["spare"][k] -= take
    new = (blocks - take + regions - 1) // regions
    row["slabs"][k] += new
    over = new * regions - (blocks - take)
    row["spare"][k] += over
    row["holey"][k] += 1 if over > 0 else 0
    take_pages(row, new * classes[k, 1])


@law
def malloc_blocks(row, classes, blocks, least, most):
    """`blocks` calls of malloc() for sizes uniform in least..most, each block written once.

    Source: src/jemalloc.c imalloc_body; src/tcmalloc.cc do_malloc.
    """
    above, done, seen, width = 0, 0, 0, most - least + 1
    for k in range(len(classes)):
        seen += sizes_within(least, most, above, classes[k, 0])
        here = blocks * seen // width - done
        done += here
        above = classes[k, 0]
        if here > 0:
            malloc_class(row, classes, k, here)
    rest = blocks - done
    if rest > 0:
        mean = (max(least, above + 1) + most) // 2
        pages = rest * mean // PAGE + rest * (1 if row["kind"] == JEMALLOC else 0) + rest // 2
        row["large_live"] += rest
        row["large_pages"] += pages
        take_pages(row, pages)


@law
def free_class_at_random(row, classes, k, share):
    """A share of class `k`'s blocks is freed at random.

    share    int64  30-bit fixed point
    returns  int64  slabs that are empty then

    Source: independent chances: a slab is empty if each region is free.
    """
    regions, slabs, holey = classes[k, 2], row["slabs"][k], row["holey"][k]
    full = slabs - holey
    free_in_holey = min(ONE, row["spare"][k] * ONE // max(1, holey * regions))
    free_after = free_in_holey + ((ONE - free_in_holey) * share >> 30)
    empty = (full * empty_share(share, regions) + holey * empty_share(free_after, regions)) >> 30
    still_full = full * power_q(ONE - share, regions) >> 30
    row["live"][k] -= row["live"][k] * share >> 30
    row["slabs"][k] = slabs - empty
    row["holey"][k] = row["slabs"][k] - still_full
    row["spare"][k] = row["slabs"][k] * regions - row["live"][k]
    return empty


@law
def free_class_in_order(row, classes, k, share):
    """A share of class `k`'s blocks, those beside each other, is freed.

    share    int64  30-bit fixed point
    returns  int64  slabs that are empty then

    Source: src/arena.c arena_slab_reg_alloc (regions are given out in order).
    """
    freed = row["live"][k] * share >> 30
    empty = min(row["slabs"][k], freed // classes[k, 2])
    row["live"][k] -= freed
    row["slabs"][k] -= empty
    row["spare"][k] = row["slabs"][k] * classes[k, 2] - row["live"][k]
    row["holey"][k] = min(row["slabs"][k], row["holey"][k] + (1 if freed > 0 else 0))
    return empty


@law
def free_blocks(row, classes, how, share):
    """Free a share of all blocks: beside each other or at random; the pages that are free then join the pool, or are purged at once.

    how    int64  ALL, IN_ORDER or AT_RANDOM
    share  int64  30-bit fixed point

    Source: src/extent.c extent_record; src/page_heap.cc Delete.
    """
    pages, merges = 0, row["large_live"] > 0
    share = ONE if how == ALL else share
    for k in range(len(classes)):
        if row["slabs"][k] > 0:
            empty = free_class_at_random(row, classes, k, share) if how == AT_RANDOM else free_class_in_order(row, classes, k, share)
            if share == ONE:  # what was partly free is as well
                empty += row["slabs"][k]
                row["slabs"][k], row["holey"][k], row["spare"][k], row["live"][k] = 0, 0, 0, 0
            pages += empty * classes[k, 1]
            merges = merges or (empty > 0 and classes[k, 1] >= LARGE_EXTENT)
    before, blocks = row["large_pages"], row["large_live"]
    gone = before * share >> 30
    row["large_live"] -= blocks * share >> 30
    row["large_pages"] -= gone
    pages += gone
    if row["kind"] == JEMALLOC and merges and (share == ONE or how == IN_ORDER):
        pages = min(pages, kept_of_run(pages, how, share == ONE and before * PAGE > CACHED_UP_TO * blocks, row["threshold"]))
    elif row["kind"] == JEMALLOC and blocks > 0:
        pages -= min(pages, purged_by_chance(before, share, before * PAGE // blocks, row["threshold"]))
    give_pages(row, pages)
    if row["kind"] == TCMALLOC:
        due = returned_pages(row["freed"], row["rate_q"]) - row["returned"]
        row["returned"] += due
        take_pages(row, min(pool_pages(row), 2 * due))


@law
def look_at_time(row, now):
    """The task is active (or has a background thread) and looks at the time: jemalloc purges what it may not keep any more.

    What was freed since the last look counts as freed now.

    Source: src/pac.c pac_maybe_decay_purge; src/decay.c decay_backlog_update.
    """
    if row["kind"] == JEMALLOC:
        for c in range(NR_COHORTS):
            if row["since"][c] < 0:
                row["since"][c] = now
            kept = row["first"][c] * decay_share(now - row["since"][c], row["decay_ms"]) >> SMOOTHSTEP_BITS
            row["pool"][c] = min(row["pool"][c], kept)
