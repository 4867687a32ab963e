# SPDX-License-Identifier: Apache-2.0
"""What a program calls: malloc, calloc, realloc, memalign, free; threads that begin and end.

Source: malloc/malloc.c and arena.c of glibc 2.36 (__libc_malloc … __malloc_arena_thread_freeres); nptl/allocatestack.c.
Leaves out: the dtv of a thread whose stack fell out of the cache of stacks (more than 40 MiB of them).
"""

from __future__ import annotations

from fleetsim.allocators.glibc_exact_bins import cut, forget_chunk, take_out, tcache_get, tcache_index
from fleetsim.allocators.glibc_exact_free import free_chunk, int_free
from fleetsim.allocators.glibc_exact_malloc import arena_malloc, int_malloc
from fleetsim.allocators.glibc_exact_pages import remap_area, touch
from fleetsim.allocators.glibc_exact_system import arena_of_thread
from fleetsim.allocators.glibc_exact_tables import (
    DTV_BYTES,
    FREE,
    HEADER,
    MINSIZE,
    MMAPPED,
    PAGE,
    TCACHE_BINS,
    TCACHE_STRUCT,
    USED,
)
from fleetsim.law import law


@law
def request2size(request):
    """Bytes of the chunk that serves a request.

    Source: malloc/malloc.c request2size; kernel-laws §15.1.
    """
    return max(MINSIZE, (request + 8 + 15) // 16 * 16)


@law
def usable(chunks, c):
    """Bytes of a chunk that its owner may use.

    Source: malloc/malloc.c musable.
    """
    return chunks[c]["size"] - (HEADER if chunks[c]["state"] == MMAPPED else 8)


@law
def init_tcache(row, chunks, pages):
    """The first call of a thread makes its tcache, in its arena.

    Source: malloc/malloc.c tcache_init.
    """
    thread = row["threads"][row["thread"]]
    if thread["tcache"] >= 0 or thread["ended"]:
        return
    a = arena_of_thread(row, chunks, pages, TCACHE_STRUCT)
    c = arena_malloc(row, chunks, pages, a, request2size(TCACHE_STRUCT))
    thread["tcache"] = c
    touch(row, pages, chunks[c]["addr"] + HEADER, chunks[c]["addr"] + HEADER + TCACHE_STRUCT)


@law
def libc_malloc(row, chunks, pages, request):
    """malloc(): the tcache first, else the thread's arena. Returns the chunk.

    Source: malloc/malloc.c __libc_malloc.
    """
    size = request2size(request)
    init_tcache(row, chunks, pages)
    index = tcache_index(size)
    if index < row["tcache_bins"] and row["threads"][row["thread"]]["counts"][index] > 0:
        return tcache_get(row, chunks, index)
    return arena_malloc(row, chunks, pages, arena_of_thread(row, chunks, pages, request), size)


@law
def libc_calloc(row, chunks, pages, request):
    """calloc(): never from the tcache; clears what may not be zero already, so it touches it. Returns the chunk.

    Source: malloc/malloc.c __libc_calloc (on Linux with MORECORE_CLEARS 2: what brk adds is zero, also when it was there before).
    """
    init_tcache(row, chunks, pages)
    a = arena_of_thread(row, chunks, pages, request)
    arena = row["arena"][a]
    old_top = arena["top"]
    top_addr, dirty = chunks[old_top]["addr"], chunks[old_top]["size"]
    if a > 0:
        heap = row["heap"][arena["heap"]]
        dirty = max(dirty, heap["addr"] + heap["opened"] - top_addr)
    c = arena_malloc(row, chunks, pages, a, request2size(request))
    if chunks[c]["state"] != MMAPPED:
        size = chunks[c]["size"]
        if chunks[c]["addr"] == top_addr and size > dirty:
            size = dirty
        touch(row, pages, chunks[c]["addr"] + HEADER, chunks[c]["addr"] + HEADER + size - 8)
    return c


@law
def libc_free(row, chunks, pages, c):
    """free().

    Source: malloc/malloc.c __libc_free.
    """
    if chunks[c]["state"] != MMAPPED:
        init_tcache(row, chunks, pages)
    free_chunk(row, chunks, pages, c)


@law
def split_tail(row, chunks, pages, c, size):
    """A used chunk keeps `size` bytes; what is more than that is freed if it can be a chunk.

    Source: malloc/malloc.c _int_realloc (split remainder).
    """
    if chunks[c]["size"] - size >= MINSIZE:
        rest = cut(row, chunks, c, size, USED)
        touch(row, pages, chunks[rest]["addr"] + 8, chunks[rest]["addr"] + HEADER)
        int_free(row, chunks, pages, rest)


@law
def remap_chunk(row, chunks, pages, c, size):
    """realloc() of a chunk with a mapping of its own: the mapping is made larger or smaller, and stays one.

    Source: malloc/malloc.c mremap_chunk.
    """
    chunk = chunks[c]
    old = chunk["lead"] + chunk["size"]
    new = (size + chunk["lead"] + 8 + PAGE - 1) // PAGE * PAGE
    if new == old:
        return
    at = remap_area(row, pages, chunk["addr"] - chunk["lead"], old, new)
    chunk["addr"] = at + chunk["lead"]
    chunk["size"] = new - chunk["lead"]
    row["mmapped"] += new - old
    row["reserved"] += new - old


@law
def libc_realloc(row, chunks, pages, c, request):
    """realloc(): in place if it fits, if the top or a free chunk behind is large enough; else a new chunk and a copy. Returns the chunk.

    Source: malloc/malloc.c __libc_realloc, _int_realloc.
    """
    size = request2size(request)
    if chunks[c]["state"] == MMAPPED:
        remap_chunk(row, chunks, pages, c, size)
        return c
    init_tcache(row, chunks, pages)
    old = chunks[c]["size"]
    a = chunks[c]["arena"]
    arena = row["arena"][a]
    if old < size:
        after = chunks[c]["next"]
        room = old + chunks[after]["size"]
        if after == arena["top"] and room >= size + MINSIZE:
            chunks[c]["size"] = room
            forget_chunk(row, chunks, after)
            chunks[c]["state"] = USED
            rest = cut(row, chunks, c, size, chunks[after]["state"])
            arena["top"] = rest
            touch(row, pages, chunks[rest]["addr"] + 8, chunks[rest]["addr"] + HEADER)
            return c
        if after != arena["top"] and chunks[after]["state"] == FREE and room >= size:
            take_out(row, chunks, after, USED)
        else:
            fresh = int_malloc(row, chunks, pages, a, size)
            after = chunks[c]["next"]
            if fresh < 0:
                fresh, after = libc_malloc(row, chunks, pages, request), -1
            if fresh != after:
                touch(row, pages, chunks[fresh]["addr"] + HEADER, chunks[fresh]["addr"] + HEADER + old - 8)
                int_free(row, chunks, pages, c)
                return fresh
        chunks[c]["size"] += chunks[after]["size"]
        forget_chunk(row, chunks, after)
    split_tail(row, chunks, pages, c, size)
    return c


@law
def align_chunk(row, chunks, pages, c, alignment, size):
    """Cut an aligned chunk of `size` bytes out of a larger one; what lies before and behind it is freed. Returns it.

    Source: malloc/malloc.c _int_memalign.
    """
    chunk = chunks[c]
    block = chunk["addr"] + HEADER
    if block % alignment != 0:
        at = (block + alignment - 1) // alignment * alignment - HEADER
        if at - chunk["addr"] < MINSIZE:
            at += alignment
        lead = at - chunk["addr"]
        if chunk["state"] == MMAPPED:
            chunk["lead"] += lead
            chunk["addr"] = at
            chunk["size"] -= lead
            touch(row, pages, at, at + HEADER)
            return c
        part = cut(row, chunks, c, lead, USED)
        touch(row, pages, at + 8, at + HEADER)
        int_free(row, chunks, pages, c)
        c = part
    if chunks[c]["state"] != MMAPPED and chunks[c]["size"] > size + MINSIZE:
        rest = cut(row, chunks, c, size, USED)
        touch(row, pages, chunks[rest]["addr"] + 8, chunks[rest]["addr"] + HEADER)
        int_free(row, chunks, pages, rest)
    return c


@law
def libc_memalign(row, chunks, pages, alignment, request):
    """memalign(), aligned_alloc(), posix_memalign(): never from the tcache. Returns the chunk.

    Source: malloc/malloc.c _mid_memalign.
    """
    if alignment <= 16:
        return libc_malloc(row, chunks, pages, request)
    alignment = max(alignment, MINSIZE)
    size = request2size(request)
    a = arena_of_thread(row, chunks, pages, request + alignment + MINSIZE)
    c = arena_malloc(row, chunks, pages, a, request2size(size + alignment + MINSIZE))
    return align_chunk(row, chunks, pages, c, alignment, size)


@law
def start_thread(row, chunks, pages, t):
    """The first op of a thread: the main thread has started it, which takes a dtv, unless there is the stack of an ended one.

    Source: nptl/allocatestack.c allocate_stack, elf/dl-tls.c allocate_dtv.
    """
    row["threads"][t]["known"] = 1
    if t > 0 and row["stacks"] > 0:
        row["stacks"] -= 1
    elif t > 0:
        row["thread"] = 0
        libc_calloc(row, chunks, pages, DTV_BYTES)
    row["thread"] = t


@law
def end_thread(row, chunks, pages):
    """The thread at work ends: what its tcache holds is freed, and its arena is for others if it was the last there.

    Source: malloc/malloc.c tcache_thread_shutdown, malloc/arena.c __malloc_arena_thread_freeres.
    """
    thread = row["threads"][row["thread"]]
    struct = thread["tcache"]
    row["stacks"] += 1
    if struct >= 0:
        for index in range(TCACHE_BINS):
            count = thread["counts"][index]
            for _ in range(count):
                thread["tcache"] = struct
                c = tcache_get(row, chunks, index)
                thread["tcache"] = -1  # so that it does not come back
                int_free(row, chunks, pages, c)
        thread["tcache"] = -1
        thread["ended"] = 1
        int_free(row, chunks, pages, struct)
    a = thread["arena"]
    thread["arena"] = -1
    if a >= 0:
        row["arena"][a]["attached"] -= 1
        if row["arena"][a]["attached"] == 0:
            row["arena"][a]["next_free"] = row["arena_free"]
            row["arena_free"] = a
