# SPDX-License-Identifier: Apache-2.0
"""Free blocks of 2^0 to 2^10 pages by migratetype (struct free_area; __rmqueue and __free_one_page of mm/page_alloc.c).

The smallest block that suffices is split; a type without pages of its own takes a block, and its pageblock, from another type.
The kernel's own pages are crowded into few pageblocks and merge again when they come back; how users' pages lie, and what holes they
leave, is `holes.py`. Leaves out: page frame numbers, HIGHATOMIC and CMA blocks, shuffling.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import NR_ZONES, WMARK_HIGH
from fleetsim.linux.mmzone import MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE, NR_MIGRATETYPES, NR_ORDERS, PAGEBLOCK_ORDER
from fleetsim.linux.page_alloc import boost_watermark


@law
def blocks_at_least(zone, order):
    """Free blocks of an order and above, counted in blocks of that order.

    Source: mm/vmstat.c fill_contig_page_info (free_blocks_suitable).
    """
    total = 0
    for mt in range(NR_MIGRATETYPES):
        for o in range(order, NR_ORDERS):
            total += zone["free_area"][mt][o] << (o - order)
    return total


@law
def put_blocks(zone, mt, pages):
    """Put `pages` pages, as large blocks as they make, on the lists of a type.

    Source: mm/page_alloc.c __free_one_page.
    """
    for back in range(NR_ORDERS):
        o = NR_ORDERS - 1 - back
        zone["free_area"][mt][o] += pages >> o
        pages &= (1 << o) - 1


@law
def put_merged(zone, mt, pages):
    """Put pages back among others of their type, and let all that can merge.

    Source: mm/page_alloc.c __free_one_page. The kernel's own pages are crowded into few pageblocks, so their neighbours are free too.
    """
    put_blocks(zone, mt, pages)
    zone["listed"] += pages
    area = zone["free_area"][mt]
    for o in range(NR_ORDERS - 1):
        if area[o] > 1:
            area[o + 1] += area[o] >> 1
            area[o] &= 1


@law
def fallback_type(mt, step):
    """The first (step 0) or second type that a type without free pages takes from.

    Source: mm/page_alloc.c fallbacks; kernel-laws §1.6.
    """
    if mt == MIGRATE_MOVABLE:
        return MIGRATE_RECLAIMABLE if step == 0 else MIGRATE_UNMOVABLE
    if mt == MIGRATE_RECLAIMABLE:
        return MIGRATE_UNMOVABLE if step == 0 else MIGRATE_MOVABLE
    return MIGRATE_RECLAIMABLE if step == 0 else MIGRATE_MOVABLE


@law
def find_suitable_fallback(zone, mt):
    """The block that a type without free pages takes: the largest of the other two types; movable pages rather leave small
    blocks (below order 4) whole pageblocks' rest, and take the smallest.

    returns  (int64 type, int64 order), −1 if nothing is free at all

    Source: mm/page_alloc.c __rmqueue_fallback, can_steal_fallback; kernel-laws §1.6.
    """
    area = zone["free_area"]
    for back in range(NR_ORDERS):
        o = NR_ORDERS - 1 - back
        for step in range(2):
            other = fallback_type(mt, step)
            if area[other][o] == 0:
                continue
            if mt != MIGRATE_MOVABLE or o >= PAGEBLOCK_ORDER // 2:
                return other, o
            for least in range(o + 1):
                for again in range(2):
                    other = fallback_type(mt, again)
                    if area[other][least] > 0:
                        return other, least
    return -1, -1


@law
def boost_marks(zone):
    """Types were mixed within a pageblock: the zone's marks rise, so that kswapd makes room and it happens less often.

    Source: mm/page_alloc.c steal_suitable_fallback (boost_watermark); kernel-laws §1.3 Boost.
    """
    before = zone["boost"]
    zone["boost"] = boost_watermark(before, zone["wmark"][WMARK_HIGH] - before, zone["managed"], zone["boost_factor"])
    for mark in range(3):
        zone["wmark"][mark] += zone["boost"] - before
    if zone["boost"] > 0:
        zone["boosted"] = 1


@law
def steal_suitable_fallback(zone, mt):
    """A type has no free page left: take a block of another type, with its pageblock if it is one.

    returns  bool  False: nothing is free at all

    Source: mm/page_alloc.c steal_suitable_fallback; kernel-laws §1.6.
    Leaves out: the other free pages of a pageblock of which a part is taken (which they are is not known).
    """
    other, o = find_suitable_fallback(zone, mt)
    if o < 0:
        return False
    zone["free_area"][other][o] -= 1
    if o > PAGEBLOCK_ORDER and mt != MIGRATE_MOVABLE:  # only one pageblock changes its type
        o -= 1
        zone["free_area"][other][o] += 1
    zone["free_area"][mt][o] += 1
    blocks = (1 << o) >> PAGEBLOCK_ORDER
    zone["pageblocks"][other] -= blocks
    zone["pageblocks"][mt] += blocks
    if blocks == 0:
        boost_marks(zone)
    return True


@law
def take_blocks(zone, mt, pages):
    """Take `pages` single pages of a type: the smallest blocks first, the last one split.

    Source: mm/page_alloc.c __rmqueue_smallest, expand; kernel-laws §1.6.
    """
    area = zone["free_area"][mt]
    zone["listed"] -= pages
    while pages > 0:
        o = 0
        while o < NR_ORDERS and area[o] == 0:
            o += 1
        if o == NR_ORDERS:
            if not steal_suitable_fallback(zone, mt):
                zone["listed"] += pages
                return
            continue
        whole = min(area[o], pages >> o)
        area[o] -= whole
        pages -= whole << o
        if whole == 0:
            area[o] -= 1
            put_blocks(zone, mt, (1 << o) - pages)
            pages = 0


@law
def take_pageblock(zone):
    """Take 2 MiB: a free pageblock, else half of a larger block, of movable pages first.

    returns  bool  False: there is none

    Source: mm/page_alloc.c __rmqueue_smallest, __rmqueue_fallback (order 9: the pageblock becomes movable).
    """
    for step in range(NR_MIGRATETYPES):
        mt = MIGRATE_MOVABLE if step == 0 else MIGRATE_RECLAIMABLE if step == 1 else MIGRATE_UNMOVABLE
        area = zone["free_area"][mt]
        o = PAGEBLOCK_ORDER if area[PAGEBLOCK_ORDER] > 0 else PAGEBLOCK_ORDER + 1
        if area[o] == 0:
            continue
        area[o] -= 1
        if o > PAGEBLOCK_ORDER:
            zone["free_area"][MIGRATE_MOVABLE][PAGEBLOCK_ORDER] += 1
        if mt != MIGRATE_MOVABLE:
            zone["pageblocks"][mt] -= 1 << (o - PAGEBLOCK_ORDER)
            zone["pageblocks"][MIGRATE_MOVABLE] += 1 << (o - PAGEBLOCK_ORDER)
        zone["free"] -= 1 << PAGEBLOCK_ORDER
        zone["listed"] -= 1 << PAGEBLOCK_ORDER
        return True
    return False


@law
def take_for_kernel(row):
    """The pages just taken for the kernel itself leave the free lists of unmovable pages.

    Source: mm/page_alloc.c rmqueue_bulk (MIGRATE_UNMOVABLE). Leaves out: telling reclaimable slab from the rest.
    """
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        pages = zone["listed"] - zone["free"]
        if pages > 0:
            take_blocks(zone, MIGRATE_UNMOVABLE, pages)
            if zone["boosted"] > 0:
                row["boosted"] = 1


@law
def give_from_kernel(row):
    """Pages of the kernel came back: they join the free lists of unmovable pages.

    Source: mm/page_alloc.c free_pcppages_bulk.
    """
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        pages = zone["free"] - zone["listed"]
        if pages > 0:
            put_merged(zone, MIGRATE_UNMOVABLE, pages)
