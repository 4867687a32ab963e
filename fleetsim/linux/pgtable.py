# SPDX-License-Identifier: Apache-2.0
"""Page tables, counted from what is populated: a page for each 2 MiB and for each 1 GiB of address space that has one (mm/memory.c).

    pgtables = tables of the image + Σ over areas of `tables` + 1 GiB slots in which any of them lies

An area's tables stand for whole blocks of 2 MiB, from that of its first mapped page up to the highest that was ever populated; they
stay when pages go (MADV_DONTNEED) and go when the address space does (munmap, exit, brk). A mapping of the hugetlb pool has no page
tables for 2 MiB, only those for 1 GiB, and one of 1 GiB pages not even these.
NR_PAGETABLE and memory.stat count these two levels; the table for each 512 GiB (PUD) and the top one are the kernel's, counted
among its other memory of a program (`base_slab`), and VmPTE and badness have the PUDs besides (`mm_pgtables`).
Source: mm/memory.c __pte_alloc, __pmd_alloc, free_pgtables; arch/x86/mm/pgtable.c (Linux 6.1: only PTE and PMD tables have a
constructor that counts them); kernel-laws §11.1, T-11.1, T-11.2.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.memcontrol import charge
from fleetsim.linux.mm_types import AREA_FREE, AREA_HUGETLB, NR_AREAS, WMARK_MIN
from fleetsim.linux.mmap_layout import BLOCK, FULL, GIGANTIC_BLOCKS, brk_block, is_gigantic, mmap_base, stack_top, text_start
from fleetsim.linux.zonelist import pin_got, rmqueue, unpin

BLOCKS_PER_PMD, BLOCKS_PER_PUD = 512, 512 * 512  # a page of PMDs maps 1 GiB, one of PUDs 512 GiB
IMAGE_PARTS = 5


@law
def image_block(row, key, part):
    """Block of 2 MiB that part 0 … 4 of a program's image lies in: text, data, stack, libraries, heap.

    Source: mmap_layout.py.
    """
    if part < 2:
        return text_start(row, key) // BLOCK + part
    if part == 2:
        return (stack_top(row, key) - 1) // BLOCK
    return mmap_base(row, key) // BLOCK if part == 3 else brk_block(row, key) - 1


@law
def image_tables(key):
    """Page tables of a program's image: one for each of its blocks; without a random offset heap and data share one.

    Source: mmap_layout.py; with FULL and the PMD tables they are the eight that were measured (exit.py).
    """
    return IMAGE_PARTS if key & 3 == FULL else IMAGE_PARTS - 1


@law
def populated_blocks(area):
    """(int64 first block, int64 how many) of an area that have page tables, or huge pages in their place.

    Source: mm/memory.c free_pgtables (what lay below the first page still mapped is gone).
    """
    first = area["start"] + area["cut"] // BLOCK
    if is_gigantic(area):
        return first, (area["touched"] + BLOCK * GIGANTIC_BLOCKS - 1) // (BLOCK * GIGANTIC_BLOCKS) * GIGANTIC_BLOCKS
    if area["kind"] == AREA_HUGETLB:
        return first, (area["touched"] + BLOCK - 1) // BLOCK
    return first, area["tables"]


@law
def mapped_above(area, per):
    """True if an area's pages are mapped by entries above the tables that map `per` blocks each: a page of 1 GiB by a PUD entry.

    Source: mm/hugetlb.c huge_pte_alloc.
    """
    return per == BLOCKS_PER_PMD and is_gigantic(area)


@law
def has_table(row, t, per, slot, upto):
    """True if the image of task `t`, or one of its areas before row `upto`, has something in a slot of `per` blocks.

    Source: mm/memory.c __pmd_alloc, __pud_alloc (one for all).
    """
    for part in range(IMAGE_PARTS):
        if image_block(row, row["tasks"][t]["mm_key"], part) // per == slot:
            return True
    for a in range(upto):
        area = row["areas"][a]
        if area["kind"] != AREA_FREE and area["task"] == t and not mapped_above(area, per):
            first, blocks = populated_blocks(area)
            if blocks > 0 and first // per <= slot <= (first + blocks - 1) // per:
                return True
    return False


@law
def upper_tables(row, t, per):
    """Tables of task `t` that map `per` blocks each: BLOCKS_PER_PMD or BLOCKS_PER_PUD.

    Source: mm/memory.c __pmd_alloc, __pud_alloc. Areas do not share a block, so only an area's first and last slot can be another's too.
    """
    key = row["tasks"][t]["mm_key"]
    count = 0
    for part in range(IMAGE_PARTS):
        new = 1
        for before in range(part):
            if image_block(row, key, before) // per == image_block(row, key, part) // per:
                new = 0
        count += new
    for a in range(NR_AREAS):
        area = row["areas"][a]
        if area["kind"] == AREA_FREE or area["task"] != t or mapped_above(area, per):
            continue
        first, blocks = populated_blocks(area)
        if blocks == 0:
            continue
        low, high = first // per, (first + blocks - 1) // per
        count += high - low + 1
        if has_table(row, t, per, low, a):
            count -= 1
        if high > low and has_table(row, t, per, high, a):
            count -= 1
    return count


@law
def nr_tables(row, t):
    """Page-table pages of task `t` that NR_PAGETABLE counts: those of PTEs and of PMDs.

    Source: mm/memory.c __pte_alloc, __pmd_alloc.
    """
    count = image_tables(row["tasks"][t]["mm_key"]) + upper_tables(row, t, BLOCKS_PER_PMD)
    for a in range(NR_AREAS):
        area = row["areas"][a]
        if area["kind"] != AREA_FREE and area["task"] == t:
            count += area["tables"]
    return count


@law
def mm_pgtables(row, t):
    """Page-table pages of task `t`, all but the top one: VmPTE, and what badness counts.

    Source: include/linux/mm.h mm_pgtables_bytes.
    """
    return row["tasks"][t]["pgtables"] + upper_tables(row, t, BLOCKS_PER_PUD)


@law
def account_tables(row, t):
    """Take or give back page-table pages until task `t` has as many as it needs.

    Source: mm/memory.c __pte_alloc, free_pgtables (GFP_PGTABLE_USER: charged to the task's cgroup).
    """
    task = row["tasks"][t]
    change = nr_tables(row, t) - task["pgtables"]
    if change > 0:
        change = rmqueue(row, change, WMARK_MIN)  # what is short now is made up for the next time
        pin_got(row)
    else:
        unpin(row, -change)
    row["page_tables"] += change
    task["pgtables"] += change
    charge(row, task["cg"], change)
    at = task["cg"]
    while at >= 0:
        row["cgroups"][at]["pagetables"] += change
        row["cgroups"][at]["kernel"] += change
        at = row["cgroups"][at]["parent"]


@law
def add_tables(row, area, upto):
    """Page tables for what is still mapped of the first `upto` pages of an area.

    Source: mm/memory.c __pte_alloc; kernel-laws §11.1.
    """
    want = (min(upto, area["pages"]) + BLOCK - 1) // BLOCK - area["cut"] // BLOCK - area["tables"]
    if want > 0:
        area["tables"] += want
        account_tables(row, area["task"])


@law
def trim_tables(row, area, upto):
    """Page tables that map nothing below page `upto` of an area go.

    Source: mm/memory.c free_pgtables (the end of an area is unmapped).
    """
    keep = max(0, (upto + BLOCK - 1) // BLOCK - area["cut"] // BLOCK)
    if area["tables"] > keep:
        area["tables"] = keep
        account_tables(row, area["task"])
    area["pte_upto"] = min(area["pte_upto"], (upto + BLOCK - 1) // BLOCK * BLOCK)


@law
def forget_area(row, area):
    """An area is unmapped: its row is free, its page tables go.

    Source: mm/mmap.c unmap_region, remove_vma.
    """
    area["tables"] = 0
    area["kind"] = AREA_FREE
    account_tables(row, area["task"])


@law
def free_tables(row, task, pages):
    """Give back the last page-table pages of a task whose address space is gone.

    Source: mm/memory.c free_pgtables.
    """
    unpin(row, pages)
    row["page_tables"] -= pages
    task["pgtables"] -= pages
    charge(row, task["cg"], -pages)
    at = task["cg"]
    while at >= 0:
        row["cgroups"][at]["pagetables"] -= pages
        row["cgroups"][at]["kernel"] -= pages
        at = row["cgroups"][at]["parent"]
