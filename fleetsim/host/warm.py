# SPDX-License-Identifier: Apache-2.0
"""`python -m fleetsim.host.warm`: compile every law a host needs, once, before several processes would each do it.

The test run calls it: two cold workers would otherwise compile the same laws side by side.
"""

from __future__ import annotations

import sys

from fleetsim import law
from fleetsim.host.fetch import fetch_host
from fleetsim.host.relist import relist
from fleetsim.host.shard import Shard
from fleetsim.host.spec import HostSpec

MEMORY_BYTES = 1 << 30


def compile_laws() -> None:
    """Boot and advance one small host: almost nothing when the laws are in the cache."""
    shard = Shard([HostSpec("warm", MEMORY_BYTES)], seed=0)
    shard.advance(0, 1)
    fetch_host(shard.records, shard.lines, shard.scanned, 0)
    relist(shard.records, 0)


if __name__ == "__main__":
    if law.is_cold():
        print("compiling the simulated kernel's laws (once per version, about a minute) …", file=sys.stderr, flush=True)
    compile_laws()
