# SPDX-License-Identifier: Apache-2.0
"""khugepaged: every ten seconds eight times 2 MiB of address space are looked at, and small pages there become huge (mm/khugepaged.c).

Leaves out: ranges with pages missing or in swap (max_ptes_none, max_ptes_swap), memory used at random, files and shared memory.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import FAULT_HUGE
from fleetsim.law import law
from fleetsim.linux.compaction import try_to_compact_pages
from fleetsim.linux.cputime import account_time, idlest_cpu
from fleetsim.linux.holes import join_region
from fleetsim.linux.huge_memory import hugepage_vma_check, rmqueue_huge
from fleetsim.linux.huge_mm import HPAGE_PMD_NR, HPAGE_PMD_ORDER, SCAN_SLEEP_NS, add_thp
from fleetsim.linux.memcontrol import count
from fleetsim.linux.mm_types import (
    AREA_ANON,
    AREA_FREE,
    CG,
    HELD_BY_KSWAPD,
    NEVER,
    NR_AREAS,
    NS_PER_S,
    ORDERED,
    TASK_RUNNING,
    VM,
    WMARK_LOW,
    ZONE_NODE1,
)
from fleetsim.linux.zonelist import give_back

RANGES_TO_SCAN = 8  # khugepaged/pages_to_scan 4096
ALLOC_SLEEP_NS = 60 * NS_PER_S
COLLAPSE_ALLOC, COLLAPSE_FAILED = VM["thp_collapse_alloc"], VM["thp_collapse_alloc_failed"]
CG_COLLAPSE = CG["thp_collapse_alloc"]


@law
def collapse_huge_page(row, a, at):
    """The 512 single pages of area `a` from position `at` on become one huge page, if one can be had.

    returns  bool  False: no huge page is free

    Source: mm/khugepaged.c collapse_huge_page; kernel-laws §10.4.
    """
    area = row["areas"][a]
    group = row["groups"][area["group"]]
    z = rmqueue_huge(row, WMARK_LOW)
    if z < 0 and try_to_compact_pages(row, HPAGE_PMD_ORDER):
        z = rmqueue_huge(row, WMARK_LOW)
    if z < 0:
        row["vm"][COLLAPSE_FAILED] += 1
        return False
    left = HPAGE_PMD_NR
    while left > 0:
        cohort = row["cohorts"][group["first"] + at // group["slice"]]
        n = min(left, group["slice"] - at % group["slice"])
        give_back(row, cohort, n)
        if z < 2:
            cohort["low_zone"][z] += n
        elif z == ZONE_NODE1:
            cohort["node1"] += n
        join_region(row, z, cohort, n)
        at += n
        left -= n
    cg = row["tasks"][area["task"]]["cg"]
    group["huge"] += 1
    add_thp(row, cg, 1)
    row["vm"][COLLAPSE_ALLOC] += 1
    count(row, cg, CG_COLLAPSE, 1)
    row["spent_ns"] += row["cost"][FAULT_HUGE]
    return True


@law
def all_present(row, group, at):
    """True if the 512 pages from position `at` of an ordered group on are in memory, mapped, and its alone.

    Source: mm/khugepaged.c khugepaged_scan_pmd. A slice is seen as a whole.
    """
    first, last = at // group["slice"], (at + HPAGE_PMD_NR - 1) // group["slice"]
    for k in range(first, last + 1):
        cohort = row["cohorts"][group["first"] + k]
        if cohort["nr"] - cohort["wb"] < min(group["slice"], group["pages"] - k * group["slice"]):
            upto = k * group["slice"] + cohort["nr"] - cohort["wb"]  # a slice that is being filled, in order
            if cohort["swapped"] > 0 or cohort["wb"] > 0 or upto < at + HPAGE_PMD_NR:
                return False
    return True


@law
def areas_end(row):
    """One more than the last row that is an area; 1 if there is none. What lies beyond may not set the order of a round, since
    another size class has more of it.

    Source: fleetsim's own table.
    """
    end = NR_AREAS
    while end > 1 and row["areas"][end - 1]["kind"] == AREA_FREE:
        end -= 1
    return end


@law
def run_khugepaged(row):
    """One round of khugepaged: the next eight ranges of the areas that may have huge pages.

    Source: mm/khugepaged.c khugepaged_do_scan, khugepaged_scan_mm_slot; kernel-laws §10.4.
    """
    row["spent_ns"] = 0
    row["in_lru_fault"] = 0
    row["khugepaged_next_ns"] = row["now_ns"] + SCAN_SLEEP_NS
    left, seen, todo = RANGES_TO_SCAN, 0, 0
    end = areas_end(row)
    a, at = row["khugepaged_area"], row["khugepaged_at"]
    if a >= end:
        a, at = 0, 0
    while left > 0 and seen <= end:
        area = row["areas"][a]
        ordered, upto = False, 0
        if area["kind"] == AREA_ANON and row["tasks"][area["task"]]["state"] == TASK_RUNNING and hugepage_vma_check(row, area):
            group = row["groups"][area["group"]]
            ordered = group["kind"] == ORDERED and group["task"] >= 0
            upto = min(area["touched"], group["pages"])
            if ordered and group["huge"] < upto // HPAGE_PMD_NR:
                todo += 1
        if not ordered or at + HPAGE_PMD_NR > upto:
            a = a + 1 if a + 1 < end else 0
            at = 0
            seen += 1
            continue
        left -= 1
        group = row["groups"][area["group"]]
        if at >= group["huge"] * HPAGE_PMD_NR and all_present(row, group, at) and not collapse_huge_page(row, a, at):
            row["khugepaged_next_ns"] = row["now_ns"] + ALLOC_SLEEP_NS
            break
        at += HPAGE_PMD_NR
    row["khugepaged_area"], row["khugepaged_at"] = a, at
    if row["spent_ns"] > 0:
        account_time(row, idlest_cpu(row), HELD_BY_KSWAPD, 0, row["spent_ns"])  # a kernel thread that others preempt, as kswapd
    if todo == 0:
        row["khugepaged_next_ns"] = NEVER
