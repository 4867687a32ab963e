# SPDX-License-Identifier: Apache-2.0
"""The tables of a tcmalloc heap: spans of pages, lists of free objects, caches of threads, and what is known of each page.

All laws of tcmalloc_*.py work on one `TcmallocHeap`, a tuple of arrays. The heap is one run of addresses, as brk makes it.
A free object's number is its address / 8; `links` holds the number of the next one in its list, as the object's own first
bytes do in life; 0 ends a list.
Source: src/span.h, page_heap.h, central_freelist.h, thread_cache.h of gperftools 2.10.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fleetsim.allocators.tcmalloc_sizes import CLASSES

MAX_PAGES = 128  # spans up to here have a list by length, longer ones share one
IN_USE, NORMAL, RETURNED = 0, 1, 2
TRANSFER_SLOTS = 64

OPTIONS = np.dtype(
    [
        ("release_rate_q", "i8"),  # 1024ths; 0: never
        ("aggressive_decommit", "i8"),
        ("total_cache", "i8"),  # bytes
    ]
)

STATE = np.dtype(
    [
        ("now", "i8"),
        ("end", "i8"),  # page after the heap's last
        ("system", "i8"),  # pages from the kernel
        ("free", "i8", (3,)),  # pages, by location: NORMAL are populated, RETURNED are not
        ("scavenge", "i8"),  # pages that may be freed until a span is returned
        ("release_index", "i8"),
        ("lists", "i4", (3, MAX_PAGES + 2)),  # by location and length: newest span; those that are longer at MAX_PAGES + 1
        ("lasts", "i4", (3, MAX_PAGES + 2)),  # oldest span
        ("free_span", "i8"),
        ("spans_end", "i8"),
        ("unclaimed", "i8"),  # bytes of thread caches nobody has claimed
        ("first_thread", "i8"),  # chain of threads with a cache, the youngest first, −1: none
        ("steal", "i8"),  # whose limit is cut next
        ("evict", "i8"),  # class whose transfer cache is asked next for a slot
        ("touched", "i8"),  # populated pages of 4 KiB
        ("live", "i8"),  # bytes the program asked for and holds
        ("usable", "i8"),  # bytes it may use in them
        ("large", "i8"),  # of them, in blocks above the largest class
    ]
)

CENTRAL = np.dtype(
    [
        ("nonempty", "i4"),  # spans with a free object, −1: none
        ("spans", "i8"),
        ("objects", "i8"),  # free in spans
        ("slots", "i8"),  # of the transfer cache, there are
        ("used", "i8"),
        ("heads", "i8", (TRANSFER_SLOTS,)),
    ]
)

SPAN = np.dtype(
    [
        ("start", "i8"),  # page
        ("length", "i8"),
        ("location", "i4"),
        ("size_class", "i4"),  # 0: one large block, or free
        ("objects", "i8"),  # first free one
        ("in_use", "i8"),  # objects out of it
        ("next", "i4"),
        ("previous", "i4"),
    ]
)

THREAD = np.dtype(
    [
        ("used", "i8"),
        ("next", "i8"),  # in the chain
        ("size", "i8"),  # bytes cached
        ("limit", "i8"),
        ("head", "i8", (CLASSES,)),
        ("length", "i4", (CLASSES,)),
        ("low_water", "i4", (CLASSES,)),
        ("most", "i4", (CLASSES,)),  # length above which some go back
        ("overages", "i4", (CLASSES,)),
    ]
)

BLOCK = np.dtype([("address", "i8"), ("size", "i8"), ("live", "i8")])


class TcmallocHeap(NamedTuple):
    """All that changes in a heap. `owner` names the span at the first and last page of each, and at every page of one with objects."""

    options: npt.NDArray[np.void]
    state: npt.NDArray[np.void]
    central: npt.NDArray[np.void]
    spans: npt.NDArray[np.void]
    threads: npt.NDArray[np.void]
    blocks: npt.NDArray[np.void]
    owner: npt.NDArray[np.int32]  # by page of 8 KiB
    touched: npt.NDArray[np.uint8]  # by page of 4 KiB
    links: npt.NDArray[np.int32]  # by object number


def new_tables(threads: int, blocks: int, pages: int, spans: int) -> TcmallocHeap:
    """Empty tables for so many."""
    state = np.zeros(1, STATE)
    state["lists"] = state["lasts"] = -1
    state["free_span"] = state["first_thread"] = state["steal"] = -1
    state["end"] = 1  # object number 0 ends a list
    central = np.zeros(CLASSES, CENTRAL)
    central["nonempty"] = -1
    return TcmallocHeap(
        np.zeros(1, OPTIONS),
        state,
        central,
        np.zeros(spans, SPAN),
        np.zeros(threads, THREAD),
        np.zeros(blocks, BLOCK),
        np.full(pages, -1, np.int32),
        np.zeros(2 * pages, np.uint8),
        np.zeros(1024 * pages, np.int32),
    )


def enlarged(heap: TcmallocHeap, pages: int, spans: int) -> TcmallocHeap:
    """The same heap with room for at least `pages` pages and `spans` spans."""
    grown = {}
    for name, least, filler in (("owner", pages, -1), ("touched", 2 * pages, 0), ("links", 1024 * pages, 0), ("spans", spans, 0)):
        old = getattr(heap, name)
        if len(old) < least:
            new = np.full(least, filler, old.dtype) if filler else np.zeros(least, old.dtype)
            new[: len(old)] = old
            grown[name] = new
    return heap._replace(**grown)
