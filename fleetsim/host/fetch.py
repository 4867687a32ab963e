# SPDX-License-Identifier: Apache-2.0
"""Bringing a host's record into the processor's cache before it is stepped.

A fleet's records are larger than a processor's own caches, and a host meets its lines in no order: each one that is not there is waited
for. Read from one end to the other they come in together, which takes a fraction of that.
Source: measured (docs/benchmarks.md).
"""

from __future__ import annotations

from fleetsim.law import law

CACHE_LINE = 64
RECORD_BYTES_MAX = 512 << 10  # what fits a processor's second cache with room to spare


@law
def fetch_host(lines, i):
    """Read one byte of each cache line of the record of host `i`.

    lines    uint8[hosts, bytes of a record]
    returns  int64  their sum: nothing of interest

    Source: see the module.
    """
    read = 0
    for at in range(0, lines.shape[1], CACHE_LINE):
        read += lines[i, at]
    return read
