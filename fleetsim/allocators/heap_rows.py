# SPDX-License-Identifier: Apache-2.0
"""The rows that say whose a heap is, of any allocator: claiming one for a thread, finding a thread's, forgetting those of the dead.

Source: fleetsim's own table (`tables.py`).
"""

from __future__ import annotations

from fleetsim.allocators.slab_table import drop_classes, open_heap
from fleetsim.allocators.tables import JEMALLOC, NR_HEAPS, NR_PLACES, NR_POPULATIONS, NR_SLAB_HEAPS
from fleetsim.law import law
from fleetsim.linux.brk import new_area
from fleetsim.linux.events import TABLE_FULL, record


@law
def is_stale(row, h):
    """True if the task whose heap it was has died since.

    Source: fleetsim's own table.
    """
    heap = row["heaps"][h]
    return heap["used"] == 0 or row["tasks"][heap["task"]]["exits"] != heap["life"]


@law
def sweep(row):
    """Forget the heaps of tasks that are gone; the kernel has taken their areas back.

    Source: fleetsim's own table.
    """
    for h in range(NR_HEAPS):
        heap = row["heaps"][h]
        if heap["used"] and is_stale(row, h):
            heap["used"] = 0
            if heap["slab"] >= 0:
                drop_classes(row["slab_heaps"][heap["slab"]], row["slab_classes"], 1)
                row["slab_heaps"][heap["slab"]]["used"] = 0
            for k in range(NR_PLACES):
                if row["places"][k]["heap"] == h:
                    row["places"][k]["used"] = 0
            for k in range(NR_POPULATIONS):
                if row["populations"][k]["heap"] == h:
                    row["populations"][k]["used"] = 0


@law
def find_heap(row, th):
    """The heap of a thread, or −1.

    Source: malloc/arena.c arena_get (each thread has its own).
    """
    for h in range(NR_HEAPS):
        heap = row["heaps"][h]
        if heap["used"] and heap["thread"] == th and heap["task"] == row["threads"][th]["task"] and not is_stale(row, h):
            return h
    return -1


@law
def claim_heap(row, th, most):
    """A row for the heap of a thread that is going to need up to `most` pages, and its area.

    returns  int64  heap row, −1: a table is full

    Source: fleetsim's own table.
    """
    sweep(row)
    for h in range(NR_HEAPS):
        heap = row["heaps"][h]
        if heap["used"] == 0:
            t = row["threads"][th]["task"]
            area = new_area(row, t, most)
            if area < 0:
                return -1
            heap["used"] = 1
            heap["task"] = t
            heap["thread"] = th
            heap["life"] = row["tasks"][t]["exits"]
            heap["area"] = area
            heap["maps"] = -1
            heap["pointers"] = -1
            heap["slab"] = -1
            heap["series"] = 0
            heap["blocks"] = 0
            return h
    record(row, TABLE_FULL, row["threads"][th]["task"], most, 0, 0, 0, 0, 0, 0, 0)
    return -1


@law
def new_slab_heap(row, th, most, kind, first, second, background):
    """A heap of jemalloc or tcmalloc for a thread, which is going to need up to `most` pages.

    first, second, background  int64  settings.py Allocator.as_numbers
    returns                    int64  heap row, −1: a table is full

    Source: src/pages.c os_page_map (jemalloc maps without reserve where the host overcommits), src/system-alloc.cc (tcmalloc does not).
    """
    sweep(row)
    for s in range(NR_SLAB_HEAPS):
        if row["slab_heaps"][s]["used"] == 0:
            h = claim_heap(row, th, most)
            if h < 0:
                return -1
            jemalloc = kind == JEMALLOC
            open_heap(row["slab_heaps"][s], kind, first if jemalloc else 0, second, 0 if jemalloc else first, background)
            row["heaps"][h]["slab"] = s
            if jemalloc and row["sysctl"]["overcommit_memory"] != 2:
                row["areas"][row["heaps"][h]["area"]]["accounted"] = 0
            return h
    record(row, TABLE_FULL, row["threads"][th]["task"], most, 0, 0, 0, 0, 0, 0, 0)
    return -1
