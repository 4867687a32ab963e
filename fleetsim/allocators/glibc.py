# SPDX-License-Identifier: Apache-2.0
"""What user space keeps of what it freed: malloc, free and malloc_trim of glibc 2.36, for whole loops of calls.

The heap grows by brk in steps of 132 KiB and more; blocks are cut from its top. Freed blocks merge with free neighbours;
memory returns to the kernel only where nothing live is in the way: the top when it exceeds the trim threshold, whole pages
inside free chunks when malloc_trim is called, and chunks above the mmap threshold at once. Each call changes what the
allocator knows, and how many pages each place is to have; `settle` (glibc_trim.py) then faults them in or gives them back.
Leaves out: realloc, memalign, threads that share an arena, M_* tunables, which free chunk of several that fit is taken.
Source: malloc/malloc.c of glibc 2.36; kernel-laws §15.1.
"""

from __future__ import annotations

from fleetsim.allocators.glibc_heap import add_blocks, gap_of, has_room, header_page, kind_freed, place_at, place_for
from fleetsim.allocators.glibc_laws import (
    LARGE,
    MINSIZE,
    N_MMAPS_MAX,
    OVERHEAD,
    PAGE,
    TCACHE_COUNT,
    TCACHE_MAX,
    TOP_PAD,
    chunk_size,
    gap_sample,
    mapped_pages,
    mean_chunk_q,
    share_up_to,
    smallest_request,
    waste_per_gap,
)
from fleetsim.allocators.tables import (
    LIES_ALONE,
    LIES_IN_ORDER,
    LIES_SCATTERED,
    NR_PLACES,
    NR_POPULATIONS,
    PLACE_HEAP,
    PLACE_MAPPED,
)
from fleetsim.hardware.cpu import MADVISE
from fleetsim.law import law
from fleetsim.linux.brk import new_area, resize_area, swapped_between


@law
def tcache_bins(least, most):
    """The tcache bins of requests of least..most bytes, one bit each (the last two share one: a sign bit is none).

    Source: malloc/malloc.c csize2tidx (64 bins, 16 bytes apart, the first of 32).
    """
    mask = 0
    for size in range(chunk_size(least), min(chunk_size(most), TCACHE_MAX) + 1, 16):
        mask |= 1 << min(62, size // 16 - 2)
    return mask


@law
def empty_tcache(heap, blocks, bins):
    """`blocks` requests take what the tcache holds in their bins; once it holds nothing, nothing pins the top any more.

    Source: malloc/malloc.c __libc_malloc (tcache_get).
    """
    heap["cached"] &= ~bins
    if heap["cached"] == 0 and bins != 0 and blocks >= TCACHE_COUNT:
        heap["pinned"] = 0


@law
def extend_top(row, h, k, blocks, least, most):
    """Cut up to `blocks` blocks from the top into place `k`, growing the heap as often as it takes.

    returns  int64  blocks cut; fewer: ENOMEM

    Source: malloc/malloc.c _int_malloc use_top, sysmalloc (contiguous main arena).
    """
    heap, place = row["heaps"][h], row["places"][k]
    mean_q = mean_chunk_q(least, most)
    left = blocks
    while True:
        room = heap["brk"] * PAGE - heap["top"] - MINSIZE
        fit = min(left, max(0, room) * 1024 // mean_q)
        exact = fit * mean_q + heap["carry"]
        heap["carry"] = exact & 1023
        before = header_page(heap["top"])
        heap["top"] += exact >> 10
        place["size"] += exact >> 10
        place["live"] += exact >> 10
        pages = header_page(heap["top"]) - before
        there = min(pages, heap["top_keep"])  # left populated by what lay here before
        heap["top_keep"] -= there
        heap["top_pages"] -= there
        place["pages"] += there
        place["keep"] += pages
        left -= fit
        if left == 0:
            return blocks
        end = (heap["top"] + (mean_q >> 10) + TOP_PAD + MINSIZE + PAGE - 1) // PAGE
        row["spent_ns"] += row["cost"][MADVISE]
        if not resize_area(row, heap["area"], end - heap["brk"]):
            return blocks - left
        heap["brk"] = end
        heap["fast"] = 0  # before the heap grows, what waits in fastbins is merged


@law
def cut_from_top(row, h, span, blocks, least, most):
    """Serve `blocks` of the next `span` blocks from the top.

    returns  int64  blocks served

    Source: malloc/malloc.c _int_malloc.
    """
    heap = row["heaps"][h]
    k = place_for(row, h, PLACE_HEAP, place_at(row, h, heap["top"], True), heap["top"], least, most)
    if k < 0:
        return 0
    done = extend_top(row, h, k, blocks, least, most)
    if done > 0:
        add_blocks(row, h, k, LIES_ALONE, span, done, least, most)
    elif row["places"][k]["size"] == 0:
        row["places"][k]["used"] = 0
    return done


@law
def map_chunks(row, h, span, blocks, least, most, capacity):
    """Serve `blocks` of the next `span` blocks with a mapping each.

    returns  int64  blocks served; fewer: ENOMEM

    Source: malloc/malloc.c sysmalloc_mmap; T-15.1.
    """
    heap = row["heaps"][h]
    if heap["maps"] < 0:
        heap["maps"] = new_area(row, heap["task"], capacity)
        if heap["maps"] < 0:
            return 0
    k = -1
    for q in range(NR_PLACES):
        place = row["places"][q]
        if (
            place["used"]
            and place["heap"] == h
            and place["kind"] == PLACE_MAPPED
            and place["start"] + place["size"] == heap["mapped"] * PAGE
        ):
            k = q
    k = place_for(row, h, PLACE_MAPPED, k, heap["mapped"] * PAGE, least, most)
    if k < 0:
        return 0
    place = row["places"][k]
    done = 0
    for b in range(blocks):
        size = least + (most - least) * (2 * b + 1) // (2 * blocks)  # evenly spread over the range
        pages = mapped_pages(chunk_size(size))
        row["spent_ns"] += row["cost"][MADVISE]
        if not resize_area(row, heap["maps"], pages):
            break
        heap["mapped"] += pages
        heap["mapped_bytes"] += pages * PAGE
        heap["chunks_mapped"] += 1
        place["size"] += pages * PAGE
        place["live"] += pages * PAGE
        place["keep"] += pages
        done += 1
    if done > 0:
        add_blocks(row, h, k, LIES_ALONE, span, done, least, most)
    elif place["size"] == 0:
        place["used"] = 0
    return done


@law
def tightest(row, h, above):
    """The heap's place with the smallest free chunks, of those after `above` in that order.

    above    int64  gap · 64 + row of the place before in that order, −1 at first
    returns  int64  the same number for the place found, −1: there is no more

    Source: malloc/malloc.c _int_malloc (best fit).
    """
    best = -1
    for k in range(NR_PLACES):
        place = row["places"][k]
        if place["used"] and place["heap"] == h and place["kind"] == PLACE_HEAP and gap_of(place) > 0:
            key = gap_of(place) * 64 + k
            if key > above and (best < 0 or key < best):
                best = key
    return best


@law
def fits_exactly(row, h, k, least, most):
    """While freed chunks wait in fastbins, each as it was: requests of the same sizes take them one for one.

    returns  (int64 least, int64 most)  sizes that find their like; least > most: none, or nothing waits

    Source: malloc/malloc.c _int_malloc (fastbins, smallbins: exact fits).
    """
    freed_least, freed_most = kind_freed(row, k)
    if row["heaps"][h]["fast"] == 0:
        return 1, 0
    low = max(least, smallest_request(chunk_size(freed_least)))
    return low, min(most, chunk_size(freed_most) - OVERHEAD)


@law
def fill_place(row, h, k, span, blocks, least, most):
    """Serve up to `blocks` of the next `span` blocks from the free chunks of place `k`, as far as they fit.

    returns  (int64 blocks served, int64 least size of the requests that are left)

    Source: malloc/malloc.c _int_malloc (bins, splitting, last remainder); which share fits is by sixteen samples of the free chunks.
    """
    heap, place = row["heaps"][h], row["places"][k]
    gap, gaps = gap_of(place), place["gaps"]
    freed_least, freed_most = kind_freed(row, k)
    slots = place["free_slots"] // place["gaps"]
    fits_least, fits_most = fits_exactly(row, h, k, least, most)
    if fits_least <= fits_most:
        share, spare, room = 1024 * (fits_most - fits_least + 1) // (most - least + 1), 0, gap * gaps
    else:
        fits_least, widest = least, gap_sample(15, gap, slots, freed_least, freed_most)
        all_bytes, usable, large = 0, 0, 0
        for s in range(16):
            size = max(0, gap_sample(s, gap, slots, freed_least, freed_most))
            all_bytes += size
            if size >= chunk_size(least):
                usable += size
                large += 1
        share = share_up_to(least, most, widest) if large > 0 else 0
        room = gap * gaps // max(1, all_bytes // 16) * (usable // 16)
        gaps = gaps * large // 16
        spare = waste_per_gap(usable // max(1, large), slots, freed_least, freed_most, least, most)
        fits_most = min(most, max(least, widest // 16 * 16 - 8))
    if share == 0 or gaps == 0 or not has_room(row, h):
        return 0, least
    mean_q = mean_chunk_q(fits_least, fits_most)
    exact = blocks * share + heap["carry_fit"]
    heap["carry_fit"] = exact & 1023
    fitting = min(blocks, exact >> 10)
    n = min(fitting, max(0, room - gaps * spare) * 1024 // mean_q)
    if n <= 0:
        return 0, least
    taken = min(n * mean_q >> 10, place["size"] - place["live"])
    worth = max(1, room - gaps * spare)
    filled = min(place["gaps"], (gaps * taken + worth - 1) // worth)
    free = place["size"] - place["live"]
    whole = header_page(place["start"] + place["size"]) - header_page(place["start"])
    place["keep"] += max(0, whole - place["keep"]) * filled // place["gaps"]
    out = swapped_between(row, heap["area"], header_page(place["start"]), header_page(place["start"] + place["size"]))
    place["stir"] += out * taken // place["size"]
    place["free_slots"] -= place["free_slots"] * taken // free
    place["live"] += taken
    place["gaps"] -= filled
    place["filled"] += filled
    place["waste"] += max(0, min(filled * gap - taken, place["size"] - place["live"] - place["waste"]))
    order = LIES_IN_ORDER if freed_least == freed_most else LIES_SCATTERED  # equal chunks are taken from the low end
    add_blocks(row, h, k, order, span, n, fits_least, fits_most)
    return n, fits_most + 1 if n == fitting and fits_most < most else least


@law
def fill_free_place(row, h, k, span, blocks, least, most):
    """Serve up to `blocks` of the next `span` blocks from a place that is free altogether: one large free chunk, cut from its low end.

    returns  int64  blocks served

    Source: malloc/malloc.c _int_malloc (remainder_size: the rest of a split chunk goes back to the bins).
    """
    heap, rest = row["heaps"][h], row["places"][k]
    q = place_for(row, h, PLACE_HEAP, place_at(row, h, rest["start"], True), rest["start"], least, most)
    if q < 0:
        return 0
    mean_q = mean_chunk_q(least, most)
    n = min(blocks, rest["size"] * 1024 // mean_q)
    if n == 0:
        row["places"][q]["used"] = 1 if row["places"][q]["size"] > 0 else 0
        return 0
    exact = n * mean_q + heap["carry"]
    taken = min(rest["size"], exact >> 10)
    heap["carry"] = exact & 1023
    place = row["places"][q]
    before = header_page(place["start"] + place["size"])
    place["size"] += taken
    place["live"] += taken
    pages = header_page(place["start"] + place["size"]) - before
    there = min(pages, rest["pages"] * taken // rest["size"])
    out = swapped_between(row, heap["area"], before, max(before + 1, before + pages))
    place["stir"] += min(out, there)
    place["pages"] += there
    place["keep"] += pages
    rest["pages"] -= there
    rest["keep"] -= there
    rest["start"] += taken
    rest["size"] -= taken
    if rest["size"] < MINSIZE:
        heap["rest_pages"] += rest["pages"]
        place["size"] += rest["size"]
        rest["used"] = 0
    add_blocks(row, h, q, LIES_ALONE, span, n, least, most)
    return n


@law
def count_blocks(row, h, done):
    """So many of the blocks asked for were had: their numbers are the next ones.

    Source: the recordings' driver.
    """
    heap = row["heaps"][h]
    heap["blocks"] += done
    for p in range(NR_POPULATIONS):
        population = row["populations"][p]
        if population["used"] and population["heap"] == h:
            population["span"] = min(population["span"], heap["blocks"] - population["first"])
    return done


@law
def malloc_blocks(row, h, blocks, least, most, capacity):
    """`blocks` calls of malloc(), for sizes uniform in least..most: free chunks first, the tightest that fit, then the top or a mapping.

    capacity  int64  pages that mapped chunks may need in all
    returns   int64  calls that got memory; fewer: ENOMEM

    Source: malloc/malloc.c _int_malloc, sysmalloc; kernel-laws §15.1.
    """
    heap = row["heaps"][h]
    empty_tcache(heap, blocks, tcache_bins(least, most))
    if chunk_size(most) >= LARGE:
        heap["fast"] = 0
    left = blocks
    above = -1
    for _ in range(NR_PLACES):
        above = tightest(row, h, above)
        if above < 0 or left == 0:
            break
        k = above % 64
        if row["places"][k]["live"] > 0:
            n, least = fill_place(row, h, k, blocks, left, least, most)
            left -= n
        else:
            left -= fill_free_place(row, h, k, blocks, left, least, most)
    threshold = heap["mmap_threshold"]
    if left > 0 and chunk_size(most) >= threshold and heap["chunks_mapped"] < N_MMAPS_MAX:
        large = max(least, threshold - 8)  # the smallest request of the range that is mapped
        exact = left * (1024 - share_up_to(least, most, threshold - 1)) + heap["carry_mapped"]
        heap["carry_mapped"] = exact & 1023
        n = min(left, exact >> 10)
        room = heap["brk"] * PAGE - heap["top"] - MINSIZE
        n -= min(n, max(0, room) * 1024 // mean_chunk_q(large, most))  # the top comes first, if it is large enough
        if n > 0:
            got = map_chunks(row, h, blocks, n, large, most, capacity)
            left -= got
            if got < n:
                return count_blocks(row, h, blocks - left)
        most = max(least, large - 1)
    if left > 0:
        left -= cut_from_top(row, h, blocks, left, least, most)
    return count_blocks(row, h, blocks - left)
