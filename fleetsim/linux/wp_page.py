# SPDX-License-Identifier: Apache-2.0
"""Access to anonymous memory that a fork left shared: copy-on-write and reuse (mm/memory.c do_wp_page).

A write to a page that others map too gets a copy, charged to the writer; a page that all others have copied, or whose other
owners are gone, is reused by a fault that copies nothing. What is swapped out is read in first.
Which of a slice's pages are shared is not kept: a sweep meets the shared ones first, random accesses meet expected values.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import ACCESS, COW, FAULT_MINOR
from fleetsim.law import Q, law
from fleetsim.linux.anon_vma import held, push_layer
from fleetsim.linux.bags import blend_base, expected, open_bag
from fleetsim.linux.fault import count_faults
from fleetsim.linux.huge_mm import HPAGE_PMD_NR, SPLIT_PMD, lose_huge, written_huge
from fleetsim.linux.memcontrol import add_anon, charge
from fleetsim.linux.memory import access_ordered, access_uniform, fault_uniform, get_pages
from fleetsim.linux.mm_inline import add_pages, list_add, list_del, move_pages
from fleetsim.linux.mm_types import ACCESSED, AREA_ANON, LRU_INACTIVE_ANON, LRU_NONE, NR_AREAS, NR_GROUPS, VM
from fleetsim.linux.rmap import add_rss, find_mapping, present_pages

PGREUSE = VM["pgreuse"]


@law
def copied_by_others(row, top, g, k):
    """Pages of a layer that all its other users have copied, so that they are the area's alone.

    top      int64  the area's own group, directly on the layer
    k        int64  slice (ORDERED), −1: all of it

    Source: mm/memory.c do_wp_page (folio_ref_count 1, PageAnonExclusive).
    """
    least = row["groups"][g]["pages"]
    for u in range(NR_GROUPS):
        other = row["groups"][u]
        if other["used"] and other["below"] == g and u != top:
            copied = other["resident"] + other["swapped"] if k < 0 else held(row["cohorts"][other["first"] + k])
            least = min(least, copied)
    for a in range(NR_AREAS):
        area = row["areas"][a]
        if area["kind"] == AREA_ANON and area["group"] <= g < area["group"] + area["groups"]:
            return 0
    return least


@law
def wp_page_copy(row, th, a, top, g, i, pages):
    """Copy `pages` pages of layer `g` into cohort `i` of the area's own group (−1: its open bag).

    returns  int64  pages copied; 0: come back

    Source: mm/memory.c wp_page_copy; kernel-laws §10.1, §10.2.
    """
    group = row["groups"][top]
    task = row["tasks"][row["areas"][a]["task"]]
    mapping = row["mappings"][find_mapping(row, a, g)]
    n = get_pages(row, th, pages)
    if n == 0:
        return 0
    split = written_huge(row["groups"][g], group)
    if i < 0:
        i = open_bag(row, top, task["cg"], LRU_INACTIVE_ANON, 0)
        blend_base(row["cohorts"][i], n, group["touches"] - group["pages"])
    cohort = row["cohorts"][i]
    if cohort["list"] == LRU_NONE:
        cohort["cg"] = task["cg"]
        cohort["flags"] = ACCESSED
        list_add(row, i, LRU_INACTIVE_ANON)
    cohort["flags"] |= ACCESSED
    add_pages(row, i, n)
    row["vm"][SPLIT_PMD] += written_huge(row["groups"][g], group) - split
    mapping["mapped"] -= n
    add_rss(task, group, 0)
    charge(row, cohort["cg"], n)
    add_anon(row, cohort["cg"], n)
    count_faults(row, task, n, 0)
    row["spent_ns"] += n * row["cost"][COW]
    task["stime_ns"] += n * row["cost"][COW]
    return n


@law
def wp_page_reuse(row, a, top, pages):
    """Writes to `pages` write-protected pages that are the task's alone: a fault each, and no copy.

    Source: mm/memory.c wp_page_reuse; mm/huge_memory.c do_huge_pmd_wp_page (not counted in pgreuse); kernel-laws §10.1.
    """
    task = row["tasks"][row["areas"][a]["task"]]
    own = row["groups"][top]
    mapped = max(1, present_pages(row, own))
    huge = pages * min(mapped, own["huge"] * HPAGE_PMD_NR) // mapped  # a fault each 512 of them
    faults = pages - huge + (huge + HPAGE_PMD_NR - 1) // HPAGE_PMD_NR
    row["vm"][PGREUSE] += pages - huge
    count_faults(row, task, faults, 0)
    row["spent_ns"] += faults * row["cost"][FAULT_MINOR]
    task["stime_ns"] += faults * row["cost"][FAULT_MINOR]


@law
def take_over(row, a, top, g, i, j, pages):
    """`pages` present pages of a layer's cohort `i` that only this area still sees become its own, in its cohort `j`.

    Source: mm/memory.c do_wp_page (page_move_anon_rmap).
    """
    group, upper = row["groups"][g], row["groups"][top]
    mapping = row["mappings"][find_mapping(row, a, g)]
    if row["cohorts"][j]["list"] == LRU_NONE:
        row["cohorts"][j]["cg"] = row["cohorts"][i]["cg"]
        row["cohorts"][j]["flags"] = row["cohorts"][i]["flags"]
        list_add(row, j, row["cohorts"][i]["list"])
    lose_huge(row, g, row["cohorts"][i]["cg"], pages)
    move_pages(row, i, j, pages)
    if row["cohorts"][i]["nr"] == 0:
        list_del(row, i)
    group["resident"] -= pages
    upper["resident"] += pages
    group["cow"] += pages
    mapping["mapped"] -= pages


@law
def access_forked_ordered(row, th, a, at, pages, write):
    """`access_ordered` for an area that a fork left shared.

    returns  int64  pages done; 0: come back

    Source: mm/memory.c handle_pte_fault, do_wp_page.
    """
    area = row["areas"][a]
    top = area["group"]
    if write and row["groups"][top]["task"] < 0 and push_layer(row, a):
        top = area["group"]
    own = row["groups"][top]
    k = at // own["slice"]
    offset = at % own["slice"]
    n = min(pages, min(own["slice"], own["pages"] - (at - offset)) - offset)
    g, covered = top, 0
    while g >= 0:
        cohort = row["cohorts"][row["groups"][g]["first"] + k]
        if held(cohort) > covered and (cohort["swapped"] > 0 or cohort["wb"] > 0):  # in memory first
            n = access_ordered(row, th, g, at, n, -1, write)
            if n == 0 or g == top:
                return n
        cohort["flags"] |= ACCESSED
        covered = max(covered, held(cohort))
        g = row["groups"][g]["below"]
    if write and own["task"] >= 0:
        covered = held(row["cohorts"][own["first"] + k])
        g = own["below"]
        while g >= 0:
            i = row["groups"][g]["first"] + k
            visible = min(row["cohorts"][i]["nr"] - row["cohorts"][i]["wb"], row["mappings"][find_mapping(row, a, g)]["mapped"])
            if row["groups"][g]["cow"] == 0:
                visible = min(visible, max(0, held(row["cohorts"][i]) - covered))
            if visible > 0:
                return write_protected(row, th, a, top, g, k, min(n, visible))
            covered = max(covered, held(row["cohorts"][i]))
            g = row["groups"][g]["below"]
        reused = min(n, own["cow"])
        own["cow"] -= reused
        if reused > 0:
            wp_page_reuse(row, a, top, reused)
    row["spent_ns"] += n * row["cost"][ACCESS]
    row["tasks"][area["task"]]["utime_ns"] += n * row["cost"][ACCESS]
    return n


@law
def write_protected(row, th, a, top, g, k, pages):
    """Writes to `pages` pages of slice `k` that the area sees in layer `g`: those that are its alone by now are reused, the others copied.

    returns  int64  pages done; 0: come back

    Source: mm/memory.c do_wp_page.
    """
    group, own = row["groups"][g], row["groups"][top]
    i, j = group["first"] + k, own["first"] + k
    alone = 0
    if own["below"] == g:
        length = min(group["slice"], group["pages"] - k * group["slice"])
        alone = max(0, copied_by_others(row, top, g, k) - max(0, length - held(row["cohorts"][i])))
    reused = min(pages, alone)
    if reused > 0:
        take_over(row, a, top, g, i, j, reused)
        wp_page_reuse(row, a, top, reused)
        return reused
    return wp_page_copy(row, th, a, top, g, j, pages)


@law
def access_forked_uniform(row, th, a, k, accesses, write):
    """`access_uniform` for an area that a fork left shared; `k`: its hot or its cold part.

    returns  int64  accesses done; 0: come back

    Source: mm/memory.c handle_pte_fault, do_wp_page; expected values.
    """
    area = row["areas"][a]
    if write and row["groups"][area["group"]]["task"] < 0:
        push_layer(row, a)
    top = area["group"] + k
    own = row["groups"][top]
    g = top if own["task"] < 0 else own["below"]
    while g >= 0:
        group = row["groups"][g]
        mapping = row["mappings"][find_mapping(row, a, g)]
        if mapping["swapped"] > 0 and group["swapped"] > 0:
            owed = min(group["swapped"], expected(group, accesses, (mapping["swapped"] << Q) // group["pages"]))
            if owed > 0:
                got = fault_uniform(row, th, g, owed, write)
                if got < owed:
                    return accesses * got // owed
        if write and own["task"] >= 0 and mapping["mapped"] > 0:
            owed = min(mapping["mapped"], expected(group, accesses, (mapping["mapped"] << Q) // group["pages"]))
            alone = 0
            if own["below"] == g:
                alone = min(copied_by_others(row, top, g, -1), group["pages"])
            if owed * alone // group["pages"] > 0:
                reused = reuse_bags(row, a, top, g, owed * alone // group["pages"])
                wp_page_reuse(row, a, top, reused)
                owed -= reused
            if owed > 0:
                got = wp_page_copy(row, th, a, top, g, -1, owed)
                if got < owed:
                    return accesses * got // owed
        group["touches"] += accesses
        g = group["below"]
    if own["task"] < 0:
        row["spent_ns"] += accesses * row["cost"][ACCESS]
        row["tasks"][area["task"]]["utime_ns"] += accesses * row["cost"][ACCESS]
        return accesses
    if write and own["cow"] > 0:
        reused = min(own["cow"], expected(own, accesses, (own["cow"] << Q) // own["pages"]))
        own["cow"] -= reused
        wp_page_reuse(row, a, top, reused)
    return access_uniform(row, th, top, accesses, -1, write)


@law
def reuse_bags(row, a, top, g, pages):
    """`pages` pages of a uniform layer that are the area's alone move into its own open bag, taken from the fullest bags.

    returns  int64  pages moved

    Source: mm/memory.c do_wp_page (page_move_anon_rmap).
    """
    group = row["groups"][g]
    left = pages
    for i in range(group["first"], group["first"] + group["cohorts"]):
        cohort = row["cohorts"][i]
        n = min(left, cohort["nr"] - cohort["wb"])
        if n > 0:
            j = open_bag(row, top, cohort["cg"], cohort["list"], 0)
            take_over(row, a, top, g, i, j, n)
            left -= n
    return pages - left
