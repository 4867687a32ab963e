# SPDX-License-Identifier: Apache-2.0
"""Size classes of tcmalloc (gperftools 2.10), made by its own rule.

Up to 256 KiB a request gets an object of a class; classes are spaced so that at most an eighth is lost, and each knows how many
pages of 8 KiB a span of it has, and how many objects move between caches at a time. Above, whole pages.
Source: src/common.cc SizeMap::Init, AlignmentForSize, NumMoveSize of gperftools 2.10; kernel-laws §15.3.
"""

from __future__ import annotations

import numpy as np

from fleetsim.law import law

PAGE_SHIFT = 13
PAGE = 1 << PAGE_SHIFT
MAX_SIZE = 256 << 10
CLASSES_MAX = 128


def _alignment(size: int) -> int:
    """Distance to the next size that is looked at."""
    if size >= 128:
        return int(min(PAGE, 1 << (size.bit_length() - 1 - 3)))
    return 16 if size >= 16 else 8


def _objects_moved(size: int) -> int:
    """About 64 KiB, at least 2 and at most 32 objects."""
    return min(32, max(2, (64 << 10) // size))


def _classes() -> list[tuple[int, int]]:
    """(bytes, pages of a span) of each class, the first a dummy for no bytes."""
    made = [(0, 0)]
    size = 8
    while size <= MAX_SIZE:
        span = 0
        while span == 0 or span // size < _objects_moved(size) // 4:
            span += PAGE
            while span % size > span >> 3:
                span += PAGE
        pages = span >> PAGE_SHIFT
        before, pages_before = made[-1]
        if before and pages == pages_before and span // size == (pages_before << PAGE_SHIFT) // before:
            made[-1] = (size, pages)  # holds as many objects: the smaller class would save nothing
        else:
            made.append((size, pages))
        size += _alignment(size)
    return made


_CLASSES = _classes()
CLASSES = len(_CLASSES)
SIZE_OF = np.array([size for size, _ in _CLASSES], np.int64)
SPAN_PAGES = np.array([pages for _, pages in _CLASSES], np.int64)
MOVED = np.array([0] + [_objects_moved(size) for size, _ in _CLASSES[1:]], np.int64)
SLOTS_MAX = np.array([64] + [min(64, max(1, (1 << 20) // (size * _objects_moved(size)))) for size, _ in _CLASSES[1:]], np.int64)
"""Most entries of a class's transfer cache: together at most 1 MiB."""
CLASS_OF = np.searchsorted(SIZE_OF[1:], np.arange(0, MAX_SIZE + 8, 8)).astype(np.int64) + 1
"""Class of a request, by eighths of its bytes, rounded up."""


@law
def size_class(request):
    """Class that serves a request of at most 256 KiB.

    Source: src/common.h SizeMap::ClassIndex.
    """
    return CLASS_OF[(request + 7) // 8]
