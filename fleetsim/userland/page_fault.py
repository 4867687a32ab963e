# SPDX-License-Identifier: Apache-2.0
"""What becomes of an access to an address: what the processor says, and what the kernel then does about it.

`explain(tables, walk, access)` answers for the state as it is; nothing is changed. The kernel's side is the order of its own questions:
is there an area, may it be so used, what does the entry say (arch/x86/mm/fault.c do_user_addr_fault, mm/memory.c handle_pte_fault).
Leaves out: userfaultfd, NUMA hinting faults, protection keys of threads (nobody here has set one), signal handlers.
Source: Linux 6.1; kernel-laws §10.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fleetsim.hardware import mmu
from fleetsim.linux.huge_memory import ALWAYS
from fleetsim.linux.mm_types import AREA_ANON, AREA_FILE, AREA_HUGETLB, AREA_SHMEM
from fleetsim.linux.mmap_layout import STACK_PAGES, is_gigantic
from fleetsim.linux.swap_types import ON_ZRAM
from fleetsim.userland.address_space import PAGE_SHIFT, Piece, Vma
from fleetsim.userland.page_place import HUGE, MAPPED, SWAPPED
from fleetsim.userland.page_table import SWAP, SWAP_CACHE, ZERO_PAGE, PageTables, Walk

STACK_LIMIT_PAGES = 2048  # RLIMIT_STACK, 8 MiB
MINOR, MAJOR, SIGSEGV, SIGBUS = "minor", "major", "SIGSEGV", "SIGBUS"

VSYSCALL = 0xFFFF_FFFF_FF60_0000  # a page of the kernel's half that belongs to user mode
VSYSCALLS = ("gettimeofday()", "time()", "getcpu()")  # 0x400 bytes apart

# name: (kind of fault or signal, what the kernel does)
CASES = {
    "hit": ("", "No part of it: the processor finds the entry, and next time has it in its TLB."),
    "not canonical": (SIGSEGV, "There is no page fault: general protection, and the kernel sends SIGSEGV (SI_KERNEL) without an address."),
    "kernel address": (SIGSEGV, "The upper half is the kernel's, and is not in the page tables of user mode: SIGSEGV (SEGV_MAPERR)."),
    "vsyscall": ("", "No page is there, it is only for calling (vsyscall=xonly): it does {call} itself and goes on at the return address."),
    "no vsyscall": (
        SIGSEGV,
        "In the vsyscall page are three calls, at 0x0, 0x400 and 0x800; anything else is an exploit or a bug: SIGSEGV.",
    ),
    "vsyscall read": (SIGSEGV, "The vsyscall page is only for calling (vsyscall=xonly), so none is there: a line in the log, SIGSEGV."),
    "vsyscall write": (SIGSEGV, "The vsyscall page is only for calling, in each of the kernel's modes: SIGSEGV (SEGV_MAPERR)."),
    "last page": (SIGSEGV, "The last page below the hole is never given out (TASK_SIZE_MAX), so it is nobody's: SIGSEGV (SEGV_MAPERR)."),
    "no area": (SIGSEGV, "No area of the process has this address, nobody mapped it: SIGSEGV (SEGV_MAPERR)."),
    "forbidden": (SIGSEGV, "The area is {prot}: nobody may {verb} it. SIGSEGV (SEGV_ACCERR)."),
    "beyond the end": (SIGBUS, "The page lies beyond the end of the file, which was cut since it was mapped: SIGBUS."),
    "stack grows": (MINOR, "It lies below the stack and within its limit of 8 MiB: the area grows, and gets a page of zeros."),
    "demand-zero": (MINOR, "Nothing is there yet: it takes a free page, clears it, charges it, and maps it writable."),
    "demand-zero huge": (MINOR, "Nothing is there yet: 2 MiB at once if a block is free (transparent huge pages), else one page."),
    "zero page": (MINOR, "Nothing was ever written there: it maps the one page of zeros that all share, read-only."),
    "first write": (MINOR, "So far it was only read and maps the zero page: now it gets a page of its own, cleared."),
    "cow": (MINOR, "Copy-on-write, a fork left the page shared: it copies it to a free page and points the entry there, writable."),
    "cow huge": (MINOR, "Copy-on-write of a shared huge page: it is split in this page table, and one page of 4 KiB is copied."),
    "cow file": (MINOR, "A private mapping: it copies the file's page and maps the copy, writable."),
    "reuse": (MINOR, "Nobody else has the page (any more): it makes the entry writable and copies nothing."),
    "page_mkwrite": (MINOR, "The file's page is clean: it notes that it gets dirty and makes the entry writable."),
    "swap cache": (MINOR, "The entry names slot {slot} of swap area {area}; the page is in the swap cache: it is mapped, without IO."),
    "swap-in": (
        MAJOR,
        "The entry names slot {slot} of swap area {area}: it reads the page from {device}, and some neighbours.",
    ),
    "shared, in swap": (MAJOR, "The object's page is in swap (page tables do not say so): it is read in, then mapped."),
    "shared, in memory": (MINOR, "Another process has brought the shared page back: it is found in memory and mapped."),
    "new shared page": (MINOR, "The object has no page there yet: a free one, cleared, which all who map it will see."),
    "file in the cache": (
        MINOR,
        "The page is in the page cache: it maps it, and for a read up to 15 neighbours (fault-around).",
    ),
    "file on disk": (MAJOR, "The page is not in the page cache: it is read from disk, with what readahead wants around it."),
    "hugetlb": (MINOR, "One page of 2 MiB from the pool, where mmap had reserved it, cleared and mapped by the PMD entry."),
    "hugetlb 1 GiB": (MINOR, "One page of 1 GiB from its pool, where mmap had reserved it, cleared and mapped by the PUD entry."),
}


@dataclass(frozen=True)
class Outcome:
    """The end of an access."""

    name: str  # of CASES
    fault: mmu.Fault | None  # what the processor raises, None: it just goes ahead
    kind: str  # minor, major, a signal, or ""
    kernel: str  # what the kernel does


def explain(tables: PageTables, walk: Walk, access: str = mmu.READ) -> Outcome:
    """What an access of user mode to the walk's address comes to."""
    fault = mmu.check_access(walk.entries, access, levels=walk.levels, address=walk.address)
    name, words = _classify(tables, walk, access, fault)
    kind, kernel = CASES[name]
    return Outcome(name, fault, kind, kernel.format(**words))


def _classify(tables: PageTables, walk: Walk, access: str, fault: mmu.Fault | None) -> tuple[str, dict[str, object]]:
    if fault is None:
        return "hit", {}
    if fault.exception == "#GP":
        return "not canonical", {}
    if is_vsyscall(walk.address):
        return _vsyscall(walk.address - VSYSCALL, access)
    if not mmu.is_user(walk.address, walk.levels):
        return "kernel address" if walk.address >> 63 else "last page", {}
    if walk.vma is None:
        return _no_area(tables, walk), {}
    needed = {mmu.WRITE: ("w", "write to"), mmu.EXECUTE: ("x", "execute"), mmu.READ: ("r", "read")}[access]
    if needed[0] not in walk.vma.prot:
        return "forbidden", {"prot": walk.vma.prot, "verb": needed[1]}
    if fault.error_code & mmu.PF_PROT:
        return _write_protected(tables, walk, walk.vma), {}
    if walk.kind in (SWAP, SWAP_CACHE):
        area, slot = mmu.swap_entry(walk.entries[-1])
        device = "zram" if int(tables.row["swap_info"][area]["disk"]) == ON_ZRAM else "the disk (or zswap)"
        return "swap cache" if walk.kind == SWAP_CACHE else "swap-in", {"slot": slot, "area": area, "device": device}
    return _nothing_there(tables, walk, access, walk.vma), {}


def is_vsyscall(address: int) -> bool:
    return address >> PAGE_SHIFT == VSYSCALL >> PAGE_SHIFT


def _vsyscall(offset: int, access: str) -> tuple[str, dict[str, object]]:
    """A fault in the page of the system calls of old programs, in the kernel's default mode
    (arch/x86/entry/vsyscall/vsyscall_64.c emulate_vsyscall, addr_to_vsyscall_nr)."""
    if access != mmu.EXECUTE:
        return "vsyscall write" if access == mmu.WRITE else "vsyscall read", {}
    number, within = divmod(offset, 0x400)
    return ("no vsyscall", {}) if within or number >= len(VSYSCALLS) else ("vsyscall", {"call": VSYSCALLS[number]})


def _no_area(tables: PageTables, walk: Walk) -> str:
    stack, page = next(vma for vma in tables.vmas if vma.name == "stack"), walk.address >> PAGE_SHIFT
    return "stack grows" if stack.first + STACK_PAGES - STACK_LIMIT_PAGES <= page < stack.first else "no area"


def piece_of(vma: Vma, address: int) -> tuple[Piece, int]:
    """(piece of an area that an address lies in, position in what is behind it)."""
    page = address >> PAGE_SHIFT
    piece = next(piece for piece in vma.pieces if piece.first <= page < piece.first + piece.pages)
    return piece, page - piece.first + piece.position


def _write_protected(tables: PageTables, walk: Walk, vma: Vma) -> str:
    """A write to a page that is there and read-only, in an area that may be written to (mm/memory.c do_wp_page)."""
    if walk.kind == ZERO_PAGE:
        return "first write"
    piece, position = piece_of(vma, walk.address)
    if piece.area < 0:
        return "cow"
    if int(tables.row["areas"][piece.area]["kind"]) == AREA_FILE:
        return "page_mkwrite" if vma.prot.endswith("s") else "cow file"
    if not tables.entries(piece.area, np.array([position])).shared[0]:
        return "reuse"
    return "cow huge" if walk.leaf == mmu.PMD else "cow"


def _nothing_there(tables: PageTables, walk: Walk, access: str, vma: Vma) -> str:
    """The entry, or the table it would be in, is empty (mm/memory.c do_anonymous_page, do_fault)."""
    piece, position = piece_of(vma, walk.address)
    if piece.area < 0:
        return "file in the cache" if vma.path.startswith("/") and piece.part else "demand-zero" if access == mmu.WRITE else "zero page"
    area = tables.row["areas"][piece.area]
    kind, view = int(area["kind"]), tables.view(piece.area)
    if kind == AREA_HUGETLB:
        return "hugetlb 1 GiB" if is_gigantic(area) else "hugetlb"
    if kind == AREA_ANON:
        top, begin, _ = next(part for part in view.parts() if part[1] <= position < part[2])
        bottom = view.bottom_places(view.chain(top)[0], begin, np.array([position - begin]))
        if bottom.kind[0] == MAPPED:
            return "shared, in memory"
        if access != mmu.WRITE:
            return "zero page"
        return "demand-zero huge" if _may_be_huge(tables, walk, piece.area, position) else "demand-zero"
    if kind == AREA_FILE and position >= int(tables.row["files"][int(area["file"])]["size"]):
        return "beyond the end"
    found = int(view.look(np.array([position])).kind[0])
    if found == MAPPED:
        return "file in the cache"
    if kind == AREA_SHMEM:
        return "shared, in swap" if found == SWAPPED else "new shared page"
    return "file on disk"


def _may_be_huge(tables: PageTables, walk: Walk, a: int, position: int) -> bool:
    """True if a first write would try for a huge page (mm/huge_memory.c hugepage_vma_check)."""
    row = tables.row
    flag, mode = int(row["areas"][a]["thp_flag"]), int(row["thp_enabled"])
    whole = position // HUGE * HUGE + HUGE <= int(row["areas"][a]["pages"])
    return mode > 0 and flag >= 0 and (mode == ALWAYS or flag > 0) and whole and tables.table_frame(mmu.PTE, walk.address) is None
