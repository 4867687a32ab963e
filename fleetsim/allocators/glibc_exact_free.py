# SPDX-License-Identifier: Apache-2.0
"""free(), chunk by chunk: into a tcache, a fastbin, or merged with its neighbours; and what then goes back to the kernel.

Source: malloc/malloc.c and arena.c of glibc 2.36 (_int_free, malloc_consolidate, systrim, heap_trim, mtrim).
"""

from __future__ import annotations

from fleetsim.allocators.glibc_exact_bins import (
    bin_index,
    fast_get,
    fast_put,
    forget_chunk,
    put_unsorted,
    take_out,
    tcache_has_room,
    tcache_index,
    tcache_put,
)
from fleetsim.allocators.glibc_exact_pages import drop, sbrk, unmap_area
from fleetsim.allocators.glibc_exact_tables import (
    CONSOLIDATION,
    FASTBINS,
    FREE,
    HEADER,
    HEAP_INFO,
    HEAP_MAX,
    MINSIZE,
    MMAP_THRESHOLD_MAX,
    MMAPPED,
    NBINS,
    PAGE,
    TOP,
    UNSORTED,
    USED,
)
from fleetsim.law import law


@law
def merge(row, chunks, pages, a, c):
    """A chunk that is used by nobody joins its free neighbours, and the unsorted list or the top. Returns what it became.

    Source: malloc/malloc.c _int_free (consolidate backward, forward, into top).
    """
    arena = row["arena"][a]
    before = chunks[c]["prev"]
    if before >= 0 and chunks[before]["state"] == FREE:
        take_out(row, chunks, before, USED)
        chunks[before]["size"] += chunks[c]["size"]
        forget_chunk(row, chunks, c)
        c = before
    after = chunks[c]["next"]
    if after == arena["top"]:
        chunks[c]["size"] += chunks[after]["size"]
        chunks[c]["state"] = TOP
        forget_chunk(row, chunks, after)
        arena["top"] = c
        return c
    if chunks[after]["state"] == FREE:
        take_out(row, chunks, after, USED)
        chunks[c]["size"] += chunks[after]["size"]
        forget_chunk(row, chunks, after)
    put_unsorted(row, chunks, pages, a, c)
    return c


@law
def consolidate(row, chunks, pages, a):
    """Everything that waits in fastbins is merged, smallest sizes first.

    Source: malloc/malloc.c malloc_consolidate.
    """
    row["arena"][a]["have_fast"] = 0
    for index in range(FASTBINS):
        while True:
            c = fast_get(row, chunks, a, index)
            if c < 0:
                break
            merge(row, chunks, pages, a, c)


@law
def systrim(row, chunks, pages, pad):
    """Give whole pages at the end of the brk heap back, all but `pad` bytes of the top.

    A top of the minimum size has −1 bytes to spare, which glibc 2.36 compares as a huge number: the break then grows by pad.

    Source: malloc/malloc.c systrim (top_area is signed, pad is not); seen with the real one.
    """
    top = row["arena"][0]["top"]
    if top < 0:
        return
    spare = chunks[top]["size"] - MINSIZE - 1
    if 0 <= spare <= pad:
        return
    extra = (spare - pad) // PAGE * PAGE
    if extra == 0:
        return
    sbrk(row, pages, -extra)
    row["arena"][0]["system"] -= extra
    chunks[top]["size"] -= extra


@law
def remove_heap(row, pages, h):
    """munmap() of a heap.

    Source: malloc/arena.c heap_trim (delete_heap).
    """
    heap = row["heap"][h]
    if heap["addr"] + HEAP_MAX == row["heap_hint"]:
        row["heap_hint"] = 0
    row["heap_bytes"] -= heap["size"]
    row["reserved"] -= HEAP_MAX
    unmap_area(row, pages, heap["addr"], HEAP_MAX)
    heap["prev"] = row["heap_spare"]
    row["heap_spare"] = h


@law
def heap_trim(row, chunks, pages, a, pad):
    """Remove heaps of a thread's arena that are all top, then give the end of the last one back if its top is large enough.

    Source: malloc/arena.c heap_trim, shrink_heap.
    """
    arena = row["arena"][a]
    while chunks[arena["top"]]["addr"] == row["heap"][arena["heap"]]["addr"] + HEAP_INFO:
        heap = row["heap"][arena["heap"]]
        before = row["heap"][heap["prev"]]
        post = before["last"]
        size = chunks[post]["size"] + HEADER
        neighbour = chunks[post]["prev"]
        if neighbour >= 0 and chunks[neighbour]["state"] == FREE:
            size += chunks[neighbour]["size"]
        else:
            neighbour = -1
        if size + HEAP_MAX - before["size"] < pad + MINSIZE + PAGE:
            break
        arena["system"] -= heap["size"]
        forget_chunk(row, chunks, arena["top"])
        emptied = arena["heap"]
        arena["heap"] = heap["prev"]
        remove_heap(row, pages, emptied)
        if neighbour >= 0:
            take_out(row, chunks, neighbour, USED)
            forget_chunk(row, chunks, post)
            post = neighbour
        chunks[post]["size"] = size
        chunks[post]["state"] = TOP
        arena["top"] = post
        before["last"] = -1
    top = chunks[arena["top"]]
    if top["size"] < row["trim_threshold"]:
        return
    spare = top["size"] - MINSIZE - 1
    if spare <= pad:
        return
    extra = (spare - pad) // PAGE * PAGE
    heap = row["heap"][arena["heap"]]
    if extra == 0 or heap["size"] - extra < HEAP_INFO:
        return
    end = heap["addr"] + heap["size"]
    drop(row, pages, end - extra, end)
    heap["size"] -= extra
    row["heap_bytes"] -= extra
    arena["system"] -= extra
    top["size"] -= extra


@law
def unmap_chunk(row, chunks, pages, c):
    """Free a chunk that has a mapping of its own.

    Source: malloc/malloc.c munmap_chunk.
    """
    chunk = chunks[c]
    size = chunk["lead"] + chunk["size"]
    row["mmaps"] -= 1
    row["mmapped"] -= size
    row["reserved"] -= size
    unmap_area(row, pages, chunk["addr"] - chunk["lead"], size)
    forget_chunk(row, chunks, c)


@law
def int_free(row, chunks, pages, c):
    """Free a chunk of an arena, as the thread at work.

    Source: malloc/malloc.c _int_free.
    """
    size, a = chunks[c]["size"], chunks[c]["arena"]
    index = tcache_index(size)
    if tcache_has_room(row, index):
        tcache_put(row, chunks, pages, c, index)
        return
    if size <= row["max_fast"]:
        fast_put(row, chunks, pages, a, c)
        return
    c = merge(row, chunks, pages, a, c)
    if chunks[c]["size"] < CONSOLIDATION:
        return
    arena = row["arena"][a]
    if arena["have_fast"]:
        consolidate(row, chunks, pages, a)
    if a > 0:
        heap_trim(row, chunks, pages, a, row["top_pad"])
    elif chunks[arena["top"]]["size"] >= row["trim_threshold"]:
        systrim(row, chunks, pages, row["top_pad"])


@law
def free_chunk(row, chunks, pages, c):
    """What free() does once the thread has its tcache. The first large mapping freed raises the thresholds.

    Source: malloc/malloc.c __libc_free; kernel-laws T-15.1.
    """
    if chunks[c]["state"] != MMAPPED:
        int_free(row, chunks, pages, c)
        return
    size = chunks[c]["size"]
    if row["fixed_thresholds"] == 0 and row["mmap_threshold"] < size <= MMAP_THRESHOLD_MAX:
        row["mmap_threshold"] = size
        row["trim_threshold"] = 2 * size
    unmap_chunk(row, chunks, pages, c)


@law
def trim_arena(row, chunks, pages, a):
    """Merge what waits in fastbins, then give back every whole page that lies inside a free chunk.

    Source: malloc/malloc.c mtrim.
    """
    consolidate(row, chunks, pages, a)
    for index in range(1, NBINS - 1):
        if index == UNSORTED or index >= bin_index(PAGE):
            head = a * NBINS + index
            c = chunks[head]["bk"]
            while c != head:
                first = (chunks[c]["addr"] + 48 + PAGE - 1) // PAGE * PAGE
                end = (chunks[c]["addr"] + chunks[c]["size"]) // PAGE * PAGE
                drop(row, pages, first, end)
                c = chunks[c]["bk"]


@law
def malloc_trim(row, chunks, pages, pad):
    """malloc_trim(pad): every arena; the end of the brk heap too, but of no other.

    Source: malloc/malloc.c __malloc_trim.
    """
    a = 0
    while True:
        trim_arena(row, chunks, pages, a)
        if a == 0:
            systrim(row, chunks, pages, pad)
        a = row["arena"][a]["next"]
        if a == 0:
            return
