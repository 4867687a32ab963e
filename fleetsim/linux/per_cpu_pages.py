# SPDX-License-Identifier: Apache-2.0
"""Per-cpu lists of single pages (struct per_cpu_pages of mm/page_alloc.c): pages on them are free to the CPU, but not in MemFree.

A page given back goes to its CPU's list. Once the list holds `high` pages it is trimmed: by a batch first, by twice as much each
further time in a row, down to one batch at last; while kswapd reclaims, `high` is four batches. An allocation takes from the list,
which is refilled by whole batches. So a large exit hides up to one low watermark of pages, and the next allocations take them.
Leaves out: which CPU (one list stands for the CPU that frees and allocates), blocks of order 1 to 3 apart from single kernel pages.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.free_pcppages import give_from_lists
from fleetsim.linux.mm_types import KSWAPD_RUN, NR_ZONES

MOVABLE, OTHERS = 0, 1


@law
def nr_pcp_high(row, zone):
    """Pages the list may hold now.

    Source: mm/page_alloc.c nr_pcp_high; kernel-laws §1.7.
    """
    if row["kswapd"][zone["node"]]["state"] == KSWAPD_RUN:
        return min(zone["pcp_high"], 4 * zone["pcp_batch"])
    return zone["pcp_high"]


@law
def rmqueue_pcplist(zone, pages, room):
    """Take up to `pages` pages: those on the list first, then whole batches of at most `room` pages more from the free lists.

    room     int64  pages the zone may give before it is at its mark; the last batch may go below it
    returns  int64  pages taken

    Source: mm/page_alloc.c rmqueue_pcplist, rmqueue_bulk; kernel-laws §1.7.
    """
    have = zone["pcp"][MOVABLE]
    zone["pcp_factor"] >>= min(pages, 32)
    if pages <= have:
        zone["pcp"][MOVABLE] = have - pages
        return pages
    batch = zone["pcp_batch"]
    wanted = min(pages - have, room)
    bulk = min((wanted + batch - 1) // batch * batch, zone["free"])
    zone["free"] -= bulk
    zone["pcp"][MOVABLE] = bulk - min(wanted, bulk)
    return have + min(wanted, bulk)


@law
def free_pcppages_bulk(zone, pages):
    """Trim the list by `pages` pages, the kernel's and the others' in turn.

    Source: mm/page_alloc.c free_pcppages_bulk.
    """
    others = min(zone["pcp"][OTHERS], max(pages // 2, pages - zone["pcp"][MOVABLE]))
    zone["pcp"][OTHERS] -= others
    zone["pcp"][MOVABLE] -= pages - others
    zone["free"] += pages


@law
def free_unref_pages(row, zone, kind, pages):
    """Give back `pages` single pages, one after the other.

    kind  int64  MOVABLE or OTHERS

    Source: mm/page_alloc.c free_unref_page_commit, nr_pcp_free; kernel-laws §1.7.
    """
    high, batch = nr_pcp_high(row, zone), zone["pcp_batch"]
    while pages > 0:
        count = zone["pcp"][MOVABLE] + zone["pcp"][OTHERS]
        step = max(1, min(pages, high - count))
        zone["pcp"][kind] += step
        pages -= step
        count += step
        if count >= high:
            most = max(batch, high - batch)
            bulk = batch << min(zone["pcp_factor"], 32)
            if bulk < most:
                zone["pcp_factor"] += 1
            free_pcppages_bulk(zone, min(count, max(batch, min(bulk, most))))


@law
def trim(row):
    """kswapd is at work: whoever gives a page back on this CPU now finds the list too long, and trims it; somebody always does.

    Source: mm/page_alloc.c nr_pcp_high (ZONE_RECLAIM_ACTIVE); the one page given back stands for RCU, slab and interrupts.
    """
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        over = zone["pcp"][MOVABLE] + zone["pcp"][OTHERS] - nr_pcp_high(row, zone)
        if over > 0:
            free_pcppages_bulk(zone, over)
    give_from_lists(row)


@law
def drain_all_pages(row):
    """Empty the per-cpu lists of all zones.

    Source: mm/page_alloc.c drain_all_pages.
    """
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        zone["free"] += zone["pcp"][MOVABLE] + zone["pcp"][OTHERS]
        zone["pcp"][MOVABLE] = 0
        zone["pcp"][OTHERS] = 0
    give_from_lists(row)


@law
def nr_pcp(row):
    """Pages on the per-cpu lists of all zones (`free_pcp` of the kernel's reports).

    Source: mm/page_alloc.c show_free_areas.
    """
    total = 0
    for z in range(NR_ZONES):
        total += row["zones"][z]["pcp"][MOVABLE] + row["zones"][z]["pcp"][OTHERS]
    return total
