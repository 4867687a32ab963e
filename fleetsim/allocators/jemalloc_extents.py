# SPDX-License-Identifier: Apache-2.0
"""Free extents of a jemalloc arena: which one serves a request, how they are split, merged, purged and mapped.

Three sets per arena. Dirty extents are populated and wait for decay; merging them is put off until they are evicted, unless
they have 16 KiB or more. Muzzy ones may be taken by the kernel; retained ones are address space without pages, and grow by
mappings each a size class larger than the last. From `oversize_threshold` on a free extent is purged at once.
Leaves out: mappings that the kernel puts side by side and that merge (only with retain:false), dss (sbrk), huge pages (hpa), guards.
Source: src/extent.c, eset.c, pac.c, base.c of jemalloc 5.3.0; kernel-laws §15.2.
"""

from __future__ import annotations

from fleetsim.allocators.jemalloc_heap import before, heap_insert, heap_remove
from fleetsim.allocators.jemalloc_sizes import (
    LARGE_MIN,
    PAGE,
    PAGE_CLASSES,
    page_class,
    page_class_size,
    quantize_ceil,
    quantize_floor,
)
from fleetsim.allocators.jemalloc_tables import ACTIVE, DIRTY, MUZZY, RETAINED
from fleetsim.law import law

EDATA = 128  # bytes that describe an extent
HUGE_PAGE = 2 << 20


@law
def base_alloc(heap, a, size):
    """`size` bytes of metadata of arena `a`, never given back; blocks of it are mapped in multiples of 2 MiB, each larger than the last.

    Source: src/base.c base_alloc_impl, base_block_alloc. Leaves out: rests of older blocks.
    """
    arena = heap.arenas[a]
    if arena["base_room"] < size:
        arena["base_growth"] += 1
        block = (max(page_class_size(arena["base_growth"]), size + PAGE) + HUGE_PAGE - 1) // HUGE_PAGE * HUGE_PAGE
        arena["base_growth"] = page_class(block)
        arena["base_mapped"] += block
        arena["base_room"] = block - EDATA
        arena["base_allocated"] += EDATA
        arena["base_resident"] += PAGE
    used = arena["base_mapped"] - arena["base_room"]
    arena["base_resident"] += (used + size + PAGE - 1) // PAGE * PAGE - (used + PAGE - 1) // PAGE * PAGE
    arena["base_room"] -= size
    arena["base_allocated"] += size


@law
def new_extent(heap, a, page, pages, serial, state, head):
    """A row of extents for `pages` pages from `page` on; it takes metadata if no old description is spare.

    returns  int64  the row

    Source: src/edata_cache.c edata_cache_get; src/emap.c emap_register_boundary.
    """
    arena, row = heap.arenas[a], heap.state[0]
    if arena["spare_rows"] > 0:
        arena["spare_rows"] -= 1
    else:
        base_alloc(heap, a, EDATA)
    e = row["free_extent"]
    if e >= 0:
        row["free_extent"] = heap.extents[e]["next"]
    else:
        e = row["extents_end"]
        row["extents_end"] += 1
    extent = heap.extents[e]
    extent["page"], extent["pages"], extent["serial"] = page, pages, serial
    extent["arena"], extent["state"], extent["head"], extent["slab"] = a, state, head, -1
    heap.owner[page] = e
    heap.owner[page + pages - 1] = e
    return e


@law
def drop_extent(heap, e):
    """The row of extent `e`, and its description, are free for another.

    Source: src/edata_cache.c edata_cache_put.
    """
    extent = heap.extents[e]
    heap.arenas[extent["arena"]]["spare_rows"] += 1
    extent["state"] = -1
    extent["next"] = heap.state[0]["free_extent"]
    heap.state[0]["free_extent"] = e


@law
def class_of(pages):
    """The page class under which a free extent of `pages` pages is kept.

    Source: src/eset.c eset_insert.
    """
    return min(PAGE_CLASSES, page_class(quantize_floor(pages * PAGE)))


@law
def eset_insert(heap, a, state, e):
    """Extent `e` joins the free extents of a state, as the newest.

    Source: src/eset.c eset_insert.
    """
    arena, extent = heap.arenas[a], heap.extents[e]
    extent["state"] = state
    k = class_of(extent["pages"])
    arena["heaps"][state, k] = heap_insert(heap.extents, arena["heaps"][state, k], e)
    arena["classes_end"][state] = max(arena["classes_end"][state], k + 1)
    extent["older"] = arena["newest"][state]
    extent["newer"] = -1
    if arena["newest"][state] >= 0:
        heap.extents[arena["newest"][state]]["newer"] = e
    else:
        arena["oldest"][state] = e
    arena["newest"][state] = e
    arena["pages"][state] += extent["pages"]


@law
def eset_remove(heap, a, state, e):
    """Extent `e` leaves the free extents of a state and is active.

    Source: src/eset.c eset_remove.
    """
    arena, extent = heap.arenas[a], heap.extents[e]
    k = class_of(extent["pages"])
    arena["heaps"][state, k] = heap_remove(heap.extents, arena["heaps"][state, k], e)
    newer, older = extent["newer"], extent["older"]
    if older >= 0:
        heap.extents[older]["newer"] = newer
    else:
        arena["oldest"][state] = newer
    if newer >= 0:
        heap.extents[newer]["older"] = older
    else:
        arena["newest"][state] = older
    arena["pages"][state] -= extent["pages"]
    extent["state"] = ACTIVE


@law
def eset_fit(heap, a, state, pages):
    """The free extent that serves `pages` pages: the oldest and lowest of all large enough; a dirty one must not be 64 times too large.

    returns  int64  −1: none

    Source: src/eset.c eset_first_fit.
    """
    arena = heap.arenas[a]
    max_fit = heap.options[0]["max_fit"] if state == DIRTY else 62
    best = -1
    for k in range(page_class(quantize_ceil(pages * PAGE)), arena["classes_end"][state]):
        if page_class_size(k) >> max_fit > pages * PAGE:
            break
        root = arena["heaps"][state, k]
        if root >= 0 and (best < 0 or before(heap.extents, root, best)):
            best = root
    return best


@law
def split(heap, e, pages):
    """Cut extent `e` after `pages` pages.

    returns  int64  the rest, an active extent; −1: there is none

    Source: src/extent.c extent_split_impl.
    """
    extent = heap.extents[e]
    if extent["pages"] == pages:
        return -1
    rest = new_extent(heap, extent["arena"], extent["page"] + pages, extent["pages"] - pages, extent["serial"], ACTIVE, 0)
    extent["pages"] = pages
    heap.owner[extent["page"] + pages - 1] = e
    return rest


@law
def merge(heap, a, b):
    """Active extents `a` and `b`, which follows it, become one.

    Source: src/extent.c extent_merge_impl.
    """
    first, second = heap.extents[a], heap.extents[b]
    first["pages"] += second["pages"]
    first["serial"] = min(first["serial"], second["serial"])
    heap.owner[first["page"] + first["pages"] - 1] = a
    drop_extent(heap, b)


@law
def neighbour(heap, e, state, forward):
    """The extent right after (before) extent `e`, if it is free in this state and of the same arena and mapping.

    returns  int64  −1: none such

    Source: src/emap.c emap_try_acquire_edata_neighbor; include/jemalloc/internal/extent.h extent_neighbor_head_state_mergeable.
    """
    extent = heap.extents[e]
    page = extent["page"] + extent["pages"] if forward else extent["page"] - 1
    if page < 0 or page >= heap.state[0]["pages_end"]:
        return -1
    n = heap.owner[page]
    if n < 0 or heap.extents[n]["state"] != state or heap.extents[n]["arena"] != extent["arena"]:
        return -1
    return -1 if heap.extents[n if forward else e]["head"] else n


@law
def coalesce_once(heap, a, state, e):
    """Merge active extent `e` with one free neighbour, the following one first.

    returns  int64  the merged extent; −1: no neighbour is free

    Source: src/extent.c extent_try_coalesce_impl.
    """
    following = neighbour(heap, e, state, True)
    if following >= 0:
        eset_remove(heap, a, state, following)
        merge(heap, e, following)
        return e
    previous = neighbour(heap, e, state, False)
    if previous >= 0:
        eset_remove(heap, a, state, previous)
        merge(heap, previous, e)
    return previous


@law
def purge_pages(heap, e):
    """Give the pages of extent `e` back to the kernel.

    Source: src/pages.c pages_purge_forced (madvise MADV_DONTNEED).
    """
    extent = heap.extents[e]
    given = 0
    for page in range(extent["page"], extent["page"] + extent["pages"]):
        given += heap.touched[page]
        heap.touched[page] = 0
    heap.state[0]["touched"] -= given


@law
def retain_extent(heap, a, e):
    """Purge extent `e` and keep its addresses (retain:false: unmap it).

    Source: src/extent.c extent_dalloc_wrapper, extent_record.
    """
    purge_pages(heap, e)
    if heap.options[0]["retain"] == 0:
        extent = heap.extents[e]
        heap.owner[extent["page"]] = -1
        heap.owner[extent["page"] + extent["pages"] - 1] = -1
        drop_extent(heap, e)
        return
    merged = coalesce_once(heap, a, RETAINED, e)
    while merged >= 0:
        e = merged
        merged = coalesce_once(heap, a, RETAINED, e)
    eset_insert(heap, a, RETAINED, e)


@law
def record_extent(heap, a, state, e):
    """An active extent becomes free, dirty or muzzy.

    Source: src/extent.c extent_record, extent_maximally_purge.
    """
    options = heap.options[0]
    if state != DIRTY or heap.extents[e]["pages"] * PAGE >= LARGE_MIN:
        merged = coalesce_once(heap, a, state, e)
        while merged >= 0:
            e = merged
            merged = coalesce_once(heap, a, state, e)
        if state == DIRTY and heap.extents[e]["pages"] * PAGE >= options["oversize_threshold"]:
            if options["decay_ms"][DIRTY] != -1 and options["decay_ms"][MUZZY] != -1:
                heap.arenas[a]["mapped"] -= heap.extents[e]["pages"] * PAGE
                retain_extent(heap, a, e)
                return
    eset_insert(heap, a, state, e)


@law
def carve(heap, a, state, e, pages, alignment):
    """Cut `pages` aligned pages out of active extent `e`; what is before and after goes to the free extents of this state.

    returns  int64  the active extent of `pages` pages

    Source: src/extent.c extent_split_interior, extent_recycle_split.
    """
    lead = -heap.extents[e]["page"] % alignment
    if lead > 0:
        cut = split(heap, e, lead)
        eset_insert(heap, a, state, e)
        e = cut
    rest = split(heap, e, pages)
    if rest >= 0:
        eset_insert(heap, a, state, rest)
    return e


@law
def recycle(heap, a, state, pages, alignment):
    """Cut `pages` pages from a free extent of this state.

    returns  int64  the active extent; −1: none fits

    Source: src/extent.c extent_recycle. Leaves out: extents that only just hold an aligned block (eset_fit_alignment).
    """
    e = eset_fit(heap, a, state, pages + alignment - 1)
    if e >= 0:
        eset_remove(heap, a, state, e)
        e = carve(heap, a, state, e, pages, alignment)
    return e


@law
def map_extent(heap, a, pages, alignment):
    """Map new address space: the next page class of a growing series that is large enough; what is over is retained.

    returns  int64  the active extent of `pages` pages

    Source: src/extent.c extent_grow_retained; src/exp_grow.c.
    """
    arena, row = heap.arenas[a], heap.state[0]
    mapping = pages + alignment - 1
    if heap.options[0]["retain"]:
        while page_class_size(arena["next_growth"]) < (pages + alignment - 1) * PAGE:
            arena["next_growth"] += 1
        mapping = page_class_size(arena["next_growth"]) // PAGE
        arena["next_growth"] += 1
        row["growth"] = max(row["growth"], 4 * mapping)
    page = row["pages_end"]
    row["pages_end"] += mapping
    e = new_extent(heap, a, page, mapping, arena["next_serial"], ACTIVE, 1)
    arena["next_serial"] += 1
    return carve(heap, a, RETAINED, e, pages, alignment)


@law
def alloc_extent(heap, a, pages, alignment):
    """`pages` pages in one run: dirty ones first, muzzy ones, retained addresses, a new mapping.

    alignment  int64  pages, 1: any
    returns    int64  the active extent

    Source: src/pac.c pac_alloc_real; src/pa.c pa_alloc.
    """
    arena = heap.arenas[a]
    e = recycle(heap, a, DIRTY, pages, alignment)
    if e < 0 and heap.options[0]["decay_ms"][MUZZY] != 0:
        e = recycle(heap, a, MUZZY, pages, alignment)
    if e < 0:
        e = recycle(heap, a, RETAINED, pages, alignment) if arena["pages"][RETAINED] > 0 else -1
        if e < 0:
            e = map_extent(heap, a, pages, alignment)
        arena["mapped"] += pages * PAGE
    arena["active"] += pages
    return e


@law
def evict(heap, a, state, least):
    """Take the extent that has been free longest, merged with its neighbours, as long as more than `least` pages are free.

    returns  int64  the active extent; −1: none

    Source: src/extent.c ecache_evict.
    """
    arena = heap.arenas[a]
    while True:
        e = arena["oldest"][state]
        if e < 0 or arena["pages"][state] <= least:
            return -1
        eset_remove(heap, a, state, e)
        merged = coalesce_once(heap, a, state, e) if state == DIRTY else -1
        if merged < 0:
            return e
        eset_insert(heap, a, state, merged)  # goes to the end of the list: the next one is tried
