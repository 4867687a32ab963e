# SPDX-License-Identifier: Apache-2.0
"""malloc(), chunk by chunk: exact fits, the unsorted list sorted into bins on the way, best fit, the top.

Source: malloc/malloc.c of glibc 2.36 (_int_malloc).
"""

from __future__ import annotations

from fleetsim.allocators.glibc_exact_bins import (
    bin_index,
    cut,
    fast_get,
    put_in_bin,
    put_unsorted,
    take_out,
    tcache_get,
    tcache_has_room,
    tcache_index,
    tcache_put,
)
from fleetsim.allocators.glibc_exact_free import consolidate
from fleetsim.allocators.glibc_exact_pages import touch
from fleetsim.allocators.glibc_exact_system import cut_top, sysmalloc
from fleetsim.allocators.glibc_exact_tables import BIN, FREE, HEADER, LARGE_MIN, MINSIZE, NBINS, SORT_MAX, UNSORTED, USED
from fleetsim.law import law


@law
def take_fast(row, chunks, pages, a, size):
    """From the fastbin of the size; others there go to the tcache as far as it has room. −1: it is empty.

    Source: malloc/malloc.c _int_malloc (fastbins).
    """
    at = (size >> 4) - 2
    found = fast_get(row, chunks, a, at)
    if found >= 0:
        index = tcache_index(size)
        while tcache_has_room(row, index):
            c = fast_get(row, chunks, a, at)
            if c < 0:
                break
            tcache_put(row, chunks, pages, c, index)
    return found


@law
def take_small(row, chunks, pages, a, size):
    """The oldest of the small bin of the size; others there go to the tcache as far as it has room. −1: it is empty.

    Source: malloc/malloc.c _int_malloc (smallbins).
    """
    head = a * NBINS + bin_index(size)
    found = chunks[head]["bk"]
    if found == head:
        return -1
    take_out(row, chunks, found, USED)
    index = tcache_index(size)
    while chunks[head]["bk"] != head and tcache_has_room(row, index):
        c = chunks[head]["bk"]
        take_out(row, chunks, c, USED)
        tcache_put(row, chunks, pages, c, index)
    return found


@law
def split_remainder(row, chunks, pages, a, c, size):
    """A small request takes its chunk from the last remainder, which goes on being it, alone in the unsorted list.

    Source: malloc/malloc.c _int_malloc (last_remainder).
    """
    take_out(row, chunks, c, USED)
    rest = cut(row, chunks, c, size, FREE)
    touch(row, pages, chunks[rest]["addr"] + 8, chunks[rest]["addr"] + HEADER)
    put_unsorted(row, chunks, pages, a, rest)
    row["arena"][a]["last_remainder"] = chunks[rest]["addr"]
    return c


@law
def sort_unsorted(row, chunks, pages, a, size):
    """Go through the unsorted list, oldest first, and put its chunks into their bins, unless one is the right one.

    returns  int64  chunk, −1: none of them fits exactly

    Exact fits fill the tcache first; then one of those is returned.

    Source: malloc/malloc.c _int_malloc (unsorted chunks).
    """
    head = a * NBINS + UNSORTED
    arena = row["arena"][a]
    index = tcache_index(size)
    cached, sorted_chunks = False, 0
    while sorted_chunks < SORT_MAX:
        c = chunks[head]["bk"]
        if c == head:
            break
        chunk = chunks[c]
        alone = size < LARGE_MIN and chunk["bk"] == head
        if alone and chunk["addr"] == arena["last_remainder"] and chunk["size"] > size + MINSIZE:
            return split_remainder(row, chunks, pages, a, c, size)
        if chunk["size"] == size:
            take_out(row, chunks, c, USED)
            if not tcache_has_room(row, index):
                return c
            tcache_put(row, chunks, pages, c, index)
            cached = True
            continue
        before = chunk["bk"]
        chunks[head]["bk"] = before
        chunks[before]["fd"] = head
        put_in_bin(row, chunks, a, c)
        sorted_chunks += 1
        if cached and 0 < row["tcache_unsorted_limit"] < sorted_chunks:
            return tcache_get(row, chunks, index)
    return tcache_get(row, chunks, index) if cached else -1


@law
def split_free(row, chunks, pages, a, c, size, advertise):
    """Use a free chunk that is at least large enough; what is left of it, if it can be a chunk, goes to the unsorted list.

    Source: malloc/malloc.c _int_malloc (exhaust, split).
    """
    take_out(row, chunks, c, USED)
    if chunks[c]["size"] - size >= MINSIZE:
        rest = cut(row, chunks, c, size, FREE)
        touch(row, pages, chunks[rest]["addr"] + 8, chunks[rest]["addr"] + HEADER)
        put_unsorted(row, chunks, pages, a, rest)
        if advertise:
            row["arena"][a]["last_remainder"] = chunks[rest]["addr"]
    return c


@law
def best_of_bin(chunks, head, size):
    """The smallest chunk of a large bin that is large enough, the second of its size if there is one; −1: none is.

    Source: malloc/malloc.c _int_malloc (large request).
    """
    c = chunks[head]["fd"]
    if c == head or chunks[c]["size"] < size:
        return -1
    c = chunks[c]["bk_size"]
    while chunks[c]["size"] < size:
        c = chunks[c]["bk_size"]
    after = chunks[c]["fd"]
    if chunks[after]["state"] != BIN and chunks[after]["size"] == chunks[c]["size"]:
        return after
    return c


@law
def larger_bin(row, chunks, a, index):
    """The last chunk of the first bin from `index` on that is not empty; −1: all are.

    Source: malloc/malloc.c _int_malloc (binmap).
    """
    arena = row["arena"][a]
    for block in range(index >> 5, 4):
        word = arena["map"][block]
        bit = index & 31 if block == index >> 5 else 0
        while word >> bit != 0:
            if word >> bit & 1:
                head = a * NBINS + block * 32 + bit
                if chunks[head]["bk"] != head:
                    return chunks[head]["bk"]
                word &= ~(1 << bit)
                arena["map"][block] = word
            bit += 1
    return -1


@law
def int_malloc(row, chunks, pages, a, size):
    """A chunk of `size` bytes (or a little more) from an arena, as the thread at work; −1: it has none (see sysmalloc).

    Source: malloc/malloc.c _int_malloc.
    """
    arena = row["arena"][a]
    if size <= row["max_fast"]:
        c = take_fast(row, chunks, pages, a, size)
        if c >= 0:
            return c
    index = bin_index(size)
    if size < LARGE_MIN:
        c = take_small(row, chunks, pages, a, size)
        if c >= 0:
            return c
    elif arena["have_fast"]:
        consolidate(row, chunks, pages, a)
    while True:
        c = sort_unsorted(row, chunks, pages, a, size)
        if c >= 0:
            return c
        if size >= LARGE_MIN:
            c = best_of_bin(chunks, a * NBINS + index, size)
            if c >= 0:
                return split_free(row, chunks, pages, a, c, size, False)
        c = larger_bin(row, chunks, a, index + 1)
        if c >= 0:
            return split_free(row, chunks, pages, a, c, size, size < LARGE_MIN)
        if arena["top"] >= 0 and chunks[arena["top"]]["size"] >= size + MINSIZE:
            return cut_top(row, chunks, pages, a, size)
        if not arena["have_fast"]:
            return sysmalloc(row, chunks, pages, a, size)
        consolidate(row, chunks, pages, a)


@law
def arena_malloc(row, chunks, pages, a, size):
    """A chunk from an arena, or from the main one if that has none.

    Source: malloc/malloc.c __libc_malloc, malloc/arena.c arena_get_retry.
    """
    c = int_malloc(row, chunks, pages, a, size)
    return c if c >= 0 else int_malloc(row, chunks, pages, 0, size)
