# SPDX-License-Identifier: Apache-2.0
"""Swap: slots, the swap cache, write-out in flight, and coming back (mm/swap_state.c, mm/page_io.c, mm/swapfile.c).

A page that reclaim sends out is unmapped at once, stands in the swap cache while it is written, and is freed by a
*later* scan once the write is done: it is rotated to the list's tail then, so it goes before anything else.
What a page in the swap cache is after that: `swap_state.py`; slots and areas: `swapfile.py`.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import SWAP_OUT
from fleetsim.hardware.disk import WRITE, submit
from fleetsim.law import law
from fleetsim.linux.huge_mm import SPLIT_PMD, lose_huge
from fleetsim.linux.memcontrol import add_anon, add_shmem, event_times, swap_limit_room, swap_room
from fleetsim.linux.mm_inline import list_move
from fleetsim.linux.mm_types import EV, NR_WRITEBACK, SETTLED, VM
from fleetsim.linux.nodes import pages_on_nodes
from fleetsim.linux.page_io import compress_ns, swap_writepage, track
from fleetsim.linux.rmap import to_swap, try_to_unmap
from fleetsim.linux.swap_state import add_swap_cache, free_cached, free_clean_slots, untracked
from fleetsim.linux.swap_types import NR_SWAPFILES
from fleetsim.linux.swapfile import choose_unstored, get_swap_pages
from fleetsim.linux.workingset_clock import note_cost

PSWPOUT, PGPGOUT, NR_VMSCAN_WRITE, NR_WRITTEN = VM["pswpout"], VM["pgpgout"], VM["nr_vmscan_write"], VM["nr_written"]
THP_SWPOUT = VM["thp_swpout"]
EV_SWAP_MAX, EV_SWAP_FAIL = EV["swap_max"], EV["swap_fail"]


@law
def compact_writeback(row):
    """Make room in a full table: forget entries of which nothing is left, wherever they stand, and join finished ones of a cohort.

    Without it a finished entry that its idle cgroup never rescans would block all that came after it.

    Source: fleetsim's own table.
    """
    ring, head, kept = row["writeback"], row["wb_head"], 0
    for k in range(row["wb_count"]):
        entry = ring[(head + k) % NR_WRITEBACK]
        if entry["pages"] == 0:
            continue
        joined = False
        for m in range(kept):
            other = ring[(head + m) % NR_WRITEBACK]
            if other["cohort"] == entry["cohort"] and max(other["done_ns"], entry["done_ns"]) <= row["now_ns"]:
                other["pages"] += entry["pages"]
                joined = True
                break
        if not joined:
            place = ring[(head + kept) % NR_WRITEBACK]
            place["cohort"] = entry["cohort"]
            place["pages"] = entry["pages"]
            place["done_ns"] = entry["done_ns"]
            kept += 1
    row["wb_count"] = kept


@law
def wb_room(row, i):
    """True if another write-out of cohort `i` can be tracked.

    Source: fleetsim's own table size; a full table acts like a congested device.
    """
    most = NR_WRITEBACK if row["swap_mode"] == 0 else NR_WRITEBACK - NR_SWAPFILES  # each area's write is an entry of its own
    if row["wb_count"] >= most:
        compact_writeback(row)
    if row["wb_count"] < most:
        return True
    if row["swap_mode"] > 0:
        return False
    last = row["writeback"][(row["wb_head"] + row["wb_count"] - 1) % NR_WRITEBACK]
    return last["cohort"] == i


@law
def unmap_to_cache(row, i, pages):
    """`pages` ordinary pages of cohort `i` get slots, join the swap cache and are unmapped: the write-out begins.

    Source: mm/swap_state.c add_to_swap, mm/vmscan.c shrink_folio_list (try_to_unmap), pageout.
    """
    cohort = row["cohorts"][i]
    cg = cohort["cg"]
    get_swap_pages(row, cohort["group"], cg, pages)
    add_swap_cache(row, cg, pages)
    if row["groups"][cohort["group"]]["shmem"]:
        try_to_unmap(row, cohort["group"], pages, 0)
        add_shmem(row, cg, -pages)
    else:
        add_anon(row, cg, -pages)
        to_swap(row, cohort["group"], pages)
        units = lose_huge(row, cohort["group"], cg, pages)
        row["vm"][THP_SWPOUT] += units
        row["vm"][SPLIT_PMD] += units
    cohort["wb"] += pages


@law
def write_out(row, pages):
    """Submit `pages` pages to the swap device.

    returns  int64  ns, when they are written

    Source: mm/page_io.c swap_writepage.
    """
    row["vm"][PSWPOUT] += pages
    row["vm"][NR_VMSCAN_WRITE] += pages
    row["vm"][NR_WRITTEN] += pages
    row["vm"][PGPGOUT] += 4 * pages
    return submit(row["disk"][row["swap_disk"]], row["now_ns"], pages, WRITE)


@law
def swap_out(row, target, i, pages):
    """Reclaim sends `pages` pages of cohort `i` out.

    target   int64  cgroup whose reclaim evicts
    returns  (int64 pages that are written and freed at once (zram, zswap), int64 pages that could not be written)

    Source: mm/vmscan.c shrink_folio_list → pageout, add_to_swap; kernel-laws §3.7.
    """
    unmap_to_cache(row, i, pages)
    cg = row["cohorts"][i]["cg"]
    freed, failed = 0, 0
    if row["swap_mode"] == 0:
        track(row, i, pages, write_out(row, pages))
    else:
        freed, failed = swap_writepage(row, i, 0)
    note_cost(row, cg, False, pages)
    if freed > 0:
        free_cached(row, target, i, freed)
    return freed, failed


@law
def swap_out_in_place(row, i, pages):
    """A task pages `pages` pages of cohort `i` out by itself: those written before the batch is back on its list stay in place.

    Only a page that is on a list when its write ends goes to the tail; the others wait, written, until a scan meets them.
    returns  int64  pages that are written and freed at once (zram, zswap)

    Source: mm/madvise.c MADV_PAGEOUT → mm/vmscan.c reclaim_pages; mm/swap.c folio_rotate_reclaimable. Leaves out: the few
    pages at the end of each batch whose write ends later (measured: a fifth of them); they stay in place as well.
    """
    unmap_to_cache(row, i, pages)
    if row["swap_mode"] == 0:
        row["cohorts"][i]["flags"] |= SETTLED
        write_out(row, pages)
        return 0
    freed, _ = swap_writepage(row, i, 1)
    if freed > 0:
        free_cached(row, 0, i, freed)
    return freed


@law
def send_out(row, sc, i, pages):
    """Start swapping out up to `pages` anonymous pages; as many as there are slots and room to track them.

    returns  (int64 pages sent; 0 means they stay (the caller activates them), int64 of them freed at once)

    Source: mm/vmscan.c shrink_folio_list (add_to_swap fails → activate); kernel-laws §3.7.
    """
    cg = row["cohorts"][i]["cg"]
    if row["swap_free"] < pages:
        free_clean_slots(row, pages)
    n = min(pages, swap_room(row, cg))
    if n < pages:  # the slot is taken first, then charged: a full device is a fail, a full limit is both
        limited = pages - max(n, min(pages, swap_limit_room(row, cg)))
        if limited > 0:
            event_times(row, cg, EV_SWAP_MAX, limited)
        event_times(row, cg, EV_SWAP_FAIL, pages - n)
    if n <= 0 or not wb_room(row, i):
        return 0, 0
    freed, failed = swap_out(row, sc["target"], i, n)
    sc["spent_ns"] += n * row["cost"][SWAP_OUT] + compress_ns(row, freed)
    sc["sent"] += n - freed - failed
    return n, freed


@law
def write_again(row, sc, i, budget):
    """Pages of cohort `i` whose write failed are met again: try once more; what fails again goes to the list's head.

    returns  (int64 pages tried, int64 pages written and freed at once)

    Source: mm/vmscan.c shrink_folio_list (a dirty page of the swap cache), pageout.
    """
    pages = min(budget, untracked(row, i))
    if pages <= 0 or row["wb_count"] > NR_WRITEBACK - NR_SWAPFILES:
        return 0, 0
    choose_unstored(row, row["cohorts"][i]["group"], pages)
    freed, _ = swap_writepage(row, i, 0)
    if freed > 0:
        free_cached(row, sc["target"], i, freed)
    sc["spent_ns"] += pages * row["cost"][SWAP_OUT] + compress_ns(row, pages)
    if row["cohorts"][i]["nr"] > 0:
        list_move(row, i, row["cohorts"][i]["list"])
    return pages, freed


@law
def free_written(row, target, cg, budget):
    """Free up to `budget` pages of lruvec `cg` whose write-out is done; oldest first.

    returns  int64  pages freed

    Source: mm/swap.c folio_rotate_reclaimable, mm/vmscan.c shrink_folio_list (clean swap-cache page); kernel-laws §3.7.
    """
    freed = 0
    for k in range(row["wb_count"]):
        entry = row["writeback"][(row["wb_head"] + k) % NR_WRITEBACK]
        if entry["done_ns"] > row["now_ns"]:
            if row["swap_mode"] > 0:
                continue  # another area may be faster
            break
        i = entry["cohort"]
        cohort = row["cohorts"][i]
        n = min(entry["pages"], cohort["wb"], pages_on_nodes(row, cohort))
        if entry["pages"] > 0 and n > 0 and cohort["cg"] == cg and freed < budget:
            n = min(n, budget - freed)
            entry["pages"] -= n
            freed += n
            free_cached(row, target, i, n)
        elif n == 0:
            entry["pages"] = 0
    pop_done(row)
    return freed


@law
def pop_done(row):
    """Forget tracked write-outs of which nothing is left.

    Source: fleetsim's own table.
    """
    while row["wb_count"] > 0 and row["writeback"][row["wb_head"]]["pages"] == 0:
        row["wb_head"] = (row["wb_head"] + 1) % NR_WRITEBACK
        row["wb_count"] -= 1
