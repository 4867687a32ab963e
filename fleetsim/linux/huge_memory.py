# SPDX-License-Identifier: Apache-2.0
"""Transparent huge pages of anonymous memory (mm/huge_memory.c): who gets one, at a fault; what becomes of it.

A first write to an aligned 2 MiB of an area that may have huge pages takes 512 pages of one block at once: one minor fault, and the
511 pages after it are there already (`ahead`). The page table is set aside for the day the huge page is split (`huge_mm.py`).
Leaves out: huge pages of files and shared memory, areas that do not begin on 2 MiB, the huge zero page.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import ACCESS, FAULT_HUGE
from fleetsim.law import law
from fleetsim.linux.bags import blend_base, open_bag
from fleetsim.linux.compaction import try_to_compact_pages
from fleetsim.linux.free_area import take_pageblock
from fleetsim.linux.holes import join_region
from fleetsim.linux.huge_mm import HPAGE_PMD_NR, HPAGE_PMD_ORDER, SCAN_SLEEP_NS, add_thp
from fleetsim.linux.kswapd import wakeup_kswapd_order
from fleetsim.linux.memcontrol import count, margin
from fleetsim.linux.mempolicy import first_node
from fleetsim.linux.mm_inline import add_pages, list_add
from fleetsim.linux.mm_types import (
    ACCESSED,
    BY_MEMCG,
    CG,
    LRU_INACTIVE_ANON,
    LRU_NONE,
    NR_ZONES,
    ORDERED,
    VM,
    WMARK_LOW,
    WMARK_MIN,
)
from fleetsim.linux.nodes import numa_statistics, zone_allowed, zonelist
from fleetsim.linux.vmscan import do_try_to_free_pages
from fleetsim.linux.zonelist import PGALLOC

FRESH = 4  # as in memory.py
NEVER, MADVISE, ALWAYS = 0, 1, 2  # transparent_hugepage/enabled
DEFRAG_NEVER, DEFRAG_MADVISE, DEFRAG_DEFER, DEFRAG_DEFER_MADVISE, DEFRAG_ALWAYS = range(5)  # transparent_hugepage/defrag
FAULT_ALLOC, FAULT_FALLBACK, FALLBACK_CHARGE = VM["thp_fault_alloc"], VM["thp_fault_fallback"], VM["thp_fault_fallback_charge"]
CG_FAULT_ALLOC = CG["thp_fault_alloc"]


@law
def hugepage_vma_check(row, area):
    """True if an area may have huge pages: all may in mode `always`, those with MADV_HUGEPAGE in mode `madvise`.

    Source: mm/huge_memory.c hugepage_vma_check; kernel-laws §10.3.
    """
    flag = area["thp_flag"]
    return flag >= 0 and (row["thp_enabled"] == ALWAYS or (row["thp_enabled"] == MADVISE and flag > 0))


@law
def at_pmd_none(area):
    """True if no page table stands where an area is touched next: one that does, since MADV_DONTNEED empty perhaps, is used again.

    Source: mm/memory.c __handle_mm_fault (pmd_none), zap_pte_range (empty page tables stay until munmap).
    Leaves out: page tables of huge pages that were split.
    """
    return area["touched"] >= area["pte_upto"]


@law
def rmqueue_huge(row, mark):
    """Take a block of 2 MiB from the first zone of the zonelist that stays above its watermark and has one.

    returns  int64  the zone, −1: none has

    Source: mm/page_alloc.c get_page_from_freelist, __zone_watermark_ok (order 9); kernel-laws §1.5.
    Leaves out: the huge page that the per-cpu lists keep.
    """
    for place in range(NR_ZONES):
        z = zonelist(row["preferred_node"], place)
        zone = row["zones"][z]
        if (
            zone_allowed(row, z, row["mems_allowed"])
            and zone["free"] - (HPAGE_PMD_NR - 1) > zone["wmark"][mark] + zone["reserve"]
            and take_pageblock(zone)
        ):
            row["vm"][PGALLOC + zone["kind"]] += HPAGE_PMD_NR
            numa_statistics(row, z, 1, first_node(row["mems_allowed"], row["preferred_node"]))
            return z
    return -1


@law
def alloc_hugepage(row, madvised):
    """A huge page for a fault, as hard as transparent_hugepage/defrag allows.

    returns  int64  the zone it is in, −1: none

    Source: mm/huge_memory.c vma_thp_gfp_mask, mm/mempolicy.c vma_alloc_folio; kernel-laws §10.3. A fault that may compact does so
    once for its own node without retries (__GFP_NORETRY); one that was asked for by madvise tries again, before and after reclaim.
    Leaves out: the reclaim itself (with memory above the marks compaction does not need it, and below them it is skipped).
    """
    z = rmqueue_huge(row, WMARK_LOW)
    mode = row["thp_defrag"]
    if z >= 0 or mode == DEFRAG_NEVER:
        return z
    direct = mode == DEFRAG_ALWAYS or (madvised and mode != DEFRAG_DEFER)
    if not direct:
        if mode in (DEFRAG_DEFER, DEFRAG_DEFER_MADVISE):
            wakeup_kswapd_order(row, HPAGE_PMD_ORDER, False)
        return -1
    z = rmqueue_huge(row, WMARK_MIN)
    for _ in range(3 if madvised else 1):
        if z < 0 and try_to_compact_pages(row, HPAGE_PMD_ORDER):
            z = rmqueue_huge(row, WMARK_MIN)
    return z


@law
def charge_hugepage(row, cg, madvised):
    """True if a cgroup has room for 512 pages more, after one round of reclaim for an area that asked for huge pages.

    Source: mm/huge_memory.c __do_huge_pmd_anonymous_page (mem_cgroup_charge with the fault's own mask).
    """
    if cg == 0:
        return True
    room, level = margin(row, cg)
    if room < HPAGE_PMD_NR and madvised:
        do_try_to_free_pages(row, level, HPAGE_PMD_NR, BY_MEMCG)
        row["spent_ns"] += row["scan"][1]["spent_ns"]
        row["reclaim_ns"] += row["scan"][1]["spent_ns"]
        room, _ = margin(row, cg)
    return room >= HPAGE_PMD_NR


@law
def fill_group(row, g, cg, at, z):
    """The 512 pages of a huge page in zone `z` join the cohorts of group `g` from position `at` on.

    Source: mm/rmap.c page_add_new_anon_rmap, mm/swap.c folio_add_lru_vma.
    """
    group = row["groups"][g]
    left = HPAGE_PMD_NR
    while left > 0:
        n = left
        if group["kind"] == ORDERED:
            i = group["first"] + at // group["slice"]
            n = min(n, group["slice"] - at % group["slice"])
            cohort = row["cohorts"][i]
            if cohort["list"] == LRU_NONE:
                cohort["cg"] = cg
                cohort["flags"] = 0
                list_add(row, i, LRU_INACTIVE_ANON)
            cohort["flags"] |= ACCESSED
        else:
            i = open_bag(row, g, cg, LRU_INACTIVE_ANON, 0)
            blend_base(row["cohorts"][i], n, group["touches"] - FRESH * group["pages"])
        row["got"][:] = 0
        row["got"][z] = n
        add_pages(row, i, n)
        join_region(row, z, row["cohorts"][i], n)
        at += n
        left -= n


@law
def do_huge_pmd_anonymous_page(row, th, a, g, at):
    """First write to 2 MiB of area `a`, which begin at position `at` of its group `g`.

    returns  bool  True: 512 pages are allocated and joined the group; the caller maps them. False: fall back to single pages

    Source: mm/huge_memory.c do_huge_pmd_anonymous_page; kernel-laws §10.3.
    """
    area = row["areas"][a]
    task = row["tasks"][area["task"]]
    group = row["groups"][g]
    if group["pages"] - at < HPAGE_PMD_NR or area["pages"] - area["touched"] < HPAGE_PMD_NR:
        return False
    madvised = area["thp_flag"] > 0
    if row["khugepaged_next_ns"] > row["now_ns"] + SCAN_SLEEP_NS:
        row["khugepaged_next_ns"] = row["now_ns"] + SCAN_SLEEP_NS
    z = -1
    if charge_hugepage(row, task["cg"], madvised):
        z = alloc_hugepage(row, madvised)
    else:
        row["vm"][FALLBACK_CHARGE] += 1
    if z < 0:
        row["vm"][FAULT_FALLBACK] += 1
        return False
    fill_group(row, g, task["cg"], at, z)
    group["huge"] += 1
    area["ahead"] = HPAGE_PMD_NR
    add_thp(row, task["cg"], 1)
    row["vm"][FAULT_ALLOC] += 1
    count(row, task["cg"], CG_FAULT_ALLOC, 1)
    row["spent_ns"] += row["cost"][FAULT_HUGE]
    task["stime_ns"] += row["cost"][FAULT_HUGE]
    return True


@law
def touch_ahead(row, area, task, pages):
    """Write to pages that are there because their huge page is.

    Source: the processor alone does it; kernel-laws §10.3.
    """
    n = min(pages, area["ahead"])
    area["ahead"] -= n
    area["touched"] += n
    row["spent_ns"] += n * row["cost"][ACCESS]
    task["utime_ns"] += n * row["cost"][ACCESS]
    return n
