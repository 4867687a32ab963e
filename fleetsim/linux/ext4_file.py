# SPDX-License-Identifier: Apache-2.0
"""write() to a file on disk: pages are found or made, written to, and left dirty for the flusher (fs/ext4/file.c, mm/filemap.c).

New pages join the inactive list's head; pages that are there already stay where they stand, since only reads mark pages accessed
(Linux 4.7 and later; recordings e16: a file overwritten eight times stays inactive). Whole pages are written, so none is read
before, and a page that comes back this way is no refault. Blocks are found at writeback (delayed allocation).
Leaves out: partial pages, O_DIRECT, O_SYNC, ENOSPC; writes through mappings are in mkwrite.py.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import WRITE_CACHED, WRITE_NEW
from fleetsim.law import Q, law
from fleetsim.linux.alloc_slowpath import handle_over_high
from fleetsim.linux.bags import blend_base, expected, open_bag
from fleetsim.linux.buffer import create_empty_buffers
from fleetsim.linux.filemap import get_cache_pages
from fleetsim.linux.jbd2 import blocked_until, journal_start
from fleetsim.linux.memcontrol import add_file, charge
from fleetsim.linux.mm_inline import add_pages, list_add, list_move
from fleetsim.linux.mm_types import LRU_INACTIVE_FILE, LRU_NONE, ORDERED, REFERENCED, VM, WORKINGSET
from fleetsim.linux.page_writeback import account_dirtied, balance_dirty_pages, io_wait, must_balance, set_inode_dirty
from fleetsim.linux.vma import slice_at

NR_DIRTIED = VM["nr_dirtied"]


@law
def ext4_buffered_write_iter(row, th, f, at, pages):
    """write() of up to `pages` whole pages at page `at` of an open file: at most one slice of it at a time.

    at       int64  ≤ the file's length
    returns  int64  pages done; 0: the thread has to wait, come back when the bill is paid

    Source: fs/ext4/file.c ext4_buffered_write_iter, mm/filemap.c generic_perform_write.
    """
    thread, file = row["threads"][th], row["files"][f]
    if must_balance(thread):  # came back from a full stop
        balance_dirty_pages(row, th)
        if row["wait_ns"] > 0:
            return 0
    until = blocked_until(row, f)
    if until > row["now_ns"]:
        io_wait(row, th, until - row["now_ns"])
        return 0
    group = row["groups"][file["group"]]
    if group["kind"] == ORDERED:
        done = write_ordered(row, th, f, at, pages)
    else:
        done = write_uniform(row, th, f, at, pages)
    if done > 0:
        journal_start(row, f)
        file["size"] = max(file["size"], at + done)
        file["pages"] = max(file["pages"], file["size"])
        thread["nr_dirtied"] += done
        if must_balance(thread):
            balance_dirty_pages(row, th)
        if row["tasks"][thread["task"]]["cg"] > 0:
            handle_over_high(row, th, done)
    return done


@law
def new_pages(row, i, pages):
    """Pages just allocated join the cache in cohort `i`.

    Source: mm/filemap.c filemap_add_folio (write: no refault is counted).
    """
    cohort = row["cohorts"][i]
    add_pages(row, i, pages)
    charge(row, cohort["cg"], pages)
    add_file(row, cohort["cg"], pages)


@law
def dirty_pages(row, f, i, pages):
    """Up to `pages` pages of cohort `i`, as far as they are clean or only under writeback, become dirty.

    returns  int64  pages that did

    Source: fs/buffer.c block_write_end, mm/page-writeback.c folio_account_dirtied.
    """
    cohort = row["cohorts"][i]
    n = min(pages, cohort["nr"] - cohort["dirty"])
    if n > 0:
        if row["files"][f]["dirty"] == 0:
            set_inode_dirty(row, f, cohort["cg"])
        cohort["dirty"] += n
        account_dirtied(row, f, cohort["cg"], n)
        row["vm"][NR_DIRTIED] += n
        row["bdi"]["dirtied"] += n
    return n


@law
def bill_write(row, th, old, new):
    """Processor time of writing to `old` cached and `new` pages.

    Source: measured, see hardware/cpu.py.
    """
    spent = old * row["cost"][WRITE_CACHED] + new * row["cost"][WRITE_NEW]
    row["spent_ns"] += spent
    row["tasks"][row["threads"][th]["task"]]["stime_ns"] += spent


@law
def write_ordered(row, th, f, at, pages):
    """Write to an ordered file. What is missing of a slice comes first, as in reading it (filemap.py).

    returns  int64  pages done, 0: come back

    Source: mm/filemap.c generic_perform_write.
    """
    file = row["files"][f]
    group = row["groups"][file["group"]]
    k, start = slice_at(group, at)
    i = group["first"] + k
    cohort = row["cohorts"][i]
    cg = row["tasks"][row["threads"][th]["task"]]["cg"]
    end = at + pages if k == group["cohorts"] - 1 else min(at + pages, start + group["slice"])
    n = end - at
    length = max(end, min(group["pages"], start + group["slice"])) - start
    missing = min(n, length - cohort["nr"])
    if missing > 0:
        got = get_cache_pages(row, th, cg if cohort["list"] == LRU_NONE else cohort["cg"], missing)
        if got == 0:
            return 0
        n -= missing - got  # what is cached of it can be written all the same
        missing = got
        if cohort["list"] == LRU_NONE:
            cohort["cg"] = cg
            cohort["flags"] = 0
            list_add(row, i, LRU_INACTIVE_FILE)
        elif at == start and cohort["nr"] * 2 < length:  # most of the slice will be new
            cohort["flags"] &= ~(REFERENCED | WORKINGSET)
            list_move(row, i, LRU_INACTIVE_FILE)
        back = min(missing, cohort["evicted"])
        cohort["evicted"] -= back
        group["evicted"] -= back
        new_pages(row, i, missing)
    group["pages"] = max(group["pages"], at + n)
    create_empty_buffers(row, group, n)
    dirty_pages(row, f, i, n)
    bill_write(row, th, n - missing, missing)
    return n


@law
def write_uniform(row, th, f, at, pages):
    """Write to a file that is read at random: of the pages written as many are missing as of the whole; what is new joins a bag.

    returns  int64  pages done, 0: come back

    Source: mm/filemap.c generic_perform_write; expected values (kernel-laws §20.2).
    """
    file = row["files"][f]
    g = file["group"]
    if file["groups"] == 2 and at >= row["groups"][g]["pages"]:
        at -= row["groups"][g]["pages"]
        g += 1
    elif file["groups"] == 2:
        pages = min(pages, row["groups"][g]["pages"] - at)
    group = row["groups"][g]
    cg = row["tasks"][row["threads"][th]["task"]]["cg"]
    grown = max(0, at + pages - group["pages"])
    absent = group["pages"] - group["resident"]
    missing = grown
    if absent > 0 and pages > grown:
        missing += min(absent, expected(group, pages - grown, (absent << Q) // group["pages"]))
    if missing > 0:
        got = get_cache_pages(row, th, cg, missing)
        if got == 0:
            return 0
        if got < missing:
            pages = max(1, pages * got // missing)
            grown = max(0, at + pages - group["pages"])
            missing = got
        old = max(0, missing - grown)
        forget_shadows(row, g, min(group["evicted"], old * group["evicted"] // max(1, absent)))
        i = open_bag(row, g, cg, LRU_INACTIVE_FILE, 0)
        blend_base(row["cohorts"][i], missing, group["touches"])
        new_pages(row, i, missing)
        group["pages"] += max(grown, group["resident"] - group["pages"])
        dirty_pages(row, f, i, missing)
    left = pages - missing
    for k in range(group["cohorts"]):
        if left <= 0:
            break
        if row["cohorts"][group["first"] + k]["list"] != LRU_NONE:
            left -= dirty_pages(row, f, group["first"] + k, left)
    create_empty_buffers(row, group, pages)
    bill_write(row, th, max(0, pages - missing), min(missing, pages))
    return pages


@law
def forget_shadows(row, g, pages):
    """`pages` evicted pages of a uniform group are in the cache again, by being written: their shadows are gone.

    Source: mm/filemap.c __filemap_add_folio.
    """
    group = row["groups"][g]
    left = pages
    for k in range(group["cohorts"]):
        cohort = row["cohorts"][group["first"] + k]
        n = min(left, cohort["evicted"])
        cohort["evicted"] -= n
        left -= n
    group["evicted"] -= pages - left
