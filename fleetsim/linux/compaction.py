# SPDX-License-Identifier: Apache-2.0
"""Compaction: pages in use are moved together, so that the blocks they leave are whole again (mm/compaction.c).

Done region by region (`holes.py`), from the first: of a region whose pages are in use to a part u, emptying a pageblock moves 512·u pages
into the holes of the others. A pageblock with a page that may not be moved stays as it is. Who compacts:

    a request of order 1 to 9      until one pageblock is free; a failure defers the next attempts by 1, 3, 7 … 63 requests
    kcompactd, woken by kswapd     the same, for the order that was asked for
    kcompactd, every 500 ms        while the score of external fragmentation is above high, down to low
    a write to compact_memory      everything

What kcompactd does is in `kcompactd.py`. Leaves out: contiguous allocations, pages that cannot be moved for a moment.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import COMPACT_SCAN, MIGRATE
from fleetsim.law import law
from fleetsim.linux.free_area import blocks_at_least, put_blocks
from fleetsim.linux.holes import CHECK_NS, HOLE, change_holes, hole_blocks
from fleetsim.linux.mm_types import LRU_UNEVICTABLE, NR_COHORTS, NR_ZONES, PSI_MEM, VM, WMARK_LOW, WMARK_MIN
from fleetsim.linux.mmzone import MIGRATE_MOVABLE, NR_MIGRATETYPES, NR_ORDERS, NR_REGIONS, PAGEBLOCK_ORDER
from fleetsim.linux.nodes import zone_allowed, zonelist
from fleetsim.linux.page_alloc import fragmentation_index
from fleetsim.linux.per_cpu_pages import drain_all_pages
from fleetsim.linux.zonelist import watermark_ok

PAGEBLOCK = 1 << PAGEBLOCK_ORDER
COMPACT_MAX_DEFER_SHIFT = 6
COMPACT_SKIPPED, COMPACT_CONTINUE, COMPACT_SUCCESS = 0, 1, 2
PAGE_ALLOC_COSTLY_ORDER = 3
MIGRATE_SCANNED, FREE_SCANNED, ISOLATED = VM["compact_migrate_scanned"], VM["compact_free_scanned"], VM["compact_isolated"]
STALL, FAIL, SUCCESS, MIGRATED = (VM[n] for n in ("compact_stall", "compact_fail", "compact_success", "pgmigrate_success"))


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
def pages_to_look_at(region):
    """How many steps the migrate scanner makes through a region: one for each page in use and one for each free block.

    Source: mm/compaction.c isolate_migratepages_block (a free block is passed over in one step).
    """
    free, holes = region["pages"] - region["used"], region["holes_q"] // HOLE
    steps = int(region["used"])
    for o in range(NR_ORDERS):
        steps += hole_blocks(free, holes, o)
        if o < NR_ORDERS - 1:
            steps -= 2 * hole_blocks(free, holes, o + 1)
    return steps


@law
def compact_zone(row, z, wanted, ignore_skip_hint):
    """Compact zone `z` until `wanted` more pageblocks are free, or all of it was looked at. Where everything was looked at in
    vain, a task does not look again until kswapd has slept, or the deferral is at its end.

    ignore_skip_hint  bool  look all the same: kcompactd's own accord, and vm.compact_memory
    returns           (int64 pageblocks made, int64 processor time it took, ns)

    Source: mm/compaction.c compact_zone; kernel-laws §1.9. The free scanner looks at 512 pages for those that are free among them.
    """
    zone = row["zones"][z]
    if zone["compact_skip"] > 0 and not ignore_skip_hint:
        zone["compact_skip"] = 2
        return 0, 0
    made = 0
    migrate_scanned = 0
    free_scanned = 0
    migrated = 0
    for r in range(NR_REGIONS):
        region = row["regions"][r]
        if region["zone"] != z or region["pages"] == 0 or made >= wanted:
            continue
        pages, free = region["pages"], region["pages"] - region["used"]
        steps = pages_to_look_at(region)
        blocks, moved = compact_region(row, r, wanted - made)
        migrate_scanned += steps if made + blocks < wanted else max(1, blocks) * PAGEBLOCK * steps // pages
        if moved > 0:
            free_scanned += moved * pages // free
        made += blocks
        migrated += moved
    if made == 0:
        zone["compact_skip"] = 1 if ignore_skip_hint else 2
    vm = row["vm"]
    vm[MIGRATE_SCANNED] += migrate_scanned
    vm[FREE_SCANNED] += free_scanned
    vm[ISOLATED] += 2 * migrated  # pages to move and pages to move them to
    vm[MIGRATED] += migrated
    return made, (migrate_scanned + free_scanned) * row["cost"][COMPACT_SCAN] + migrated * row["cost"][MIGRATE]


@law
def reset_isolation_suitable(row):
    """kswapd is about to sleep: pageblocks that a task looked at in vain are worth another look.

    Source: mm/compaction.c reset_isolation_suitable (compact_blockskip_flush).
    """
    for z in range(NR_ZONES):
        if row["zones"][z]["compact_skip"] == 2:
            row["zones"][z]["compact_skip"] = 0


@law
def compaction_suitable(row, zone, order, mark):
    """Whether compacting a zone for a block of an order makes sense.

    mark     int64  the watermark that the caller wants to stay above: WMARK_MIN …
    returns  int64  COMPACT_SUCCESS: there is a block already; COMPACT_SKIPPED: too little is free, or that little memory is free is
                    the reason why there is no block; COMPACT_CONTINUE

    Source: mm/compaction.c compaction_suitable; kernel-laws §1.9.
    """
    if watermark_ok(zone, order, zone["wmark"][mark]):
        return COMPACT_SUCCESS
    least = zone["wmark"][WMARK_LOW if order > PAGE_ALLOC_COSTLY_ORDER else WMARK_MIN] + (2 << order)
    if not watermark_ok(zone, 0, least):
        return COMPACT_SKIPPED
    if order > PAGE_ALLOC_COSTLY_ORDER and 0 <= zone_index(zone, order) <= row["sysctl"]["extfrag_threshold"]:
        return COMPACT_SKIPPED
    return COMPACT_CONTINUE


@law
def zone_index(zone, order):
    """The zone's fragmentation index at an order, thousandths.

    Source: mm/vmstat.c fragmentation_index; kernel-laws §1.8.
    """
    blocks = 0
    for mt in range(NR_MIGRATETYPES):
        for o in range(NR_ORDERS):
            blocks += zone["free_area"][mt][o]
    return fragmentation_index(blocks, zone["free"], blocks_at_least(zone, order), order)


@law
def compaction_deferred(zone, order):
    """True if this request is one of those that earlier failures make the zone refuse: 2^shift − 1 of them after each failure, 63 at most.

    Source: mm/compaction.c compaction_deferred; kernel-laws §1.9, T-1.10.
    """
    if order < zone["compact_order_failed"]:
        return False
    limit = 1 << zone["compact_defer_shift"]
    zone["compact_considered"] = min(zone["compact_considered"] + 1, limit)
    return zone["compact_considered"] < limit


@law
def defer_compaction(zone, order):
    """Compaction of the zone failed: refuse twice as many requests of this order and above from now on.

    Source: mm/compaction.c defer_compaction; kernel-laws §1.9, T-1.10.
    """
    zone["compact_considered"] = 0
    zone["compact_defer_shift"] = min(zone["compact_defer_shift"] + 1, COMPACT_MAX_DEFER_SHIFT)
    zone["compact_order_failed"] = min(zone["compact_order_failed"], order)


@law
def compaction_defer_reset(zone, order, alloc_success):
    """Compaction of the zone succeeded for an order; if a block was also had, nothing is refused any more.

    Source: mm/compaction.c compaction_defer_reset; kernel-laws §1.9.
    """
    if alloc_success:
        zone["compact_considered"] = 0
        zone["compact_defer_shift"] = 0
    zone["compact_order_failed"] = max(zone["compact_order_failed"], order + 1)


@law
def compaction_restarting(zone, order):
    """True if the zone refused as many requests as it ever does: what was looked at in vain is forgotten.

    Source: mm/compaction.c compaction_restarting.
    """
    limit = 1 << zone["compact_defer_shift"]
    at_end = zone["compact_defer_shift"] == COMPACT_MAX_DEFER_SHIFT and zone["compact_considered"] >= limit
    return order >= zone["compact_order_failed"] and at_end


@law
def try_to_compact_pages(row, order):
    """Direct compaction for a block of an order; its time is the caller's, and memory stall.

    returns  bool  True: a block is free now

    Source: mm/compaction.c try_to_compact_pages, mm/page_alloc.c __alloc_pages_direct_compact; kernel-laws §1.9, §2.2.
    Leaves out: that the block is had as soon as it is whole, before its pageblock is (capture_control).
    """
    tried, spent = False, 0
    success = False
    for place in range(NR_ZONES):
        z = zonelist(row["preferred_node"], place)
        zone = row["zones"][z]
        if success or not zone_allowed(row, z, row["mems_allowed"]) or compaction_suitable(row, zone, order, WMARK_MIN) == COMPACT_SKIPPED:
            continue
        tried = True
        if compaction_deferred(zone, order):
            continue
        if compaction_restarting(zone, order):
            zone["compact_skip"] = 0
        drain_all_pages(row)
        made, ns = compact_zone(row, z, 1, False)
        spent += ns
        if made > 0 or blocks_at_least(zone, order) > 0:
            success = True
            compaction_defer_reset(zone, order, True)
        else:
            defer_compaction(zone, order)
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
            _, spent = compact_zone(row, z, 1 << 40, True)
            row["spent_ns"] += spent
            row["reclaim_ns"] += spent
            row["stall_ns"][PSI_MEM] += spent


@law
def wakeup_kcompactd(row, order):
    """kcompactd is asked to make blocks of an order. If compacting makes sense somewhere it begins at once; if not, it will see so
    itself when it looks next.

    Source: mm/compaction.c wakeup_kcompactd, kcompactd_node_suitable, kcompactd (it wakes every 500 ms if proactive).
    """
    if order == 0:
        return
    row["kcompactd_max_order"] = max(row["kcompactd_max_order"], order)
    for z in range(NR_ZONES):
        if compaction_suitable(row, row["zones"][z], row["kcompactd_max_order"], WMARK_MIN) == COMPACT_CONTINUE:
            row["kcompactd_next_ns"] = row["now_ns"]
            return
    if row["sysctl"]["compaction_proactiveness"] > 0:
        row["kcompactd_next_ns"] = min(row["kcompactd_next_ns"], (row["now_ns"] // CHECK_NS + 1) * CHECK_NS)
