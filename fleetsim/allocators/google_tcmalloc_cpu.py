# SPDX-License-Identifier: Apache-2.0
"""Per-CPU caches of Google's tcmalloc: a stack of free objects of each class for each CPU, whatever thread runs there.

All lists of a CPU share a budget of bytes (1.5 MiB as it comes). A list begins without room and gets some at each miss: up to two
batches object by object, beyond only when an underflow follows an overflow. On a miss about half a list is fetched or
given back, at first one batch, with misses of the same kind in a row twice as many each time.
Leaves out: what background actions would do (stealing between classes and CPUs, wider slabs, draining of idle CPUs): a program
has to ask for them. Nothing here ever moves to another CPU in the middle, and there is no lock to wait for.
Source: google/tcmalloc at fce3f55, cpu_cache.h, internal/percpu_tcmalloc.h, percpu_rseq_x86_64.S; kernel-laws §15.3.
"""

from __future__ import annotations

from fleetsim.allocators.google_tcmalloc_central import transfer_insert, transfer_remove
from fleetsim.allocators.google_tcmalloc_sizes import CPU_SLOTS, MOVED, SIZE_OF
from fleetsim.allocators.google_tcmalloc_tables import BATCH_MAX
from fleetsim.law import law


@law
def grow_list(heap, c, k, wanted):
    """List `k` of CPU `c` gets room for up to `wanted` more objects, if the CPU's budget has it.

    Source: cpu_cache.h Grow; internal/percpu_tcmalloc.h Grow.
    """
    cpu = heap.cpus[c]
    if cpu["available"] < SIZE_OF[k]:
        return
    room = min(wanted, cpu["available"] // SIZE_OF[k])
    room = min(room, CPU_SLOTS[k] - cpu["capacity"][k])
    cpu["capacity"][k] += room
    cpu["available"] -= room * SIZE_OF[k]


@law
def update_capacity(heap, c, k, overflow):
    """A miss on list `k` of CPU `c`.

    overflow  bool   the list was full, else it was empty
    returns   int64  objects to give back or to fetch

    Source: cpu_cache.h UpdateCapacity, PerClassResizeInfo::Update, TargetOverflowRefillCount.
    """
    cpu, batch = heap.cpus[c], MOVED[k]
    capacity, before = cpu["capacity"][k], cpu["overflowed"][k]
    by_batch = (not overflow) and before == 1
    cpu["successive"][k] = cpu["successive"][k] + 1 if overflow == (before == 1) else 0
    cpu["overflowed"][k] = 1 if overflow else 0
    if (capacity < 2 * batch or by_batch) and capacity != CPU_SLOTS[k]:
        more = 1
        if by_batch:
            more = min(batch, CPU_SLOTS[k] - capacity)
        elif not overflow and capacity < batch:
            more = batch - capacity
        grow_list(heap, c, k, more)
        capacity = cpu["capacity"][k]
    successive = cpu["successive"][k]
    if capacity == 1 and successive < 3:
        return 1
    return min((capacity + 1) // 2 + 1, batch << min(successive, 10))


@law
def cpu_alloc(heap, c, k):
    """An object of class `k` for a thread on CPU `c`.

    returns  int64  its address

    Source: cpu_cache.h Allocate, Refill; percpu_rseq_x86_64.S PushBatch.
    """
    cpu = heap.cpus[c]
    if cpu["length"][k] > 0:
        cpu["length"][k] -= 1
        return heap.slabs[c, k, cpu["length"][k]]
    cpu["underflows"] += 1
    batch = heap.batch
    got = transfer_remove(heap, k, batch, min(BATCH_MAX, update_capacity(heap, c, k, False)))
    result, rest = batch[got - 1], got - 1
    while rest > 0 and cpu["length"][k] < cpu["capacity"][k]:
        rest -= 1
        heap.slabs[c, k, cpu["length"][k]] = batch[rest]
        cpu["length"][k] += 1
    if rest > 0:
        transfer_insert(heap, k, batch, rest)
    return result


@law
def cpu_free(heap, c, k, address):
    """A thread on CPU `c` frees the object of class `k` at `address`.

    Source: cpu_cache.h Deallocate, DeallocateSlowNoHooks; percpu_rseq_x86_64.S PopBatch.
    """
    cpu = heap.cpus[c]
    if cpu["length"][k] < cpu["capacity"][k]:
        heap.slabs[c, k, cpu["length"][k]] = address
        cpu["length"][k] += 1
        return
    cpu["overflows"] += 1
    batch, count = heap.batch, 1
    target = min(BATCH_MAX, update_capacity(heap, c, k, True))
    batch[0] = address
    while count < target and cpu["length"][k] > 0:
        cpu["length"][k] -= 1
        batch[count] = heap.slabs[c, k, cpu["length"][k]]
        count += 1
    transfer_insert(heap, k, batch, count)
