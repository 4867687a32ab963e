# SPDX-License-Identifier: Apache-2.0
"""Size classes of jemalloc 5.3: of small regions, of large extents, and the page classes by which free extents are kept.

8; 16 to 128 in steps of 16; then four classes per doubling. Below 16 KiB a request gets a region of a slab, from there on an
extent of its own with one page more, in which its start is shifted by a random number of cache lines (cache_oblivious).
Limits: 4 KiB pages, a 64-bit machine, the build defaults.
Source: include/jemalloc/internal/sc.h, sz.h and src/sc.c, sz.c of jemalloc 5.3.0; kernel-laws §15.2.
"""

from __future__ import annotations

import math

import numpy as np

from fleetsim.law import law

PAGE = 4096
SMALL_CLASSES = 36  # SC_NBINS: 8 bytes to 14 KiB
LARGE_MIN = 16 << 10  # SC_LARGE_MINCLASS
PAGE_CLASSES = 199  # SC_NPSIZES
LARGE_PAD = PAGE  # sz_large_pad
TCACHE_CLASSES = 73  # up to 8 MiB, the most that lg_tcache_max can ask for
SLOTS_MIN, SLOTS_MAX, SLOTS_LARGE = 20, 200, 20  # of a thread cache's bin


def _class_size(index: int) -> int:
    """Bytes of size class `index`."""
    if index == 0:
        return 8
    group, step = divmod(index - 1, 4)
    return 16 * (step + 1) if group == 0 else (64 << (group - 1)) + (step + 1) * (16 << (group - 1))


def _slots(index: int, regions: int) -> int:
    """Blocks that a thread cache's bin holds: twice a slab's, at least 20, at most 200; 20 large ones."""
    return min(SLOTS_MAX, max(SLOTS_MIN, 2 * regions)) if index < SMALL_CLASSES else SLOTS_LARGE


_SIZES = [_class_size(i) for i in range(160)]
_SLAB_PAGES = [math.lcm(size, PAGE) // PAGE for size in _SIZES[:SMALL_CLASSES]]
SIZE_OF = np.array(_SIZES, np.int64)
SLAB_PAGES = np.array(_SLAB_PAGES, np.int64)
REGIONS = np.array([pages * PAGE // size for pages, size in zip(_SLAB_PAGES, _SIZES, strict=False)], np.int64)
SLOTS = np.array([_slots(i, int(REGIONS[i]) if i < SMALL_CLASSES else 0) for i in range(TCACHE_CLASSES)], np.int64)
SLOT_START = np.concatenate([[0], np.cumsum(SLOTS)]).astype(np.int64)
"""Where the slots of each bin begin in a thread's stacks."""


@law
def floor_log2(x):
    """The largest k with 2^k ≤ x, for x ≥ 1.

    Source: arithmetic (lg_floor of include/jemalloc/internal/bit_util.h).
    """
    k = 0
    for shift in (32, 16, 8, 4, 2, 1):
        if x >> shift > 0:
            x >>= shift
            k += shift
    return k


@law
def size_class(request):
    """Size class that serves a request of `request` bytes.

    Source: include/jemalloc/internal/sz.h sz_size2index_compute.
    """
    if request <= 8:
        return 0
    x = floor_log2(2 * request - 1)
    group = max(0, x - 6)
    step = 4 if x < 7 else x - 3
    return 1 + 4 * group + ((request - 1) >> step & 3)


@law
def page_class(size):
    """Index of the smallest page class of at least `size` bytes.

    Source: include/jemalloc/internal/sz.h sz_psz2ind.
    """
    if size <= PAGE:
        return 0
    x = floor_log2(2 * size - 1)
    group = max(0, x - 14)
    step = 12 if x < 15 else x - 3
    return 4 * group + ((size - 1) >> step & 3)


@law
def page_class_size(index):
    """Bytes of page class `index`: 4, 8, 12, 16, 20, 24, 28, 32, 40 KiB and so on.

    Source: include/jemalloc/internal/sz.h sz_pind2sz.
    """
    group, step = index // 4, index % 4
    if group == 0:
        return PAGE * (step + 1)
    return (4 * PAGE << (group - 1)) + (step + 1) * (PAGE << (group - 1))


@law
def quantize_floor(size):
    """The largest size that a request can have asked for (a page class and the pad) and that an extent of `size` bytes can serve.

    Source: src/sz.c sz_psz_quantize_floor.
    """
    index = page_class(size - LARGE_PAD + 1)
    return size if index == 0 else page_class_size(index - 1) + LARGE_PAD


@law
def quantize_ceil(size):
    """The size from which on every extent, as they are kept by class, can serve `size` bytes.

    Source: src/sz.c sz_psz_quantize_ceil.
    """
    floor = quantize_floor(size)
    return floor if floor >= size else page_class_size(page_class(floor - LARGE_PAD + 1)) + LARGE_PAD
