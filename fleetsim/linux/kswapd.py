# SPDX-License-Identifier: Apache-2.0
"""kswapd: the background reclaimer of a NUMA node (mm/vmscan.c kswapd, balance_pgdat).

    SLEEP  woken                                    → RUN
    RUN    balanced, or hopeless (16 failures)      → NAP (100 ms)
    RUN    priorities used up and not balanced      → RUN again at once (high_wmark_hit_quickly)
    NAP    woken before it is over                  → RUN (low_wmark_hit_quickly)
    NAP    over and no longer balanced              → RUN (high_wmark_hit_quickly)
    NAP    over and still balanced, or hopeless     → SLEEP

It works in slices (`kswapd_turns.py`), so that tasks go on between them; the balanced test comes only between passes, and that
overshoot is the saw-tooth seen in MemFree. Boosted marks (`boost_marks`) begin a run although the node is balanced: as many pages
are reclaimed, without swap and without writing; when the run ends the boost is taken off again.
Leaves out: requests for lower zones than the highest (highest_zoneidx).
"""

from __future__ import annotations

from fleetsim.hardware.cpu import SYSCALL
from fleetsim.law import law
from fleetsim.linux.compaction import reset_isolation_suitable, wakeup_kcompactd
from fleetsim.linux.cputime import account_time, idlest_cpu_of
from fleetsim.linux.kswapd_turns import take_turns
from fleetsim.linux.lru_gen import lru_gen_enabled
from fleetsim.linux.lru_gen_age import lru_gen_age_node
from fleetsim.linux.mm_types import (
    ALL_NODES,
    BY_KSWAPD,
    DEF_PRIORITY,
    HELD_BY_KSWAPD,
    KSWAPD_NAP,
    KSWAPD_RUN,
    KSWAPD_SLEEP,
    LRU_ACTIVE_ANON,
    LRU_INACTIVE_ANON,
    MAX_RECLAIM_RETRIES,
    NEVER,
    NR_ZONES,
    PSI_MEM,
    SWAP_CLUSTER_MAX,
    VM,
)
from fleetsim.linux.mmzone import PAGEBLOCK_ORDER
from fleetsim.linux.nodes import bit_of, nr_high_in
from fleetsim.linux.oom_kill import out_of_memory
from fleetsim.linux.per_cpu_pages import trim
from fleetsim.linux.psi import stall
from fleetsim.linux.shrink_list import shrink_active_list
from fleetsim.linux.vmscan import prepare_scan_count, snapshot_refaults
from fleetsim.linux.vmscan_laws import inactive_is_low
from fleetsim.linux.zonelist import balanced, watermark_boosted

PAGEOUTRUN, LOW_QUICKLY, HIGH_QUICKLY = VM["pageoutrun"], VM["kswapd_low_wmark_hit_quickly"], VM["kswapd_high_wmark_hit_quickly"]
NAP_NS = 100_000_000


@law
def wakeup_kswapd(row):
    """An allocation of a single page missed the low watermark on all nodes it may use.

    Source: mm/vmscan.c wakeup_kswapd; kernel-laws §3.9.
    """
    wakeup_kswapd_order(row, 0, True)


@law
def wakeup_kswapd_order(row, order, direct_reclaim):
    """An allocation of an order missed the low watermark on all nodes it may use, or marks were boosted.

    direct_reclaim  bool  the caller may reclaim itself; whoever may not has kcompactd woken where kswapd is of no use

    Source: mm/page_alloc.c wake_all_kswapds.
    """
    for node in range(row["nr_nodes"]):
        if (row["mems_allowed"] >> node) & 1 > 0:
            wakeup_kswapd_of(row, node, order, direct_reclaim)


@law
def wakeup_kswapd_of(row, node, order, direct_reclaim):
    """Wake the kswapd of one node.

    Source: mm/vmscan.c wakeup_kswapd; kernel-laws §3.9.
    """
    kswapd = row["kswapd"][node]
    kswapd["order"] = max(kswapd["order"], order)
    if kswapd["state"] == KSWAPD_RUN:
        return
    if kswapd["failures"] >= MAX_RECLAIM_RETRIES or (
        balanced(row, order, bit_of(row, node)) and not watermark_boosted(row, bit_of(row, node))
    ):
        if not direct_reclaim:
            wakeup_kcompactd(row, order)
        return
    if kswapd["state"] == KSWAPD_NAP:
        row["vm"][LOW_QUICKLY] += 1
    begin_run(row, node)


@law
def wakeup_boosted(row):
    """Whoever had to take pages from another type wakes that node's kswapd afterwards.

    Source: mm/page_alloc.c rmqueue (ZONE_BOOSTED_WATERMARK).
    """
    row["boosted"] = 0
    nodes = 0
    for z in range(NR_ZONES):
        if row["zones"][z]["boosted"] > 0:
            nodes = nodes | 1 << row["zones"][z]["node"]
        row["zones"][z]["boosted"] = 0
    for node in range(row["nr_nodes"]):
        if (nodes >> node) & 1 > 0:
            wakeup_kswapd_of(row, node, 0, False)


@law
def begin_run(row, node):
    """Start a balance run of a node at the lowest pressure.

    Source: mm/vmscan.c balance_pgdat (its beginning).
    """
    kswapd, sc = row["kswapd"][node], row["scan"][2 * node]
    kswapd["state"] = KSWAPD_RUN
    kswapd["next_ns"] = row["now_ns"]
    kswapd["cursor"] = -1
    kswapd["midway"] = 0
    row["vm"][PAGEOUTRUN] += 1
    sc["kind"] = BY_KSWAPD
    sc["node"] = node
    sc["target"] = 0
    sc["rounds"] = 1
    sc["priority"] = DEF_PRIORITY
    sc["order"] = kswapd["order"]
    kswapd["alloc_order"] = kswapd["order"]
    kswapd["order"] = 0
    kswapd["boost_left"] = 0
    for z in range(NR_ZONES):
        kswapd["boost"][z] = row["zones"][z]["boost"] if row["zones"][z]["node"] == node else 0
        kswapd["boost_left"] += kswapd["boost"][z]
    sc["wanted"] = max(nr_high_in(row, bit_of(row, node)), SWAP_CLUSTER_MAX)
    sc["reclaimed"] = 0
    sc["force_deactivate"] = 0
    sc["low_reclaim"] = 0
    sc["low_skipped"] = 0
    sc["memcgs_need_aging"] = 0
    kswapd["pass_reclaimed"] = 0


@law
def unboost(row, kswapd):
    """The run that boosted marks had begun is over: what they were boosted by then comes off, and there may be room to compact.

    Source: mm/vmscan.c balance_pgdat (its end).
    """
    boosted = False
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        off = min(zone["boost"], kswapd["boost"][z])
        boosted = boosted or kswapd["boost"][z] > 0
        kswapd["boost"][z] = 0
        zone["boost"] -= off
        for mark in range(3):
            zone["wmark"][mark] -= off
    if boosted:
        wakeup_kcompactd(row, PAGEBLOCK_ORDER)


@law
def end_run(row, sc, gave_up):
    """A run is over. A fruitless one is a failure, and sixteen of them make kswapd hopeless. It naps if the node is balanced
    or hopeless; if not it runs again at once, which counts as high_wmark_hit_quickly too.

    gave_up  bool  it did not end because the node is balanced

    Source: mm/vmscan.c balance_pgdat (its end), kswapd_try_to_sleep, prepare_kswapd_sleep.
    """
    kswapd = row["kswapd"][sc["node"]]
    if sc["reclaimed"] > 0:
        kswapd["failures"] = 0
    elif gave_up:
        kswapd["failures"] += 1
    snapshot_refaults(row, 0)
    unboost(row, kswapd)
    wake, order = kswapd["alloc_order"], sc["order"]  # fell back to single pages: the order asked for is left to kcompactd
    if order == wake:
        wake = kswapd["order"]
        order = wake
    if balanced(row, order, bit_of(row, sc["node"])) or kswapd["failures"] >= MAX_RECLAIM_RETRIES:
        reset_isolation_suitable(row)
        wakeup_kcompactd(row, wake)
        kswapd["state"] = KSWAPD_NAP
        kswapd["next_ns"] = row["now_ns"] + NAP_NS
        return
    row["vm"][HIGH_QUICKLY] += 1
    sc["spent_ns"] += row["cost"][SYSCALL]
    begin_run(row, sc["node"])


@law
def end_pass(row, sc):
    """After a pass: press harder if it scanned less than the target or reclaimed nothing.

    What memory.low protects is left to direct reclaim: kswapd never breaks it, and so runs fruitless when nothing else is left.

    Source: mm/vmscan.c balance_pgdat (raise_priority; no memcg_low_skipped there before 6.10); kernel-laws §3.9.
    """
    kswapd = row["kswapd"][sc["node"]]
    got = max(0, sc["reclaimed"] - kswapd["pass_reclaimed"])
    if sc["order"] > 0 and sc["reclaimed"] >= 2 << sc["order"]:
        sc["order"] = 0
    raise_priority = sc["scanned"] < sc["wanted"] and not (kswapd["boost_left"] > 0 and sc["priority"] == DEF_PRIORITY - 2)
    kswapd["boost_left"] -= min(kswapd["boost_left"], got)
    kswapd["cursor"] = -1
    if kswapd["boost_left"] > 0 and got == 0:
        end_run(row, sc, True)
        return
    if raise_priority or got == 0:
        sc["priority"] -= 1
    if sc["priority"] < 1:
        end_run(row, sc, True)


@law
def age_node(row, sc):
    """Before each pass: deactivate 32 anonymous pages of every lruvec whose inactive list is low.

    Source: mm/vmscan.c kswapd_age_node (age_active_anon).
    """
    if lru_gen_enabled(row):
        if not lru_gen_age_node(row, sc):
            out_of_memory(row, 0, -1)
        return
    if row["swap_total"] == 0 or row["cgroups"][0]["tree"][LRU_ACTIVE_ANON] == 0:
        return
    for cg in range(row["nr_cgroups"]):
        lruvec = row["cgroups"][cg]
        if lruvec["size"][LRU_ACTIVE_ANON] > 0 and inactive_is_low(lruvec["tree"][LRU_INACTIVE_ANON], lruvec["tree"][LRU_ACTIVE_ANON]):
            shrink_active_list(row, sc, cg, LRU_ACTIVE_ANON, SWAP_CLUSTER_MAX)


@law
def begin_pass(row, sc):
    """A pass over all lruvecs begins: age the anonymous ones, decide what may be done.

    Source: mm/vmscan.c balance_pgdat, shrink_node.
    """
    kswapd = row["kswapd"][sc["node"]]
    sc["scanned"] = 0
    kswapd["pass_reclaimed"] = sc["reclaimed"]
    trim(row)
    age_node(row, sc)
    prepare_scan_count(row, sc)
    kswapd["cursor"] = 0


@law
def pass_is_idle(row, sc):
    """True if there is nothing to do for another pass. A node that is not balanced is reclaimed as if there were no boost.

    Source: mm/vmscan.c balance_pgdat (the beginning of its loop).
    """
    kswapd = row["kswapd"][sc["node"]]
    enough = balanced(row, sc["order"], bit_of(row, sc["node"]))
    if not enough and kswapd["boost_left"] > 0:
        kswapd["boost_left"] = 0
        sc["priority"] = DEF_PRIORITY
    sc["may_swap"] = 1 if kswapd["boost_left"] == 0 else 0
    return enough and kswapd["boost_left"] == 0


@law
def run_kswapd(row, node):
    """One slice of a node's kswapd at the host's clock: the end of a nap, or work; passes in which nothing can be scanned go by at once.

    Source: mm/vmscan.c kswapd, balance_pgdat, kswapd_try_to_sleep; kernel-laws §3.9. Its whole run is memory stall (§9).
    """
    kswapd, sc = row["kswapd"][node], row["scan"][2 * node]
    if kswapd["state"] == KSWAPD_NAP:
        if balanced(row, kswapd["order"], bit_of(row, node)) or kswapd["failures"] >= MAX_RECLAIM_RETRIES:
            kswapd["state"] = KSWAPD_SLEEP
            kswapd["next_ns"] = NEVER
            return
        row["vm"][HIGH_QUICKLY] += 1
        begin_run(row, node)
    begin = row["now_ns"]
    cpu = idlest_cpu_of(row, node)
    if row["cpu"][cpu]["free_ns"] > begin:
        kswapd["next_ns"] = row["cpu"][cpu]["free_ns"]
        stall(row, -1, PSI_MEM, begin, kswapd["next_ns"])
        return
    sc["spent_ns"] = 0
    kswapd["next_ns"] = begin
    row["reclaim_nodes"] = bit_of(row, node)
    while True:
        if kswapd["cursor"] < 0:
            if pass_is_idle(row, sc):
                end_run(row, sc, False)
                break
            begin_pass(row, sc)
        take_turns(row, sc)
        if kswapd["cursor"] < row["nr_cgroups"]:
            break
        end_pass(row, sc)
        if sc["scanned"] > 0 or sc["priority"] == DEF_PRIORITY or kswapd["state"] != KSWAPD_RUN:
            break
    row["reclaim_nodes"] = ALL_NODES
    if sc["spent_ns"] > 0:
        account_time(row, cpu, HELD_BY_KSWAPD + node, 0, sc["spent_ns"])
        stall(row, -1, PSI_MEM, begin, begin + sc["spent_ns"])
    kswapd["next_ns"] = max(kswapd["next_ns"], begin + sc["spent_ns"] + 1)  # who waited meanwhile goes first
