# SPDX-License-Identifier: Apache-2.0
"""Reading and writing pages of swap, wherever their slots are: on a disk, in zram, in zswap (mm/page_io.c).

Used on hosts with more than one plain area (`row["swap_mode"]`); what becomes of each page is decided by the slots that were taken
or chosen for it just before (`row["swap_got"]`). A page that cannot be written stays in the swap cache, dirty and unmapped: reclaim
meets it again and tries again. A page that cannot be read costs its task a SIGBUS.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import COMPRESS, DECOMPRESS
from fleetsim.hardware.disk import READ, WRITE, submit
from fleetsim.law import law
from fleetsim.linux.events import SWAP_ERROR, record
from fleetsim.linux.mm_types import NR_WRITEBACK, NS_PER_S, PSI_IO, PSI_MEM, SETTLED, TASK_EXITING, TASK_RUNNING, VM
from fleetsim.linux.swap_types import NR_SWAPFILES, ON_ZRAM
from fleetsim.linux.swapfile import pick_slots, reinsert_swap_info
from fleetsim.linux.zram_drv import zram_bvec_write
from fleetsim.linux.zswap import zswap_frontswap_store

PSWPIN, PGPGIN, PSWPOUT, PGPGOUT = VM["pswpin"], VM["pgpgin"], VM["pswpout"], VM["pgpgout"]
SWAP_RA, SWAP_RA_HIT, NR_WRITTEN, NR_VMSCAN_WRITE = VM["swap_ra"], VM["swap_ra_hit"], VM["nr_written"], VM["nr_vmscan_write"]
RATELIMIT_NS = 5 * NS_PER_S
SIGBUS_CODE = 135
JOIN_NS = 2_000_000  # write-outs of one cohort this close to each other are tracked as one


@law
def track(row, i, pages, done):
    """Remember that `pages` pages of cohort `i` are written at `done`: a later scan frees them first (they are rotated to the tail).

    Source: mm/page_io.c end_swap_bio_write → mm/swap.c folio_rotate_reclaimable.
    """
    last = row["writeback"][(row["wb_head"] + row["wb_count"] - 1) % NR_WRITEBACK]
    if row["wb_count"] > 0 and last["cohort"] == i and (done - last["done_ns"] < JOIN_NS or row["wb_count"] == NR_WRITEBACK):
        last["pages"] += pages
        last["done_ns"] = max(last["done_ns"], done)
    elif row["wb_count"] < NR_WRITEBACK:
        entry = row["writeback"][(row["wb_head"] + row["wb_count"]) % NR_WRITEBACK]
        entry["cohort"] = i
        entry["pages"] = pages
        entry["done_ns"] = done
        row["wb_count"] += 1


@law
def swap_error(row, a, pages, direction):
    """`pages` pages of area `a` could not be read or written. The kernel's log says so, but not more often than every five seconds.

    Source: mm/page_io.c end_swap_bio_write, end_swap_bio_read (pr_alert_ratelimited).
    """
    row["swap_failures"] += pages
    if row["now_ns"] >= row["swap_told_ns"]:
        row["swap_told_ns"] = row["now_ns"] + RATELIMIT_NS
        record(row, SWAP_ERROR, -1, a, direction, pages, 0, 0, 0, 0, 0)


@law
def swap_writepage(row, i, in_place):
    """Write pages of cohort `i` that were just unmapped; row["swap_got"] says to which areas.

    in_place  int64  1: written before they are back on their list, so that nobody rotates them (MADV_PAGEOUT)
    returns   (int64 pages that are written already (zram, zswap): the scan that sent them frees them, int64 pages that could not be)

    Source: mm/page_io.c swap_writepage, __swap_writepage, mm/vmscan.c pageout (a synchronous write).
    """
    cohort = row["cohorts"][i]
    g = cohort["group"]
    synchronous, failures = 0, 0
    vm = row["vm"]
    if in_place > 0:
        cohort["flags"] |= SETTLED
    for a in range(NR_SWAPFILES):
        n, failed = row["swap_got"][a], 0
        vm[NR_VMSCAN_WRITE] += n
        if n > 0 and row["swap_info"][a]["disk"] == ON_ZRAM:
            failed = n - zram_bvec_write(row, g, n)
            synchronous += n - failed
            vm[PSWPOUT] += n
            vm[NR_WRITTEN] += n + failed  # a failed page is tried twice, the second time as a bio
            vm[PGPGOUT] += 4 * failed
        elif n > 0:
            done = zswap_frontswap_store(row, g, cohort["cg"], n)
            vm[NR_WRITTEN] += n
            synchronous += done
            n -= done
            disk = row["disk"][row["swap_info"][a]["disk"]]
            if n > 0:
                vm[PSWPOUT] += n
                vm[PGPGOUT] += 4 * n
                written = submit(disk, row["now_ns"], n, WRITE)
                if disk["failing"] > 0:
                    disk["errors"] += 1
                    failed = n
                elif in_place == 0:
                    track(row, i, n, written)
        if failed > 0:
            cohort["flags"] &= ~SETTLED
            failures += failed
            swap_error(row, a, failed, WRITE)
    return synchronous, failures


@law
def read_fails(row, g, pages):
    """True if one of `pages` slots of group `g` that are to be read now is on a disk that fails; the choice is in row["swap_got"].

    Source: mm/page_io.c end_swap_bio_read.
    """
    if row["swap_mode"] == 0:
        return False
    pick_slots(row, g, pages, 0)
    for a in range(NR_SWAPFILES):
        disk = row["swap_info"][a]["disk"]
        in_memory = row["swap_got_stored"] if row["zswap"]["stored"] > 0 else 0
        if disk >= 0 and row["swap_got"][a] > in_memory and row["disk"][disk]["failing"] > 0:
            row["disk"][disk]["errors"] += 1
            swap_error(row, a, 1, READ)
            return True
    return False


@law
def do_sigbus(row, t):
    """A page of task `t` cannot be read: SIGBUS ends it.

    Source: mm/memory.c do_swap_page (VM_FAULT_SIGBUS), arch/x86/mm/fault.c do_sigbus.
    """
    task = row["tasks"][t]
    if task["state"] == TASK_RUNNING:
        task["state"] = TASK_EXITING
        task["exit_code"] = SIGBUS_CODE
        task["exit_ready_ns"] = row["now_ns"]
        row["reschedule"] = 1
        if row["swapoff_task"] == t + 1:
            reinsert_swap_info(row)


@law
def swap_readpage(row, th, pages, window, hot):
    """Wait for `pages` pages, from the areas in row["swap_got"]; zram is read page by page, without readahead.

    returns  int64  requests made (major faults)

    Source: mm/page_io.c swap_readpage, mm/memory.c do_swap_page, mm/swap_state.c swapin_readahead.
    """
    task = row["tasks"][row["threads"][th]["task"]]
    vm = row["vm"]
    requests, wait, in_memory = 0, 0, 0
    begin = row["now_ns"] + row["spent_ns"] + row["wait_ns"]
    stored = row["swap_got_stored"] if row["zswap"]["stored"] > 0 else 0
    row["zswap"]["zswpin"] += stored
    for a in range(NR_SWAPFILES):
        n = row["swap_got"][a]
        disk = row["swap_info"][a]["disk"]
        if n > 0 and disk == ON_ZRAM:
            requests += n
            in_memory += n
            vm[PSWPIN] += n
        elif n > 0:
            major = (n + window - 1) // window
            requests += major
            vm[SWAP_RA] += n - major
            vm[SWAP_RA_HIT] += n - major
            cached = min(n, stored)
            stored -= cached
            in_memory += cached
            n -= cached
            vm[PSWPIN] += n
            vm[PGPGIN] += 4 * n
            for _ in range((n + window - 1) // window):
                wait = submit(row["disk"][disk], begin + wait, min(window, n), READ) - begin
    row["wait_ns"] += wait
    task["blkio_ns"] += wait
    row["stall_ns"][PSI_IO] += wait
    if hot:
        row["stall_ns"][PSI_MEM] += wait
    row["spent_ns"] += in_memory * row["cost"][DECOMPRESS]
    task["stime_ns"] += in_memory * row["cost"][DECOMPRESS]
    return requests


@law
def compress_ns(row, pages):
    """Processor time of compressing `pages` pages.

    Source: measured, see hardware/cpu.py.
    """
    return pages * row["cost"][COMPRESS]
