# SPDX-License-Identifier: Apache-2.0
"""The eviction clock and the refault decision over a host's tables (mm/workingset.c; its formula is in workingset.py).

Leaves out: shadow precision (bucketing), trimming of shadow nodes.
"""

from __future__ import annotations

from fleetsim.law import law
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
def workingset_eviction(row, cohort, target, pages):
    """Leave a shadow: the clock of the cgroup whose reclaim evicts, and the Workingset flag.

    Source: mm/workingset.c workingset_eviction.
    """
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
