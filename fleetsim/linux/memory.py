# SPDX-License-Identifier: Apache-2.0
"""Anonymous memory: first touch, access, swap-in (mm/memory.c do_anonymous_page, do_swap_page, handle_mm_fault).

An ordered group is walked by a cursor: what is missing of a slice are its lowest positions, so they come first. The
slice's accessed bit is set when the cursor leaves it; a slice most of which comes back from swap is moved to the head
of its list when the cursor enters. A uniform group's accesses are expected values: `n` accesses to `N` pages of which
`m` are missing fault n·m/N times.
Huge pages are in `huge_memory.py`. Leaves out: copy-on-write (fork), shared anonymous memory.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import ACCESS, FAULT_ANON, FAULT_MINOR, SWAP_IN
from fleetsim.hardware.disk import READ, submit
from fleetsim.law import Q, law
from fleetsim.linux.alloc_slowpath import alloc_pages, handle_over_high, try_charge
from fleetsim.linux.bags import blend_base, expected, open_bag
from fleetsim.linux.huge_memory import do_huge_pmd_anonymous_page, hugepage_vma_check, touch_ahead
from fleetsim.linux.memcontrol import add_anon, add_shmem, charge, count
from fleetsim.linux.mm_inline import add_pages, list_add, list_move
from fleetsim.linux.mm_types import (
    ACCESSED,
    CG,
    LRU_ACTIVE_ANON,
    LRU_INACTIVE_ANON,
    LRU_NONE,
    ORDERED,
    PSI_IO,
    PSI_MEM,
    REFERENCED,
    SHADOW_WORKINGSET,
    VM,
    WMARK_MIN,
    WORKINGSET,
)
from fleetsim.linux.readahead import swapin_nr_pages
from fleetsim.linux.rmap import from_swap, with_slot
from fleetsim.linux.swap import release_slots
from fleetsim.linux.workingset_clock import workingset_refault
from fleetsim.linux.zonelist import pin_got, rmqueue

PGFAULT, PGMAJFAULT, PSWPIN, PGPGIN = VM["pgfault"], VM["pgmajfault"], VM["pswpin"], VM["pgpgin"]
SWAP_RA = VM["swap_ra"]
CG_PGFAULT, CG_PGMAJFAULT = CG["pgfault"], CG["pgmajfault"]
PTES = 512  # pages one page-table page maps
FRESH = 4  # a page just faulted in counts as accessed with probability 1 − e^−4


@law
def count_faults(row, task, minor, major):
    """Book minor and major faults of a task.

    Source: mm/memory.c mm_account_fault; kernel-laws §10.1 (pgfault counts both).
    """
    row["vm"][PGFAULT] += minor + major
    row["vm"][PGMAJFAULT] += major
    task["minflt"] += minor
    task["majflt"] += major
    count(row, task["cg"], CG_PGFAULT, minor + major)
    if major > 0:
        count(row, task["cg"], CG_PGMAJFAULT, major)


@law
def add_tables(row, task, area, upto):
    """Page tables for the first `upto` pages of an area; one page maps 2 MiB.

    Source: mm/memory.c __pte_alloc; kernel-laws §11.1. The PMD and upper levels are part of the program's image.
    """
    want = (upto + PTES - 1) // PTES - area["tables"]
    if want > 0:
        got = rmqueue(row, want, WMARK_MIN)
        pin_got(row)
        row["page_tables"] += got
        area["tables"] += got
        task["pgtables"] += got
        charge(row, task["cg"], got)
        at = task["cg"]
        while at >= 0:
            row["cgroups"][at]["pagetables"] += got
            row["cgroups"][at]["kernel"] += got
            at = row["cgroups"][at]["parent"]


@law
def map_anon(row, task, pages):
    """Pages just allocated and charged become mapped anonymous pages of a task.

    Source: mm/rmap.c page_add_new_anon_rmap.
    """
    task["rss_anon"] += pages
    charge(row, task["cg"], pages)
    add_anon(row, task["cg"], pages)
    task["hwm"] = max(task["hwm"], task["rss_anon"] + task["rss_file"] + task["rss_shmem"])


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
    if row["thp_enabled"] > 0 and area["touched"] % PTES == 0 and hugepage_vma_check(row, area):
        if do_huge_pmd_anonymous_page(row, th, a, g, at):
            map_anon(row, task, PTES)
            add_tables(row, task, area, area["touched"] + PTES)
            count_faults(row, task, 1, 0)
            if task["cg"] > 0:
                handle_over_high(row, th, PTES)
            return touch_ahead(row, area, task, pages)
    n = min(pages, group["pages"] - at)
    i = -1
    if group["kind"] == ORDERED:
        i = group["first"] + at // group["slice"]
        n = min(n, group["slice"] - at % group["slice"])
    n = get_pages(row, th, n)
    if n == 0:
        return 0
    if group["kind"] == ORDERED:
        cohort = row["cohorts"][i]
        if cohort["list"] == LRU_NONE:
            cohort["cg"] = task["cg"]
            cohort["flags"] = ACCESSED
            list_add(row, i, LRU_INACTIVE_ANON)
        cohort["flags"] |= ACCESSED
    else:
        i = open_bag(row, g, task["cg"], LRU_INACTIVE_ANON, 0)
        blend_base(row["cohorts"][i], n, group["touches"] - FRESH * group["pages"])  # the fault itself is an access
    add_pages(row, i, n)
    map_anon(row, task, n)
    area["touched"] += n
    add_tables(row, task, area, area["touched"])
    count_faults(row, task, n, 0)
    row["spent_ns"] += n * row["cost"][FAULT_ANON]
    task["stime_ns"] += n * row["cost"][FAULT_ANON]
    if task["cg"] > 0:
        handle_over_high(row, th, n)
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
        add_tables(row, task, area, area["pages"])  # random places: soon one page of every 2 MiB
    elif at >= 0:
        faults = max(0, at + pages - max(at, area["zero"]))
        add_tables(row, task, area, area["zero"] + faults)
    area["zero"] += faults
    count_faults(row, task, faults, 0)
    row["spent_ns"] += faults * row["cost"][FAULT_MINOR] + pages * row["cost"][ACCESS]
    task["stime_ns"] += faults * row["cost"][FAULT_MINOR]
    task["utime_ns"] += pages * row["cost"][ACCESS]
    return pages


@law
def read_swap(row, th, pages, window, hot):
    """Wait for `pages` pages to be read from swap, `window` pages per request.

    returns  int64  requests made (major faults)

    Source: mm/swap_state.c swapin_readahead; kernel-laws §12. Waiting for a page that had Workingset is memory stall too (§9).
    """
    task = row["tasks"][row["threads"][th]["task"]]
    disk = row["disk"][row["swap_disk"]]
    requests = (pages + window - 1) // window
    begin = row["now_ns"] + row["spent_ns"] + row["wait_ns"]
    wait = 0
    for _ in range(requests):
        done = submit(disk, begin + wait, min(window, pages), READ)
        wait = done - begin
    row["wait_ns"] += wait
    task["blkio_ns"] += wait
    row["stall_ns"][PSI_IO] += wait
    if hot:
        row["stall_ns"][PSI_MEM] += wait
    row["vm"][PSWPIN] += pages
    row["vm"][PGPGIN] += 4 * pages
    row["vm"][SWAP_RA] += pages - requests
    return requests


@law
def swapped_in(row, g, cg, pages, slots):
    """`pages` of the `slots` pages of group `g` that have a swap slot are mapped memory or shared memory again.

    Source: mm/memory.c do_swap_page, mm/shmem.c shmem_swapin_folio.
    """
    if row["groups"][g]["shmem"]:
        add_shmem(row, cg, pages)
    else:
        add_anon(row, cg, pages)
        from_swap(row, g, pages, slots)


@law
def swap_in(row, th, i, pages, window, wanted_list):
    """`pages` swapped-out pages of an ordered cohort come back and are written to, so their slots are freed at once.

    wanted_list  int64  list the cohort stands on or is to join

    Source: mm/memory.c do_swap_page; kernel-laws §10.1, §12.
    """
    cohort = row["cohorts"][i]
    group = row["groups"][cohort["group"]]
    task = row["tasks"][row["threads"][th]["task"]]
    hot = cohort["flags"] & SHADOW_WORKINGSET
    major = read_swap(row, th, pages, window, hot > 0)
    slots = with_slot(row, group)
    if cohort["list"] == LRU_NONE:
        list_add(row, i, wanted_list)
    cohort["swapped"] -= pages
    release_slots(row, cohort["cg"], pages)
    add_pages(row, i, pages)
    group["swapped"] -= pages
    swapped_in(row, cohort["group"], cohort["cg"], pages, slots)
    charge(row, cohort["cg"], pages)
    count_faults(row, task, pages - major, major)
    row["spent_ns"] += pages * row["cost"][SWAP_IN]
    task["stime_ns"] += pages * row["cost"][SWAP_IN]


@law
def remap(row, th, i, pages):
    """Touch pages that are in the swap cache: no IO, the slot is freed because the page is written to.

    Source: mm/memory.c do_swap_page (page found in the swap cache), free_swap_cache.
    """
    cohort = row["cohorts"][i]
    slots = with_slot(row, row["groups"][cohort["group"]])
    cohort["wb"] -= pages
    row["swap_cache"] -= pages
    swapped_in(row, cohort["group"], cohort["cg"], pages, slots)
    release_slots(row, cohort["cg"], pages)
    count_faults(row, row["tasks"][row["threads"][th]["task"]], pages, 0)
    row["spent_ns"] += pages * row["cost"][FAULT_MINOR]


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
    if cohort["swapped"] * 2 < cohort["nr"] + cohort["swapped"] and cohort["list"] != LRU_NONE:
        return
    target = LRU_ACTIVE_ANON if activate else LRU_INACTIVE_ANON
    if cohort["list"] == LRU_NONE:
        cohort["flags"] &= ~(ACCESSED | REFERENCED | WORKINGSET)
        list_add(row, i, target)
    else:
        list_move(row, i, target)
    if activate and cohort["flags"] & SHADOW_WORKINGSET:
        cohort["flags"] |= WORKINGSET


@law
def access_ordered(row, th, g, at, pages, write):
    """Access up to `pages` pages of an ordered group from position `at`; never beyond the slice.

    write    int64  1: the pages are written to, 0: only read
    returns  int64  pages done (0: come back)

    Source: mm/memory.c handle_pte_fault; see the module for the cursor's rules.
    """
    group = row["groups"][g]
    i = group["first"] + at // group["slice"]
    cohort = row["cohorts"][i]
    offset = at % group["slice"]
    length = min(group["slice"], group["pages"] - (at - offset))
    n = min(pages, length - offset)
    if offset == 0:
        enter_slice(row, th, i)
    if cohort["swapped"] > 0:
        n = get_pages(row, th, min(n, cohort["swapped"]))
        if n == 0:
            return 0
        most = 1 << row["sysctl"]["page_cluster"]
        swap_in(row, th, i, n, swapin_nr_pages(most, True, most, most), LRU_INACTIVE_ANON)  # a sweep hits all it reads ahead
        if row["tasks"][row["threads"][th]["task"]]["cg"] > 0:
            handle_over_high(row, th, n)
    elif cohort["wb"] > 0:
        n = min(n, cohort["wb"])
        remap(row, th, i, n)
    else:
        row["spent_ns"] += n * row["cost"][ACCESS]
    row["tasks"][row["threads"][th]["task"]]["utime_ns"] += n * row["cost"][ACCESS]
    if offset + n == length:
        cohort["flags"] |= ACCESSED
    return n


@law
def fault_uniform(row, th, g, pages):
    """Bring back `pages` swapped pages of a uniform group, taken from its bags in proportion.

    returns  int64  pages done

    Source: mm/memory.c do_swap_page; random access reads no ahead (kernel-laws §12: window 1).
    """
    group = row["groups"][g]
    task = row["tasks"][row["threads"][th]["task"]]
    n = get_pages(row, th, pages)
    if n == 0:
        return 0
    left = n
    source = -1
    for k in range(group["cohorts"]):
        cohort = row["cohorts"][group["first"] + k]
        if cohort["swapped"] > 0 and left > 0:
            share = min(left, cohort["swapped"], (n * cohort["swapped"] + group["swapped"] - 1) // group["swapped"])
            cohort["swapped"] -= share
            release_slots(row, cohort["cg"], share)
            left -= share
            source = group["first"] + k
    activate = workingset_refault(row, source, task["cg"], False, n)
    target = open_bag(row, g, task["cg"], LRU_ACTIVE_ANON if activate else LRU_INACTIVE_ANON, 0)
    blend_base(row["cohorts"][target], n, group["touches"] - FRESH * group["pages"])
    window = swapin_nr_pages(0, False, 0, 1 << row["sysctl"]["page_cluster"])
    major = read_swap(row, th, n, window, row["cohorts"][source]["flags"] & SHADOW_WORKINGSET > 0)
    slots = with_slot(row, group)
    group["swapped"] -= n
    add_pages(row, target, n)
    swapped_in(row, g, task["cg"], n, slots)
    charge(row, task["cg"], n)
    count_faults(row, task, n - major, major)
    row["spent_ns"] += n * row["cost"][SWAP_IN]
    task["stime_ns"] += n * row["cost"][SWAP_IN]
    return n


@law
def access_uniform(row, th, g, accesses, write):
    """`accesses` accesses to equally likely pages of a uniform anonymous group.

    write    int64  1: the pages are written to, 0: only read
    returns  int64  accesses done; fewer if pages could not be had at once, 0: come back

    Source: mm/memory.c handle_pte_fault; expected values (kernel-laws §20.2).
    """
    group = row["groups"][g]
    done = accesses
    if group["swapped"] > 0:
        owed = min(group["swapped"], expected(group, accesses, (group["swapped"] << Q) // group["pages"]))
        if owed > 0:
            done = accesses * fault_uniform(row, th, g, owed) // owed
    group["touches"] += done
    row["spent_ns"] += done * row["cost"][ACCESS]
    row["tasks"][row["threads"][th]["task"]]["utime_ns"] += done * row["cost"][ACCESS]
    return done
