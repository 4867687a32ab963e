# SPDX-License-Identifier: Apache-2.0
"""Anonymous memory: first touch, access, swap-in (mm/memory.c do_anonymous_page, do_swap_page, handle_mm_fault).

An ordered group is walked by a cursor: what is missing of a slice are its lowest positions, so they come first. The
slice's accessed bit is set when the cursor leaves it; a slice most of which comes back from swap is moved to the head
of its list when the cursor enters. A uniform group's accesses are expected values: `n` accesses to `N` pages of which
`m` are missing fault n·m/N times.

Within a slice the pages are thought to lie in this order: in swap, unmapped in the swap cache, mapped, and last the holes that
a partial free or a dropped MADV_FREE left, so that a pass meets each of them once.
Huge pages are in `huge_memory.py`. Leaves out: copy-on-write (fork), shared anonymous memory.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import ACCESS, FAULT_ANON, FAULT_MINOR
from fleetsim.law import Q, law
from fleetsim.linux.alloc_slowpath import alloc_pages, handle_over_high, try_charge
from fleetsim.linux.bags import blend_base, expected, open_bag
from fleetsim.linux.fault import count_faults, join_list, map_anon
from fleetsim.linux.huge_memory import at_pmd_none, do_huge_pmd_anonymous_page, hugepage_vma_check, touch_ahead
from fleetsim.linux.lru_gen import lru_gen_enabled
from fleetsim.linux.memcontrol import add_swap
from fleetsim.linux.mm_inline import add_pages, count_mlocked, list_add, list_move
from fleetsim.linux.mm_types import (
    ACCESSED,
    LRU_ACTIVE_ANON,
    LRU_INACTIVE_ANON,
    LRU_NONE,
    ORDERED,
    REFERENCED,
    SHADOW_WORKINGSET,
    WORKINGSET,
)
from fleetsim.linux.page_io import do_sigbus, read_fails
from fleetsim.linux.pgtable import add_tables
from fleetsim.linux.rmap import with_slot
from fleetsim.linux.swap_state import add_swap_cache, keep_slots
from fleetsim.linux.swapfile import free_slots, free_synchronous
from fleetsim.linux.swapin import finish_swap_in, keeps_slot, read_swap, remap, swap_in, swapin_window, write_clean
from fleetsim.linux.workingset_clock import keeps_workingset, workingset_refault

PTES = 512  # pages one page-table page maps
FRESH = 4  # a page just faulted in counts as accessed with probability 1 − e^−4


@law
def get_pages(row, th, pages):
    """Charge and allocate up to `pages` pages for a thread.

    returns  int64  pages got; 0: come back when the bill is paid

    Source: mm/memory.c alloc_anon_folio: charge, then the buddy allocator.
    """
    allowed = try_charge(row, th, pages)
    if allowed == 0:
        return 0
    return alloc_pages(row, th, allowed)


@law
def new_pages(row, th, g, i, pages):
    """Write faults on up to `pages` pages of group `g` that have no content yet.

    i        int64  cohort of an ORDERED group, not looked at for a UNIFORM one
    returns  int64  pages done (0: come back)

    Source: mm/memory.c do_anonymous_page; kernel-laws §3.1 (new pages join inactive_anon), §10.1.
    """
    group = row["groups"][g]
    task = row["tasks"][group["task"]]
    n = get_pages(row, th, pages)
    if n == 0:
        return 0
    lru = join_list(row, g, LRU_INACTIVE_ANON)
    if group["kind"] == ORDERED:
        cohort = row["cohorts"][i]
        if cohort["list"] == LRU_NONE:
            cohort["cg"] = task["cg"]
            cohort["flags"] = ACCESSED
            list_add(row, i, lru)
        cohort["flags"] |= ACCESSED
    else:
        i = open_bag(row, g, task["cg"], lru, 0)
        blend_base(row["cohorts"][i], n, group["touches"] - FRESH * group["pages"])  # the fault itself is an access
    add_pages(row, i, n)
    if group["locked"] > 0:
        count_mlocked(row, n)
    map_anon(row, task, n)
    count_faults(row, task, n, 0)
    row["spent_ns"] += n * row["cost"][FAULT_ANON]
    task["stime_ns"] += n * row["cost"][FAULT_ANON]
    if task["cg"] > 0:
        handle_over_high(row, th, n)
    return n


@law
def touch_new(row, th, a, pages):
    """Write to the next `pages` never-touched pages of area `a`, in order.

    returns  int64  pages done (may be fewer, or 0: come back)

    Source: mm/memory.c do_anonymous_page; kernel-laws §3.1 (new pages join inactive_anon), §10.1.
    """
    area = row["areas"][a]
    task = row["tasks"][area["task"]]
    at = area["touched"]
    g = area["group"]
    if area["groups"] == 2 and at >= row["groups"][g]["pages"]:
        at -= row["groups"][g]["pages"]
        g += 1
    group = row["groups"][g]
    if area["ahead"] > 0:
        return touch_ahead(row, area, task, pages)
    if row["thp_enabled"] > 0 and area["touched"] % PTES == 0 and at_pmd_none(area) and hugepage_vma_check(row, area):
        if do_huge_pmd_anonymous_page(row, th, a, g, at):
            map_anon(row, task, PTES)
            add_tables(row, area, area["touched"] + PTES)
            count_faults(row, task, 1, 0)
            if task["cg"] > 0:
                handle_over_high(row, th, PTES)
            return touch_ahead(row, area, task, pages)
    n = min(pages, group["pages"] - at)
    i = -1
    if group["kind"] == ORDERED:
        i = group["first"] + at // group["slice"]
        n = min(n, group["slice"] - at % group["slice"])
    n = new_pages(row, th, g, i, n)
    if n == 0:
        return 0
    area["touched"] += n
    area["pte_upto"] = max(area["pte_upto"], area["touched"])
    add_tables(row, area, area["touched"])
    return n


@law
def read_zero(row, th, a, at, pages):
    """Read `pages` pages of a private anonymous area none of which was ever written to: they map the shared zero page.

    A page read for the first time is one minor fault and costs no memory but its page table.
    at       int64  position of the reader's cursor (every page below `zero` was read before), −1: at random
    returns  int64  pages done

    Source: mm/memory.c do_anonymous_page (read fault); kernel-laws §10.1. Leaves out: the huge zero page.
    """
    area = row["areas"][a]
    task = row["tasks"][area["task"]]
    unread = area["pages"] - area["zero"]
    faults = 0
    if at < 0 and unread > 0:
        faults = min(unread, expected(row["groups"][area["group"]], pages, (unread << Q) // area["pages"]))
        add_tables(row, area, area["pages"])  # random places: soon one page of every 2 MiB
    elif at >= 0:
        faults = max(0, at + pages - max(at, area["zero"]))
        add_tables(row, area, area["zero"] + faults)
    area["zero"] += faults
    count_faults(row, task, faults, 0)
    row["spent_ns"] += faults * row["cost"][FAULT_MINOR] + pages * row["cost"][ACCESS]
    task["stime_ns"] += faults * row["cost"][FAULT_MINOR]
    task["utime_ns"] += pages * row["cost"][ACCESS]
    return pages


@law
def read_holes(row, th, pages):
    """Read `pages` pages of private memory that have no content: the zero page is mapped.

    Source: mm/memory.c do_anonymous_page (read fault). Leaves out: a second read of the same page does not fault.
    """
    task = row["tasks"][row["threads"][th]["task"]]
    count_faults(row, task, pages, 0)
    row["spent_ns"] += pages * row["cost"][FAULT_MINOR]
    task["stime_ns"] += pages * row["cost"][FAULT_MINOR]


@law
def enter_slice(row, th, i):
    """The cursor enters an ordered cohort most of which is in swap: decide now where the pages that come back will stand.

    Source: mm/workingset.c workingset_refault, for the whole slice; fleetsim's representation for the rest.
    """
    cohort = row["cohorts"][i]
    if cohort["swapped"] == 0:
        return
    cg = row["tasks"][row["threads"][th]["task"]]["cg"]
    activate = workingset_refault(row, i, cg, False, cohort["swapped"])
    hot = keeps_workingset(row, cohort, activate)
    if cohort["swapped"] * 2 < cohort["nr"] + cohort["swapped"] and cohort["list"] != LRU_NONE:
        return
    target = join_list(row, cohort["group"], LRU_ACTIVE_ANON if activate else LRU_INACTIVE_ANON)
    if cohort["list"] == LRU_NONE:
        cohort["flags"] &= ~(ACCESSED | REFERENCED | WORKINGSET)
        list_add(row, i, target)
    else:
        list_move(row, i, target)
    if hot:
        cohort["flags"] |= WORKINGSET


@law
def access_ordered(row, th, g, at, pages, span, write):
    """Access up to `pages` pages of an ordered group from position `at`; never beyond the slice.

    span     int64  pages of the group that were touched so far: what is missing below is a hole; −1: its caller knows of none
    write    int64  1: the pages are written to, 0: only read
    returns  int64  pages done (0: come back)

    Source: mm/memory.c handle_pte_fault; see the module for the cursor's rules.
    """
    group = row["groups"][g]
    i = group["first"] + at // group["slice"]
    cohort = row["cohorts"][i]
    offset = at % group["slice"]
    length = min(group["slice"], (span if span >= 0 else group["pages"]) - (at - offset))
    n = min(pages, length - offset)
    if offset == 0:
        enter_slice(row, th, i)
    holes = length - cohort["nr"] - cohort["swapped"] if span >= 0 else 0
    if cohort["swapped"] > 0:
        if read_fails(row, g, min(n, cohort["swapped"])):
            do_sigbus(row, row["threads"][th]["task"])
            return 0
        n = get_pages(row, th, min(n, cohort["swapped"]))
        if n == 0:
            return 0
        swap_in(row, th, i, n, swapin_window(row, g), LRU_INACTIVE_ANON, write)  # a sweep hits all it reads ahead
        if row["tasks"][row["threads"][th]["task"]]["cg"] > 0:
            handle_over_high(row, th, n)
    elif cohort["wb"] > 0:
        n = min(n, cohort["wb"])
        remap(row, th, i, n, write)
    elif holes > 0 and offset >= length - holes:
        if write:
            n = new_pages(row, th, g, i, min(n, holes))
            if n == 0:
                return 0
        else:
            read_holes(row, th, n)
    else:
        if holes > 0:
            n = min(n, length - holes - offset)
        if write and cohort["clean"] > 0:
            n = min(n, cohort["clean"])
            write_clean(row, th, i, n)
        row["spent_ns"] += n * row["cost"][ACCESS]
    row["tasks"][row["threads"][th]["task"]]["utime_ns"] += n * row["cost"][ACCESS]
    if offset + n == length:
        cohort["flags"] |= ACCESSED
    return n


@law
def fault_uniform(row, th, g, pages, write):
    """Bring back `pages` swapped pages of a uniform group, taken from its bags in proportion.

    returns  int64  pages done

    Source: mm/memory.c do_swap_page; random access reads no ahead once its windows were in vain (kernel-laws §12.2).
    """
    group = row["groups"][g]
    task = row["tasks"][row["threads"][th]["task"]]
    if read_fails(row, g, pages):
        do_sigbus(row, row["threads"][th]["task"])
        return 0
    n = get_pages(row, th, pages)
    if n == 0:
        return 0
    left = n
    source = -1
    kept = keeps_slot(row, task["cg"], g, write)
    for k in range(group["cohorts"]):
        cohort = row["cohorts"][group["first"] + k]
        if cohort["swapped"] > 0 and left > 0:
            share = min(left, cohort["swapped"], (n * cohort["swapped"] + group["swapped"] - 1) // group["swapped"])
            cohort["swapped"] -= share
            add_swap(row, cohort["cg"], -share)
            left -= share
            source = group["first"] + k
    activate = workingset_refault(row, source, task["cg"], False, n)
    flags = WORKINGSET if lru_gen_enabled(row) and row["cohorts"][source]["flags"] & SHADOW_WORKINGSET else 0
    target = open_bag(row, g, task["cg"], join_list(row, g, LRU_ACTIVE_ANON if activate else LRU_INACTIVE_ANON), flags)
    blend_base(row["cohorts"][target], n, group["touches"] - FRESH * group["pages"])
    major = read_swap(row, th, g, n, 1, row["cohorts"][source]["flags"] & SHADOW_WORKINGSET > 0)
    slots = with_slot(row, group)
    add_pages(row, target, n)
    finish_swap_in(row, th, g, task["cg"], n, slots, major)
    done = n
    if kept:  # charged to whom they are mapped by now, whichever cgroup held them
        n -= free_synchronous(row, g)
        add_swap(row, task["cg"], n)
        add_swap_cache(row, task["cg"], n)
        keep_slots(row, target, n)
    else:
        free_slots(row, g, n, 0)
    return done


@law
def access_cached(row, th, g, accesses, span, write):
    """Random accesses meet pages in the swap cache and clean ones: unmapped pages are mapped, written ones give up their copy.

    Source: mm/memory.c do_swap_page, do_wp_page; expected values (kernel-laws §20.2).
    """
    group = row["groups"][g]
    for k in range(group["cohorts"]):
        i = group["first"] + k
        cohort = row["cohorts"][i]
        if cohort["wb"] > 0:
            met = min(cohort["wb"], expected(group, accesses, (cohort["wb"] << Q) // span))
            if met > 0:
                remap(row, th, i, met, write)
        if write and cohort["clean"] > 0:
            met = min(cohort["clean"], expected(group, accesses, (cohort["clean"] << Q) // span))
            if met > 0:
                write_clean(row, th, i, met)


@law
def access_uniform(row, th, g, accesses, span, write):
    """`accesses` accesses to equally likely pages of a uniform anonymous group.

    span     int64  pages of the group that were touched so far, > 0: where the accesses go; −1: its caller knows of no holes
    write    int64  1: the pages are written to, 0: only read
    returns  int64  accesses done; fewer if pages could not be had at once, 0: come back

    Source: mm/memory.c handle_mm_fault; expected values (kernel-laws §20.2).
    """
    group = row["groups"][g]
    done = accesses
    if span < 0:
        span = min(group["pages"], group["resident"] + group["swapped"])
        if span == 0:
            span = group["pages"]
    if group["swapped"] > 0:
        owed = min(group["swapped"], expected(group, accesses, (group["swapped"] << Q) // span))
        if owed > 0:
            done = accesses * fault_uniform(row, th, g, owed, write) // owed
    holes = span - group["resident"] - group["swapped"]
    if holes > 0 and done > 0:
        owed = min(holes, expected(group, done, (holes << Q) // span))
        if owed > 0 and write:
            done = done * new_pages(row, th, g, -1, owed) // owed
        elif owed > 0:
            read_holes(row, th, owed)
    if done > 0 and row["swap_cache"] + row["lazy"] > 0:
        access_cached(row, th, g, done, span, write)
    group["touches"] += done
    row["spent_ns"] += done * row["cost"][ACCESS]
    row["tasks"][row["threads"][th]["task"]]["utime_ns"] += done * row["cost"][ACCESS]
    return done
