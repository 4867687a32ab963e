# SPDX-License-Identifier: Apache-2.0
"""How many of a group's pages lie in huge pages, and what becomes of these when pages go (include/linux/huge_mm.h, mm/rmap.c).

Of a group it is known how many of its 2 MiB are huge; the lowest are. Pages that go to swap or are given back take their huge page
along; one of which a part goes or is copied is split.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import LRU_NONE, NS_PER_S, ORDERED, VM
from fleetsim.linux.rmap import present_pages

HPAGE_PMD_ORDER = 9
HPAGE_PMD_NR = 512
SCAN_SLEEP_NS = 10 * NS_PER_S  # khugepaged/scan_sleep_millisecs
SPLIT_PAGE, SPLIT_PMD, DEFERRED_SPLIT = (VM[name] for name in ("thp_split_page", "thp_split_pmd", "thp_deferred_split_page"))


@law
def add_thp(row, cg, units):
    """`units` huge pages more are mapped, charged to a cgroup.

    Source: mm/rmap.c page_add_new_anon_rmap (NR_ANON_THPS).
    """
    row["anon_thp"] += units
    while cg >= 0:
        row["cgroups"][cg]["anon_thp"] += units * HPAGE_PMD_NR
        cg = row["cgroups"][cg]["parent"]


@law
def lose_huge(row, g, cg, pages):
    """`pages` of a group's mapped pages are unmapped: whole huge pages go with them, in proportion. Call it before they go.

    returns  int64  huge pages gone

    Source: mm/rmap.c page_remove_rmap (NR_ANON_THPS); a huge page is unmapped as a whole.
    """
    group = row["groups"][g]
    if group["huge"] == 0:
        return 0
    mapped = present_pages(row, group)
    group["huge_gone"] += min(pages, pages * group["huge"] * HPAGE_PMD_NR // max(1, mapped))
    units = max(group["huge_gone"] // HPAGE_PMD_NR, group["huge"] - max(0, mapped - pages) // HPAGE_PMD_NR)
    units = max(0, min(group["huge"], units))
    group["huge_gone"] = max(0, group["huge_gone"] - units * HPAGE_PMD_NR)
    group["huge"] -= units
    add_thp(row, cg, -units)
    return units


@law
def split_huge(row, g, cg, units):
    """Up to `units` of a group's huge pages are mapped by single pages from now on, because a part of them goes.

    cg       int64  whose memory they are

    Source: mm/huge_memory.c __split_huge_pmd, deferred_split_huge_page; kernel-laws §10.2, §10.3.
    """
    group = row["groups"][g]
    n = min(units, group["huge"])
    if n == 0:
        return
    group["huge"] -= n
    add_thp(row, cg, -n)
    row["vm"][SPLIT_PMD] += n
    row["vm"][DEFERRED_SPLIT] += n
    row["vm"][SPLIT_PAGE] += n


@law
def written_huge(layer, own):
    """Huge pages of a layer that the user with the group `own` on top maps by single pages, because it has written to a part of each.

    Source: mm/huge_memory.c do_huge_pmd_wp_page (a shared one is split in the writer's page table alone). A sweep writes to one
    after the other, random writes hit another one each until there is none.
    """
    copies = own["resident"] + own["swapped"]
    if own["kind"] == ORDERED:
        copies = (copies + HPAGE_PMD_NR - 1) // HPAGE_PMD_NR
    return min(copies, layer["huge"])


@law
def huge_cg(row, g):
    """Whose memory a group's huge pages are.

    Source: mm/memcontrol.c (a page stays charged to whom it was charged).
    """
    group = row["groups"][g]
    for i in range(group["first"], group["first"] + group["cohorts"]):
        if row["cohorts"][i]["list"] != LRU_NONE:
            return row["cohorts"][i]["cg"]
    return 0


@law
def leave_huge(row, g, written):
    """The huge pages of layer `g` leave it upwards, but for the `written` ones that nobody maps as such any more.

    returns  int64  those that the user above still maps as such

    Source: mm/rmap.c page_remove_anon_compound_rmap.
    """
    group = row["groups"][g]
    huge = group["huge"] - written
    add_thp(row, huge_cg(row, g), -written)
    group["huge"] = 0
    group["huge_gone"] = 0
    return huge
