# SPDX-License-Identifier: Apache-2.0
"""Reverse mapping: who has the pages of a group that several areas map in its page tables (mm/rmap.c).

A private anonymous group belongs to one task (`group["task"]`), whose RssAnon counts all of its pages that are present.
Any other group (a file's, a shared object's, what a fork left shared) has one row of MAPPING for each area that maps it:
how many of its pages that area's page tables hold. Which of them is not kept: reclaim takes from every mapper in
proportion, and pages that several map at random coincide as if by chance.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.events import TABLE_FULL, record
from fleetsim.linux.fs_types import NR_MAPPINGS


@law
def add_rss(task, group, pages):
    """Count `pages` (may be negative) more pages of a group in a task's page tables: RssAnon, RssFile or RssShmem.

    Source: include/linux/mm.h mm_counter.
    """
    if group["is_file"]:
        task["rss_file"] += pages
    elif group["shmem"]:
        task["rss_shmem"] += pages
    else:
        task["rss_anon"] += pages
    task["hwm"] = max(task["hwm"], task["rss_anon"] + task["rss_file"] + task["rss_shmem"])


@law
def present_pages(row, group):
    """Pages of a group that page tables may point to: resident ones less those on their way to swap.

    Source: mm/rmap.c try_to_unmap (a page that is sent out is unmapped first).
    """
    pages = group["resident"]
    if group["is_file"] == 0:
        for i in range(group["first"], group["first"] + group["cohorts"]):
            pages -= row["cohorts"][i]["wb"]
    return pages


@law
def find_mapping(row, a, g):
    """Row of MAPPING of area `a` on group `g`, −1: it does not map it.

    Source: fleetsim's own table.
    """
    m = row["groups"][g]["maps"]
    while m >= 0 and row["mappings"][m]["area"] != a:
        m = row["mappings"][m]["next"]
    return m


@law
def add_mapping(row, a, g):
    """Area `a` maps group `g` from now on, none of its pages yet.

    returns  int64  row of MAPPING; −1: the table is full

    Source: mm/mmap.c vma_link.
    """
    for m in range(NR_MAPPINGS):
        mapping = row["mappings"][m]
        if mapping["used"] == 0:
            mapping["used"] = 1
            mapping["area"] = a
            mapping["group"] = g
            mapping["next"] = row["groups"][g]["maps"]
            mapping["mmap_miss"] = 0
            mapping["mapped"] = 0
            mapping["swapped"] = 0
            row["groups"][g]["maps"] = m
            return m
    record(row, TABLE_FULL, row["areas"][a]["task"], row["groups"][g]["pages"], 0, 0, 0, 0, 0, 0, 0)
    return -1


@law
def union_of(row, group, present):
    """How many of `present` pages at least one area maps, if each maps its own at random.

        present − present · Π (1 − mapped / present),  at least what one maps, at most what all map together

    Source: fleetsim's own representation; exact for one mapper and for one that maps everything.
    """
    gap, most, total = present, 0, 0
    m = group["maps"]
    while m >= 0:
        mapped = row["mappings"][m]["mapped"]
        gap = gap * max(0, present - mapped) // max(1, present)
        most = max(most, mapped)
        total += mapped
        m = row["mappings"][m]["next"]
    return max(most, min(total, present - gap))


@law
def set_mapped(row, group, pages):
    """`pages` pages of a file or a shared object are mapped by at least one task (NR_FILE_MAPPED); others have no such count.

    Source: mm/rmap.c page_add_file_rmap, page_remove_rmap.
    """
    if group["is_file"] or group["shmem"]:
        row["file_mapped"] += pages - group["mapped"]
        group["mapped"] = pages


@law
def map_pages(row, m, pages):
    """Up to `pages` present pages that mapping `m` does not hold yet enter its page tables.

    returns  int64  pages mapped

    Source: mm/memory.c filemap_map_pages, do_set_pte. A page so mapped is new to everybody as likely as any other.
    """
    mapping = row["mappings"][m]
    group = row["groups"][mapping["group"]]
    task = row["tasks"][row["areas"][mapping["area"]]["task"]]
    present = present_pages(row, group)
    unmapped = present - mapping["mapped"]
    n = min(pages, unmapped)
    if n <= 0:
        return 0
    mapping["mapped"] += n
    add_rss(task, group, n)
    if mapping["next"] < 0 and group["maps"] == m:
        set_mapped(row, group, mapping["mapped"])
    else:
        set_mapped(row, group, max(mapping["mapped"], group["mapped"] + n * (present - group["mapped"]) // unmapped))
    return n


@law
def try_to_unmap(row, g, pages, to_swap):
    """`pages` of a group's present pages leave all page tables that hold them: each mapper loses its share.

    Call it before the pages leave their cohort or are marked as being written.
    to_swap  int64  1: anonymous pages, whose entries then name a swap slot

    Source: mm/rmap.c try_to_unmap.
    """
    group = row["groups"][g]
    if group["maps"] < 0:
        return
    present = present_pages(row, group)
    m = group["maps"]
    while m >= 0:
        mapping = row["mappings"][m]
        k = mapping["mapped"] * pages // present
        task = row["tasks"][row["areas"][mapping["area"]]["task"]]
        mapping["mapped"] -= k
        add_rss(task, group, -k)
        if to_swap > 0:
            mapping["swapped"] += k
            task["swapents"] += k
        m = mapping["next"]
    bound_union(row, group, group["mapped"] - group["mapped"] * pages // present, present - pages)


@law
def bound_union(row, group, pages, present):
    """Set how many pages are mapped by anybody, within what the single mappings allow.

    Source: fleetsim's own representation.
    """
    most, total = 0, 0
    m = group["maps"]
    while m >= 0:
        most = max(most, row["mappings"][m]["mapped"])
        total += row["mappings"][m]["mapped"]
        m = row["mappings"][m]["next"]
    set_mapped(row, group, max(most, min(pages, total, present)))


@law
def drop_mapping(row, a, g):
    """Area `a` maps group `g` no longer (munmap, exit): its page-table entries go, the pages stay.

    Source: mm/memory.c zap_pte_range, page_remove_rmap.
    """
    group = row["groups"][g]
    before, m = -1, group["maps"]
    while m >= 0 and row["mappings"][m]["area"] != a:
        before, m = m, row["mappings"][m]["next"]
    if m < 0:
        return
    mapping = row["mappings"][m]
    if before < 0:
        group["maps"] = mapping["next"]
    else:
        row["mappings"][before]["next"] = mapping["next"]
    task = row["tasks"][row["areas"][a]["task"]]
    add_rss(task, group, -mapping["mapped"])
    task["swapents"] -= mapping["swapped"]
    mapping["used"] = 0
    set_mapped(row, group, union_of(row, group, present_pages(row, group)))


@law
def to_swap(row, g, pages):
    """`pages` present pages of an anonymous group are unmapped to be swapped out: RssAnon becomes VmSwap wherever they were mapped.

    Source: mm/rmap.c try_to_unmap_one (a swap entry takes the page's place).
    """
    group = row["groups"][g]
    if group["task"] >= 0:
        task = row["tasks"][group["task"]]
        task["rss_anon"] -= pages
        task["swapents"] += pages
    else:
        try_to_unmap(row, g, pages, 1)


@law
def unmap_anon(row, g, pages):
    """`pages` present pages of an anonymous group leave the page tables for good, their content lost.

    Source: mm/rmap.c try_to_unmap_one (a MADV_FREE'd page), page_remove_rmap.
    """
    group = row["groups"][g]
    if group["task"] >= 0:
        row["tasks"][group["task"]]["rss_anon"] -= pages
    else:
        try_to_unmap(row, g, pages, 0)


@law
def from_swap(row, g, pages, slots):
    """`pages` of the `slots` pages of an anonymous group that have a swap slot are present again: VmSwap becomes RssAnon.

    Source: mm/memory.c do_swap_page. Leaves out: the other mappers of a page that several share find it in the swap cache
    by a minor fault of their own; here they have it at once.
    """
    group = row["groups"][g]
    if group["task"] >= 0:
        task = row["tasks"][group["task"]]
        task["swapents"] -= pages
        add_rss(task, group, pages)
        return
    m = group["maps"]
    while m >= 0:
        mapping = row["mappings"][m]
        k = mapping["swapped"] * pages // max(1, slots)
        task = row["tasks"][row["areas"][mapping["area"]]["task"]]
        mapping["swapped"] -= k
        mapping["mapped"] += k
        task["swapents"] -= k
        add_rss(task, group, k)
        m = mapping["next"]


@law
def with_slot(row, group):
    """Pages of anonymous memory that several tasks share that have a swap slot: in swap only, or in the swap cache. 0 for other groups.

    Source: fleetsim's own representation.
    """
    if group["task"] >= 0 or group["shmem"]:
        return 0
    return group["swapped"] + group["resident"] - present_pages(row, group)
