# SPDX-License-Identifier: Apache-2.0
"""Areas that grow, shrink and get holes: the heap behind brk(), pieces given back with madvise (mm/mmap.c, mm/madvise.c).

Such an area has an ordered group as large as it may ever become; its `pages` are what is mapped just now. Which of its pages
are populated is the caller's knowledge: the kernel keeps how many there are in each slice.
Leaves out: RLIMIT_DATA; huge pages (a heap grows by less than one at a time, so no fault finds room for one).
"""

from __future__ import annotations

from fleetsim.hardware.cpu import EXIT, FAULT_ANON
from fleetsim.law import law
from fleetsim.linux.alloc_slowpath import handle_over_high
from fleetsim.linux.events import REFUSED, TABLE_FULL, record
from fleetsim.linux.fault import count_faults, map_anon
from fleetsim.linux.memory import access_ordered, get_pages
from fleetsim.linux.mm_inline import add_pages, list_add
from fleetsim.linux.mm_types import ACCESSED, AREA_ANON, AREA_FREE, LRU_INACTIVE_ANON, LRU_NONE, NR_AREAS, ORDERED
from fleetsim.linux.mmap_layout import brk_block, place_area
from fleetsim.linux.pgtable import add_tables, forget_area
from fleetsim.linux.vma import drop_group, enough_memory, make_groups, vma_link
from fleetsim.linux.zap import zap_cohort


@law
def new_area(row, t, most):
    """An anonymous area without a page yet, which may grow to `most` pages.

    returns  int64  area row; −1: a table is full (an event says so)

    Source: mm/mmap.c do_brk_flags, mmap_region.
    """
    a = -1
    for k in range(NR_AREAS):
        if row["areas"][k]["kind"] == AREA_FREE:
            a = k
            break
    g = make_groups(row, ORDERED, 0, t, most, 0) if a >= 0 else -1
    if g < 0:
        record(row, TABLE_FULL, t, most, 0, 0, 0, 0, 0, 0, 0)
        return -1
    area = row["areas"][a]
    vma_link(area, AREA_ANON, t, -1, g, 1, 1, 0)
    place_area(row, a)
    return a


@law
def resize_area(row, a, change):
    """Map `change` more pages (fewer, if negative) of an area.

    returns  bool  False: ENOMEM

    Source: mm/mmap.c do_brk_flags, do_munmap; mm/util.c __vm_enough_memory.
    """
    area = row["areas"][a]
    task = row["tasks"][area["task"]]
    if change > 0 and not enough_memory(row, area["task"], change, area["accounted"]):
        record(row, REFUSED, area["task"], change, 0, 0, 0, 0, 0, 0, 0)
        return False
    area["pages"] += change
    if change > 0 and area["pages"] > row["groups"][area["group"]]["pages"] and area["start"] != brk_block(row, task["mm_key"]):
        place_area(row, a)  # more than it was cut for
    task["total_vm"] += change
    task["data_vm"] += change
    if area["accounted"]:
        row["committed"] += change
    return True


@law
def release_area(row, a):
    """Take down an area that has no page any more.

    Source: mm/mmap.c remove_vma.
    """
    area = row["areas"][a]
    resize_area(row, a, -area["pages"])
    drop_group(row, area["group"])
    forget_area(row, area)


@law
def slice_of(group, at):
    """Row of the cohort of position `at`; beyond the group's end it begins again.

    Source: fleetsim's own representation.
    """
    return group["first"] + at // group["slice"] % group["cohorts"]


@law
def slices_between(group, start, end):
    """How many slices positions start .. end−1 lie in.

    Source: fleetsim's own representation.
    """
    return min(group["cohorts"], max(1, (end - 1) // group["slice"] - start // group["slice"] + 1))


@law
def populate(row, th, a, start, end, pages):
    """Write to up to `pages` pages, not populated so far, somewhere in positions start .. end−1: the lowest slice with room first.

    returns  int64  pages done (0: come back)

    Source: mm/memory.c do_anonymous_page.
    """
    area = row["areas"][a]
    row["in_lru_fault"] = 1
    task = row["tasks"][area["task"]]
    group = row["groups"][area["group"]]
    i = slice_of(group, end - 1)
    n = pages
    for k in range(slices_between(group, start, end)):
        j = slice_of(group, start + k * group["slice"])
        room = group["slice"] - row["cohorts"][j]["nr"] - row["cohorts"][j]["swapped"]
        if room > 0:
            i = j
            n = min(pages, room)
            break
    n = get_pages(row, th, n)
    if n == 0:
        return 0
    cohort = row["cohorts"][i]
    if cohort["list"] == LRU_NONE:
        cohort["cg"] = task["cg"]
        cohort["flags"] = 0
        list_add(row, i, LRU_INACTIVE_ANON)
    cohort["flags"] |= ACCESSED
    add_pages(row, i, n)
    map_anon(row, task, n)
    add_tables(row, area, end)
    count_faults(row, task, n, 0)
    row["spent_ns"] += n * row["cost"][FAULT_ANON]
    task["stime_ns"] += n * row["cost"][FAULT_ANON]
    if task["cg"] > 0:
        handle_over_high(row, th, n)
    return n


@law
def zap_range(row, a, start, end, pages):
    """Give back up to `pages` populated pages (or their swap slots) spread over positions start .. end−1.

    returns  int64  pages given back

    Source: mm/madvise.c madvise_dontneed_single_vma, mm/mmap.c do_munmap.
    """
    group = row["groups"][row["areas"][a]["group"]]
    have = 0
    slices = slices_between(group, start, end)
    for k in range(slices):
        cohort = row["cohorts"][slice_of(group, start + k * group["slice"])]
        have += cohort["nr"] + cohort["swapped"]
    wanted = min(pages, have)
    left = wanted
    for k in range(slices):
        i = slice_of(group, start + k * group["slice"])
        own = row["cohorts"][i]["nr"] + row["cohorts"][i]["swapped"]
        if left > 0 and own > 0:
            left -= zap_cohort(row, i, min(left, own, (wanted * own + have - 1) // have))
    row["spent_ns"] += (wanted - left) * row["cost"][EXIT]
    return wanted - left


@law
def swapped_between(row, a, start, end):
    """Pages of slices in positions start .. end−1 that are not mapped: in swap or in the swap cache.

    Source: fleetsim's own representation.
    """
    group = row["groups"][row["areas"][a]["group"]]
    total = 0
    for k in range(slices_between(group, start, end)):
        cohort = row["cohorts"][slice_of(group, start + k * group["slice"])]
        cohort["flags"] |= ACCESSED
        total += cohort["swapped"] + cohort["wb"]
    return total


@law
def bring_back(row, th, a, start, end, pages):
    """Write to up to `pages` pages in positions start .. end−1 that are in swap or in the swap cache.

    returns  int64  pages done, 0: come back, −1: there is none

    Source: mm/memory.c do_swap_page.
    """
    g = row["areas"][a]["group"]
    row["in_lru_fault"] = 1
    group = row["groups"][g]
    for k in range(slices_between(group, start, end)):
        i = slice_of(group, start + k * group["slice"])
        out = row["cohorts"][i]["swapped"] + row["cohorts"][i]["wb"]
        if out > 0:
            return access_ordered(row, th, g, (i - group["first"]) * group["slice"], min(pages, out), -1, 1)
    return -1
