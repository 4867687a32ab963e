# SPDX-License-Identifier: Apache-2.0
"""kswapd: the background reclaimer of the host (mm/vmscan.c kswapd, balance_pgdat).

    SLEEP  woken                                    → RUN
    RUN    balanced, or hopeless (16 failures)      → NAP (100 ms)
    RUN    priorities used up and not balanced      → RUN again at once (high_wmark_hit_quickly)
    NAP    woken before it is over                  → RUN (low_wmark_hit_quickly)
    NAP    over and no longer balanced              → RUN (high_wmark_hit_quickly)
    NAP    over and still balanced, or hopeless     → SLEEP

It works in slices, a part of one lruvec or several small ones each, so that tasks go on between them; the balanced test comes only
between passes, and that overshoot is the saw-tooth seen in MemFree.
Leaves out: watermark boost, orders above 0, kcompactd's wake-up.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import SYSCALL
from fleetsim.law import law
from fleetsim.linux.cputime import account_time, idlest_cpu
from fleetsim.linux.lru_gen import lru_gen_enabled
from fleetsim.linux.lru_gen_age import lru_gen_age_node
from fleetsim.linux.mm_types import (
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
    PSI_MEM,
    SWAP_CLUSTER_MAX,
    VM,
)
from fleetsim.linux.oom_kill import out_of_memory
from fleetsim.linux.per_cpu_pages import trim
from fleetsim.linux.psi import stall
from fleetsim.linux.shrink_list import shrink_active_list
from fleetsim.linux.shrinker import shrink_slab
from fleetsim.linux.vmscan import begin_lruvec, may_shrink, prepare_scan_count, shrink_slice, snapshot_refaults
from fleetsim.linux.vmscan_laws import inactive_is_low
from fleetsim.linux.zonelist import balanced, nr_high

PGSCAN_KSWAPD = VM["pgscan_kswapd"]
PAGEOUTRUN, LOW_QUICKLY, HIGH_QUICKLY = VM["pageoutrun"], VM["kswapd_low_wmark_hit_quickly"], VM["kswapd_high_wmark_hit_quickly"]
NAP_NS = 100_000_000
SLICE_MIN = 512  # pages of one slice of work at least …
SLICE_SHARE = 16  # … and at most this part of what the run wants to reclaim


@law
def wakeup_kswapd(row):
    """An allocation missed the low watermark.

    Source: mm/vmscan.c wakeup_kswapd; kernel-laws §3.9. Leaves out: waking kcompactd when it is hopeless.
    """
    kswapd = row["kswapd"]
    if kswapd["state"] == KSWAPD_RUN or kswapd["failures"] >= MAX_RECLAIM_RETRIES or balanced(row):
        return
    if kswapd["state"] == KSWAPD_NAP:
        row["vm"][LOW_QUICKLY] += 1
    begin_run(row)


@law
def begin_run(row):
    """Start a balance run at the lowest pressure.

    Source: mm/vmscan.c balance_pgdat (its beginning).
    """
    kswapd, sc = row["kswapd"], row["scan"][0]
    kswapd["state"] = KSWAPD_RUN
    kswapd["next_ns"] = row["now_ns"]
    kswapd["cursor"] = -1
    kswapd["midway"] = 0
    row["vm"][PAGEOUTRUN] += 1
    sc["kind"] = BY_KSWAPD
    sc["target"] = 0
    sc["priority"] = DEF_PRIORITY
    sc["wanted"] = max(nr_high(row), SWAP_CLUSTER_MAX)
    sc["reclaimed"] = 0
    sc["force_deactivate"] = 0
    sc["low_reclaim"] = 0
    sc["low_skipped"] = 0
    sc["memcgs_need_aging"] = 0
    kswapd["pass_reclaimed"] = 0


@law
def end_run(row):
    """A run is over. A fruitless one is a failure, and sixteen of them make kswapd hopeless. It naps if the node is balanced
    or hopeless; if not it runs again at once, which counts as high_wmark_hit_quickly too.

    Source: mm/vmscan.c balance_pgdat (its end), kswapd_try_to_sleep, prepare_kswapd_sleep.
    """
    kswapd, sc = row["kswapd"], row["scan"][0]
    if sc["reclaimed"] > 0:
        kswapd["failures"] = 0
    elif sc["priority"] < 1:
        kswapd["failures"] += 1
    snapshot_refaults(row, 0)
    if balanced(row) or kswapd["failures"] >= MAX_RECLAIM_RETRIES:
        kswapd["state"] = KSWAPD_NAP
        kswapd["next_ns"] = row["now_ns"] + NAP_NS
        return
    row["vm"][HIGH_QUICKLY] += 1
    sc["spent_ns"] += row["cost"][SYSCALL]
    begin_run(row)


@law
def end_pass(row):
    """After a pass: press harder if it scanned less than the target or reclaimed nothing.

    What memory.low protects is left to direct reclaim: kswapd never breaks it, and so runs fruitless when nothing else is left.

    Source: mm/vmscan.c balance_pgdat (raise_priority; no memcg_low_skipped there before 6.10); kernel-laws §3.9.
    """
    kswapd, sc = row["kswapd"], row["scan"][0]
    got = sc["reclaimed"] - kswapd["pass_reclaimed"]
    if sc["scanned"] < sc["wanted"] or got == 0:
        sc["priority"] -= 1
    kswapd["cursor"] = -1
    if sc["priority"] < 1:
        end_run(row)


@law
def age_node(row, sc):
    """Before each pass: deactivate 32 anonymous pages of every lruvec whose inactive list is low.

    Source: mm/vmscan.c kswapd_age_node (age_active_anon).
    """
    if lru_gen_enabled(row):
        if not lru_gen_age_node(row, sc):
            out_of_memory(row, 0, -1)
        return
    if row["swap_total"] == 0:
        return
    for cg in range(row["nr_cgroups"]):
        lruvec = row["cgroups"][cg]
        if lruvec["size"][LRU_ACTIVE_ANON] > 0 and inactive_is_low(lruvec["tree"][LRU_INACTIVE_ANON], lruvec["tree"][LRU_ACTIVE_ANON]):
            shrink_active_list(row, sc, cg, LRU_ACTIVE_ANON, SWAP_CLUSTER_MAX)


@law
def begin_pass(row):
    """A pass over all lruvecs begins: age the anonymous ones, decide what may be done.

    Source: mm/vmscan.c balance_pgdat, shrink_node.
    """
    kswapd, sc = row["kswapd"], row["scan"][0]
    sc["scanned"] = 0
    kswapd["pass_reclaimed"] = sc["reclaimed"]
    trim(row)
    age_node(row, sc)
    prepare_scan_count(row, sc)
    kswapd["cursor"] = 0


@law
def take_turns(row, sc):
    """Go through the lruvecs of the pass until a slice of work is done: small ones cost no event of their own.

    Source: mm/vmscan.c shrink_node_memcgs.
    """
    kswapd = row["kswapd"]
    budget = max(SLICE_MIN, sc["wanted"] // SLICE_SHARE)
    looked = row["vm"][PGSCAN_KSWAPD]
    while kswapd["cursor"] < row["nr_cgroups"] and row["vm"][PGSCAN_KSWAPD] - looked < budget:
        cg = kswapd["cursor"]
        if kswapd["midway"] == 0:
            if not may_shrink(row, sc, cg):
                kswapd["cursor"] += 1
                continue
            begin_lruvec(row, sc, cg)
        kswapd["midway"] = 0 if shrink_slice(row, sc, cg, budget) else 1
        if kswapd["midway"] > 0:
            break
        shrink_slab(row, sc, cg)
        kswapd["cursor"] += 1


@law
def run_kswapd(row):
    """One slice of kswapd at the host's clock: the end of a nap, or work: passes in which nothing can be scanned go by in one slice.

    Source: mm/vmscan.c kswapd, balance_pgdat, kswapd_try_to_sleep; kernel-laws §3.9. Its whole run is memory stall (§9).
    """
    kswapd, sc = row["kswapd"], row["scan"][0]
    if kswapd["state"] == KSWAPD_NAP:
        if balanced(row) or kswapd["failures"] >= MAX_RECLAIM_RETRIES:
            kswapd["state"] = KSWAPD_SLEEP
            kswapd["next_ns"] = NEVER
            return
        row["vm"][HIGH_QUICKLY] += 1
        begin_run(row)
    begin = row["now_ns"]
    cpu = idlest_cpu(row)
    if row["cpu"][cpu]["free_ns"] > begin:
        kswapd["next_ns"] = row["cpu"][cpu]["free_ns"]
        stall(row, -1, PSI_MEM, begin, kswapd["next_ns"])
        return
    sc["spent_ns"] = 0
    kswapd["next_ns"] = begin
    while True:
        if kswapd["cursor"] < 0:
            if balanced(row):
                end_run(row)
                break
            begin_pass(row)
        take_turns(row, sc)
        if kswapd["cursor"] < row["nr_cgroups"]:
            break
        end_pass(row)
        if sc["scanned"] > 0 or sc["priority"] == DEF_PRIORITY or kswapd["state"] != KSWAPD_RUN:
            break
    if sc["spent_ns"] > 0:
        account_time(row, cpu, HELD_BY_KSWAPD, 0, sc["spent_ns"])
        stall(row, -1, PSI_MEM, begin, begin + sc["spent_ns"])
    kswapd["next_ns"] = max(kswapd["next_ns"], begin + sc["spent_ns"] + 1)  # who waited meanwhile goes first
