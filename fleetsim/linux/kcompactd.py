# SPDX-License-Identifier: Apache-2.0
"""kcompactd: the background compactor of the host (mm/compaction.c kcompactd).

    asked by kswapd             before it sleeps, for the order it was woken for; for a pageblock when a run for boosted marks ends
    of its own accord           every 500 ms, while the score of external fragmentation is above high, down to low

Where nothing is in holes it is not woken every 500 ms: there is nothing to see. Leaves out: a run for one zone alone.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.compaction import (
    COMPACT_CONTINUE,
    COMPACT_MAX_DEFER_SHIFT,
    FREE_SCANNED,
    MIGRATE_SCANNED,
    compact_zone,
    compaction_defer_reset,
    compaction_deferred,
    compaction_restarting,
    compaction_suitable,
    defer_compaction,
)
from fleetsim.linux.cputime import account_time, idlest_cpu
from fleetsim.linux.free_area import blocks_at_least
from fleetsim.linux.holes import CHECK_NS, full_of_holes
from fleetsim.linux.mm_types import HELD_BY_KSWAPD, KSWAPD_RUN, NEVER, NR_ZONES, PSI_MEM, VM, WMARK_MIN
from fleetsim.linux.mmzone import PAGEBLOCK_ORDER
from fleetsim.linux.per_cpu_pages import drain_all_pages
from fleetsim.linux.psi import stall

DAEMON_WAKE, DAEMON_MIGRATE_SCANNED, DAEMON_FREE_SCANNED = (
    VM[n] for n in ("compact_daemon_wake", "compact_daemon_migrate_scanned", "compact_daemon_free_scanned")
)


@law
def fragmentation_score_wmark(proactiveness, low):
    """The score kcompactd compacts down to (low) or begins at (high).

        low = max(100 − proactiveness, 5),   high = min(low + 10, 100)

    Source: mm/compaction.c fragmentation_score_wmark; kernel-laws §1.9, T-1.11. Leaves out: nothing.
    """
    wmark = max(100 - proactiveness, 5)
    return wmark if low else min(wmark + 10, 100)


@law
def extfrag_for_order(free, suitable, order):
    """External fragmentation of a zone: the share of its free pages that lie in blocks too small for an order, percent.

        (free − suitable · 2^order) · 100 / free,   0 if nothing is free

    Source: mm/vmstat.c extfrag_for_order; kernel-laws §1.8. Leaves out: nothing.
    """
    if free == 0:
        return 0
    return (free - (suitable << order)) * 100 // free


@law
def fragmentation_score_node(row):
    """The node's score: Σ over zones of the zone's score, weighted with its pages.

    Source: mm/compaction.c fragmentation_score_node, fragmentation_score_zone_weighted. Managed pages stand for those present.
    """
    total = 1
    for z in range(NR_ZONES):
        total += row["zones"][z]["managed"]
    score = 0
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        score += extfrag_for_order(zone["free"], blocks_at_least(zone, PAGEBLOCK_ORDER), PAGEBLOCK_ORDER) * zone["managed"] // total
    return score


@law
def account_work(row, begin, spent):
    """The processor time of a kernel thread that others preempt, as kswapd; all of it is memory stall.

    Source: mm/compaction.c kcompactd (psi_memstall_enter).
    """
    account_time(row, idlest_cpu(row), HELD_BY_KSWAPD, 0, spent)
    stall(row, -1, PSI_MEM, begin, begin + spent)


@law
def kcompactd_do_work(row):
    """Compact for the order that was asked for, in every zone in which that makes sense.

    Source: mm/compaction.c kcompactd_do_work; kernel-laws §1.9.
    """
    order = row["kcompactd_max_order"]
    row["kcompactd_max_order"] = 0
    row["kcompactd_next_ns"] = row["now_ns"] + CHECK_NS
    vm = row["vm"]
    vm[DAEMON_WAKE] += 1
    total = 0
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        if zone["managed"] == 0 or compaction_deferred(zone, order) or compaction_suitable(row, zone, order, WMARK_MIN) != COMPACT_CONTINUE:
            continue
        if compaction_restarting(zone, order):
            zone["compact_skip"] = 0
        migrate_scanned, free_scanned = vm[MIGRATE_SCANNED], vm[FREE_SCANNED]
        made, spent = compact_zone(row, z, 1, False)
        if made > 0:
            compaction_defer_reset(zone, order, False)
        else:
            drain_all_pages(row)
            defer_compaction(zone, order)
        vm[DAEMON_MIGRATE_SCANNED] += vm[MIGRATE_SCANNED] - migrate_scanned
        vm[DAEMON_FREE_SCANNED] += vm[FREE_SCANNED] - free_scanned
        total += spent
    if total > 0:
        account_work(row, row["now_ns"], total)


@law
def run_kcompactd(row):
    """What somebody asked for; else proactive compaction: if the node's score is above high, compact each zone down to low; without
    success wait 32 s.

    Source: mm/compaction.c kcompactd, proactive_compact_node; kernel-laws §1.9, T-1.11. Its work is memory stall.
    """
    if row["kcompactd_max_order"] > 0:
        kcompactd_do_work(row)
        return
    holes = False
    for z in range(NR_ZONES):
        holes = holes or full_of_holes(row["zones"][z])
    if not holes or row["sysctl"]["compaction_proactiveness"] == 0:
        row["kcompactd_next_ns"] = NEVER
        return
    row["kcompactd_next_ns"] += CHECK_NS
    low = fragmentation_score_wmark(row["sysctl"]["compaction_proactiveness"], True)
    before = fragmentation_score_node(row)
    if (
        row["kswapd"][0]["state"] == KSWAPD_RUN
        or row["kswapd"][1]["state"] == KSWAPD_RUN
        or before <= fragmentation_score_wmark(row["sysctl"]["compaction_proactiveness"], False)
    ):
        return
    begin = row["now_ns"]
    total = 0
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        whole = blocks_at_least(zone, PAGEBLOCK_ORDER)
        if zone["managed"] == 0 or extfrag_for_order(zone["free"], whole, PAGEBLOCK_ORDER) <= low:
            continue
        wanted = (zone["free"] * (100 - low) // 100 >> PAGEBLOCK_ORDER) + 1 - whole
        _, spent = compact_zone(row, z, wanted, True)
        total += spent
    account_work(row, begin, total)
    if fragmentation_score_node(row) >= before:
        row["kcompactd_next_ns"] = begin + (CHECK_NS << COMPACT_MAX_DEFER_SHIFT)
