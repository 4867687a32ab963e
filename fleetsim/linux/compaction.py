# SPDX-License-Identifier: Apache-2.0
"""Compaction: pages in use are moved together, so that the blocks they leave are whole again (mm/compaction.c).

Done region by region (`holes.py`), from the first: of a region whose pages are in use to a part u, emptying a pageblock moves 512·u pages
into the holes of the others. A pageblock with a page that may not be moved stays as it is. Who compacts:

    a fault for a huge page        until one block is free; a failure defers the next attempts by 1, 3, 7 … 63 requests
    kcompactd, every 500 ms        while the score of external fragmentation is above high, down to low
    a write to compact_memory      everything

Leaves out: orders below 9, kcompactd woken by kswapd, contiguous allocations, pages that cannot be moved for a moment.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import COMPACT_SCAN, MIGRATE
from fleetsim.law import law
from fleetsim.linux.cputime import account_time, idlest_cpu
from fleetsim.linux.free_area import blocks_at_least, put_blocks
from fleetsim.linux.holes import CHECK_NS, HOLE, change_holes, full_of_holes
from fleetsim.linux.mm_types import HELD_BY_KSWAPD, KSWAPD_RUN, LRU_UNEVICTABLE, NEVER, NR_COHORTS, NR_ZONES, PSI_MEM, VM, WMARK_LOW
from fleetsim.linux.mmzone import MIGRATE_MOVABLE, NR_REGIONS, PAGEBLOCK_ORDER
from fleetsim.linux.page_alloc import fragmentation_index
from fleetsim.linux.per_cpu_pages import drain_all_pages
from fleetsim.linux.psi import stall

PAGEBLOCK = 1 << PAGEBLOCK_ORDER
COMPACT_MAX_DEFER_SHIFT = 6
MIGRATE_SCANNED, FREE_SCANNED, ISOLATED = VM["compact_migrate_scanned"], VM["compact_free_scanned"], VM["compact_isolated"]
STALL, FAIL, SUCCESS, MIGRATED = (VM[n] for n in ("compact_stall", "compact_fail", "compact_success", "pgmigrate_success"))


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
def unmovable_pages(row, r):
    """Pages of region `r` that compaction must leave where they are: mlocked ones, unless vm.compact_unevictable_allowed.

    Source: mm/compaction.c isolate_migratepages_block (ISOLATE_UNEVICTABLE).
    """
    if row["sysctl"]["compact_unevictable_allowed"] > 0:
        return 0
    total = 0
    for i in range(NR_COHORTS):
        cohort = row["cohorts"][i]
        if cohort["home"] == r and cohort["list"] == LRU_UNEVICTABLE:
            total += cohort["nr"]
    return total


@law
def compact_region(row, r, wanted):
    """Empty up to `wanted` pageblocks of region `r` into the holes of its other ones.

    returns  (int64 pageblocks made, int64 pages moved)

    Source: mm/compaction.c compact_zone, isolate_migratepages, isolate_freepages.
    """
    region = row["regions"][r]
    zone = row["zones"][region["zone"]]
    blocks = region["pages"] >> PAGEBLOCK_ORDER
    free = region["pages"] - region["used"]
    blocks -= min(blocks, unmovable_pages(row, r))
    made = min(blocks, wanted, free >> PAGEBLOCK_ORDER)
    if made <= 0:
        return 0, 0
    moved = made * PAGEBLOCK * region["used"] // region["pages"]
    holes = region["holes_q"] // HOLE
    left = free - made * PAGEBLOCK
    region["holes_q"] = max(HOLE if left > 0 else 0, region["holes_q"] * left // free)
    region["pages"] -= made * PAGEBLOCK
    zone["loose"] -= made * PAGEBLOCK
    change_holes(zone, free, holes, left, region["holes_q"] // HOLE)
    put_blocks(zone, MIGRATE_MOVABLE, made * PAGEBLOCK)
    zone["listed"] += made * PAGEBLOCK
    return made, moved


@law
def compact_zone(row, z, wanted):
    """Compact zone `z` until `wanted` more pageblocks are free, or all of it was looked at.

    returns  (int64 pageblocks made, int64 processor time it took, ns)

    Source: mm/compaction.c compact_zone; kernel-laws §1.9. The free scanner looks at 512 pages for those that are free among them.
    """
    made = 0
    migrate_scanned = 0
    free_scanned = 0
    migrated = 0
    for r in range(NR_REGIONS):
        region = row["regions"][r]
        if region["zone"] != z or region["pages"] == 0 or made >= wanted:
            continue
        pages, free = region["pages"], region["pages"] - region["used"]
        blocks, moved = compact_region(row, r, wanted - made)
        migrate_scanned += pages if made + blocks < wanted else max(1, blocks) * PAGEBLOCK
        if moved > 0:
            free_scanned += moved * pages // free
        made += blocks
        migrated += moved
    vm = row["vm"]
    vm[MIGRATE_SCANNED] += migrate_scanned
    vm[FREE_SCANNED] += free_scanned
    vm[ISOLATED] += 2 * migrated  # pages to move and pages to move them to
    vm[MIGRATED] += migrated
    return made, (migrate_scanned + free_scanned) * row["cost"][COMPACT_SCAN] + migrated * row["cost"][MIGRATE]


@law
def compaction_suitable(row, zone):
    """True if compacting the zone for a huge page makes sense: enough is free, and lack of memory is not the reason for the failure.

    Source: mm/compaction.c compaction_suitable; kernel-laws §1.9.
    """
    if zone["managed"] == 0 or zone["free"] <= zone["wmark"][WMARK_LOW] + zone["reserve"] + 2 * PAGEBLOCK:
        return False
    blocks = 0
    for mt in range(3):
        for o in range(11):
            blocks += zone["free_area"][mt][o]
    index = fragmentation_index(blocks, zone["free"], blocks_at_least(zone, PAGEBLOCK_ORDER), PAGEBLOCK_ORDER)
    return not 0 <= index <= row["sysctl"]["extfrag_threshold"]


@law
def compaction_deferred(zone):
    """True if this request is one of those that earlier failures make the zone refuse: 2^shift − 1 of them after each failure, 63 at most.

    Source: mm/compaction.c compaction_deferred; kernel-laws §1.9, T-1.10.
    """
    limit = 1 << zone["compact_defer_shift"]
    zone["compact_considered"] = min(zone["compact_considered"] + 1, limit)
    return zone["compact_considered"] < limit


@law
def defer_compaction(zone):
    """Compaction of the zone failed: refuse twice as many requests from now on.

    Source: mm/compaction.c defer_compaction; kernel-laws §1.9, T-1.10.
    """
    zone["compact_considered"] = 0
    zone["compact_defer_shift"] = min(zone["compact_defer_shift"] + 1, COMPACT_MAX_DEFER_SHIFT)


@law
def try_to_compact_pages(row):
    """Direct compaction for one huge page; its time is the caller's, and memory stall.

    returns  bool  True: a block is free now

    Source: mm/compaction.c try_to_compact_pages, mm/page_alloc.c __alloc_pages_direct_compact; kernel-laws §1.9, §2.2.
    """
    tried, spent = False, 0
    success = False
    for back in range(NR_ZONES):
        zone = row["zones"][NR_ZONES - 1 - back]
        if success or not compaction_suitable(row, zone):
            continue
        tried = True
        if zone["compact_defer_shift"] > 0 and compaction_deferred(zone):
            continue
        drain_all_pages(row)
        made, ns = compact_zone(row, NR_ZONES - 1 - back, 1)
        spent += ns
        if made > 0 or blocks_at_least(zone, PAGEBLOCK_ORDER) > 0:
            success = True
            zone["compact_considered"] = 0
            zone["compact_defer_shift"] = 0
        else:
            defer_compaction(zone)
    if tried:
        row["vm"][STALL] += 1
        row["vm"][SUCCESS if success else FAIL] += 1
    row["spent_ns"] += spent
    row["reclaim_ns"] += spent
    row["stall_ns"][PSI_MEM] += spent
    return success


@law
def compact_nodes(row):
    """A write to vm.compact_memory: compact everything, now; the writer waits.

    Source: mm/compaction.c sysctl_compaction_handler, compact_nodes.
    """
    for z in range(NR_ZONES):
        if row["zones"][z]["managed"] > 0:
            _, spent = compact_zone(row, z, 1 << 40)
            row["spent_ns"] += spent
            row["reclaim_ns"] += spent
            row["stall_ns"][PSI_MEM] += spent


@law
def run_kcompactd(row):
    """Proactive compaction: if the node's score is above high, compact each zone down to low; without success wait 32 s.

    Source: mm/compaction.c kcompactd, proactive_compact_node; kernel-laws §1.9, T-1.11. Its work is memory stall.
    """
    holes = False
    for z in range(NR_ZONES):
        holes = holes or full_of_holes(row["zones"][z])
    if not holes or row["sysctl"]["compaction_proactiveness"] == 0:
        row["kcompactd_next_ns"] = NEVER
        return
    row["kcompactd_next_ns"] += CHECK_NS
    low = fragmentation_score_wmark(row["sysctl"]["compaction_proactiveness"], True)
    before = fragmentation_score_node(row)
    if row["kswapd"]["state"] == KSWAPD_RUN or before <= fragmentation_score_wmark(row["sysctl"]["compaction_proactiveness"], False):
        return
    begin = row["now_ns"]
    total = 0
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        whole = blocks_at_least(zone, PAGEBLOCK_ORDER)
        if zone["managed"] == 0 or extfrag_for_order(zone["free"], whole, PAGEBLOCK_ORDER) <= low:
            continue
        wanted = (zone["free"] * (100 - low) // 100 >> PAGEBLOCK_ORDER) + 1 - whole
        _, spent = compact_zone(row, z, wanted)
        total += spent
    account_time(row, idlest_cpu(row), HELD_BY_KSWAPD, 0, total)  # a kernel thread that others preempt, as kswapd
    stall(row, -1, PSI_MEM, begin, begin + total)
    if fragmentation_score_node(row) >= before:
        row["kcompactd_next_ns"] = begin + (CHECK_NS << COMPACT_MAX_DEFER_SHIFT)
