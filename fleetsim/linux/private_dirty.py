# SPDX-License-Identifier: Apache-2.0
"""Private_Dirty of a process: anonymous pages that it alone maps (fs/proc/task_mmu.c smaps_account), for programs that read their own.

Redis' child adds it up to say what was copied on write since the fork: of a page that the parent wrote to only the child has the old one.
Limits: exact with one other process that maps a part of the same pages, as after one fork. Leaves out: pages of the program's image.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import AREA_ANON, NR_AREAS
from fleetsim.linux.rmap import present_pages


@law
def mapped_alone(row, a, g):
    """Pages of group `g` that area `a` alone maps.

    Source: fs/proc/task_mmu.c smaps_account (page_mapcount 1).
    """
    group = row["groups"][g]
    if group["task"] >= 0:
        return present_pages(row, group)
    mine, others = 0, 0
    m = group["maps"]
    while m >= 0:
        mapping = row["mappings"][m]
        if mapping["area"] == a:
            mine = mapping["mapped"]
        else:
            others = max(others, mapping["mapped"])
        m = mapping["next"]
    return max(0, mine - others)


@law
def private_dirty(row, t):
    """Anonymous pages that task `t` alone maps.

    returns  int64  pages

    Source: fs/proc/task_mmu.c show_smaps_rollup.
    """
    pages = 0
    for a in range(NR_AREAS):
        area = row["areas"][a]
        if area["kind"] != AREA_ANON or area["task"] != t:
            continue
        for k in range(area["groups"]):
            g = area["group"] + k
            while g >= 0:
                pages += mapped_alone(row, a, g)
                g = row["groups"][g]["below"]
    return pages
