# SPDX-License-Identifier: Apache-2.0
"""MGLRU's refault feedback: which type to evict from, and which tiers to protect (mm/vmscan.c, its PID controller).

Of every tier it is known how many pages were evicted and how many of them came back while the same generation was the oldest,
with moving averages of what was before. Eviction prefers what comes back less, weighed by swappiness.
Leaves out: tiers of anonymous pages above the first (see lru_gen.py); a fourth tier is never evicted from, so nothing of it comes back.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.lru_gen import LRU_GEN_ANON, LRU_GEN_FILE, MAX_NR_TIERS, MIN_LRU_BATCH
from fleetsim.linux.workers import NR_CTRL_TIERS

SLOT_FILE = 1  # of file tier 0; before it stands the one tier of anonymous pages


@law
def ctrl_slot(kind, tier):
    """Where the counts of a tier are kept, −1: nowhere, nothing is evicted from it.

    Source: include/linux/mmzone.h struct lru_gen_struct (refaulted, evicted).
    """
    if kind == LRU_GEN_ANON:
        return 0 if tier == 0 else -1
    return SLOT_FILE + tier if tier < MAX_NR_TIERS - 1 else -1


@law
def read_ctrl_pos(lruvec, kind, tier):
    """Pages of a tier that came back, and those that were evicted or protected.

    returns  (int64, int64)

    Source: mm/vmscan.c read_ctrl_pos.
    """
    slot = ctrl_slot(kind, tier)
    if slot < 0:
        return 0, 0
    refaulted = int(lruvec["avg_refaulted"][slot]) + int(lruvec["refaulted"][slot])
    total = int(lruvec["avg_total"][slot]) + int(lruvec["evicted"][slot])
    if slot > SLOT_FILE:
        total += int(lruvec["protected"][slot - SLOT_FILE - 1])
    return refaulted, total


@law
def reset_ctrl_pos(lruvec, kind):
    """The oldest generation of a type is gone: its counts go into the averages.

        average ← (average + counts) / 2

    Source: mm/vmscan.c reset_ctrl_pos (carryover).
    """
    for tier in range(MAX_NR_TIERS - 1):
        slot = ctrl_slot(kind, tier)
        if slot < 0:
            continue
        refaulted, total = read_ctrl_pos(lruvec, kind, tier)
        lruvec["avg_refaulted"][slot] = refaulted // 2
        lruvec["avg_total"][slot] = total // 2
        lruvec["refaulted"][slot] = 0
        lruvec["evicted"][slot] = 0
        if slot > SLOT_FILE:
            lruvec["protected"][slot - SLOT_FILE - 1] = 0


@law
def positive_ctrl_err(sp_refaulted: int, sp_total: int, sp_gain: int, pv_refaulted: int, pv_total: int, pv_gain: int) -> bool:
    """Do pages of the process variable (pv) come back no more than those of the set point (sp)?

        pv_refaulted < 64, or   pv_refaulted · (sp_total + 64) · sp_gain  ≤  (sp_refaulted + 1) · pv_total · pv_gain

    all       int64  pages, ≥ 0; gains 0..200
    returns   bool   True: evict them

    Source: mm/vmscan.c positive_ctrl_err. Leaves out: nothing.
    """
    if pv_refaulted < MIN_LRU_BATCH:
        return True
    return pv_refaulted * (sp_total + MIN_LRU_BATCH) * sp_gain <= (sp_refaulted + 1) * pv_total * pv_gain


@law
def get_tier_idx(lruvec, kind):
    """The highest tier that may be evicted: the first tier refaults at least half as much as those above that are not protected.

    Source: mm/vmscan.c get_tier_idx.
    """
    sp_refaulted, sp_total = read_ctrl_pos(lruvec, kind, 0)
    for tier in range(1, MAX_NR_TIERS):
        pv_refaulted, pv_total = read_ctrl_pos(lruvec, kind, tier)
        if not positive_ctrl_err(sp_refaulted, sp_total, 1, pv_refaulted, pv_total, 2):
            return tier - 1
    return MAX_NR_TIERS - 1


@law
def get_type_to_scan(lruvec, swappiness):
    """Both types have the same oldest generation: evict from the one whose first tier comes back less, weighed by swappiness.

    returns  (int64 type, int64 highest tier that may be evicted)

    Source: mm/vmscan.c get_type_to_scan.
    """
    anon_refaulted, anon_total = read_ctrl_pos(lruvec, LRU_GEN_ANON, 0)
    file_refaulted, file_total = read_ctrl_pos(lruvec, LRU_GEN_FILE, 0)
    file_first = positive_ctrl_err(anon_refaulted, anon_total, swappiness, file_refaulted, file_total, 200 - swappiness)
    kind = LRU_GEN_FILE if file_first else LRU_GEN_ANON
    sp_refaulted, sp_total, sp_gain = (
        (anon_refaulted, anon_total, swappiness) if file_first else (file_refaulted, file_total, 200 - swappiness)
    )
    for tier in range(1, MAX_NR_TIERS):
        pv_refaulted, pv_total = read_ctrl_pos(lruvec, kind, tier)
        if not positive_ctrl_err(sp_refaulted, sp_total, sp_gain, pv_refaulted, pv_total, 200 - sp_gain):
            return kind, tier - 1
    return kind, MAX_NR_TIERS - 1


assert NR_CTRL_TIERS == SLOT_FILE + MAX_NR_TIERS - 1
