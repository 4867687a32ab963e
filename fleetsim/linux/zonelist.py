# SPDX-License-Identifier: Apache-2.0
"""Taking pages from zones and giving them back (the order-0 part of mm/page_alloc.c; its formulas are in page_alloc.py).

A request walks the zonelist of its node, from the highest zone down and then to the other node, and may empty each zone only to
`mark + lowmem_reserve`; the test is of MemFree alone, pages on the per-cpu lists (`per_cpu_pages.py`) do not count in it. Which blocks
the pages come from is decided when their owner is known (`free_area.py`). Pages on LRU lists remember their zone in their cohort; all
others are counted per zone as `pinned`. Which nodes may be asked, and which first: `mempolicy.py`.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.free_area import blocks_at_least, give_from_kernel, take_for_kernel
from fleetsim.linux.free_pcppages import give_from_cohort, hold_pages
from fleetsim.linux.mempolicy import first_node
from fleetsim.linux.mm_types import NR_ZONES, VM, WMARK_HIGH, ZONE_NODE1, ZONE_NORMAL
from fleetsim.linux.nodes import numa_statistics, of_second_node, zone_allowed, zonelist
from fleetsim.linux.page_alloc import zone_watermark_ok, zone_watermark_usable
from fleetsim.linux.per_cpu_pages import MOVABLE, OTHERS, free_unref_pages, rmqueue_pcplist

PGALLOC, PGFREE = VM["pgalloc_dma"], VM["pgfree"]


@law
def rmqueue(row, pages, mark):
    """Take up to `pages` order-0 pages, leaving every zone at or above a watermark plus its reserve.

    pages    int64  wanted, ≥ 0
    mark     int64  WMARK_MIN, WMARK_LOW or WMARK_HIGH
    returns  int64  pages taken; by zone in row["got"]

    Source: mm/page_alloc.c get_page_from_freelist, __zone_watermark_ok (order 0: free stays above mark + reserve); kernel-laws §1.5, §2.2.
    """
    for z in range(NR_ZONES):
        row["got"][z] = 0
    if row["interleave"] > 0:  # every other page from the next node
        taken = get_page_from_freelist(row, pages - pages // 2, mark, row["mems_allowed"])
        row["preferred_node"] = 1 - row["preferred_node"]
        return taken + get_page_from_freelist(row, pages // 2, mark, row["mems_allowed"])
    return get_page_from_freelist(row, pages, mark, row["mems_allowed"])


@law
def get_page_from_freelist(row, pages, mark, nodes):
    """Take up to `pages` order-0 pages from some nodes, the preferred one first; row["got"] grows by them.

    nodes    int64  a bit for each
    returns  int64  pages taken

    Source: mm/page_alloc.c get_page_from_freelist.
    """
    taken = 0
    first = first_node(nodes, row["preferred_node"])
    for place in range(NR_ZONES):
        z = zonelist(row["preferred_node"], place)
        if taken < pages and zone_allowed(row, z, nodes):
            taken += take_from_zone(row, z, pages - taken, mark, first)
    return taken


@law
def take_from_zone(row, z, pages, mark, first):
    """Take up to `pages` order-0 pages from one zone; row["got"] grows by them.

    first    int64  the node that was asked first
    returns  int64  pages taken

    Source: mm/page_alloc.c rmqueue.
    """
    zone = row["zones"][z]
    room = zone["free"] - zone["wmark"][mark] - zone["reserve"]
    if room <= 0:
        return 0
    k = rmqueue_pcplist(zone, pages, room)
    row["vm"][PGALLOC + zone["kind"]] += k
    numa_statistics(row, z, k, first)
    row["got"][z] += k
    return k


@law
def give_back(row, cohort, pages):
    """Return `pages` pages of a cohort to their zones, the highest zone first (it was filled first).

    Source: mm/page_alloc.c free_unref_page_list; which zone goes first is a property of our cohorts (filled highest zone first).
    """
    far = of_second_node(row, cohort, pages)
    if far > 0:
        give_to_zone(row, cohort, ZONE_NODE1, far)
        cohort["node1"] -= far
    high = cohort["nr"] - far - cohort["node1"] - cohort["low_zone"][0] - cohort["low_zone"][1]
    rest = pages - far
    k = min(rest, high)
    give_to_zone(row, cohort, ZONE_NORMAL, k)
    for back in range(ZONE_NORMAL):
        z = ZONE_NORMAL - 1 - back
        rest -= k
        k = min(rest, cohort["low_zone"][z])
        give_to_zone(row, cohort, z, k)
        cohort["low_zone"][z] -= k
    give_from_cohort(row, cohort)
    row["vm"][PGFREE] += pages


@law
def give_to_zone(row, cohort, z, pages):
    """Pages of a cohort that lie in zone `z` go to its per-cpu lists.

    Source: mm/page_alloc.c free_unref_page_commit.
    """
    if pages == 0:
        return
    if row["free_run"] > 0:
        hold_pages(row, z, cohort, pages)
    free_unref_pages(row, row["zones"][z], MOVABLE, pages)


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
    """Give back pages that stood on no list, in the order of the zonelist, never those taken before the host was up.

    Source: mm/page_alloc.c __free_pages; the zone order is fleetsim's own choice.
    """
    rest = pages
    for place in range(NR_ZONES):
        zone = row["zones"][zonelist(row["preferred_node"], place)]
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
def balanced(row, order, nodes):
    """True if any one zone of `nodes` is above its high watermark and reserve, with a block of the order: kswapd's goal.

    Source: mm/vmscan.c pgdat_balanced; kernel-laws §3.9.
    """
    found = False
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        found = found or (zone_allowed(row, z, nodes) and watermark_ok(zone, order, zone["wmark"][WMARK_HIGH]))
    return found


@law
def watermark_boosted(row, nodes):
    """True if some zone's marks on `nodes` are boosted.

    Source: mm/vmscan.c pgdat_watermark_boosted.
    """
    total = 0
    for z in range(NR_ZONES):
        if zone_allowed(row, z, nodes):
            total += row["zones"][z]["boost"]
    return total > 0
