# SPDX-License-Identifier: Apache-2.0
"""Memory from the kernel: the break, mappings, heaps of 64 MiB, and which arena a thread has.

Source: malloc/malloc.c (sysmalloc, sysmalloc_mmap) and arena.c (new_heap, grow_heap, arena_get2, reused_arena) of glibc 2.36.
Leaves out: refusals of the kernel, arenas passed over because another thread holds their lock.
"""

from __future__ import annotations

from fleetsim.allocators.glibc_exact_bins import cut, init_bins, new_chunk
from fleetsim.allocators.glibc_exact_free import int_free
from fleetsim.allocators.glibc_exact_pages import map_area, map_at, sbrk, touch, unmap_area
from fleetsim.allocators.glibc_exact_tables import (
    ARENA_BYTES,
    FENCE,
    HEADER,
    HEAP_INFO,
    HEAP_MAX,
    HEAP_MIN,
    MINSIZE,
    MMAPPED,
    PAGE,
    TOP,
    USED,
)
from fleetsim.law import law


@law
def map_chunk(row, chunks, pages, size):
    """A chunk with a mapping of its own, for `size` bytes of chunk.

    Source: malloc/malloc.c sysmalloc_mmap; kernel-laws T-15.1.
    """
    size = (size + 8 + PAGE - 1) // PAGE * PAGE
    c = new_chunk(row, chunks, -1, map_area(row, size), size, MMAPPED)
    touch(row, pages, chunks[c]["addr"], chunks[c]["addr"] + HEADER)
    row["mmaps"] += 1
    row["mmapped"] += size
    row["reserved"] += size
    return c


@law
def new_heap(row, pages, size, pad):
    """A heap with room for `size` bytes and `pad` more if it can; −1: it would be more than a heap can have.

    Source: malloc/arena.c alloc_new_heap.
    """
    if size + pad < HEAP_MIN:
        size = HEAP_MIN
    elif size + pad <= HEAP_MAX:
        size += pad
    elif size > HEAP_MAX:
        return -1
    else:
        size = HEAP_MAX
    size = (size + PAGE - 1) // PAGE * PAGE
    at = 0
    if row["heap_hint"] != 0:
        at = map_at(row, row["heap_hint"], HEAP_MAX)
        row["heap_hint"] = 0
        if at % HEAP_MAX != 0:
            unmap_area(row, pages, at, HEAP_MAX)
            at = 0
    if at == 0:
        low = map_area(row, 2 * HEAP_MAX)
        at = (low + HEAP_MAX - 1) // HEAP_MAX * HEAP_MAX
        if at > low:
            unmap_area(row, pages, low, at - low)
        else:
            row["heap_hint"] = at + HEAP_MAX
        unmap_area(row, pages, at + HEAP_MAX, HEAP_MAX - (at - low))
    h = row["heap_spare"]
    if h >= 0:
        row["heap_spare"] = row["heap"][h]["prev"]
    else:
        h = row["heaps"]
        row["heaps"] += 1
    heap = row["heap"][h]
    heap["addr"] = at
    heap["size"] = size
    heap["opened"] = size
    heap["prev"] = -1
    heap["last"] = -1
    row["heap_bytes"] += size
    row["reserved"] += HEAP_MAX
    touch(row, pages, at, at + HEAP_INFO)
    return h


@law
def grow_heap(row, h, more):
    """Make `more` bytes of a heap usable; False: it would be too large.

    Source: malloc/arena.c grow_heap.
    """
    heap = row["heap"][h]
    size = heap["size"] + (more + PAGE - 1) // PAGE * PAGE
    if size > HEAP_MAX:
        return False
    row["heap_bytes"] += size - heap["size"]
    heap["size"] = size
    heap["opened"] = max(heap["opened"], size)
    return True


@law
def close_heap(row, chunks, pages, h, old):
    """The top of a heap that is full becomes free, with fenceposts behind it; a remainder too small to free is part of them.

    Source: malloc/malloc.c sysmalloc (fencepost).
    """
    size = (chunks[old]["size"] - MINSIZE) // 16 * 16
    touch(row, pages, chunks[old]["addr"] + size + 8, chunks[old]["addr"] + size + MINSIZE)
    if size >= MINSIZE:
        post = cut(row, chunks, old, size, FENCE)
        chunks[post]["size"] = HEADER
        row["heap"][h]["last"] = post
        chunks[old]["state"] = USED
        int_free(row, chunks, pages, old)
    else:
        chunks[old]["state"] = FENCE
        chunks[old]["size"] = size + HEADER
        row["heap"][h]["last"] = old


@law
def extend_arena(row, chunks, pages, a, size):
    """Make the top of a thread's arena large enough for a chunk of `size` bytes; False: no heap can hold it.

    Source: malloc/malloc.c sysmalloc (av != &main_arena).
    """
    arena = row["arena"][a]
    old, h = arena["top"], arena["heap"]
    before = row["heap"][h]["size"]
    if grow_heap(row, h, MINSIZE + size - chunks[old]["size"]):
        more = row["heap"][h]["size"] - before
        arena["system"] += more
        chunks[old]["size"] += more
        return True
    fresh = new_heap(row, pages, size + MINSIZE + HEAP_INFO, row["top_pad"])
    if fresh < 0:
        return False
    heap = row["heap"][fresh]
    heap["prev"] = h
    arena["system"] += heap["size"]
    arena["heap"] = fresh
    arena["top"] = new_chunk(row, chunks, a, heap["addr"] + HEAP_INFO, heap["size"] - HEAP_INFO, TOP)
    close_heap(row, chunks, pages, h, old)
    return True


@law
def extend_brk(row, chunks, pages, size):
    """Move the break so that the top of the main arena is large enough for a chunk of `size` bytes, and top_pad more.

    Source: malloc/malloc.c sysmalloc (main arena, contiguous).
    """
    arena = row["arena"][0]
    top = arena["top"]
    have = chunks[top]["size"] if top >= 0 else 0
    more = (size + row["top_pad"] + MINSIZE - have + PAGE - 1) // PAGE * PAGE
    at = row["brk"]
    sbrk(row, pages, more)
    arena["system"] += more
    if top >= 0:
        chunks[top]["size"] += more
    else:
        arena["top"] = new_chunk(row, chunks, 0, at, more, TOP)


@law
def cut_top(row, chunks, pages, a, size):
    """A chunk of `size` bytes from the low end of the top.

    Source: malloc/malloc.c _int_malloc (use_top).
    """
    c = row["arena"][a]["top"]
    chunks[c]["state"] = USED
    rest = cut(row, chunks, c, size, TOP)
    row["arena"][a]["top"] = rest
    touch(row, pages, chunks[c]["addr"] + 8, chunks[c]["addr"] + HEADER)
    touch(row, pages, chunks[rest]["addr"] + 8, chunks[rest]["addr"] + HEADER)
    return c


@law
def sysmalloc(row, chunks, pages, a, size):
    """A chunk of `size` bytes when the top is too small: a mapping from the threshold on, else more heap.

    returns  int64  chunk, −1: the arena has none, ask the main one. That happens when freeing the rest of a full heap trims the
                    arena, and so takes away the heap that was just made

    Source: malloc/malloc.c sysmalloc (catch all failure paths).
    """
    if size >= row["mmap_threshold"] and row["mmaps"] < row["mmaps_max"]:
        return map_chunk(row, chunks, pages, size)
    if a > 0:
        if not extend_arena(row, chunks, pages, a, size):
            return map_chunk(row, chunks, pages, size)
    else:
        extend_brk(row, chunks, pages, size)
    if chunks[row["arena"][a]["top"]]["size"] < size + MINSIZE:
        return -1
    return cut_top(row, chunks, pages, a, size)


@law
def new_arena(row, chunks, pages, size):
    """An arena in a heap of its own, with room for `size` bytes if a heap can have that much.

    Source: malloc/arena.c _int_new_arena.
    """
    h = new_heap(row, pages, size + HEAP_INFO + ARENA_BYTES + 16, row["top_pad"])
    if h < 0:
        h = new_heap(row, pages, HEAP_INFO + ARENA_BYTES + 16, row["top_pad"])
    a = row["arenas"]
    row["arenas"] += 1
    arena, heap = row["arena"][a], row["heap"][h]
    init_bins(chunks, a)
    for k in range(len(arena["fast"])):
        arena["fast"][k] = -1
    arena["heap"] = h
    arena["attached"] = 1
    arena["system"] = heap["size"]
    used = (HEAP_INFO + ARENA_BYTES + 15) // 16 * 16
    arena["top"] = new_chunk(row, chunks, a, heap["addr"] + used, heap["size"] - used, TOP)
    touch(row, pages, heap["addr"], heap["addr"] + used + HEADER)
    arena["next"] = row["arena"][0]["next"]
    row["arena"][0]["next"] = a
    return a


@law
def arena_of_thread(row, chunks, pages, size):
    """The arena of the thread at work; its first call decides: one that ended threads left, a new one, or the next in turn.

    Source: malloc/arena.c arena_get, arena_get2, get_free_list, reused_arena.
    """
    thread = row["threads"][row["thread"]]
    if thread["arena"] >= 0:
        return thread["arena"]
    a = row["arena_free"]
    if a >= 0:
        row["arena_free"] = row["arena"][a]["next_free"]
        row["arena"][a]["attached"] = 1
        thread["arena"] = a
        return a
    if row["arena_limit"] == 0:
        if row["arena_max"] != 0:
            row["arena_limit"] = row["arena_max"]
        elif row["arenas"] > row["arena_test"]:
            row["arena_limit"] = 8 * row["cpus"]
    if row["arena_limit"] == 0 or row["arenas"] < row["arena_limit"]:
        a = new_arena(row, chunks, pages, size)
    else:
        a = row["arena_next"]
        row["arena"][a]["attached"] += 1
        row["arena_next"] = row["arena"][a]["next"]
    thread["arena"] = a
    return a
