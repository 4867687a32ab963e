# SPDX-License-Identifier: Apache-2.0
"""Size classes of Google's tcmalloc with pages of 8 KiB, and how long the lists of each class may get.

Up to 256 KiB a request gets an object of a class, above it whole pages. The classes are a tuned table, not a rule: their sizes and
the pages of a span are what a build of it tells of itself; all other numbers follow by rule.
Limits: the default build (default alignment of new 16 bytes, no NUMA, no heap partitions, no cold classes).
Source: google/tcmalloc at fce3f55, reuse_relaxed_below_64_size_classes.cc, sizemap.h, transfer_cache_internals.h CapacityNeeded,
cpu_cache.h MaxCapacity and GetShiftMaxCapacity; kernel-laws §15.3.
"""

from __future__ import annotations

import numpy as np

from fleetsim.law import law

PAGE_SHIFT = 13
PAGE = 1 << PAGE_SHIFT
HUGE_SHIFT = 21
HUGE_PAGES = 1 << (HUGE_SHIFT - PAGE_SHIFT)  # pages of a huge page
MAX_SIZE = 256 << 10
MALLOC_ALIGNMENT = 16

_SMALL = (8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 176, 208, 256, 304, 368, 448, 512, 576, 704, 896, 1024)  # a span is one page
_SPANS = ((1152, 2), (1408, 2), (1792, 2), (2048, 1), (2304, 2), (2688, 2), (3456, 3), (4096, 1), (4736, 3), (6144, 3), (8192, 1)) + (
    (9472, 5), (12_288, 3), (16_384, 2), (20_480, 5), (28_672, 7), (32_768, 4), (40_960, 5), (49_152, 6), (65_536, 8), (73_728, 9)
) + ((81_920, 10), (98_304, 12), (131_072, 16), (155_648, 19), (204_800, 25), (262_144, 32))  # fmt: skip
_CLASSES = ((0, 0), *((size, 1) for size in _SMALL), *_SPANS)

CLASSES = len(_CLASSES)
SIZE_OF = np.array([size for size, _ in _CLASSES], np.int64)
SPAN_PAGES = np.array([pages for _, pages in _CLASSES], np.int64)
OBJECTS = np.array([0, *(pages * PAGE // size for size, pages in _CLASSES[1:])], np.int64)  # of a span
MOVED = np.array([0, *(min(32, max(2, (64 << 10) // size)) for size, _ in _CLASSES[1:])], np.int64)  # between caches at a time

DENSE_OBJECTS = 16  # spans with more objects live long: they have huge pages of their own
BITMAP_SIZE = 192  # a span with objects of at least a page / 192 knows the free ones by a bit each, a smaller one by a list

SMALL_CLASSES = 10
DEPTHS = (4000, 492)  # slots of a class in the widest slab: of the ten smallest, of the others
SLAB_HALVINGS, SLAB_LOSS = 4, 3  # a new slab is 32 KiB instead of 512, and a class pays for its header


def _slots(k: int) -> int:
    """Most objects that a per-CPU cache may hold of class `k`, with slabs of the first size."""
    return (DEPTHS[0 if k <= SMALL_CLASSES else 1] >> SLAB_HALVINGS) - SLAB_LOSS


CPU_SLOTS = np.array([0, *(_slots(k) for k in range(1, CLASSES))], np.int64)
TRANSFER_SLOTS = np.array(
    [0, *(min(16 * m, max(m, (1 << 20) // (size * m) * m)) for (size, _), m in zip(_CLASSES[1:], MOVED[1:].tolist(), strict=True))],
    np.int64,
)  # of a transfer cache: 16 batches, and at most 1 MiB
CLASS_OF = np.searchsorted(SIZE_OF[1:], np.arange(0, MAX_SIZE + 8, 8)).astype(np.int64) + 1
"""Class of a request, by eighths of its bytes, rounded up."""


@law
def size_class(request, alignment):
    """Class that serves a request, or 0 if it gets pages: the first that holds it and whose objects are aligned.

    request    bytes
    alignment  bytes, a power of two

    Source: sizemap.h GetSizeClass; tcmalloc_policy.h MallocAlignPolicy.
    """
    if request > MAX_SIZE or alignment > PAGE:
        return 0
    k = CLASS_OF[(request + 7) // 8]
    while SIZE_OF[k] % alignment != 0:
        k += 1
    return k
