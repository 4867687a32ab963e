# SPDX-License-Identifier: Apache-2.0
"""The eviction clock and the refault decision over a host's tables (mm/workingset.c; its formula is in workingset.py).

Leaves out: shadow precision (bucketing), trimming of shadow nodes.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.lru_gen import LRU_REFS_MAX, folio_lru_refs, lru_gen_enabled, lru_tier_from_refs
from fleetsim.linux.lru_gen_pid import ctrl_slot
from fleetsim.linux.memcontrol import count, swap_room
from fleetsim.linux.mm_types import (
    CG,
    LRU_ACTIVE_ANON,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    SHADOW_WORKINGSET,
    VM,
    WORKINGSET,
)
from fleetsim.linux.workingset import lru_note_cost, refault_activates

SHADOW_REFS = 3  # bits of an MGLRU shadow that hold the accesses
REFAULT, ACTIVATE, RESTORE = VM["workingset_refault_anon"], VM["workingset_activate_anon"], VM["workingset_restore_anon"]
CG_REFAULT, CG_ACTIVATE, CG_RESTORE = CG["workingset_refault_anon"], CG["workingset_activate_anon"], CG["workingset_restore_anon"]


@law
def age_nonresident(row, cg, pages):
    """Advance the clock of `cg` and its ancestors by pages evicted or activated.

    Source: mm/workingset.c workingset_age_nonresident.
    """
    while cg >= 0:
        row["cgroups"][cg]["nonresident_age"] += pages
        cg = row["cgroups"][cg]["parent"]


@law
def lru_gen_eviction(row, cohort, pages):
    """Leave a shadow: the oldest generation and the tier the pages were evicted from.

        shadow = 8 · min_seq + accesses beyond the first

    Source: mm/workingset.c lru_gen_eviction.
    """
    kind = 1 if row["groups"][cohort["group"]]["is_file"] > 0 else 0
    lruvec = row["cgroups"][cohort["cg"]]
    refs = folio_lru_refs(cohort)
    cohort["shadow"] = (int(lruvec["min_seq"][kind]) << SHADOW_REFS) + refs
    cohort["shadow_cg"] = cohort["cg"]
    slot = ctrl_slot(kind, lru_tier_from_refs(refs))
    if slot >= 0:
        lruvec["evicted"][slot] += pages


@law
def lru_gen_refault(row, i, cg, is_file, pages):
    """`pages` evicted pages of cohort `i` come back. They count only while the generation they left is still the oldest.

    Pages that fault, or that were accessed often, were evicted too early: SHADOW_WORKINGSET says so until the next refault.

    Source: mm/workingset.c lru_gen_refault (6.1.69 and later).
    """
    kind = 1 if is_file else 0
    cohort = row["cohorts"][i]
    cohort["flags"] &= ~SHADOW_WORKINGSET
    lruvec = row["cgroups"][cg]
    if cohort["shadow_cg"] != cg or cohort["shadow"] >> SHADOW_REFS != lruvec["min_seq"][kind]:
        return
    refs = cohort["shadow"] & ((1 << SHADOW_REFS) - 1)
    slot = ctrl_slot(kind, lru_tier_from_refs(refs))
    if slot >= 0:
        lruvec["refaulted"][slot] += pages
    row["vm"][REFAULT + kind] += pages
    count(row, cg, CG_REFAULT + kind, pages)
    if row["in_lru_fault"] > 0 or refs >= LRU_REFS_MAX - 1:
        cohort["flags"] |= SHADOW_WORKINGSET
        row["vm"][RESTORE + kind] += pages
        count(row, cg, CG_RESTORE + kind, pages)


@law
def keeps_workingset(row, cohort, activate):
    """True if the pages of a cohort that come back have PG_workingset.

    activate  bool  what workingset_refault said

    Source: mm/workingset.c workingset_refault, lru_gen_refault.
    """
    return (activate or lru_gen_enabled(row)) and cohort["flags"] & SHADOW_WORKINGSET > 0


@law
def workingset_eviction(row, cohort, target, pages):
    """Leave a shadow: the clock of the cgroup whose reclaim evicts, and the Workingset flag.

    Source: mm/workingset.c workingset_eviction.
    """
    if lru_gen_enabled(row):
        lru_gen_eviction(row, cohort, pages)
        return
    cohort["shadow"] = row["cgroups"][target]["nonresident_age"]
    cohort["shadow_cg"] = target
    if cohort["flags"] & WORKINGSET:
        cohort["flags"] |= SHADOW_WORKINGSET
    else:
        cohort["flags"] &= ~SHADOW_WORKINGSET
    age_nonresident(row, target, pages)


@law
def note_cost(row, cg, is_file, pages):
    """Reclaim of this kind of page cost IO: remember it here and in every ancestor.

    Source: mm/swap.c lru_note_cost; kernel-laws §3.6.
    """
    while cg >= 0:
        lruvec = row["cgroups"][cg]
        total = lruvec["tree"][0] + lruvec["tree"][1] + lruvec["tree"][2] + lruvec["tree"][3]
        lruvec["anon_cost"], lruvec["file_cost"] = lru_note_cost(lruvec["anon_cost"], lruvec["file_cost"], is_file, pages, total)
        cg = lruvec["parent"]


@law
def workingset_refault(row, i, cg, is_file, pages):
    """`pages` evicted pages of cohort `i` come back for a task of `cg`: count, and decide whether they go active.

    returns  bool  True: activate them

    Source: mm/workingset.c workingset_refault; kernel-laws §3.8. Leaves out: the decision is one for all `pages`.
    """
    if lru_gen_enabled(row):
        lru_gen_refault(row, i, cg, is_file, pages)
        return False
    kind = 1 if is_file else 0
    cohort = row["cohorts"][i]
    row["vm"][REFAULT + kind] += pages
    count(row, cg, CG_REFAULT + kind, pages)
    lruvec = row["cgroups"][cohort["shadow_cg"]]
    tree = lruvec["tree"]
    distance = lruvec["nonresident_age"] - cohort["shadow"]
    if not refault_activates(
        is_file,
        distance,
        tree[LRU_ACTIVE_FILE],
        tree[LRU_INACTIVE_FILE],
        tree[LRU_ACTIVE_ANON],
        tree[LRU_INACTIVE_ANON],
        swap_room(row, cohort["shadow_cg"]) > 0,
    ):
        return False
    age_nonresident(row, cg, pages)
    row["vm"][ACTIVATE + kind] += pages
    count(row, cg, CG_ACTIVATE + kind, pages)
    if cohort["flags"] & SHADOW_WORKINGSET:
        note_cost(row, cg, is_file, pages)
        row["vm"][RESTORE + kind] += pages
        count(row, cg, CG_RESTORE + kind, pages)
    return True
