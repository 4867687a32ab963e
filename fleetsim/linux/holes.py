# SPDX-License-Identifier: Apache-2.0
"""How free memory falls to pieces: where users' pages lie, as far as it matters (fleetsim's own representation of design §3.2).

Where a page lies is not known, only with whom: pages that are taken one after the other come out of the same blocks, so they make a
*region*, and a region knows its size, how much of it is in use, in how many stretches of one owner it was handed out (`runs`),
and into how many stretches its free pages fall (`holes`). A hole of L pages, at any place, holds

    c_k = max(0, L − 2^k + 1) / 2^k        aligned blocks of 2^k pages, of which  c_k − 2·c_(k+1)  lie in no larger free one

so a hole of 2^n − 1 pages holds one block of each order below n. What is given back makes holes as long as the owner's stretches;
holes grow together when the neighbours go too, and a region with no page in use is whole again.
Leaves out: regions in the 16 MiB of zone DMA (it is kept whole).
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.free_area import put_merged, take_blocks
from fleetsim.linux.mm_types import NEVER, NR_COHORTS, NR_ZONES, ZONE_DMA
from fleetsim.linux.mmzone import MIGRATE_MOVABLE, NR_ORDERS, NR_REGIONS, PAGEBLOCK_ORDER

CHECK_NS = 500_000_000  # HPAGE_FRAG_CHECK_INTERVAL_MSEC (mm/compaction.c)
HOLE = 1024  # holes are counted in 1/1024
REGIONS_PER_ZONE = 20  # a region is at most this part of its zone …
REGION_PAGES_MIN = 4096  # … or this


@law
def hole_blocks(free, holes, order):
    """Aligned blocks of an order inside `holes` stretches of together `free` free pages, those inside larger blocks included.

        max(0, free − holes·(2^order − 1)) / 2^order;      none but whole blocks if holes = 0

    free     int64  pages
    holes    int64  stretches; 0: the free pages lie in whole pageblocks
    returns  int64  blocks

    Source: include/linux/mmzone.h, mm/page_alloc.c __find_buddy_pfn (a block is aligned to its size). Leaves out: nothing.
    """
    return max(0, free - holes * ((1 << order) - 1)) >> order


@law
def hole_pageblocks(free, holes):
    """Free pageblocks inside `holes` stretches of together `free` free pages that lie in no larger free block.

    Source: `hole_blocks`.
    """
    return hole_blocks(free, holes, PAGEBLOCK_ORDER) - 2 * hole_blocks(free, holes, PAGEBLOCK_ORDER + 1)


@law
def hole_pageblocks_of(region):
    """The same of a region.

    Source: `hole_blocks`.
    """
    return hole_pageblocks(region["pages"] - region["used"], region["holes_q"] // HOLE)


@law
def join_regions(row, z):
    """Make room in a full table: of the regions of a zone, the two of which least is in use become one.

    returns  int64  the row that became free

    Source: fleetsim's own table.
    """
    regions = row["regions"]
    keep, drop = -1, -1
    for r in range(NR_REGIONS):
        if regions[r]["zone"] != z or r == row["zones"][z]["region"]:
            continue
        if keep < 0 or regions[r]["used"] < regions[keep]["used"]:
            keep, drop = r, keep
        elif drop < 0 or regions[r]["used"] < regions[drop]["used"]:
            drop = r
    if drop < 0:
        return -1
    a, b = regions[keep], regions[drop]
    row["zones"][z]["hole_pageblocks"] -= hole_pageblocks_of(a) + hole_pageblocks_of(b)
    a["pages"] += b["pages"]
    a["used"] += b["used"]
    a["runs"] += b["runs"]
    a["holes_q"] += b["holes_q"]
    a["freer"] = -1
    row["zones"][z]["hole_pageblocks"] += hole_pageblocks_of(a)
    a["held"] += b["held"]
    b["held"] = 0
    b["pages"] = 0
    for i in range(NR_COHORTS):
        if row["cohorts"][i]["home"] == drop:
            row["cohorts"][i]["home"] = keep
    return drop


@law
def open_region(row, z):
    """The region of zone `z` that pages from untouched blocks join; a new one when the last is full.

    returns  int64  region row, −1: the table is full with other zones' regions

    Source: fleetsim's own representation.
    """
    zone = row["zones"][z]
    at = zone["region"]
    if at >= 0 and row["regions"][at]["pages"] < max(REGION_PAGES_MIN, zone["managed"] // REGIONS_PER_ZONE):
        return at
    at = -1
    for r in range(NR_REGIONS):
        if row["regions"][r]["pages"] == 0:
            at = r
            break
    if at < 0:
        at = join_regions(row, z)
    zone["region"] = at
    if at >= 0:
        region = row["regions"][at]
        region["zone"] = z
        region["group"] = -1
        region["freer"] = -1
        region["freed"] = 0
        region["held"] = 0
        region["used"] = 0
        region["runs"] = 0
        region["holes_q"] = 0
    return at


@law
def refill_regions(row, z, pages):
    """Small blocks were taken: `pages` holes' pages of the zone's regions are in use again.

    returns  int64  the region that got most of them

    Source: fleetsim's own representation.
    """
    best, most = -1, 0
    zone = row["zones"][z]
    for r in range(NR_REGIONS):
        if pages == 0:
            break
        region = row["regions"][r]
        free = region["pages"] - region["used"]
        if region["zone"] == z and region["pages"] > 0 and free > 0:
            k = min(free, pages)
            zone["hole_pageblocks"] -= hole_pageblocks_of(region)
            region["used"] += k
            region["holes_q"] = region["holes_q"] * (free - k) // free
            zone["hole_pageblocks"] += hole_pageblocks_of(region)
            zone["loose"] -= k
            pages -= k
            if k > most:
                best, most = r, k
    return best


@law
def join_region(row, z, cohort, pages):
    """Pages out of untouched blocks of zone `z` join the region that is being filled; it becomes their cohort's home.

    Source: fleetsim's own representation.
    """
    r = open_region(row, z) if z != ZONE_DMA else -1
    if r < 0:
        return
    region = row["regions"][r]
    region["pages"] += pages
    region["used"] += pages
    if region["group"] != cohort["group"]:
        region["group"] = cohort["group"]
        region["runs"] += 1
    cohort["home"] = r


@law
def take_for_cohort(row, cohort):
    """The pages just taken for a cohort leave the free lists; its home becomes the region most of them lie in.

    Source: mm/page_alloc.c rmqueue_bulk (MIGRATE_MOVABLE).
    """
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        pages = zone["listed"] - zone["free"]
        if pages <= 0:
            continue
        take_blocks(zone, MIGRATE_MOVABLE, pages)
        if zone["boosted"] > 0:
            row["boosted"] = 1
        if z == ZONE_DMA:
            continue
        reused = min(pages, zone["loose"])
        if reused > 0:
            home = refill_regions(row, z, reused)
            if home >= 0 and reused * 2 >= pages:
                cohort["home"] = home
        if reused < pages:
            home = cohort["home"]
            join_region(row, z, cohort, pages - reused)
            if reused * 2 >= pages:
                cohort["home"] = home


@law
def change_holes(zone, free_before, holes_before, free_after, holes_after):
    """A region's free pages changed: change the zone's movable free lists by the difference.

    Source: mm/page_alloc.c __free_one_page, for many pages at once; `hole_blocks`.
    """
    area = zone["free_area"][MIGRATE_MOVABLE]
    surplus = 0
    before, after = hole_blocks(free_before, holes_before, 0), hole_blocks(free_after, holes_after, 0)
    for o in range(NR_ORDERS):
        if before + after == 0:
            break  # no larger ones either
        change = after - before
        if o < NR_ORDERS - 1:
            before, after = hole_blocks(free_before, holes_before, o + 1), hole_blocks(free_after, holes_after, o + 1)
            change -= 2 * (after - before)
        if o == PAGEBLOCK_ORDER:
            zone["hole_pageblocks"] += change
        area[o] += change
        if area[o] < 0:  # its small blocks were taken before
            surplus -= area[o] << o
            area[o] = 0
    zone["listed"] += free_after - free_before + surplus
    if surplus > 0:
        take_blocks(zone, MIGRATE_MOVABLE, surplus)


@law
def merge_halves(row, z):
    """Free pageblocks that no region's holes explain lie in memory that was never cut up: two of them are one block of 4 MiB.

    Source: mm/page_alloc.c __free_one_page (what was split off a large block is its buddy, and merges with it again).
    """
    area = row["zones"][z]["free_area"][MIGRATE_MOVABLE]
    if area[PAGEBLOCK_ORDER] < 4:
        return
    spare = area[PAGEBLOCK_ORDER] - 1 - row["zones"][z]["hole_pageblocks"]
    if spare > 1:
        area[PAGEBLOCK_ORDER] -= spare // 2 * 2
        area[PAGEBLOCK_ORDER + 1] += spare // 2


@law
def holes_after(region, own, pages, run):
    """How many holes a region has, 1/1024, once `pages` more pages of it are given back.

        + pages / run · (1 − 2·p)         p: how likely the neighbours of a stretch are free already

    own  int64  pages that their owner has in the region, these included
    run  int64  see `free_run`

    Source: fleetsim's own law; each stretch given back is a hole of its own, or lengthens one, or joins two.
    """
    free = region["pages"] - region["used"]
    if run < 0:
        change = pages * (HOLE - 2 * HOLE * free // region["pages"])
    elif run > 0:
        change = pages * HOLE // run
    else:
        own = min(own, region["used"]) + region["freed"]
        others = region["pages"] - own
        p = 0
        if others > 0:
            p = max(0, min(HOLE, (free - region["freed"]) * HOLE // others))
        change = pages * region["runs"] * (HOLE - 2 * p) // region["pages"]
    left = region["used"] - pages
    return max(HOLE, min(region["holes_q"] + change, (left + 1) * HOLE, (free + pages) * HOLE))


@law
def full_of_holes(zone):
    """True if so much of a zone's free memory lies in holes that kcompactd has to look at it, every 500 ms.

    Source: mm/compaction.c kcompactd (it always looks; with most free memory in whole blocks there is nothing to see).
    """
    return zone["loose"] * 2 > zone["free"]


@law
def give_to_region(row, r, group, own, pages, run):
    """`pages` pages of region `r`, of `own` that `group` has there, are free again.

    run  int64  see `free_run`

    Source: mm/page_alloc.c __free_one_page.
    """
    region = row["regions"][r]
    zone = row["zones"][region["zone"]]
    free = region["pages"] - region["used"]
    holes = region["holes_q"] // HOLE
    if region["freer"] != group:
        region["freer"] = group
        region["freed"] = 0
    if pages == region["used"]:  # whole again
        change_holes(zone, free, holes, region["pages"], 0)
        zone["hole_pageblocks"] -= hole_pageblocks(region["pages"], 0)
        zone["loose"] -= free
        region["pages"] = 0
        region["used"] = 0
        zone["held"] -= region["held"]
        region["held"] = 0
        if zone["region"] == r:
            zone["region"] = -1
        return
    if row["kcompactd_next_ns"] == NEVER and full_of_holes(zone):
        row["kcompactd_next_ns"] = (row["now_ns"] // CHECK_NS + 1) * CHECK_NS
    region["holes_q"] = holes_after(region, own, pages, run)
    if run > 0:
        region["runs"] += 2 * pages // run
    region["used"] -= pages
    region["freed"] += pages
    zone["loose"] += pages
    change_holes(zone, free, holes, free + pages, region["holes_q"] // HOLE)


@law
def give_anywhere(row, z, pages):
    """Movable pages of zone `z` are free again, and nobody knows where they lay: in the regions, oldest row first.

    Source: fleetsim's own representation.
    """
    zone = row["zones"][z]
    if z != ZONE_DMA:
        for r in range(NR_REGIONS):
            if pages == 0:
                break
            region = row["regions"][r]
            if region["pages"] > 0 and region["zone"] == z and region["used"] > 0:
                k = min(pages, region["used"])
                give_to_region(row, r, -1, 0, k, row["free_run"])
                pages -= k
    if pages > 0:
        put_merged(zone, MIGRATE_MOVABLE, pages)
