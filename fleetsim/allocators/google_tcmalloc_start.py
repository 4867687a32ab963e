# SPDX-License-Identifier: Apache-2.0
"""What a process with Google's tcmalloc has done and has resident before its main() begins: measured, not computed."""

from __future__ import annotations

from fleetsim.allocators.google_tcmalloc_calls import allocate, release_block
from fleetsim.allocators.google_tcmalloc_central import transfer_remove
from fleetsim.allocators.google_tcmalloc_sizes import MALLOC_ALIGNMENT, size_class
from fleetsim.allocators.google_tcmalloc_span import touch
from fleetsim.law import law

CPP_RESERVE = 72_704  # bytes that the C++ library takes before main()
LOADER = 1152  # bytes of the dynamic loader's
METADATA, METADATA_PER_SPAN = 3_469_312, 74  # bytes resident at the start, more than without it; of each span, with its pages


@law
def prepare(heap):
    """A process at the begin of main(). The first block is taken before per-CPU caches are ready, two small ones are freed again.

    Source: measured with a build of fce3f55 on Debian 12: spans, lists and budget as its statistics tell them.
    """
    transfer_remove(heap, size_class(CPP_RESERVE, MALLOC_ALIGNMENT), heap.batch, 1)
    touch(heap, heap.batch[0], 64)
    touch(heap, allocate(heap, 0, LOADER, MALLOC_ALIGNMENT), 64)
    for size in (8, 16):
        address = allocate(heap, 0, size, 8)
        touch(heap, address, size)
        release_block(heap, 0, address)
    heap.state[0]["usable"] = 0  # of the program's own blocks
