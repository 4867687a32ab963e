# SPDX-License-Identifier: Apache-2.0
"""The page tables of a simulated process: every entry, computed from the host's record, and the walk of any address through them.

A table stands where `linux/pgtable.py` counts one; `pte` entries of many pages at once come out of `entries()`, which `walk()` asks for
one. Tables themselves lie in frames of the kernel's. With five levels the same process is shown as a processor with LA57 would have
it: one table more, the addresses the same.
Leaves out: more than six PUDs (what is populated is never so far apart), the second PGD of page-table isolation.
Source: arch/x86/include/asm/pgtable.h, mm/memory.c, mm/huge_memory.c (Linux 6.1), which bits a fault sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.hardware import mmu
from fleetsim.linux.hugetlb import pages_of
from fleetsim.linux.mm_types import AREA_ANON, AREA_FILE, AREA_FREE, AREA_HUGETLB, AREA_SHMEM, NR_AREAS, NR_GROUPS
from fleetsim.linux.mmap_layout import is_gigantic
from fleetsim.linux.pgtable import BLOCKS_PER_PMD, image_block, image_tables, populated_blocks
from fleetsim.linux.swap_types import NR_SWAPFILES
from fleetsim.userland.address_space import (
    ANON_ORDER,
    PAGE_SHIFT,
    STACK_PART,
    VVAR_PART,
    Labels,
    Piece,
    Vma,
    address_space,
    find_vma,
    image_resident,
)
from fleetsim.userland.frames import UPPER_TABLES, Frames, alive_tasks, image_owner
from fleetsim.userland.page_place import HUGE, MAPPED, SWAPPED, AreaView, GroupCounts, Ints
from fleetsim.userland.permutation import permuted

TABLE_FLAGS = mmu.PRESENT | mmu.RW | mmu.USER | mmu.ACCESSED | mmu.DIRTY
NOTHING, PAGE, HUGE_PAGE, SWAP, SWAP_CACHE, ZERO_PAGE = range(6)
"""What an entry is: empty, a page, part of a huge page, a page in swap, one in the swap cache, the shared page of zeros."""
KIND_WORDS = ("nothing", "a page", "a huge page", "a page in swap", "a page in the swap cache", "the zero page")
SLOTS_PER_PUD = 512  # of 1 GiB

Words = NDArray[np.uint64]


@dataclass
class Entries:
    """What page tables say of some pages of an area."""

    kind: Ints
    frame: Ints  # −1: none
    flags: Words  # bits of the entry, without the frame
    swap: Ints  # type << 50 | offset, −1
    group: Ints  # group that has the page, −1
    shared: NDArray[np.bool_]  # others may have it too: a file's, an object's, left by a fork


@dataclass(frozen=True)
class Step:
    """One level of a walk."""

    level: int
    table_frame: int
    index: int
    entry: int


@dataclass(frozen=True)
class Walk:
    """What the processor meets on its way from CR3 to a page."""

    address: int
    levels: int
    steps: tuple[Step, ...]
    kind: int = NOTHING
    leaf: int | None = None  # level whose entry maps the page
    vma: Vma | None = None

    @property
    def entries(self) -> list[int]:
        return [step.entry for step in self.steps]

    @property
    def physical(self) -> int | None:
        return None if self.leaf is None else mmu.translate(self.steps[-1].entry, self.leaf, self.address)


class PageTables:
    """The page tables of task `t`; `row` must not change while it is used."""

    def __init__(self, row: Any, t: int, labels: Labels | None = None, frames: Frames | None = None) -> None:
        self.row, self.t, self.key = row, t, int(row["tasks"][t]["mm_key"])
        self.vmas = address_space(row, t, labels)
        self.frames = frames or Frames(row)
        self._views: dict[int, AreaView] = {}

    def view(self, a: int) -> AreaView:
        if a not in self._views:
            self._views[a] = AreaView(self.row, a)
        return self._views[a]

    # --- which tables stand ----------------------------------------------------------------------------------------------

    @cached_property
    def _blocks(self) -> list[tuple[int, int, bool]]:
        """(first block of 2 MiB, how many, whether they have page tables) of the image and of each area."""
        parts = sorted({int(image_block(self.row, self.key, part)) for part in range(5)})
        assert len(parts) == int(image_tables(self.key))
        found = [(block, 1, True) for block in parts]
        for a in range(NR_AREAS):
            area = self.row["areas"][a]
            if int(area["kind"]) != AREA_FREE and int(area["task"]) == self.t:
                first, blocks = (int(n) for n in populated_blocks(area))
                if blocks and not is_gigantic(area):
                    found.append((first, blocks, int(area["kind"]) != AREA_HUGETLB))
        return found

    @cached_property
    def pmd_slots(self) -> list[int]:
        slots: set[int] = set()
        for first, blocks, _ in self._blocks:
            slots.update(range(first // BLOCKS_PER_PMD, (first + blocks - 1) // BLOCKS_PER_PMD + 1))
        return sorted(slots)

    @cached_property
    def pud_slots(self) -> list[int]:
        slots = {slot // SLOTS_PER_PUD for slot in self.pmd_slots}
        for area in self.row["areas"]:  # pages of 1 GiB stand in entries of these tables
            if int(area["task"]) == self.t and is_gigantic(area):
                first, blocks = (int(n) // BLOCKS_PER_PMD for n in populated_blocks(area))
                slots.update(slot // SLOTS_PER_PUD for slot in range(first, first + blocks))
        return sorted(slots)

    @property
    def nr_ptes(self) -> int:
        return sum(blocks for _, blocks, tables in self._blocks if tables)

    @property
    def bytes(self) -> int:
        """mm_pgtables_bytes(): what VmPTE shows. The top table is not counted."""
        return 4096 * (self.nr_ptes + len(self.pmd_slots) + len(self.pud_slots))

    def table_frame(self, level: int, address: int) -> int | None:
        """Frame of the table of a level that translates an address; None: it does not stand."""
        block = address >> 21
        if level >= mmu.PUD:
            first = self.frames.kernel_part("upper", self.t)
            if level > mmu.PUD:
                return self._kernel_frame(first + (level == mmu.P4D))
            slot = block // BLOCKS_PER_PMD // SLOTS_PER_PUD
            return self._kernel_frame(first + min(2 + self.pud_slots.index(slot), UPPER_TABLES - 1)) if slot in self.pud_slots else None
        first = self.frames.kernel_part("tables", self.t)
        if level == mmu.PMD:
            slot = block // BLOCKS_PER_PMD
            return self._kernel_frame(first + self.nr_ptes + self.pmd_slots.index(slot)) if slot in self.pmd_slots else None
        for begin, blocks, tables in self._blocks:
            if tables and begin <= block < begin + blocks:
                return self._kernel_frame(first + block - begin)
            first += blocks if tables else 0
        return None

    def _kernel_frame(self, number: int) -> int:
        return int(self.frames.of_kernel(np.array([number]))[0])

    # --- entries of pages ------------------------------------------------------------------------------------------------

    def entries(self, a: int, positions: Ints) -> Entries:
        """Of some pages of area `a`, by position in it."""
        p = np.asarray(positions, np.int64)
        view = self.view(a)
        if view.kind == AREA_HUGETLB:
            return self._hugetlb(a, p)
        if view.kind == AREA_ANON:
            return self._anonymous(view, p)
        return self._of_file(view, p)

    def nothing(self, n: int) -> Entries:
        """Entries of pages that have none."""
        return Entries(np.zeros(n, np.int64), np.full(n, -1), np.zeros(n, np.uint64), np.full(n, -1), np.full(n, -1), np.zeros(n, np.bool_))

    def hugetlb_pages(self, a: int) -> int:
        """Pages of 4 KiB in a huge page of area `a`: of 1 GiB if it is a mapping of their pool."""
        return int(pages_of(int(self.row["areas"][a]["hstate"]))) if a >= 0 else HUGE

    def _hugetlb(self, a: int, p: Ints) -> Entries:
        out, size = self.nothing(len(p)), self.hugetlb_pages(a)
        there = p < -(-int(self.row["areas"][a]["touched"]) // size) * size
        out.kind[there] = HUGE_PAGE
        out.frame[there] = self.frames.of_hugetlb(a, p[there] // size) + p[there] % size
        out.flags[there] = mmu.PRESENT | mmu.RW | mmu.USER | mmu.ACCESSED | mmu.DIRTY | mmu.PS | mmu.SOFT_DIRTY | mmu.NX
        return out

    def _anonymous(self, view: AreaView, p: Ints) -> Entries:
        out, places = self.nothing(len(p)), view.look(p)
        out.group = places.owner.copy()
        for g in np.unique(places.owner[places.owner >= 0]):
            counts, group = view.counts(int(g)), self.row["groups"][int(g)]
            own = int(group["task"]) >= 0
            here = (places.owner == g) & (places.kind == MAPPED)
            rank = places.rank[here]
            dirty = counts.dirty(rank)
            writable = (dirty | counts.lazy(rank)) & (rank >= int(group["cow"])) if own else np.zeros_like(dirty)
            self._present(out, here, counts, rank, dirty, writable)
            huge = here & (places.huge >= 0)
            out.kind[huge] = HUGE_PAGE
            out.flags[huge] |= np.uint64(mmu.PS)
            out.shared[places.owner == g] = not own
            here = (places.owner == g) & (places.kind == SWAPPED)
            self._swapped(out, here, int(g), counts, places.rank[here], own)
        zero = (out.kind == NOTHING) & (p >= view.cut) & (p < int(view.area["zero"]))
        out.kind[zero], out.frame[zero] = ZERO_PAGE, self._kernel_frame(self.frames.kernel_part("zero"))
        out.flags[zero] = mmu.PRESENT | mmu.USER | mmu.ACCESSED | mmu.SPECIAL | mmu.NX
        return out

    def _of_file(self, view: AreaView, p: Ints) -> Entries:
        """A mapped file, or a shared object: this process maps the first pages of those in memory, as many as it has mapped."""
        out, places = self.nothing(len(p)), view.look(p)
        out.shared[:] = view.kind == AREA_SHMEM or int(view.area["accounted"]) == 0
        for g in np.unique(places.owner[places.owner >= 0]):
            counts = view.counts(int(g))
            mapped = mapped_by(self.row, view.a, int(g))
            here = (places.owner == g) & (places.kind == MAPPED) & (places.rank < mapped)
            rank = places.rank[here]
            shared_file = view.kind == AREA_FILE and int(view.area["accounted"]) == 0
            dirty = np.ones(len(rank), np.bool_) if view.kind == AREA_SHMEM else counts.dirty(rank) & shared_file
            self._present(out, here, counts, rank, dirty, dirty)
            out.group[here] = g
        return out

    def _present(self, out: Entries, here: NDArray[np.bool_], counts: GroupCounts, rank: Ints, dirty: Any, writable: Any) -> None:
        out.kind[here] = PAGE
        out.frame[here] = self.frames.of_pages(counts, rank)
        flags = np.full(len(rank), mmu.PRESENT | mmu.USER | mmu.NX, np.uint64)
        flags |= np.where(dirty, np.uint64(mmu.DIRTY | mmu.SOFT_DIRTY), np.uint64(0))
        flags |= np.where(writable, np.uint64(mmu.RW), np.uint64(0))
        flags |= np.where(counts.accessed(rank), np.uint64(mmu.ACCESSED), np.uint64(0))
        out.flags[here] = flags

    def _swapped(self, out: Entries, here: NDArray[np.bool_], g: int, counts: GroupCounts, rank: Ints, own: bool) -> None:
        cached = rank >= counts.nr_out
        out.kind[here] = np.where(cached, SWAP_CACHE, SWAP)
        frames = np.full(len(rank), -1)
        frames[cached] = self.frames.of_pages(counts, rank[cached] - counts.nr_out + counts.nr_mapped)
        out.frame[here] = frames
        out.flags[here] = mmu.SWP_SOFT_DIRTY | (mmu.SWP_EXCLUSIVE if own else 0)
        out.swap[here] = self._slots(g, rank)

    def _slots(self, g: int, rank: Ints) -> Ints:
        """Swap area and slot of pages, each its own: fleetsim keeps how many slots a group has in each area, not which."""
        used = np.zeros(NR_SWAPFILES, np.int64)
        for h in range(NR_GROUPS):
            group = self.row["groups"][h]
            if int(group["used"]) and not int(group["is_file"]):
                mine = _slots_of(self.row, h)
                if h == g:
                    break
                used += mine
        area = np.minimum(np.searchsorted(np.cumsum(mine), rank, side="right"), NR_SWAPFILES - 1)
        number = rank - (np.cumsum(mine) - mine)[area] + used[area]
        out = np.zeros_like(rank)
        for kind in np.unique(area):
            here = area == kind
            pages = max(2, int(self.row["swap_info"][int(kind)]["pages"] or self.row["swap_total"]) - 1)
            out[here] = int(kind) << 50 | (1 + permuted(number[here] % pages, pages, int(self.row["host_key"]), int(kind), 2))
        return out

    def image_entry(self, piece: Piece, page: int) -> tuple[int, int]:
        """(kind, entry) of one page of the program's image."""
        part = piece.part
        assert part is not None
        resident, number = image_resident(self.row, self.t, part)
        offset = page - piece.first - (piece.pages - resident if part is STACK_PART else 0)
        if part is VVAR_PART:  # mapped by frame number: no page of the process's, and no part of its RSS
            resident, number = part.resident, 0
        if not 0 <= offset < resident:
            return NOTHING, 0
        flags = mmu.PRESENT | mmu.USER | mmu.ACCESSED | (0 if "x" in part.prot else mmu.NX)
        if part is VVAR_PART:
            first = self.frames.kernel_part("vdso")
        elif part in ANON_ORDER:
            owner = image_owner(self.row, self.t)
            first = self.frames.kernel_part("image", owner)
            flags |= mmu.DIRTY | mmu.SOFT_DIRTY | (0 if self._image_shared(owner) else mmu.RW)
        else:
            first = self.frames.kernel_part("text")
        return PAGE, mmu.make_entry(self._kernel_frame(first + number + offset), flags)

    def _image_shared(self, owner: int) -> bool:
        """True if the image's pages are write-protected since a fork: somebody else has them too."""
        if owner != self.t:
            return True
        alive = [i for i in alive_tasks(self.row) if i != owner and int(self.row["tasks"][i]["base_shared"])]
        return any(image_owner(self.row, i) == owner for i in alive)

    # --- the walk --------------------------------------------------------------------------------------------------------

    def page_entry(self, vma: Vma, page: int) -> tuple[int, int]:
        """(kind, entry) of a page of an area; the entry of a huge page is that of all of it."""
        piece = next(piece for piece in vma.pieces if piece.first <= page < piece.first + piece.pages)
        if piece.part is not None:
            return self.image_entry(piece, page)
        if piece.area < 0:
            return NOTHING, 0
        found = self.entries(piece.area, np.array([page - piece.first + piece.position]))
        kind, flags = int(found.kind[0]), int(found.flags[0])
        if kind in (SWAP, SWAP_CACHE):
            return kind, mmu.make_swap_entry(int(found.swap[0]) >> 50, int(found.swap[0]) & ((1 << 50) - 1), flags)
        if kind == NOTHING:
            return kind, 0
        frame = int(found.frame[0])
        return kind, mmu.make_entry(frame - frame % self.hugetlb_pages(piece.area) if kind == HUGE_PAGE else frame, flags)

    def walk(self, address: int, levels: int = 4) -> Walk:
        """Every level's entry for an address, down to the page or to what is missing."""
        steps: list[Step] = []
        if not mmu.is_canonical(address, levels):
            return Walk(address, levels, ())
        vma = find_vma(self.vmas, address)
        kind, entry = self.page_entry(vma, address >> PAGE_SHIFT) if vma else (NOTHING, 0)
        huge_level = mmu.PMD if vma is None or self.hugetlb_pages(vma.area) == HUGE else mmu.PUD
        for level in mmu.levels_of(levels):
            table = self.table_frame(level, address)
            assert table is not None
            index = mmu.index_of(address, level, levels)
            below = None if level == mmu.PTE or not mmu.is_user(address, 4) else self._next_table(level, address, levels)
            if level == mmu.PTE or (level == huge_level and kind == HUGE_PAGE):
                steps.append(Step(level, table, index, entry))
                leaf = level if entry & mmu.PRESENT else None
                return Walk(address, levels, tuple(steps), kind, leaf, vma)
            if below is None:
                steps.append(Step(level, table, index, 0))
                break
            steps.append(Step(level, table, index, mmu.make_entry(below, TABLE_FLAGS)))
        return Walk(address, levels, tuple(steps), NOTHING, None, vma)

    def _next_table(self, level: int, address: int, levels: int) -> int | None:
        order = mmu.levels_of(levels)
        return self.table_frame(order[order.index(level) + 1], address)


def mapped_by(row: Any, a: int, g: int) -> int:
    """How many pages of a file's or an object's group an area maps."""
    m = int(row["groups"][g]["maps"])
    while m >= 0:
        if int(row["mappings"][m]["area"]) == a:
            return int(row["mappings"][m]["mapped"])
        m = int(row["mappings"][m]["next"])
    return 0


def _slots_of(row: Any, g: int) -> Ints:
    """Slots of each swap area that a group's entries name."""
    counts = GroupCounts(row, g)
    wanted = counts.nr_out + counts.nr_cached
    slots = row["groups"][g]["slots"].astype(np.int64) if int(row["swap_mode"]) else np.array([wanted] + [0] * (NR_SWAPFILES - 1))
    if int(slots.sum()) < wanted:
        slots[0] += wanted - int(slots.sum())
    return slots
