# SPDX-License-Identifier: Apache-2.0
"""The pace of a script's ops: the quantum that is done in one go, and how far behind its deadline a thread may fall.

Source: the recordings' driver (quanta of 256 KiB, a lag above 100 ms is forgotten).
"""

from __future__ import annotations

from fleetsim.law import law

QUANTUM_PAGES = 64  # 256 KiB
LAG_NS = 100_000_000


@law
def quantum_pages(row, op, ticks):
    """Pages of one pacing quantum: 256 KiB, or that many ticks' worth of a fast op.

    Source: the recordings' driver (256 KiB); the tick is fleetsim's own (design §4).
    """
    if op["ns_per_quantum"] <= 0:
        return QUANTUM_PAGES
    return QUANTUM_PAGES * max(1, row["tick_ns"] * ticks // op["ns_per_quantum"])
