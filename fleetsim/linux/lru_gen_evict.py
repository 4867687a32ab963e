# SPDX-License-Identifier: Apache-2.0
"""MGLRU's eviction: empty the oldest generation (mm/vmscan.c lru_gen_shrink_lruvec, evict_folios, scan_folios).

A page at the tail of the oldest generation is

    protected: its tier comes back too often, or it came back already    joins the next generation, oldest there
    dirty, or under writeback (file)                                      joins the next generation
    accessed since the last walk                                          joins the youngest generation, and so do those around it
    else                                                                  evicted: dropped, or sent to swap

Pages under writeback to swap join the second youngest generation and go first once they are written (swap.free_written).
Each zone has lists of its own: a generation's pages of the highest zone go first, those of a lower one wait until none is left.
What is sorted, and which page is next: lru_gen_sort.py. Leaves out: pages that reclaim cannot lock.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import RECLAIM, SCAN
from fleetsim.law import Q, law
from fleetsim.linux.bags import accessed_q, expected, open_bag_of, rebag_to
from fleetsim.linux.lru_gen import (
    LRU_GEN_ANON,
    LRU_GEN_FILE,
    MAX_LRU_BATCH,
    MIN_LRU_BATCH,
    MIN_NR_GENS,
    clear_refs,
    get_nr_gens,
    lru_gen_seq,
)
from fleetsim.linux.lru_gen_age import get_swappiness, is_mapped, should_run_aging, suitable_to_scan, try_to_inc_max_seq, try_to_inc_min_seq
from fleetsim.linux.lru_gen_pid import get_tier_idx, get_type_to_scan
from fleetsim.linux.lru_gen_sort import below_zone, next_to_scan, sort_cohort
from fleetsim.linux.memcontrol import count
from fleetsim.linux.mm_inline import list_del, lru_gen_insert
from fleetsim.linux.mm_types import (
    ACCESSED,
    BY_KSWAPD,
    BY_MEMCG,
    CG,
    DEF_PRIORITY,
    IN_FILTER,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    NR_ZONES,
    ORDERED,
    SETTLED,
    VM,
    WMARK_HIGH,
    WMARK_LOW,
    ZONE_NORMAL,
)
from fleetsim.linux.nodes import pages_on_nodes, zone_allowed
from fleetsim.linux.shrink_list import count_scan, evict_file, spend_on_references
from fleetsim.linux.swap import free_written, send_out, write_again
from fleetsim.linux.swap_state import drop_clean, drop_settled

PGREFILL, CG_REFILL = VM["pgrefill"], CG["pgrefill"]
PGACTIVATE, CG_ACTIVATE = VM["pgactivate"], CG["pgactivate"]
AROUND = MIN_LRU_BATCH // 2  # pages behind an accessed one that the look around finds with it


@law
def count_young(row, cg, pages, share_q):
    """Accessed pages at the tail: only those that the look around another one did not find first are activated by name.

        1 / (1/share + 31) of the pages looked at

    Source: mm/vmscan.c lru_gen_look_around, shrink_folio_list (pgactivate).
    """
    found = max(1, (pages << Q) // ((1 << Q) + (AROUND - 1) * share_q) * share_q >> Q)
    row["vm"][PGACTIVATE] += found
    count(row, cg, CG_ACTIVATE, found)


@law
def keep_young(row, i, pages, share_q):
    """`pages` accessed pages of cohort `i` join the youngest generation; of an ordered cohort once all its pages were looked at.

    Source: mm/vmscan.c evict_folios (rejected folios are active), lru_gen_look_around.
    """
    cohort = row["cohorts"][i]
    cg, kind = cohort["cg"], cohort["list"] // 2
    seq = row["cgroups"][cg]["max_seq"]
    group = row["groups"][cohort["group"]]
    cohort["flags"] |= IN_FILTER if share_q == 1 << Q else 0
    if suitable_to_scan(1 << Q, share_q):
        group["in_filter"] = 1
    if group["kind"] != ORDERED:
        rebag_to(row, i, open_bag_of(row, cohort["group"], cg, cohort["list"], seq, 0), pages)
        if cohort["nr"] == 0:
            list_del(row, i)
    else:
        cohort["off"] += pages
        if cohort["off"] < cohort["nr"] - cohort["wb"]:
            return
        pages = cohort["off"]
        cohort["flags"] &= ~ACCESSED
        clear_refs(cohort)
        list_del(row, i)
        lru_gen_insert(row, i, kind, seq, 0)
    count_young(row, cg, pages, share_q)


@law
def evict_cohort(row, sc, i, usable, budget):
    """Look at up to `budget` pages of the cohort at the tail of the oldest generation: keep those that were accessed, evict the others.

    returns  (int64 pages looked at, int64 pages reclaimed)

    Source: mm/vmscan.c shrink_folio_list, as evict_folios calls it.
    """
    cohort = row["cohorts"][i]
    group = row["groups"][cohort["group"]]
    pages = min(budget, usable)
    young, share_q = 0, 0
    if group["kind"] == ORDERED:
        if cohort["flags"] & ACCESSED:
            young, share_q = min(budget, usable - cohort["off"]), 1 << Q
            pages = young
    elif is_mapped(row, cohort):
        share_q = accessed_q(group, cohort)
        young = expected(group, pages, share_q)
    gone, reclaimed = pages - young, 0
    if gone > 0 and group["is_file"] > 0:
        reclaimed = min(gone, usable - min(usable, cohort["dirty"]))
        evict_file(row, sc, i, reclaimed)
        if reclaimed < gone:
            sc["dirty"] += gone - reclaimed
    elif gone > 0:
        reclaimed = min(gone, (gone * cohort["clean"] + usable - 1) // usable)
        if reclaimed > 0:
            drop_clean(row, sc, i, reclaimed)
        left = gone - reclaimed
        if left > 0 and cohort["list"] != LRU_INACTIVE_FILE:
            sent, freed = send_out(row, sc, i, left)
            reclaimed += freed
            if sent < left:
                young += left - sent
    if young > 0:
        spend_on_references(row, sc, i, young)
        keep_young(row, i, young, max(share_q, 1 << Q - 6))
    return pages, reclaimed


@law
def scan_folios(row, sc, cg, kind, tier_idx, budget):
    """Look at the oldest generation of a type until `budget` pages were handed to eviction.

    returns  int64  pages looked at, sorted ones included; 0: nothing of this type can be evicted

    Source: mm/vmscan.c scan_folios; counters: pgscan for what is evicted or kept, pgrefill for what is sorted.
    """
    lruvec = row["cgroups"][cg]
    if get_nr_gens(lruvec, kind) == MIN_NR_GENS:
        return 0
    seq, lru = lruvec["min_seq"][kind], LRU_INACTIVE_FILE if kind == LRU_GEN_FILE else LRU_INACTIVE_ANON
    isolated, sorted_, reclaimed = 0, 0, 0
    if kind == LRU_GEN_ANON:
        reclaimed = free_written(row, sc["target"], cg, budget)
        isolated = reclaimed
        sc["spent_ns"] += reclaimed * row["cost"][RECLAIM]
    while isolated < budget and isolated + sorted_ < MAX_LRU_BATCH:
        i = next_to_scan(row, sc, cg, kind, seq)
        if i < 0:
            break
        cohort = row["cohorts"][i]
        if cohort["flags"] & SETTLED:
            freed = drop_settled(row, sc, i, budget - isolated)
            if freed > 0:
                isolated += freed
                reclaimed += freed
                continue
        if cohort["nr"] == 0:
            list_del(row, i)
            continue
        if kind == LRU_GEN_ANON and cohort["wb"] == cohort["nr"] and row["swap_failures"] > 0:
            tried, freed = write_again(row, sc, i, budget - isolated)
            isolated += tried
            reclaimed += freed
            if tried > 0:
                continue
        moved = sort_cohort(row, sc, i, min(lru_gen_seq(lruvec, cohort), lruvec["max_seq"] - 1), tier_idx)
        sorted_ += max(0, moved)
        if moved == 0:
            usable = cohort["nr"] - cohort["wb"]
            if not cohort["flags"] & ACCESSED:
                usable = min(usable - below_zone(cohort, sc["lruvec_zone"][kind]), pages_on_nodes(row, cohort))
            looked, freed = evict_cohort(row, sc, i, usable, budget - isolated)
            isolated += looked
            reclaimed += freed
    if sc["kind"] != BY_MEMCG:
        row["vm"][PGREFILL] += sorted_
    count(row, cg, CG_REFILL, sorted_)
    sc["spent_ns"] += sorted_ * row["cost"][SCAN]
    count_scan(row, sc, cg, lru, isolated, reclaimed)
    sc["reclaimed"] += reclaimed
    return isolated + sorted_ if isolated > 0 or isolated + sorted_ >= MAX_LRU_BATCH else 0


@law
def evict_folios(row, sc, cg, swappiness):
    """One batch of eviction from the type that deserves it; if there is none to be had, from the other.

    returns  int64  pages looked at; 0: there is nothing to evict until the lruvec is aged

    Source: mm/vmscan.c isolate_folios, evict_folios.
    """
    lruvec = row["cgroups"][cg]
    tier_idx = -1
    if swappiness == 0:
        kind = LRU_GEN_FILE
    elif lruvec["min_seq"][LRU_GEN_ANON] < lruvec["min_seq"][LRU_GEN_FILE]:
        kind = LRU_GEN_ANON
    elif swappiness == 1 or swappiness == 200:
        kind = LRU_GEN_FILE if swappiness == 1 else LRU_GEN_ANON
    else:
        kind, tier_idx = get_type_to_scan(lruvec, swappiness)
    scanned = 0
    for _ in range(2 if swappiness > 0 else 1):
        if tier_idx < 0:
            tier_idx = get_tier_idx(lruvec, kind)
        scanned = scan_folios(row, sc, cg, kind, tier_idx, MIN_LRU_BATCH)
        if scanned > 0:
            break
        kind, tier_idx = 1 - kind, -1
    before = lruvec["min_seq"].sum()
    try_to_inc_min_seq(row, cg, swappiness > 0)
    if lruvec["min_seq"].sum() > before:
        scanned += 1
        start_at_highest_zone(sc)
    return 0 if get_nr_gens(lruvec, LRU_GEN_ANON if swappiness > 0 else LRU_GEN_FILE) == MIN_NR_GENS else scanned


@law
def get_nr_to_scan(row, sc, cg, can_swap):
    """Pages of an lruvec to look at in this pass. One that must be aged first is aged here by a direct reclaimer, later by kswapd.

    returns  (int64 pages, int64 1: it had to be aged)

    Source: mm/vmscan.c get_nr_to_scan (6.1).
    """
    lruvec = row["cgroups"][cg]
    if lruvec["emin"] > 0 and lruvec["usage"] <= lruvec["emin"]:
        return 0, 0
    if lruvec["elow"] > 0 and lruvec["usage"] <= lruvec["elow"] and sc["low_reclaim"] == 0:
        return 0, 0
    due, scan = should_run_aging(row, sc, cg, can_swap)
    if not due:
        return scan, 0
    if sc["priority"] != DEF_PRIORITY:
        if sc["kind"] == BY_KSWAPD:
            return 0, 1
        try_to_inc_max_seq(row, sc, cg, can_swap)
        return scan, 1
    oldest = lruvec["min_seq"][LRU_GEN_ANON if can_swap else LRU_GEN_FILE]
    return scan if oldest + MIN_NR_GENS <= lruvec["max_seq"] else 0, 1


@law
def above_watermarks(row, mark):
    """True if every zone has as many free pages as its watermark `mark` says.

    Source: mm/vmscan.c should_abort_scan (its last part).
    """
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        if zone_allowed(row, z, row["reclaim_nodes"]) and zone["wmark"][mark] > zone["free"]:
            return False
    return True


@law
def should_abort_scan(row, sc, cg, swapped):
    """Is it fair to stop before this pass's share of an lruvec is done?

    swapped  int64  1: anonymous pages were sent to swap in this turn

    Source: mm/vmscan.c should_abort_scan (6.1).
    """
    got = sc["reclaimed"] + sc["sent"]
    if sc["kind"] == BY_KSWAPD:
        if sc["reclaimed"] - row["kswapd"][sc["node"]]["pass_reclaimed"] < sc["wanted"]:
            return False
    else:
        if row["cgroups"][cg]["max_seq"] - sc["lruvec_max_seq"] > 1:
            return True
        if got >= sc["wanted"] and swapped > 0:
            return True
        if sc["kind"] == BY_MEMCG:
            return False
    if sc["priority"] > DEF_PRIORITY - 2 or not above_watermarks(row, WMARK_HIGH if sc["kind"] == BY_KSWAPD else WMARK_LOW):
        return False
    if sc["kind"] != BY_KSWAPD:
        sc["reclaimed"] += MIN_LRU_BATCH
    return True


@law
def start_at_highest_zone(sc):
    """Another generation, or another lruvec: pages of all zones may be there.

    Source: mm/vmscan.c scan_folios (reclaim_idx).
    """
    for kind in range(2):
        sc["lruvec_zone"][kind] = ZONE_NORMAL


@law
def lru_gen_begin_lruvec(row, sc, cg):
    """A lruvec's turn in a pass begins.

    Source: mm/vmscan.c lru_gen_shrink_lruvec (its first lines).
    """
    start_at_highest_zone(sc)
    sc["lruvec_scanned"] = 0
    sc["lruvec_reclaimed"] = sc["reclaimed"]
    sc["lruvec_max_seq"] = row["cgroups"][cg]["max_seq"]


@law
def lru_gen_shrink_lruvec(row, sc, cg, budget):
    """A lruvec's turn in a pass, or the next part of it: batches until its share is done, or nothing is to be had, or it is enough.

    budget   int64  pages to look at, at most; kswapd works in slices (see shrink_slice)
    returns  bool   True: the turn is over

    Source: mm/vmscan.c lru_gen_shrink_lruvec (6.1).
    """
    begin = sc["lruvec_scanned"]
    while sc["lruvec_scanned"] - begin < budget:
        swappiness = get_swappiness(row, cg) if sc["may_swap"] > 0 else 0
        scan, due = get_nr_to_scan(row, sc, cg, swappiness > 0)
        if scan == 0:
            return True
        sent = sc["sent"]
        scanned = evict_folios(row, sc, cg, swappiness)
        if scanned == 0:
            return True
        sc["lruvec_scanned"] += scanned
        if sc["lruvec_scanned"] >= scan or should_abort_scan(row, sc, cg, 1 if sc["sent"] > sent else 0):
            if sc["reclaimed"] - sc["lruvec_reclaimed"] >= MIN_LRU_BATCH and due == 0:
                sc["memcgs_need_aging"] = 0
            return True
    return False
