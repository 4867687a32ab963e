# SPDX-License-Identifier: Apache-2.0
"""Thread caches of tcmalloc: lists of free objects by class, as long as a thread's use of them has shown to pay.

A list may grow by one object with each refill until it holds a batch, then by a batch (slow start). What overflows goes back a
batch at a time; when a thread holds more bytes than its limit, each list loses half of what it did not need, and the limit
grows by 64 KiB, taken from what nobody has claimed of the total or from another thread.
Source: src/thread_cache.cc, thread_cache.h of gperftools 2.10; kernel-laws §15.3.
"""

from __future__ import annotations

from fleetsim.allocators.tcmalloc_central import insert_range, remove_range
from fleetsim.allocators.tcmalloc_sizes import CLASSES, MAX_SIZE, MOVED, SIZE_OF
from fleetsim.law import law

STEAL = 1 << 16
LEAST_CACHE = 2 * MAX_SIZE
LENGTH_MAX = 8192
OVERAGES_MAX = 3


@law
def raise_limit(heap, t):
    """Thread `t` may hold 64 KiB more, if anybody has it to give.

    Source: src/thread_cache.cc IncreaseCacheLimitLocked.
    """
    row, thread = heap.state[0], heap.threads[t]
    if row["unclaimed"] > 0:
        row["unclaimed"] -= STEAL
        thread["limit"] += STEAL
        return
    for _ in range(10):
        if row["steal"] < 0:
            row["steal"] = row["first_thread"]
        other = row["steal"]
        row["steal"] = heap.threads[other]["next"]
        if other != t and heap.threads[other]["limit"] > LEAST_CACHE:
            heap.threads[other]["limit"] -= STEAL
            thread["limit"] += STEAL
            return


@law
def start_thread(heap, t):
    """Thread `t` gets a cache.

    Source: src/thread_cache.cc NewHeap, Init.
    """
    row, thread = heap.state[0], heap.threads[t]
    thread["used"], thread["size"], thread["limit"] = 1, 0, 0
    for k in range(CLASSES):
        thread["head"][k], thread["length"][k], thread["low_water"][k], thread["most"][k], thread["overages"][k] = 0, 0, 0, 1, 0
    raise_limit(heap, t)
    if thread["limit"] == 0:
        thread["limit"] = LEAST_CACHE
        row["unclaimed"] -= LEAST_CACHE
    thread["next"] = row["first_thread"]
    if row["first_thread"] < 0:
        row["steal"] = t
    row["first_thread"] = t


@law
def pop_range(heap, t, k, count):
    """Take the newest `count` objects of a thread's list.

    returns  int64  the first of them; the last ends their list

    Source: src/thread_cache.h FreeList::PopRange.
    """
    thread = heap.threads[t]
    first = thread["head"][k]
    if count == 0:
        return 0
    last = first
    for _ in range(count - 1):
        last = heap.links[last]
    thread["head"][k] = heap.links[last]
    heap.links[last] = 0
    thread["length"][k] -= count
    thread["low_water"][k] = min(thread["low_water"][k], thread["length"][k])
    return first


@law
def give_back(heap, t, k, count):
    """The newest `count` objects of class `k` go to the central list, in batches.

    Source: src/thread_cache.cc ReleaseToCentralCache.
    """
    thread = heap.threads[t]
    count = min(count, thread["length"][k])
    thread["size"] -= count * SIZE_OF[k]
    while count > MOVED[k]:
        insert_range(heap, k, pop_range(heap, t, k, MOVED[k]), MOVED[k])
        count -= MOVED[k]
    insert_range(heap, k, pop_range(heap, t, k, count), count)


@law
def scavenge(heap, t):
    """Each list loses half of what it did not need since the last time; the thread's limit grows.

    Source: src/thread_cache.cc Scavenge.
    """
    thread = heap.threads[t]
    for k in range(CLASSES):
        low = thread["low_water"][k]
        if low > 0:
            give_back(heap, t, k, max(1, low // 2))
            if thread["most"][k] > MOVED[k]:
                thread["most"][k] = max(thread["most"][k] - MOVED[k], MOVED[k])
        thread["low_water"][k] = thread["length"][k]
    raise_limit(heap, t)


@law
def cache_alloc(heap, t, k):
    """An object of class `k` for thread `t`.

    returns  int64  its number

    Source: src/thread_cache.h Allocate; src/thread_cache.cc FetchFromCentralCache.
    """
    thread = heap.threads[t]
    o = thread["head"][k]
    if o != 0:
        thread["head"][k] = heap.links[o]
        thread["length"][k] -= 1
        thread["low_water"][k] = min(thread["low_water"][k], thread["length"][k])
        thread["size"] -= SIZE_OF[k]
        return o
    batch = MOVED[k]
    got, first = remove_range(heap, k, min(thread["most"][k], batch))
    thread["head"][k] = heap.links[first]
    thread["length"][k] += got - 1
    thread["size"] += SIZE_OF[k] * (got - 1)
    if thread["most"][k] < batch:
        thread["most"][k] += 1
    else:
        longer = min(thread["most"][k] + batch, LENGTH_MAX)
        thread["most"][k] = longer - longer % batch
    return first


@law
def cache_free(heap, t, k, o):
    """Thread `t` frees object `o` of class `k`; a thread without a cache gives it to the central list at once.

    Source: src/thread_cache.h Deallocate; src/thread_cache.cc ListTooLong; src/tcmalloc.cc do_free_with_callback.
    """
    thread = heap.threads[t]
    if thread["used"] == 0:
        heap.links[o] = 0
        insert_range(heap, k, o, 1)
        return
    heap.links[o] = thread["head"][k]
    thread["head"][k] = o
    thread["length"][k] += 1
    thread["size"] += SIZE_OF[k]
    if thread["length"][k] > thread["most"][k]:
        batch = MOVED[k]
        give_back(heap, t, k, batch)
        if thread["most"][k] < batch:
            thread["most"][k] += 1
        elif thread["most"][k] > batch:
            thread["overages"][k] += 1
            if thread["overages"][k] > OVERAGES_MAX:
                thread["most"][k] -= batch
                thread["overages"][k] = 0
    if thread["size"] > thread["limit"]:
        scavenge(heap, t)


@law
def end_thread(heap, t):
    """Thread `t` ends: all it cached goes to the central lists.

    Source: src/thread_cache.cc DeleteCache, Cleanup.
    """
    row, thread = heap.state[0], heap.threads[t]
    if thread["used"] == 0:
        return
    for k in range(CLASSES):
        if thread["length"][k] > 0:
            give_back(heap, t, k, thread["length"][k])
    if row["first_thread"] == t:
        row["first_thread"] = thread["next"]
    else:
        before = row["first_thread"]
        while heap.threads[before]["next"] != t:
            before = heap.threads[before]["next"]
        heap.threads[before]["next"] = thread["next"]
    if row["steal"] == t:
        row["steal"] = thread["next"]
    if row["steal"] < 0:
        row["steal"] = row["first_thread"]
    row["unclaimed"] += thread["limit"]
    thread["used"] = 0
