# SPDX-License-Identifier: Apache-2.0
"""The allocators' tables: what user space knows of its own heap, declared once (see `glibc.py` for the model).

A heap is not kept chunk by chunk. A **place** is a stretch of addresses in which live and free chunks alternate in the
same way all along; a **population** is the blocks that one loop of malloc() calls put into one place.
"""

from __future__ import annotations

import numpy as np

from fleetsim.linux.capacity_classes import CAPACITY

NR_HEAPS = CAPACITY.heaps
NR_PLACES = CAPACITY.places
NR_POPULATIONS = CAPACITY.populations

PLACE_HEAP, PLACE_MAPPED = 0, 1
LIES_SCATTERED, LIES_ALONE, LIES_IN_ORDER = 0, 1, 2
"""How a population lies in its place: in free chunks here and there; block beside block; in free chunks from the low end up."""

HEAP = np.dtype(
    [
        ("used", "i1"),
        ("fast", "i1"),  # 1: freed chunks wait in fastbins, not merged with their neighbours (have_fastchunks)
        ("task", "i2"),
        ("thread", "i2"),  # whose arena it is
        ("area", "i2"),  # the brk area
        ("maps", "i2"),  # the mmapped chunks, −1: none so far
        ("series", "i2"),  # number of the malloc loop under way
        ("life", "i8"),  # the task's exits when the heap began: after the next one it is nobody's
        ("blocks", "i8"),  # blocks asked for so far
        ("carry", "i8"),  # 1024ths of a byte owed by expected-value rounding
        ("carry_mapped", "i8"),  # the same for the share of blocks that are mapped, 1024ths of a block
        ("carry_fit", "i8"),  # … and that find a free chunk
        ("chunks_mapped", "i8"),  # n_mmaps
        ("pointers", "i2"),  # area of the caller's table of pointers, −1: none so far
        ("brk", "i8"),  # end of the heap, pages from its start
        ("top", "i8"),  # address of the top chunk, bytes from the heap's start
        ("top_end", "i8"),  # end of the heap before it was last shortened, pages
        ("top_pages", "i8"),  # populated pages above the page of the top chunk's header
        ("top_keep", "i8"),  # … that are to stay
        ("rest_pages", "i8"),  # populated pages below the top that belong to no place any more
        ("mapped", "i8"),  # pages of chunks mapped so far: where the next one goes
        ("mapped_bytes", "i8"),  # hblkhd
        ("mmap_threshold", "i8"),  # bytes
        ("trim_threshold", "i8"),
        ("pinned", "i8"),  # end of the highest chunk that a tcache holds, bytes; the top cannot sink below
        ("cached", "i8"),  # tcache bins that are full, one bit each
        ("cached_bytes", "i8"),  # what tcaches hold
    ]
)

PLACE = np.dtype(
    [
        ("used", "i1"),
        ("kind", "i1"),  # PLACE_HEAP or PLACE_MAPPED
        ("heap", "i1"),
        ("scattered", "i1"),  # 1: blocks were freed at random; 0: every k-th is left
        ("start", "i8"),  # bytes from the start of the heap, or of the mapped chunks
        ("size", "i8"),  # bytes
        ("live", "i8"),  # bytes in live chunks
        ("waste", "i8"),  # free bytes in remainders that no request of late fitted in
        ("gaps", "i8"),  # free chunks
        ("filled", "i8"),  # free chunks that later blocks have taken, side by side
        ("free_slots", "i8"),  # blocks that lie free
        ("pages", "i8"),  # populated
        ("keep", "i8"),  # … that are to be: more are faulted in, fewer are given back
        ("stir", "i8"),  # of those in swap, how many the calls made so far have touched
    ]
)

POPULATION = np.dtype(
    [
        ("used", "i1"),
        ("heap", "i1"),
        ("place", "i1"),
        ("order", "i1"),  # LIES_ALONE, LIES_IN_ORDER or LIES_SCATTERED
        ("series", "i2"),
        ("first", "i8"),  # number of its first block
        ("span", "i8"),  # block numbers from the first to the last
        ("every", "i8"),  # those divisible by it are alive
        ("alive", "i8"),
        ("least", "i8"),  # sizes asked for, bytes
        ("most", "i8"),
    ]
)

ALLOCATOR_FIELDS = [
    ("heaps", HEAP, (NR_HEAPS,)),
    ("places", PLACE, (NR_PLACES,)),
    ("populations", POPULATION, (NR_POPULATIONS,)),
]
"""The allocators' part of a host's record."""
