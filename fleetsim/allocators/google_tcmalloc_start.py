# SPDX-License-Identifier: Apache-2.0
"""What a process with Google's tcmalloc has done and has resident before its main() begins. Measured, not computed."""

from __future__ import annotations

from fleetsim.allocators.google_tcmalloc_calls import allocate
from fleetsim.allocators.google_tcmalloc_sizes import MALLOC_ALIGNMENT
from fleetsim.allocators.google_tcmalloc_span import touch
from fleetsim.law import law

CPP_RESERVE = 72_704  # bytes that the C++ library takes before main()
METADATA, METADATA_PER_SPAN = 450_560, 80


@law
def prepare(heap):
    """A process at the begin of main(): the C++ library's reserve is taken.

    Source: measured with a build of fce3f55 (see tests/ground_truth).
    """
    touch(heap, allocate(heap, 0, CPP_RESERVE, MALLOC_ALIGNMENT), 64)
    heap.state[0]["usable"] = 0  # of the program's own blocks
