# SPDX-License-Identifier: Apache-2.0
"""What one process has of memory that others have too: PSS and USS (fs/proc/task_mmu.c).

Rss counts a page fully for each who maps it, Pss shares it out among them, and what only one maps is private (its sum is USS).
Plain Python over a record, for readers. Of a group that several areas map it is known how many pages each maps, not which:
a page is taken to be mapped by as many as the average of those that are mapped at all, which is exact when all map all of it.
Leaves out: the 12-bit fixed point of Pss (the rounding is one page here), Referenced (all that is resident counts as referenced).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fleetsim.linux.mm_types import AREA_FREE, NR_AREAS, NR_TASKS, TASK_EXITING, TASK_RUNNING
from fleetsim.linux.rmap import present_pages

KINDS = ("anon", "file", "shmem")


@dataclass
class MemSizeStats:
    """struct mem_size_stats, pages."""

    rss: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    pss: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    private: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    swap: int = 0
    swap_pss: int = 0

    @property
    def uss(self) -> int:
        """Unique set size: pages that would be free if this process ended."""
        return sum(self.private.values())

    def add(self, kind: str, mapped: int, share: int, alone: int) -> None:
        self.rss[kind] += mapped
        self.pss[kind] += share
        self.private[kind] += alone


def mappings_of(row: Any, group: Any) -> list[Any]:
    """All rows of MAPPING of a group."""
    found, m = [], int(group["maps"])
    while m >= 0:
        found.append(row["mappings"][m])
        m = int(row["mappings"][m]["next"])
    return found


def mapped_by_others(mappings: list[Any], mine: Any, present: int) -> int:
    """Pages that somebody else maps, if each maps its own at random; exact for one other, or one that maps all."""
    gap = present
    others = [int(m["mapped"]) for m in mappings if int(m["area"]) != int(mine["area"])]
    for mapped in others:
        gap = gap * (present - mapped) // max(1, present)
    return max([0, *others, min(sum(others), present - gap)])


def add_group(row: Any, stats: MemSizeStats, a: int, group: Any) -> None:
    """One group's part: a task's own, or its share of one that others map too."""
    kind = "file" if group["is_file"] else "shmem" if group["shmem"] else "anon"
    present = int(present_pages(row, group))
    if int(group["task"]) >= 0:
        stats.add(kind, present, present, present)
        slots = int(group["resident"] + group["swapped"]) - present
        stats.swap += slots
        stats.swap_pss += slots
        return
    mappings = mappings_of(row, group)
    mine = next((m for m in mappings if int(m["area"]) == a), None)
    if mine is None:
        return
    mapped = int(mine["mapped"])
    once = present if kind == "anon" else int(group["mapped"])
    alone = min(mapped, max(0, once - mapped_by_others(mappings, mine, present)))
    stats.add(kind, mapped, mapped * once // max(1, sum(int(m["mapped"]) for m in mappings)), alone)
    slots = int(group["resident"] + group["swapped"]) - present
    entries = sum(int(m["swapped"]) for m in mappings)
    stats.swap += int(mine["swapped"])
    stats.swap_pss += int(mine["swapped"]) * slots // max(1, entries)


def add_image(row: Any, stats: MemSizeStats, t: int) -> None:
    """The program's own pages: a child shares its parent's."""
    task = row["tasks"][t]
    owner = int(task["parent"]) if int(task["base_shared"]) > 0 else t
    alive = [i for i in range(NR_TASKS) if int(row["tasks"][i]["state"]) in (TASK_RUNNING, TASK_EXITING)]
    sharers = 1 + sum(1 for i in alive if i != t and (i == owner or (int(row["tasks"][i]["parent"]) == owner)))
    pages = int(task["base_anon"] + task["base_shared"])
    stats.add("anon", pages, pages // sharers, pages if sharers == 1 else 0)
    text = int(task["base_file"])
    stats.add("file", text, text, text)


def smaps_rollup(row: Any, t: int) -> MemSizeStats:
    """Sums over all areas of task `t`."""
    stats = MemSizeStats()
    add_image(row, stats, t)
    for a in range(NR_AREAS):
        area = row["areas"][a]
        if int(area["kind"]) == AREA_FREE or int(area["task"]) != t:
            continue
        for k in range(int(area["groups"])):
            g = int(area["group"]) + k
            while g >= 0:
                add_group(row, stats, a, row["groups"][g])
                g = int(row["groups"][g]["below"])
    return stats
