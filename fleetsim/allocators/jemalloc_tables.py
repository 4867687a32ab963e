# SPDX-License-Identifier: Apache-2.0
"""The tables of a jemalloc heap: arenas, extents, slabs, thread caches, and what is known of each page.

All laws of jemalloc_*.py work on one `JemallocHeap`, a tuple of arrays. Addresses are bytes from 0 in the order of the
mappings; jemalloc looks at addresses only within a mapping (elsewhere serial numbers decide), so where mmap() put each does
not matter. An extent is a run of pages that is active (a slab or one large block), dirty, muzzy or retained.
Source: include/jemalloc/internal/arena_structs.h, edata.h, eset.h, tcache_structs.h of jemalloc 5.3.0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fleetsim.allocators.jemalloc_sizes import PAGE_CLASSES, SLOT_START, SMALL_CLASSES, TCACHE_CLASSES

ACTIVE, DIRTY, MUZZY, RETAINED = 0, 1, 2, 3
DECAY_STEPS = 200  # SMOOTHSTEP_NSTEPS
BITMAP_WORDS = 16  # of 32 regions each

OPTIONS = np.dtype(
    [
        ("narenas", "i8"),  # automatic ones; oversize blocks have an arena of their own, the next
        ("decay_ms", "i8", (4,)),  # by state; only DIRTY and MUZZY are used; −1: never
        ("background_thread", "i8"),
        ("tcache", "i8"),
        ("tcache_classes", "i8"),  # size classes that have a bin in a thread cache
        ("retain", "i8"),
        ("oversize_threshold", "i8"),  # bytes; from here on blocks are purged at once
        ("max_fit", "i8"),  # lg_extent_max_active_fit
    ]
)

STATE = np.dtype(
    [
        ("now", "i8"),  # ns
        ("pages_end", "i8"),  # pages that were ever mapped: where the next mapping goes
        ("growth", "i8"),  # pages that mappings of one call can have at most
        ("free_extent", "i8"),  # chain of unused rows of extents, −1: none
        ("extents_end", "i8"),
        ("touched", "i8"),  # populated pages
        ("allocated", "i8"),  # stats.allocated, bytes: what caches of threads hold counts
        ("live", "i8"),  # bytes the program asked for and holds
    ]
)

DECAY = np.dtype(
    [
        ("ms", "i8"),
        ("interval", "i8"),  # ns of an epoch
        ("epoch", "i8"),
        ("deadline", "i8"),
        ("unpurged", "i8"),  # pages
        ("limit", "i8"),  # pages that may stay
        ("luck", "i8"),  # state of the jitter's generator
        ("backlog", "i8", (DECAY_STEPS,)),  # pages that became unused in each epoch
    ]
)

ARENA = np.dtype(
    [
        ("used", "i8"),
        ("threads", "i8"),
        ("active", "i8"),  # pages
        ("mapped", "i8"),  # bytes of extents but retained ones
        ("next_growth", "i8"),  # page class of the next mapping
        ("next_serial", "i8"),
        ("pages", "i8", (4,)),  # by state
        ("heaps", "i4", (4, PAGE_CLASSES + 1)),  # by state: free extents by page class, oldest and lowest first
        ("classes_end", "i8", (4,)),  # by state: no class from here on ever held an extent
        ("oldest", "i4", (4,)),  # by state: the least recently freed
        ("newest", "i4", (4,)),
        ("current_slab", "i4", (SMALL_CLASSES,)),
        ("slabs", "i4", (SMALL_CLASSES,)),  # slabs that are neither full nor the current one
        ("decay", DECAY, (4,)),
        ("wake", "i8"),  # when the background thread looks here again, ns; −1: when something is freed
        ("spare_rows", "i8"),  # descriptions of extents (edata) that lie unused
        ("base_allocated", "i8"),  # metadata, bytes
        ("base_resident", "i8"),
        ("base_mapped", "i8"),
        ("base_room", "i8"),  # left in the newest block
        ("base_growth", "i8"),  # page class of the newest block
        ("internal", "i8"),  # metadata that lies in extents
    ]
)

EXTENT = np.dtype(
    [
        ("page", "i8"),
        ("pages", "i8"),
        ("serial", "i8"),
        ("arena", "i4"),
        ("state", "i4"),
        ("head", "i4"),  # 1: begins a mapping; never merges with what lies before
        ("slab", "i4"),  # its size class, −1: no slab
        ("free", "i4"),  # regions
        ("child", "i4"),  # links of the heap it is in
        ("next", "i4"),
        ("previous", "i4"),
        ("newer", "i4"),  # links of the list by time
        ("older", "i4"),
        ("regions", "i8", (BITMAP_WORDS,)),  # bit set: free
    ]
)

THREAD = np.dtype(
    [
        ("used", "i8"),
        ("arena", "i8"),
        ("ticks", "i8"),  # until it looks at decay
        ("luck", "i8"),
        ("malloc_bytes", "i8"),  # since its last collection
        ("free_bytes", "i8"),
        ("collect", "i8"),  # the bin whose turn is next
        ("stack_extent", "i8"),
        ("cached", "i4", (TCACHE_CLASSES,)),
        ("low_water", "i4", (TCACHE_CLASSES,)),
        ("fill_shift", "i4", (TCACHE_CLASSES,)),
        ("refilled", "i4", (TCACHE_CLASSES,)),
    ]
)

BLOCK = np.dtype([("address", "i8"), ("size", "i8"), ("extent", "i4"), ("live", "i4")])


class JemallocHeap(NamedTuple):
    """All that changes in a heap. `owner` names the extent at the first and last page of each, and at every page of a slab."""

    options: npt.NDArray[np.void]  # OPTIONS, one row
    state: npt.NDArray[np.void]  # STATE, one row
    arenas: npt.NDArray[np.void]
    extents: npt.NDArray[np.void]
    threads: npt.NDArray[np.void]
    stacks: npt.NDArray[np.int64]  # [thread, slot]: addresses of cached blocks
    blocks: npt.NDArray[np.void]  # by the trace's number
    owner: npt.NDArray[np.int32]  # by page
    touched: npt.NDArray[np.uint8]  # by page


def new_tables(arenas: int, threads: int, blocks: int, pages: int, extents: int) -> JemallocHeap:
    """Empty tables for so many."""
    made = np.zeros(arenas, ARENA)
    for name in ("heaps", "oldest", "newest", "current_slab", "slabs"):
        made[name] = -1
    state = np.zeros(1, STATE)
    state["free_extent"] = -1
    return JemallocHeap(
        np.zeros(1, OPTIONS),
        state,
        made,
        np.zeros(extents, EXTENT),
        np.zeros(threads, THREAD),
        np.zeros((threads, int(SLOT_START[-1])), np.int64),
        np.zeros(blocks, BLOCK),
        np.full(pages, -1, np.int32),
        np.zeros(pages, np.uint8),
    )


def enlarged(heap: JemallocHeap, pages: int, extents: int) -> JemallocHeap:
    """The same heap with room for at least `pages` pages and `extents` extents."""
    grown = {}
    for name, least, filler in (("owner", pages, -1), ("touched", pages, 0), ("extents", extents, 0)):
        old = getattr(heap, name)
        if len(old) < least:
            new = np.full(least, filler, old.dtype) if filler else np.zeros(least, old.dtype)
            new[: len(old)] = old
            grown[name] = new
    return heap._replace(**grown)
