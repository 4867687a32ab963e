# SPDX-License-Identifier: Apache-2.0
"""Heaps of the cheap model of jemalloc and tcmalloc: their rows, and the chain of size classes that each has in use.

Limits: all heaps of a host share the rows of classes; a class has one only while it has slabs.
Source: the size classes are those of jemalloc_sizes.py and tcmalloc_sizes.py; the rest is fleetsim's own representation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fleetsim.allocators import jemalloc_sizes, tcmalloc_sizes
from fleetsim.allocators.tables import JEMALLOC, NR_POOL_COHORTS, SLAB_CLASS, SLAB_HEAP
from fleetsim.law import law

PAGE = 4096


def _classes(sizes: npt.NDArray[np.int64], pages: npt.NDArray[np.int64], regions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    table = np.stack([sizes, pages, regions], 1)
    table.setflags(write=False)
    return table


JEMALLOC_CLASSES = _classes(jemalloc_sizes.SIZE_OF[: jemalloc_sizes.SMALL_CLASSES], jemalloc_sizes.SLAB_PAGES, jemalloc_sizes.REGIONS)
TCMALLOC_CLASSES = _classes(
    tcmalloc_sizes.SIZE_OF[1:], 2 * tcmalloc_sizes.SPAN_PAGES[1:], 2 * tcmalloc_sizes.SPAN_PAGES[1:] * PAGE // tcmalloc_sizes.SIZE_OF[1:]
)
"""[class, (bytes, pages of 4 KiB per slab, regions)]."""


def new_heap(
    kind: int, *, decay_ms: int = 10_000, threshold: int = 8 << 20, release_rate: float = 1.0
) -> tuple[np.void, npt.NDArray[np.void]]:
    """An empty heap on no host, and its table of classes."""
    heap = np.zeros(1, SLAB_HEAP)[0]
    open_heap(heap, kind, decay_ms, threshold, round(release_rate * 1024), 0)
    return heap, np.zeros(len(TCMALLOC_CLASSES) + 1, SLAB_CLASS)


@law
def open_heap(heap, kind, decay_ms, threshold, rate_q, background):
    """A row becomes an empty heap.

    decay_ms    int64  jemalloc's dirty_decay_ms, −1: never
    threshold   int64  bytes, jemalloc's oversize_threshold
    rate_q      int64  tcmalloc's release rate, 1024ths
    background  int64  1: jemalloc has its background thread

    Source: fleetsim's own table.
    """
    heap["used"] = 1
    heap["kind"] = kind
    heap["background"] = background
    heap["head"] = -1
    heap["mappings"] = 0
    heap["decay_ms"] = decay_ms
    heap["threshold"] = threshold
    heap["rate_q"] = rate_q
    heap["large_live"] = 0
    heap["large_pages"] = 0
    for c in range(NR_POOL_COHORTS):
        heap["pool"][c], heap["first"][c], heap["since"][c] = 0, 0, 0
    heap["freed"] = 0
    heap["returned"] = 0
    heap["asked"] = 0
    heap["blocks"] = 0
    heap["live"] = 0
    heap["dead_low"] = 0
    heap["dead_high"] = 0
    heap["pages"] = 0
    heap["stir"] = 0


@law
def classes_of(heap):
    """The size classes of the heap's allocator.

    Source: src/sc.c (jemalloc), src/common.cc SizeMap::Init (tcmalloc).
    """
    return JEMALLOC_CLASSES if heap["kind"] == JEMALLOC else TCMALLOC_CLASSES


@law
def class_row(heap, table, k):
    """The row of class `k`, a new one if the heap has none yet; −1: the table is full.

    Source: fleetsim's own table.
    """
    i = heap["head"]
    while i >= 0:
        if table[i]["k"] == k:
            return i
        i = table[i]["next"]
    for i in range(len(table)):
        c = table[i]
        if c["used"] == 0:
            c["used"] = 1
            c["k"] = k
            c["next"] = heap["head"]
            c["live"] = 0
            c["slabs"] = 0
            c["holey"] = 0
            c["spare"] = 0
            heap["head"] = i
            return i
    return -1


@law
def drop_classes(heap, table, every):
    """Rows of classes without a slab go back to the table, or (every = 1, the heap is nobody's any more) all of them.

    Source: fleetsim's own table.
    """
    i, last = heap["head"], -1
    while i >= 0:
        after = table[i]["next"]
        if every or table[i]["slabs"] == 0:
            table[i]["used"] = 0
            if last < 0:
                heap["head"] = after
            else:
                table[last]["next"] = after
        else:
            last = i
        i = after
