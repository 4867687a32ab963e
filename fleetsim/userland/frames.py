# SPDX-License-Identifier: Apache-2.0
"""Which page frame each page lies in: a numbering of physical memory that agrees with the counts of every zone.

Zones lie as on a PC: DMA below 16 MiB, DMA32 from there, Normal from 4 GiB, the second NUMA node behind them. In each zone the huge
pages come first, in whole aligned blocks of 512 frames, then users' pages group by group, then what the kernel holds; what follows
is free. Blocks, and frames within a block, are shuffled by a keyed permutation, so neighbours in virtual memory are strangers in
physical memory, as they soon are in life. Pages of 1 GiB come before all others, each at a whole GiB. So no two pages have one
frame, none has a free one, and each zone and node has as many of a group's pages as its cohorts say. Frame numbers are
representative: they stay while the state does, and are no history.
Leaves out: the holes of a real memory map; which of a group's pages lie in which zone (the first ones in the highest).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.linux.hugetlb import GIGANTIC as GIANT
from fleetsim.linux.hugetlb import pages_of
from fleetsim.linux.mm_types import NR_GROUPS, NR_TASKS, NR_ZONES, TASK_EXITING, TASK_RUNNING, ZONE_DMA, ZONE_DMA32, ZONE_NODE1, ZONE_NORMAL
from fleetsim.linux.mmap_layout import VDSO_PAGES
from fleetsim.linux.pgtable import nr_tables
from fleetsim.userland.page_place import HUGE, GroupCounts
from fleetsim.userland.permutation import permuted

Ints = NDArray[np.int64]
DMA_END, NORMAL_START = 4096, 1 << 20  # frames: 16 MiB, 4 GiB
NODE_ALIGN = 32_768  # sections of 128 MiB
ORDER = (ZONE_NORMAL, ZONE_DMA32, ZONE_DMA, ZONE_NODE1)
UPPER_TABLES = 8  # frames set aside for each task: PGD, P4D, tables of 512 GiB


@dataclass
class ZoneFrames:
    """A zone's stretch of frames, its whole blocks, and where in it what begins."""

    z: int
    start: int
    managed: int
    huge: int = 0  # blocks taken by huge pages
    giants: int = 0  # pages of 1 GiB, side by side from the first whole GiB on: what follows gives way to them
    users: int = 0  # small pages of groups

    @property
    def first_block(self) -> int:
        return -(-self.start // HUGE)

    @property
    def blocks(self) -> int:
        return max(0, (self.start + self.managed) // HUGE - self.first_block - self.giants * GIANT // HUGE)

    @property
    def first_giant(self) -> int:
        """Frame of the first whole GiB."""
        return -(-self.start // GIANT) * GIANT

    @property
    def whole_giants(self) -> int:
        """How many whole GiB there are."""
        return max(0, (self.start + self.managed - self.first_giant) // GIANT)

    def beside(self, frames: Ints) -> Ints:
        """Frames counted without those of the 1 GiB pages → as they are."""
        return frames + self.giants * GIANT * (frames >= self.first_giant)

    def block_at(self, number: Ints, key: int) -> Ints:
        return self.beside((self.first_block + permuted(number, self.blocks, key, self.z)) * HUGE)

    def frame_at(self, number: Ints, key: int) -> Ints:
        """Frames of small pages, by number in the zone."""
        block, offset = np.divmod(number, HUGE)
        whole = block + self.huge < self.blocks
        frames = np.empty_like(number)
        inner = permuted(offset[whole], HUGE, key, self.z, 1)
        frames[whole] = self.block_at(block[whole] + self.huge, key) + inner
        rest = number[~whole] - (self.blocks - self.huge) * HUGE  # the ends that are no whole block
        head = self.first_block * HUGE - self.start
        tail = (self.first_block + self.blocks) * HUGE
        frames[~whole] = self.beside(np.where(rest < head, self.start + rest, tail + rest - head))
        return frames


def zone_starts(row: Any) -> list[int]:
    """First managed frame of each zone."""
    managed = [int(zone["managed"]) for zone in row["zones"]]
    starts = [DMA_END - managed[ZONE_DMA], DMA_END, NORMAL_START, 0]
    end = NORMAL_START + managed[ZONE_NORMAL] if managed[ZONE_NORMAL] else DMA_END + managed[ZONE_DMA32]
    starts[ZONE_NODE1] = -(-end // NODE_ALIGN) * NODE_ALIGN
    return starts


class Frames:
    """The numbering of one host's memory, as its record says just now."""

    def __init__(self, row: Any) -> None:
        self.row, self.key = row, int(row["host_key"])
        starts = zone_starts(row)
        self.zones = [ZoneFrames(z, starts[z], int(row["zones"][z]["managed"])) for z in range(NR_ZONES)]
        self._giants = self._place_giants()
        self._parts: dict[tuple[str, int], int] = {}
        self._small: dict[int, list[int]] = {}  # group → small pages by zone
        self._small_at: dict[int, list[int]] = {}  # … and the number of the first in each
        self._huge_at: dict[int, list[tuple[int, int, int]]] = {}  # group → (zone, first block number, blocks)
        groups = [g for g in range(NR_GROUPS) if int(row["groups"][g]["used"])]
        counts = {g: GroupCounts(row, g) for g in groups}
        for g in groups:
            self._place_huge(counts[g])
        self.pool = self._place_pool()
        for g in groups:
            self._small_at[g] = [zone.users for zone in self.zones]
            for zone, pages in zip(self.zones, self._small[g], strict=True):
                zone.users += pages
        pools = [HUGE * self._pool_by_zone[z] + GIANT * self.zones[z].giants for z in range(NR_ZONES)]
        self._kernel = [max(0, int(row["zones"][z]["pinned"]) - pools[z]) for z in range(NR_ZONES)]

    def _place_giants(self) -> list[int]:
        """First frames of the 1 GiB pages in use: they are among what a zone's kernel pages are."""
        pool = self.row["hstates"][1]
        places: list[int] = []
        for z in ORDER:
            zone = self.zones[z]
            wanted = int(pool["nr"] - pool["free"]) - len(places)
            zone.giants = min(wanted, zone.whole_giants, int(self.row["zones"][z]["pinned"]) // GIANT)
            places += [zone.first_giant + GIANT * k for k in range(zone.giants)]
        return places

    def _by_zone(self, counts: GroupCounts) -> list[int]:
        cohorts = counts.cohorts
        by_zone = [int(cohorts["low_zone"][:, 0].sum()), int(cohorts["low_zone"][:, 1].sum()), 0, int(cohorts["node1"].sum())]
        by_zone[ZONE_NORMAL] = counts.nr_mapped + counts.nr_cached - sum(by_zone)
        return by_zone

    def _place_huge(self, counts: GroupCounts) -> None:
        """Blocks for a group's huge pages, in zones that have as many of its pages; what is left over are its small ones."""
        by_zone, wanted, places = self._by_zone(counts), counts.huge, []
        for loose in (False, True):
            for z in ORDER:
                zone = self.zones[z]
                blocks = min(wanted, zone.blocks - zone.huge, by_zone[z] // HUGE if not loose else wanted)
                if blocks > 0:
                    places.append((z, zone.huge, blocks))
                    zone.huge += blocks
                    wanted -= blocks
                    by_zone[z] -= blocks * HUGE
        for z in ORDER:  # a block that was made of two zones' pages
            if by_zone[z] < 0:
                owed, by_zone[z] = -by_zone[z], 0
                for other in ORDER:
                    taken = min(owed, by_zone[other])
                    by_zone[other] -= taken
                    owed -= taken
        self._small[counts.g], self._huge_at[counts.g] = by_zone, places

    def _place_pool(self) -> list[tuple[int, int, int]]:
        """Blocks of the pool of 2 MiB pages that are in use: they are among what a zone's kernel pages are."""
        pool, places = self.row["hstates"][0], []
        wanted = int(pool["nr"] - pool["free"])
        self._pool_by_zone = [0] * NR_ZONES
        for z in ORDER:
            zone = self.zones[z]
            blocks = min(wanted, zone.blocks - zone.huge, int(self.row["zones"][z]["pinned"]) // HUGE - zone.giants * GIANT // HUGE)
            if blocks > 0:
                places.append((z, zone.huge, blocks))
                zone.huge += blocks
                self._pool_by_zone[z] = blocks
                wanted -= blocks
        return places

    def _blocks(self, places: list[tuple[int, int, int]], number: Ints) -> Ints:
        frames, seen = np.zeros_like(number), 0
        for z, first, blocks in places:
            here = (number >= seen) & (number < seen + blocks)
            frames[here] = self.zones[z].block_at(number[here] - seen + first, self.key)
            seen += blocks
        return frames

    def _smalls(self, by_zone: list[int], first: list[int], number: Ints) -> Ints:
        frames, seen = np.zeros_like(number), 0
        for z in ORDER:
            here = (number >= seen) & (number < seen + by_zone[z])
            if here.any():
                frames[here] = self.zones[z].frame_at(number[here] - seen + first[z], self.key)
            seen += by_zone[z]
        return frames

    def of_pages(self, counts: GroupCounts, rank: Ints) -> Ints:
        """Frames of a group's pages in memory: mapped ones by rank, then those in the swap cache."""
        frames, huge = np.zeros_like(rank), rank < HUGE * counts.huge
        if huge.any():
            frames[huge] = self._blocks(self._huge_at[counts.g], rank[huge] // HUGE) + rank[huge] % HUGE
        frames[~huge] = self._smalls(self._small[counts.g], self._small_at[counts.g], rank[~huge] - HUGE * counts.huge)
        return frames

    def of_hugetlb(self, a: int, number: Ints) -> Ints:
        """First frames of a mapping's huge pages of the pool."""
        mine, before = self.row["areas"][a], 0
        size = int(pages_of(int(mine["hstate"])))
        for other in self.row["areas"][:a]:
            if int(other["kind"]) == int(mine["kind"]) and int(other["hstate"]) == int(mine["hstate"]):
                before += -(-int(other["touched"]) // size)
        if size == GIANT:
            return np.array(self._giants, np.int64)[number + before]
        return self._blocks(self.pool, number + before)

    def of_kernel(self, number: Ints) -> Ints:
        """Frames of what the kernel and programs' images hold, by number (`kernel_part` says who has which)."""
        return self._smalls(self._kernel, [zone.users for zone in self.zones], np.asarray(number, np.int64))

    def kernel_part(self, part: str, t: int = 0) -> int:
        """Number of the first page of a part: `tables` and `upper` tables of a task, its `image`, the `text`, `vdso` and
        `zero` page that all share."""
        if (part, t) not in self._parts:
            self._parts[part, t] = self._find_part(part, t)
        return self._parts[part, t]

    def _find_part(self, part: str, t: int) -> int:
        if part in ("zero", "vdso"):
            return int(part == "vdso")
        row, tasks, alive = self.row, self.row["tasks"], alive_tasks(self.row)
        at = 1 + VDSO_PAGES
        if part == "text":
            return at
        at += max(int(tasks[i]["base_file"]) for i in alive) if alive else 0
        images = {i: int(tasks[i]["base_anon"]) for i in alive}
        orphans = {i: int(tasks[i]["base_shared"]) for i in alive if image_owner(row, i) == i}
        for name, sizes in (("image", {i: images[i] + orphans.get(i, 0) for i in alive}), ("upper", dict.fromkeys(alive, UPPER_TABLES))):
            if part == name:
                return at + sum(pages for i, pages in sizes.items() if i < t)
            at += sum(sizes.values())
        return at + sum(int(nr_tables(row, i)) for i in alive if i < t)


def alive_tasks(row: Any) -> list[int]:
    """Tasks that have an address space."""
    return [t for t in range(NR_TASKS) if int(row["tasks"][t]["state"]) in (TASK_RUNNING, TASK_EXITING)]


def image_owner(row: Any, t: int) -> int:
    """Whose pages a task's image consists of: a child shares its parent's while that lives."""
    while int(row["tasks"][t]["base_shared"]) > 0:
        parent = int(row["tasks"][t]["parent"])
        if parent < 0 or int(row["tasks"][parent]["state"]) not in (TASK_RUNNING, TASK_EXITING):
            return t
        if int(row["tasks"][parent]["mm_key"]) != int(row["tasks"][t]["mm_key"]):  # the row is somebody else's by now
            return t
        t = parent
    return t
