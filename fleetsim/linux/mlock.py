# SPDX-License-Identifier: Apache-2.0
"""mlock: pages that reclaim must leave alone stand on the unevictable list (mm/mlock.c).

All pages of the unevictable list are mlocked here, so Mlocked is that list plus what was locked before the host was up.
Leaves out: bringing in what a locked file, shared object or forked area lacks, RLIMIT_MEMLOCK, mlockall, munlock of a part,
SHM_LOCK, a page of two mappings of which one is locked.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import LRU_MOVE
from fleetsim.law import law
from fleetsim.linux.anon_vma import layered
from fleetsim.linux.memory import fault_uniform, get_pages, new_pages, touch_new
from fleetsim.linux.mm_inline import count_mlocked, list_move
from fleetsim.linux.mm_types import AREA_ANON, AREA_HUGETLB, LRU_NONE, LRU_UNEVICTABLE, ORDERED
from fleetsim.linux.page_io import read_fails
from fleetsim.linux.swap_state import take_clean
from fleetsim.linux.swapin import remap, swap_in, swapin_window
from fleetsim.linux.workingset_clock import workingset_refault

MLOCK, MLOCK_ONFAULT = 1, 2


@law
def mlock_cohort(row, th, i):
    """The resident pages of cohort `i` go to the unevictable list.

    Source: mm/mlock.c mlock_pte_range → mlock_folio; a page in the swap cache gives its slot back (should_try_to_free_swap).
    """
    cohort = row["cohorts"][i]
    if cohort["list"] == LRU_NONE or cohort["list"] == LRU_UNEVICTABLE:
        return
    if cohort["wb"] > 0 and row["groups"][cohort["group"]]["is_file"] == 0:
        remap(row, th, i, cohort["wb"], 1)
    if cohort["clean"] > 0:
        take_clean(row, i, cohort["clean"])
    list_move(row, i, LRU_UNEVICTABLE)
    count_mlocked(row, cohort["nr"])
    row["spent_ns"] += cohort["nr"] * row["cost"][LRU_MOVE]


@law
def populate(row, th, a, g, begin):
    """Fault in what group `g` of a locked area lacks, one step.

    begin    int64  position of the group in its area
    returns  bool   True: nothing is missing

    Source: mm/gup.c __mm_populate. A private writable mapping is populated by write faults.
    """
    group = row["groups"][g]
    span = min(group["pages"], row["areas"][a]["touched"] - begin)
    if group["kind"] != ORDERED:
        if group["swapped"] > 0:
            fault_uniform(row, th, g, min(group["swapped"], 256), 1)
            return False
        holes = span - group["resident"]
        if holes > 0:
            new_pages(row, th, g, -1, min(holes, 256))
        return holes <= 0
    for c in range(group["cohorts"]):
        i = group["first"] + c
        cohort = row["cohorts"][i]
        start = c * group["slice"]
        here = min(group["slice"], span - start)
        if here <= 0:
            break
        holes = here - cohort["nr"] - cohort["swapped"]
        if cohort["swapped"] > 0:
            if read_fails(row, g, min(cohort["swapped"], 256)):
                return True  # mlock fails, the task lives
            n = get_pages(row, th, min(cohort["swapped"], 256))
            if n > 0:
                workingset_refault(row, i, cohort["cg"], False, n)
                swap_in(row, th, i, n, swapin_window(row, g), LRU_UNEVICTABLE, 1)
            return False
        if holes > 0:
            new_pages(row, th, g, i, min(holes, 256))
            return False
    return True


@law
def do_mlock(row, th, a, onfault):
    """mlock2() over all of an area.

    onfault  int64  1: MLOCK_ONFAULT, pages are locked as they are touched; 0: all of it is brought in now
    returns  bool   False: come back

    Source: mm/mlock.c do_mlock, apply_vma_lock_flags.
    """
    area = row["areas"][a]
    if area["kind"] == AREA_HUGETLB:
        return True  # always resident, and on no list
    if row["groups"][area["group"]]["locked"] == 0:
        for k in range(area["groups"]):
            group = row["groups"][area["group"] + k]
            group["locked"] = 1
            for c in range(group["cohorts"]):
                mlock_cohort(row, th, group["first"] + c)
    area["locked"] = MLOCK_ONFAULT if onfault else MLOCK
    if onfault or area["kind"] != AREA_ANON or layered(row["groups"][area["group"]]):
        return True
    if area["touched"] < area["pages"]:
        touch_new(row, th, a, min(256, area["pages"] - area["touched"]))
        return False
    begin = 0
    for k in range(area["groups"]):
        if not populate(row, th, a, area["group"] + k, begin):
            return False
        begin += row["groups"][area["group"] + k]["pages"]
    return True


@law
def vm_locked(row, t):
    """VmLck of a task, pages.

    Source: mm/mlock.c (mm->locked_vm counts the whole of every locked area).
    """
    total = 0
    for a in range(len(row["areas"])):
        area = row["areas"][a]
        if area["kind"] > 0 and area["task"] == t and area["locked"] > 0:
            total += area["pages"] - area["cut"]
    return total
