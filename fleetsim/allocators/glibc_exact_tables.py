# SPDX-License-Identifier: Apache-2.0
"""The tables of the exact glibc allocator, declared once (see `glibc_exact.py` for the whole).

Chunks are records with their address, in lists by address and by bin, instead of bytes in a memory that is looked at: so a heap
of gigabytes costs what its chunks cost. Rows are found by number; −1 is none.
"""

from __future__ import annotations

import numpy as np

PAGE = 4096
ALIGNMENT, OVERHEAD, MINSIZE = 16, 8, 32
HEADER = 16  # prev_size and size: the block begins behind them
NBINS, LARGE_MIN = 128, 1024
UNSORTED = 1
TCACHE_BINS, FASTBINS = 64, 10
SORT_MAX = 10_000  # chunks that one malloc sorts into bins at most (MAX_ITERS)
CONSOLIDATION = 65_536
MMAP_THRESHOLD_MAX = 32 << 20
HEAP_MAX, HEAP_MIN = 64 << 20, 32 << 10
HEAP_INFO, ARENA_BYTES = 48, 2200  # sizeof(heap_info), sizeof(struct malloc_state)
TCACHE_STRUCT = 640  # sizeof(tcache_perthread_struct)
DTV_BYTES = 272  # what pthread_create asks of calloc for a new thread of a program whose only module with TLS is libc

BRK_BASE = 0x5555_5555_6000
MMAP_TOP = 0x7FFF_F7FF_0000
MIDDLE = 0x6000_0000_0000  # below: the brk heap

NR_THREADS, NR_ARENAS, NR_HEAPS, NR_GAPS = 4096, 1024, 4096, 70_000

USED, CACHED, FAST, FREE, TOP, FENCE, MMAPPED, BIN = range(8)
"""What a chunk is. CACHED is in a tcache and FAST in a fastbin: both look used to their neighbours. BIN is the head of a list."""

CHUNK = np.dtype(
    [
        ("addr", "i8"),  # of prev_size, 16 below the block
        ("size", "i8"),
        ("lead", "i8"),  # of an mmapped chunk: bytes of the mapping before it
        ("prev", "i4"),  # neighbours by address
        ("next", "i4"),
        ("fd", "i4"),  # neighbours in the list it is in
        ("bk", "i4"),
        ("fd_size", "i4"),  # of a large chunk, the first of its size in its bin: next smaller and next larger size
        ("bk_size", "i4"),
        ("state", "i2"),
        ("arena", "i2"),
    ]
)

BLOCK = np.dtype([("chunk", "i8"), ("size", "i8")])

ARENA = np.dtype(
    [
        ("top", "i8"),  # chunk, −1: none yet
        ("heap", "i8"),  # the newest, which holds the top; −1 for the main arena
        ("last_remainder", "i8"),  # address
        ("have_fast", "i8"),
        ("fast", "i8", (FASTBINS,)),  # last freed chunk of each size
        ("map", "i8", (4,)),  # bins that may hold something, one bit each
        ("system", "i8"),  # bytes from the kernel
        ("next", "i8"),  # circular list of all arenas
        ("next_free", "i8"),
        ("attached", "i8"),  # threads
    ]
)

HEAP = np.dtype(
    [
        ("addr", "i8"),
        ("size", "i8"),
        ("opened", "i8"),  # bytes that were made readable (mprotect_size)
        ("prev", "i8"),  # heap of the same arena before it
        ("first", "i8"),  # its first chunk
        ("last", "i8"),  # the fencepost that ends it, −1: it holds the top
    ]
)

THREAD = np.dtype(
    [
        ("known", "i1"),  # 1: it was started
        ("ended", "i1"),
        ("arena", "i8"),  # −1: none yet
        ("tcache", "i8"),  # chunk of its tcache, −1: none
        ("counts", "i4", (TCACHE_BINS,)),
        ("heads", "i4", (TCACHE_BINS,)),
    ]
)

STATE = np.dtype(
    [
        # settings (struct malloc_par)
        ("mmap_threshold", "i8"),
        ("trim_threshold", "i8"),
        ("top_pad", "i8"),
        ("fixed_thresholds", "i8"),  # no_dyn_threshold
        ("mmaps_max", "i8"),
        ("max_fast", "i8"),
        ("tcache_count", "i8"),
        ("tcache_bins", "i8"),
        ("tcache_unsorted_limit", "i8"),
        ("arena_max", "i8"),
        ("arena_test", "i8"),
        ("cpus", "i8"),
        # the process
        ("brk", "i8"),
        ("mmaps", "i8"),
        ("mmapped", "i8"),
        ("heap_bytes", "i8"),  # usable bytes of the heaps of other arenas
        ("reserved", "i8"),  # address space of mmapped chunks and heaps
        ("arena_limit", "i8"),
        ("arena_next", "i8"),  # next_to_use
        ("arenas", "i8"),
        ("arena_free", "i8"),  # list of arenas without threads
        ("heap_hint", "i8"),  # aligned_heap_area
        ("heaps", "i8"),
        ("heap_spare", "i8"),
        ("stacks", "i8"),  # stacks of ended threads, whose dtv is used again
        ("thread", "i8"),  # who is at work
        # address space and pages
        ("map_base", "i8"),  # address of the first page of the table's upper part
        ("map_low", "i8"),  # nothing is mapped below
        ("nr_gaps", "i8"),
        ("resident", "i8"),  # pages
        # rows of chunks
        ("chunks", "i8"),  # rows ever used
        ("spare", "i8"),
        ("nr_spare", "i8"),
        # sums
        ("live", "i8"),
        ("allocated", "i8"),
        ("cached", "i8"),
        ("free", "i8"),
        ("done", "i8"),  # ops of the trace
        ("next_sample", "i8"),
        ("nr_samples", "i8"),
        ("arena", ARENA, (NR_ARENAS,)),
        ("heap", HEAP, (NR_HEAPS,)),
        ("threads", THREAD, (NR_THREADS,)),
        ("gaps", [("start", "i8"), ("end", "i8")], (NR_GAPS,)),  # holes between mappings, the highest first
    ]
)
