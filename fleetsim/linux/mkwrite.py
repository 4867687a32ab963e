# SPDX-License-Identifier: Apache-2.0
"""Writes through a shared mapping of a file: every clean page costs a fault, which makes it dirty (mm/memory.c do_page_mkwrite).

A page is mapped write-protected while it is clean: the file system must learn of the first write, and the writer is braked as one
who calls write(). Writeback protects it again. A write maps the one page it wants, not those around it (recording h34).
"""

from __future__ import annotations

from fleetsim.hardware.cpu import ACCESS, FAULT_MINOR, WRITE_CACHED
from fleetsim.law import Q, law
from fleetsim.linux.alloc_slowpath import handle_over_high
from fleetsim.linux.bags import expected
from fleetsim.linux.buffer import create_empty_buffers
from fleetsim.linux.ext4_file import dirty_pages
from fleetsim.linux.fault import count_faults
from fleetsim.linux.filemap import fault_in, fill_slice, miss_less, slice_end
from fleetsim.linux.jbd2 import blocked_until, journal_start
from fleetsim.linux.mm_types import ACCESSED, LRU_NONE
from fleetsim.linux.page_writeback import balance_dirty_pages, io_wait, must_balance
from fleetsim.linux.pgtable import add_tables
from fleetsim.linux.rmap import map_pages
from fleetsim.linux.vma import slice_at


@law
def may_write(row, th, f):
    """True if the thread need not wait, for the writeback of what it dirtied before or for a commit that holds the inode.

    Source: mm/page-writeback.c balance_dirty_pages_ratelimited; fs/ext4/inode.c ext4_page_mkwrite (jbd2_journal_get_write_access).
    """
    if must_balance(row["threads"][th]):
        balance_dirty_pages(row, th)
        if row["wait_ns"] > 0:
            return False
    until = blocked_until(row, f)
    if until > row["now_ns"]:
        io_wait(row, th, until - row["now_ns"])
        return False
    return True


@law
def do_page_mkwrite(row, th, f, g, i, pages):
    """Up to `pages` clean pages of cohort `i` become dirty, a fault each.

    returns  int64  pages that did

    Source: mm/memory.c do_page_mkwrite, fault_dirty_shared_page; fs/ext4/inode.c ext4_page_mkwrite.
    """
    n = dirty_pages(row, f, i, pages)
    if n > 0:
        group, task = row["groups"][g], row["tasks"][row["threads"][th]["task"]]
        create_empty_buffers(row, group, n)
        journal_start(row, f)
        row["threads"][th]["nr_dirtied"] += n
        row["spent_ns"] += n * row["cost"][WRITE_CACHED]
        task["stime_ns"] += n * row["cost"][WRITE_CACHED]
    return n


@law
def after_writes(row, th, pages):
    """The brakes at the end of a fault.

    Source: mm/memory.c fault_dirty_shared_page (balance_dirty_pages_ratelimited).
    """
    if must_balance(row["threads"][th]):
        balance_dirty_pages(row, th)
    if row["tasks"][row["threads"][th]["task"]]["cg"] > 0:
        handle_over_high(row, th, pages)


@law
def bill_stores(row, th, stores, faults):
    """Count `faults` minor faults, and the time of them and of `stores` stores.

    Source: mm/memory.c do_shared_fault, wp_page_shared.
    """
    task = row["tasks"][row["threads"][th]["task"]]
    count_faults(row, task, faults, 0)
    row["spent_ns"] += faults * row["cost"][FAULT_MINOR] + stores * row["cost"][ACCESS]
    task["stime_ns"] += faults * row["cost"][FAULT_MINOR]
    task["utime_ns"] += stores * row["cost"][ACCESS]


@law
def write_mapped_ordered(row, th, m, at, pages):
    """Stores to up to `pages` pages of a shared mapping that is swept, from position `at`, never beyond the slice.

    m        int64  row of MAPPING
    returns  int64  pages done; 0: come back

    Source: mm/memory.c do_shared_fault, do_wp_page → wp_page_shared; mm/filemap.c filemap_fault.
    """
    mapping = row["mappings"][m]
    g, f = mapping["group"], row["areas"][mapping["area"]]["file"]
    group = row["groups"][g]
    if not may_write(row, th, f):
        return 0
    k, start = slice_at(group, at)
    i = group["first"] + k
    cohort = row["cohorts"][i]
    length = slice_end(group, k) - start
    n = min(pages, start + length - at)
    missing, requests = min(n, length - cohort["nr"]), 0
    if missing > 0:
        n, requests = fill_slice(row, th, i, missing, at == start, length)
        if n == 0:
            return 0
        missing = n
        count_faults(row, row["tasks"][row["threads"][th]["task"]], 0, requests)
    add_tables(row, row["areas"][mapping["area"]], at + n)
    unmapped = map_pages(row, m, min(n, group["resident"] - mapping["mapped"]))
    dirtied = do_page_mkwrite(row, th, f, g, i, n) if cohort["list"] != LRU_NONE else 0
    cohort["flags"] |= ACCESSED
    bill_stores(row, th, n, max(dirtied, unmapped) - requests)  # a major fault is the write's own
    after_writes(row, th, dirtied)
    return n


@law
def write_mapped(row, th, m, accesses):
    """`accesses` stores to equally likely pages of a shared mapping.

        faults = stores · (what is missing, not mapped or clean) / pages

    returns  int64  stores done; 0: come back

    Source: as `write_mapped_ordered`; expected values (kernel-laws §20.2).
    """
    mapping = row["mappings"][m]
    g, f = mapping["group"], row["areas"][mapping["area"]]["file"]
    group = row["groups"][g]
    if not may_write(row, th, f):
        return 0
    accesses, major = fault_in(row, th, m, accesses)
    if accesses == 0:
        return 0
    add_tables(row, row["areas"][mapping["area"]], row["areas"][mapping["area"]]["pages"])
    map_pages(row, m, major)
    unmapped = group["resident"] - mapping["mapped"]
    minor = 0
    if unmapped > 0:
        minor = min(unmapped, expected(group, accesses, (unmapped << Q) // group["pages"]))
        map_pages(row, m, minor)
        miss_less(mapping, minor)
    dirty = 0
    for k in range(group["cohorts"]):
        dirty += row["cohorts"][group["first"] + k]["dirty"]
    clean = group["resident"] - dirty
    owed = 0
    if clean > 0:
        owed = min(clean, max(major + minor, expected(group, accesses, (clean << Q) // group["pages"])))
    left = owed
    for k in range(group["cohorts"]):
        i = group["first"] + k
        if left > 0 and row["cohorts"][i]["list"] != LRU_NONE:
            left -= do_page_mkwrite(row, th, f, g, i, left)
    group["touches"] += accesses
    bill_stores(row, th, accesses, max(owed - left, major + minor) - major)
    after_writes(row, th, owed - left)
    return accesses
