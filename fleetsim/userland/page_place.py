# SPDX-License-Identifier: Apache-2.0
"""Which page of an area is where: a pure function of the host's record, which itself keeps only counts.

The kernel's tables here say *how many* pages of a group are in memory, clean, in swap, huge; of an ordered group also in which slice.
`AreaView.look(positions)` says *which*: a page's rank in its group by rule and, where access is at random, by a keyed permutation.
So the same page has the same answer as long as the state is the same, two processes that share a page see the same one, and whole
areas add up to the counts. **Positions inside a slice or a bag are representative, not history**: when a count changes, other pages
than before may be the ones in swap.

    ordered      a slice's pages, lowest first: in swap, in the swap cache, mapped, holes (memory.py says so); of a file: what was
                 evicted first
    at random    a permutation of the part that was touched, then as above
    huge pages   the lowest aligned 2 MiB of a group (huge_mm.py says so)
    after a fork a page of its own hides one of the layer below that this process maps no longer; of several it hides the first

Leaves out: huge pages that several layers of forks hide from each other (they show as small ones).
Source: fleetsim's own representation (design §3.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.law import Q
from fleetsim.linux.bags import accessed_q
from fleetsim.linux.huge_mm import written_huge
from fleetsim.linux.mm_types import ACCESSED, AREA_ANON, AREA_FILE, AREA_SHMEM, LRU_ACTIVE_FILE, LRU_INACTIVE_FILE, ORDERED
from fleetsim.linux.task_mmu import mappings_of
from fleetsim.userland.permutation import permuted

HOLE, MAPPED, SWAPPED = 0, 1, 2
"""What a group has at a position: nothing, a page that page tables may point to, a swap entry (some with a page in the swap cache)."""
HUGE = 512

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass
class Places:
    """Of some positions: the group that has a page there, what it is, its number among the group's pages of that kind."""

    owner: Ints
    kind: Ints
    rank: Ints  # MAPPED: among mapped ones; SWAPPED: those in swap only first, then those in the swap cache
    huge: Ints  # number of the huge page it lies in, −1
    visible: Ints = field(
        default_factory=lambda: np.zeros(0, np.int64)
    )  # when it is its turn to be hidden by a copy, or as a hole to get one


class GroupCounts:
    """One group's cohorts as arrays."""

    def __init__(self, row: Any, g: int) -> None:
        self.g, self.row, self.group = g, row, row["groups"][g]
        first, count = int(self.group["first"]), int(self.group["cohorts"])
        self.cohorts = row["cohorts"][first : first + count]
        self.is_file = int(self.group["is_file"]) > 0
        listed = self.cohorts["nr"].astype(np.int64)
        self.cached: Ints = np.zeros_like(listed) if self.is_file else self.cohorts["wb"].astype(np.int64)
        self.mapped: Ints = listed - self.cached
        self.out: Ints = np.zeros_like(listed) if self.is_file else self.cohorts["swapped"].astype(np.int64)
        self.nr_mapped, self.nr_cached, self.nr_out = int(self.mapped.sum()), int(self.cached.sum()), int(self.out.sum())
        self.held = self.nr_mapped + self.nr_cached + self.nr_out
        self.huge = 0 if self.is_file else min(int(self.group["huge"]), self.nr_mapped // HUGE)
        self.upto = np.cumsum(self.mapped)
        clean = np.zeros_like(listed) if self.is_file else self.cohorts["clean"].astype(np.int64)
        lazy = (self.cohorts["list"] == LRU_INACTIVE_FILE) | (self.cohorts["list"] == LRU_ACTIVE_FILE)
        self.nr_clean, self.nr_lazy = int(clean.sum()), int(clean[lazy].sum())

    def cohort_of(self, rank: Ints) -> tuple[Ints, Ints]:
        """(cohort, number in it) of mapped pages."""
        k = np.searchsorted(self.upto, rank, side="right").astype(np.int64)
        return k, (rank - (self.upto[k] - self.mapped[k])).astype(np.int64)

    def dirty(self, rank: Ints) -> Bools:
        """Anonymous pages are dirty but for those with a copy in swap and those MADV_FREE'd, the last ones; file pages as counted."""
        if not self.is_file:
            return rank < self.nr_mapped - self.nr_clean
        k, number = self.cohort_of(rank)
        return number < self.cohorts["dirty"][k]

    def lazy(self, rank: Ints) -> Bools:
        """MADV_FREE'd and not written to since: clean, but a write is no fault."""
        return rank >= self.nr_mapped - self.nr_lazy

    def accessed(self, rank: Ints) -> Bools:
        k, number = self.cohort_of(rank)
        if int(self.group["kind"]) == ORDERED:
            return (self.cohorts["flags"][k] & ACCESSED) > 0
        share = np.array([int(accessed_q(self.group, cohort)) for cohort in self.cohorts], np.int64)
        return number < (self.mapped[k] * share[k] + (1 << (Q - 1))) >> Q


def natural_places(counts: GroupCounts, p: Ints, low: int, span: int, shift: int) -> Places:
    """Positions `p` of a group that has nothing below it; its pages lie from `low` to `span`.

    shift: pages of the area before the group's first, for the alignment of huge pages.
    """
    places = Places(np.full(len(p), counts.g, np.int64), np.zeros(len(p), np.int64), np.zeros(len(p), np.int64), np.full(len(p), -1))
    ordered = int(counts.group["kind"]) == ORDERED
    if ordered and counts.huge == 0 and _by_slices(counts, p, low, span, places):
        return places
    begin = low + (-(low + shift)) % HUGE if counts.huge else low
    end = begin + HUGE * counts.huge
    inside = (p >= begin) & (p < end)
    places.kind[inside], places.rank[inside] = MAPPED, p[inside] - begin
    places.huge[inside] = (p[inside] - begin) // HUGE
    rest = np.where(p < begin, p - low, p - low - (end - begin))
    size = max(span - low - (end - begin), counts.held - (end - begin))
    ours = ~inside & (p >= low) & (rest >= 0) & (rest < size)
    number = rest[ours] if ordered else permuted(rest[ours], size, int(counts.row["host_key"]), counts.g)
    swap, small = counts.nr_out + counts.nr_cached, counts.nr_mapped - HUGE * counts.huge
    kind, rank = np.zeros_like(number), np.zeros_like(number)
    is_swap, is_map = number < swap, (number >= swap) & (number < swap + small)
    kind[is_swap], rank[is_swap] = SWAPPED, number[is_swap]
    kind[is_map], rank[is_map] = MAPPED, number[is_map] - swap + HUGE * counts.huge
    places.kind[ours], places.rank[ours] = kind, rank
    places.visible = np.where(~inside & (rest >= size), rest - swap - small, 0)
    places.visible[ours] = np.where(kind == HOLE, number - swap - small, 0)
    return places


def _by_slices(counts: GroupCounts, p: Ints, low: int, span: int, places: Places) -> bool:
    """Each slice has its own pages; False if they do not fit there (a heap's slices are used again beyond its end)."""
    group = counts.group
    cohorts, slice_ = int(group["cohorts"]), int(group["slice"])
    begin = np.arange(cohorts, dtype=np.int64) * slice_
    end = np.minimum(begin + slice_, span)
    end[-1] = max(span, int(begin[-1]))  # a file may have grown beyond what it was cut for
    begin, end = np.maximum(begin, low), np.maximum(end, low)
    end = np.maximum(begin, end)
    if counts.is_file:  # what is missing are the lowest, once there was reclaim
        begin = np.where(counts.cohorts["evicted"] > 0, np.maximum(begin, end - counts.mapped), begin)
    if np.any(counts.out + counts.cached + counts.mapped > end - begin):
        return False
    k = np.minimum(p // slice_, cohorts - 1)
    offset = p - begin[k]
    swap_before, map_before = np.cumsum(counts.out) - counts.out, counts.upto - counts.mapped
    cache_before = counts.nr_out + np.cumsum(counts.cached) - counts.cached
    is_out = (offset >= 0) & (offset < counts.out[k])
    offset2 = offset - counts.out[k]
    is_cached = (offset2 >= 0) & (offset2 < counts.cached[k])
    offset3 = offset2 - counts.cached[k]
    is_map = (offset3 >= 0) & (offset3 < counts.mapped[k])
    places.kind[is_out | is_cached], places.kind[is_map] = SWAPPED, MAPPED
    places.rank[is_out] = (swap_before[k] + offset)[is_out]
    places.rank[is_cached] = (cache_before[k] + offset2)[is_cached]
    places.rank[is_map] = (map_before[k] + offset3)[is_map]
    holes = end - begin - counts.out - counts.cached - counts.mapped
    places.visible = np.maximum(0, np.cumsum(holes)[k] - holes[k] + offset3 - counts.mapped[k])
    return True


class AreaView:
    """One area of a host, as its process sees it. `row` must not change while it is used."""

    def __init__(self, row: Any, a: int) -> None:
        self.row, self.a, self.area = row, a, row["areas"][a]
        self.kind, self.pages, self.cut = int(self.area["kind"]), int(self.area["pages"]), int(self.area["cut"])
        self._counts: dict[int, GroupCounts] = {}

    def counts(self, g: int) -> GroupCounts:
        if g not in self._counts:
            self._counts[g] = GroupCounts(self.row, g)
        return self._counts[g]

    def parts(self) -> list[tuple[int, int, int]]:
        """(first group, first position, position behind) of the hot and the cold part, or of all."""
        g, groups = int(self.area["group"]), int(self.area["groups"])
        hot = int(self.row["groups"][g]["pages"])
        return [(g, 0, max(hot, self.reach))] if groups == 1 else [(g, 0, hot), (g + 1, hot, max(self.reach, hot))]

    @property
    def reach(self) -> int:
        """Pages of address space, with those that a heap has just given up but not yet lost."""
        if self.kind != AREA_ANON or int(self.area["groups"]) > 1:
            return self.pages
        return max(self.pages, self.counts(int(self.area["group"])).held + self.cut)

    def chain(self, g: int) -> list[int]:
        """A group and the layers that forks left below it, the lowest first."""
        below = []
        while g >= 0:
            below.append(g)
            g = int(self.row["groups"][g]["below"]) if self.kind == AREA_ANON else -1
        return below[::-1]

    def look(self, positions: Ints) -> Places:
        """What this process's page tables say of some positions."""
        p = np.asarray(positions, np.int64)
        out = Places(np.full(len(p), -1), np.zeros(len(p), np.int64), np.zeros(len(p), np.int64), np.full(len(p), -1))
        for g, begin, end in self.parts():
            mine = (p >= max(begin, self.cut)) & (p < end)
            if mine.any():
                found = self._look_at(g, begin, p[mine] - begin)
                out.owner[mine], out.kind[mine] = found.owner, found.kind
                out.rank[mine], out.huge[mine] = found.rank, found.huge
        return out

    def _span(self, g: int, begin: int) -> int:
        """Up to where a group's pages lie, the same for all who see it."""
        group = self.row["groups"][g]
        if self.kind == AREA_FILE or (self.kind == AREA_SHMEM and int(group["kind"]) == ORDERED):
            return int(group["pages"])
        if self.kind == AREA_SHMEM:
            return self.counts(g).held
        areas = [self.row["areas"][int(m["area"])] for m in mappings_of(self.row, group)] or [self.area]
        touched = min(int(area["touched"]) + int(area["ahead"]) for area in areas)
        if touched == 0:
            touched = self.pages
        return max(self.counts(g).held, min(int(group["pages"]), touched - begin))

    def bottom_places(self, g: int, begin: int, p: Ints) -> Places:
        """What the lowest group of a chain has at some of its positions, whoever maps it."""
        return natural_places(self.counts(g), p, max(0, self.cut - begin), self._span(g, begin), begin)

    def _look_at(self, top: int, begin: int, p: Ints) -> Places:
        chain = self.chain(top)
        places = self.bottom_places(chain[0], begin, p)
        shared = [g for g in chain if int(self.row["groups"][g]["task"]) < 0]
        if not shared or self.kind != AREA_ANON:
            return places
        _order_of_hiding(self.counts(chain[0]), places)
        seen = {(chain[0], MAPPED): self.counts(chain[0]).nr_mapped, (chain[0], SWAPPED): self._entries(chain[0])}
        for g in chain[1:]:
            self._put_on_top(g, places, seen)
        for g in shared:
            self._unmapped(g, places, seen)
        return places

    def _entries(self, g: int) -> int:
        return self.counts(g).nr_out + self.counts(g).nr_cached

    def _wanted(self, viewers: list[int], g: int) -> dict[int, int]:
        """How many pages of layer `g` in memory, and how many of its swap entries, some areas have at most."""
        rows = [m for m in mappings_of(self.row, self.row["groups"][g]) if int(m["area"]) in viewers]
        return {kind: max([int(m[name]) for m in rows], default=0) for kind, name in ((MAPPED, "mapped"), (SWAPPED, "swapped"))}

    def _put_on_top(self, g: int, places: Places, seen: dict[tuple[int, int], int]) -> None:
        """Group `g` hides pages of the layers below, as many as nobody above it maps any more; further ones lie where there is nothing."""
        counts, group = self.counts(g), self.row["groups"][g]
        viewers = [self.a] if int(group["task"]) >= 0 else [int(m["area"]) for m in mappings_of(self.row, group)]
        left, index = counts.held, np.full(len(places.kind), -1, np.int64)
        for (lower, kind), there in list(seen.items()):
            hides = max(0, min(left, there - self._wanted(viewers, lower)[kind]))
            here = (places.owner == lower) & (places.kind == kind)
            taken = here & (places.visible < hides)
            index[taken] = counts.held - left + places.visible[taken]
            places.visible[here & ~taken] -= hides
            seen[lower, kind] = there - hides
            left -= hides
        hole = places.kind == HOLE
        taken = hole & (places.visible < left)
        index[taken] = counts.held - left + places.visible[taken]
        places.visible[hole & ~taken] -= left
        own = index >= 0
        mapped = own & (index < counts.nr_mapped)
        places.owner[own], places.huge[own] = g, -1
        places.kind[own] = np.where(mapped[own], MAPPED, SWAPPED)
        places.rank[own] = np.where(mapped[own], index[own], index[own] - counts.nr_mapped)
        places.visible[own] = places.rank[own]
        seen[g, MAPPED], seen[g, SWAPPED] = counts.nr_mapped, self._entries(g)

    def _unmapped(self, g: int, places: Places, seen: dict[tuple[int, int], int]) -> None:
        """Pages of a layer that this process has not in its page tables: it would get them by a minor fault. Huge pages it wrote to
        it maps by small ones."""
        wanted = self._wanted([self.a], g)
        for kind in (MAPPED, SWAPPED):
            gone = (places.owner == g) & (places.kind == kind) & (places.visible < seen[g, kind] - wanted[kind])
            places.kind[gone], places.owner[gone], places.huge[gone] = HOLE, -1, -1
        own = self.row["groups"][int(self.area["group"])]
        if int(own["task"]) >= 0 and self.counts(g).huge:
            split = int(written_huge(self.row["groups"][g], own))
            places.huge[(places.owner == g) & (places.huge < split)] = -1


def _order_of_hiding(counts: GroupCounts, places: Places) -> None:
    """The order in which copies hide a lowest layer's pages: a sweep's from the front, random ones one in each huge page."""
    places.visible = np.where(places.kind == HOLE, places.visible, places.rank)
    if counts.huge and int(counts.group["kind"]) != ORDERED:
        inside = places.huge >= 0
        places.visible[inside] = places.rank[inside] % HUGE * counts.huge + places.huge[inside]
