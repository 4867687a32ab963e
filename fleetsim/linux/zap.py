# SPDX-License-Identifier: Apache-2.0
"""Taking pages and swap slots away from a private anonymous group: munmap, MADV_DONTNEED, exit (mm/memory.c zap_pte_range)."""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.huge_mm import lose_huge, split_huge
from fleetsim.linux.memcontrol import add_anon, charge
from fleetsim.linux.mm_inline import account, list_del, list_move
from fleetsim.linux.mm_types import LRU_INACTIVE_ANON, LRU_INACTIVE_FILE, LRU_UNEVICTABLE, VM
from fleetsim.linux.swap_state import add_swap_cache, take_clean
from fleetsim.linux.swapfile import release_slots
from fleetsim.linux.zonelist import free_scattered, give_back

PGMUNLOCKED, PGRESCUED = VM["unevictable_pgs_munlocked"], VM["unevictable_pgs_rescued"]


@law
def zap_resident(row, i, pages, cached, clean, every):
    """Give back `pages` pages of cohort `i`, of them `cached` unmapped in the swap cache and `clean` clean mapped ones.

    every  int64  1: a run of pages; k: every k-th page stays behind between them

    Source: mm/memory.c zap_pte_range, free_swap_and_cache; mm/rmap.c page_remove_rmap → munlock_page.
    """
    cohort = row["cohorts"][i]
    group = row["groups"][cohort["group"]]
    task = row["tasks"][group["task"]]
    if clean > 0:
        take_clean(row, i, clean)
    if every > 1:
        split_huge(row, cohort["group"], task["cg"], group["huge"])
        free_scattered(row, cohort, pages, every)
    else:
        lose_huge(row, cohort["group"], task["cg"], pages - cached)
        give_back(row, cohort, pages)
    cohort["nr"] -= pages
    cohort["wb"] -= cached
    account(row, cohort["cg"], cohort["list"], -pages)
    group["resident"] -= pages
    if cached > 0:
        add_swap_cache(row, cohort["cg"], -cached)
        release_slots(row, cohort["group"], cohort["cg"], cached, 1)
        task["swapents"] -= cached
    task["rss_anon"] -= pages - cached
    add_anon(row, cohort["cg"], cached - pages)
    charge(row, cohort["cg"], -pages)
    if cohort["list"] == LRU_UNEVICTABLE:
        row["vm"][PGMUNLOCKED] += pages
        row["vm"][PGRESCUED] += pages
    if cohort["nr"] == 0:
        list_del(row, i)


@law
def munlock_group(row, g):
    """The lock on a group's pages is gone: they can be reclaimed again.

    Source: mm/mlock.c __munlock_page.
    """
    group = row["groups"][g]
    group["locked"] = 0
    row["in_lru_fault"] = 0
    for k in range(group["cohorts"]):
        i = group["first"] + k
        cohort = row["cohorts"][i]
        if cohort["list"] == LRU_UNEVICTABLE:
            row["vm"][PGMUNLOCKED] += cohort["nr"]
            row["vm"][PGRESCUED] += cohort["nr"]
            list_move(row, i, LRU_INACTIVE_FILE if group["is_file"] > 0 else LRU_INACTIVE_ANON)


@law
def zap_swapped(row, i, pages):
    """Give back `pages` slots of pages of cohort `i` that are in swap only.

    Source: mm/memory.c zap_pte_range → free_swap_and_cache.
    """
    cohort = row["cohorts"][i]
    group = row["groups"][cohort["group"]]
    task = row["tasks"][group["task"]]
    cohort["swapped"] -= pages
    group["swapped"] -= pages
    task["swapents"] -= pages
    release_slots(row, cohort["group"], task["cg"], pages, 0)


@law
def zap_cohort(row, i, budget):
    """Give back up to `budget` pages of an anonymous cohort: resident ones first, then swap slots.

    returns  int64  pages and slots given back

    Source: mm/memory.c zap_pte_range, free_swap_and_cache.
    """
    cohort = row["cohorts"][i]
    left = budget
    if left > 0 and cohort["nr"] > 0:
        n = min(left, cohort["nr"])
        cached = min(n, cohort["wb"])
        zap_resident(row, i, n, cached, min(n - cached, cohort["clean"]), 1)
        left -= n
    if left > 0 and cohort["swapped"] > 0:
        n = min(left, cohort["swapped"])
        zap_swapped(row, i, n)
        left -= n
    return budget - left


@law
def zap_group(row, g, budget):
    """Give back up to `budget` pages of a group, slice by slice.

    returns  int64  pages and slots given back

    Source: mm/memory.c zap_pte_range.
    """
    group = row["groups"][g]
    left = budget
    for k in range(group["cohorts"]):
        left -= zap_cohort(row, group["first"] + k, left)
    return budget - left
