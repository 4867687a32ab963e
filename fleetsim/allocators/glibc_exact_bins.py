# SPDX-License-Identifier: Apache-2.0
"""Chunks in lists: rows, neighbours, the bins with their order, tcaches and fastbins.

A bin's head is a chunk row of its own (row arena · 128 + bin), so a list is a ring without special ends.
Source: malloc/malloc.c of glibc 2.36 (unlink_chunk, bin_index, tcache_put, tcache_get).
"""

from __future__ import annotations

from fleetsim.allocators.glibc_exact_pages import touch
from fleetsim.allocators.glibc_exact_tables import BIN, CACHED, FAST, FREE, LARGE_MIN, MINSIZE, NBINS, UNSORTED, USED
from fleetsim.law import law


@law
def new_chunk(row, chunks, a, addr, size, state):
    """A row for a chunk; neighbours and lists are the caller's to set.

    Source: fleetsim's own table.
    """
    c = row["spare"]
    if c >= 0:
        row["spare"] = chunks[c]["next"]
        row["nr_spare"] -= 1
    else:
        c = row["chunks"]
        row["chunks"] += 1
    chunk = chunks[c]
    chunk["addr"] = addr
    chunk["size"] = size
    chunk["lead"] = 0
    chunk["prev"] = -1
    chunk["next"] = -1
    chunk["fd"] = -1
    chunk["bk"] = -1
    chunk["fd_size"] = -1
    chunk["bk_size"] = -1
    chunk["state"] = state
    chunk["arena"] = a
    return c


@law
def forget_chunk(row, chunks, c):
    """The row of a chunk that became part of a neighbour (or was unmapped) is free; its neighbours become each other's.

    Source: fleetsim's own table.
    """
    before, after = chunks[c]["prev"], chunks[c]["next"]
    if before >= 0:
        chunks[before]["next"] = after
    if after >= 0:
        chunks[after]["prev"] = before
    chunks[c]["next"] = row["spare"]
    row["spare"] = c
    row["nr_spare"] += 1


@law
def cut(row, chunks, c, size, state):
    """Split a chunk: it keeps `size` bytes, a new one behind it has the rest. Returns the new one.

    Source: malloc/malloc.c _int_malloc (remainder).
    """
    chunk = chunks[c]
    rest = new_chunk(row, chunks, chunk["arena"], chunk["addr"] + size, chunk["size"] - size, state)
    after = chunk["next"]
    chunks[rest]["prev"] = c
    chunks[rest]["next"] = after
    if after >= 0:
        chunks[after]["prev"] = rest
    chunk["next"] = rest
    chunk["size"] = size
    return rest


@law
def bin_index(size):
    """The bin of chunks of a size: 2..63 hold one size each, 64..126 a range.

    Source: malloc/malloc.c smallbin_index, largebin_index_64.
    """
    if size < LARGE_MIN:
        return size >> 4
    if size >> 6 <= 48:
        return 48 + (size >> 6)
    if size >> 9 <= 20:
        return 91 + (size >> 9)
    if size >> 12 <= 10:
        return 110 + (size >> 12)
    if size >> 15 <= 4:
        return 119 + (size >> 15)
    if size >> 18 <= 2:
        return 124 + (size >> 18)
    return 126


@law
def init_bins(chunks, a):
    """Empty bins of an arena.

    Source: malloc/malloc.c malloc_init_state.
    """
    for k in range(a * NBINS, (a + 1) * NBINS):
        chunks[k]["fd"] = k
        chunks[k]["bk"] = k
        chunks[k]["state"] = BIN
        chunks[k]["arena"] = a


@law
def link(chunks, c, before, after):
    """Put a chunk into a list between two that stand beside each other.

    Source: malloc/malloc.c.
    """
    chunks[c]["bk"] = before
    chunks[c]["fd"] = after
    chunks[before]["fd"] = c
    chunks[after]["bk"] = c


@law
def put_unsorted(row, chunks, pages, a, c):
    """A free chunk joins the head of the unsorted list; its links are written into it.

    Source: malloc/malloc.c _int_free, _int_malloc (remainder).
    """
    head = a * NBINS + UNSORTED
    chunk = chunks[c]
    chunk["state"] = FREE
    chunk["fd_size"] = -1
    chunk["bk_size"] = -1
    link(chunks, c, head, chunks[head]["fd"])
    row["free"] += chunk["size"]
    touch(row, pages, chunk["addr"] + 8, chunk["addr"] + (32 if chunk["size"] < LARGE_MIN else 48))


@law
def take_out(row, chunks, c, state):
    """Take a free chunk out of the list it is in; another of its size takes its place among the sizes of a large bin.

    Source: malloc/malloc.c unlink_chunk.
    """
    chunk = chunks[c]
    fd, bk = chunk["fd"], chunk["bk"]
    chunks[fd]["bk"] = bk
    chunks[bk]["fd"] = fd
    row["free"] -= chunk["size"]
    chunk["state"] = state
    smaller, larger = chunk["fd_size"], chunk["bk_size"]
    if smaller < 0:
        return
    chunk["fd_size"] = -1
    if chunks[fd]["state"] != BIN and chunks[fd]["fd_size"] < 0:
        if smaller == c:
            smaller, larger = fd, fd
        chunks[fd]["fd_size"] = smaller
        chunks[fd]["bk_size"] = larger
        chunks[smaller]["bk_size"] = fd
        chunks[larger]["fd_size"] = fd
    else:
        chunks[smaller]["bk_size"] = larger
        chunks[larger]["fd_size"] = smaller


@law
def put_in_bin(row, chunks, a, c):
    """A chunk from the unsorted list goes to its bin: first in a small one; in a large one by size, largest first, and second among equals.

    Source: malloc/malloc.c _int_malloc (place chunk in bin).
    """
    chunk = chunks[c]
    size = chunk["size"]
    index = bin_index(size)
    head = a * NBINS + index
    row["arena"][a]["map"][index >> 5] |= 1 << (index & 31)
    after = chunks[head]["fd"]
    if size >= LARGE_MIN:
        if after == head:
            chunk["fd_size"] = c
            chunk["bk_size"] = c
        elif size < chunks[chunks[head]["bk"]]["size"]:
            largest = after
            after = head
            smallest = chunks[largest]["bk_size"]
            chunk["fd_size"] = largest
            chunk["bk_size"] = smallest
            chunks[largest]["bk_size"] = c
            chunks[smallest]["fd_size"] = c
        else:
            while size < chunks[after]["size"]:
                after = chunks[after]["fd_size"]
            if size == chunks[after]["size"]:
                after = chunks[after]["fd"]
            else:
                larger = chunks[after]["bk_size"]
                chunk["fd_size"] = after
                chunk["bk_size"] = larger
                chunks[after]["bk_size"] = c
                chunks[larger]["fd_size"] = c
    link(chunks, c, chunks[after]["bk"], after)


@law
def tcache_index(size):
    """The tcache bin of chunks of a size.

    Source: malloc/malloc.c csize2tidx.
    """
    return (size - MINSIZE + 15) >> 4


@law
def tcache_has_room(row, index):
    """True if the thread at work may put another chunk of that bin into its tcache.

    Source: malloc/malloc.c _int_free.
    """
    thread = row["threads"][row["thread"]]
    return index < row["tcache_bins"] and thread["tcache"] >= 0 and thread["counts"][index] < row["tcache_count"]


@law
def tcache_put(row, chunks, pages, c, index):
    """A chunk goes on the stack of its bin in the tcache; link and key are written into it.

    Source: malloc/malloc.c tcache_put.
    """
    thread = row["threads"][row["thread"]]
    chunk = chunks[c]
    chunk["state"] = CACHED
    chunk["fd"] = thread["heads"][index]
    thread["heads"][index] = c
    thread["counts"][index] += 1
    row["cached"] += chunk["size"]
    touch(row, pages, chunk["addr"] + 16, chunk["addr"] + 32)


@law
def tcache_get(row, chunks, index):
    """The chunk put last.

    Source: malloc/malloc.c tcache_get.
    """
    thread = row["threads"][row["thread"]]
    c = thread["heads"][index]
    thread["heads"][index] = chunks[c]["fd"]
    thread["counts"][index] -= 1
    chunks[c]["state"] = USED
    row["cached"] -= chunks[c]["size"]
    return c


@law
def fast_put(row, chunks, pages, a, c):
    """A chunk goes on the stack of its fastbin.

    Source: malloc/malloc.c _int_free.
    """
    arena, chunk = row["arena"][a], chunks[c]
    index = (chunk["size"] >> 4) - 2
    arena["have_fast"] = 1
    chunk["state"] = FAST
    chunk["fd"] = arena["fast"][index]
    arena["fast"][index] = c
    row["cached"] += chunk["size"]
    touch(row, pages, chunk["addr"] + 16, chunk["addr"] + 24)


@law
def fast_get(row, chunks, a, index):
    """The chunk put last, −1: the fastbin is empty.

    Source: malloc/malloc.c _int_malloc (REMOVE_FB).
    """
    arena = row["arena"][a]
    c = arena["fast"][index]
    if c >= 0:
        arena["fast"][index] = chunks[c]["fd"]
        chunks[c]["state"] = USED
        row["cached"] -= chunks[c]["size"]
    return c
