# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is in a pass of kswapd: the loop over the lruvecs (mm/vmscan.c shrink_node_memcgs), as cheap as it can be.

A slice of work is a part of one large lruvec, or several small ones. Two short ways: a lruvec of which no page would be scanned
(it ends where the long way does), and, on a host with a tick, a lruvec of which next to nothing would be scanned: what it owes adds
up until it is worth the way (at most a sixth of what kswapd wants; the recordings are as near as without).
"""

from __future__ import annotations

from fleetsim.hardware.cpu import VISIT
from fleetsim.law import law
from fleetsim.linux.lru_gen import lru_gen_enabled
from fleetsim.linux.mm_types import LRU_ACTIVE_ANON, LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE, VM
from fleetsim.linux.shrinker import has_objects, shrink_slab
from fleetsim.linux.vmscan import age_anon, begin_lruvec, may_shrink, shrink_slice
from fleetsim.linux.vmscan_laws import ScanBalance, scan_balance

PGSCAN_KSWAPD = VM["pgscan_kswapd"]
SLICE_MIN = 512  # pages of one slice of work at least …
SLICE_SHARE = 16  # … and at most this part of what the run wants to reclaim,
QUANTUM_SHARE = 2  # on a host with a tick this one, as long as nothing has to be written
OWED_SHARE = 6  # a lruvec owes at most this part of it …
OWED_MAX = 32_767  # … and what cgroup["owed"] can hold


@law
def only_file_is_scanned(row, sc):
    """True if no lruvec has anonymous pages scanned in this pass.

    Source: mm/vmscan.c get_scan_count (`scan_balance` says so for whoever may swap, and so for all).
    """
    swappiness, trim = row["sysctl"]["swappiness"], sc["cache_trim_mode"] > 0
    return scan_balance(sc["may_swap"] > 0, False, swappiness, sc["priority"], sc["file_is_tiny"] > 0, trim) == ScanBalance.FILE


@law
def may_swap(row, cg):
    """False if memory.swap.max of a cgroup itself forbids it: its anonymous pages are never scanned then.

    Source: mm/vmscan.c get_scan_count (can_reclaim_anon_pages), for containers without swap; the root has no such file.
    """
    return cg == 0 or row["cgroups"][cg]["swap_max"] > 0


@law
def has_nothing_to_scan(row, sc, cg, only_file):
    """The turn of a lruvec without file pages and objects, whose anonymous pages are not scanned: a short way to the same end.

    only_file  bool  nobody's anonymous pages are scanned in this pass
    returns    bool  False: it has some, and must have its turn

    Source: mm/vmscan.c shrink_node_memcgs, as `may_shrink`, `begin_lruvec` and `shrink_slice` do it; get_scan_count (too few, no swap).
    """
    group = row["cgroups"][cg]
    if group["used"] > 0:
        size = group["size"]
        if size[LRU_INACTIVE_FILE] + size[LRU_ACTIVE_FILE] > 0 or has_objects(row, cg):
            return False
        anon = max(size[LRU_INACTIVE_ANON], size[LRU_ACTIVE_ANON])
        if not only_file and anon >> sc["priority"] > 0 and may_swap(row, cg):
            return False
        sc["spent_ns"] += row["cost"][VISIT]
        if size[LRU_ACTIVE_ANON] > 0:
            age_anon(row, sc, cg)
    return True


@law
def put_off(row, sc, cg, only_file):
    """The turn of a lruvec of which only a few file pages would be scanned: they are owed, until all that is owed is worth the way.

    Only on a host with a tick, whose tasks work in quanta as well, and only where nothing would be deactivated nor marks are boosted. A
    pass counts what is owed from then on as scanned and reclaimed, not again when it is done (`pay_owed`), so that priorities
    fall as they would.

    only_file  bool  nobody's anonymous pages are scanned in this pass
    returns    bool  False: it must have its turn

    Source: fleetsim's own quantum of kswapd's work; as mm/vmscan.c did by nr_saved_scan until Linux 3.1.
    """
    group = row["cgroups"][cg]
    kswapd = row["kswapd"][sc["node"]]
    if row["tick_ns"] == 0 or kswapd["boost_left"] > 0 or (not only_file and may_swap(row, cg)):
        return False
    if sc["may_deactivate"][1] > 0 and group["size"][LRU_ACTIVE_FILE] > 0:
        return False
    scan = group["size"][LRU_INACTIVE_FILE] >> sc["priority"]
    if group["owed"] + scan > min(sc["wanted"] // OWED_SHARE, OWED_MAX):
        return False
    group["owed"] += scan
    sc["scanned"] += scan
    kswapd["pass_reclaimed"] -= scan
    sc["spent_ns"] += row["cost"][VISIT]
    age_anon(row, sc, cg)
    return True


@law
def pay_owed(row, sc, cg):
    """What earlier passes owe a lruvec is scanned on top of what this pass would.

    Source: as `put_off`.
    """
    group = row["cgroups"][cg]
    owed = int(group["owed"])
    if owed > 0:
        sc["nr"][LRU_INACTIVE_FILE] += owed
        sc["goal"][LRU_INACTIVE_FILE] += owed
        sc["scanned"] -= owed
        row["kswapd"][sc["node"]]["pass_reclaimed"] += owed
        group["owed"] = 0


@law
def take_turns(row, sc):
    """Go through the lruvecs of the pass until a slice of work is done: small ones cost no event of their own.

    Source: mm/vmscan.c shrink_node_memcgs.
    """
    kswapd = row["kswapd"][sc["node"]]
    small = max(SLICE_MIN, sc["wanted"] // SLICE_SHARE)
    budget = small if row["tick_ns"] == 0 else max(SLICE_MIN, sc["wanted"] // QUANTUM_SHARE)
    looked = row["vm"][PGSCAN_KSWAPD]
    plain = row["protected"] == 0 and not lru_gen_enabled(row)
    only_file = plain and only_file_is_scanned(row, sc)
    while kswapd["cursor"] < row["nr_cgroups"] and row["vm"][PGSCAN_KSWAPD] - looked < budget:
        cg = kswapd["cursor"]
        if kswapd["midway"] == 0:
            if plain and (has_nothing_to_scan(row, sc, cg, only_file) or put_off(row, sc, cg, only_file)):
                kswapd["cursor"] += 1
                continue
            if not may_shrink(row, sc, cg):
                kswapd["cursor"] += 1
                continue
            begin_lruvec(row, sc, cg)
            pay_owed(row, sc, cg)
        if sc["nr"][LRU_INACTIVE_ANON] > 0:
            budget = small
        kswapd["midway"] = 0 if shrink_slice(row, sc, cg, budget) else 1
        if kswapd["midway"] > 0:
            break
        shrink_slab(row, sc, cg)
        kswapd["cursor"] += 1
