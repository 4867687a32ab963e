# SPDX-License-Identifier: Apache-2.0
"""MGLRU is switched on or off (mm/vmscan.c lru_gen_change_state, behind /sys/kernel/mm/lru_gen/enabled)."""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.lru_gen import LRU_GEN_CORE, LRU_GEN_FILE, MAX_NR_GENS, MIN_NR_GENS, lru_gen_enabled, set_all_gens
from fleetsim.linux.mm_inline import list_del, lru_gen_insert
from fleetsim.linux.mm_types import LRU_NONE, NR_COHORTS


@law
def fill_evictable(row, cg):
    """The pages of the classic lists join generations: active ones the youngest, anonymous ones the next, the rest an old one.

    Source: mm/vmscan.c fill_evictable.
    """
    lruvec = row["cgroups"][cg]
    for kind in range(2):
        inactive = 2 * kind
        set_all_gens(row, cg, inactive + 1, lruvec["max_seq"] & (MAX_NR_GENS - 1))
        oldest = lruvec["min_seq"][kind]
        seq = lruvec["max_seq"] - 1
        if kind == LRU_GEN_FILE:
            seq = oldest if oldest + MIN_NR_GENS >= lruvec["max_seq"] else oldest + 1
        set_all_gens(row, cg, inactive, seq & (MAX_NR_GENS - 1))
        while seq >= lruvec["max_seq"] - 1 and lruvec["head"][inactive] >= 0:  # this generation counts as active
            i = lruvec["head"][inactive]
            list_del(row, i)
            lru_gen_insert(row, i, kind, seq, 1)


@law
def drain_evictable(row, cg):
    """The two youngest generations are the active list, the others the inactive one: as they stand.

    Source: mm/vmscan.c drain_evictable.
    """
    for lru in range(4):
        set_all_gens(row, cg, lru, 0)


@law
def lru_gen_change_state(row, caps):
    """lru_gen/enabled was written.

    caps  int64  bits LRU_GEN_CORE, LRU_GEN_MM_WALK, LRU_GEN_NONLEAF_YOUNG

    Source: mm/vmscan.c enabled_store, lru_gen_change_state.
    """
    before = lru_gen_enabled(row)
    row["lru_gen"] = caps
    if lru_gen_enabled(row) == before:
        return
    for cg in range(row["nr_cgroups"]):
        if row["cgroups"][cg]["used"] > 0:
            if caps & LRU_GEN_CORE:
                fill_evictable(row, cg)
            else:
                drain_evictable(row, cg)
    for i in range(NR_COHORTS):
        if row["cohorts"][i]["list"] == LRU_NONE or not caps & LRU_GEN_CORE:
            row["cohorts"][i]["gen"] = 0
