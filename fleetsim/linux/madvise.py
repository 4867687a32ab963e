# SPDX-License-Identifier: Apache-2.0
"""madvise: what a task tells the kernel about its own memory (mm/madvise.c), and giving a part of an area back.

    MADV_COLD      deactivate: next to go, not gone            MADV_PAGEOUT   reclaim now; RSS falls, memory comes back on pressure
    MADV_FREE      may be dropped without IO until written     MADV_WILLNEED  swap is read in without waiting
    MADV_DONTNEED  gone at once, page tables stay              MADV_HUGEPAGE, MADV_NOHUGEPAGE  a flag of the area

Leaves out: advice for a part of an area, MADV_WILLNEED of a file, MADV_COLLAPSE, MADV_MERGEABLE, MADV_REMOVE.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import ACCESS, EXIT, LRU_MOVE, SCAN, SWAP_OUT
from fleetsim.hardware.disk import READ, submit
from fleetsim.law import law
from fleetsim.linux.anon_vma import detach, layered
from fleetsim.linux.huge_mm import SCAN_SLEEP_NS
from fleetsim.linux.lru_gen import lru_gen_enabled
from fleetsim.linux.memcontrol import charge, count, swap_room
from fleetsim.linux.memory import get_pages
from fleetsim.linux.mm_inline import add_pages, is_file_lru, list_move
from fleetsim.linux.mm_types import (
    ACCESSED,
    AREA_ANON,
    CG,
    LRU_ACTIVE_ANON,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    LRU_NONE,
    LRU_UNEVICTABLE,
    ORDERED,
    PSI_IO,
    REFERENCED,
    SETTLED,
    VM,
    WORKINGSET,
)
from fleetsim.linux.page_io import compress_ns
from fleetsim.linux.pgtable import account_tables, trim_tables
from fleetsim.linux.shrink_list import evict_file
from fleetsim.linux.swap import swap_out_in_place
from fleetsim.linux.swap_state import add_swap_cache, drop_clean, take_clean
from fleetsim.linux.swapin import read_swap
from fleetsim.linux.zap import zap_resident, zap_swapped

MADV_NORMAL, MADV_WILLNEED, MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE = 0, 3, 4, 8, 14, 15
MADV_COLD, MADV_PAGEOUT, MADV_COLLAPSE = 20, 21, 25
MADVICE = {
    "normal": MADV_NORMAL,
    "willneed": MADV_WILLNEED,
    "dontneed": MADV_DONTNEED,
    "free": MADV_FREE,
    "hugepage": MADV_HUGEPAGE,
    "nohugepage": MADV_NOHUGEPAGE,
    "cold": MADV_COLD,
    "pageout": MADV_PAGEOUT,
    "collapse": MADV_COLLAPSE,
}
"""The advice by its word (include/uapi/asm-generic/mman-common.h)."""
PART_ALL, PART_FIRST, PART_LAST, PART_EVERY = 0, 1, 2, 3
PGDEACTIVATE, PGLAZYFREE, PSWPIN, PGPGIN = VM["pgdeactivate"], VM["pglazyfree"], VM["pswpin"], VM["pgpgin"]
CG_DEACTIVATE, CG_LAZYFREE = CG["pgdeactivate"], CG["pglazyfree"]
PTES = 512


@law
def mapped_once(row, g):
    """True if one area alone maps the pages of group `g`.

    Source: mm/madvise.c madvise_cold_or_pageout_pte_range, madvise_free_pte_range (page_mapcount(page) != 1: skip).
    """
    group = row["groups"][g]
    if group["is_file"] == 0 and group["shmem"] == 0:
        return not layered(group)
    return group["maps"] >= 0 and row["mappings"][group["maps"]]["next"] < 0


@law
def madvise_cold(row, i):
    """The pages of cohort `i` were not used, whatever the accessed bits say; active ones go to the inactive list's head.

    Source: mm/madvise.c madvise_cold_or_pageout_pte_range, mm/swap.c lru_deactivate_fn.
    """
    cohort = row["cohorts"][i]
    lru = cohort["list"]
    row["spent_ns"] += cohort["nr"] * row["cost"][ACCESS]
    if lru in (LRU_NONE, LRU_UNEVICTABLE):
        return
    cohort["flags"] &= ~(ACCESSED | REFERENCED)
    cohort["base"] = row["groups"][cohort["group"]]["touches"]
    if lru in (LRU_ACTIVE_ANON, LRU_ACTIVE_FILE) or lru_gen_enabled(row):
        row["vm"][PGDEACTIVATE] += cohort["nr"]
        count(row, cohort["cg"], CG_DEACTIVATE, cohort["nr"])
        row["spent_ns"] += cohort["nr"] * row["cost"][LRU_MOVE]
        list_move(row, i, lru & ~1)


@law
def madvise_pageout(row, i):
    """Reclaim the pages of cohort `i` now, used or not. Anonymous ones are written and stay in the swap cache.

    Source: mm/madvise.c madvise_cold_or_pageout_pte_range → mm/vmscan.c reclaim_pages; kernel-laws §4.3. Not counted as scanned
    or stolen. Leaves out: dirty file pages (not written); pages that swap has no room for move to the list's head (here they stay).
    """
    cohort = row["cohorts"][i]
    if cohort["list"] == LRU_NONE or cohort["list"] == LRU_UNEVICTABLE:
        return
    sc = row["scan"][1]
    sc["target"] = 0
    sc["spent_ns"] = 0
    cohort["flags"] &= ~(ACCESSED | REFERENCED)
    cohort["base"] = row["groups"][cohort["group"]]["touches"]
    if row["groups"][cohort["group"]]["is_file"] > 0:
        group = row["groups"][cohort["group"]]
        mapped = cohort["nr"] * row["mappings"][group["maps"]]["mapped"] // max(1, group["resident"])
        pages = min(mapped, cohort["nr"] - cohort["wb"] - cohort["dirty"])
        if pages > 0:
            evict_file(row, sc, i, pages)
    else:
        if cohort["clean"] > 0:
            drop_clean(row, sc, i, cohort["clean"])
        pages = min(cohort["nr"] - cohort["wb"], swap_room(row, cohort["cg"]))
        if pages > 0 and not is_file_lru(cohort["list"]):
            freed = swap_out_in_place(row, i, pages)
            sc["spent_ns"] += pages * (row["cost"][SCAN] + row["cost"][SWAP_OUT]) + compress_ns(row, freed)
            if cohort["nr"] > 0:
                list_move(row, i, LRU_INACTIVE_ANON)
    row["spent_ns"] += sc["spent_ns"]


@law
def madvise_free(row, i):
    """The content of cohort `i` may be thrown away: swapped pages go at once, resident ones join the inactive file list, clean.

    Source: mm/madvise.c madvise_free_pte_range, mm/swap.c lru_lazyfree_fn; kernel-laws §3.7, §4.3.
    """
    cohort = row["cohorts"][i]
    if cohort["swapped"] > 0:
        zap_swapped(row, i, cohort["swapped"])
    if cohort["wb"] > 0:
        zap_resident(row, i, cohort["wb"], cohort["wb"], 0, 1)
    pages = cohort["nr"]
    if pages == 0 or cohort["list"] == LRU_UNEVICTABLE:
        return
    if cohort["clean"] > 0:
        take_clean(row, i, cohort["clean"])
    cohort["flags"] &= ~(ACCESSED | REFERENCED | WORKINGSET)
    cohort["base"] = row["groups"][cohort["group"]]["touches"]
    list_move(row, i, LRU_INACTIVE_FILE)
    cohort["clean"] = pages
    row["lazy"] += pages
    row["vm"][PGLAZYFREE] += pages
    count(row, cohort["cg"], CG_LAZYFREE, pages)
    row["spent_ns"] += pages * row["cost"][LRU_MOVE]


@law
def madvise_willneed(row, th, i):
    """Start reading what cohort `i` has in swap into the swap cache; nobody waits.

    returns  bool  False: memory was short, come back

    Source: mm/madvise.c swapin_walk_pmd_entry.
    """
    cohort = row["cohorts"][i]
    n = cohort["swapped"]
    if n == 0 or cohort["list"] == LRU_NONE:  # a cohort without a page in memory has no list to stand on: its pages wait for their fault
        return True
    n = get_pages(row, th, n)
    if n == 0 or n > cohort["swapped"]:
        return False
    group = row["groups"][cohort["group"]]
    cohort["swapped"] -= n
    group["swapped"] -= n
    cohort["wb"] += n
    cohort["flags"] |= SETTLED
    add_pages(row, i, n)
    charge(row, cohort["cg"], n)
    add_swap_cache(row, cohort["cg"], n)
    if row["swap_mode"] > 0:
        before = row["wait_ns"], row["stall_ns"][PSI_IO]
        read_swap(row, th, cohort["group"], n, n, False)
        row["wait_ns"], row["stall_ns"][PSI_IO] = before
        return True
    disk = row["disk"][row["swap_disk"]]
    submit(disk, row["now_ns"], n, READ)
    row["vm"][PSWPIN] += n
    row["vm"][PGPGIN] += 4 * n
    return True


@law
def zap_share(row, i, present, num, den, every):
    """Give back `num` of `den` parts of what cohort `i` holds, resident, swapped and cached pages alike.

    present  int64  its pages in memory and in swap
    every    int64  every which page is kept (1: a run of pages goes)
    returns  int64  pages given back

    Source: mm/memory.c zap_pte_range over a part of the cohort's positions; shares are fleetsim's own (a cohort has no positions).
    """
    cohort = row["cohorts"][i]
    total = present * num // den
    swapped = cohort["swapped"] * total // max(1, present)
    pages = min(cohort["nr"], total - swapped)
    swapped = min(cohort["swapped"], total - pages)
    if swapped > 0:
        zap_swapped(row, i, swapped)
    if pages > 0:
        nr = cohort["nr"]
        zap_resident(row, i, pages, cohort["wb"] * pages // nr, cohort["clean"] * pages // nr, every)
    return pages + swapped


@law
def kept_of(start, length, every):
    """How many positions of `start` … `start` + `length` are multiples of `every`.

    Source: the recordings' driver (free … keep_every:k).
    """
    return (start + length - 1) // every - (start - 1) // every


@law
def zap_range(row, a, first, last, every):
    """Give back the touched pages of area `a` at positions `first` … `last`−1, but every `every`-th if that is above 1.

    returns  int64  pages given back

    Source: mm/memory.c zap_page_range.
    """
    area = row["areas"][a]
    given = 0
    begin = 0
    for k in range(area["groups"]):
        g = area["group"] + k
        group = row["groups"][g]
        span = min(group["pages"], area["touched"] - begin)
        for c in range(group["cohorts"]):
            i = group["first"] + c
            cohort = row["cohorts"][i]
            present = cohort["nr"] + cohort["swapped"]
            at, length = begin, span
            if group["kind"] == ORDERED:
                at = begin + c * group["slice"]
                length = min(group["slice"], begin + span - at)
            lo, hi = max(first, at), min(last, at + length)
            if present == 0 or hi <= lo:
                continue
            gone = hi - lo
            if every > 1:
                gone -= kept_of(lo, hi - lo, every)
            given += zap_share(row, i, present, gone, length, every)
        begin += group["pages"]
    return given


@law
def free_part(row, a, unmap, how, amount):
    """Give back a part of an anonymous area, as the recordings' driver does; page tables stay unless their 2 MiB are unmapped.

    unmap   int64  1: munmap, 0: MADV_DONTNEED
    how     int64  PART_FIRST, PART_LAST (pages), PART_EVERY (keep every `amount`-th touched page) or PART_ALL
    amount  int64  pages, or k

    Source: mm/madvise.c madvise_dontneed_single_vma, mm/mmap.c do_munmap; the recordings' driver for what a part is.
    What a fork left shared the area gives up as a whole. Leaves out: a fault on what was unmapped at the end of the touched part
    (it counts as never touched).
    """
    area = row["areas"][a]
    if layered(row["groups"][area["group"]]) and not detach(row, a):
        return
    touched = area["touched"]
    task = row["tasks"][area["task"]]
    first, last, every = 0, touched, 1
    if how == PART_EVERY:
        every = max(1, amount)
    elif how == PART_FIRST:
        last = min(amount, area["pages"])
    elif how == PART_LAST:
        first = max(0, touched - amount)
    if how == PART_EVERY and every == 1:
        return  # keeps every page
    given = zap_range(row, a, first, last, every)
    row["spent_ns"] += given * row["cost"][EXIT]
    task["stime_ns"] += given * row["cost"][EXIT]
    if how == PART_ALL or (how == PART_LAST and first < touched) or (how == PART_FIRST and last >= touched):
        area["touched"] = first
        area["ahead"] = 0
    if unmap == 0:
        return
    gone = last - max(first, area["cut"])
    if how == PART_FIRST:
        area["tables"] = max(0, area["tables"] - max(0, last // PTES - area["cut"] // PTES))
        area["cut"] = max(area["cut"], last)
        account_tables(row, area["task"])
    else:
        area["pages"] -= gone
        trim_tables(row, area, first)
    if area["accounted"]:
        row["committed"] -= gone
    task["total_vm"] -= gone
    task["data_vm"] -= gone


@law
def do_madvise(row, th, a, advice):
    """madvise() over all of an area.

    advice   int64  MADV_…
    returns  bool   False: come back

    Source: mm/madvise.c madvise_vma_behavior.
    """
    area = row["areas"][a]
    row["in_lru_fault"] = 0
    if advice == MADV_HUGEPAGE:
        area["thp_flag"] = 1
        row["khugepaged_next_ns"] = min(row["khugepaged_next_ns"], row["now_ns"] + SCAN_SLEEP_NS)
    elif advice == MADV_NOHUGEPAGE:
        area["thp_flag"] = -1
    private = area["kind"] == AREA_ANON
    if advice not in (MADV_COLD, MADV_PAGEOUT, MADV_FREE, MADV_WILLNEED) or area["locked"] > 0:
        return True
    if not private and advice in (MADV_FREE, MADV_WILLNEED):
        return True  # EINVAL for what is not private anonymous memory
    for k in range(area["groups"]):
        g = area["group"] + k
        group = row["groups"][g]
        if not mapped_once(row, g):
            continue  # pages that others map too are left alone
        for c in range(group["cohorts"]):
            i = group["first"] + c
            if advice == MADV_COLD:
                madvise_cold(row, i)
            elif advice == MADV_PAGEOUT:
                madvise_pageout(row, i)
            elif advice == MADV_FREE:
                madvise_free(row, i)
            elif not madvise_willneed(row, th, i):
                return False
    return True
