# SPDX-License-Identifier: Apache-2.0
"""Shared memory and tmpfs: pages that belong to an object, not to a task (mm/shmem.c).

An object is a row of FILE on a tmpfs mount. Shared anonymous memory and System V segments are objects of the kernel's own
mount, which has no limit; a POSIX segment is a file of the tmpfs at /dev/shm. Its pages stand on anonymous lists, count as
Shmem and as cache, are charged to whom touched them first, and stay until the object loses its name and its last mapping.
One that is swapped out is in nobody's VmSwap: page tables do not know of it.

Of an object that is swept, a slice's pages are its lowest positions, as if it had been filled in order; of one used at
random, expected values. A page is charged to the cgroup of its cohort, which is that of the cohort's first page.
Leaves out: huge pages (shmem_enabled), sealing, the limit on inodes, quotas.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import ACCESS, EXIT, FAULT_MINOR, FAULT_SHMEM, READ_CACHED, SHMEM_WRITE, SWAP_IN
from fleetsim.law import Q, law
from fleetsim.linux.alloc_slowpath import handle_over_high
from fleetsim.linux.bags import expected, open_bag
from fleetsim.linux.fault import count_faults
from fleetsim.linux.filemap import FAULT_AROUND
from fleetsim.linux.memcontrol import add_shmem, charge
from fleetsim.linux.memory import get_pages
from fleetsim.linux.mm_inline import account, add_pages, list_add, list_del, list_move
from fleetsim.linux.mm_types import ACCESSED, LRU_ACTIVE_ANON, LRU_INACTIVE_ANON, LRU_NONE, ORDERED, SHADOW_WORKINGSET, WORKINGSET
from fleetsim.linux.page_io import do_sigbus, read_fails
from fleetsim.linux.pgtable import add_tables
from fleetsim.linux.readahead import clustered, swapin_nr_pages
from fleetsim.linux.rmap import find_mapping, map_pages, present_pages, try_to_unmap
from fleetsim.linux.swap_state import add_swap_cache
from fleetsim.linux.swapfile import release_slots
from fleetsim.linux.swapin import read_swap
from fleetsim.linux.vma import drop_group
from fleetsim.linux.workingset_clock import keeps_workingset, workingset_refault
from fleetsim.linux.zonelist import give_back

SHM_MNT = 0  # the kernel's own tmpfs: no path leads there, and it has no limit
NOT_LINKED, LINKED = 0, 1
ANONYMOUS = -1  # never had a name: the row is free when the object is gone


@law
def shmem_add(row, th, f, g, i, pages):
    """Up to `pages` new, empty pages for cohort `i` of an object (−1: the open bag of its group).

    returns  int64  pages; 0: come back; −1: the mount is full (ENOSPC, or SIGBUS for a fault)

    Source: mm/shmem.c shmem_alloc_and_acct_folio, shmem_add_to_page_cache; kernel-laws §14, §6 (a tmpfs file is promised page by page).
    """
    file = row["files"][f]
    mount = row["mounts"][file["mount"]]
    room = mount["max_blocks"] - mount["blocks"]
    if room <= 0:
        return -1
    n = get_pages(row, th, min(pages, room))
    if n == 0:
        return 0
    cg = row["tasks"][row["threads"][th]["task"]]["cg"]
    if i < 0:
        i = open_bag(row, g, cg, LRU_INACTIVE_ANON, 0)
    cohort = row["cohorts"][i]
    if cohort["list"] == LRU_NONE:
        if cohort["swapped"] == 0:
            cohort["cg"] = cg
            cohort["flags"] = 0
        list_add(row, i, LRU_INACTIVE_ANON)
    add_pages(row, i, n)
    charge(row, cohort["cg"], n)
    add_shmem(row, cohort["cg"], n)
    mount["blocks"] += n
    if file["linked"] != ANONYMOUS:
        file["reserved"] += n
        row["committed"] += n
    if cg > 0:
        handle_over_high(row, th, n)
    return n


@law
def shmem_swapin(row, th, i, pages, window, fault):
    """Up to `pages` swapped pages of cohort `i` come back; their slots are freed at once, whether they are read or written.

    fault    int64  1: a page fault needs them (pgmajfault counts), 0: read() or write()
    returns  int64  pages; 0: come back

    Source: mm/shmem.c shmem_swapin_folio, shmem_delete_from_swap. Leaves out: the rest of the readahead window, as for private memory.
    """
    cohort = row["cohorts"][i]
    g = cohort["group"]
    group = row["groups"][g]
    task = row["tasks"][row["threads"][th]["task"]]
    if read_fails(row, g, min(pages, cohort["swapped"])):
        do_sigbus(row, row["threads"][th]["task"])  # EIO for read() and write(), after which a program gives up as well
        return 0
    n = get_pages(row, th, min(pages, cohort["swapped"]))
    if n == 0:
        return 0
    activate = workingset_refault(row, i, task["cg"], False, n)
    hot = cohort["flags"] & SHADOW_WORKINGSET
    requests = read_swap(row, th, g, n, window, hot > 0)
    cohort["swapped"] -= n
    group["swapped"] -= n
    release_slots(row, g, cohort["cg"], n, 0)
    lru = LRU_ACTIVE_ANON if activate else LRU_INACTIVE_ANON
    target = i
    if group["kind"] != ORDERED:
        target = open_bag(row, g, cohort["cg"], lru, 0)
    elif cohort["list"] == LRU_NONE:
        cohort["flags"] = WORKINGSET if keeps_workingset(row, cohort, activate) else 0
        list_add(row, i, lru)
    elif cohort["swapped"] + n > cohort["nr"]:  # most of it was out: where the pages that come back stand is where it stands
        list_move(row, i, lru)
    add_pages(row, target, n)
    charge(row, row["cohorts"][target]["cg"], n)
    add_shmem(row, row["cohorts"][target]["cg"], n)
    if fault > 0:
        count_faults(row, task, n - requests, requests)
    row["spent_ns"] += n * row["cost"][SWAP_IN]
    task["stime_ns"] += n * row["cost"][SWAP_IN]
    return n


@law
def shmem_from_cache(row, th, i, pages, fault):
    """`pages` pages of cohort `i` that are being written to swap are wanted again: they are the object's once more, without IO.

    Source: mm/shmem.c shmem_swapin_folio (page found in the swap cache).
    """
    cohort = row["cohorts"][i]
    cohort["wb"] -= pages
    add_swap_cache(row, cohort["cg"], -pages)
    release_slots(row, cohort["group"], cohort["cg"], pages, 1)
    add_shmem(row, cohort["cg"], pages)
    if fault > 0:
        count_faults(row, row["tasks"][row["threads"][th]["task"]], pages, 0)
    row["spent_ns"] += pages * row["cost"][FAULT_MINOR]


@law
def shmem_get(row, th, f, g, at, pages, limit, fault):
    """Have up to `pages` pages of an object in memory: from position `at` on, or anywhere below `limit` if it is used at random.

    limit    int64  pages of this group that the accesses may go to
    fault    int64  1: for a page fault, 0: for read() or write()
    returns  (int64 pages dealt with (0: come back, −1: the mount is full), int64 of them new, int64 of them back from swap)

    Source: mm/shmem.c shmem_get_folio_gfp.
    """
    group = row["groups"][g]
    most = 1 << row["sysctl"]["page_cluster"]
    if group["kind"] == ORDERED:
        i = group["first"] + at // group["slice"]
        cohort = row["cohorts"][i]
        offset = at % group["slice"]
        n = min(pages, min(group["slice"], group["pages"] - (at - offset)) - offset)
        have = cohort["nr"] + cohort["swapped"]
        if offset >= have:
            new = shmem_add(row, th, f, g, i, n)
            return new, max(0, new), 0
        n = min(n, have - offset)
        back = 0
        if cohort["swapped"] > 0:
            n = shmem_swapin(row, th, i, n, swapin_nr_pages(most, True, most, most), fault)
            back = n
        elif cohort["wb"] > 0:
            n = min(n, cohort["wb"])
            shmem_from_cache(row, th, i, n, fault)
            back = n
        return n, 0, back
    holes = max(0, limit - group["resident"] - group["swapped"])
    missing = holes + group["swapped"] + group["resident"] - present_pages(row, group)
    owed = 0
    if missing > 0:
        owed = min(missing, expected(group, pages, (missing << Q) // max(1, limit)))
    if owed == 0:
        return pages, 0, 0
    new = owed * holes // missing
    if new > 0:
        got = shmem_add(row, th, f, g, -1, new)
        if got < new:
            return (pages * got // owed if got >= 0 else -1), max(0, got), 0
    back, left = 0, owed - new
    for i in range(group["first"], group["first"] + group["cohorts"]):
        cohort = row["cohorts"][i]
        if left > back and cohort["wb"] > 0:
            n = min(left - back, cohort["wb"])
            shmem_from_cache(row, th, i, n, fault)
            back += n
        elif left > back and cohort["swapped"] > 0:
            n = shmem_swapin(row, th, i, left - back, swapin_nr_pages(0, False, 0, most), fault)
            back += n
            if n == 0:
                break
    return pages * (new + back) // owed, new, back


@law
def shmem_fault(row, th, a, g, at, pages, limit, write):
    """Access up to `pages` pages of a mapped object from position `at`, or at random, mapping those that are not mapped yet.

    A read fault maps up to 16 pages around, a write fault its own.
    returns  int64  pages done; 0: come back; −1: the mount is full (the task gets SIGBUS)

    Source: mm/shmem.c shmem_fault, mm/memory.c do_shared_fault, do_read_fault; kernel-laws §10.1.
    """
    area = row["areas"][a]
    group = row["groups"][g]
    task = row["tasks"][area["task"]]
    m = find_mapping(row, a, g)
    done, new, back = shmem_get(row, th, area["file"], g, at, pages, limit, 1)
    if done <= 0:
        return done
    missed = group["resident"] - row["mappings"][m]["mapped"]
    if missed > 0:
        around = FAULT_AROUND
        if group["kind"] == ORDERED:
            missed = min(missed, done)
        else:
            there = max(0, missed - new - back)
            missed = expected(group, done, (there << Q) // max(1, limit))
            if not write:
                around = clustered(there, max(1, limit), FAULT_AROUND)
                missed = min(there, missed * around)
            missed += new + back
        faults = max(0, missed - new - back)
        faults = faults if write else (faults + around - 1) // around
        map_pages(row, m, missed)
        count_faults(row, task, new + faults, 0)
        spent = new * row["cost"][FAULT_SHMEM] + faults * row["cost"][FAULT_MINOR]
        row["spent_ns"] += spent
        task["stime_ns"] += spent
    add_tables(row, area, at + done if group["kind"] == ORDERED else area["pages"])
    group["touches"] += done
    row["spent_ns"] += done * row["cost"][ACCESS]
    task["utime_ns"] += done * row["cost"][ACCESS]
    if group["kind"] == ORDERED:
        i = group["first"] + at // group["slice"]
        if new > 0 or at + done == group["pages"] or (at + done) % group["slice"] == 0:
            row["cohorts"][i]["flags"] |= ACCESSED
    return done


@law
def touch_shared(row, th, a, g, pages):
    """Write to the next `pages` pages of a mapped object that is used at random: new ones while there are holes, else those there are.

    returns  int64  pages done; 0: come back; −1: the mount is full

    Source: mm/memory.c do_shared_fault.
    """
    area = row["areas"][a]
    group = row["groups"][g]
    mapping = row["mappings"][find_mapping(row, a, g)]
    held = group["resident"] + group["swapped"]
    if mapping["mapped"] < held or held == group["pages"]:  # somebody else filled them, or the task itself read them before
        return shmem_fault(row, th, a, g, 0, min(pages, held), held, 1)
    return shmem_fill(row, th, a, g, min(pages, group["pages"] - held), area["touched"])


@law
def shmem_fill(row, th, a, g, pages, before):
    """Write to `pages` pages of a mapped object, used at random, that nobody has written to yet; `before` so many were used below them.

    returns  int64  pages done; 0: come back; −1: the mount is full

    Source: mm/shmem.c shmem_fault, mm/memory.c do_shared_fault.
    """
    area = row["areas"][a]
    task = row["tasks"][area["task"]]
    n = shmem_add(row, th, area["file"], g, -1, pages)
    if n <= 0:
        return n
    map_pages(row, find_mapping(row, a, g), n)
    add_tables(row, area, before + n)
    count_faults(row, task, n, 0)
    row["spent_ns"] += n * row["cost"][FAULT_SHMEM]
    task["stime_ns"] += n * row["cost"][FAULT_SHMEM]
    return n


@law
def shmem_file_io(row, th, f, at, pages, write):
    """read() or write() of up to `pages` pages of a tmpfs file from page `at`.

    returns  int64  pages done; 0: come back; −1: no space left on the mount (ENOSPC)

    Source: mm/shmem.c shmem_file_read_iter (a hole reads as zeros and takes no page), generic_perform_write.
    """
    file = row["files"][f]
    g = file["group"]
    if file["groups"] == 2 and at >= row["groups"][g]["pages"]:
        at -= row["groups"][g]["pages"]
        g += 1
    group = row["groups"][g]
    task = row["tasks"][row["threads"][th]["task"]]
    n = min(pages, group["pages"] - at)
    if n <= 0:
        return -1
    if group["kind"] == ORDERED:
        cohort = row["cohorts"][group["first"] + at // group["slice"]]
        filled = at % group["slice"] < cohort["nr"] + cohort["swapped"]
        limit = 0
    else:
        filled = at < group["resident"] + group["swapped"]
        limit = group["resident"] + group["swapped"] if filled else group["pages"]
    new = 0
    if filled or write:
        if group["kind"] != ORDERED and not filled:
            n = shmem_add(row, th, f, g, -1, n)
            new = max(0, n)
        else:
            n, new, _ = shmem_get(row, th, f, g, at, n, limit, 0)
        if n <= 0:
            return n
    spent = new * row["cost"][SHMEM_WRITE] + (n - new) * row["cost"][READ_CACHED]
    row["spent_ns"] += spent
    task["stime_ns"] += spent
    return n


@law
def shmem_truncate(row, f, budget):
    """Give back up to `budget` pages and swap slots of an object, with whatever maps them.

    returns  int64  given back

    Source: mm/shmem.c shmem_undo_range, truncate_inode_pages.
    """
    file = row["files"][f]
    left = budget
    for g in range(file["group"], file["group"] + file["groups"]):
        group = row["groups"][g]
        for i in range(group["first"], group["first"] + group["cohorts"]):
            cohort = row["cohorts"][i]
            if left > 0 and cohort["nr"] > 0:
                n = min(left, cohort["nr"])
                cached = min(n, cohort["wb"])
                try_to_unmap(row, g, n - cached, 0)
                give_back(row, cohort, n)
                cohort["nr"] -= n
                cohort["wb"] -= cached
                group["resident"] -= n
                account(row, cohort["cg"], cohort["list"], -n)
                add_swap_cache(row, cohort["cg"], -cached)
                release_slots(row, g, cohort["cg"], cached, 1)
                add_shmem(row, cohort["cg"], cached - n)
                charge(row, cohort["cg"], -n)
                left -= n
                if cohort["nr"] == 0:
                    list_del(row, i)
            if left > 0 and cohort["swapped"] > 0:
                n = min(left, cohort["swapped"])
                cohort["swapped"] -= n
                group["swapped"] -= n
                release_slots(row, g, cohort["cg"], n, 0)
                left -= n
    done = budget - left
    row["mounts"][file["mount"]]["blocks"] -= done
    if file["linked"] != ANONYMOUS:
        file["reserved"] -= done
        row["committed"] -= done
    row["spent_ns"] += done * row["cost"][EXIT]
    return done


@law
def shmem_evict_inode(row, f, budget):
    """Take down up to `budget` pages of an object that has neither name nor mapping left; then its groups, promise and row go.

    returns  (int64 pages and slots given back, bool it is gone)

    Source: mm/shmem.c shmem_evict_inode.
    """
    file = row["files"][f]
    if file["group"] < 0:
        return 0, True
    for g in range(file["group"], file["group"] + file["groups"]):
        if row["groups"][g]["maps"] >= 0:
            return 0, True  # still mapped: it goes with its last mapping
    done = shmem_truncate(row, f, budget)
    if done == budget:
        return done, False
    for g in range(file["group"], file["group"] + file["groups"]):
        drop_group(row, g)
    file["group"] = -1
    row["committed"] -= file["reserved"]
    file["reserved"] = 0
    file["size"] = 0
    if file["linked"] == ANONYMOUS:
        file["used"] = 0
    return done, True
