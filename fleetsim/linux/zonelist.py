# SPDX-License-Identifier: Apache-2.0
"""Taking pages from zones and giving them back (the order-0 part of mm/page_alloc.c; its formulas are in page_alloc.py).

A request walks the zonelist from the highest zone down and may empty each zone only to `mark + lowmem_reserve`; the test is of
MemFree alone, pages on the per-cpu lists (`per_cpu_pages.py`) do not count in it. Which blocks the pages come from is decided when
their owner is known (`free_area.py`). Pages on LRU lists remember their zone in their cohort; all others are counted per zone
as `pinned`. Leaves out: NUMA.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.free_area import blocks_at_least, give_from_kernel, take_for_kernel
from fleetsim.linux.free_pcppages import give_from_cohort, hold_pages
from fleetsim.linux.mm_types import NR_ZONES, VM, WMARK_HIGH
from fleetsim.linux.page_alloc import zone_watermark_ok, zone_watermark_usable
from fleetsim.linux.per_cpu_pages import MOVABLE, OTHERS, free_unref_pages, rmqueue_pcplist

PGALLOC, PGFREE, NUMA_HIT = VM["pgalloc_dma"], VM["pgfree"], VM["numa_hit"]


@law
def rmqueue(row, pages, mark):
    """Take up to `pages` order-0 pages, leaving every zone at or above a watermark plus its reserve.

    pages    int64  wanted, ≥ 0
    mark     int64  WMARK_MIN, WMARK_LOW or WMARK_HIGH
    returns  int64  pages taken; by zone in row["got"]

    Source: mm/page_alloc.c get_page_from_freelist, __zone_watermark_ok (order 0: free stays above mark + reserve); kernel-laws §1.5, §2.2.
    """
    taken = 0
    for back in range(NR_ZONES):
        z = NR_ZONES - 1 - back
        zone = row["zones"][z]
        k = 0
        room = zone["free"] - zone["wmark"][mark] - zone["reserve"]
        if zone["managed"] > 0 and taken < pages and room > 0:
            k = rmqueue_pcplist(zone, pages - taken, room)
            row["vm"][PGALLOC + z] += k
            taken += k
        row["got"][z] = k
    row["vm"][NUMA_HIT] += taken
    return taken


@law
def give_back(row, cohort, pages):
    """Return `pages` pages of a cohort to their zones, the highest zone first (it was filled first).

    Source: mm/page_alloc.c free_unref_page_list; which zone goes first is a property of our cohorts (filled highest zone first).
    """
    high = cohort["nr"] - cohort["low_zone"][0] - cohort["low_zone"][1]
    rest = pages
    for back in range(NR_ZONES):
        z = NR_ZONES - 1 - back
        have = high if z == NR_ZONES - 1 else cohort["low_zone"][z]
        k = min(rest, have)
        if row["free_run"] > 0:
            hold_pages(row, z, cohort, k)
        free_unref_pages(row, row["zones"][z], MOVABLE, k)
        if z < NR_ZONES - 1:
            cohort["low_zone"][z] -= k
        rest -= k
    give_from_cohort(row, cohort)
    row["vm"][PGFREE] += pages


@law
def free_scattered(row, cohort, pages, every):
    """Return `pages` pages of a cohort between every two of which pages stay behind: one of `every` is kept.

    Source: mm/page_alloc.c free_unref_page_list (what stays behind keeps them from joining to larger blocks).
    """
    row["free_run"] = every - 1
    give_back(row, cohort, pages)
    row["free_run"] = 0


@law
def pin_got(row):
    """The pages just taken (`row["got"]`) belong to the kernel or to a program's image, not to an LRU list.

    They come from the per-cpu list of their own kind, if there are any: those that were taken from the other list go back to it.

    Source: mm/page_alloc.c rmqueue_pcplist (a list per migratetype); fleetsim's own bookkeeping (kernel-laws §0).
    """
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        zone["pinned"] += row["got"][z]
        own = min(row["got"][z], zone["pcp"][OTHERS])
        zone["pcp"][OTHERS] -= own
        zone["pcp"][MOVABLE] += own
    take_for_kernel(row)


@law
def unpin(row, pages):
    """Give back pages that stood on no list, the highest zone first, never those taken before the host was up.

    Source: mm/page_alloc.c __free_pages; the zone order is fleetsim's own choice.
    """
    rest = pages
    for back in range(NR_ZONES):
        zone = row["zones"][NR_ZONES - 1 - back]
        k = min(rest, zone["pinned"] - zone["boot_pinned"])
        zone["pinned"] -= k
        free_unref_pages(row, zone, OTHERS, k)
        rest -= k
    give_from_kernel(row)
    row["vm"][PGFREE] += pages - rest


@law
def watermark_ok(zone, order, mark):
    """True if a zone with pages may give a block of an order and stay above a mark of `mark` pages and its reserve.

    Source: mm/page_alloc.c zone_watermark_ok; kernel-laws §1.5.
    """
    if zone["managed"] == 0:
        return False
    usable = zone_watermark_usable(zone["free"], order, 0, 0)
    return zone_watermark_ok(usable, mark, zone["reserve"], order, 0 if order == 0 else blocks_at_least(zone, order))


@law
def balanced(row, order):
    """True if any one zone is above its high watermark and reserve, with a block of the order: kswapd's goal.

    Source: mm/vmscan.c pgdat_balanced; kernel-laws §3.9.
    """
    found = False
    for z in range(NR_ZONES):
        found = found or watermark_ok(row["zones"][z], order, row["zones"][z]["wmark"][WMARK_HIGH])
    return found


@law
def watermark_boosted(row):
    """True if some zone's marks are boosted.

    Source: mm/vmscan.c pgdat_watermark_boosted.
    """
    total = 0
    for z in range(NR_ZONES):
        total += row["zones"][z]["boost"]
    return total > 0


@law
def nr_free(row):
    """NR_FREE_PAGES of the host, pages.

    Source: mm/vmstat.c global_zone_page_state(NR_FREE_PAGES).
    """
    total = 0
    for z in range(NR_ZONES):
        total += row["zones"][z]["free"]
    return total


@law
def nr_high(row):
    """Σ over zones of the high watermark, pages.

    Source: mm/vmscan.c prepare_scan_count (total_high_wmark).
    """
    total = 0
    for z in range(NR_ZONES):
        total += row["zones"][z]["wmark"][WMARK_HIGH]
    return total
