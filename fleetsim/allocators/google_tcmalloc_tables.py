# SPDX-License-Identifier: Apache-2.0
"""The tables of a heap of Google's tcmalloc: per-CPU caches, transfer caches, spans, and what is known of each huge page.

All laws of google_tcmalloc_*.py work on one `GoogleHeap`, a tuple of arrays. An address is a byte number in one space; regions
that the kernel gave apart from each other are a huge page apart here. Span and list links are row numbers, −1: none.
Source: google/tcmalloc at fce3f55: cpu_cache.h, span.h, huge_page_tracker.h, huge_page_filler.h, huge_cache.h, huge_region.h.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fleetsim.allocators.google_tcmalloc_sizes import BITMAP_SIZE, CLASSES, CPU_SLOTS, HUGE_PAGES, TRANSFER_SLOTS

CPU_SLOTS_MAX, TRANSFER_SLOTS_MAX = int(CPU_SLOTS.max()), int(TRANSFER_SLOTS.max())
SPAN_LISTS = 8  # of a class: by how many objects are out, the fullest first
SPAN_CACHE = 12  # objects of a span without a bitmap that are popped first
STACK = 1024  # objects of a span of the smallest class
BATCH_MAX = 128

GAP, UNBACKED, CACHED, TAKEN = range(4)
"""A huge page is not ours, in the huge allocator, in the huge cache, or used."""

CHUNKS = 8
KIND_LISTS = HUGE_PAGES * CHUNKS
REGULAR, PARTIAL, RELEASED, DONATED = 0, 2, 4, 6  # lists of the filler: the first three have one for sparse and one for dense
GROUP = 64

REGION_PAGES = 512 * HUGE_PAGES
REGIONS_MAX = 64

USAGE, OFF_PEAK, SIZE, DEMAND = range(4)
SERIES_SLOTS = 3600
NOTHING = 1 << 62

OPTIONS = np.dtype(
    [
        ("cpus", "i8"),
        ("max_per_cpu_cache", "i8"),  # bytes
        ("release_rate", "i8"),  # bytes per second
        ("trim_releases", "i8"),  # bytes that a trim op asks to be released
        ("subrelease", "i8"),
        ("skip_short_ns", "i8"),
        ("skip_long_ns", "i8"),
    ]
)

STATE = np.dtype(
    [
        ("now", "i8"),
        ("end", "i8"),  # huge page after the last region
        ("region_start", "i8"),  # of the region of 1 GiB that is being handed out, from its end down
        ("region_free", "i8"),
        ("system", "i8"),  # huge pages from the kernel
        ("reserved", "i8"),  # of address space
        ("unbacked", "i8"),  # of them in the huge allocator
        ("cached", "i8"),  # in the huge cache
        ("usage", "i8"),  # taken from it
        ("limit", "i8"),  # that it may hold
        ("limit_changed", "i8"),  # ns
        ("trackers", "i8"),  # huge pages of the filler
        ("unmapped", "i8"),  # pages of them that were given back to the kernel
        ("unaccounted", "i8"),  # pages given back that no release has counted yet
        ("used", "i8", (2,)),  # pages of the filler in use: in sparse, in dense huge pages
        ("slack", "i8"),  # pages that large spans leave in their last huge page
        ("abandoned", "i8"),  # pages of freed donors whose tail is still in use
        ("donated", "i8"),
        ("released_extra", "i8"),  # bytes released beyond what was asked
        ("released_at", "i8"),  # ns up to which the background release is done
        ("regions", "i8"),
        ("region_order", "i4", (REGIONS_MAX,)),
        ("free_span", "i8"),
        ("spans_end", "i8"),
        ("live_spans", "i8"),
        ("most_spans", "i8"),
        ("free_stack", "i8"),
        ("stacks_end", "i8"),
        ("touched", "i8"),  # populated pages of 4 KiB
        ("live", "i8"),  # bytes the program asked for and holds
        ("usable", "i8"),  # bytes it may use in them
        ("large", "i8"),  # of them, in blocks above the largest class
    ]
)

CPU = np.dtype(
    [
        ("available", "i8"),  # bytes by which lists may still grow
        ("populated", "i8"),
        ("underflows", "i8"),
        ("overflows", "i8"),
        ("length", "i4", (CLASSES,)),
        ("capacity", "i4", (CLASSES,)),
        ("overflowed", "i4", (CLASSES,)),  # the last miss was one
        ("successive", "i4", (CLASSES,)),  # misses of the same kind in a row
    ]
)

CENTRAL = np.dtype(
    [
        ("used", "i8"),  # objects in the transfer cache
        ("free", "i8"),  # objects in spans
        ("spans", "i8"),
        ("first", "i4", (SPAN_LISTS,)),
    ]
)

SPAN = np.dtype(
    [
        ("start", "i8"),  # page
        ("pages", "i8"),
        ("size_class", "i4"),  # 0: one large block
        ("donated", "i4"),  # its last huge page went to the filler
        ("next", "i4"),
        ("previous", "i4"),
        ("list", "i4"),
        ("allocated", "i4"),  # objects out
        ("low", "i4"),  # no object below is free
        ("free", "u1", (BITMAP_SIZE,)),
        ("cache_size", "i4"),
        ("cache", "i2", (SPAN_CACHE,)),
        ("stack", "i4"),
        ("depth", "i4"),
        ("embedded", "i4"),  # objects named inside the newest host
    ]
)

TRACKER = np.dtype(
    [
        ("used", "u1", (HUGE_PAGES,)),
        ("released", "u1", (HUGE_PAGES,)),  # pages that are not backed
        ("exists", "i4"),
        ("in_use", "i4"),
        ("allocations", "i4"),
        ("longest", "i4"),
        ("released_count", "i4"),
        ("dense", "i4"),
        ("donated", "i4"),
        ("was_donated", "i4"),
        ("abandoned", "i4"),
        ("abandoned_count", "i4"),
        ("list", "i4"),
        ("next", "i4"),
        ("previous", "i4"),
    ]
)

REGION = np.dtype(
    [
        ("start", "i8"),  # huge page
        ("in_use", "i8"),  # pages
        ("longest", "i8"),
        ("high", "i8"),  # all pages from here are free
        ("free_backed", "i8"),  # huge pages
        ("backed", "i8"),
        ("is_backed", "u1", (REGION_PAGES // HUGE_PAGES,)),
        ("pages_used", "i4", (REGION_PAGES // HUGE_PAGES,)),
    ]
)

SERIES = np.dtype([("slots", "i8"), ("epoch_ns", "i8"), ("slot", "i8"), ("epoch", "i8"), ("covered", "i8")])
EXTREMA = np.dtype([("least", "i8"), ("most", "i8"), ("delta", "i8")])
BLOCK = np.dtype([("address", "i8"), ("size", "i8"), ("live", "i8")])


class GoogleHeap(NamedTuple):
    """All that changes in a heap."""

    options: npt.NDArray[np.void]
    state: npt.NDArray[np.void]
    cpus: npt.NDArray[np.void]
    slabs: npt.NDArray[np.int64]  # [CPU, class, slot] addresses
    central: npt.NDArray[np.void]
    transfer: npt.NDArray[np.int64]  # [class, slot] addresses
    spans: npt.NDArray[np.void]
    stacks: npt.NDArray[np.int16]  # [row, depth] objects of a span without a bitmap
    trackers: npt.NDArray[np.void]  # by huge page
    huge: npt.NDArray[np.uint8]  # by huge page: whose it is
    lists: npt.NDArray[np.int32]  # [kind, list] first tracker
    groups: npt.NDArray[np.int32]  # [kind, list / 64] trackers
    regions: npt.NDArray[np.void]
    region_used: npt.NDArray[np.uint8]  # [region, page]
    series: npt.NDArray[np.void]
    extrema: npt.NDArray[np.void]  # [series, slot]
    blocks: npt.NDArray[np.void]
    owner: npt.NDArray[np.int32]  # by page of 8 KiB: its span
    touched: npt.NDArray[np.uint8]  # by page of 4 KiB
    batch: npt.NDArray[np.int64]  # objects on their way
    emptied: npt.NDArray[np.int64]  # spans on their way


def new_tables(cpus: int, blocks: int, huge_pages: int, spans: int) -> GoogleHeap:
    """Empty tables for so many."""
    state = np.zeros(1, STATE)
    state["free_span"] = state["free_stack"] = -1
    state["end"] = 1  # address 0 is nobody's
    state["limit"] = 10
    central = np.zeros(CLASSES, CENTRAL)
    central["first"] = -1
    series = np.zeros(4, SERIES)
    series["slots"], series["epoch_ns"], series["covered"] = (16, 16, 16, SERIES_SLOTS), (125_000_000,) * 3 + (1_000_000_000,), 1
    extrema = np.zeros((4, SERIES_SLOTS), EXTREMA)
    extrema["least"], extrema["delta"][:, 0] = NOTHING, 1
    return GoogleHeap(
        np.zeros(1, OPTIONS),
        state,
        np.zeros(cpus, CPU),
        np.zeros((cpus, CLASSES, CPU_SLOTS_MAX), np.int64),
        central,
        np.zeros((CLASSES, TRANSFER_SLOTS_MAX), np.int64),
        np.zeros(spans, SPAN),
        np.zeros((max(64, spans // 8), STACK), np.int16),
        np.zeros(huge_pages, TRACKER),
        np.zeros(huge_pages, np.uint8),
        np.full((7, KIND_LISTS), -1, np.int32),
        np.zeros((7, KIND_LISTS // GROUP), np.int32),
        np.zeros(0, REGION),
        np.zeros((0, REGION_PAGES), np.uint8),
        series,
        extrema,
        np.zeros(blocks, BLOCK),
        np.full(huge_pages * HUGE_PAGES, -1, np.int32),
        np.zeros(2 * huge_pages * HUGE_PAGES, np.uint8),
        np.zeros(2 * BATCH_MAX, np.int64),
        np.zeros(2 * BATCH_MAX, np.int64),
    )


def enlarged(heap: GoogleHeap, huge_pages: int, spans: int, stacks: int, regions: int) -> GoogleHeap:
    """The same heap with room for at least so many of each."""
    grown = {}
    wanted = {"trackers": huge_pages, "huge": huge_pages, "owner": huge_pages * HUGE_PAGES, "touched": 2 * huge_pages * HUGE_PAGES} | {
        "spans": spans, "stacks": stacks, "regions": regions, "region_used": regions
    }  # fmt: skip
    for name, least in wanted.items():
        old = getattr(heap, name)
        if len(old) < least:
            new = np.zeros((least, *old.shape[1:]), old.dtype)
            if name == "owner":
                new[:] = -1
            new[: len(old)] = old
            grown[name] = new
    return heap._replace(**grown)
