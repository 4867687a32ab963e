# SPDX-License-Identifier: Apache-2.0
"""Reclaim: which pages go, and in which order (mm/vmscan.c).

    try_to_free_pages / try_to_free_mem_cgroup_pages / kswapd (kswapd.py)
      └ shrink_node: decide once per pass, then visit every lruvec of the subtree
          └ shrink_lruvec: how much of each list (get_scan_count), then consume it
              ├ shrink_inactive_list (shrink_list.py): what becomes of the pages at the tail
              └ shrink_active_list (shrink_list.py): deactivate
          └ shrink_slab (shrinker.py): names, inodes, shadow nodes

This is the classic active/inactive LRU; with MGLRU the two laws about an lruvec hand over to lru_gen_evict.py. The scalar formulas are
in `vmscan_laws.py`. Leaves out: huge pages.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import VISIT
from fleetsim.law import law
from fleetsim.linux.lru_gen import lru_gen_enabled
from fleetsim.linux.lru_gen_evict import lru_gen_begin_lruvec, lru_gen_shrink_lruvec
from fleetsim.linux.memcontrol import calculate_protection, event, in_subtree, swap_room
from fleetsim.linux.mm_types import (
    ALL_NODES,
    BY_DIRECT,
    BY_MEMCG,
    CG,
    DEF_PRIORITY,
    EV,
    LRU_ACTIVE_ANON,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    NO_LIMIT,
    SWAP_CLUSTER_MAX,
    VM,
)
from fleetsim.linux.nodes import count_node_lists, lruvec_lru_size, nr_free_in, nr_high_in
from fleetsim.linux.shrink_list import shrink_active_list, shrink_inactive_list
from fleetsim.linux.shrinker import has_objects, shrink_slab
from fleetsim.linux.vmscan_laws import (
    ScanBalance,
    cache_trim_mode,
    file_is_tiny,
    fract_anon_file,
    inactive_is_low,
    protected_size,
    scan_balance,
)

CG_ACTIVATE = CG["workingset_activate_anon"]
EV_LOW = EV["low"]
ALLOCSTALL = VM["allocstall_movable"]


@law
def prepare_scan_count(row, sc):
    """Decide for one pass: which lists may be deactivated, whether only the cache is trimmed, whether the cache is tiny.

    Source: mm/vmscan.c prepare_scan_count, shrink_node; kernel-laws §3.2, §3.4. MGLRU decides nothing here.
    """
    if lru_gen_enabled(row):
        return
    target = row["cgroups"][sc["target"]]
    tree = target["tree"]
    if row["reclaim_nodes"] != ALL_NODES:  # of the whole host
        tree = sc["lists"]
        count_node_lists(row, tree)
    for kind in range(2):  # anon, file
        inactive, active = tree[2 * kind], tree[2 * kind + 1]
        refaulted = target["stat"][CG_ACTIVATE + kind] != target["refaults"][kind]
        allowed = sc["force_deactivate"] > 0 or refaulted or inactive_is_low(inactive, active)
        sc["may_deactivate"][kind] = 1 if allowed else 0
    sc["cache_trim_mode"] = 1 if cache_trim_mode(tree[LRU_INACTIVE_FILE], sc["priority"], sc["may_deactivate"][1] > 0) else 0
    sc["file_is_tiny"] = 0
    if sc["kind"] != BY_MEMCG:
        cache, deactivate_anon = tree[LRU_INACTIVE_FILE] + tree[LRU_ACTIVE_FILE], sc["may_deactivate"][0] > 0
        free, high = nr_free_in(row, row["reclaim_nodes"]), nr_high_in(row, row["reclaim_nodes"])
        if file_is_tiny(cache, free, high, deactivate_anon, tree[LRU_INACTIVE_ANON], sc["priority"]):
            sc["file_is_tiny"] = 1


@law
def get_scan_count(row, sc, cg):
    """How many pages of each list of lruvec `cg` this pass should look at; into sc["nr"].

    Source: mm/vmscan.c get_scan_count; kernel-laws §3.5.
    """
    lruvec = row["cgroups"][cg]
    target = row["cgroups"][sc["target"]]
    swappiness = row["sysctl"]["swappiness"]
    tiny, trim = sc["file_is_tiny"] > 0, sc["cache_trim_mode"] > 0
    balance = scan_balance(True, sc["kind"] == BY_MEMCG, swappiness, sc["priority"], tiny, trim)
    if balance != ScanBalance.FILE and (sc["may_swap"] == 0 or swap_room(row, cg) <= 0):
        balance = scan_balance(False, sc["kind"] == BY_MEMCG, swappiness, sc["priority"], tiny, trim)
    ap, fp = 1, 1
    if balance == ScanBalance.FRACT:
        ap, fp = fract_anon_file(swappiness, target["anon_cost"], target["file_cost"])
    protection = 0
    if cg != sc["target"]:
        protection = lruvec["emin"]
        if sc["low_reclaim"] == 0 and lruvec["elow"] > lruvec["emin"]:
            protection = lruvec["elow"]
            sc["low_skipped"] = 1  # scanned less for its sake: worth another round without
    for lru in range(4):
        is_file = lru >= LRU_INACTIVE_FILE
        size = lruvec_lru_size(row, cg, lru)
        if protection > 0:
            size = min(size, protected_size(size, lruvec["usage"], protection))
        scan = min(size, (size >> sc["priority"]) * int(sc["rounds"]))
        if balance == ScanBalance.FILE:
            scan = scan if is_file else 0
        elif balance == ScanBalance.ANON:
            scan = 0 if is_file else scan
        elif balance != ScanBalance.EQUAL and scan > 0:
            scan = scan * (fp if is_file else ap) // (ap + fp)
        sc["nr"][lru] = scan
        sc["goal"][lru] = scan


@law
def shrink_list(row, sc, cg, lru, pages):
    """One helping of one list: inactive lists are reclaimed from, active ones deactivated if this pass may.

    returns  int64  pages reclaimed

    Source: mm/vmscan.c shrink_list.
    """
    if lru in (LRU_ACTIVE_ANON, LRU_ACTIVE_FILE):
        if sc["may_deactivate"][lru // 2] > 0:
            shrink_active_list(row, sc, cg, lru, pages)
        else:
            sc["skipped_deactivate"] = 1
        return 0
    return shrink_inactive_list(row, sc, cg, lru, pages)


@law
def cut_to_proportion(sc):
    """The target is met: drop the smaller side, and let the larger go on only as far as the smaller was taken.

    returns  bool  False: nothing is left to do

    Source: mm/vmscan.c shrink_lruvec (stop-fairness); kernel-laws §3.5.
    """
    nr, goal = sc["nr"], sc["goal"]
    anon, file = nr[LRU_INACTIVE_ANON] + nr[LRU_ACTIVE_ANON], nr[LRU_INACTIVE_FILE] + nr[LRU_ACTIVE_FILE]
    if anon == 0 or file == 0:
        return False
    small = LRU_INACTIVE_ANON if file > anon else LRU_INACTIVE_FILE
    large = LRU_INACTIVE_FILE if file > anon else LRU_INACTIVE_ANON
    percentage = min(anon, file) * 100 // (goal[small] + goal[small + 1] + 1)
    for k in range(2):
        nr[small + k] = 0
        done = goal[large + k] - nr[large + k]
        nr[large + k] = max(0, goal[large + k] * (100 - percentage) // 100 - done)
    return True


@law
def shrink_lruvec(row, sc, cg):
    """Consume this pass's share of the four lists of one lruvec: 32 pages of each in turn, stopping fairly at the target.

    Pages sent to swap count towards the target: in life they are written, and freed from the tail, while the pass goes on;
    here no time passes inside it, and without this a direct reclaimer would send out everything it can reach.

    Source: mm/vmscan.c shrink_lruvec; kernel-laws §3.5.
    """
    if lru_gen_enabled(row):
        lru_gen_begin_lruvec(row, sc, cg)
        lru_gen_shrink_lruvec(row, sc, cg, NO_LIMIT)
        return
    get_scan_count(row, sc, cg)
    nr = sc["nr"]
    sent_before = sc["sent"]
    adjusted = sc["kind"] == BY_DIRECT and sc["priority"] == DEF_PRIORITY
    reclaimed = 0
    while nr[LRU_INACTIVE_ANON] + nr[LRU_ACTIVE_FILE] + nr[LRU_INACTIVE_FILE] > 0:
        for lru in range(4):
            pages = min(nr[lru], SWAP_CLUSTER_MAX * int(sc["rounds"]))
            if pages > 0:
                nr[lru] -= pages
                reclaimed += shrink_list(row, sc, cg, lru, pages)
        if reclaimed + sc["sent"] - sent_before < sc["wanted"] or adjusted:
            continue
        if not cut_to_proportion(sc):
            break
        adjusted = True
    sc["reclaimed"] += reclaimed
    age_anon(row, sc, cg)


@law
def begin_lruvec(row, sc, cg):
    """kswapd: the turn of a lruvec begins.

    Source: mm/vmscan.c shrink_lruvec (its first lines).
    """
    if lru_gen_enabled(row):
        lru_gen_begin_lruvec(row, sc, cg)
        return
    get_scan_count(row, sc, cg)
    sc["lruvec_reclaimed"] = 0


@law
def shrink_slice(row, sc, cg, budget):
    """kswapd's part of the same: up to `budget` pages of what is left in sc["nr"], every list in proportion.

    Between two slices time passes, so that pages sent out are written meanwhile and freed by the next slice of the same
    pass; without that a pass over a long list would send out far more than it needs.

    returns  bool  True: this lruvec's share is consumed, or the target is met

    Source: mm/vmscan.c shrink_lruvec, cut into slices of our own.
    """
    if lru_gen_enabled(row):
        return lru_gen_shrink_lruvec(row, sc, cg, budget)
    nr = sc["nr"]
    total = nr[0] + nr[1] + nr[2] + nr[3]
    if total == 0:
        age_anon(row, sc, cg)
        return True
    done = sc["lruvec_reclaimed"]
    for lru in range(4):
        pages = nr[lru] if total <= budget else min(nr[lru], nr[lru] * budget // total + 1)
        if pages > 0:
            nr[lru] -= pages
            done += shrink_list(row, sc, cg, lru, pages)
    sc["reclaimed"] += done - sc["lruvec_reclaimed"]
    sc["lruvec_reclaimed"] = done
    if nr[LRU_INACTIVE_ANON] + nr[LRU_ACTIVE_FILE] + nr[LRU_INACTIVE_FILE] > 0 and done < sc["wanted"]:
        return False
    age_anon(row, sc, cg)
    return True


@law
def age_anon(row, sc, cg):
    """At the end of a lruvec's turn: deactivate 32 anonymous pages if its inactive list is low.

    Source: mm/vmscan.c shrink_lruvec (its last lines).
    """
    lruvec = row["cgroups"][cg]
    if row["swap_total"] > 0 and inactive_is_low(lruvec["tree"][LRU_INACTIVE_ANON], lruvec["tree"][LRU_ACTIVE_ANON]):
        shrink_active_list(row, sc, cg, LRU_ACTIVE_ANON, SWAP_CLUSTER_MAX)


@law
def is_protected(row, sc, cg):
    """True if a lruvec is left alone for the sake of memory.min or memory.low.

    Source: mm/vmscan.c shrink_node_memcgs (mem_cgroup_below_min, mem_cgroup_below_low); kernel-laws §3.11.
    """
    group = row["cgroups"][cg]
    calculate_protection(row, sc["target"], cg)
    if group["emin"] > 0 and group["usage"] <= group["emin"]:
        return True
    if group["elow"] > 0 and group["usage"] <= group["elow"]:
        if sc["low_reclaim"] == 0:
            sc["low_skipped"] = 1
            return True
        event(row, cg, EV_LOW)
    return False


@law
def may_shrink(row, sc, cg):
    """True if a lruvec has its turn in a pass: it is in the subtree, has pages or slab objects, and is not protected.

    Source: mm/vmscan.c shrink_node_memcgs; kernel-laws §3.4, §3.11.
    """
    group = row["cgroups"][cg]
    if group["used"] == 0 or (sc["target"] > 0 and not in_subtree(row, cg, sc["target"])):
        return False
    sc["spent_ns"] += row["cost"][VISIT] * int(sc["rounds"])
    if row["protected"] > 0 and is_protected(row, sc, cg):
        return False
    return group["size"][0] + group["size"][1] + group["size"][2] + group["size"][3] > 0 or has_objects(row, cg)


@law
def snapshot_refaults(row, target):
    """Remember how many refaults were activated when reclaim ended: growth until the next pass permits deactivation.

    Source: mm/vmscan.c snapshot_refaults.
    """
    group = row["cgroups"][target]
    for kind in range(2):
        group["refaults"][kind] = group["stat"][CG_ACTIVATE + kind]


@law
def sweep(row, sc, priority):
    """Priorities from one down to 0 until the target is met.

    Source: mm/vmscan.c do_try_to_free_pages (the inner loop), shrink_node (whoever reclaims a page gives kswapd new hope);
    kernel-laws §3.3.
    """
    sc["skipped_deactivate"] = 0
    sc["low_skipped"] = 0
    first, after = 0, row["nr_cgroups"]
    if row["cgroups"][sc["target"]]["children"] == 0:  # a container that reached its limit: there is nobody else to look at
        first, after = sc["target"], sc["target"] + 1
    for step in range(priority + 1):
        sc["priority"] = priority - step
        sc["scanned"] = 0
        prepare_scan_count(row, sc)
        for cg in range(first, after):
            if may_shrink(row, sc, cg):
                shrink_lruvec(row, sc, cg)
                shrink_slab(row, sc, cg)
        if sc["reclaimed"] + sc["sent"] >= sc["wanted"]:
            break
    if sc["reclaimed"] > 0:
        for n in range(row["nr_nodes"]):
            if (row["reclaim_nodes"] >> n) & 1 > 0:
                row["kswapd"][n]["failures"] = 0


@law
def begin_direct(row, kind, target, wanted, may_swap):
    """The scan control of a reclaim by whoever needs the pages, at its begin.

    Source: mm/vmscan.c struct scan_control, as try_to_free_pages and __node_reclaim fill it.
    """
    sc = row["scan"][1]
    sc["kind"] = kind
    sc["target"] = target
    sc["wanted"] = wanted
    sc["rounds"] = 1
    sc["reclaimed"] = 0
    sc["sent"] = 0
    sc["dirty"] = 0
    sc["force_deactivate"] = 0
    sc["low_reclaim"] = 0
    sc["may_swap"] = may_swap
    sc["spent_ns"] = 0
    return sc


@law
def reclaim_rounds(row, target, rounds):
    """Rounds of reclaim for charges that meet a limit, one after the other, as one: each list is scanned so many times as much.

    returns  int64  pages reclaimed

    Source: as `do_try_to_free_pages`; lists hardly change from one round to the next. Leaves out: what a fruitless round does next.
    """
    sc = begin_direct(row, BY_MEMCG, target, rounds * SWAP_CLUSTER_MAX, 1)
    sc["rounds"] = rounds
    sweep(row, sc, DEF_PRIORITY)
    snapshot_refaults(row, target)
    return sc["reclaimed"]


@law
def do_try_to_free_pages(row, target, wanted, kind):
    """Reclaim directly from the subtree of `target` until `wanted` pages are free or everything was tried.

    target   int64  cgroup row, 0 for the host
    wanted   int64  pages
    kind     int64  BY_DIRECT or BY_MEMCG
    returns  int64  pages reclaimed; row["scan"][1] also says how many were sent to swap and the processor time it took

    Source: mm/vmscan.c do_try_to_free_pages, try_to_free_pages, try_to_free_mem_cgroup_pages; kernel-laws §3.3.
    Leaves out: the time that passes inside (the caller waits for it afterwards).
    """
    sc = begin_direct(row, kind, target, wanted, 1)
    row["reclaim_nodes"] = row["mems_allowed"] if kind == BY_DIRECT else ALL_NODES
    while True:
        if kind == BY_DIRECT:
            row["vm"][ALLOCSTALL] += 1
        sweep(row, sc, DEF_PRIORITY)
        snapshot_refaults(row, target)
        if sc["reclaimed"] + sc["sent"] > 0:
            break
        if sc["skipped_deactivate"] > 0 and sc["force_deactivate"] == 0:
            sc["force_deactivate"] = 1
        elif sc["low_skipped"] > 0 and sc["low_reclaim"] == 0:
            sc["force_deactivate"] = 0
            sc["low_reclaim"] = 1
        else:
            break
    row["reclaim_nodes"] = ALL_NODES
    return sc["reclaimed"]
