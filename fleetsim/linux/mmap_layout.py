# SPDX-License-Identifier: Apache-2.0
"""Where things lie in an address space: ASLR, the program's image, and room for mappings from the top down (arch/x86/mm/mmap.c).

    0x5555 5555 4000 + r   program, then (r' later) its heap by brk, upwards
          … mappings, each below the one before …
    mmap_base              libraries;  128 TiB − 16 GiB − 9 MiB − 28 random bits of pages
    stack top              128 TiB − 22 random bits of pages; the vdso above it

All of it follows from the host's key and the `mm_key` of the address space, which a fork's child has from its parent: the pid of
whoever called exec, times four, plus kernel.randomize_va_space at that time. Units here are blocks of 2 MiB, what one page table
maps, because that is what page tables are counted by; `userland/address_space.py` has the pages inside them.
Leaves out: areas that do not begin on 2 MiB (fleetsim's own simplification: as huge_memory.py has it, each has page tables of its
own), a hole once given back below a growing area, and mappings above 47 bits, which a program must ask for by a hint.
Source: arch/x86/mm/mmap.c arch_pick_mmap_layout, arch/x86/kernel/process.c arch_randomize_brk, fs/binfmt_elf.c (Linux 6.1).
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import AREA_ANON, AREA_FREE, AREA_HUGETLB, NR_AREAS

BLOCK = 512  # pages that one page table maps
GIGANTIC_BLOCKS = 512  # … and tables of them that one page of 1 GiB stands for
TASK_PAGES = (1 << 35) - 1  # 128 TiB less the last page, which is never given out
MMAP_RND_BITS = 28  # vm.mmap_rnd_bits
STACK_RND_MASK = 0x3FFFFF  # pages
BRK_RND_BLOCKS = 14  # of the 32 MiB that the kernel takes
GAP_PAGES = 2048 + 256  # RLIMIT_STACK and stack_guard_gap
GAP_PAGES_MIN = 32_768  # 128 MiB
ELF_ET_DYN_BASE = 0x555555554  # page
PROGRAM_PAGES, HEAP_PAGES, LIBRARY_PAGES, STACK_PAGES, VDSO_PAGES = 651, 33, 274, 33, 6
"""Parts of the image of exit.py's IMAGE_VM pages; the library part lies in one block, the program's in two."""
NO_ASLR, CONSERVATIVE, FULL = 0, 1, 2  # kernel.randomize_va_space
R_MMAP, R_STACK, R_TEXT, R_BRK, R_VDSO = 1, 2, 3, 4, 5
LUCK_MASK = (1 << 31) - 1


@law
def luck(row, key, purpose):
    """31 bits of luck that belong to this host, address space and purpose alone.

    Source: fleetsim's own; multiplications stay below 2^62, so that plain Python computes the same.
    """
    x = int(row["host_key"] & LUCK_MASK) ^ int((row["host_key"] >> 31) & LUCK_MASK)
    for word in (int(key) & LUCK_MASK, int(purpose)):
        x = (x * 0x2C1B3C6D + word * 0x297A2D39 + 0x3C6EF35F) & LUCK_MASK
        x = ((x >> 15) ^ x) * 0x2C1B3C6D & LUCK_MASK
        x = ((x >> 13) ^ x) * 0x297A2D39 & LUCK_MASK
        x ^= x >> 16
    return x


@law
def mmap_base(row, key):
    """Page behind the libraries: mappings go below them.

    Source: arch/x86/mm/mmap.c mmap_base, arch_mmap_rnd. The libraries do not straddle 2 MiB here.
    """
    gap = max(GAP_PAGES_MIN, GAP_PAGES)
    if key & 3 > NO_ASLR:
        gap = GAP_PAGES + STACK_RND_MASK + (luck(row, key, R_MMAP) & ((1 << MMAP_RND_BITS) - 1))
    page = TASK_PAGES - gap
    least = LIBRARY_PAGES + VDSO_PAGES
    return page if page % BLOCK >= least else page - page % BLOCK + least + page % (BLOCK - least)


@law
def stack_top(row, key):
    """Page behind the stack.

    Source: fs/binfmt_elf.c randomize_stack_top. Stack and vdso do not straddle 2 MiB here.
    """
    if key & 3 == NO_ASLR:
        return TASK_PAGES
    page = TASK_PAGES - (luck(row, key, R_STACK) & STACK_RND_MASK)
    return page - page % BLOCK + STACK_PAGES + page % (BLOCK - STACK_PAGES - VDSO_PAGES)


@law
def text_start(row, key):
    """First page of a position-independent program: it fills the end of one 2 MiB and the beginning of the next.

    Source: fs/binfmt_elf.c load_elf_binary (ELF_ET_DYN_BASE + arch_mmap_rnd).
    """
    if key & 3 == NO_ASLR:
        return ELF_ET_DYN_BASE
    block = (ELF_ET_DYN_BASE + (luck(row, key, R_TEXT) & ((1 << MMAP_RND_BITS) - 1))) // BLOCK
    most = ELF_ET_DYN_BASE % BLOCK
    return block * BLOCK + (luck(row, key, R_TEXT) % (most + 1) if key & 3 == FULL else most)


@law
def brk_block(row, key):
    """Block at which the heap goes on beyond the HEAP_PAGES below it that the image has of it.

    Source: fs/binfmt_elf.c load_elf_binary (mm->brk), arch/x86/kernel/process.c arch_randomize_brk (randomize_va_space 2).
    """
    after = text_start(row, key) // BLOCK + 2
    return after if key & 3 < FULL else after + 1 + luck(row, key, R_BRK) % BRK_RND_BLOCKS


@law
def is_gigantic(area):
    """True for a mapping of the pool of 1 GiB pages.

    Source: include/linux/hugetlb.h hstate_is_gigantic.
    """
    return area["kind"] == AREA_HUGETLB and area["hstate"] > 0


@law
def blocks_of(row, a):
    """How many blocks of address space area `a` may come to need.

    Source: fleetsim's own (an area that grows has a group as large as it may become).
    """
    area = row["areas"][a]
    pages = area["pages"]
    if area["kind"] == AREA_ANON:
        reach = 0
        for g in range(area["group"], area["group"] + area["groups"]):
            reach += row["groups"][g]["pages"]
        pages = max(pages, reach)
    if is_gigantic(area):
        whole = GIGANTIC_BLOCKS * BLOCK
        pages = (pages + whole - 1) // whole * whole
    return max(1, (pages + BLOCK - 1) // BLOCK)


@law
def get_unmapped_area(row, t, blocks):
    """The highest `blocks` free blocks below the libraries of task `t`.

    returns  int64  first block

    Source: mm/mmap.c arch_get_unmapped_area_topdown. Leaves out: an address space that is full.
    """
    top = mmap_base(row, row["tasks"][t]["mm_key"]) // BLOCK
    moved = True
    while moved:
        moved = False
        for a in range(NR_AREAS):
            area = row["areas"][a]
            if area["kind"] != AREA_FREE and area["task"] == t and area["start"] > 0:
                if area["start"] < top and area["start"] + blocks_of(row, a) > top - blocks:
                    top = area["start"]
                    moved = True
    return max(1, top - blocks)


@law
def place_area(row, a):
    """Give a new area its address; one of 1 GiB pages begins at a whole GiB.

    Source: mm/mmap.c do_mmap; arch/x86/mm/hugetlbpage.c hugetlb_get_unmapped_area (align_mask).
    """
    area = row["areas"][a]
    area["start"] = 0
    over = GIGANTIC_BLOCKS - 1 if is_gigantic(area) else 0  # what aligning may cost
    start = get_unmapped_area(row, area["task"], blocks_of(row, a) + over) + over
    area["start"] = start - start % (over + 1)


@law
def place_heap(row, a):
    """Area `a` is the heap: it goes on where the image's ends, if no other area does.

    Source: mm/mmap.c do_brk_flags.
    """
    area = row["areas"][a]
    block = brk_block(row, row["tasks"][area["task"]]["mm_key"])
    for b in range(NR_AREAS):
        other = row["areas"][b]
        if b != a and other["kind"] != AREA_FREE and other["task"] == area["task"] and other["start"] == block:
            return
    area["start"] = block
