# SPDX-License-Identifier: Apache-2.0
"""A process's address space as a list of areas with addresses: what /proc/PID/maps lists and a page walk is asked about.

    program (code, data, bss) · [heap] by brk · mappings, from the top down · libraries · [stack] · [vvar] · [vdso]

Mappings lie where `linux/mmap_layout.py` put them. The image is that of a small dynamically linked program, cut so that its sizes, the
pages it has in memory and its page tables are those that were measured (linux/exit.py): each part's first pages are in memory.
What a program mapped and never touches (op `overcommit_probe`) lies where the kernel goes when there is no room below mmap_base.
Leaves out: merging of neighbours with the same permissions; guard pages; the stack grown (its pages are those of the image).
Source: fs/binfmt_elf.c load_elf_binary, arch/x86/entry/vdso/vma.c (Linux 6.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleetsim.linux.mm_types import AREA_ANON, AREA_FREE, AREA_HUGETLB, AREA_SHMEM, NR_AREAS
from fleetsim.linux.mmap_layout import (
    BLOCK,
    GIGANTIC_BLOCKS,
    HEAP_PAGES,
    LIBRARY_PAGES,
    LUCK_MASK,
    NO_ASLR,
    PROGRAM_PAGES,
    R_VDSO,
    STACK_PAGES,
    VDSO_PAGES,
    brk_block,
    is_gigantic,
    luck,
    mmap_base,
    stack_top,
    text_start,
)
from fleetsim.linux.shmem import LINKED
from fleetsim.userland.page_place import GroupCounts

PAGE_SHIFT = 12
PAGE = 1 << PAGE_SHIFT
TASK_UNMAPPED_BASE = 0x2AAAAAAAB  # page: a third of the address space, where bottom-up search begins
UNTOUCHED_END = 0x555500000  # page
VVAR_PAGES = 4
LIBC, LD = "/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
DISK_DEVICE, ROOT_INODE, SHM_DEVICE = "254:00", 131_072, "00:01"


@dataclass(frozen=True)
class Part:
    """A stretch of the image: how long, and how many of its first pages are in memory (of the stack, its last)."""

    name: str
    pages: int
    prot: str
    path: str = ""
    resident: int = 0


PROGRAM = "program"  # stands for the process's own file
PROGRAM_PARTS = (
    Part("headers", 8, "r--p", PROGRAM, 8),
    Part("code", 96, "r-xp", PROGRAM, 30),
    Part("constants", 36, "r--p", PROGRAM, 10),
    Part("relocated constants", 2, "r--p", PROGRAM),
    Part("data", 4, "rw-p", PROGRAM, 4),
    Part("bss", 505, "rw-p", "", 16),
)
HEAP_PART = Part("heap", HEAP_PAGES, "rw-p", "[heap]", 12)
LIBRARY_PARTS = (
    Part("thread-local storage", 46, "rw-p", "", 10),
    Part("libc headers", 22, "r--p", LIBC, 22),
    Part("libc code", 128, "r-xp", LIBC, 99),
    Part("libc constants", 40, "r--p", LIBC, 12),
    Part("libc relocated constants", 3, "r--p", LIBC),
    Part("libc data", 2, "rw-p", LIBC, 2),
    Part("libc bss", 13, "rw-p", "", 4),
    Part("loader headers", 1, "r--p", LD, 1),
    Part("loader code", 14, "r-xp", LD, 12),
    Part("loader constants", 3, "r--p", LD, 1),
    Part("loader relocated constants", 1, "r--p", LD),
    Part("loader data", 1, "rw-p", LD, 1),
)
STACK_PART = Part("stack", STACK_PAGES, "rw-p", "[stack]", 5)
VVAR_PART, VDSO_PART = Part("vvar", VVAR_PAGES, "r--p", "[vvar]", 1), Part("vdso", VDSO_PAGES - VVAR_PAGES, "r-xp", "[vdso]", 1)
ANON_ORDER = (STACK_PART, PROGRAM_PARTS[4], HEAP_PART, PROGRAM_PARTS[5], *(p for p in LIBRARY_PARTS if "w" in p.prot))
TEXT_ORDER = (
    LIBRARY_PARTS[2],
    VDSO_PART,
    *(p for p in (*LIBRARY_PARTS, *PROGRAM_PARTS) if p.path and p.resident and "w" not in p.prot and p is not LIBRARY_PARTS[2]),
)
"""Which part's pages are in memory first, where an image has fewer than it might: a fork's child has two pages of libc's code."""
assert sum(p.pages for p in PROGRAM_PARTS) == PROGRAM_PAGES and sum(p.pages for p in LIBRARY_PARTS) == LIBRARY_PAGES


@dataclass(frozen=True)
class Piece:
    """Pages of a VMA that one thing stands behind: an area from one of its positions on, a part of the image, or nothing."""

    first: int  # page number
    pages: int
    area: int = -1
    position: int = 0
    part: Part | None = None


@dataclass(frozen=True)
class Vma:
    """One line of /proc/PID/maps."""

    name: str  # what a user may call it: heap, stack, code, the area's own name
    prot: str
    pieces: tuple[Piece, ...]
    path: str = ""
    offset: int = 0  # pages
    device: str = "00:00"
    inode: int = 0
    aliases: tuple[str, ...] = field(default=())

    @property
    def first(self) -> int:
        return self.pieces[0].first

    @property
    def pages(self) -> int:
        return sum(piece.pages for piece in self.pieces)

    @property
    def start(self) -> int:
        return self.first << PAGE_SHIFT

    @property
    def end(self) -> int:
        return (self.first + self.pages) << PAGE_SHIFT

    @property
    def area(self) -> int:
        return max(piece.area for piece in self.pieces)


@dataclass(frozen=True)
class Labels:
    """Text that a record has not: of the process, its areas (by row) and files (by row)."""

    program: str = "program"
    areas: Mapping[int, str] = field(default_factory=dict)
    files: Mapping[int, str] = field(default_factory=dict)


def address_space(row: Any, t: int, labels: Labels | None = None) -> list[Vma]:
    """All areas of task `t`, lowest first."""
    labels = labels or Labels()
    task = row["tasks"][t]
    key = int(task["mm_key"])
    heap = brk_block(row, key) * BLOCK
    vmas = _image(row, key, labels.program)
    heap_pieces = [Piece(heap - HEAP_PAGES, HEAP_PAGES, part=HEAP_PART)]
    for a in range(NR_AREAS):
        area = row["areas"][a]
        if int(area["kind"]) == AREA_FREE or int(area["task"]) != t:
            continue
        first = int(area["start"]) * BLOCK
        if first == heap:
            heap_pieces = _heap(row, a, heap)
        elif int(area["pages"]) > int(area["cut"]):
            vmas.append(_mapping(row, a, labels))
    vmas.append(Vma("heap", "rw-p", tuple(heap_pieces), "[heap]"))
    if int(task["untouched_vm"]) > 0:
        pages = int(task["untouched_vm"])
        vmas.append(Vma("untouched", "rw-p", (Piece(max(16, min(TASK_UNMAPPED_BASE, UNTOUCHED_END - pages)), pages),)))
    return sorted(vmas, key=lambda vma: vma.first)


def _heap(row: Any, a: int, heap: int) -> list[Piece]:
    """The allocator fills the image's part of the heap first: the pages that it has above what brk() gave it lie there."""
    pages, counts = int(row["areas"][a]["pages"]), GroupCounts(row, int(row["areas"][a]["group"]))
    early = min(HEAP_PAGES - HEAP_PART.resident, max(0, counts.held - pages))
    pieces = [Piece(heap - HEAP_PAGES, HEAP_PAGES - early, part=HEAP_PART)]
    pieces += [Piece(heap - early, early, a, pages)] if early else []
    return pieces + ([Piece(heap, pages, a)] if pages else [])


def _mapping(row: Any, a: int, labels: Labels) -> Vma:
    area = row["areas"][a]
    kind, cut, f = int(area["kind"]), int(area["cut"]), int(area["file"])
    first, pages = int(area["start"]) * BLOCK + cut, int(area["pages"]) - cut
    if kind == AREA_HUGETLB:
        size = BLOCK * GIGANTIC_BLOCKS if is_gigantic(area) else BLOCK
        pages = -(-pages // size) * size
    pieces, name = (Piece(first, pages, a, cut),), labels.areas.get(a, f"area{a}")
    if kind == AREA_ANON:
        return Vma(name, "rw-p", pieces)
    if kind == AREA_HUGETLB:
        return Vma(name, "rw-p", pieces, "/anon_hugepage (deleted)", device="00:0f", inode=ROOT_INODE + a)
    path = labels.files.get(f, "")
    if kind == AREA_SHMEM:
        named = int(row["files"][f]["linked"]) == LINKED
        path = (path or f"/SYSV{f:08x}") if named else f"{path or '/dev/zero'} (deleted)"
        return Vma(name, "rw-s", pieces, path, device=SHM_DEVICE, inode=ROOT_INODE + f)
    private = int(area["accounted"]) > 0
    return Vma(name, "rw-p" if private else "rw-s", pieces, path or f"/file{f}", device=DISK_DEVICE, inode=ROOT_INODE + f)


def _image(row: Any, key: int, program: str) -> list[Vma]:
    """The parts of the program itself, without its heap."""
    base, top, text = int(mmap_base(row, key)), int(stack_top(row, key)), int(text_start(row, key))
    own = f"/usr/bin/{program}"
    vmas = _laid_out(PROGRAM_PARTS, text, own, 200) + _laid_out(LIBRARY_PARTS, base - LIBRARY_PAGES, own, 300)
    vmas.append(Vma("stack", "rw-p", (Piece(top - STACK_PAGES, STACK_PAGES, part=STACK_PART),), "[stack]"))
    if key & 3 == NO_ASLR:
        vdso = base - LIBRARY_PAGES - VDSO_PAGES
    else:
        room = BLOCK - VDSO_PAGES - top % BLOCK
        vdso = top + (int(luck(row, key, R_VDSO)) & LUCK_MASK) % (room + 1)
    vmas.append(Vma("vvar", "r--p", (Piece(vdso, VVAR_PAGES, part=VVAR_PART),), "[vvar]"))
    vmas.append(Vma("vdso", "r-xp", (Piece(vdso + VVAR_PAGES, VDSO_PAGES - VVAR_PAGES, part=VDSO_PART),), "[vdso]"))
    return vmas


def _laid_out(parts: tuple[Part, ...], first: int, program: str, inode: int) -> list[Vma]:
    vmas, offset, before = [], 0, ""
    for part in parts:
        path = program if part.path == PROGRAM else part.path
        offset = offset if path == before else 0
        device, number = (DISK_DEVICE, inode + len(path)) if path else ("00:00", 0)
        vmas.append(Vma(part.name, part.prot, (Piece(first, part.pages, part=part),), path, offset, device, number))
        first, offset, before = first + part.pages, offset + part.pages, path or before
    return vmas


def find_vma(vmas: list[Vma], address: int) -> Vma | None:
    """The area that an address lies in."""
    return next((vma for vma in vmas if vma.start <= address < vma.end), None)


def image_resident(row: Any, t: int, part: Part) -> tuple[int, int]:
    """(pages of a part in memory, number of its first one among the image's anonymous pages or among its text)."""
    task = row["tasks"][t]
    anonymous = part in ANON_ORDER
    left = int(task["base_anon"] + task["base_shared"]) if anonymous else int(task["base_file"])
    number = 0
    for other in ANON_ORDER if anonymous else TEXT_ORDER:
        here = min(other.resident, left)
        if other is part:
            return here, number
        left, number = left - here, number + here
    return 0, 0
