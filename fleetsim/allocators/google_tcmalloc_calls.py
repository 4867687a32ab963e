# SPDX-License-Identifier: Apache-2.0
"""The calls of malloc's interface as Google's tcmalloc serves them, and a trace of them replayed.

Thread i runs on CPU i modulo the number of CPUs, always. malloc_trim() asks for the release of 0 bytes, as in life: what a trim op
of a trace asks for can be set. A background release, if there is one, looks once a second.
Leaves out: what happens when memory runs out; the sampling profiler (one block in 2 MiB gets pages of its own) and guarded blocks;
the cold and the partitioned heap; all other background actions.
Source: google/tcmalloc at fce3f55, tcmalloc.cc; kernel-laws §15.3.
"""

from __future__ import annotations

from fleetsim.allocators.google_tcmalloc_cpu import cpu_alloc, cpu_free
from fleetsim.allocators.google_tcmalloc_huge import REGION
from fleetsim.allocators.google_tcmalloc_page_heap import delete_pages, new_pages, release_to_system
from fleetsim.allocators.google_tcmalloc_sizes import HUGE_SHIFT, MALLOC_ALIGNMENT, PAGE, PAGE_SHIFT, SIZE_OF, size_class
from fleetsim.allocators.google_tcmalloc_span import drop_span, new_span, touch
from fleetsim.allocators.trace import CALLOC, FREE, MALLOC, MEMALIGN, REALLOC, SLEEP, TOUCH, TRIM
from fleetsim.law import law

SECOND = 1_000_000_000
ROOM_SPANS = 8


@law
def usable_size(heap, address):
    """Bytes that the program may use of the block at `address`.

    Source: tcmalloc.cc GetSize.
    """
    span = heap.spans[heap.owner[address >> PAGE_SHIFT]]
    return SIZE_OF[span["size_class"]] if span["size_class"] > 0 else span["pages"] << PAGE_SHIFT


@law
def allocate(heap, cpu, size, alignment):
    """Memory for `size` bytes at a multiple of `alignment`.

    returns  int64  its address

    Source: tcmalloc.cc fast_alloc, do_malloc_pages.
    """
    row = heap.state[0]
    k = size_class(size, alignment)
    if k > 0:
        row["usable"] += SIZE_OF[k]
        return cpu_alloc(heap, cpu, k)
    pages = max(1, (size + PAGE - 1) >> PAGE_SHIFT)
    page, donated = new_pages(heap, pages, (alignment + PAGE - 1) >> PAGE_SHIFT, 0)
    new_span(heap, page, pages, 0, donated)
    row["usable"] += pages << PAGE_SHIFT
    row["large"] += pages << PAGE_SHIFT
    return page << PAGE_SHIFT


@law
def release_block(heap, cpu, address):
    """The block at `address` is freed by a thread on this CPU.

    Source: tcmalloc.cc do_free, InvokeHooksAndFreePages.
    """
    s = heap.owner[address >> PAGE_SHIFT]
    k = heap.spans[s]["size_class"]
    heap.state[0]["usable"] -= usable_size(heap, address)
    if k > 0:
        cpu_free(heap, cpu, k, address)
    else:
        start, pages, donated = heap.spans[s]["start"], heap.spans[s]["pages"], heap.spans[s]["donated"]
        heap.state[0]["large"] -= pages << PAGE_SHIFT
        drop_span(heap, s)
        delete_pages(heap, start, pages, donated, 0)


@law
def resize(heap, cpu, number, size):
    """realloc: in place only if the new size would get just as many bytes.

    Source: tcmalloc.cc do_realloc.
    """
    block = heap.blocks[number]
    old = usable_size(heap, block["address"])
    heap.state[0]["live"] += size - block["size"]
    block["size"] = size
    k = size_class(size, MALLOC_ALIGNMENT)
    if old != (SIZE_OF[k] if k > 0 else (size + PAGE - 1) >> PAGE_SHIFT << PAGE_SHIFT):
        address = allocate(heap, cpu, size, MALLOC_ALIGNMENT)
        touch(heap, address, min(old, size))
        release_block(heap, cpu, block["address"])
        block["address"] = address


@law
def has_room(heap, size):
    """True if the tables have rows for all that one call of `size` bytes can need.

    Source: from_system, region_add, new_span and build_freelist.
    """
    row = heap.state[0]
    huge = row["end"] + 2 * (REGION + 1) + 2 * (size >> HUGE_SHIFT) + 4 <= len(heap.huge)
    rows = row["spans_end"] + ROOM_SPANS <= len(heap.spans) and row["stacks_end"] + ROOM_SPANS <= len(heap.stacks)
    return huge and rows and row["regions"] < len(heap.regions)


@law
def time_passes(heap, until):
    """It is `until`; the background release has had its seconds.

    Source: background.cc ProcessBackgroundActions.
    """
    row, o = heap.state[0], heap.options[0]
    if o["release_rate"] > 0:
        while row["released_at"] + SECOND <= until:
            row["released_at"] += SECOND
            row["now"] = row["released_at"]
            release_to_system(heap, o["release_rate"])
    row["now"] = until


@law
def replay_ops(heap, ops, addresses, usable, start, stop):
    """Replay ops start..stop−1 of a trace.

    addresses, usable  int64[]  per op what the call returned, or empty arrays
    returns            int64    the op to go on with: `stop`, or the one before which the tables must grow

    Source: the meaning of ops in trace.py.
    """
    for i in range(start, stop):
        op = ops[i]
        number, size, kind = int(op["block"]), op["size"], int(op["op"])
        cpu = int(op["thread"]) % len(heap.cpus)
        if not has_room(heap, size if kind in (MALLOC, CALLOC, MEMALIGN, REALLOC) else 0):
            return i
        if kind in (MALLOC, CALLOC, MEMALIGN):
            address = allocate(heap, cpu, size, op["argument"] if kind == MEMALIGN else MALLOC_ALIGNMENT)
            heap.blocks[number]["address"], heap.blocks[number]["size"], heap.blocks[number]["live"] = address, size, 1
            heap.state[0]["live"] += size
            touch(heap, address, size if kind == CALLOC else op["written"])
        elif kind == REALLOC:
            old = heap.blocks[number]["size"]
            resize(heap, cpu, number, size)
            if op["written"] > old:
                touch(heap, heap.blocks[number]["address"] + old, op["written"] - old)
        elif kind == FREE:
            heap.blocks[number]["live"] = 0
            heap.state[0]["live"] -= heap.blocks[number]["size"]
            release_block(heap, cpu, heap.blocks[number]["address"])
        elif kind == TOUCH:
            touch(heap, heap.blocks[number]["address"] + op["argument"], size)
        elif kind == TRIM:
            release_to_system(heap, heap.options[0]["trim_releases"])
        elif kind == SLEEP:
            time_passes(heap, op["time_ns"])
        if len(addresses) > 0 and number >= 0 and kind != FREE:
            addresses[i] = heap.blocks[number]["address"]
            usable[i] = usable_size(heap, heap.blocks[number]["address"])
    return stop
