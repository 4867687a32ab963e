# SPDX-License-Identifier: Apache-2.0
"""Thread caches of jemalloc: blocks of up to 32 KiB that a thread freed lie ready for it, last in, first out.

An empty bin is filled with half its slots from slabs (large classes: one block at a time); a full one gives half back. Every
64 KiB of allocation, and of freeing, one bin in turn loses three quarters of what it did not need since its last turn.
Leaves out: caches made by hand, junk filling, sampling of the profiler.
Source: src/tcache.c, include/jemalloc/internal/cache_bin.h, src/thread_event.c of jemalloc 5.3.0; kernel-laws §15.2.
"""

from __future__ import annotations

from fleetsim.allocators.jemalloc_arena import alloc_large, alloc_small, free_extent, free_large, free_small, start_arena
from fleetsim.allocators.jemalloc_decay import TICKS, decay_arena, purge_to, tick
from fleetsim.allocators.jemalloc_extents import alloc_extent
from fleetsim.allocators.jemalloc_sizes import LARGE_PAD, PAGE, SIZE_OF, SLOT_START, SLOTS, SMALL_CLASSES, size_class
from fleetsim.allocators.jemalloc_tables import DIRTY, MUZZY
from fleetsim.law import law

COLLECT_BYTES = 65_536  # opt.tcache_gc_incr_bytes


@law
def flush_bin(heap, t, k, keep):
    """All but the newest `keep` blocks of bin `k` go back to their arenas; slabs that got empty are freed at the end.

    Source: src/tcache.c tcache_bin_flush_impl, tcache_bin_flush_bottom.
    """
    thread, stack = heap.threads[t], heap.stacks[t]
    start, count = SLOT_START[k], thread["cached"][k] - keep
    left, first_empty, last_empty = count, -1, -1
    while left > 0:
        a, done = -1, 0
        for i in range(count - 1, -1, -1):  # from the newest of them to the oldest
            address = stack[start + i]
            if address < 0:
                continue
            e = heap.owner[address // PAGE]
            if a < 0:
                a = heap.extents[e]["arena"]
            if heap.extents[e]["arena"] != a:
                continue
            stack[start + i] = -1
            done += 1
            if k >= SMALL_CLASSES:
                free_large(heap, e, k)
            elif free_small(heap, e, address):
                heap.extents[e]["newer"] = -1
                if last_empty >= 0:
                    heap.extents[last_empty]["newer"] = e
                else:
                    first_empty = e
                last_empty = e
        tick(heap, t, a, done)
        left -= done
    while first_empty >= 0:
        e, first_empty = first_empty, heap.extents[first_empty]["newer"]
        free_extent(heap, heap.extents[e]["arena"], e)
    for i in range(keep):
        stack[start + i] = stack[start + count + i]
    thread["cached"][k] = keep
    thread["low_water"][k] = min(thread["low_water"][k], keep)


@law
def collect(heap, t):
    """The bin whose turn it is loses three quarters of what lay unused since its last turn; the amount it is filled with adapts.

    Source: src/tcache.c tcache_event, tcache_gc_small, tcache_gc_large.
    """
    thread = heap.threads[t]
    k = thread["collect"]
    low = thread["low_water"][k]
    if low > 0:
        flush_bin(heap, t, k, thread["cached"][k] - (low - (low >> 2)))
        if k < SMALL_CLASSES and SLOTS[k] >> (thread["fill_shift"][k] + 1) >= 1:
            thread["fill_shift"][k] += 1
    elif k < SMALL_CLASSES and thread["refilled"][k]:
        if thread["fill_shift"][k] > 1:
            thread["fill_shift"][k] -= 1
        thread["refilled"][k] = 0
    thread["low_water"][k] = thread["cached"][k]
    thread["collect"] = (k + 1) % heap.options[0]["tcache_classes"]


@law
def count_malloc(heap, t, size):
    """`size` bytes more were allocated: after 64 KiB a bin is looked at.

    Source: src/thread_event.c te_event_trigger.
    """
    thread = heap.threads[t]
    thread["malloc_bytes"] += size
    if thread["malloc_bytes"] >= COLLECT_BYTES:
        thread["malloc_bytes"] = 0
        if heap.options[0]["tcache"]:
            collect(heap, t)


@law
def count_free(heap, t, size):
    """`size` bytes more were freed: after 64 KiB a bin is looked at.

    Source: src/thread_event.c te_event_trigger.
    """
    thread = heap.threads[t]
    thread["free_bytes"] += size
    if thread["free_bytes"] >= COLLECT_BYTES:
        thread["free_bytes"] = 0
        if heap.options[0]["tcache"]:
            collect(heap, t)


@law
def touch(heap, address, size):
    """The program (or the allocator) writes `size` bytes at `address`: pages not there yet are populated.

    Source: mm/memory.c do_anonymous_page.
    """
    if size > 0:
        new = 0
        for page in range(address // PAGE, (address + size - 1) // PAGE + 1):
            new += 1 - heap.touched[page]
            heap.touched[page] = 1
        heap.state[0]["touched"] += new


@law
def choose_arena(heap):
    """The arena of a new thread: one without threads, else one not begun yet, else that with the fewest.

    Source: src/jemalloc.c arena_choose_hard.
    """
    fewest, fresh = 0, -1
    for a in range(1, heap.options[0]["narenas"]):
        if heap.arenas[a]["used"]:
            if heap.arenas[a]["threads"] < heap.arenas[fewest]["threads"]:
                fewest = a
        elif fresh < 0:
            fresh = a
    if fresh >= 0 and heap.arenas[fewest]["threads"] > 0:
        start_arena(heap, fresh)
        return fresh
    return fewest


@law
def start_thread(heap, t):
    """Thread `t` calls malloc for the first time: it gets an arena, and stacks for its cache from the first arena.

    Source: src/tcache.c tsd_tcache_data_init; src/jemalloc.c arena_choose_hard.
    """
    thread, options = heap.threads[t], heap.options[0]
    if heap.arenas[0]["used"] == 0:
        start_arena(heap, 0)
    thread["used"] = 1
    thread["arena"] = choose_arena(heap)
    heap.arenas[thread["arena"]]["threads"] += 1
    thread["malloc_bytes"], thread["free_bytes"], thread["collect"] = 0, 0, 0
    for k in range(options["tcache_classes"]):
        thread["cached"][k], thread["low_water"][k], thread["fill_shift"][k], thread["refilled"][k] = 0, 0, 1, 0
    if options["tcache"]:
        k = size_class(8 * SLOT_START[options["tcache_classes"]] + 16)
        e = alloc_extent(heap, 0, (SIZE_OF[k] + LARGE_PAD) // PAGE, 1)
        touch(heap, heap.extents[e]["page"] * PAGE, SIZE_OF[k])
        heap.arenas[0]["internal"] += SIZE_OF[k]
        heap.state[0]["allocated"] += SIZE_OF[k]
        thread["stack_extent"] = e


@law
def decay_all(heap, a):
    """Purge all that is free in arena `a`.

    Source: src/arena.c arena_decay (all).
    """
    purge_to(heap, a, DIRTY, 0, True)
    purge_to(heap, a, MUZZY, 0, True)


@law
def end_thread(heap, t):
    """Thread `t` ends: its cache goes back; an arena that nobody uses any more is purged.

    Source: src/tcache.c tcache_cleanup, tcache_destroy.
    """
    thread, options = heap.threads[t], heap.options[0]
    if thread["used"] == 0:
        return
    a = thread["arena"]
    heap.arenas[a]["threads"] -= 1
    if options["tcache"]:
        for k in range(options["tcache_classes"]):
            flush_bin(heap, t, k, 0)
        k = size_class(8 * SLOT_START[options["tcache_classes"]] + 16)
        heap.arenas[0]["internal"] -= SIZE_OF[k]
        free_large(heap, thread["stack_extent"], k)
        decay_arena(heap, 0, False)
        if heap.arenas[a]["threads"] == 0 and options["background_thread"] == 0:
            decay_all(heap, a)
        else:
            decay_arena(heap, a, False)
    thread["used"] = 0
    new_thread(heap, t)


@law
def new_thread(heap, t):
    """A thread that has not called malloc yet.

    Source: include/jemalloc/internal/tsd.h TSD_DATA_SLOWEST_INITIALIZER.
    """
    thread = heap.threads[t]
    thread["ticks"], thread["luck"] = TICKS, 104_729 * (t + 1)


@law
def cached_or_new(heap, t, k, size, alignment):
    """A block of size class `k` for thread `t`.

    size       int64  bytes by which it is judged oversize
    alignment  int64  bytes, 0: not asked for; a large block for which it is never comes from the cache
    returns    int64  its address

    Source: include/jemalloc/internal/tcache_inlines.h tcache_alloc_small, tcache_alloc_large.
    """
    thread, options = heap.threads[t], heap.options[0]
    a = thread["arena"]
    if options["tcache"] == 0 or k >= options["tcache_classes"] or (alignment > 0 and k >= SMALL_CLASSES):
        if k >= SMALL_CLASSES:
            return alloc_large(heap, t, a, k, size, alignment)
        address = alloc_small(heap, a, k)
        tick(heap, t, a, 1)
        return address
    stack, start = heap.stacks[t], SLOT_START[k]
    if thread["cached"][k] == 0:
        if k >= SMALL_CLASSES:
            return alloc_large(heap, t, a, k, 0, 0)
        fill = SLOTS[k] >> thread["fill_shift"][k]
        for i in range(fill):
            stack[start + fill - 1 - i] = alloc_small(heap, a, k)
        thread["cached"][k] = fill
        tick(heap, t, a, 1)
        thread["refilled"][k] = 1
    thread["cached"][k] -= 1
    thread["low_water"][k] = min(thread["low_water"][k], thread["cached"][k])
    return stack[start + thread["cached"][k]]


@law
def put_back(heap, t, k, address):
    """A block of size class `k` at `address` is freed by thread `t`; one that never called malloc has no cache yet.

    Source: include/jemalloc/internal/tcache_inlines.h tcache_dalloc_small, tcache_dalloc_large; src/tsd.c tsd_fetch_min.
    """
    thread, options = heap.threads[t], heap.options[0]
    if options["tcache"] == 0 or k >= options["tcache_classes"] or thread["used"] == 0:
        e = heap.owner[address // PAGE]
        a = heap.extents[e]["arena"]
        if k >= SMALL_CLASSES:
            free_large(heap, e, k)
        elif free_small(heap, e, address):
            free_extent(heap, a, e)
        tick(heap, t, a, 1)
        return
    if thread["cached"][k] == SLOTS[k]:
        flush_bin(heap, t, k, SLOTS[k] >> 1)
    heap.stacks[t, SLOT_START[k] + thread["cached"][k]] = address
    thread["cached"][k] += 1
