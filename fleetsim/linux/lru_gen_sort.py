# SPDX-License-Identifier: Apache-2.0
"""MGLRU: which page of the oldest generation is next, and which of them belong elsewhere (mm/vmscan.c scan_folios, sort_folio).

Sorted into the next generation are pages whose tier is protected, and dirty or written pages of files; the oldest of lower zones wait.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.lru_gen import (
    LRU_GEN_ANON,
    LRU_GEN_FILE,
    LRU_REFS_MAX,
    clear_refs,
    folio_lru_refs,
    lru_gen_seq,
    lru_tier_from_refs,
)
from fleetsim.linux.lru_gen_age import is_mapped
from fleetsim.linux.lru_gen_pid import SLOT_FILE, ctrl_slot
from fleetsim.linux.memcontrol import count
from fleetsim.linux.mm_inline import list_del, lru_gen_insert
from fleetsim.linux.mm_types import ALL_NODES, CG, ORDERED, SETTLED, VM
from fleetsim.linux.mm_types import RECLAIM as PG_RECLAIM
from fleetsim.linux.nodes import pages_on_nodes
from fleetsim.linux.shrink_list import cull

WORKINGSET_ACTIVATE, CG_WORKINGSET_ACTIVATE = VM["workingset_activate_anon"], CG["workingset_activate_anon"]
MOVED = -1


@law
def protect(row, i, seq, pages):
    """Pages of cohort `i`, in the oldest generation `seq`, whose tier is protected join the next one; they are the oldest there.

    Source: mm/vmscan.c sort_folio (protected), folio_inc_gen.
    """
    cohort = row["cohorts"][i]
    cg, kind = cohort["cg"], cohort["list"] // 2
    slot = ctrl_slot(kind, lru_tier_from_refs(folio_lru_refs(cohort)))
    if slot > SLOT_FILE:
        row["cgroups"][cg]["protected"][slot - SLOT_FILE - 1] += pages
    row["vm"][WORKINGSET_ACTIVATE + kind] += pages
    count(row, cg, CG_WORKINGSET_ACTIVATE + kind, pages)
    list_del(row, i)
    clear_refs(cohort)
    if not is_mapped(row, cohort):
        cohort["base"] = row["groups"][cohort["group"]]["touches"]
    lru_gen_insert(row, i, kind, seq + 1, 1)


@law
def sort_cohort(row, sc, i, seq, tier_idx):
    """Sort the cohort at the tail of the oldest generation `seq` elsewhere if it is not to be evicted.

    returns  int64  pages sorted; MOVED: elsewhere, but the kernel had done that before; 0: they can be evicted

    Source: mm/vmscan.c sort_folio.
    """
    cohort = row["cohorts"][i]
    group = row["groups"][cohort["group"]]
    kind, pages = cohort["list"] // 2, cohort["nr"]
    if group["locked"] > 0:
        cull(row, i)
        return pages
    anon = group["is_file"] == 0
    if kind == LRU_GEN_FILE and anon and cohort["clean"] == 0:  # MADV_FREE'd, but written to again
        list_del(row, i)
        lru_gen_insert(row, i, LRU_GEN_ANON, row["cgroups"][cohort["cg"]]["max_seq"] - 1, 1)
        return pages
    refs = folio_lru_refs(cohort)
    if not anon and group["kind"] != ORDERED and not is_mapped(row, cohort):  # read() at random: as often as the mean page was
        cohort["refs"] = min(LRU_REFS_MAX + 1, 1 + (group["touches"] - cohort["base"]) // max(1, group["pages"]))
        refs = folio_lru_refs(cohort)
    if refs == LRU_REFS_MAX or lru_tier_from_refs(refs) > tier_idx:
        protect(row, i, seq, pages)
        return pages
    if anon and cohort["wb"] == pages and not cohort["flags"] & SETTLED:  # it went to the second youngest when it was sent out
        list_del(row, i)
        lru_gen_insert(row, i, kind, row["cgroups"][cohort["cg"]]["max_seq"] - 1, 0)
        return MOVED
    if not anon and max(cohort["wb"], cohort["dirty"]) >= pages:
        cohort["flags"] |= PG_RECLAIM
        list_del(row, i)
        clear_refs(cohort)
        lru_gen_insert(row, i, kind, seq + 1, 0)
        return pages
    return 0


@law
def below_zone(cohort, z):
    """Pages of a cohort in zones below zone `z`.

    Source: include/linux/mmzone.h struct lru_gen_struct (lists by zone); fleetsim's own representation of zones.
    """
    return (cohort["low_zone"][0] if z > 0 else 0) + (cohort["low_zone"][1] if z > 1 else 0)


@law
def next_to_scan(row, sc, cg, kind, seq):
    """The oldest cohort of generation `seq` that has pages in the highest zone in which the generation has any, −1: it has none.

    Two NUMA nodes share their generations: for one of them alone the oldest pages that it has are taken, whichever generation they are of.

    Source: mm/vmscan.c scan_folios (its loop over zones).
    """
    lruvec = row["cgroups"][cg]
    last = seq if row["reclaim_nodes"] == ALL_NODES else lruvec["max_seq"]
    z = sc["lruvec_zone"][kind]
    while z >= 0:
        i = lruvec["tail"][2 * kind]
        while i >= 0:
            cohort = row["cohorts"][i]
            if lru_gen_seq(lruvec, cohort) > last:
                break
            low = below_zone(cohort, z)
            if pages_on_nodes(row, cohort) == 0:
                i = cohort["prev"]
                continue
            if low == 0 or cohort["nr"] - cohort["wb"] > low:
                sc["lruvec_zone"][kind] = z
                return i
            i = cohort["prev"]
        z -= 1
    return -1
