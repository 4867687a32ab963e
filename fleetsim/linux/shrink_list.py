# SPDX-License-Identifier: Apache-2.0
"""What becomes of the pages at the tail of a list (mm/vmscan.c shrink_inactive_list, shrink_folio_list, shrink_active_list).

An ordered cohort is evicted page by page but rotated, activated or deactivated as a whole, once scan budget for all of
its pages was spent on it (`off` carries the budget). A bag is split: the accessed share is kept, the rest goes.
A file page that is dirty or under writeback is not dropped: it goes to the active list, and comes to the tail when it is written.
Leaves out: huge pages.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import RECLAIM, REFERENCES, REFILL, SCAN
from fleetsim.law import law
from fleetsim.linux.bags import CLASS, accessed_q, expected, rebag
from fleetsim.linux.buffer import free_buffers
from fleetsim.linux.fs_writeback import pageout, wakeup_flusher_threads
from fleetsim.linux.memcontrol import charge_cache, count, count_both
from fleetsim.linux.mm_inline import account, count_mlocked, is_file_lru, list_del, list_move
from fleetsim.linux.mm_types import (
    ACCESSED,
    BY_KSWAPD,
    BY_MEMCG,
    CG,
    LRU_ACTIVE_ANON,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    LRU_UNEVICTABLE,
    METADATA,
    ORDERED,
    REFERENCED,
    SETTLED,
    VM,
    WORKINGSET,
)
from fleetsim.linux.mm_types import (
    RECLAIM as PG_RECLAIM,
)
from fleetsim.linux.nodes import next_on_nodes, pages_on_nodes
from fleetsim.linux.rmap import try_to_unmap
from fleetsim.linux.swap import free_written, send_out, write_again
from fleetsim.linux.swap_state import drop_clean, drop_settled, mem_cgroup_swap_full, take_clean
from fleetsim.linux.workingset_clock import age_nonresident, workingset_eviction
from fleetsim.linux.zonelist import give_back

PGSCAN_KSWAPD, PGSCAN_DIRECT, PGSCAN_ANON = VM["pgscan_kswapd"], VM["pgscan_direct"], VM["pgscan_anon"]
PGSTEAL_KSWAPD, PGSTEAL_DIRECT, PGSTEAL_ANON = VM["pgsteal_kswapd"], VM["pgsteal_direct"], VM["pgsteal_anon"]
NR_VMSCAN_IMMEDIATE = VM["nr_vmscan_immediate_reclaim"]
PGREFILL, PGACTIVATE, PGDEACTIVATE = VM["pgrefill"], VM["pgactivate"], VM["pgdeactivate"]
CG_SCAN_KSWAPD, CG_SCAN_DIRECT = CG["pgscan_kswapd"], CG["pgscan_direct"]
CG_STEAL_KSWAPD, CG_STEAL_DIRECT = CG["pgsteal_kswapd"], CG["pgsteal_direct"]
CG_REFILL, CG_ACTIVATE, CG_DEACTIVATE = CG["pgrefill"], CG["pgactivate"], CG["pgdeactivate"]


@law
def count_activated(row, cg, pages):
    """Pages activated by reclaim or by a second touch; the eviction clock moves with them.

    Source: mm/swap.c folio_activate, mm/workingset.c workingset_activation; kernel-laws §3.8.
    """
    row["vm"][PGACTIVATE] += pages
    count(row, cg, CG_ACTIVATE, pages)
    age_nonresident(row, cg, pages)


@law
def evict_file(row, sc, i, pages):
    """Drop `pages` clean file pages of cohort `i`, leaving their shadow.

    Source: mm/vmscan.c __remove_mapping; kernel-laws §3.7, §3.8.
    """
    cohort = row["cohorts"][i]
    group = row["groups"][cohort["group"]]
    try_to_unmap(row, cohort["group"], pages, 0)
    free_buffers(row, group, pages)
    give_back(row, cohort, pages)
    cohort["nr"] -= pages
    cohort["evicted"] += pages
    group["resident"] -= pages
    group["evicted"] += pages
    account(row, cohort["cg"], cohort["list"], -pages)
    charge_cache(row, cohort["cg"], -pages)
    if group["is_file"] == METADATA:
        row["buffers"] -= pages
    workingset_eviction(row, cohort, sc["target"], pages)
    sc["spent_ns"] += pages * row["cost"][RECLAIM]
    if cohort["nr"] == 0:
        list_del(row, i)
        cohort["flags"] &= ~(ACCESSED | REFERENCED)


@law
def spend_on_references(row, sc, i, pages):
    """The time it takes to find and clear the accessed bits of `pages` pages of cohort `i` that are mapped.

    Source: mm/rmap.c folio_referenced_one (a page that no page table maps has no bits to look for).
    """
    group = row["groups"][row["cohorts"][i]["group"]]
    if group["is_file"] == 0 or group["maps"] >= 0:
        sc["spent_ns"] += pages * row["cost"][REFERENCES]


@law
def keep_whole(row, i, usable, pages):
    """Spend scan budget on an ordered cohort whose pages are all kept; move it once every page was looked at.

    Accessed once: stay inactive for another round, referenced now. Accessed again, or nowhere to go: activate.

    Source: mm/vmscan.c folio_check_references; kernel-laws §3.1 table.
    """
    cohort = row["cohorts"][i]
    cohort["off"] += pages
    if cohort["off"] < usable:
        return
    lru = cohort["list"]
    accessed = cohort["flags"] & ACCESSED
    cohort["flags"] &= ~ACCESSED
    if accessed and not cohort["flags"] & REFERENCED:
        cohort["flags"] |= REFERENCED
        list_move(row, i, lru)
    else:
        activate_whole(row, i, usable)


@law
def activate_whole(row, i, pages):
    """Activate an ordered cohort. MADV_FREE'd pages that were written to are anonymous again; full swap wants its slots back.

    Source: mm/vmscan.c shrink_folio_list (activate_locked).
    """
    cohort = row["cohorts"][i]
    lru = cohort["list"]
    anon = row["groups"][cohort["group"]]["is_file"] == 0
    count_activated(row, cohort["cg"], pages)
    if cohort["clean"] > 0 and not is_file_lru(lru) and mem_cgroup_swap_full(row, cohort["cg"]):
        take_clean(row, i, cohort["clean"])
    rewritten = anon and is_file_lru(lru) and cohort["clean"] == 0
    list_move(row, i, LRU_ACTIVE_ANON if lru == LRU_INACTIVE_ANON or rewritten else LRU_ACTIVE_FILE)


@law
def scan_ordered(row, sc, i, usable, budget):
    """Look at up to `budget` pages of the ordered cohort at an inactive tail.

    returns  (int64 pages looked at, int64 pages reclaimed)

    Source: mm/vmscan.c shrink_folio_list; kernel-laws §3.1, §3.7.
    """
    cohort = row["cohorts"][i]
    if cohort["flags"] & ACCESSED:
        pages = max(0, min(budget, usable - cohort["off"]))
        spend_on_references(row, sc, i, pages)
        keep_whole(row, i, usable, pages)
        return pages, 0
    pages = min(budget, usable)
    if row["groups"][cohort["group"]]["is_file"] > 0:
        clean = usable - min(usable, cohort["dirty"])
        if clean == 0:
            return keep_dirty(row, sc, i, usable, budget), 0
        pages = min(budget, clean)
        evict_file(row, sc, i, pages)
        return pages, pages
    if cohort["clean"] > 0:
        pages = min(pages, cohort["clean"])
        drop_clean(row, sc, i, pages)
        return pages, pages
    if cohort["list"] == LRU_INACTIVE_FILE:  # MADV_FREE'd, but all that is left was written to again
        pages = max(0, min(budget, usable - cohort["off"]))
        cohort["off"] += pages
        if cohort["off"] >= usable:
            activate_whole(row, i, usable)
        return pages, 0
    sent, freed = send_out(row, sc, i, pages)
    if sent > 0:
        return sent, freed
    pages = max(0, min(budget, usable - cohort["off"]))
    keep_whole(row, i, usable, pages)
    return pages, 0


@law
def keep_dirty(row, sc, i, usable, budget):
    """Dirty file pages at the tail: not dropped, and not written here unless kswapd meets them again. The flusher is woken.

    returns  int64  pages looked at

    Source: mm/vmscan.c shrink_folio_list (dirty file folio), shrink_inactive_list (nr_unqueued_dirty); kernel-laws §3.7.
    """
    cohort = row["cohorts"][i]
    pages = max(0, min(budget, usable - cohort["off"]))
    sc["dirty"] += pages
    if sc["kind"] == BY_KSWAPD and sc["may_swap"] > 0 and cohort["flags"] & PG_RECLAIM:
        pageout(row, i, pages)
    cohort["flags"] |= PG_RECLAIM
    cohort["off"] += pages
    if cohort["off"] >= usable:
        count_activated(row, cohort["cg"], usable)
        list_move(row, i, LRU_ACTIVE_FILE)
    wakeup_flusher_threads(row)
    return pages


@law
def scan_bag(row, sc, i, usable, budget):
    """Look at up to `budget` pages of the bag at an inactive tail: the accessed share stays, the rest goes.

    returns  (int64 pages looked at, int64 pages reclaimed)

    Source: mm/vmscan.c shrink_folio_list; kernel-laws §3.1, §3.7.
    """
    cohort = row["cohorts"][i]
    group = row["groups"][cohort["group"]]
    lru, cg = cohort["list"], cohort["cg"]
    active = LRU_ACTIVE_ANON if lru == LRU_INACTIVE_ANON else LRU_ACTIVE_FILE
    pages = min(budget, usable)
    kept = expected(group, pages, accessed_q(group, cohort))
    gone = pages - kept
    reclaimed = 0
    flags = cohort["flags"] & CLASS
    if gone > 0:
        if group["is_file"] > 0:
            reclaimed = min(gone, usable - min(usable, cohort["dirty"]))
            evict_file(row, sc, i, reclaimed)
            if reclaimed < gone:
                sc["dirty"] += gone - reclaimed
                count_activated(row, cg, gone - reclaimed)
                rebag(row, i, active, flags, gone - reclaimed)
                wakeup_flusher_threads(row)
        else:
            reclaimed = min(gone, (gone * cohort["clean"] + usable - 1) // usable)
            if reclaimed > 0:
                drop_clean(row, sc, i, reclaimed)
                gone -= reclaimed
            rewritten = lru == LRU_INACTIVE_FILE  # MADV_FREE'd, but written to again
            sent, freed = (0, 0) if rewritten else send_out(row, sc, i, gone)
            reclaimed += freed
            if sent < gone:
                count_activated(row, cg, gone - sent)
                rebag(row, i, LRU_ACTIVE_ANON if rewritten else active, flags, gone - sent)
    if kept > 0:
        spend_on_references(row, sc, i, kept)
        if flags & REFERENCED:
            count_activated(row, cg, kept)
            rebag(row, i, active, flags, kept)
        else:
            rebag(row, i, lru, flags | REFERENCED, kept)
    if cohort["nr"] == 0:
        list_del(row, i)
    return pages, reclaimed


@law
def cull(row, i):
    """A cohort of a locked group stands on an evictable list: it does not belong there.

    Source: mm/vmscan.c shrink_folio_list (folio_check_references says mlocked), mm/swap.c lru_add_fn.
    """
    list_move(row, i, LRU_UNEVICTABLE)
    count_mlocked(row, row["cohorts"][i]["nr"])


@law
def shrink_inactive_list(row, sc, cg, lru, budget):
    """Look at up to `budget` pages from the tail of an inactive list.

    returns  int64  pages reclaimed

    Source: mm/vmscan.c shrink_inactive_list; counters kernel-laws §3.10.
    """
    left = budget
    reclaimed = 0
    if lru == LRU_INACTIVE_ANON:
        reclaimed = free_written(row, sc["target"], cg, left)
        left -= reclaimed
        sc["spent_ns"] += reclaimed * row["cost"][RECLAIM]
    first_moved = -1
    while left > 0:
        i = next_on_nodes(row, row["cgroups"][cg]["tail"][lru])
        if i < 0 or i == first_moved:
            break
        cohort = row["cohorts"][i]
        if row["groups"][cohort["group"]]["locked"] > 0:
            cull(row, i)
            continue
        if cohort["flags"] & SETTLED:
            freed = drop_settled(row, sc, i, left)
            if freed > 0:
                left -= freed
                reclaimed += freed
                continue
        usable = min(cohort["nr"] - cohort["wb"], pages_on_nodes(row, cohort))
        if usable == 0 and lru == LRU_INACTIVE_FILE:  # all of it is under writeback: it comes to the tail when it is written
            sc["dirty"] += cohort["nr"]
            row["vm"][NR_VMSCAN_IMMEDIATE] += cohort["nr"] if cohort["flags"] & PG_RECLAIM else 0
            cohort["flags"] |= PG_RECLAIM
            count_activated(row, cg, cohort["nr"])
            list_move(row, i, LRU_ACTIVE_FILE)
            continue
        if usable == 0 and row["swap_failures"] > 0:
            tried, freed = write_again(row, sc, i, left)
            left -= tried
            reclaimed += freed
            if tried > 0:
                continue
        if usable == 0:  # all of it is being written: it comes back by itself (free_written)
            if first_moved < 0:
                first_moved = i
            list_move(row, i, lru)
            continue
        if row["groups"][cohort["group"]]["kind"] == ORDERED:
            looked, freed = scan_ordered(row, sc, i, usable, left)
        else:
            looked, freed = scan_bag(row, sc, i, usable, left)
        left -= looked
        reclaimed += freed
    count_scan(row, sc, cg, lru, budget - left, reclaimed)
    return reclaimed


@law
def count_scan(row, sc, cg, lru, scanned, reclaimed):
    """Book the pages looked at and reclaimed.

    Source: mm/vmscan.c shrink_inactive_list; kernel-laws §3.10: the host's pgscan_kswapd / _direct count global reclaim
    only, pgscan_anon / _file and the cgroup's own counters every kind.
    """
    is_file = 1 if lru == LRU_INACTIVE_FILE else 0
    by_kswapd = sc["kind"] == BY_KSWAPD
    if sc["kind"] != BY_MEMCG:
        row["vm"][PGSCAN_KSWAPD if by_kswapd else PGSCAN_DIRECT] += scanned
        row["vm"][PGSTEAL_KSWAPD if by_kswapd else PGSTEAL_DIRECT] += reclaimed
    row["vm"][PGSCAN_ANON + is_file] += scanned
    row["vm"][PGSTEAL_ANON + is_file] += reclaimed
    scan, steal = CG_SCAN_KSWAPD if by_kswapd else CG_SCAN_DIRECT, CG_STEAL_KSWAPD if by_kswapd else CG_STEAL_DIRECT
    count_both(row, cg, scan, scanned, steal, reclaimed)
    sc["scanned"] += scanned
    sc["spent_ns"] += scanned * row["cost"][SCAN]


@law
def shrink_active_list(row, sc, cg, lru, budget):
    """Deactivate up to `budget` pages from the tail of an active list, accessed or not.

    Source: mm/vmscan.c shrink_active_list; kernel-laws §3.1. Leaves out: executable file mappings (kept active there).
    """
    inactive = lru - 1
    left = budget
    moved = 0
    while left > 0:
        i = next_on_nodes(row, row["cgroups"][cg]["tail"][lru])
        if i < 0:
            break
        cohort = row["cohorts"][i]
        there = pages_on_nodes(row, cohort)
        if row["groups"][cohort["group"]]["kind"] == ORDERED:
            pages = max(0, min(left, there - cohort["off"]))
            cohort["off"] += pages
            if cohort["off"] >= there:
                moved += there
                cohort["flags"] = (cohort["flags"] | WORKINGSET) & ~ACCESSED
                list_move(row, i, inactive)
        else:
            pages = min(left, there)
            moved += pages
            rebag(row, i, inactive, (cohort["flags"] & CLASS) | WORKINGSET, pages)
            if cohort["nr"] == 0:
                list_del(row, i)
        left -= pages
    scanned = budget - left
    row["vm"][PGREFILL] += scanned
    row["vm"][PGDEACTIVATE] += moved
    count(row, cg, CG_REFILL, scanned)
    count(row, cg, CG_DEACTIVATE, moved)
    sc["spent_ns"] += scanned * row["cost"][REFILL]
