# SPDX-License-Identifier: Apache-2.0
"""What x86-64 means by a virtual address and by an entry of a page table: indices, bits, pages of three sizes, faults.

    47 … 39 | 38 … 30 | 29 … 21 | 20 … 12 | 11 … 0        with four levels; a fifth index, 56 … 48, comes before them with five
      PGD       PUD       PMD       PTE     offset

    63 NX | 62–59 key | 58–52 software | 51–12 frame | 11–9 software | 8 G | 7 PS/PAT | 6 D | 5 A | 4 PCD | 3 PWT | 2 U | 1 RW | 0 P

Plain functions over numbers, without a clock or a memory: who has which entry where is `userland/page_table.py`'s business. Names of
levels and software bits are Linux's; an entry that is not present is Linux's own to use, and holds a swap entry.
Leaves out: PAT and cache types, PKRU's contents, SMAP, shadow stacks, PAE and 32-bit modes.
Source: Intel SDM volume 3, chapter 4 "Paging" and 6.15 "#PF"; arch/x86/include/asm/pgtable_types.h, pgtable_64.h
(Linux 6.1); kernel-laws §11.1.
"""

from __future__ import annotations

from dataclasses import dataclass

PAGE_SHIFT, INDEX_BITS = 12, 9
PTRS_PER_TABLE = 1 << INDEX_BITS
ENTRY_BYTES = 8
PTE, PMD, PUD, P4D, PGD = range(5)
LEVEL_NAMES = ("PTE", "PMD", "PUD", "P4D", "PGD")
INTEL_NAMES = ("PTE", "PDE", "PDPTE", "PML4E", "PML5E")  # by number of the level, not by Linux's name for it
LEAF_SIZES = {PTE: 1 << 12, PMD: 1 << 21, PUD: 1 << 30}

PRESENT, RW, USER, PWT, PCD, ACCESSED, DIRTY, PS, GLOBAL = (1 << bit for bit in range(9))
SPECIAL, UFFD_WP, SOFT_DIRTY = 1 << 9, 1 << 10, 1 << 11  # software bits of Linux
DEVMAP = 1 << 58
PKEY_SHIFT, PKEY_MASK = 59, 0xF << 59
NX = 1 << 63
FRAME_MASK = ((1 << 52) - 1) & ~((1 << PAGE_SHIFT) - 1)
PROT_NONE = GLOBAL  # of an entry that is not present: there is a page, but nobody may use it

SWP_TYPE_BITS, SWP_OFFSET_SHIFT = 5, 9  # _PAGE_BIT_PROTNONE + 1; the offset is stored inverted (L1TF)
SWP_SOFT_DIRTY, SWP_EXCLUSIVE = RW, PWT  # bits of a swap entry
SWP_OFFSET_BITS = 64 - SWP_TYPE_BITS - SWP_OFFSET_SHIFT

PF_PROT, PF_WRITE, PF_USER, PF_RSVD, PF_INSTR, PF_PK = (1 << bit for bit in range(6))
"""Bits of the error code that #PF pushes (arch/x86/include/asm/trap_pf.h)."""

READ, WRITE, EXECUTE = "read", "write", "execute"
FLAGS = (
    (PRESENT, "P", "present"),
    (RW, "W", "writable"),
    (USER, "U", "user"),
    (PWT, "T", "write-through"),
    (PCD, "C", "not cached"),
    (ACCESSED, "A", "accessed"),
    (DIRTY, "D", "dirty"),
    (PS, "S", "a page itself, not a table"),
    (GLOBAL, "G", "global"),
    (SPECIAL, "s", "special"),
    (UFFD_WP, "u", "userfaultfd write-protected"),
    (SOFT_DIRTY, "d", "soft-dirty"),
    (NX, "X", "no execute"),
)


def levels_of(levels: int) -> tuple[int, ...]:
    """The levels that a walk goes through, from the top: with four, Linux folds the P4D into the PGD."""
    return (PGD, P4D, PUD, PMD, PTE) if levels == 5 else (PGD, PUD, PMD, PTE)


def address_bits(levels: int) -> int:
    """Bits of a virtual address that are translated: 48 or 57."""
    return PAGE_SHIFT + INDEX_BITS * levels


def is_canonical(address: int, levels: int = 4) -> bool:
    """True if all bits above the translated ones equal the highest of these; any other address is a #GP before any walk."""
    if not 0 <= address < 1 << 64:
        return False
    upper = address >> (address_bits(levels) - 1)
    return upper in (0, (1 << (65 - address_bits(levels))) - 1)


def is_user(address: int, levels: int = 4) -> bool:
    """True for the lower half, less the page at its end that Linux never maps (TASK_SIZE_MAX)."""
    return 0 <= address < (1 << (address_bits(levels) - 1)) - (1 << PAGE_SHIFT)


def shift_of(level: int, levels: int = 4) -> int:
    """Lowest bit of a level's index: what one entry of it covers is 1 << that."""
    depth = level if level < P4D else level - (levels == 4)
    return PAGE_SHIFT + INDEX_BITS * depth


def index_of(address: int, level: int, levels: int = 4) -> int:
    """Which of a table's 512 entries translates an address."""
    return address >> shift_of(level, levels) & (PTRS_PER_TABLE - 1)


def table_base(address: int, level: int, levels: int = 4) -> int:
    """First address that the same table of a level translates."""
    return address & ~((1 << (shift_of(level, levels) + INDEX_BITS)) - 1)


def make_entry(frame: int, flags: int) -> int:
    """An entry that is present: a frame number and bits."""
    return frame << PAGE_SHIFT & FRAME_MASK | flags


def frame_of(entry: int) -> int:
    return (entry & FRAME_MASK) >> PAGE_SHIFT


def letters(entry: int) -> str:
    """The bits of an entry as a row of letters, highest first, `-` where one is clear; protection keys are not among them."""
    return "".join(letter if entry & bit else "-" for bit, letter, _ in reversed(FLAGS))


def words(entry: int) -> list[str]:
    """The bits that are set, in words."""
    return [word for bit, _, word in FLAGS if entry & bit]


def make_swap_entry(kind: int, offset: int, flags: int = 0) -> int:
    """An entry that is not present and says where in swap the page is: type in the top five bits, then the offset inverted.

    flags: SWP_SOFT_DIRTY, SWP_EXCLUSIVE (the page was this process's alone).

    Source: arch/x86/include/asm/pgtable_64.h __swp_entry.
    """
    inverted = ~offset & ((1 << SWP_OFFSET_BITS) - 1)
    return kind << (64 - SWP_TYPE_BITS) | inverted << SWP_OFFSET_SHIFT | flags


def swap_entry(entry: int) -> tuple[int, int]:
    """(type, offset) of an entry that is not present and not empty."""
    return entry >> (64 - SWP_TYPE_BITS), ~(entry >> SWP_OFFSET_SHIFT) & ((1 << SWP_OFFSET_BITS) - 1)


@dataclass(frozen=True)
class Fault:
    """What the processor does instead of the access."""

    exception: str  # "#PF", "#GP" or, for a stack segment, "#SS"
    error_code: int
    reason: str

    @property
    def code_text(self) -> str:
        """As the kernel's log says it: `error 6`, and what its bits mean."""
        parts = ["protection" if self.error_code & PF_PROT else "not present"]
        parts += ["write"] if self.error_code & PF_WRITE else ["instruction fetch"] if self.error_code & PF_INSTR else ["read"]
        parts += ["user mode" if self.error_code & PF_USER else "kernel mode"]
        parts += ["reserved bit"] * bool(self.error_code & PF_RSVD) + ["protection key"] * bool(self.error_code & PF_PK)
        return ", ".join(parts)


def error_code(access: str, *, present: bool, user: bool = True, key: bool = False) -> int:
    """The error code of a page fault."""
    kind = PF_WRITE if access == WRITE else PF_INSTR if access == EXECUTE else 0
    return kind | (PF_PROT if present else 0) | (PF_USER if user else 0) | (PF_PK if key else 0)


def permissions(entries: list[int]) -> tuple[bool, bool, bool]:
    """(writable, user, executable) of a translation: every level must allow a write and user mode, one NX forbids execution."""
    return (
        all(entry & RW for entry in entries),
        all(entry & USER for entry in entries),
        not any(entry & NX for entry in entries),
    )


def check_access(entries: list[int], access: str, *, levels: int = 4, address: int = 0, denied_keys: int = 0) -> Fault | None:
    """What the hardware says to an access of user mode whose walk met these entries, from the top; None: it goes ahead.

    denied_keys: a bit for each protection key that the thread may not use at all.
    """
    if not is_canonical(address, levels):
        return Fault("#GP", 0, f"bits 63 to {address_bits(levels) - 1} of the address are not all alike: it is not canonical")
    for entry in entries:
        if not entry & PRESENT:
            return Fault("#PF", error_code(access, present=False), "the entry is not present")
    writable, user, executable = permissions(entries)
    if not user:
        return Fault("#PF", error_code(access, present=True), "the page is the kernel's")
    if access == WRITE and not writable:
        return Fault("#PF", error_code(access, present=True), "the page is read-only")
    if access == EXECUTE and not executable:
        return Fault("#PF", error_code(access, present=True), "the page is marked no-execute")
    if access != EXECUTE and denied_keys >> ((entries[-1] & PKEY_MASK) >> PKEY_SHIFT) & 1:
        return Fault("#PF", error_code(access, present=True, key=True), "the thread's protection key register forbids it")
    return None


def translate(entry: int, level: int, address: int) -> int:
    """Physical address, by the entry that maps the page: the offset in a page of 4 KiB, 2 MiB or 1 GiB is kept."""
    offset = address & (LEAF_SIZES[level] - 1)
    return (frame_of(entry) << PAGE_SHIFT) & ~(LEAF_SIZES[level] - 1) | offset
