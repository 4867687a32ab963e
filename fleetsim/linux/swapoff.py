# SPDX-License-Identifier: Apache-2.0
"""swapon and swapoff (mm/swapfile.c: SYSCALL_DEFINE2(swapon), SYSCALL_DEFINE1(swapoff), try_to_unuse).

swapoff takes the area out of use, then brings back all that is in it: what is in the swap cache gives up its slot, the rest is read and
charged to whom it belongs. It works in slices, so that other tasks go on meanwhile. If memory runs out, who swaps off is the OOM
killer's first choice, and the area is as it was but for what came back.
Leaves out: a page that cannot be read (the call fails; 6.1 loses the page).
"""

from __future__ import annotations

from fleetsim.hardware.cpu import FAULT_MINOR, SWAP_IN
from fleetsim.law import law
from fleetsim.linux.alloc_slowpath import alloc_pages, try_charge_memcg
from fleetsim.linux.bags import open_bag
from fleetsim.linux.events import REFUSED, record
from fleetsim.linux.memcontrol import add_swap, charge
from fleetsim.linux.mm_inline import add_pages, is_file_lru, list_add
from fleetsim.linux.mm_types import LRU_INACTIVE_ANON, LRU_NONE, NR_GROUPS, ORDERED
from fleetsim.linux.page_io import swap_readpage
from fleetsim.linux.rmap import with_slot
from fleetsim.linux.swap_state import add_swap_cache
from fleetsim.linux.swap_types import NR_SWAPFILES, ON_ZRAM, SWAP_LEAVING, SWAP_OFF, SWAP_ON
from fleetsim.linux.swapfile import count_slots, free_area_slots, reinsert_swap_info
from fleetsim.linux.swapin import swapped_in
from fleetsim.linux.vma import enough_memory
from fleetsim.linux.zram_drv import zram_header
from fleetsim.linux.zswap import zswap_invalidate

DONE = -1
SLICE = 32  # pages brought back in one go
LOWEST = -2  # priority of the first area that is given none


@law
def swapon(row, a, prio):
    """Use area `a`.

    prio     int64  0..32767, or −1: below all areas so far
    returns  bool   False: EBUSY, it is in use

    Source: mm/swapfile.c SYSCALL_DEFINE2(swapon), _enable_swap_info; kernel-laws §12.1 (unspecified priorities: −2, −3, …).
    """
    area = row["swap_info"][a]
    if area["state"] != SWAP_OFF:
        return False
    if a > 0 or area["disk"] == ON_ZRAM:
        count_slots(row)
    area["prio"] = prio
    if prio < 0:
        area["prio"] = LOWEST
        for b in range(NR_SWAPFILES):
            other = row["swap_info"][b]
            if other["state"] == SWAP_ON and other["prio"] < 0:
                area["prio"] -= 1
    area["state"] = SWAP_ON
    area["inuse"] = 0
    row["swap_total"] += area["pages"]
    row["swap_free"] += area["pages"]
    if area["disk"] == ON_ZRAM and row["zram"]["stored"] == 0:
        zram_header(row)
    return True


@law
def begin_swapoff(row, th, a):
    """Take area `a` out of use.

    returns  bool  False: EINVAL, it is not in use, or ENOMEM, what is in it could not be promised

    Source: mm/swapfile.c SYSCALL_DEFINE1(swapoff).
    """
    area = row["swap_info"][a]
    t = row["threads"][th]["task"]
    if area["state"] != SWAP_ON or row["swapoff_task"] > 0 or not enough_memory(row, t, area["pages"], 1):
        record(row, REFUSED, t, area["pages"], 0, 0, 0, 0, 0, 0, 0)
        return False
    count_slots(row)
    area["state"] = SWAP_LEAVING
    row["swap_total"] -= area["pages"] - area["inuse"]
    row["swap_free"] -= area["pages"] - area["inuse"]
    if area["prio"] < 0:
        for b in range(NR_SWAPFILES):
            other = row["swap_info"][b]
            if other["state"] == SWAP_ON and other["prio"] < area["prio"]:
                other["prio"] += 1
    row["swapoff_task"] = t + 1
    return True


@law
def share_in_zswap(group, pages):
    """Of `pages` of a group's slots, those whose pages zswap holds.

    Source: fleetsim's own representation (which slots these are is not known).
    """
    total = 0
    for b in range(NR_SWAPFILES):
        total += int(group["slots"][b])
    return (int(group["stored"]) * pages + total - 1) // total


@law
def give_up_slots(row, g, cg, a, pages):
    """`pages` slots of group `g` in area `a` are not needed any more; what zswap or zram holds of them goes with them.

    Source: mm/swapfile.c swap_free.
    """
    group = row["groups"][g]
    stored = 0
    if row["zswap"]["stored"] > 0:
        zswap_invalidate(row, g, share_in_zswap(group, pages))
    elif row["swap_info"][a]["disk"] == ON_ZRAM:
        stored = min(pages, int(group["stored"]))
    free_area_slots(row, g, a, pages, stored)
    add_swap(row, cg, -pages)


@law
def unuse_cached(row, i, a):
    """Pages of cohort `i` that are in the swap cache give up their slots in area `a`; unmapped ones are mapped.

    returns  int64  pages

    Source: mm/swapfile.c unuse_pte (page found in the swap cache), try_to_free_swap.
    """
    cohort = row["cohorts"][i]
    g, cg = cohort["group"], cohort["cg"]
    group = row["groups"][g]
    n = min(int(group["slots"][a]), int(cohort["wb"]))
    if n > 0:
        slots = with_slot(row, group)
        cohort["wb"] -= n
        swapped_in(row, g, cg, n, slots)
    kept = 0 if is_file_lru(cohort["list"]) else min(int(group["slots"][a]) - n, int(cohort["clean"]))
    if kept > 0:
        cohort["clean"] -= kept
        row["swap_clean"] -= kept
    if n + kept > 0:
        add_swap_cache(row, cg, -n - kept)
        give_up_slots(row, g, cg, a, n + kept)
    return n + kept


@law
def unuse_swapped(row, th, i, a):
    """Read up to a slice of what cohort `i` has in area `a`.

    returns  int64  pages; 0: memory is short, come back

    Source: mm/swapfile.c unuse_pte_range, shmem_unuse.
    """
    cohort = row["cohorts"][i]
    g, cg = cohort["group"], cohort["cg"]
    group = row["groups"][g]
    task = row["tasks"][row["threads"][th]["task"]]
    allowed = try_charge_memcg(row, th, cg, min(int(group["slots"][a]), int(cohort["swapped"]), SLICE))
    n = alloc_pages(row, th, allowed) if allowed > 0 else 0
    if n == 0:
        return 0
    for b in range(NR_SWAPFILES):
        row["swap_got"][b] = n if b == a else 0
    row["swap_got_stored"] = share_in_zswap(group, n) if row["zswap"]["stored"] > 0 else 0
    swap_readpage(row, th, n, 1 << row["sysctl"]["page_cluster"], False)
    slots = with_slot(row, group)
    target = i
    if cohort["list"] == LRU_NONE:
        if group["kind"] == ORDERED:
            cohort["flags"] = 0
            list_add(row, i, LRU_INACTIVE_ANON)
        else:
            target = open_bag(row, g, cg, LRU_INACTIVE_ANON, 0)
    cohort["swapped"] -= n
    group["swapped"] -= n
    add_pages(row, target, n)
    swapped_in(row, g, cg, n, slots)
    charge(row, cg, n)
    give_up_slots(row, g, cg, a, n)
    row["spent_ns"] += n * row["cost"][SWAP_IN]
    task["stime_ns"] += n * row["cost"][SWAP_IN]
    return n


@law
def try_to_unuse(row, th, a):
    """Bring back a slice of what area `a` holds.

    returns  bool  False: nothing could be done, come back

    Source: mm/swapfile.c try_to_unuse.
    """
    for g in range(NR_GROUPS):
        group = row["groups"][g]
        if group["used"] == 0 or group["slots"][a] == 0:
            continue
        for i in range(group["first"], group["first"] + group["cohorts"]):
            cohort = row["cohorts"][i]
            if cohort["swapped"] > 0:
                return unuse_swapped(row, th, i, a) > 0
        for i in range(group["first"], group["first"] + group["cohorts"]):
            n = unuse_cached(row, i, a)
            if n > 0:
                row["spent_ns"] += n * row["cost"][FAULT_MINOR]
                return True
    return False


@law
def swapoff(row, th, a, done):
    """Stop using area `a`.

    done     int64  0 at first, then what the last call returned
    returns  int64  DONE, or 1: come back when the bill is paid

    Source: mm/swapfile.c SYSCALL_DEFINE1(swapoff).
    """
    row["in_lru_fault"] = 0
    area = row["swap_info"][a]
    if done == 0 and not begin_swapoff(row, th, a):
        return DONE
    disk = area["disk"]
    if area["inuse"] > 0 and disk >= 0 and row["disk"][disk]["failing"] > 0:
        reinsert_swap_info(row)
        return DONE
    if area["state"] != SWAP_LEAVING:
        return DONE
    if area["inuse"] > 0:
        try_to_unuse(row, th, a)
    if area["inuse"] > 0:
        return 1
    area["state"] = SWAP_OFF
    row["swapoff_task"] = 0
    return DONE
