# SPDX-License-Identifier: Apache-2.0
"""The page cache: read() and faults on mapped files (mm/filemap.c, mm/readahead.c).

read() of an ordered file walks its slices with the reader's own cursor. Missing pages of a slice come first (its lowest
positions were evicted first), are read in readahead windows, and join the inactive list's head; when the cursor leaves
a slice its pages were all touched: a second touch of an inactive page activates it.
A mapped file read at random is a uniform group: expected values, read-around on a miss, fault-around on a hit.
Leaves out: writing (ext4_file.py, mkwrite.py), executable mappings, large folios.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import ACCESS, FAULT_MINOR, READ_CACHED, READ_MISS
from fleetsim.hardware.disk import READ, submit_chain
from fleetsim.law import Q, law
from fleetsim.linux.alloc_slowpath import alloc_pages, handle_over_high, try_charge_memcg
from fleetsim.linux.bags import accessed_q, bag_age, blend_base, expected, open_bag
from fleetsim.linux.fault import count_faults
from fleetsim.linux.lru_gen import folio_inc_refs, lru_gen_enabled
from fleetsim.linux.memcontrol import add_file, charge
from fleetsim.linux.mm_inline import add_pages, list_add, list_move
from fleetsim.linux.mm_types import (
    ACCESSED,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_FILE,
    LRU_NONE,
    PSI_IO,
    PSI_MEM,
    REFERENCED,
    SHADOW_WORKINGSET,
    VM,
    WORKINGSET,
)
from fleetsim.linux.pgtable import add_tables
from fleetsim.linux.readahead import clustered, init_window, read_around
from fleetsim.linux.rmap import map_pages
from fleetsim.linux.shrink_list import count_activated
from fleetsim.linux.vma import slice_at
from fleetsim.linux.workingset_clock import keeps_workingset, workingset_refault

PGPGIN = VM["pgpgin"]
RA_PAGES = 32  # read_ahead_kb 128: a sequential reader's window
FAULT_AROUND = 16  # fault_around_bytes 65536
MMAP_LOTSAMISS = 100


@law
def read_disk(row, th, pages, hot):
    """Wait for `pages` missing pages to be read in readahead windows.

    returns  int64  requests made

    Source: mm/readahead.c page_cache_ra_order (initial window of a read() of this size); kernel-laws §4.1. First-time misses are
    IO pressure; waiting for pages that had Workingset is memory pressure too (§9).
    """
    task = row["tasks"][row["threads"][th]["task"]]
    disk = row["disk"][0]
    window = init_window(min(pages, RA_PAGES), RA_PAGES)
    requests = (pages + window - 1) // window
    begin = row["now_ns"] + row["spent_ns"] + row["wait_ns"]
    wait = submit_chain(disk, begin, pages, window, READ) - begin
    row["wait_ns"] += wait
    task["blkio_ns"] += wait
    row["stall_ns"][PSI_IO] += wait
    if hot:
        row["stall_ns"][PSI_MEM] += wait
    row["vm"][PGPGIN] += 4 * pages
    return requests


@law
def get_cache_pages(row, th, cg, pages):
    """Charge to `cg`, whose cohort they are going to join, and allocate up to `pages` pages.

    returns  int64  pages got; 0: come back when the bill is paid

    Source: mm/filemap.c __filemap_add_folio (mem_cgroup_charge), filemap_alloc_folio. A reader's pages are charged to the reader; those
    that join a slice somebody else has in the cache are charged, and held against a limit, where the slice is.
    """
    allowed = try_charge_memcg(row, th, cg, pages)
    return alloc_pages(row, th, allowed) if allowed > 0 else 0


@law
def cache_new(row, th, i, pages):
    """Pages just allocated join the cache in cohort `i`: book them.

    Source: mm/filemap.c filemap_add_folio.
    """
    task = row["tasks"][row["threads"][th]["task"]]
    add_pages(row, i, pages)
    charge(row, row["cohorts"][i]["cg"], pages)
    add_file(row, row["cohorts"][i]["cg"], pages)
    row["spent_ns"] += pages * row["cost"][READ_MISS]
    task["stime_ns"] += pages * row["cost"][READ_MISS]


@law
def enter_slice(row, th, i, length):
    """The reader's cursor enters a slice: if most of it is missing, the pages that come will stand at a list's head.

    Source: mm/workingset.c workingset_refault for the slice; fleetsim's representation for the rest.
    """
    cohort = row["cohorts"][i]
    cg = row["tasks"][row["threads"][th]["task"]]["cg"]
    activate, hot = False, False
    if cohort["evicted"] > 0:
        activate = workingset_refault(row, i, cg, True, cohort["evicted"])
        hot = keeps_workingset(row, cohort, activate)
    missing = length - cohort["nr"]
    if missing == 0 or (missing * 2 < length and cohort["list"] != LRU_NONE):
        return
    target = LRU_ACTIVE_FILE if activate else LRU_INACTIVE_FILE
    if cohort["list"] == LRU_NONE:
        cohort["cg"] = cg
        cohort["flags"] &= SHADOW_WORKINGSET
        list_add(row, i, target)
    else:
        cohort["flags"] &= ~(REFERENCED | WORKINGSET)
        list_move(row, i, target)
    cohort["refs"] = 0
    if hot:
        cohort["flags"] |= WORKINGSET


@law
def leave_slice(row, i, fresh):
    """The cursor leaves a slice, all of whose pages read() touched once.

    fresh  bool  most of them were read from disk just now: that was their first touch

    Source: mm/swap.c folio_mark_accessed; kernel-laws §3.1.
    """
    cohort = row["cohorts"][i]
    if lru_gen_enabled(row):
        folio_inc_refs(cohort)
    elif fresh or not cohort["flags"] & REFERENCED:
        cohort["flags"] |= REFERENCED
    elif cohort["list"] == LRU_INACTIVE_FILE:
        cohort["flags"] &= ~REFERENCED
        count_activated(row, cohort["cg"], cohort["nr"])
        list_move(row, i, LRU_ACTIVE_FILE)


@law
def access_mapped_ordered(row, th, m, at, pages):
    """Loads from up to `pages` pages of a mapped file that is swept, from position `at`, never beyond the slice.

    Missing pages are read around, one major fault per window; pages not mapped yet are met in order, 16 by each minor fault.
    returns  int64  pages done; 0: come back

    Source: mm/filemap.c filemap_fault, mm/memory.c do_fault_around; kernel-laws §4.1, §10.1.
    """
    mapping = row["mappings"][m]
    g = mapping["group"]
    group = row["groups"][g]
    task = row["tasks"][row["threads"][th]["task"]]
    k, start = slice_at(group, at)
    i = group["first"] + k
    cohort = row["cohorts"][i]
    length = slice_end(group, k) - start
    n = min(pages, start + length - at)
    missing = min(n, length - cohort["nr"])
    if missing > 0:
        n, requests = fill_slice(row, th, i, missing, at == start, length)
        if n == 0:
            return 0
        count_faults(row, task, 0, requests)
    unmapped = group["resident"] - mapping["mapped"]
    if unmapped > 0:
        minor = map_pages(row, m, min(n, unmapped))
        minor = 0 if missing > 0 else (minor + FAULT_AROUND - 1) // FAULT_AROUND
        count_faults(row, task, minor, 0)
        row["spent_ns"] += minor * row["cost"][FAULT_MINOR]
    add_tables(row, row["areas"][mapping["area"]], at + n)
    cohort["flags"] |= ACCESSED
    row["spent_ns"] += n * row["cost"][ACCESS]
    task["utime_ns"] += n * row["cost"][ACCESS]
    return n


@law
def fill_slice(row, th, i, pages, entered, length):
    """Read up to `pages` missing pages of an ordered file's slice from disk.

    entered  bool   the cursor stands at the slice's begin: once there is memory for them, where they will stand is decided
    length   int64  pages of the slice
    returns  (int64 pages (0: come back), int64 requests made)

    Source: mm/filemap.c filemap_get_pages, mm/readahead.c.
    """
    cohort = row["cohorts"][i]
    group = row["groups"][cohort["group"]]
    cg = row["tasks"][row["threads"][th]["task"]]["cg"]
    n = get_cache_pages(row, th, cg if cohort["list"] == LRU_NONE else cohort["cg"], pages)
    if n == 0:
        return 0, 0
    if entered:
        enter_slice(row, th, i, length)
    if cohort["list"] == LRU_NONE:  # reclaim emptied it under the cursor
        cohort["cg"] = cg
        list_add(row, i, LRU_INACTIVE_FILE)
    hot = cohort["evicted"] > 0 and cohort["flags"] & SHADOW_WORKINGSET > 0
    back = min(n, cohort["evicted"])
    cohort["evicted"] -= back
    group["evicted"] -= back
    cache_new(row, th, i, n)
    requests = read_disk(row, th, n, hot)
    if row["tasks"][row["threads"][th]["task"]]["cg"] > 0:
        handle_over_high(row, th, n)
    return n, requests


@law
def read_ordered(row, th, g, at, pages, fresh):
    """read() of up to `pages` pages of an ordered file from position `at`, never beyond the slice.

    fresh    int64  pages of this slice read from disk since the cursor entered it
    returns  (int64 pages done (0: come back), int64 of them from disk)

    Source: mm/filemap.c filemap_read.
    """
    group = row["groups"][g]
    k, start = slice_at(group, at)
    i = group["first"] + k
    cohort = row["cohorts"][i]
    offset = at - start
    length = slice_end(group, k) - start
    n = min(pages, length - offset)
    missing = min(n, length - cohort["nr"])
    if missing > 0:
        n, _ = fill_slice(row, th, i, missing, offset == 0, length)
        if n == 0:
            return 0, 0
        missing = n
    row["spent_ns"] += n * row["cost"][READ_CACHED]
    row["tasks"][row["threads"][th]["task"]]["stime_ns"] += n * row["cost"][READ_CACHED]
    if offset + n == length and cohort["list"] != LRU_NONE:
        leave_slice(row, i, (fresh + missing) * 2 > length)
    return n, missing


@law
def slice_end(group, k):
    """First position behind the k-th slice of an ordered file.

    Source: fleetsim's own representation (design §3.2).
    """
    return group["pages"] if k == group["cohorts"] - 1 else min(group["pages"], (k + 1) * group["slice"])


@law
def load_uniform(row, th, g, pages):
    """Take `pages` missing pages of a uniform file into its newest bag; evicted ones are refaults. The caller waits for the disk.

    returns  (int64 pages (0: come back), bool some had the Workingset flag)

    Source: mm/filemap.c filemap_fault, mm/workingset.c workingset_refault.
    """
    group = row["groups"][g]
    cg = row["tasks"][row["threads"][th]["task"]]["cg"]
    n = get_cache_pages(row, th, cg, pages)
    if n == 0:
        return 0, False
    missing = group["pages"] - group["resident"]
    back = min(group["evicted"], n * group["evicted"] // missing)
    activate, hot, source, left = False, False, -1, back
    for k in range(group["cohorts"]):
        cohort = row["cohorts"][group["first"] + k]
        if cohort["evicted"] > 0 and left > 0:
            share = min(left, cohort["evicted"], (back * cohort["evicted"] + group["evicted"] - 1) // group["evicted"])
            cohort["evicted"] -= share
            left -= share
            source = group["first"] + k
            activate = workingset_refault(row, source, cg, True, share) or activate
            hot = hot or cohort["flags"] & SHADOW_WORKINGSET > 0
    group["evicted"] -= back
    flags = WORKINGSET if (activate or lru_gen_enabled(row)) and hot else 0
    target = open_bag(row, g, cg, LRU_ACTIVE_FILE if activate else LRU_INACTIVE_FILE, flags)
    blend_base(row["cohorts"][target], n, group["touches"])
    cache_new(row, th, target, n)
    return n, hot


@law
def tail_accessed_q(row, g):
    """Accessed share of the oldest bag of a uniform group on an inactive list, 2^20ths: what reclaim keeps of it; 0 if there is none.

    Source: fleetsim's own representation (bags.py).
    """
    group = row["groups"][g]
    oldest = -1
    for i in range(group["first"], group["first"] + group["cohorts"]):
        cohort = row["cohorts"][i]
        if cohort["list"] == LRU_INACTIVE_FILE and (oldest < 0 or bag_age(row, cohort) > bag_age(row, row["cohorts"][oldest])):
            oldest = i
    return accessed_q(group, row["cohorts"][oldest]) if oldest >= 0 else 0


@law
def miss_less(mapping, pages):
    """`pages` pages that a fault wanted or mapped with it were in the cache already.

    Source: mm/filemap.c do_async_mmap_readahead, filemap_map_pages (file->f_ra.mmap_miss).
    """
    mapping["mmap_miss"] = max(0, mapping["mmap_miss"] - pages)


@law
def fault_in(row, th, m, accesses):
    """Read what is missing of a mapped file for `accesses` accesses to equally likely pages.

    Each major fault reads what is missing of 32 pages around it. After 100 more misses than hits read-around is off: only the
    page itself is read.
    returns  (int64 accesses that can be done (fewer if memory could not be had at once), int64 major faults)

    Source: mm/filemap.c do_sync_mmap_readahead (MMAP_LOTSAMISS).
    """
    mapping = row["mappings"][m]
    g = mapping["group"]
    group = row["groups"][g]
    missing = group["pages"] - group["resident"]
    if missing == 0:
        return accesses, 0
    major = min(missing, expected(group, accesses, (missing << Q) // group["pages"]))
    if major == 0:
        return accesses, 0
    around = major
    if mapping["mmap_miss"] <= MMAP_LOTSAMISS:
        around = min(missing, major * read_around(missing, group["evicted"], group["pages"], RA_PAGES, tail_accessed_q(row, g)))
    loaded, hot = load_uniform(row, th, g, around)
    if loaded > 0:
        read_disk(row, th, loaded, hot)
    accesses = accesses * loaded // around
    if accesses == 0:
        return 0, 0
    major = min(major, loaded)
    mapping["mmap_miss"] = min(10 * MMAP_LOTSAMISS, mapping["mmap_miss"] + major)
    count_faults(row, row["tasks"][row["threads"][th]["task"]], 0, major)
    return accesses, major


@law
def access_mapped(row, th, m, accesses):
    """`accesses` loads from equally likely pages of a mapped file.

        major = accesses · missing / pages            each reads what is missing of 32 pages around it, and maps 16
        minor = accesses · (resident − mapped) / pages    each maps up to 16 pages around

    m        int64  row of MAPPING
    returns  int64  accesses done; fewer if memory could not be had at once, 0: come back

    Source: mm/filemap.c do_sync_mmap_readahead, mm/memory.c do_fault_around; kernel-laws §4.1, §10.1.
    """
    mapping = row["mappings"][m]
    g = mapping["group"]
    group = row["groups"][g]
    task = row["tasks"][row["threads"][th]["task"]]
    resident = group["resident"]
    accesses, major = fault_in(row, th, m, accesses)
    if accesses == 0:
        return 0
    miss_less(mapping, map_pages(row, m, min(group["resident"] - resident, major * FAULT_AROUND)))
    add_tables(row, row["areas"][mapping["area"]], row["areas"][mapping["area"]]["pages"])
    unmapped = group["resident"] - mapping["mapped"]
    if unmapped > 0:
        minor = min(unmapped, expected(group, accesses, (unmapped << Q) // group["pages"]))
        miss_less(mapping, map_pages(row, m, minor * clustered(unmapped, group["pages"], FAULT_AROUND)))
        count_faults(row, task, minor, 0)
        row["spent_ns"] += minor * row["cost"][FAULT_MINOR]
    group["touches"] += accesses
    row["spent_ns"] += accesses * row["cost"][ACCESS]
    task["utime_ns"] += accesses * row["cost"][ACCESS]
    return accesses
