# SPDX-License-Identifier: Apache-2.0
"""LRU lists: putting cohorts on them, moving them, and counting their pages.

Named after include/linux/mm_inline.h. A list runs from `head` (newest) to `tail` (oldest, where reclaim looks); the
links are row numbers, −1 ends a list. Every change of a cohort's page count goes through `account`, so that a
cgroup's own sizes and its subtree's never disagree with the lists (checked by `check.py`).
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.holes import take_for_cohort
from fleetsim.linux.lru_gen import (
    MAX_NR_GENS,
    lru_gen_add_seq,
    lru_gen_enabled,
    lru_gen_list,
    rejected_by_reclaim,
    younger_neighbour,
)
from fleetsim.linux.mm_types import LRU_ACTIVE_FILE, LRU_INACTIVE_FILE, LRU_NONE, LRU_UNEVICTABLE, VM, ZONE_NODE1
from fleetsim.linux.nodes import of_second_node

PGMLOCKED, PGCULLED = VM["unevictable_pgs_mlocked"], VM["unevictable_pgs_culled"]


@law
def account(row, cg, lru, pages):
    """Count `pages` more on list `lru` of lruvec `cg` and of all its ancestors.

    Source: include/linux/mm_inline.h update_lru_size.
    """
    cgroups = row["cgroups"]
    cgroups[cg]["size"][lru] += pages
    while cg >= 0:
        cgroups[cg]["tree"][lru] += pages
        cg = cgroups[cg]["parent"]


@law
def list_del(row, i):
    """Take cohort `i` off the list it stands on (nothing if it stands on none).

    Source: include/linux/mm_inline.h lruvec_del_folio.
    """
    cohorts = row["cohorts"]
    cohort = cohorts[i]
    lru = cohort["list"]
    if lru == LRU_NONE:
        return
    lruvec = row["cgroups"][cohort["cg"]]
    before, after = cohort["prev"], cohort["next"]
    if before >= 0:
        cohorts[before]["next"] = after
    else:
        lruvec["head"][lru] = after
    if after >= 0:
        cohorts[after]["prev"] = before
    else:
        lruvec["tail"][lru] = before
    account(row, cohort["cg"], lru, -cohort["nr"])
    cohort["list"] = LRU_NONE
    cohort["off"] = 0


@law
def list_add(row, i, lru):
    """Put cohort `i` (on no list) at the head of list `lru` of its own lruvec; with MGLRU, of the generation that takes its place.

    Source: include/linux/mm_inline.h lruvec_add_folio.
    """
    cohorts = row["cohorts"]
    cohort = cohorts[i]
    if lru_gen_enabled(row) and lru != LRU_UNEVICTABLE:
        if cohort["nr"] == 0:
            cohort["refs"] = 0
        seq = lru_gen_add_seq(row, cohort["cg"], lru, 1 if rejected_by_reclaim(cohort) else 0)
        lru_gen_insert(row, i, lru // 2, seq, 0)
        return
    lruvec = row["cgroups"][cohort["cg"]]
    head = lruvec["head"][lru]
    cohort["prev"] = -1
    cohort["next"] = head
    if head >= 0:
        cohorts[head]["prev"] = i
    else:
        lruvec["tail"][lru] = i
    lruvec["head"][lru] = i
    cohort["list"] = lru
    cohort["off"] = 0
    account(row, cohort["cg"], lru, cohort["nr"])


@law
def lru_gen_insert(row, i, kind, seq, at_tail):
    """Put cohort `i` (on no list) into generation `seq` of its own lruvec, at its head or, with `at_tail`, at its tail.

    kind  int64  LRU_GEN_ANON or LRU_GEN_FILE

    Source: include/linux/mm_inline.h lru_gen_add_folio, lru_gen_update_size.
    """
    cohorts = row["cohorts"]
    cohort = cohorts[i]
    lruvec = row["cgroups"][cohort["cg"]]
    lru = lru_gen_list(lruvec, kind, seq)
    above = younger_neighbour(row, cohort["cg"], lru, seq, at_tail)
    below = lruvec["head"][lru] if above < 0 else cohorts[above]["next"]
    cohort["prev"] = above
    cohort["next"] = below
    if above >= 0:
        cohorts[above]["next"] = i
    else:
        lruvec["head"][lru] = i
    if below >= 0:
        cohorts[below]["prev"] = i
    else:
        lruvec["tail"][lru] = i
    cohort["list"] = lru
    cohort["gen"] = seq & (MAX_NR_GENS - 1)
    cohort["off"] = 0
    account(row, cohort["cg"], lru, cohort["nr"])


@law
def list_add_tail(row, i, lru):
    """Put cohort `i` (on no list) at the tail of list `lru` of its own lruvec, where reclaim looks next.

    Source: include/linux/mm_inline.h lruvec_add_folio_tail (MGLRU: the oldest generation's).
    """
    cohorts = row["cohorts"]
    cohort = cohorts[i]
    if lru_gen_enabled(row) and lru != LRU_UNEVICTABLE:
        lru_gen_insert(row, i, lru // 2, row["cgroups"][cohort["cg"]]["min_seq"][lru // 2], 1)
        return
    lruvec = row["cgroups"][cohort["cg"]]
    tail = lruvec["tail"][lru]
    cohort["next"] = -1
    cohort["prev"] = tail
    if tail >= 0:
        cohorts[tail]["next"] = i
    else:
        lruvec["head"][lru] = i
    lruvec["tail"][lru] = i
    cohort["list"] = lru
    cohort["off"] = 0
    account(row, cohort["cg"], lru, cohort["nr"])


@law
def list_move(row, i, lru):
    """Move cohort `i` to the head of list `lru`.

    Source: mm/swap.c, the effect of folio_activate, deactivate and putback on a whole cohort.
    """
    list_del(row, i)
    list_add(row, i, lru)


@law
def add_pages(row, i, pages):
    """The pages just allocated (`row["got"]`, by zone) join cohort `i`.

    Source: include/linux/mm_inline.h lruvec_add_folio, one call for `pages` pages.
    """
    cohort = row["cohorts"][i]
    cohort["nr"] += pages
    cohort["low_zone"][0] += row["got"][0]
    cohort["low_zone"][1] += row["got"][1]
    cohort["node1"] += row["got"][ZONE_NODE1]
    row["groups"][cohort["group"]]["resident"] += pages
    take_for_cohort(row, cohort)
    if cohort["list"] != LRU_NONE:
        account(row, cohort["cg"], cohort["list"], pages)


@law
def is_file_lru(lru):
    """True for the file lists.

    Source: include/linux/mmzone.h is_file_lru.
    """
    return lru in (LRU_INACTIVE_FILE, LRU_ACTIVE_FILE)


@law
def move_pages(row, source, target, pages):
    """`pages` pages change from one cohort to another of the same group and cgroup, with their share of low-zone and clean pages.

    Source: fleetsim's own representation (design §3.2).
    """
    a, b = row["cohorts"][source], row["cohorts"][target]
    far = of_second_node(row, a, pages)
    a["node1"] -= far
    b["node1"] += far
    rest = pages - far
    for z in range(2):
        k = min(rest, a["low_zone"][z] * pages // max(1, a["nr"]))
        a["low_zone"][z] -= k
        b["low_zone"][z] += k
        rest -= k
    # what the rounding left must not make the source hold more low-zone pages than pages
    for z in range(2):
        over = a["low_zone"][0] + a["low_zone"][1] + a["node1"] - (a["nr"] - pages)
        if over > 0:
            k = min(over, a["low_zone"][z])
            a["low_zone"][z] -= k
            b["low_zone"][z] += k
    if row["groups"][a["group"]]["is_file"]:  # dirty ones and those under writeback: a share, but none is left without its page
        rest = a["nr"] - pages
        k = max(int(pages) * a["dirty"] // max(1, a["nr"]), a["dirty"] - rest)
        a["dirty"] -= k
        b["dirty"] += k
        k = max(int(pages) * a["wb"] // max(1, a["nr"]), a["wb"] - rest)
        a["wb"] -= k
        b["wb"] += k
    elif a["clean"] > 0:
        k = max(a["clean"] * pages // (a["nr"] - a["wb"]), a["clean"] - (a["nr"] - a["wb"] - pages))
        a["clean"] -= k
        if is_file_lru(a["list"]) and not is_file_lru(b["list"]):  # no longer MADV_FREE'd
            row["lazy"] -= k
        else:
            b["clean"] += k
    a["nr"] -= pages
    b["nr"] += pages
    if a["list"] != LRU_NONE:
        account(row, a["cg"], a["list"], -pages)
    if b["list"] != LRU_NONE:
        account(row, b["cg"], b["list"], pages)


@law
def count_mlocked(row, pages):
    """Pages become mlocked.

    Source: mm/mlock.c mlock_folio, __mlock_page: both counters move together, as every such page is taken off an evictable list.
    """
    row["vm"][PGMLOCKED] += pages
    row["vm"][PGCULLED] += pages
