# SPDX-License-Identifier: Apache-2.0
"""What every fault has in common: the page is mapped, stands on a list, and the fault is counted (mm/memory.c)."""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.memcontrol import add_anon, charge, count
from fleetsim.linux.mm_types import CG, LRU_UNEVICTABLE, VM

PGFAULT, PGMAJFAULT = VM["pgfault"], VM["pgmajfault"]
CG_PGFAULT, CG_PGMAJFAULT = CG["pgfault"], CG["pgmajfault"]


@law
def count_faults(row, task, minor, major):
    """Book minor and major faults of a task.

    Source: mm/memory.c mm_account_fault; kernel-laws §10.1 (pgfault counts both).
    """
    row["vm"][PGFAULT] += minor + major
    row["vm"][PGMAJFAULT] += major
    task["minflt"] += minor
    task["majflt"] += major
    count(row, task["cg"], CG_PGFAULT, minor + major)
    if major > 0:
        count(row, task["cg"], CG_PGMAJFAULT, major)


@law
def map_anon(row, task, pages):
    """Pages just allocated and charged become mapped anonymous pages of a task.

    Source: mm/rmap.c page_add_new_anon_rmap.
    """
    task["rss_anon"] += pages
    charge(row, task["cg"], pages)
    add_anon(row, task["cg"], pages)
    task["hwm"] = max(task["hwm"], task["rss_anon"] + task["rss_file"] + task["rss_shmem"])


@law
def join_list(row, g, lru):
    """The list that pages of group `g` come to when they are mapped: the unevictable one if the area is mlocked.

    Source: mm/mlock.c mlock_new_page.
    """
    return LRU_UNEVICTABLE if row["groups"][g]["locked"] > 0 else lru
