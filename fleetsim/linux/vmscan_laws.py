# SPDX-License-Identifier: Apache-2.0
"""Reclaim's decisions as scalar laws: which list, how much of it, what becomes of a page. The big loops are `vmscan.py`.

Rules: pages; a list's size is its count at the moment of the question; costs and shares as `workingset.lru_note_cost` keeps them.
Leaves out: multi-generational LRU, memory tiers (demotion), offline cgroups.
Source: mm/vmscan.c (Linux 6.1); kernel-laws §3.
"""

from __future__ import annotations

from enum import IntEnum

from fleetsim.law import law
from fleetsim.linux.math64 import int_sqrt
from fleetsim.linux.mm_types import SWAP_CLUSTER_MAX

PAGES_PER_GIB_SHIFT = 18


class ScanBalance(IntEnum):
    """How a pass shares its work between anon and file lists."""

    EQUAL = 0  # all of both
    FRACT = 1  # by swappiness and costs
    ANON = 2
    FILE = 3


class PageRef(IntEnum):
    """What becomes of a page at the tail of an inactive list."""

    RECLAIM = 0
    RECLAIM_CLEAN = 1  # only if it need not be written first
    KEEP = 2  # one more round on the inactive list, marked referenced
    ACTIVATE = 3


@law
def inactive_is_low(inactive: int, active: int) -> bool:
    """Should active pages be deactivated? The inactive list must be a √-shaped part of the whole.

        ratio = isqrt(10 · GiB of both lists), 1 below one GiB;   inactive · ratio < active

    inactive  int64  pages
    active    int64  pages
    returns   bool

    Source: mm/vmscan.c inactive_is_low; kernel-laws 3.2, T-3.1. Leaves out: nothing.
    """
    if inactive >= active:  # the ratio is 1 at least
        return False
    gib = (inactive + active) >> PAGES_PER_GIB_SHIFT
    ratio = int_sqrt(10 * gib) if gib > 0 else 1
    return inactive * ratio < active


@law
def cache_trim_mode(inactive_file: int, priority: int, may_deactivate_file: bool) -> bool:
    """Is there enough used-once cache to take only that?

        inactive_file >> priority > 0, and the active file list is not to be deactivated

    inactive_file        int64  pages
    priority             int64  0..12
    may_deactivate_file  bool   DEACTIVATE_FILE of this pass
    returns              bool

    Source: mm/vmscan.c prepare_scan_count; kernel-laws 3.4. Leaves out: nothing.
    """
    return inactive_file >> priority > 0 and not may_deactivate_file


@law
def file_is_tiny(file_lru: int, free: int, high_sum: int, may_deactivate_anon: bool, inactive_anon: int, priority: int) -> bool:
    """Is so little page cache left that reclaiming it would only thrash? (global reclaim only)

        file_lru + free ≤ high_sum, anon need not be deactivated first, and inactive_anon >> priority > 0

    file_lru             int64  pages on both file lists of the node
    free                 int64  free pages of the node
    high_sum             int64  Σ high watermarks of the node
    may_deactivate_anon  bool   DEACTIVATE_ANON of this pass
    inactive_anon        int64  pages
    priority             int64  0..12
    returns              bool

    Source: mm/vmscan.c prepare_scan_count; kernel-laws 3.4. Leaves out: nothing.
    """
    return file_lru + free <= high_sum and not may_deactivate_anon and inactive_anon >> priority > 0


@law
def scan_balance(can_swap: bool, memcg_reclaim: bool, swappiness: int, priority: int, tiny: bool, trim: bool) -> ScanBalance:
    """Which lists a pass looks at; the first rule that matches wins.

        no swap to be had → FILE;  a cgroup's limit with swappiness 0 → FILE;  priority 0 with swappiness → EQUAL;
        file is tiny → ANON;  cache trim → FILE;  else FRACT

    can_swap       bool   swapping is allowed and there is swap space for this cgroup
    memcg_reclaim  bool   reclaim for a cgroup's limit, not for the host
    swappiness     int64  vm.swappiness, 0..200
    priority       int64  0..12
    tiny           bool   file_is_tiny of this pass (never true for a cgroup's limit)
    trim           bool   cache_trim_mode of this pass
    returns        ScanBalance

    Source: mm/vmscan.c get_scan_count; kernel-laws 3.5.
    Leaves out: demotion to another memory tier counts as swap in the kernel.
    """
    if not can_swap:
        return ScanBalance.FILE
    if memcg_reclaim and swappiness == 0:
        return ScanBalance.FILE
    if priority == 0 and swappiness != 0:
        return ScanBalance.EQUAL
    if tiny:
        return ScanBalance.ANON
    if trim:
        return ScanBalance.FILE
    return ScanBalance.FRACT


@law
def fract_anon_file(swappiness: int, anon_cost: int, file_cost: int) -> tuple[int, int]:
    """The weights of anon and file in a FRACT pass: the side whose reclaim was dearer is spared.

        T = A + C;  a = T + A;  f = T + C;  U = a + f
        ap = s·(U+1)/(a+1);  fp = (200−s)·(U+1)/(f+1);   share of anon = ap/(ap+fp)

    swappiness  int64  s, 0..200
    anon_cost   int64  A, decayed pages written or refaulted, 0..2^40
    file_cost   int64  C, the same
    returns     (int64, int64)  ap, fp; not both 0

    Source: mm/vmscan.c get_scan_count; kernel-laws 3.5, T-3.2 to T-3.6. Leaves out: nothing.
    """
    total = anon_cost + file_cost
    anon = total + anon_cost
    file = total + file_cost
    both = anon + file + 1
    return swappiness * both // (anon + 1), (200 - swappiness) * both // (file + 1)


@law
def protected_size(size: int, usage: int, protection: int) -> int:
    """How much of a list reclaim may look at when its cgroup is protected by memory.min or memory.low.

        max(32, size − size · P / (max(usage, P) + 1));   size itself if P is 0

    size        int64  pages of the list, 0..2^31
    usage       int64  pages charged to the cgroup
    protection  int64  P, effective protection, 0..2^31 (a cgroup with usage ≤ P is skipped before this)
    returns     int64  pages

    Source: mm/vmscan.c get_scan_count; kernel-laws 3.5, T-3.7.
    Leaves out: the floor of 32 when only memory.low is set and is being overridden (P is then 0 here).
    """
    if protection == 0:
        return size
    scan = size - size * protection // (max(usage, protection) + 1)
    return max(scan, SWAP_CLUSTER_MAX)


@law
def scan_target(size: int, priority: int, share_num: int, share_den: int) -> int:
    """Pages of one list to look at in this pass.

        (size >> priority) · share_num / share_den

    size       int64  pages after protected_size
    priority   int64  0..12
    share_num  int64  the list's weight; 1 of 1 for EQUAL or the only side, 0 for the side not wanted
    share_den  int64  the sum of weights, > 0
    returns    int64  pages

    Source: mm/vmscan.c get_scan_count; kernel-laws 3.5.
    Leaves out: offline cgroups (at least min(size, 32), rounded up).
    """
    return (size >> priority) * share_num // share_den


@law
def check_references(pte_refs: int, referenced: bool, is_file: bool, is_exec: bool, mlocked: bool) -> PageRef:
    """What becomes of an inactive page, by how it was used since it was last looked at.

        mlocked → ACTIVATE
        mapped and touched:  referenced before, or touched through two mappings, or program text → ACTIVATE;  else KEEP
        not touched:  a file page with the Referenced flag → RECLAIM_CLEAN;  else RECLAIM

    pte_refs    int64  mappings whose accessed bit was set
    referenced  bool   the page's Referenced flag
    is_file     bool   on a file list
    is_exec     bool   touched through an executable mapping
    mlocked     bool   some mapping is locked
    returns     PageRef;  after a touch the caller sets the Referenced flag, else it clears it

    Source: mm/vmscan.c folio_check_references; kernel-laws 3.1. Leaves out: rmap lock contention (KEEP).
    """
    if mlocked:
        return PageRef.ACTIVATE
    if pte_refs > 0:
        if referenced or pte_refs > 1 or (is_exec and is_file):
            return PageRef.ACTIVATE
        return PageRef.KEEP
    if referenced and is_file:
        return PageRef.RECLAIM_CLEAN
    return PageRef.RECLAIM
