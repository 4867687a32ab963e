# SPDX-License-Identifier: Apache-2.0
"""MGLRU's aging: a new youngest generation (mm/vmscan.c inc_max_seq, walk_mm, lru_gen_age_node).

Before a generation is opened, the page tables of the lruvec's tasks are walked: what was accessed since the last walk belongs to
the generation that is the youngest until then.
The first walk of an lruvec looks at all page tables, later ones only at those that a Bloom filter holds: tables in which one page
in eight, or more, was accessed at the last walk, or around an accessed page that eviction met since. What is accessed elsewhere keeps
its accessed bit, and is found when eviction gets there.
Leaves out: false positives of the filter; tables are told apart by cohort (ordered groups) or by group.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import AGE_PTE
from fleetsim.law import law
from fleetsim.linux.bags import accessed_q, expected, open_bag_of, rebag_to
from fleetsim.linux.lru_gen import (
    JIFFY_NS,
    LRU_GEN_ANON,
    LRU_GEN_FILE,
    LRU_GEN_MM_WALK,
    MAX_NR_GENS,
    MIN_LRU_BATCH,
    MIN_NR_GENS,
    clear_refs,
    get_nr_gens,
    lru_gen_list,
    lru_gen_seq,
)
from fleetsim.linux.lru_gen_pid import reset_ctrl_pos
from fleetsim.linux.memcontrol import DYING, calculate_protection, swap_room
from fleetsim.linux.mm_inline import list_del, lru_gen_insert
from fleetsim.linux.mm_types import ACCESSED, ALL_NODES, DEF_PRIORITY, IN_FILTER, LRU_INACTIVE_FILE, LRU_UNEVICTABLE, NR_GROUPS, ORDERED
from fleetsim.linux.nodes import next_on_nodes


@law
def get_swappiness(row, cg):
    """swappiness, 0 if there is hardly a slot left for the cgroup.

    Source: mm/vmscan.c get_swappiness (CONFIG_LRU_GEN).
    """
    return 0 if swap_room(row, cg) < MIN_LRU_BATCH else row["sysctl"]["swappiness"]


@law
def is_mapped(row, cohort):
    """True if page tables map the pages of a cohort, so that they have accessed bits.

    Source: include/linux/mm.h folio_mapped, for the whole group.
    """
    group = row["groups"][cohort["group"]]
    return group["task"] >= 0 or group["maps"] >= 0


@law
def suitable_to_scan(total: int, young: int) -> bool:
    """Are there so many accessed pages among those that page tables map that they are worth a walk? One per cache line of entries.

    total    int64  entries
    young    int64  of them accessed
    returns  bool

    Source: mm/vmscan.c suitable_to_scan (cache lines of 64 bytes). Leaves out: nothing.
    """
    return young * 8 >= total


@law
def promote_bag(row, i, seq):
    """The accessed pages of bag `i` join generation `seq`; all accessed bits are clear then.

    returns  int64  accessed pages

    Source: mm/vmscan.c walk_pte_range, folio_update_gen; expected values (kernel-laws §20.2).
    """
    cohort = row["cohorts"][i]
    group = row["groups"][cohort["group"]]
    wb = 0 if group["is_file"] > 0 else cohort["wb"]
    young = min(cohort["nr"] - wb, expected(group, cohort["nr"], accessed_q(group, cohort)))
    here = lru_gen_seq(row["cgroups"][cohort["cg"]], cohort) == seq
    if young > 0 and not here:
        rebag_to(row, i, open_bag_of(row, cohort["group"], cohort["cg"], cohort["list"], seq, 0), young)
    cohort["base"] = group["touches"]
    if cohort["nr"] == 0:
        list_del(row, i)
    return young


@law
def promote_whole(row, i, seq):
    """The pages of the ordered cohort `i` join generation `seq`, their accessed bits clear.

    Source: mm/vmscan.c folio_update_gen.
    """
    cohort = row["cohorts"][i]
    cohort["flags"] &= ~ACCESSED
    clear_refs(cohort)
    if lru_gen_seq(row["cgroups"][cohort["cg"]], cohort) != seq:
        kind = cohort["list"] // 2
        list_del(row, i)
        lru_gen_insert(row, i, kind, seq, 0)


@law
def walk_uniform(row, g, cg, lowest, seq):
    """Walk the page tables that map a group with random access.

    lowest   int64  first list whose pages are looked for
    returns  int64  entries looked at

    Source: mm/vmscan.c walk_pte_range, update_bloom_filter.
    """
    group = row["groups"][g]
    looked, young = 0, 0
    for i in range(group["first"], group["first"] + group["cohorts"]):
        bag = row["cohorts"][i]
        if bag["cg"] == cg and lowest <= bag["list"] < LRU_UNEVICTABLE and bag["nr"] > 0:
            looked += bag["nr"]
            young += promote_bag(row, i, seq)
    if looked > 0:
        group["in_filter"] = 1 if suitable_to_scan(group["pages"], young) else 0
    return looked


@law
def walk_mm(row, sc, cg, can_swap):
    """Walk the page tables of an lruvec's tasks: what was accessed joins the youngest generation.

    Source: mm/vmscan.c try_to_inc_max_seq, walk_mm, walk_pte_range.
    """
    cohorts, lruvec = row["cohorts"], row["cgroups"][cg]
    seq = lruvec["max_seq"]
    everything = seq == MIN_NR_GENS + 1
    lowest = 0 if can_swap else LRU_INACTIVE_FILE
    looked = 0
    for back in range(LRU_UNEVICTABLE - lowest):  # the active list first: what is promoted joins it, and is met once
        lru = LRU_UNEVICTABLE - 1 - back
        i, first = lruvec["tail"][lru], lruvec["head"][lru]
        while i >= 0:
            above = -1 if i == first else cohorts[i]["prev"]
            ordered = row["groups"][cohorts[i]["group"]]["kind"] == ORDERED
            if ordered and is_mapped(row, cohorts[i]) and (everything or cohorts[i]["flags"] & IN_FILTER):
                looked += cohorts[i]["nr"]
                if cohorts[i]["flags"] & ACCESSED:
                    cohorts[i]["flags"] |= IN_FILTER
                    promote_whole(row, i, seq)
                else:
                    cohorts[i]["flags"] &= ~IN_FILTER
            i = above
    for g in range(NR_GROUPS):
        group = row["groups"][g]
        wanted = everything or group["in_filter"] > 0
        if group["used"] and group["kind"] != ORDERED and wanted and (group["task"] >= 0 or group["maps"] >= 0):
            looked += walk_uniform(row, g, cg, lowest, seq)
    sc["spent_ns"] += looked * row["cost"][AGE_PTE]


@law
def inc_min_seq(row, cg, kind, can_swap):
    """All four generations exist and a new one is wanted: the oldest one joins the second oldest.

    Anonymous pages that cannot be swapped stay where they are: their generation's place is the next one's, so they become youngest.

    Source: mm/vmscan.c inc_min_seq. Leaves out: the order of the pages that are moved is turned round there.
    """
    lruvec = row["cgroups"][cg]
    oldest = lruvec["min_seq"][kind]
    if kind == LRU_GEN_FILE or can_swap:
        i = lruvec["tail"][lru_gen_list(lruvec, kind, oldest)]
        while i >= 0 and lru_gen_seq(lruvec, row["cohorts"][i]) == oldest:
            row["cohorts"][i]["gen"] = (oldest + 1) & (MAX_NR_GENS - 1)
            clear_refs(row["cohorts"][i])
            i = row["cohorts"][i]["prev"]
    reset_ctrl_pos(lruvec, kind)
    lruvec["min_seq"][kind] = oldest + 1


@law
def inc_max_seq(row, cg, can_swap):
    """Open a new youngest generation; the one that is third youngest now is no longer active.

    Source: mm/vmscan.c inc_max_seq.
    """
    lruvec = row["cgroups"][cg]
    for back in range(2):
        kind = LRU_GEN_FILE - back
        if get_nr_gens(lruvec, kind) == MAX_NR_GENS:
            inc_min_seq(row, cg, kind, can_swap)
    seq = lruvec["max_seq"] + 1
    lruvec["max_seq"] = seq
    lruvec["timestamps"][seq & (MAX_NR_GENS - 1)] = row["now_ns"] // JIFFY_NS
    for kind in range(2):
        i = lruvec["tail"][2 * kind]
        while i >= 0 and lru_gen_seq(lruvec, row["cohorts"][i]) == seq:
            list_del(row, i)
            lru_gen_insert(row, i, kind, seq, 0)
            i = lruvec["tail"][2 * kind]
        i = lruvec["tail"][2 * kind + 1]
        while i >= 0 and lru_gen_seq(lruvec, row["cohorts"][i]) < seq - 1:
            list_del(row, i)
            lru_gen_insert(row, i, kind, seq - MIN_NR_GENS, 0)
            i = lruvec["tail"][2 * kind + 1]


@law
def try_to_inc_max_seq(row, sc, cg, can_swap):
    """Age an lruvec.

    Source: mm/vmscan.c try_to_inc_max_seq.
    """
    if row["lru_gen"] & LRU_GEN_MM_WALK > 0:
        walk_mm(row, sc, cg, can_swap)
    inc_max_seq(row, cg, can_swap)


@law
def oldest_populated(row, cg, kind):
    """The oldest generation of a type that has pages, but never one of the two youngest.

    Source: mm/vmscan.c try_to_inc_min_seq.
    """
    lruvec = row["cgroups"][cg]
    i = lruvec["tail"][2 * kind]
    if i >= 0:
        return lru_gen_seq(lruvec, row["cohorts"][i])
    return max(lruvec["min_seq"][kind], lruvec["max_seq"] - MIN_NR_GENS + 1)


@law
def try_to_inc_min_seq(row, cg, can_swap):
    """Empty oldest generations are gone. Anonymous memory never gets ahead of the cache, nor the cache more than it must of it.

    Source: mm/vmscan.c try_to_inc_min_seq.
    """
    lruvec = row["cgroups"][cg]
    anon, file = lruvec["min_seq"][LRU_GEN_ANON], oldest_populated(row, cg, LRU_GEN_FILE)
    if can_swap:
        anon = min(oldest_populated(row, cg, LRU_GEN_ANON), file)
        file = max(anon, lruvec["min_seq"][LRU_GEN_FILE])
    for kind in range(2):
        seq = file if kind == LRU_GEN_FILE else anon
        if seq != lruvec["min_seq"][kind]:
            reset_ctrl_pos(lruvec, kind)
            lruvec["min_seq"][kind] = seq


@law
def pages_of_gen(row, cg, kind, seq):
    """Pages of the youngest generation of a type.

    Source: include/linux/mmzone.h struct lru_gen_struct (nr_pages), counted from the head of the list.
    """
    lruvec, pages = row["cgroups"][cg], 0
    i = lruvec["head"][lru_gen_list(lruvec, kind, seq)]
    while i >= 0 and lru_gen_seq(lruvec, row["cohorts"][i]) == seq:
        pages += row["cohorts"][i]["nr"]
        i = row["cohorts"][i]["next"]
    return pages


@law
def oldest_on_nodes(row, cg, lowest):
    """The oldest generation in which the NUMA node that is reclaimed from has pages: it may be younger than the other node's.

    lowest  int64  0, or 2: of file pages only

    Source: fleetsim's own representation (two nodes share their generations).
    """
    lruvec = row["cgroups"][cg]
    oldest = lruvec["max_seq"]
    for lru in range(lowest, LRU_UNEVICTABLE):
        i = next_on_nodes(row, lruvec["tail"][lru])
        if i >= 0:
            oldest = min(oldest, lru_gen_seq(lruvec, row["cohorts"][i]))
    return oldest


@law
def should_run_aging(row, sc, cg, can_swap):
    """Is a new generation due, and how much of the lruvec should be scanned at this priority?

        fewer than three generations: yes;  more: no;  three: if the youngest has more than 1/2 or the oldest less than 1/4 of the pages

    returns  (bool, int64 pages); of a removed cgroup all pages

    Source: mm/vmscan.c should_run_aging.
    """
    lruvec = row["cgroups"][cg]
    size = lruvec["size"]
    total = size[2] + size[3] + (size[0] + size[1] if can_swap else 0)
    scan = total if lruvec["used"] == DYING else total >> sc["priority"]
    oldest = lruvec["min_seq"][LRU_GEN_ANON if can_swap else LRU_GEN_FILE]
    if row["reclaim_nodes"] != ALL_NODES:
        oldest = oldest_on_nodes(row, cg, 0 if can_swap else 2)
    if oldest + MIN_NR_GENS > lruvec["max_seq"]:
        return True, scan
    if oldest + MIN_NR_GENS < lruvec["max_seq"]:
        return False, scan
    old = size[2] + (size[0] if can_swap else 0)
    if old * (MIN_NR_GENS + 2) < total:
        return True, scan
    young = pages_of_gen(row, cg, LRU_GEN_FILE, lruvec["max_seq"])
    if can_swap:
        young += pages_of_gen(row, cg, LRU_GEN_ANON, lruvec["max_seq"])
    return young * MIN_NR_GENS > total, scan


@law
def age_lruvec(row, sc, cg):
    """kswapd's look at one lruvec before a pass.

    returns  bool  True: it has something old enough to be reclaimed

    Source: mm/vmscan.c age_lruvec.
    """
    lruvec = row["cgroups"][cg]
    calculate_protection(row, sc["target"], cg)
    if lruvec["emin"] > 0 and lruvec["usage"] <= lruvec["emin"]:
        return False
    can_swap = get_swappiness(row, cg) > 0
    due, scan = should_run_aging(row, sc, cg, can_swap)
    if row["lru_gen_min_ttl"] > 0:
        birth = int(lruvec["timestamps"][lruvec["min_seq"][LRU_GEN_FILE] & (MAX_NR_GENS - 1)]) * JIFFY_NS
        if birth + row["lru_gen_min_ttl"] > row["now_ns"]:
            return False
        if scan == 0 and sc["priority"] != DEF_PRIORITY:
            return False
    if due:
        try_to_inc_max_seq(row, sc, cg, can_swap)
    return True


@law
def lru_gen_age_node(row, sc):
    """Before each pass of kswapd: age whatever lruvec needs it, unless the last pass found enough without.

    returns  bool  False: every generation of every lruvec is younger than min_ttl_ms; somebody must be killed

    Source: mm/vmscan.c lru_gen_age_node.
    """
    if sc["memcgs_need_aging"] == 0:
        sc["memcgs_need_aging"] = 1
        return True
    success = False
    for cg in range(row["nr_cgroups"]):
        if row["cgroups"][cg]["used"] > 0 and age_lruvec(row, sc, cg):
            success = True
    return success or row["lru_gen_min_ttl"] == 0
