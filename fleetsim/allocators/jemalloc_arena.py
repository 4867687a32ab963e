# SPDX-License-Identifier: Apache-2.0
"""Slabs and large blocks of a jemalloc arena.

A slab is an extent cut into regions of one class. The current slab of a bin serves until it is full, then the oldest and
lowest slab that has a free region, then a new one; an empty slab is a free extent at once. A large block is an extent.
Leaves out: bin shards (one per bin is the default), slab lists of arenas made by hand.
Source: src/arena.c, large.c of jemalloc 5.3.0; kernel-laws §15.2.
"""

from __future__ import annotations

from fleetsim.allocators.jemalloc_decay import after_free, draw, start_decay, tick
from fleetsim.allocators.jemalloc_extents import (
    HUGE_PAGE,
    alloc_extent,
    base_alloc,
    record_extent,
)
from fleetsim.allocators.jemalloc_heap import before, heap_insert, heap_remove
from fleetsim.allocators.jemalloc_sizes import LARGE_PAD, PAGE, REGIONS, SIZE_OF, SLAB_PAGES, page_class
from fleetsim.allocators.jemalloc_tables import BITMAP_WORDS, DIRTY, MUZZY
from fleetsim.law import law

CACHE_LINE = 64
ARENA_METADATA = 91_024  # bytes: base_t, arena_t and its bins; measured with libjemalloc2 5.3.0-1, like all that follow
FIRST_METADATA, FIRST_MAPPED, FIRST_GAP = 2_374_352, 6 << 20, 4_500
"""The first arena's: also the tables of sizes and arenas, and a leaf of the radix tree; of it the process touches little."""
CTL_METADATA = 37_856  # bytes for each further arena that there may be, in the tables that mallctl() answers from
LEAF = 2 << 20  # bytes of a leaf: 8 for each page of a GiB of addresses; counted as resident, populated only where extents begin and end


@law
def start_arena(heap, a):
    """Arena `a` comes to life: its metadata, no pages yet.

    Source: src/arena.c arena_new; src/base.c base_new.
    """
    arena = heap.arenas[a]
    arena["used"] = 1
    arena["next_growth"] = page_class(HUGE_PAGE)
    arena["base_growth"] = page_class(HUGE_PAGE) - 1
    arena["wake"] = -1
    if a == 0:
        arena["base_allocated"], arena["base_mapped"] = FIRST_METADATA, FIRST_MAPPED
        arena["base_room"], arena["base_growth"] = FIRST_MAPPED - FIRST_METADATA - FIRST_GAP, page_class(FIRST_MAPPED - HUGE_PAGE)
        arena["base_resident"] = (FIRST_METADATA + FIRST_GAP + PAGE - 1) // PAGE * PAGE
        for _ in range(heap.options[0]["narenas"] - 1):
            base_alloc(heap, 0, CTL_METADATA)
    else:
        base_alloc(heap, a, ARENA_METADATA)
    options = heap.options[0]
    oversize = a == options["narenas"]  # blocks that are purged at once anyway
    for state in (DIRTY, MUZZY):
        ms = options["decay_ms"][state]
        start_decay(heap, a, state, 0 if oversize and ms > 0 else ms)


@law
def free_extent(heap, a, e):
    """Active extent `e` of arena `a` is free: dirty.

    Source: src/pa.c pa_dalloc; src/pac.c pac_dalloc_impl.
    """
    heap.arenas[a]["active"] -= heap.extents[e]["pages"]
    heap.extents[e]["slab"] = -1
    record_extent(heap, a, DIRTY, e)
    after_free(heap, a)


@law
def new_slab(heap, a, k):
    """A slab of size class `k`, all its regions free.

    Source: src/arena.c arena_slab_alloc.
    """
    e = alloc_extent(heap, a, SLAB_PAGES[k], 1)
    extent = heap.extents[e]
    extent["slab"] = k
    extent["free"] = REGIONS[k]
    for word in range(BITMAP_WORDS):
        extent["regions"][word] = (1 << max(0, min(32, REGIONS[k] - 32 * word))) - 1
    for page in range(extent["page"], extent["page"] + extent["pages"]):
        heap.owner[page] = e
    return e


@law
def take_region(heap, e):
    """The lowest free region of slab `e`.

    returns  int64  its address

    Source: src/arena.c arena_slab_reg_alloc.
    """
    extent = heap.extents[e]
    extent["free"] -= 1
    for word in range(BITMAP_WORDS):
        bits = extent["regions"][word]
        if bits != 0:
            extent["regions"][word] = bits & (bits - 1)
            bit, lowest = 0, bits & -bits
            while lowest > 1:
                lowest >>= 1
                bit += 1
            return extent["page"] * PAGE + (32 * word + bit) * SIZE_OF[extent["slab"]]
    return -1


@law
def current_slab(heap, a, k):
    """The slab that serves the next request of class `k`: the current one, else the first that is not full, else a new one.

    Source: src/arena.c arena_bin_refill_slabcur_no_fresh_slab, arena_bin_refill_slabcur_with_fresh_slab.
    """
    arena = heap.arenas[a]
    e = arena["current_slab"][k]
    if e >= 0 and heap.extents[e]["free"] > 0:
        return e
    e = arena["slabs"][k]
    if e >= 0:
        arena["slabs"][k] = heap_remove(heap.extents, e, e)
    else:
        e = new_slab(heap, a, k)
    arena["current_slab"][k] = e
    return e


@law
def alloc_small(heap, a, k):
    """One region of class `k`.

    returns  int64  its address

    Source: src/arena.c arena_malloc_small, arena_cache_bin_fill_small.
    """
    heap.state[0]["allocated"] += SIZE_OF[k]
    return take_region(heap, current_slab(heap, a, k))


@law
def free_small(heap, e, address):
    """A region of slab `e` is free.

    returns  bool  the slab is empty and out of its bin; the caller frees it

    Source: include/jemalloc/internal/arena_inlines_b.h arena_dalloc_bin_locked_step; src/arena.c arena_bin_lower_slab.
    """
    extent = heap.extents[e]
    k = extent["slab"]
    arena = heap.arenas[extent["arena"]]
    region = (address - extent["page"] * PAGE) // SIZE_OF[k]
    extent["regions"][region // 32] |= 1 << (region % 32)
    extent["free"] += 1
    heap.state[0]["allocated"] -= SIZE_OF[k]
    current = arena["current_slab"][k]
    if extent["free"] == REGIONS[k]:
        if e == current:
            arena["current_slab"][k] = -1
        elif REGIONS[k] > 1:
            arena["slabs"][k] = heap_remove(heap.extents, arena["slabs"][k], e)
        return True
    if extent["free"] == 1 and e != current:
        waits = e
        if current >= 0 and before(heap.extents, e, current):
            arena["current_slab"][k] = e
            waits = current if heap.extents[current]["free"] > 0 else -1
        if waits >= 0:
            arena["slabs"][k] = heap_insert(heap.extents, arena["slabs"][k], waits)
    return False


@law
def alloc_large(heap, t, a, k, size, alignment):
    """A block of large class `k`: an extent of its own, in the arena of oversize blocks if it is that large.

    size       int64  bytes by which it is judged: malloc's request, any other call's class, 0 from a thread cache
    alignment  int64  bytes, 0: any
    returns    int64  its address: some cache lines behind the begin of the extent

    Source: src/large.c large_palloc; src/arena.c arena_malloc_hard, arena_extent_alloc_large, arena_cache_oblivious_randomize.
    """
    options = heap.options[0]
    if size >= options["oversize_threshold"]:
        a = options["narenas"]
        if heap.arenas[a]["used"] == 0:
            start_arena(heap, a)
    e = alloc_extent(heap, a, (SIZE_OF[k] + LARGE_PAD) // PAGE, max(1, alignment // PAGE))
    heap.state[0]["allocated"] += SIZE_OF[k]
    step, line = max(CACHE_LINE, alignment), 0
    if step < PAGE:
        line, heap.threads[t]["luck"] = draw(heap.threads[t]["luck"], PAGE // step)
    tick(heap, t, a, 1)
    return heap.extents[e]["page"] * PAGE + line * step


@law
def free_large(heap, e, k):
    """The large block of class `k` in extent `e` is free.

    Source: src/large.c large_dalloc_prep_impl, large_dalloc_finish_impl.
    """
    heap.state[0]["allocated"] -= SIZE_OF[k]
    free_extent(heap, heap.extents[e]["arena"], e)
