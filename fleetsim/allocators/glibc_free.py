# SPDX-License-Identifier: Apache-2.0
"""Loops of free(): which blocks die, what their room becomes, and when memory goes back to the kernel.

Source: malloc/malloc.c _int_free of glibc 2.36; kernel-laws §15.1. See `glibc.py` for the model.
"""

from __future__ import annotations

from fleetsim.allocators.glibc import tcache_bins
from fleetsim.allocators.glibc_heap import cut_place, gap_of, header_page, join_free, only_population, recount
from fleetsim.allocators.glibc_laws import (
    ALIGNMENT,
    CONSOLIDATION,
    FASTBIN_MAX,
    MMAP_THRESHOLD_MAX,
    OVERHEAD,
    PAGE,
    TCACHE_COUNT,
    TCACHE_MAX,
    TOP_PAD,
    chunk_size,
    coalesces,
    common_multiple,
    mapped_pages,
    mean_chunk_q,
    multiples,
    share_up_to,
)
from fleetsim.allocators.glibc_trim import absorb, systrim
from fleetsim.allocators.tables import LIES_ALONE, LIES_SCATTERED, NR_PLACES, NR_POPULATIONS, PLACE_HEAP, PLACE_MAPPED
from fleetsim.hardware.cpu import MADVISE
from fleetsim.law import law
from fleetsim.linux.brk import resize_area, swapped_between


@law
def bits(mask):
    """Number of ones in a mask.

    Source: arithmetic.
    """
    n = 0
    while mask > 0:
        mask &= mask - 1
        n += 1
    return n


@law
def reach_q(least, most, freed):
    """How far into a series of frees the last one lies that a tcache keeps, 1024ths of the series.

    A bin of which n blocks are freed is full after 7/n of them; if n is less than that, the last of n is expected at n/(n+1).
    The first and the last bin of a range of sizes may be rare.

    Source: malloc/malloc.c tcache_put; expected values.
    """
    largest = min(most, TCACHE_MAX - OVERHEAD)
    most_q = 0
    for k in range(3):
        members = min(ALIGNMENT, largest - least + 1)
        if k == 0:
            members = min(members, chunk_size(least) - OVERHEAD - least + 1)
        elif k == 1:
            members = min(members, largest - (chunk_size(largest) - OVERHEAD - ALIGNMENT))
        n_q = freed * members * 1024 // (most - least + 1)
        share_q = n_q * 1024 // (n_q + 1024) if n_q < 1024 * TCACHE_COUNT else 1024 * 1024 * TCACHE_COUNT // n_q
        most_q = max(most_q, share_q)
    return min(1024, most_q)


@law
def keep_in_tcache(row, h, p, freed, start, size):
    """The first freed blocks of each small size stay in the thread's cache: seven of a size, not merged with anything.

    start, size  int64  where the freed blocks lie, bytes

    Source: malloc/malloc.c tcache_put.
    """
    heap, population = row["heaps"][h], row["populations"][p]
    mask = tcache_bins(population["least"], population["most"])
    empty = mask & ~heap["cached"]
    if empty == 0 or freed == 0:
        return
    taken = min(freed, TCACHE_COUNT * bits(empty))
    if freed >= TCACHE_COUNT * bits(mask):
        heap["cached"] |= mask
    highest = start + size * taken // (taken + 1)  # the highest of as many, anywhere
    if population["order"] != LIES_SCATTERED:
        highest = start + size * reach_q(population["least"], population["most"], freed) // 1024
    heap["pinned"] = max(heap["pinned"], min(heap["top"], highest))
    heap["cached_bytes"] += taken * mean_chunk_q(population["least"], population["most"]) >> 10


@law
def unmap_blocks(row, h, p, before):
    """Some of a population's `before` mapped chunks were freed: their pages go at once, and the first raises the thresholds.

    Source: malloc/malloc.c munmap_chunk, __libc_free (dynamic mmap threshold); T-15.1.
    """
    heap, population = row["heaps"][h], row["populations"][p]
    place = row["places"][population["place"]]
    freed = before - population["alive"]
    pages = place["keep"] * freed // before if population["alive"] > 0 else place["keep"]
    place["keep"] -= pages
    place["live"] = max(0, place["live"] - pages * PAGE) if population["alive"] > 0 else 0
    heap["mapped_bytes"] -= pages * PAGE
    heap["chunks_mapped"] -= freed
    resize_area(row, heap["maps"], -pages)
    row["spent_ns"] += freed * row["cost"][MADVISE]
    largest = population["most"] if freed > 1 else (population["least"] + population["most"]) // 2
    chunk = mapped_pages(chunk_size(largest)) * PAGE
    if heap["fixed"] == 0 and heap["mmap_threshold"] < chunk <= MMAP_THRESHOLD_MAX:
        heap["mmap_threshold"] = chunk
        heap["trim_threshold"] = 2 * chunk


@law
def kill_range(row, h, p, low, high):
    """All of a population's blocks with numbers low .. high−1 are freed: an end of it, or all.

    returns  int64  blocks freed

    Source: the recordings' driver (first:f, last:f, all).
    """
    population = row["populations"][p]
    first, end = population["first"], population["first"] + population["span"]
    if low <= first and high >= end:
        freed = population["alive"]
        population["alive"] = 0
        return freed
    a, b = max(low, first), min(high, end)
    all_of = max(1, multiples(first, population["span"], population["every"]))
    freed = min(population["alive"], population["alive"] * multiples(a, b - a, population["every"]) // all_of)
    sole = only_population(row, population["place"]) == p
    place = row["places"][population["place"]]
    cut = place["size"] * ((b if a == first else a) - first) // population["span"]
    if a == first:
        population["first"] = b
    population["span"] -= b - a
    population["alive"] -= freed
    if sole and place["kind"] == PLACE_HEAP:
        cut_place(row, h, population["place"], cut, a != first)
    return freed


@law
def merge_gaps(row, p, freed):
    """Free chunks of a place, of which some were filled by later blocks, when a range of its blocks is freed.

    A block between two free chunks joins them, between two filled ones it makes one: with a share f filled, 2f − 1 more
    per block. Later blocks that are freed leave the chunks they had filled.
    freed    int64  blocks of population `p` just freed

    Source: malloc/malloc.c _int_free (merging with neighbours), expected values.
    """
    population = row["populations"][p]
    place = row["places"][population["place"]]
    if place["filled"] == 0:
        return
    if population["order"] == LIES_ALONE:
        place["gaps"] += freed * (place["filled"] - place["gaps"]) // (place["filled"] + place["gaps"])
        return
    later = freed
    for k in range(NR_POPULATIONS):
        other = row["populations"][k]
        if other["used"] and other["place"] == population["place"] and other["order"] != LIES_ALONE:
            later += other["alive"]
    emptied = place["filled"] * freed // max(1, later)
    place["filled"] -= emptied
    place["gaps"] += emptied


@law
def free_some(row, h, p, low, high, every, share_q):
    """free() of those blocks of a population that have numbers low .. high−1 and are not kept.

    every    int64  > 0: blocks with numbers divisible by it are kept
    share_q  int64  > 0: only this share of them is freed, 1024ths
    returns  int64  blocks freed

    Source: the recordings' driver (mfree); malloc/malloc.c _int_free.
    """
    heap, population = row["heaps"][h], row["populations"][p]
    place = row["places"][population["place"]]
    start, size = place["start"], place["size"]
    before = population["alive"]
    if every > 0:
        all_of = max(1, multiples(population["first"], population["span"], population["every"]))
        if before < all_of * 15 // 16:  # every k-th number, but not of neighbours: some lie elsewhere
            place["scattered"] = 1
        both = common_multiple(population["every"], every)
        population["alive"] = before * multiples(population["first"], population["span"], both) // all_of
        population["every"] = both
    elif share_q > 0:
        population["alive"] -= before * share_q >> 10
        place["scattered"] = 1
    else:
        if low > population["first"]:
            start += size * (low - population["first"]) // population["span"]
            size -= start - place["start"]
        kill_range(row, h, p, low, high)
        merge_gaps(row, p, before - population["alive"])
    freed = before - population["alive"]
    if place["kind"] == PLACE_MAPPED:
        unmap_blocks(row, h, p, before)
    else:
        keep_in_tcache(row, h, p, freed, start, size)
        whole = header_page(place["start"] + place["size"])
        out = swapped_between(row, heap["area"], header_page(place["start"]), whole)
        touched = min(size, freed * 2 * PAGE)  # its header and the next one's
        place["stir"] += min(out, out * touched // max(1, place["size"]))
    if population["alive"] == 0:
        population["used"] = 0
    return freed


@law
def meets_top(heap, place, population, gap):
    """True if the last block of a population lies beside the top and makes one free chunk of 64 KiB with it: all fastbins are emptied then.

    Source: malloc/malloc.c _int_free (FASTBIN_CONSOLIDATION_THRESHOLD counts the top that the chunk became part of).
    """
    if place["start"] + place["size"] != heap["top"] or chunk_size(population["most"]) <= FASTBIN_MAX:
        return False
    return heap["brk"] * PAGE - heap["top"] + gap >= CONSOLIDATION


@law
def free_blocks(row, h, low, high, every, share_q):
    """Free blocks low .. high−1 in the order of their numbers, but those that are kept.

    returns  int64  blocks freed

    Source: malloc/malloc.c _int_free; the recordings' driver.
    """
    heap = row["heaps"][h]
    total, merged, last = 0, 1, -1
    at = -1
    for _ in range(NR_POPULATIONS):
        p = -1
        for k in range(NR_POPULATIONS):
            population = row["populations"][k]
            if population["used"] and population["heap"] == h and population["first"] * 64 + k > at:
                if p < 0 or population["first"] * 64 + k < row["populations"][p]["first"] * 64 + p:
                    p = k
        if p < 0:
            break
        population = row["populations"][p]
        at = population["first"] * 64 + p
        if population["first"] >= high or population["first"] + population["span"] <= low:
            continue
        place = row["places"][population["place"]]
        gap = gap_of(place) + (mean_chunk_q(population["least"], population["most"]) >> 10)
        end = population["first"] + population["span"]
        share_fast = share_up_to(population["least"], population["most"], FASTBIN_MAX)
        one = coalesces(share_fast, gap) or (every == 0 and share_q == 0 and high >= end and meets_top(heap, place, population, gap))
        freed = free_some(row, h, p, low, high, every, share_q)
        total += freed
        if freed > 0 and place["kind"] == PLACE_HEAP:
            merged = 1 if one or (merged and end <= last) else 0
            last = max(last, end)
    for k in range(NR_PLACES):
        if row["places"][k]["used"] and row["places"][k]["heap"] == h and row["places"][k]["kind"] == PLACE_HEAP:
            recount(row, k, every == 0 and share_q == 0)
    join_free(row, h)
    if not merged:
        heap["fast"] = 1
    elif total > 0:
        absorb(row, h)
        if heap["brk"] * PAGE - heap["top"] >= heap["trim_threshold"]:
            systrim(row, h, TOP_PAD)
    return total
