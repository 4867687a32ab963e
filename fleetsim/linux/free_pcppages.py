# SPDX-License-Identifier: Apache-2.0
"""Pages leave the per-cpu lists and join the free lists (mm/page_alloc.c free_pcppages_bulk, drain_pages_zone).

Of a run of pages that goes as a whole it does not matter which leaves the lists first. Where every k-th page stays behind it does:
the lists hold up to a low watermark of pages, more than a region, so regions remember (`held`) how many of theirs are on the lists.
Leaves out: that the lists give back the oldest first, where no page stays behind.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.free_area import put_merged
from fleetsim.linux.holes import give_anywhere, give_to_region, merge_halves
from fleetsim.linux.mm_types import NR_ZONES, ZONE_DMA
from fleetsim.linux.mmzone import MIGRATE_UNMOVABLE, NR_REGIONS

MOVABLE = 0  # as in per_cpu_pages.py


@law
def hold_in_region(row, cohort, r, pages):
    """As many of a cohort's pages just given back as region `r` can have had join those it has on the per-cpu lists.

    returns  int64  pages

    Source: fleetsim's own representation; where every k-th page stays behind, that share of the region is not among them.
    """
    region = row["regions"][r]
    run = row["free_run"]
    kept = region["pages"] // (run + 1) if run > 0 else 0
    k = min(pages, region["used"] - region["held"] - kept)
    if k <= 0:
        return 0
    region["held"] += k
    row["zones"][region["zone"]]["held"] += k
    region["run"] = run
    return k


@law
def hold_pages(row, z, cohort, pages):
    """Pages of a cohort went to the per-cpu lists of zone `z`: their regions remember them, for the day they leave the lists.

    A cohort's home is where its newest pages lie; what is more than that region has lies in others that its group filled.

    Source: fleetsim's own representation; mm/page_alloc.c free_unref_page_commit.
    """
    home = cohort["home"]
    if pages == 0 or z == ZONE_DMA or home < 0 or row["regions"][home]["zone"] != z or row["regions"][home]["pages"] == 0:
        return
    pages -= hold_in_region(row, cohort, home, pages)
    r = 0
    while pages > 0 and r < NR_REGIONS:
        region = row["regions"][r]
        if r != home and region["pages"] > 0 and region["zone"] == z and region["group"] == cohort["group"]:
            pages -= hold_in_region(row, cohort, r, pages)
        r += 1


@law
def forget_reused(row, z, pages, last):
    """Pages that were allocated again straight from the per-cpu lists (those that came last) are no longer held for their region.

    pages  int64  pages leaving the lists now

    Source: mm/page_alloc.c __rmqueue_pcplist takes what was freed last.
    """
    zone = row["zones"][z]
    over = zone["held"] - pages - zone["pcp"][MOVABLE]
    for step in range(2):
        for r in range(NR_REGIONS):
            region = row["regions"][r]
            if over > 0 and region["zone"] == z and region["held"] > 0 and (r == last) == (step == 0):
                k = min(over, region["held"])
                region["held"] -= k
                zone["held"] -= k
                over -= k


@law
def give_held(row, z, pages, last):
    """Pages left the per-cpu lists of zone `z`, the oldest first: those of other regions before those of region `last`.

    returns  int64  pages that no region held

    Source: mm/page_alloc.c free_pcppages_bulk (from the tail of the lists).
    """
    forget_reused(row, z, pages, last)
    for step in range(2):
        for r in range(NR_REGIONS):
            region = row["regions"][r]
            if pages == 0 or region["zone"] != z or region["held"] == 0 or (r == last) != (step == 1):
                continue
            k = min(pages, region["held"], region["used"])
            region["held"] -= k
            row["zones"][z]["held"] -= k
            if k > 0:
                give_to_region(row, r, region["group"], 0, k, int(region["run"]))
                pages -= k
    return pages


@law
def give_from_cohort(row, cohort):
    """Pages came back from the per-cpu lists, a cohort's among them: they join the free lists, with the holes they make.

    Source: mm/page_alloc.c free_pcppages_bulk.
    """
    for z in range(NR_ZONES):
        pages = row["zones"][z]["free"] - row["zones"][z]["listed"]
        if pages <= 0:
            continue
        r = cohort["home"]
        if row["zones"][z]["held"] > 0:
            pages = give_held(row, z, pages, r)
        if z != ZONE_DMA and r >= 0 and row["regions"][r]["zone"] == z and row["regions"][r]["pages"] > 0:
            k = min(pages, row["regions"][r]["used"])
            if row["free_run"] > 0:  # the cohort's own are held: these are the kernel's
                put_merged(row["zones"][z], MIGRATE_UNMOVABLE, pages)
                pages = 0
            elif k > 0:
                give_to_region(row, r, cohort["group"], cohort["nr"], k, row["free_run"])
                pages -= k
        if pages > 0:
            give_anywhere(row, z, pages)
        merge_halves(row, z)


@law
def give_from_lists(row):
    """The per-cpu lists were emptied: their pages join the free lists.

    Source: mm/page_alloc.c drain_pages_zone.
    """
    for z in range(NR_ZONES):
        pages = row["zones"][z]["free"] - row["zones"][z]["listed"]
        if pages > 0 and row["zones"][z]["held"] > 0:
            pages = give_held(row, z, pages, -1)
        if pages > 0:
            give_anywhere(row, z, pages)
