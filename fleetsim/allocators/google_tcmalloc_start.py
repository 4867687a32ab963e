# SPDX-License-Identifier: Apache-2.0
"""What a process with Google's tcmalloc has done and has resident before its main() begins. Measured, not computed."""

from __future__ import annotations

from fleetsim.allocators.google_tcmalloc_calls import allocate, release_block
from fleetsim.allocators.google_tcmalloc_sizes import MALLOC_ALIGNMENT
from fleetsim.allocators.google_tcmalloc_span import touch
from fleetsim.law import law

CPP_RESERVE = 72_704  # bytes that the C++ library takes before main()
THREAD_STORAGE = 1152
METADATA, METADATA_PER_SPAN = 450_560, 80


@law
def prepare(heap):
    """A process at the begin of main(): the C++ library's reserve is taken.

    Source: measured with a build of fce3f55 (see tests/ground_truth).
    """
    touch(heap, allocate(heap, 0, CPP_RESERVE, MALLOC_ALIGNMENT), 64)
    touch(heap, allocate(heap, 0, THREAD_STORAGE, MALLOC_ALIGNMENT), 64)
    for size in (8, 16):
        address = allocate(heap, 0, size, 8)
        touch(heap, address, size)
        release_block(heap, 0, address)
    heap.state[0]["usable"] = 0  # of the program's own blocks
