# SPDX-License-Identifier: Apache-2.0
"""Swap areas and their slots (mm/swapfile.c).

Slots are taken from the area of highest priority that has some, 64 at a time from areas of equal priority in turn. Which slots a page
that comes back gives up is not known one by one: a group's pages have slots of each area in proportion to what the group holds there,
chosen so that over time each area gets exactly its share (systematic sampling; no luck in it).
Leaves out: which slot a page has; clusters, and that a rotating disk's slots lie side by side.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.memcontrol import add_swap
from fleetsim.linux.mm_types import LRU_ACTIVE_FILE, LRU_INACTIVE_FILE, NR_GROUPS
from fleetsim.linux.swap_types import NR_SWAPFILES, ON_ZRAM, SWAP_LEAVING, SWAP_ON
from fleetsim.linux.zram_drv import zram_slot_free
from fleetsim.linux.zswap import zswap_invalidate, zswap_move

SWAP_BATCH = 64  # slots that a CPU's cache takes at once (include/linux/swap_slots.h)
STRIDE = 0x9E3779B1  # 2^32 over the golden ratio: offsets that spread evenly however many there are


@law
def swap_area_of(row):
    """The area that the next batch of slots comes from, −1: all are full.

    Source: mm/swapfile.c get_swap_pages (plist_requeue: of equal priorities the one that waited longest).
    """
    best = -1
    for k in range(NR_SWAPFILES):
        a = (row["swap_last"] + 1 + k) % NR_SWAPFILES
        area = row["swap_info"][a]
        if area["state"] == SWAP_ON and area["inuse"] < area["pages"] and (best < 0 or area["prio"] > row["swap_info"][best]["prio"]):
            best = a
    return best


@law
def take_slots(row, g, pages):
    """`pages` slots for group `g`, by the areas' priorities; row["swap_got"] says how many of each.

    Source: mm/swapfile.c get_swap_pages, mm/swap_slots.c refill_swap_slots_cache.
    """
    for a in range(NR_SWAPFILES):
        row["swap_got"][a] = 0
    left = pages
    while left > 0:
        area = row["swap_info"][row["swap_last"]]
        if row["swap_batch"] == 0 or area["state"] != SWAP_ON or area["inuse"] == area["pages"]:
            a = swap_area_of(row)
            if a < 0:
                break
            row["swap_last"] = a
            row["swap_batch"] = SWAP_BATCH
            area = row["swap_info"][a]
        k = min(left, row["swap_batch"], area["pages"] - area["inuse"])
        area["inuse"] += k
        row["groups"][g]["slots"][row["swap_last"]] += k
        row["swap_got"][row["swap_last"]] += k
        row["swap_batch"] -= k
        left -= k


@law
def get_swap_pages(row, g, cg, pages):
    """Take `pages` slots for pages of group `g`, charged to `cg` (the caller knows that there are as many).

    Source: mm/swapfile.c get_swap_pages, mm/memcontrol.c mem_cgroup_try_charge_swap.
    """
    row["swap_free"] -= pages
    add_swap(row, cg, pages)
    if row["swap_mode"] > 0:
        take_slots(row, g, pages)


@law
def share(part, pages, total, offset):
    """How many of `pages` pages drawn evenly from `total` are before position `part`.

    Source: fleetsim's own representation (systematic sampling).
    """
    return (part * pages + offset) // total


@law
def pick_slots(row, g, pages, cached):
    """Choose `pages` of the slots of group `g`: into row["swap_got"] by area, and how many of them are compressed in memory.

    cached  int64  1: their pages are in memory, so that those that could not be written to zram are among them; 0: in swap only

    Source: fleetsim's own representation.
    """
    group = row["groups"][g]
    total, in_zram = 0, 0
    for a in range(NR_SWAPFILES):
        total += group["slots"][a]
        if row["swap_info"][a]["disk"] == ON_ZRAM:
            in_zram += group["slots"][a]
    total = max(1, total)
    row["swap_turn"] += 1
    offset = (row["swap_turn"] & 0xFFFFFFFF) * STRIDE % total
    before, taken, of_zram = 0, 0, 0
    for a in range(NR_SWAPFILES):
        before += int(group["slots"][a])
        upto = share(before, pages, total, offset)
        row["swap_got"][a] = upto - taken
        if row["swap_info"][a]["disk"] == ON_ZRAM:
            of_zram = upto - taken
        taken = upto
    stored = int(group["stored"])
    if row["zswap"]["stored"] > 0:
        row["swap_got_stored"] = share(stored, pages, total, offset)
    else:
        unwritten = in_zram - stored
        row["swap_got_stored"] = max(0, of_zram - unwritten) if cached > 0 else min(stored, of_zram)


@law
def choose_unstored(row, g, pages):
    """Choose `pages` slots of group `g` whose pages were not written: those in zram that hold nothing first.

    Source: fleetsim's own representation.
    """
    pick_slots(row, g, pages, 1)
    group = row["groups"][g]
    for a in range(NR_SWAPFILES):
        empty = group["slots"][a] - group["stored"]
        if row["swap_info"][a]["disk"] == ON_ZRAM:
            wanted = min(pages, max(0, empty))
            spare = row["swap_got"][a] - wanted
            row["swap_got"][a] = wanted
            for b in range(NR_SWAPFILES):
                if row["swap_info"][b]["disk"] != ON_ZRAM and spare != 0:
                    k = min(max(spare, -row["swap_got"][b]), group["slots"][b] - row["swap_got"][b])
                    row["swap_got"][b] += k
                    spare -= k


@law
def free_area_slots(row, g, a, pages, stored):
    """`pages` slots that group `g` has in area `a` are free again, `stored` of them had their page in zram.

    Source: mm/swapfile.c swap_range_free (the slots of an area that is being swapped off are lost), drivers/block/zram/zram_drv.c
    zram_slot_free_notify.
    """
    area = row["swap_info"][a]
    row["groups"][g]["slots"][a] -= pages
    area["inuse"] -= pages
    if area["state"] == SWAP_ON:
        row["swap_free"] += pages
    else:
        row["swap_total"] -= pages
    if area["disk"] == ON_ZRAM and stored > 0:
        zram_slot_free(row, g, stored)


@law
def free_slots(row, g, pages, cached):
    """Give back `pages` slots of group `g`, of each area its share. `cached` as in pick_slots.

    Source: mm/swapfile.c swap_free, swap_entry_free.
    """
    if row["swap_mode"] == 0:
        row["swap_free"] += pages
        return
    pick_slots(row, g, pages, cached)
    stored = row["swap_got_stored"]
    if row["zswap"]["stored"] > 0:
        zswap_invalidate(row, g, stored)
        stored = 0
    for a in range(NR_SWAPFILES):
        if row["swap_got"][a] > 0:
            free_area_slots(row, g, a, row["swap_got"][a], stored)


@law
def release_slots(row, g, cg, pages, cached):
    """Give slots back: the page was written to again, or its owner is gone. `cached` as in pick_slots.

    Source: mm/swapfile.c swap_free, mm/memcontrol.c __mem_cgroup_uncharge_swap.
    """
    free_slots(row, g, pages, cached)
    add_swap(row, cg, -pages)


@law
def free_synchronous(row, g):
    """Of the slots just picked, give back those in zram: a page that comes from there is never kept in the swap cache.

    returns  int64  slots given back (their charge is the caller's business)

    Source: mm/memory.c do_swap_page (SWP_SYNCHRONOUS_IO skips the swap cache).
    """
    for a in range(NR_SWAPFILES):
        n = row["swap_got"][a]
        if row["swap_info"][a]["disk"] == ON_ZRAM and n > 0 and row["swap_mode"] > 0:
            free_area_slots(row, g, a, n, row["swap_got_stored"])
            return n
    return 0


@law
def move_slots(row, source, target, pages):
    """`pages` slots of one group become another's: the pages of a layer go up into the group above it.

    Source: fleetsim's own representation.
    """
    if row["swap_mode"] == 0 or pages == 0:
        return
    pick_slots(row, source, pages, 0)
    stored = row["swap_got_stored"]
    below, above = row["groups"][source], row["groups"][target]
    if row["zswap"]["stored"] > 0:
        zswap_move(row, source, target, stored)
    else:
        below["stored"] -= stored
        above["stored"] += stored
    for a in range(NR_SWAPFILES):
        below["slots"][a] -= row["swap_got"][a]
        above["slots"][a] += row["swap_got"][a]


@law
def count_slots(row):
    """From now on it matters which area a slot is in: all slots so far are of area 0.

    Source: fleetsim's own representation.
    """
    if row["swap_mode"] > 0:
        return
    row["swap_mode"] = 1
    row["swap_info"][0]["inuse"] = row["swap_total"] - row["swap_free"]
    for g in range(NR_GROUPS):
        group = row["groups"][g]
        if group["used"] > 0 and group["is_file"] == 0:
            held = int(group["swapped"])
            for i in range(group["first"], group["first"] + group["cohorts"]):
                cohort = row["cohorts"][i]
                held += int(cohort["wb"])
                if cohort["list"] not in (LRU_INACTIVE_FILE, LRU_ACTIVE_FILE):
                    held += int(cohort["clean"])
            group["slots"][0] = held


@law
def reinsert_swap_info(row):
    """swapoff failed or was killed: the area is used again, with what did not come back.

    Source: mm/swapfile.c reinsert_swap_info.
    """
    row["swapoff_task"] = 0
    for a in range(NR_SWAPFILES):
        area = row["swap_info"][a]
        if area["state"] == SWAP_LEAVING:
            if area["prio"] < 0:  # the others have moved up meanwhile: it is the last now (setup_swap_info)
                for b in range(NR_SWAPFILES):
                    other = row["swap_info"][b]
                    if other["state"] == SWAP_ON and other["prio"] < 0:
                        area["prio"] = min(area["prio"], other["prio"] - 1)
            area["state"] = SWAP_ON
            row["swap_total"] += area["pages"] - area["inuse"]
            row["swap_free"] += area["pages"] - area["inuse"]
