# SPDX-License-Identifier: Apache-2.0
"""Swap: slots, the swap cache, write-out in flight, and coming back (mm/swap_state.c, mm/page_io.c, mm/swapfile.c).

A page that reclaim sends out is unmapped at once, stands in the swap cache while it is written, and is freed by a
*later* scan once the write is done: it is rotated to the list's tail then, so it goes before anything else.
What a page in the swap cache is after that: `swap_state.py`; slots and areas: `swapfile.py`.
"""

from __future__ import annotations

from fleetsim.hardware.disk import WRITE, submit
from fleetsim.law import law
from fleetsim.linux.huge_mm import SPLIT_PMD, lose_huge
from fleetsim.linux.memcontrol import add_anon, add_shmem
from fleetsim.linux.mm_types import NR_WRITEBACK, SETTLED, VM
from fleetsim.linux.rmap import to_swap, try_to_unmap
from fleetsim.linux.swap_state import add_swap_cache, free_cached
from fleetsim.linux.swapfile import get_swap_pages
from fleetsim.linux.workingset_clock import note_cost

PSWPOUT, PGPGOUT, NR_VMSCAN_WRITE, NR_WRITTEN = VM["pswpout"], VM["pgpgout"], VM["nr_vmscan_write"], VM["nr_written"]
THP_SWPOUT = VM["thp_swpout"]
JOIN_NS = 2_000_000  # write-outs of one cohort this close to each other are tracked as one


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
    if row["wb_count"] == NR_WRITEBACK:
        compact_writeback(row)
    if row["wb_count"] < NR_WRITEBACK:
        return True
    last = row["writeback"][(row["wb_head"] + row["wb_count"] - 1) % NR_WRITEBACK]
    return last["cohort"] == i


@law
def unmap_to_cache(row, i, pages):
    """`pages` ordinary pages of cohort `i` get slots, join the swap cache and are unmapped: the write-out begins.

    Source: mm/swap_state.c add_to_swap, mm/vmscan.c shrink_folio_list (try_to_unmap), pageout.
    """
    cohort = row["cohorts"][i]
    cg = cohort["cg"]
    get_swap_pages(row, cg, pages)
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
    row["vm"][PSWPOUT] += pages
    row["vm"][NR_VMSCAN_WRITE] += pages
    row["vm"][NR_WRITTEN] += pages
    row["vm"][PGPGOUT] += 4 * pages


@law
def write_out(row, pages):
    """Submit `pages` pages to the swap device.

    returns  int64  ns, when they are written

    Source: mm/page_io.c swap_writepage.
    """
    return submit(row["disk"][row["swap_disk"]], row["now_ns"], pages, WRITE)


@law
def track(row, i, pages, done):
    """Remember that `pages` pages of cohort `i` are written at `done`: a later scan frees them first (they are rotated to the tail).

    Source: mm/page_io.c end_swap_bio_write → mm/swap.c folio_rotate_reclaimable.
    """
    last = row["writeback"][(row["wb_head"] + row["wb_count"] - 1) % NR_WRITEBACK]
    if row["wb_count"] > 0 and last["cohort"] == i and (done - last["done_ns"] < JOIN_NS or row["wb_count"] == NR_WRITEBACK):
        last["pages"] += pages
        last["done_ns"] = max(last["done_ns"], done)
    else:
        entry = row["writeback"][(row["wb_head"] + row["wb_count"]) % NR_WRITEBACK]
        entry["cohort"] = i
        entry["pages"] = pages
        entry["done_ns"] = done
        row["wb_count"] += 1


@law
def swap_out(row, i, pages):
    """Reclaim sends `pages` pages of cohort `i` out.

    Source: mm/vmscan.c shrink_folio_list → pageout, add_to_swap; kernel-laws §3.7.
    """
    unmap_to_cache(row, i, pages)
    track(row, i, pages, write_out(row, pages))
    note_cost(row, row["cohorts"][i]["cg"], False, pages)


@law
def swap_out_in_place(row, i, pages):
    """A task pages `pages` pages of cohort `i` out by itself: those written before the batch is back on its list stay in place.

    Only a page that is on a list when its write ends goes to the tail; the others wait, written, until a scan meets them.

    Source: mm/madvise.c MADV_PAGEOUT → mm/vmscan.c reclaim_pages; mm/swap.c folio_rotate_reclaimable. Leaves out: the few
    pages at the end of each batch whose write ends later (measured: a fifth of them); they stay in place as well.
    """
    unmap_to_cache(row, i, pages)
    row["cohorts"][i]["flags"] |= SETTLED
    write_out(row, pages)


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
            break
        i = entry["cohort"]
        cohort = row["cohorts"][i]
        n = min(entry["pages"], cohort["wb"])
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
