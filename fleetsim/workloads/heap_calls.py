# SPDX-License-Identifier: Apache-2.0
"""malloc() for workloads: one set of calls, whichever allocator a thread has. The ops of `script_malloc.py` are made of them.

    h = heap_of(row, th)                                    −1: the thread has not called malloc yet
    h = heap_open(row, th, JEMALLOC, 10_000, 8 << 20, 1, most, 0)   or GLIBC, TCMALLOC; what the settings are says settings.py
    got = heap_malloc(row, h, blocks, least, most)          blocks of uniform sizes, each written once; fewer than asked: ENOMEM
    heap_free_random(row, h, share)                         a share, 30-bit fixed point, of the live blocks
    heap_trim(row, h)                                       malloc_trim(0), arena.<i>.purge, ReleaseFreeMemory
    while not heap_settle(row, th, h): come back            after each of them: only now the kernel's pages follow
    wake = heap_rest(row, th, wake)                         before sleeping: a background thread works meanwhile
    live, allocated, resident = heap_stats(row, h)          bytes

Rules: a host's heaps, places, populations and classes are tables of fixed size (tables.py); who opens a heap of glibc without the op
language counts it in row["heaps_due"] at boot, so that others leave a place for it.
Source: the allocators' own, see glibc.py, slab_model.py, slab_heap.py.
"""

from __future__ import annotations

from fleetsim.allocators.glibc import malloc_blocks
from fleetsim.allocators.glibc_free import free_blocks
from fleetsim.allocators.glibc_heap import new_heap
from fleetsim.allocators.glibc_laws import PAGE
from fleetsim.allocators.glibc_trim import malloc_trim, settle
from fleetsim.allocators.heap_rows import find_heap, new_slab_heap
from fleetsim.allocators.slab_heap import next_look, slab_free_random, slab_free_range, slab_look, slab_malloc, slab_settle
from fleetsim.allocators.slab_laws import ONE
from fleetsim.allocators.slab_model import allocated_bytes, purge
from fleetsim.allocators.tables import GLIBC, NR_PLACES, NR_POPULATIONS
from fleetsim.law import law


@law
def heap_of(row, th):
    """The heap of thread `th`, −1: it has none yet.

    Source: malloc/arena.c arena_get.
    """
    return find_heap(row, th)


@law
def heap_open(row, th, kind, first, second, background, most, mapped):
    """A heap for thread `th`.

    kind           int64  GLIBC, JEMALLOC or TCMALLOC
    first, second  int64  its settings as settings.py Allocator.as_numbers has them
    background     int64  1: jemalloc's background thread runs
    most           int64  pages that it is going to need at most; more share its last cohorts
    mapped         int64  of glibc: pages that chunks above the mmap threshold are going to need at most
    returns        int64  heap row, −1: a table is full

    Source: malloc/malloc.c ptmalloc_init, do_set_mmap_threshold, do_set_trim_threshold; slab_table.py.
    """
    if kind != GLIBC:
        return new_slab_heap(row, th, most, kind, first, second, background)
    h = new_heap(row, th, most)
    if h >= 0:
        heap = row["heaps"][h]
        if first >= 0:
            heap["mmap_threshold"] = first
        if second >= 0:
            heap["trim_threshold"] = second
        heap["maps_most"] = mapped
        heap["fixed"] = 1 if first >= 0 or second >= 0 else 0
    return h


@law
def heap_malloc(row, h, blocks, least, most):
    """`blocks` calls of malloc() for sizes uniform in least..most bytes, each block written once.

    returns  int64  calls that got memory; fewer: ENOMEM

    Source: malloc/malloc.c, src/jemalloc.c, src/tcmalloc.cc by way of their models.
    """
    if row["heaps"][h]["slab"] >= 0:
        slab_look(row, h)
        return slab_malloc(row, h, blocks, least, most)
    return malloc_blocks(row, h, blocks, least, most, row["heaps"][h]["maps_most"])


@law
def heap_free_range(row, h, low, high):
    """free() of the blocks with numbers low..high−1, in their order, as far as they live.

    returns  int64  blocks freed

    Source: the recordings' driver.
    """
    if row["heaps"][h]["slab"] >= 0:
        slab_look(row, h)
        return slab_free_range(row, h, low, high)
    return free_blocks(row, h, low, high, 0, 0)


@law
def heap_free_random(row, h, share):
    """free() of a share of the live blocks, any of them.

    share    int64  30-bit fixed point
    returns  int64  blocks freed

    Source: the recordings' driver.
    """
    if row["heaps"][h]["slab"] >= 0:
        slab_look(row, h)
        return slab_free_random(row, h, share)
    if share * 1024 < ONE:
        return 0
    return free_blocks(row, h, 0, row["heaps"][h]["blocks"], 0, share * 1024 // ONE)


@law
def heap_free_all_but(row, h, every):
    """free() of all blocks but those with numbers divisible by `every`.

    returns  int64  blocks freed

    Source: the recordings' driver. Leaves out: of jemalloc and tcmalloc they die at random, as blocks of many sizes do.
    """
    if row["heaps"][h]["slab"] >= 0:
        return heap_free_random(row, h, ONE - ONE // every)
    return free_blocks(row, h, 0, row["heaps"][h]["blocks"], every, 0)


@law
def heap_trim(row, h):
    """What the program can do itself: malloc_trim(0), mallctl arena.<i>.purge, MallocExtension::ReleaseFreeMemory.

    Source: malloc/malloc.c mtrim; src/pac.c pac_decay_all; src/page_heap.cc ReleaseAtLeastNPages.
    """
    slab = row["heaps"][h]["slab"]
    if slab >= 0:
        purge(row["slab_heaps"][slab])
    else:
        malloc_trim(row, h)


@law
def heap_settle(row, th, h):
    """Let the kernel's pages follow what the last calls changed.

    returns  bool  False: not all is done, come back

    Source: mm/memory.c, mm/madvise.c, mm/mmap.c by way of linux/brk.py.
    """
    if row["heaps"][h]["slab"] >= 0:
        return slab_settle(row, th, h)
    return settle(row, th, h)


@law
def heap_rest(row, th, wake):
    """Thread `th` sleeps until `wake`: jemalloc's background thread, if it runs, purges meanwhile.

    returns  int64  ns: when to look again, `wake` at the latest

    Source: src/background_thread.c.
    """
    h = find_heap(row, th)
    if h < 0 or row["heaps"][h]["slab"] < 0:
        return wake
    if row["slab_heaps"][row["heaps"][h]["slab"]]["background"]:
        slab_look(row, h)
        if not slab_settle(row, th, h):
            return min(wake, row["now_ns"] + row["spent_ns"] + row["wait_ns"])
    return min(wake, next_look(row, h))


@law
def heap_stats(row, h):
    """What the allocator itself can tell of heap `h`.

    returns  (int64 live, int64 allocated, int64 resident)  bytes asked for by the program; of chunks, regions and large blocks that
             hold them; that the allocator believes resident (what the kernel has swapped out of it included)

    Source: malloc/malloc.c mallinfo2 (uordblks + hblkhd); stats.allocated and stats.resident of jemalloc;
    generic.current_allocated_bytes of tcmalloc (what mallinfo2 and tcmalloc do not know is counted here all the same).
    """
    heap = row["heaps"][h]
    if heap["slab"] >= 0:
        slab = row["slab_heaps"][heap["slab"]]
        return slab["asked"], allocated_bytes(slab, row["slab_classes"]), int(slab["pages"]) * PAGE
    live, allocated, pages = 0, 0, int(heap["top_pages"]) + heap["rest_pages"]
    for k in range(NR_PLACES):
        place = row["places"][k]
        if place["used"] and place["heap"] == h:
            allocated += place["live"]
            pages += place["pages"]
    for p in range(NR_POPULATIONS):
        population = row["populations"][p]
        if population["used"] and population["heap"] == h:
            live += population["alive"] * (population["least"] + population["most"]) // 2
    return live, allocated, pages * PAGE
