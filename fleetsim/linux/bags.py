# SPDX-License-Identifier: Apache-2.0
"""Bags: the cohorts of a uniform group, pages without position that joined a list within the same half second (or a 32nd of its age).

Random access needs no order inside a group, but it needs ages: which pages came to which list when, and what share of
them was accessed since. A bag's share follows from the group's access count: after `d` accesses to `N` equally likely
pages a given page was hit with probability 1 − e^(−d/N), so nothing is drawn by luck.
Source: fleetsim's own representation, measured against recordings (design §3.2).
"""

from __future__ import annotations

from fleetsim.law import ONE_Q, Q, exp_neg_q, law
from fleetsim.linux.lru_gen import MAX_NR_GENS, lru_gen_add_seq, lru_gen_enabled, lru_gen_list
from fleetsim.linux.mm_inline import list_add, list_del, lru_gen_insert, move_pages
from fleetsim.linux.mm_types import LRU_NONE, LRU_UNEVICTABLE, REFERENCED, WORKINGSET

CLASS = REFERENCED | WORKINGSET  # the flags that all pages of a bag share
OPEN = 500_000_000 >> 20  # how long a bag takes new pages, in 2^20 ns …
OPEN_SHIFT = 5  # … or this part of the age of the list's oldest bag, of which ages are told apart no finer
AGE_MASK = (1 << 31) - 1


@law
def bag_age(row, cohort):
    """Since when a bag takes pages, in 2^20 ns.

    Source: fleetsim's own representation; a bag of more than 26 days looks young again.
    """
    return ((row["now_ns"] >> 20) - cohort["born"]) & AGE_MASK


@law
def accessed_q(group, cohort):
    """Share of a bag's pages whose accessed bit is set, in 2^20ths.

        1 − e^(−(touches − base) / pages)

    Source: kernel-laws §20.2. Leaves out: nothing; the error of `exp_neg_q` is below 2^-13.
    """
    growth = group["touches"] - cohort["base"]
    if growth >= 20 * group["pages"]:
        return ONE_Q
    return ONE_Q - exp_neg_q((growth << Q) // max(1, group["pages"]))


@law
def expected(group, pages, share_q):
    """`pages` × share as a whole number, the fraction carried over to the next call.

    Source: fleetsim's own rounding: the sum over calls is never off by a page or more.
    """
    exact = pages * share_q + group["carry"]
    whole = min(pages, exact >> Q)
    group["carry"] = exact - (whole << Q)
    return whole


@law
def blend_base(cohort, pages, base):
    """Pages whose accessed bits were last clear at `base` join a bag: its own base becomes the weighted mean.

    Source: fleetsim's own representation.
    """
    total = cohort["nr"] + pages
    if total > 0:
        cohort["base"] = (cohort["base"] * cohort["nr"] + base * pages) // total


@law
def hand_over_shadows(row, g, i):
    """Empty the nonresident counts of cohort `i` into the cohort of its group whose shadow is nearest.

    Source: fleetsim's own representation. Leaves out: one shadow stands for both afterwards.
    """
    group, cohorts = row["groups"][g], row["cohorts"]
    a = cohorts[i]
    best, gap = -1, 1 << 62
    for k in range(group["cohorts"]):
        j = group["first"] + k
        same_slots = a["swapped"] == 0 or cohorts[j]["cg"] == a["cg"]  # a slot stays charged to whom it was charged
        if j != i and same_slots and (cohorts[j]["evicted"] > 0 or cohorts[j]["swapped"] > 0 or cohorts[j]["list"] != LRU_NONE):
            d = abs(cohorts[j]["shadow"] - a["shadow"])
            if d < gap:
                best, gap = j, d
    if best < 0:
        return False
    b = cohorts[best]
    if b["evicted"] + b["swapped"] == 0:
        b["shadow"], b["shadow_cg"] = a["shadow"], a["shadow_cg"]
    b["evicted"] += a["evicted"]
    b["swapped"] += a["swapped"]
    a["evicted"] = 0
    a["swapped"] = 0
    return True


@law
def two_oldest(row, g, strict):
    """The two oldest bags of one list, and with `strict` of one class, of those pairs the one with the fewest pages.

    returns  (int64 the older, int64 the younger), −1 if no two bags are alike

    Source: fleetsim's own representation.
    """
    group, cohorts = row["groups"][g], row["cohorts"]
    keep, drop, fewest = -1, -1, 1 << 62
    least = fewest
    for j in range(group["first"], group["first"] + group["cohorts"]):
        if cohorts[j]["list"] != LRU_NONE:
            least = min(least, cohorts[j]["nr"])
    for j in range(group["first"] + 1, group["first"] + group["cohorts"]):
        b = cohorts[j]
        if b["list"] == LRU_NONE or b["nr"] + least >= fewest:
            continue
        age = bag_age(row, b)
        for i in range(group["first"], j):
            a = cohorts[i]
            if a["nr"] + b["nr"] >= fewest or a["list"] != b["list"]:
                continue
            if a["cg"] != b["cg"] or a["gen"] != b["gen"] or (strict and (a["flags"] & CLASS) != (b["flags"] & CLASS)):
                continue
            older = bag_age(row, a)
            if older >= age and b["wb"] == 0:
                keep, drop, fewest = i, j, a["nr"] + b["nr"]
            elif older <= age and a["wb"] == 0:
                keep, drop, fewest = j, i, a["nr"] + b["nr"]
    return keep, drop


@law
def merge_oldest(row, g):
    """Make room: the two oldest bags of one list and class become one; of one list, if every class has but one. The flags are those of
    the larger bag then.

    returns  int64  the row that became free, or −1: no two bags are on one list

    Source: fleetsim's own representation: ages blur where they matter least, far from the head of a list.
    """
    cohorts = row["cohorts"]
    keep, drop = two_oldest(row, g, True)
    if drop < 0:
        keep, drop = two_oldest(row, g, False)
    if drop < 0:
        return -1
    if cohorts[drop]["nr"] > cohorts[keep]["nr"]:
        cohorts[keep]["flags"] = cohorts[keep]["flags"] & ~CLASS | cohorts[drop]["flags"] & CLASS
    blend_base(cohorts[keep], cohorts[drop]["nr"], cohorts[drop]["base"])
    move_pages(row, drop, keep, cohorts[drop]["nr"])
    list_del(row, drop)
    hand_over_shadows(row, g, drop)
    return drop


@law
def open_bag(row, g, cg, lru, flags):
    """The bag at the head of `lru` that new pages of group `g` join; opened if there is none young enough.

    Source: fleetsim's own representation.
    """
    seq = -1
    if lru_gen_enabled(row) and lru != LRU_UNEVICTABLE:
        seq = lru_gen_add_seq(row, cg, lru, 0)
    return open_bag_of(row, g, cg, lru, seq, flags)


@law
def open_bag_of(row, g, cg, lru, seq, flags):
    """The same for one generation of MGLRU.

    lru      int64  list; with `seq` only its type counts
    seq      int64  generation, −1 if pages stand on the classic lists
    returns  int64  cohort

    Source: fleetsim's own representation. When all rows are in use, two old bags are merged.
    """
    group, cohorts = row["groups"][g], row["cohorts"]
    gen = 0
    if seq >= 0:
        gen = seq & (MAX_NR_GENS - 1)
        lru = lru_gen_list(row["cgroups"][cg], lru // 2, seq)
    youngest, empty, husk, any_listed, oldest = -1, -1, -1, -1, 0
    for k in range(group["cohorts"]):
        i = group["first"] + k
        cohort = cohorts[i]
        if cohort["list"] == LRU_NONE:
            if cohort["evicted"] == 0 and cohort["swapped"] == 0:
                empty = i
            else:
                husk = i
            continue
        if cohort["list"] == lru and cohort["cg"] == cg:
            any_listed = i
            oldest = max(oldest, bag_age(row, cohort))
            same = (cohort["flags"] & CLASS) == flags and (seq < 0 or cohort["gen"] == gen)
            if same and (youngest < 0 or bag_age(row, cohort) < bag_age(row, cohorts[youngest])):
                youngest = i
    if youngest >= 0 and bag_age(row, cohorts[youngest]) < max(OPEN, oldest >> OPEN_SHIFT):
        return youngest
    if empty < 0 and husk >= 0 and hand_over_shadows(row, g, husk):
        empty = husk
    if empty < 0:
        empty = merge_oldest(row, g)
    if empty >= 0:
        cohort = cohorts[empty]
        cohort["group"] = g
        cohort["cg"] = cg
        cohort["flags"] = flags
        cohort["base"] = group["touches"]
        cohort["born"] = (row["now_ns"] >> 20) & AGE_MASK
        cohort["refs"] = 0
        if seq >= 0:
            lru_gen_insert(row, empty, lru // 2, seq, 0)
        else:
            list_add(row, empty, lru)
        return empty
    if youngest >= 0:
        return youngest
    assert any_listed >= 0 or husk >= 0, "a uniform group has fewer bags than classes"
    return any_listed


@law
def rebag(row, i, lru, flags, pages):
    """Move `pages` pages of bag `i` to the open bag of another list or class, their accessed bits cleared.

    Source: mm/vmscan.c, the effect of folio_referenced (clears the bits) and putback.
    """
    cohort = row["cohorts"][i]
    rebag_to(row, i, open_bag(row, cohort["group"], cohort["cg"], lru, flags), pages)


@law
def rebag_to(row, i, target, pages):
    """Move `pages` pages of bag `i` to bag `target`, their accessed bits cleared.

    Source: as `rebag`.
    """
    cohort = row["cohorts"][i]
    if target == i:
        return
    blend_base(row["cohorts"][target], pages, row["groups"][cohort["group"]]["touches"])
    move_pages(row, i, target, pages)
