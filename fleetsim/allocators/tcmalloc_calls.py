# SPDX-License-Identifier: Apache-2.0
"""The calls of malloc's interface as tcmalloc serves them, and a trace of them replayed.

Leaves out: what happens when memory runs out; the sampling heap profiler (not in the minimal library); huge pages.
Source: src/tcmalloc.cc of gperftools 2.10; kernel-laws §15.3.
"""

from __future__ import annotations

from fleetsim.allocators.tcmalloc_cache import cache_alloc, cache_free, end_thread, start_thread
from fleetsim.allocators.tcmalloc_central import start_central
from fleetsim.allocators.tcmalloc_page_heap import RELEASE_DELAY, alloc_span, delete_span, new_span
from fleetsim.allocators.tcmalloc_sizes import MAX_SIZE, PAGE, PAGE_SHIFT, SIZE_OF, size_class
from fleetsim.allocators.tcmalloc_tables import IN_USE, MAX_PAGES
from fleetsim.allocators.trace import CALLOC, EXIT, FREE, MALLOC, MEMALIGN, REALLOC, SLEEP, TOUCH
from fleetsim.law import law

ROOM_PAGES, ROOM_SPANS = 4096, 4096
CPP_RESERVE = 72_704  # bytes that the C++ library takes before main()


@law
def touch(heap, address, size):
    """The program writes `size` bytes at `address`: pages not there yet are populated.

    Source: mm/memory.c do_anonymous_page.
    """
    if size > 0:
        new = 0
        for page in range(address >> 12, ((address + size - 1) >> 12) + 1):
            new += 1 - heap.touched[page]
            heap.touched[page] = 1
        heap.state[0]["touched"] += new


@law
def usable_size(heap, address):
    """Bytes that the program may use of the block at `address`.

    Source: src/tcmalloc.cc GetSizeWithCallback.
    """
    span = heap.spans[heap.owner[address >> PAGE_SHIFT]]
    return SIZE_OF[span["size_class"]] if span["size_class"] > 0 else span["length"] << PAGE_SHIFT


@law
def allocate(heap, t, size):
    """Memory for `size` bytes.

    returns  int64  its address

    Source: src/tcmalloc.cc do_malloc, do_malloc_pages.
    """
    if heap.threads[t]["used"] == 0:
        start_thread(heap, t)
    if size <= MAX_SIZE:
        k = size_class(max(1, size))
        heap.state[0]["usable"] += SIZE_OF[k]
        return cache_alloc(heap, t, k) << 3
    s = alloc_span(heap, (size + PAGE - 1) >> PAGE_SHIFT)
    heap.state[0]["usable"] += heap.spans[s]["length"] << PAGE_SHIFT
    heap.state[0]["large"] += heap.spans[s]["length"] << PAGE_SHIFT
    return heap.spans[s]["start"] << PAGE_SHIFT


@law
def split_off(heap, s, pages):
    """Cut span `s`, in use, after `pages` pages.

    returns  int64  the rest, in use

    Source: src/page_heap.cc Split.
    """
    span = heap.spans[s]
    rest = new_span(heap, span["start"] + pages, span["length"] - pages, IN_USE)
    span["length"] = pages
    heap.owner[span["start"] + pages - 1] = s
    return rest


@law
def allocate_aligned(heap, t, size, alignment):
    """Memory for `size` bytes at a multiple of `alignment`: up to a page a class does, above it a longer span is trimmed.

    returns  int64  its address

    Source: src/tcmalloc.cc memalign_fast_path, do_memalign_pages.
    """
    if alignment <= PAGE:
        return allocate(heap, t, (size + alignment - 1) // alignment * alignment)
    if heap.threads[t]["used"] == 0:
        start_thread(heap, t)
    size = max(1, size)
    s = alloc_span(heap, (size + alignment + PAGE - 1) >> PAGE_SHIFT)
    skip = -heap.spans[s]["start"] % (alignment >> PAGE_SHIFT)
    if skip > 0:
        rest = split_off(heap, s, skip)
        delete_span(heap, s)
        s = rest
    needed = (size + PAGE - 1) >> PAGE_SHIFT
    if heap.spans[s]["length"] > needed:
        delete_span(heap, split_off(heap, s, needed))
    heap.state[0]["usable"] += needed << PAGE_SHIFT
    heap.state[0]["large"] += needed << PAGE_SHIFT
    return heap.spans[s]["start"] << PAGE_SHIFT


@law
def release_block(heap, t, address):
    """The block at `address` is freed by thread `t`.

    Source: src/tcmalloc.cc do_free_with_callback, do_free_pages.
    """
    s = heap.owner[address >> PAGE_SHIFT]
    k = heap.spans[s]["size_class"]
    heap.state[0]["usable"] -= usable_size(heap, address)
    if k > 0:
        cache_free(heap, t, k, address >> 3)
    else:
        heap.state[0]["large"] -= heap.spans[s]["length"] << PAGE_SHIFT
        delete_span(heap, s)


@law
def resize(heap, t, number, size):
    """realloc: in place unless it grows beyond what is usable or shrinks to less than half; growth is by a quarter at least.

    Source: src/tcmalloc.cc do_realloc_with_callback.
    """
    block = heap.blocks[number]
    old = usable_size(heap, block["address"])
    heap.state[0]["live"] += size - block["size"]
    block["size"] = size
    if size > old or size < old // 2:
        address = allocate(heap, t, old + old // 4 if old < size < old + old // 4 else size)
        touch(heap, address, min(old, size))
        release_block(heap, t, block["address"])
        block["address"] = address


@law
def has_room(heap, size):
    """True if the tables have rows for all that one call of `size` bytes can need.

    Source: the bounds of alloc_span and scavenge above.
    """
    row = heap.state[0]
    pages = 2 * (size >> PAGE_SHIFT) + ROOM_PAGES
    return row["end"] + pages <= len(heap.owner) and row["spans_end"] + ROOM_SPANS <= len(heap.spans)


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
        if not has_room(heap, (size + op["argument"]) if kind != SLEEP else 0):
            return i
        if kind in (MALLOC, CALLOC, MEMALIGN):
            address = allocate_aligned(heap, t, size, op["argument"]) if kind == MEMALIGN else allocate(heap, t, size)
            if kind == CALLOC:
                touch(heap, address, usable_size(heap, address))
            heap.blocks[number]["address"], heap.blocks[number]["size"], heap.blocks[number]["live"] = address, size, 1
            heap.state[0]["live"] += size
            touch(heap, address, op["written"])
        elif kind == REALLOC:
            old = heap.blocks[number]["size"]
            resize(heap, t, number, size)
            if op["written"] > old:
                touch(heap, heap.blocks[number]["address"] + old, op["written"] - old)
        elif kind == FREE:
            heap.blocks[number]["live"] = 0
            heap.state[0]["live"] -= heap.blocks[number]["size"]
            release_block(heap, t, heap.blocks[number]["address"])
        elif kind == TOUCH:
            touch(heap, heap.blocks[number]["address"] + op["argument"], size)
        elif kind == SLEEP:
            heap.state[0]["now"] = op["time_ns"]
        elif kind == EXIT:
            end_thread(heap, t)
        if len(addresses) > 0 and number >= 0 and kind != FREE:
            addresses[i] = heap.blocks[number]["address"]
            usable[i] = usable_size(heap, heap.blocks[number]["address"])
    return stop


@law
def prepare(heap):
    """A process at the begin of main(): the C++ library's reserve, and two small objects of tcmalloc's own.

    The reserve is taken before thread-specific data works, with a cache that nobody uses later: the last row of the threads.

    Source: src/tcmalloc.cc TCMallocGuard; src/thread_cache.cc CreateCacheIfNecessary; measured with libtcmalloc-minimal4 2.10-1.
    """
    row = heap.state[0]
    row["unclaimed"], row["release_index"] = heap.options[0]["total_cache"], MAX_PAGES
    row["scavenge"] = RELEASE_DELAY + MAX_PAGES  # the heap first grows before the release rate is known, when it counts as 0
    start_central(heap)
    touch(heap, allocate(heap, len(heap.threads) - 1, CPP_RESERVE), 64)
    for size in (8, 16):
        touch(heap, allocate(heap, 0, size), size)
    row["usable"] = 0  # of the program's own blocks
