# SPDX-License-Identifier: Apache-2.0
"""Address space and resident pages of a process that mallocs: brk, mmap from the top down, and which pages were written.

`pages` has one byte per page: those of the brk heap from its low end up, those of the mmap area at its high end.
Leaves out: huge pages, the zero page (reading makes nothing resident), limits.
Source: mm/mmap.c of Linux 6.1 (unmapped_area_topdown, brk), mm/mremap.c.
"""

from __future__ import annotations

from fleetsim.allocators.glibc_exact_tables import BRK_BASE, MIDDLE, PAGE
from fleetsim.law import law


@law
def touch(row, pages, addr, end):
    """The bytes addr .. end−1 are written: their pages are resident from now on.

    Source: mm/memory.c do_anonymous_page.
    """
    if end <= addr:
        return
    base = BRK_BASE if addr < MIDDLE else row["map_base"]
    for k in range((addr - base) >> 12, ((end - 1 - base) >> 12) + 1):
        if pages[k] == 0:
            pages[k] = 1
            row["resident"] += 1


@law
def drop(row, pages, addr, end):
    """The whole pages addr .. end−1 go back to the kernel (both are multiples of a page).

    Source: mm/memory.c zap_page_range.
    """
    if end <= addr:
        return
    base = BRK_BASE if addr < MIDDLE else row["map_base"]
    for k in range((addr - base) >> 12, (end - base) >> 12):
        if pages[k] != 0:
            pages[k] = 0
            row["resident"] -= 1


@law
def insert_gap(row, at, start, end):
    """Gap number `at`, those from there on one further.

    Source: fleetsim's own table.
    """
    gaps = row["gaps"]
    for k in range(row["nr_gaps"], at, -1):
        gaps[k]["start"] = gaps[k - 1]["start"]
        gaps[k]["end"] = gaps[k - 1]["end"]
    gaps[at]["start"] = start
    gaps[at]["end"] = end
    row["nr_gaps"] += 1


@law
def remove_gap(row, at):
    """Gap number `at` is no more.

    Source: fleetsim's own table.
    """
    gaps = row["gaps"]
    row["nr_gaps"] -= 1
    for k in range(at, row["nr_gaps"]):
        gaps[k]["start"] = gaps[k + 1]["start"]
        gaps[k]["end"] = gaps[k + 1]["end"]


@law
def gap_below(row, addr):
    """Number of the highest gap that begins at or below an address; nr_gaps: none does.

    Source: binary search.
    """
    low, high = 0, row["nr_gaps"]
    while low < high:
        middle = (low + high) // 2
        if row["gaps"][middle]["start"] <= addr:
            high = middle
        else:
            low = middle + 1
    return low


@law
def map_area(row, size):
    """Address of a new mapping of `size` bytes: at the end of the highest hole that is large enough.

    Source: mm/mmap.c unmapped_area_topdown.
    """
    for k in range(row["nr_gaps"]):
        gap = row["gaps"][k]
        if gap["end"] - gap["start"] >= size:
            gap["end"] -= size
            at = gap["end"]
            if gap["end"] == gap["start"]:
                remove_gap(row, k)
            return at
    row["map_low"] -= size
    return row["map_low"]


@law
def map_at(row, addr, size):
    """A mapping at a wanted address if nothing is there, else anywhere.

    Source: mm/mmap.c arch_get_unmapped_area_topdown (hint).
    """
    k = gap_below(row, addr)
    if k < row["nr_gaps"] and row["gaps"][k]["end"] >= addr + size:
        start, end = row["gaps"][k]["start"], row["gaps"][k]["end"]
        remove_gap(row, k)
        if start < addr:
            insert_gap(row, k, start, addr)
        if addr + size < end:
            insert_gap(row, k, addr + size, end)
        return addr
    return map_area(row, size)


@law
def unmap_area(row, pages, addr, size):
    """munmap() of part of the mmap area; holes beside each other become one.

    Source: mm/mmap.c do_munmap.
    """
    drop(row, pages, addr, addr + size)
    end = addr + size
    k = gap_below(row, addr)  # the hole below, if any, is number k; the one above number k−1
    above = k > 0 and row["gaps"][k - 1]["start"] == end
    if above:
        end = row["gaps"][k - 1]["end"]
    below = k < row["nr_gaps"] and row["gaps"][k]["end"] == addr
    start = row["gaps"][k]["start"] if below else addr
    if below:
        remove_gap(row, k)
    if above:
        remove_gap(row, k - 1)
        k -= 1
    if start == row["map_low"]:
        row["map_low"] = end
    else:
        insert_gap(row, k, start, end)


@law
def remap_area(row, pages, addr, old, size):
    """mremap(MREMAP_MAYMOVE): shrinks or grows in place where it can, else moves with its pages; returns the address.

    Source: mm/mremap.c.
    """
    if size < old:
        unmap_area(row, pages, addr + size, old - size)
        return addr
    k = gap_below(row, addr + old)
    if k < row["nr_gaps"] and row["gaps"][k]["start"] == addr + old and row["gaps"][k]["end"] >= addr + size:
        row["gaps"][k]["start"] = addr + size
        if row["gaps"][k]["end"] == addr + size:
            remove_gap(row, k)
        return addr
    to = map_area(row, size)
    a, b = (addr - row["map_base"]) // PAGE, (to - row["map_base"]) // PAGE
    for n in range(old // PAGE):
        pages[b + n] = pages[a + n]
        row["resident"] += pages[b + n]
    unmap_area(row, pages, addr, old)
    return to


@law
def sbrk(row, pages, increment):
    """Move the break by `increment` bytes; what lies above it is gone.

    Source: mm/mmap.c brk.
    """
    before = row["brk"]
    row["brk"] += increment
    if increment < 0:
        drop(row, pages, row["brk"], before)
