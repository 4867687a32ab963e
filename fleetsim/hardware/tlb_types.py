# SPDX-License-Identifier: Apache-2.0
"""The record of one logical CPU's translation hardware, and how it is made from a profile.

All of it is one row of `CORE` and one array of entries; a copy of both is a snapshot.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetsim.hardware.tlb_cache import EMPTY
from fleetsim.hardware.tlb_profiles import PAGE_SIZES, ROLES, Profile

# rows of core["geometry"]: the order of tlb_profiles.ROLES
L1, L2, CODE = 0, 6, 3  # L1 + CODE · stream + page size
PDE, NESTED, NESTED_PDE = 12, 15, 18
assert ROLES[L1] == "d4K" and ROLES[L1 + CODE] == "i4K" and ROLES[L2 + CODE + 2] == "I1G"
assert ROLES[PDE] == "PDE" and ROLES[NESTED] == "n4K" and ROLES[NESTED_PDE] == "nPDE"

# columns of core["geometry"]
FIRST, SET_MASK, WAYS, SHIFT = range(4)

# what may stand in a trace; the low three bits of a kind
LOAD, STORE, MODIFY, FETCH, SWITCH, INVLPG, FLUSH = range(7)
STRADDLE = 8
"""Added to a kind: the last byte of the access before; it counts only if it lies in another page."""

NO_PAGE = 1 << 62  # no address has it (−1 is the last page of the kernel's half)
DATA = 0  # streams; code is 1
NR_STREAMS = 2
ACCESSES, L1_HITS, L2_HITS, WALKS, LOADS, MOST_LOADS, PDE_HITS, PDPTE_HITS, PML4E_HITS, NESTED_LOADS = range(10)
NR_COUNTS = 10
SWITCHES, FLUSHES, SHOOTDOWNS, DROPPED = range(4)

DYN_ASIDS = 6  # TLB_NR_DYN_ASIDS: address spaces that a CPU keeps apart at a time
FLUSH_CEILING = 33  # tlb_single_page_flush_ceiling: beyond so many pages all of the address space is flushed

CORE = np.dtype(
    [
        ("geometry", "i8", (len(ROLES), 4)),
        ("used", "i8"),  # entries of all parts together
        ("page", "i8"),  # size of pages: 0 4K, 1 2M, 2 1G
        ("huge_permille", "i8"),  # share of 2 MiB regions that are huge pages, when pages are 4K
        ("levels", "i8"),  # of the page table: 4 or 5
        ("vm", "i8"),  # 1: a guest, whose walks are nested
        ("host_page", "i8"),  # page size by which the host backs the guest
        ("pcid", "i8"),  # 1: entries are tagged
        ("task", "i8"),  # whose address space is loaded
        ("asid", "i8"),  # its tag
        ("asids", "i8", (DYN_ASIDS,)),  # whose each tag is, −1: nobody's
        ("next_asid", "i8"),
        ("last", "i8", (NR_STREAMS,)),  # 4 KiB page accessed last, whose entry is the most recently used, or NO_PAGE
        ("counts", "i8", (NR_STREAMS, NR_COUNTS)),
        ("events", "i8", (4,)),
    ]
)


def make_core(
    profile: Profile,
    page: str = "4K",
    *,
    huge_permille: int = 0,
    levels: int = 4,
    vm: bool = False,
    host_page: str = "4K",
    pcid: bool = True,
) -> tuple[Any, np.ndarray]:
    """A CPU of that profile with nothing cached: its record and its entries."""
    core = np.zeros(1, CORE)[0]
    first = 0
    for part in profile.parts:
        for role in part.roles.split():
            name = role.partition("/")[0]
            core["geometry"][ROLES.index(name)] = (first, part.sets - 1, part.ways, profile.shift_of(name))
        first += part.entries
    core["used"] = first
    core["page"], core["host_page"] = PAGE_SIZES.index(page), PAGE_SIZES.index(host_page)
    core["huge_permille"], core["levels"], core["vm"], core["pcid"] = huge_permille, levels, vm, pcid
    core["asids"][:] = -1
    core["asids"][0] = 0
    core["next_asid"] = 1
    core["last"][:] = NO_PAGE
    return core, np.full(first + 1, EMPTY, np.int64)
