# SPDX-License-Identifier: Apache-2.0
"""Files lose their pages: open(O_TRUNC), unlink, and dropping what can be read again (mm/truncate.c).

Truncation takes every page, dirty or not; what is under writeback it waits for. Dropping takes only clean, unmapped ones.
Leaves out: truncation to a length, holes; an unlinked file that somebody still has open loses its pages at once, unless it is mapped.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import EXIT, SYSCALL
from fleetsim.law import law
from fleetsim.linux.buffer import free_buffers
from fleetsim.linux.fs_writeback import cohort_of, nr_cohorts, written_until
from fleetsim.linux.jbd2 import blocked_until, journal_start
from fleetsim.linux.memcontrol import add_file, charge
from fleetsim.linux.mm_inline import account, list_del
from fleetsim.linux.mm_types import AREA_FILE, LRU_NONE, METADATA, NR_AREAS
from fleetsim.linux.page_writeback import account_dirtied, io_wait
from fleetsim.linux.rmap import try_to_unmap
from fleetsim.linux.vma import drop_group
from fleetsim.linux.zonelist import give_back


@law
def delete_from_page_cache(row, i, pages, mapped):
    """`pages` pages of file cohort `i`, neither dirty nor under writeback, are free memory now. They leave no shadow.

    mapped  int64  1: some of them may be mapped, and are unmapped first

    Source: mm/filemap.c delete_from_page_cache_batch.
    """
    cohort = row["cohorts"][i]
    group = row["groups"][cohort["group"]]
    if mapped:
        try_to_unmap(row, cohort["group"], pages, 0)
    free_buffers(row, group, pages)
    give_back(row, cohort, pages)
    cohort["nr"] -= pages
    group["resident"] -= pages
    account(row, cohort["cg"], cohort["list"], -pages)
    add_file(row, cohort["cg"], -pages)
    if group["is_file"] == METADATA:
        row["buffers"] -= pages
    charge(row, cohort["cg"], -pages)
    if cohort["nr"] == 0:
        list_del(row, i)
        cohort["flags"] = 0


@law
def truncate_inode_pages(row, th, f):
    """Take every page of file `f` from the cache; dirty ones are forgotten without being written.

    returns  bool  False: some are under writeback, come back when the bill is paid

    Source: mm/truncate.c truncate_inode_pages_range.
    """
    file = row["files"][f]
    if file["writeback"] > 0:
        io_wait(row, th, written_until(row, f) - row["now_ns"])
        return False
    taken = 0
    for k in range(nr_cohorts(row, f)):
        i = cohort_of(row, f, k)
        cohort = row["cohorts"][i]
        if cohort["dirty"] > 0:
            account_dirtied(row, f, cohort["cg"], -cohort["dirty"])
            cohort["dirty"] = 0
        taken += cohort["nr"]
        if cohort["nr"] > 0:
            delete_from_page_cache(row, i, int(cohort["nr"]), 1)
        row["groups"][cohort["group"]]["evicted"] -= cohort["evicted"]
        cohort["evicted"] = 0
    row["spent_ns"] += row["cost"][SYSCALL] + taken * row["cost"][EXIT]
    file["more_io"] = 0
    file["at"] = 0
    return True


@law
def do_truncate(row, th, f):
    """open(O_TRUNC): the file has length 0 and no page.

    returns  bool  False: come back when the bill is paid

    Source: fs/open.c do_truncate, fs/ext4/inode.c ext4_truncate.
    """
    until = blocked_until(row, f)
    if until > row["now_ns"]:
        io_wait(row, th, until - row["now_ns"])
        return False
    if not truncate_inode_pages(row, th, f):
        return False
    file = row["files"][f]
    journal_start(row, f)
    file["size"] = 0
    file["blocks"] = 0
    if file["group"] >= 0:
        for k in range(file["groups"]):
            row["groups"][file["group"] + k]["pages"] = 0
    return True


@law
def is_mapped(row, f):
    """True if some task maps file `f`.

    Source: fs/inode.c: a mapping holds a reference to the file.
    """
    mappers = 0
    for a in range(NR_AREAS):
        if row["areas"][a]["kind"] == AREA_FILE and row["areas"][a]["file"] == f:
            mappers += 1
    return mappers > 0


@law
def unlink(row, th, f):
    """unlink(): the name goes at once; the pages go with the last user of the file.

    returns  bool  False: come back when the bill is paid

    Source: fs/namei.c do_unlinkat, fs/inode.c iput_final, fs/ext4/inode.c ext4_evict_inode.
    """
    file = row["files"][f]
    row["spent_ns"] += row["cost"][SYSCALL]
    if file["linked"] == 0 and file["group"] < 0:
        return True  # ENOENT
    file["linked"] = 0
    return is_mapped(row, f) or evict_inode(row, th, f)


@law
def evict_inode(row, th, f):
    """The last user of an unlinked file is gone: so are its pages and its length.

    returns  bool  False: come back when the bill is paid

    Source: fs/ext4/inode.c ext4_evict_inode.
    """
    if not do_truncate(row, th, f):
        return False
    file = row["files"][f]
    if file["group"] >= 0:
        for k in range(file["groups"]):
            drop_group(row, file["group"] + k)
        file["group"] = -1
    return True


@law
def invalidate_mapping_pages(row, f):
    """Drop the pages of file `f` that are clean and mapped by nobody.

    returns  int64  pages dropped

    Source: mm/truncate.c invalidate_mapping_pages. Leaves out: which pages of a partly mapped cohort are the mapped ones (a share).
    """
    dropped = 0
    for k in range(nr_cohorts(row, f)):
        i = cohort_of(row, f, k)
        cohort = row["cohorts"][i]
        group = row["groups"][cohort["group"]]
        if cohort["list"] == LRU_NONE or group["resident"] == 0:
            continue
        mapped = (group["mapped"] * cohort["nr"] + group["resident"] - 1) // group["resident"]
        n = cohort["nr"] - min(cohort["nr"], cohort["dirty"] + cohort["wb"] + mapped)
        if n > 0:
            delete_from_page_cache(row, i, n, 0)
            dropped += n
    return dropped
