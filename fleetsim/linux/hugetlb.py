# SPDX-License-Identifier: Apache-2.0
"""Pools of huge pages that an administrator sets aside (mm/hugetlb.c): 2 MiB and 1 GiB.

    nr = persistent + surplus;   free ≤ nr;   resv of the free ones are promised to mappings that have not touched them yet

A pool page has left MemFree and MemAvailable for good, used or not; it is in no task's RSS, on no list, never swapped.
Setting nr_hugepages grows the pool page by page (reclaiming what it needs, and giving up where a task would wait) or
shrinks it: pages in use become surplus and go when they are freed.
Rules: counts in huge pages of the pool; `row["hugetlb"]` is their sum in pages of 4 KiB.
Leaves out: NUMA policies, vmemmap optimisation, the hugetlb cgroup controller, shared mappings; whether free memory is in
one piece is the allocator's business (free memory counts as such here).
Source: mm/hugetlb.c (Linux 6.1); kernel-laws §11.3.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import ACCESS, HUGE_CLEAR, HUGE_FREE, SYSCALL, TICK
from fleetsim.law import law
from fleetsim.linux.alloc_slowpath import bill_reclaim, should_reclaim_retry, until_written
from fleetsim.linux.events import REFUSED, TABLE_FULL, record
from fleetsim.linux.fault import count_faults
from fleetsim.linux.kswapd import wakeup_kswapd
from fleetsim.linux.mempolicy import first_node
from fleetsim.linux.mm_types import (
    AREA_FREE,
    AREA_HUGETLB,
    BY_DIRECT,
    MAX_RECLAIM_RETRIES,
    NR_AREAS,
    NR_ZONES,
    VM,
    WMARK_LOW,
    WMARK_MIN,
)
from fleetsim.linux.mmap_layout import place_area
from fleetsim.linux.nodes import numa_statistics, zone_allowed, zonelist
from fleetsim.linux.pgtable import account_tables, forget_area
from fleetsim.linux.vma import vma_link
from fleetsim.linux.vmscan import do_try_to_free_pages
from fleetsim.linux.zonelist import pin_got, rmqueue, unpin

BUDDY_SUCCESS, BUDDY_FAIL = VM["htlb_buddy_alloc_success"], VM["htlb_buddy_alloc_fail"]
HUGE = 512  # pages of 4 KiB in a huge page of 2 MiB
GIGANTIC = 262_144
COMPACT_GAP = 2 * HUGE  # reclaim for a huge page goes on until so much came free (compact_gap of order 9)
PER_CALL = 32  # huge pages made or freed between two looks of the rest of the host


@law
def pages_of(h):
    """Pages of 4 KiB in one huge page of pool `h`.

    Source: include/linux/hugetlb.h pages_per_huge_page.
    """
    return HUGE if h == 0 else GIGANTIC


@law
def take_block(row, h, mark):
    """One huge page from the free memory of a single zone, staying above a watermark.

    returns  bool

    Source: mm/page_alloc.c get_page_from_freelist (order 9), alloc_contig_pages for 1 GiB; kernel-laws §1.5.
    """
    pages = pages_of(h)
    for place in range(NR_ZONES):
        z = zonelist(row["preferred_node"], place)
        zone = row["zones"][z]
        if zone_allowed(row, z, row["mems_allowed"]) and zone["free"] - pages >= zone["wmark"][mark] + zone["reserve"]:
            rmqueue(row, pages, mark)
            first = first_node(row["mems_allowed"], row["preferred_node"])
            for part in range(NR_ZONES):
                numa_statistics(row, part, -row["got"][part], first)
            numa_statistics(row, z, 1, first)  # one block
            pin_got(row)
            return True
    return False


@law
def alloc_fresh(row, th, h):
    """One huge page for a pool. A call makes at most one round of reclaim.

    returns  int64  1: got it, 0: come back, −1: it cannot be had

    Source: mm/hugetlb.c alloc_buddy_huge_page (__GFP_RETRY_MAYFAIL); mm/page_alloc.c __alloc_pages_slowpath, mm/vmscan.c
    should_continue_reclaim (an order-9 request reclaims compact_gap pages); kernel-laws §2.2.
    """
    thread = row["threads"][th]
    if take_block(row, h, WMARK_LOW):
        thread["no_progress"] = 0
        return 1
    if h > 0:
        return -1
    wakeup_kswapd(row)
    if take_block(row, h, WMARK_MIN):
        thread["no_progress"] = 0
        return 1
    reclaimed = do_try_to_free_pages(row, 0, COMPACT_GAP, BY_DIRECT)
    bill_reclaim(row, until_written(row) if reclaimed + row["scan"][1]["sent"] > 0 else row["cost"][TICK])
    if reclaimed + row["scan"][1]["sent"] > 0:
        thread["no_progress"] = 0
        return 0
    thread["no_progress"] += 1
    if thread["no_progress"] <= MAX_RECLAIM_RETRIES and should_reclaim_retry(row):
        return 0
    thread["no_progress"] = 0
    return -1


@law
def new_huge_page(row, h):
    """A huge page just taken is free in its pool.

    Source: mm/hugetlb.c prep_new_huge_page, enqueue_huge_page.
    """
    row["hstates"][h]["nr"] += 1
    row["hstates"][h]["free"] += 1
    row["hugetlb"] += pages_of(h)
    row["spent_ns"] += row["cost"][HUGE_CLEAR] * (pages_of(h) // HUGE)  # init_on_alloc


@law
def free_to_buddy(row, h):
    """A free huge page goes back to the allocator.

    Source: mm/hugetlb.c update_and_free_page.
    """
    row["hstates"][h]["nr"] -= 1
    row["hstates"][h]["free"] -= 1
    row["hugetlb"] -= pages_of(h)
    unpin(row, pages_of(h))
    row["spent_ns"] += row["cost"][HUGE_FREE]


@law
def set_max_huge_pages(row, th, h, count):
    """A write to nr_hugepages; a large change takes several calls.

        grow    surplus pages become persistent, then new ones are made until `count`, or until one cannot be had
        shrink  free, unpromised pages go; what is still above `count` becomes surplus

    returns  bool  False: come back

    Source: mm/hugetlb.c set_max_huge_pages; kernel-laws §11.3.
    """
    pool = row["hstates"][h]
    persistent = pool["nr"] - pool["surplus"]
    if count > persistent and pool["surplus"] > 0:
        kept = min(pool["surplus"], count - persistent)
        pool["surplus"] -= kept
        persistent += kept
    for _ in range(PER_CALL):
        if count <= persistent:
            break
        got = alloc_fresh(row, th, h)
        if got <= 0:
            row["vm"][BUDDY_FAIL] += 1 if got < 0 and h == 0 else 0
            return got < 0
        new_huge_page(row, h)
        row["vm"][BUDDY_SUCCESS] += 1 if h == 0 else 0
        persistent += 1
    if count > persistent:
        return False
    shrink_pool(row, h, count)
    return True


@law
def resize_pool(row, h, count):
    """nr_hugepages as the command line or an administrator at boot sets it: from memory that is free, without reclaim.

    Source: mm/hugetlb.c hugetlb_hstate_alloc_pages, __nr_hugepages_store_common.
    """
    pool = row["hstates"][h]
    while count > pool["nr"] - pool["surplus"] and take_block(row, h, WMARK_LOW):
        new_huge_page(row, h)
        row["vm"][BUDDY_SUCCESS] += 1 if h == 0 else 0
    shrink_pool(row, h, count)
    row["spent_ns"] = 0  # nobody's bill


@law
def shrink_pool(row, h, count):
    """Free unpromised pages go down to `count`; what is in use above it becomes surplus.

    Source: mm/hugetlb.c set_max_huge_pages (its second half).
    """
    pool = row["hstates"][h]
    persistent = pool["nr"] - pool["surplus"]
    least = max(count, pool["resv"] + pool["nr"] - pool["free"])
    while least < persistent:
        free_to_buddy(row, h)
        persistent -= 1
    if count < persistent:
        pool["surplus"] += persistent - count


@law
def hugetlb_acct_memory(row, h, pages):
    """Promise `pages` huge pages to a mapping, making surplus pages as far as nr_overcommit_hugepages allows.

    returns  bool  False: ENOMEM, and nothing has changed

    Source: mm/hugetlb.c hugetlb_acct_memory, gather_surplus_pages; kernel-laws §11.3, T-11.3.
    """
    pool = row["hstates"][h]
    made = 0
    while pool["resv"] + pages > pool["free"]:
        if h > 0 or pool["surplus"] >= pool["overcommit"] or not take_block(row, h, WMARK_LOW):  # no surplus of gigantic pages
            for _ in range(made):
                free_to_buddy(row, h)
                pool["surplus"] -= 1
            return False
        new_huge_page(row, h)
        pool["surplus"] += 1
        made += 1
    pool["resv"] += pages
    return True


@law
def map_hugetlb(row, th, pages, h):
    """mmap(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB) of `pages` pages of 4 KiB, from pool `h` (1: with MAP_HUGE_1GB).

    returns  int64  area, or −1 for ENOMEM

    Source: mm/hugetlb.c hugetlb_reserve_pages; kernel-laws §11.3.
    """
    row["spent_ns"] += row["cost"][SYSCALL]
    t = row["threads"][th]["task"]
    size = pages_of(h)
    huge = (pages + size - 1) // size
    for a in range(NR_AREAS):
        area = row["areas"][a]
        if area["kind"] == AREA_FREE:
            if not hugetlb_acct_memory(row, h, huge):
                record(row, REFUSED, t, pages, 0, 0, 0, 0, 0, 0, 0)
                return -1
            vma_link(area, AREA_HUGETLB, t, -1, -1, 0, 0, pages)
            area["hstate"] = h
            place_area(row, a)
            row["tasks"][t]["total_vm"] += huge * size
            return a
    record(row, TABLE_FULL, t, pages, 0, 0, 0, 0, 0, 0, 0)
    return -1


@law
def hugetlb_fault(row, th, a, pages):
    """Touch up to `pages` more pages of a hugetlb area, in order: each huge page is one minor fault that takes a promised page.

    returns  int64  pages done

    Source: mm/hugetlb.c hugetlb_no_page, dequeue_huge_page_vma; kernel-laws §11.3, T-11.3.
    """
    area = row["areas"][a]
    task = row["tasks"][area["task"]]
    size = pages_of(area["hstate"])
    pool = row["hstates"][area["hstate"]]
    n = min(pages, size - area["touched"] % size)
    new = False
    if area["touched"] % size == 0:
        if pool["free"] == 0:  # its promise was lost with MADV_DONTNEED and nothing is left: SIGBUS in life
            return -1
        pool["free"] -= 1
        pool["resv"] = max(0, pool["resv"] - 1)
        task["hugetlb"] += size
        count_faults(row, task, 1, 0)
        row["spent_ns"] += row["cost"][HUGE_CLEAR] * (size // HUGE)
        task["stime_ns"] += row["cost"][HUGE_CLEAR] * (size // HUGE)
        new = True
    area["touched"] += n
    if new:
        account_tables(row, area["task"])
    row["spent_ns"] += n * row["cost"][ACCESS]
    return n


@law
def put_huge_pages(row, h, pages):
    """`pages` huge pages in use are freed: surplus ones leave the pool, the others are free in it.

    Source: mm/hugetlb.c free_huge_page.
    """
    pool = row["hstates"][h]
    for _ in range(pages):
        pool["free"] += 1
        if pool["surplus"] > 0:
            pool["surplus"] -= 1
            free_to_buddy(row, h)


@law
def zap_hugetlb(row, a):
    """MADV_DONTNEED of a hugetlb area: its pages go back to the pool; they are promised anew as far as there are any.

    Source: mm/hugetlb.c __unmap_hugepage_range.
    """
    area = row["areas"][a]
    task = row["tasks"][area["task"]]
    h = area["hstate"]
    size, pool = pages_of(h), row["hstates"][h]
    used = (area["touched"] + size - 1) // size
    put_huge_pages(row, h, used)
    task["hugetlb"] -= used * size
    area["touched"] = 0
    pool["resv"] = min(pool["free"], pool["resv"] + used)


@law
def unmap_hugetlb(row, a):
    """munmap or exit of a hugetlb area: its pages and its promises go.

    Source: mm/hugetlb.c hugetlb_vm_op_close, __unmap_hugepage_range.
    """
    area = row["areas"][a]
    task = row["tasks"][area["task"]]
    h = area["hstate"]
    size, pool = pages_of(h), row["hstates"][h]
    huge = (area["pages"] + size - 1) // size
    used = (area["touched"] + size - 1) // size
    pool["resv"] = max(0, pool["resv"] - (huge - used))
    put_huge_pages(row, h, used)
    while pool["surplus"] > 0 and pool["free"] > pool["resv"]:  # surplus pages nobody took
        pool["surplus"] -= 1
        free_to_buddy(row, h)
    task["hugetlb"] -= used * size
    task["total_vm"] -= huge * size
    forget_area(row, area)
