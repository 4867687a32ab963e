# SPDX-License-Identifier: Apache-2.0
"""Bringing the record of a host under pressure into the processor's cache before it is stepped.

A fleet's records are larger than a processor's own caches, and a host meets its lines in no order: each one that is not there is waited
for. Read from one end to the other they come in together, which takes a fraction of that. A calm host needs too few of them for that.
Source: measured (docs/benchmarks.md).
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import VM

PGSCAN_KSWAPD = VM["pgscan_kswapd"]
CACHE_LINE = 64
RECORD_BYTES_MAX = 512 << 10  # what fits a processor's second cache with room to spare


@law
def fetch_host(records, lines, scanned, i):
    """Read one byte of each cache line of the record of host `i`, if a kswapd has been at work there since the last time.

    lines    uint8[hosts, bytes of a record]  the same records
    scanned  int64[hosts]  pages that kswapd had scanned by then
    returns  int64  their sum: nothing of interest

    Source: see the module.
    """
    read, now = 0, records[i]["vm"][PGSCAN_KSWAPD]
    if scanned[i] == now:
        return read
    scanned[i] = now
    for at in range(0, lines.shape[1], CACHE_LINE):
        read += lines[i, at]
    return read
