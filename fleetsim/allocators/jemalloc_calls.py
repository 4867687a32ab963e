# SPDX-License-Identifier: Apache-2.0
"""The calls of malloc's interface as jemalloc serves them, and a trace of them replayed.

Leaves out: what happens when memory runs out; alignments above a page for small blocks (they become large, as in life).
Source: src/jemalloc.c, large.c of jemalloc 5.3.0; kernel-laws §15.2.
"""

from __future__ import annotations

from fleetsim.allocators.jemalloc_arena import alloc_large, free_extent
from fleetsim.allocators.jemalloc_decay import pass_time, tick
from fleetsim.allocators.jemalloc_extents import eset_insert, eset_remove, merge, neighbour, purge_pages, split
from fleetsim.allocators.jemalloc_sizes import (
    LARGE_MIN,
    LARGE_PAD,
    PAGE,
    SIZE_OF,
    SMALL_CLASSES,
    size_class,
)
from fleetsim.allocators.jemalloc_tables import DIRTY, MUZZY, RETAINED
from fleetsim.allocators.jemalloc_tcache import (
    cached_or_new,
    count_free,
    count_malloc,
    end_thread,
    new_thread,
    put_back,
    start_thread,
    touch,
)
from fleetsim.allocators.trace import CALLOC, EXIT, FREE, MALLOC, MEMALIGN, REALLOC, SLEEP, TOUCH
from fleetsim.law import law

ROOM_PAGES = 8192  # pages and extents that one call may need besides what it asks for: fills of a bin, a thread's stacks
ROOM_EXTENTS = 4096


@law
def block_class(heap, block):
    """Size class of a live block.

    Source: include/jemalloc/internal/arena_inlines_b.h arena_salloc.
    """
    slab = heap.extents[block["extent"]]["slab"]
    if slab >= 0:
        return slab
    return size_class(heap.extents[block["extent"]]["pages"] * PAGE - LARGE_PAD)


@law
def aligned_class(size, alignment):
    """Size class that serves `size` bytes at a multiple of `alignment` bytes.

    Source: include/jemalloc/internal/sz.h sz_sa2u.
    """
    if alignment <= PAGE and size <= LARGE_MIN:
        k = size_class((size + alignment - 1) // alignment * alignment)
        if k < SMALL_CLASSES:
            return k
    return max(SMALL_CLASSES, size_class(size))


@law
def give(heap, t, number, size, alignment, zeroed):
    """Thread `t` gets block `number` of `size` bytes.

    alignment  int64  bytes, 0: not asked for
    zeroed     bool   calloc: small blocks are written, large ones purged

    Source: src/jemalloc.c imalloc_body; src/ehooks.c ehooks_default_zero_impl.
    """
    if heap.threads[t]["used"] == 0:
        start_thread(heap, t)
    k = aligned_class(size, alignment) if alignment > 0 else size_class(size)
    address = cached_or_new(heap, t, k, size if alignment == 0 else SIZE_OF[k], alignment)
    e = heap.owner[address // PAGE]
    block = heap.blocks[number]
    block["address"], block["size"], block["extent"], block["live"] = address, size, e, 1
    heap.state[0]["live"] += size
    if zeroed and k >= SMALL_CLASSES and k >= heap.options[0]["tcache_classes"]:
        purge_pages(heap, e)
    elif zeroed:
        touch(heap, address, SIZE_OF[k])
    count_malloc(heap, t, SIZE_OF[k])
    return k


@law
def take(heap, t, number):
    """Thread `t` frees block `number`.

    Source: src/jemalloc.c ifree.
    """
    block = heap.blocks[number]
    k = block_class(heap, block)
    block["live"] = 0
    heap.state[0]["live"] -= block["size"]
    put_back(heap, t, k, block["address"])
    if heap.threads[t]["used"]:
        count_free(heap, t, SIZE_OF[k])


@law
def expand(heap, e, pages):
    """Lengthen the active extent `e` by `pages` pages if those behind it are free.

    returns  bool  it was possible

    Source: src/pac.c pac_expand_impl; src/extent.c extent_recycle_extract.
    """
    a = heap.extents[e]["arena"]
    arena = heap.arenas[a]
    for state in (DIRTY, MUZZY, RETAINED):
        n = neighbour(heap, e, state, True)
        if n >= 0 and heap.extents[n]["pages"] >= pages:
            eset_remove(heap, a, state, n)
            rest = split(heap, n, pages)
            if rest >= 0:
                eset_insert(heap, a, state, rest)
            merge(heap, e, n)
            arena["active"] += pages
            arena["mapped"] += pages * PAGE if state == RETAINED else 0
            return True
    return False


@law
def resize_in_place(heap, t, e, old, new):
    """Resize the large block in extent `e` from class `old` to `new` where it lies.

    returns  bool  it was possible

    Source: src/large.c large_ralloc_no_move.
    """
    a = heap.extents[e]["arena"]
    pages = (SIZE_OF[new] - SIZE_OF[old]) // PAGE
    if new > old and not expand(heap, e, pages):
        return False
    if new < old:
        rest = split(heap, e, heap.extents[e]["pages"] + pages)
        free_extent(heap, a, rest)
    heap.state[0]["allocated"] += SIZE_OF[new] - SIZE_OF[old]
    tick(heap, t, a, 1)
    return True


@law
def resize(heap, t, number, size):
    """Thread `t` resizes block `number`: in place if its class stays or, a large one, if there is room behind it; else it is copied.

    Source: src/jemalloc.c do_rallocx; src/arena.c arena_ralloc; src/large.c large_ralloc.
    """
    if heap.threads[t]["used"] == 0:
        start_thread(heap, t)
    block = heap.blocks[number]
    old, new = block_class(heap, block), size_class(size)
    e, address, before = block["extent"], block["address"], block["size"]
    stays = old == new
    if stays and new < SMALL_CLASSES:
        tick(heap, t, heap.extents[e]["arena"], 1)
    elif old >= SMALL_CLASSES and new >= SMALL_CLASSES:
        stays = resize_in_place(heap, t, e, old, new)
    heap.state[0]["live"] += size - before
    block["size"] = size
    if not stays:
        if min(old, new) >= SMALL_CLASSES:  # never from the thread's cache, as it happens
            block["address"] = alloc_large(heap, t, heap.threads[t]["arena"], new, SIZE_OF[new], 0)
        else:
            block["address"] = cached_or_new(heap, t, new, SIZE_OF[new], 0)
        block["extent"] = heap.owner[block["address"] // PAGE]
        touch(heap, block["address"], min(SIZE_OF[new], SIZE_OF[old]))
        put_back(heap, t, old, address)
    count_malloc(heap, t, SIZE_OF[new])
    count_free(heap, t, SIZE_OF[old])


@law
def has_room(heap, size):
    """True if the tables have rows for all that one call of `size` bytes can need.

    Source: the bounds of map_extent and flush_bin above.
    """
    row = heap.state[0]
    pages = row["growth"] + 4 * (size // PAGE) + ROOM_PAGES
    return row["pages_end"] + pages <= len(heap.owner) and row["extents_end"] + ROOM_EXTENTS <= len(heap.extents)


@law
def replay_ops(heap, ops, addresses, usable, start, stop):
    """Replay ops start..stop−1 of a trace.

    addresses, usable  int64[]  per op what the call returned, or empty arrays
    returns            int64    the op to go on with: `stop`, or the one before which the tables must grow

    Source: the meaning of ops in trace.py.
    """
    for i in range(start, stop):
        op = ops[i]
        t, number, size, kind = int(op["thread"]), int(op["block"]), op["size"], int(op["op"])
        if not has_room(heap, size if kind != SLEEP else 0):
            return i
        if kind in (MALLOC, CALLOC):
            give(heap, t, number, size, 0, kind == CALLOC)
        elif kind == MEMALIGN:
            give(heap, t, number, size, op["argument"], False)
        elif kind == REALLOC:
            old = heap.blocks[number]["size"]
            resize(heap, t, number, size)
            if op["written"] > old:
                touch(heap, heap.blocks[number]["address"] + old, op["written"] - old)
        elif kind == FREE:
            take(heap, t, number)
        elif kind == TOUCH:
            touch(heap, heap.blocks[number]["address"] + op["argument"], size)
        elif kind == SLEEP:
            pass_time(heap, op["time_ns"])
        elif kind == EXIT:
            end_thread(heap, t)
        if kind in (MALLOC, CALLOC, MEMALIGN):
            touch(heap, heap.blocks[number]["address"], op["written"])
        if len(addresses) > 0 and number >= 0 and kind != FREE:
            addresses[i] = heap.blocks[number]["address"]
            usable[i] = SIZE_OF[block_class(heap, heap.blocks[number])]
    return stop


@law
def prepare(heap, tcache_classes):
    """A process at the begin of main(): the first thread runs, and the C++ library has taken its reserve of 72,704 bytes.

    Source: src/jemalloc.c malloc_init_hard; measured with libjemalloc2 5.3.0-1.
    """
    heap.options[0]["tcache_classes"] = tcache_classes
    for t in range(len(heap.threads)):
        new_thread(heap, t)
    start_thread(heap, 0)
    touch(heap, alloc_large(heap, 0, 0, size_class(72_704), 72_704, 0), 64)
    count_malloc(heap, 0, SIZE_OF[size_class(72_704)])
