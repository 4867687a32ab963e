# SPDX-License-Identifier: Apache-2.0
"""The record of one logical CPU's translation hardware, and how it is made from a profile.

All of it is one row of `CORE`; a copy is a snapshot. The entries are in it, though few profiles need all the room, because laws reach
what is in a record by its address alone: an array of its own is passed as seven words, and counted as owned at each call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetsim.hardware.tlb_cache import EMPTY
from fleetsim.hardware.tlb_index import new_block, stride_of
from fleetsim.hardware.tlb_profiles import PAGE_SIZES, ROLES, Profile

# rows of core["geometry"]: the order of tlb_profiles.ROLES
L1, L2, CODE = 0, 6, 3  # L1 + CODE · stream + page size
PDE, NESTED, NESTED_PDE = 12, 15, 18
assert ROLES[L1] == "d4K" and ROLES[L1 + CODE] == "i4K" and ROLES[L2 + CODE + 2] == "I1G"
assert ROLES[PDE] == "PDE" and ROLES[NESTED] == "n4K" and ROLES[NESTED_PDE] == "nPDE"

# columns of core["geometry"]
FIRST, SET_MASK, WAYS, SHIFT, STRIDE = range(5)  # STRIDE: words of a set; more than its ways if it is a block of tlb_index

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

ENTRIES_MAX = 1 << 14

CORE = np.dtype(
    [
        ("entries", "i8", (ENTRIES_MAX,)),  # all sets of all parts
        ("geometry", "i8", (len(ROLES), 5)),
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
) -> Any:
    """A CPU of that profile with nothing cached."""
    core = np.zeros(1, CORE)[0]
    core["entries"][:] = EMPTY
    first = 0
    for part in profile.parts:
        stride = stride_of(part.ways)
        for role in part.roles.split():
            name = role.partition("/")[0]
            core["geometry"][ROLES.index(name)] = (first, part.sets - 1, part.ways, profile.shift_of(name), stride)
        end = first + part.sets * stride
        assert end <= ENTRIES_MAX, f"the parts of {profile.name} take more than {ENTRIES_MAX} words: raise ENTRIES_MAX"
        if stride > part.ways:
            for at in range(first, end, stride):
                core["entries"][at : at + stride] = new_block(at, part.ways)
        first = end
    core["page"], core["host_page"] = PAGE_SIZES.index(page), PAGE_SIZES.index(host_page)
    core["huge_permille"], core["levels"], core["vm"], core["pcid"] = huge_permille, levels, vm, pcid
    core["asids"][:] = -1
    core["asids"][0] = 0
    core["next_asid"] = 1
    core["last"][:] = NO_PAGE
    return core
