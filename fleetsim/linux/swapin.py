# SPDX-License-Identifier: Apache-2.0
"""Coming back from swap, and from the swap cache (mm/memory.c do_swap_page, do_wp_page; mm/swap_state.c swapin_readahead).

Leaves out: the pages that random access reads ahead in vain with its first three windows (8, 4 and 2 pages).
"""

from __future__ import annotations

from fleetsim.hardware.cpu import FAULT_MINOR, SWAP_IN
from fleetsim.hardware.disk import READ, submit
from fleetsim.law import law
from fleetsim.linux.fault import count_faults, join_list
from fleetsim.linux.memcontrol import add_anon, add_shmem, add_swap, charge
from fleetsim.linux.mm_inline import add_pages, count_mlocked, list_add
from fleetsim.linux.mm_types import LRU_NONE, PSI_IO, PSI_MEM, SHADOW_WORKINGSET, VM
from fleetsim.linux.page_io import swap_readpage
from fleetsim.linux.readahead import swapin_nr_pages
from fleetsim.linux.rmap import from_swap, with_slot
from fleetsim.linux.swap_state import add_swap_cache, is_lazy, keep_slots, mem_cgroup_swap_full, take_clean
from fleetsim.linux.swapfile import free_synchronous, pick_slots, release_slots

PSWPIN, PGPGIN = VM["pswpin"], VM["pgpgin"]
SWAP_RA, SWAP_RA_HIT, PGREUSE = VM["swap_ra"], VM["swap_ra_hit"], VM["pgreuse"]
RA_HITS_FIRST = 4  # hits a mapping starts with, so that its first swap fault reads a full window


@law
def read_swap(row, th, g, pages, window, hot):
    """Wait for `pages` pages of group `g` to be read from swap, `window` pages per request.

    returns  int64  requests made (major faults)

    Source: mm/swap_state.c swapin_readahead; kernel-laws §12. Waiting for a page that had Workingset is memory stall too (§9).
    """
    if row["swap_mode"] > 0:
        pick_slots(row, g, pages, 0)
        return swap_readpage(row, th, pages, window, hot)
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
    row["vm"][SWAP_RA_HIT] += pages - requests
    return requests


@law
def swapin_window(row, g):
    """Pages to read at the next swap fault of a group that is swept: all that the last window read ahead was used.

    Source: mm/swap_state.c swap_vma_readahead, swapin_nr_pages; kernel-laws §12.2.
    """
    group = row["groups"][g]
    last = group["ra_win"]
    hits = last - 1 if last > 0 else RA_HITS_FIRST
    window = swapin_nr_pages(hits, True, last, 1 << row["sysctl"]["page_cluster"])
    group["ra_win"] = min(window, 64)
    return window


@law
def keeps_slot(row, cg, g, write):
    """True if a page that is mapped now stays in the swap cache with its slot. Pages that a fork left shared give it up here.

    Source: mm/memory.c should_try_to_free_swap; kernel-laws §12.1.
    """
    group = row["groups"][g]
    alone = group["task"] >= 0 and group["below"] < 0 and group["cow"] == 0
    return write == 0 and alone and group["locked"] == 0 and not mem_cgroup_swap_full(row, cg)


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
def swap_in(row, th, i, pages, window, wanted_list, write):
    """`pages` swapped-out pages of an ordered cohort come back. Their slots are freed at once if they are written to.

    wanted_list  int64  list the cohort stands on or is to join
    write        int64  1: the pages are written to, 0: only read

    Source: mm/memory.c do_swap_page; kernel-laws §10.1, §12.
    """
    cohort = row["cohorts"][i]
    g = cohort["group"]
    cg = cohort["cg"]
    major = read_swap(row, th, g, pages, window, cohort["flags"] & SHADOW_WORKINGSET > 0)
    slots = with_slot(row, row["groups"][g])
    if cohort["list"] == LRU_NONE:
        list_add(row, i, join_list(row, g, wanted_list))
    cohort["swapped"] -= pages
    if keeps_slot(row, cg, g, write):
        gone = free_synchronous(row, g)
        add_swap(row, cg, -gone)
        add_swap_cache(row, cg, pages - gone)
        keep_slots(row, i, pages - gone)
    else:
        release_slots(row, g, cg, pages, 0)
    add_pages(row, i, pages)
    finish_swap_in(row, th, g, cg, pages, slots, major)


@law
def finish_swap_in(row, th, g, cg, pages, slots, major):
    """The part of a swap-in that does not depend on where in the group the pages stand: mapped, charged, counted, paid.

    Source: mm/memory.c do_swap_page.
    """
    task = row["tasks"][row["threads"][th]["task"]]
    row["groups"][g]["swapped"] -= pages
    if row["groups"][g]["locked"] > 0:
        count_mlocked(row, pages)
    swapped_in(row, g, cg, pages, slots)
    charge(row, cg, pages)
    count_faults(row, task, pages - major, major)
    row["spent_ns"] += pages * row["cost"][SWAP_IN]
    task["stime_ns"] += pages * row["cost"][SWAP_IN]


@law
def remap(row, th, i, pages, write):
    """Touch pages that are in the swap cache: no IO; the slot is freed if the page is written to.

    Source: mm/memory.c do_swap_page (page found in the swap cache), folio_free_swap.
    """
    cohort = row["cohorts"][i]
    g = cohort["group"]
    task = row["tasks"][row["threads"][th]["task"]]
    slots = with_slot(row, row["groups"][g])
    cohort["wb"] -= pages
    swapped_in(row, g, cohort["cg"], pages, slots)
    if keeps_slot(row, cohort["cg"], g, write) and row["swap_failures"] == 0:  # what could not be written is no copy
        keep_slots(row, i, pages)
    else:
        add_swap_cache(row, cohort["cg"], -pages)
        release_slots(row, g, cohort["cg"], pages, 1)
    count_faults(row, task, pages, 0)
    row["spent_ns"] += pages * row["cost"][FAULT_MINOR]
    task["stime_ns"] += pages * row["cost"][FAULT_MINOR]


@law
def write_clean(row, th, i, pages):
    """Write to `pages` clean pages of cohort `i`. One with a copy in swap faults first, for it was mapped read-only.

    Source: mm/memory.c do_wp_page (wp_page_reuse after folio_free_swap); mm/madvise.c madvise_free_pte_range leaves the page writable.
    """
    cohort = row["cohorts"][i]
    task = row["tasks"][row["threads"][th]["task"]]
    if not is_lazy(cohort):
        count_faults(row, task, pages, 0)
        row["vm"][PGREUSE] += pages
        row["spent_ns"] += pages * row["cost"][FAULT_MINOR]
        task["stime_ns"] += pages * row["cost"][FAULT_MINOR]
    take_clean(row, i, pages)
