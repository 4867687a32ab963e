# SPDX-License-Identifier: Apache-2.0
"""Anonymous memory that a fork left shared, as layers (what mm/rmap.c keeps as chains of anon_vma, and refcounts of pages).

A fork makes the area's group of pages a *layer*: it belongs to no task any more and both areas map it. Who writes first
gets a group of its own on top (`below` leads down); the pages in it hide those of the layer at the same positions. A slice
of an ordered group hides as many pages of the same slice below as it holds; of a uniform group expected values are taken.

    parent's own ─┐
                  ├─ layer: pages as of the fork          after the child's exit: what only it saw is given back, the rest
    child's own  ─┘                                       becomes the parent's own (`cow` of them still write-protected)

A layer that only one user is left of goes up into that user; one without users gives its pages back.
Leaves out: tasks that change their cgroup between fork and exit (a page stays charged to whom it was charged, as it should,
but the two groups of one area would be charged differently).
"""

from __future__ import annotations

from fleetsim.hardware.cpu import EXIT, FORK_PAGE
from fleetsim.law import law
from fleetsim.linux.huge_mm import huge_cg, leave_huge, lose_huge, written_huge
from fleetsim.linux.memcontrol import add_anon, charge
from fleetsim.linux.mm_inline import account, list_del, move_pages
from fleetsim.linux.mm_types import AREA_ANON, LRU_NONE, NR_AREAS, NR_GROUPS, NR_WRITEBACK, ORDERED, UNIFORM
from fleetsim.linux.pgtable import forget_area
from fleetsim.linux.rmap import add_rss, drop_mapping, find_mapping, present_pages
from fleetsim.linux.swap_state import add_swap_cache
from fleetsim.linux.swapfile import move_slots, release_slots
from fleetsim.linux.vma import drop_group, make_groups, zap_area
from fleetsim.linux.zonelist import give_back


@law
def layered(group):
    """True if a write to a group's pages may meet one that is write-protected since a fork.

    Source: mm/memory.c do_wp_page.
    """
    return group["task"] < 0 or group["below"] >= 0 or group["cow"] > 0


@law
def held(cohort):
    """Pages of a cohort, in memory or in swap.

    Source: fleetsim's own representation.
    """
    return cohort["nr"] + cohort["swapped"]


@law
def users_of(row, g):
    """Who sees the pages of layer `g` directly: groups on top of it, and areas that have no group of their own yet.

    returns  (int64 how many, int64 a group on top of it or −1)

    Source: mm/rmap.c (anon_vma's num_active_vmas and num_children).
    """
    count, above = 0, -1
    for u in range(NR_GROUPS):
        if row["groups"][u]["used"] and row["groups"][u]["below"] == g:
            count += 1
            above = u
    for a in range(NR_AREAS):
        area = row["areas"][a]
        if area["kind"] == AREA_ANON and area["group"] <= g < area["group"] + area["groups"]:
            count += 1
    return count, above


@law
def push_layer(row, a):
    """Give area `a`, all of whose pages are shared, groups of its own on top.

    returns  bool  False: a table is full

    Source: mm/memory.c wp_page_copy (the copies need a place); fleetsim's own representation.
    """
    area = row["areas"][a]
    old = area["group"]
    first = row["groups"][old]
    hot = first["pages"] if area["groups"] == 2 else 0
    g = make_groups(row, first["kind"], 0, area["task"], area["pages"], hot)
    if g < 0:
        return False
    for k in range(area["groups"]):
        upper, lower = row["groups"][g + k], row["groups"][old + k]
        upper["below"], upper["touches"], upper["noise"] = old + k, lower["touches"], lower["noise"]
    area["group"] = g
    return True


@law
def free_pages_of(row, i, pages, slots):
    """Give back `pages` pages (those in the swap cache last) and `slots` swap slots of cohort `i` that no page table names any more.

    Source: mm/swap.c release_pages, mm/swapfile.c free_swap_and_cache.
    """
    cohort = row["cohorts"][i]
    group = row["groups"][cohort["group"]]
    cached = max(0, pages - (cohort["nr"] - cohort["wb"]))
    lose_huge(row, cohort["group"], cohort["cg"], pages - cached)
    give_back(row, cohort, pages)
    cohort["nr"] -= pages
    cohort["wb"] -= cached
    cohort["swapped"] -= slots
    group["resident"] -= pages
    group["swapped"] -= slots
    if pages > 0:
        account(row, cohort["cg"], cohort["list"], -pages)
    add_swap_cache(row, cohort["cg"], -cached)
    release_slots(row, cohort["group"], cohort["cg"], cached, 1)
    release_slots(row, cohort["group"], cohort["cg"], slots, 0)
    add_anon(row, cohort["cg"], cached - pages)
    charge(row, cohort["cg"], -pages)
    if cohort["nr"] == 0:
        list_del(row, i)
    row["spent_ns"] += (pages + slots) * row["cost"][EXIT]


@law
def list_replace(row, i, j):
    """Cohort `j` (on no list) takes the place of cohort `i` on its list, with its pages and all that is known of them.

    Source: include/linux/list.h list_replace.
    """
    cohorts = row["cohorts"]
    old, new = cohorts[i], cohorts[j]
    lruvec = row["cgroups"][old["cg"]]
    lru = old["list"]
    before, after = old["prev"], old["next"]
    if before >= 0:
        cohorts[before]["next"] = j
    else:
        lruvec["head"][lru] = j
    if after >= 0:
        cohorts[after]["prev"] = j
    else:
        lruvec["tail"][lru] = j
    new["prev"], new["next"], new["list"], new["cg"] = before, after, lru, old["cg"]
    new["flags"], new["off"], new["base"], new["born"] = old["flags"], old["off"], old["base"], old["born"]
    new["gen"], new["refs"] = old["gen"], old["refs"]
    new["nr"], new["home"] = old["nr"], old["home"]
    for z in range(2):
        new["low_zone"][z] = old["low_zone"][z]
        old["low_zone"][z] = 0
    new["node1"], old["node1"] = old["node1"], 0
    old["nr"] = 0
    old["list"] = LRU_NONE


@law
def move_up(row, i, j):
    """All that cohort `i` of a layer holds becomes cohort `j`'s of the group above.

    Source: fleetsim's own representation; the pages themselves do not move.
    """
    lower, upper = row["cohorts"][i], row["cohorts"][j]
    a, b = row["groups"][lower["group"]], row["groups"][upper["group"]]
    n = lower["nr"]
    a["resident"] -= n
    b["resident"] += n
    move_slots(row, lower["group"], upper["group"], lower["swapped"] + lower["wb"])
    a["swapped"] -= lower["swapped"]
    b["swapped"] += lower["swapped"]
    if lower["swapped"] > 0 and upper["swapped"] == 0:
        upper["shadow"], upper["shadow_cg"] = lower["shadow"], lower["shadow_cg"]
        if upper["list"] == LRU_NONE:
            upper["cg"] = lower["cg"]
            upper["flags"] = lower["flags"]
    upper["swapped"] += lower["swapped"]
    lower["swapped"] = 0
    if n > 0 and upper["list"] == LRU_NONE:
        list_replace(row, i, j)
    elif n > 0:
        move_pages(row, i, j, n)
        list_del(row, i)
    upper["wb"] += lower["wb"]
    lower["wb"] = 0
    for k in range(NR_WRITEBACK):
        if row["writeback"][k]["cohort"] == i:
            row["writeback"][k]["cohort"] = j


@law
def place_above(row, u, i, k):
    """Which cohort of group `u` takes what cohort `i`, the layer's `k`th, holds: the same slice, or a bag that fits best.

    Source: fleetsim's own representation.
    """
    upper = row["groups"][u]
    if upper["kind"] == ORDERED:
        return upper["first"] + k
    cohort = row["cohorts"][i]
    empty, alike, other = -1, -1, -1
    for j in range(upper["first"], upper["first"] + upper["cohorts"]):
        bag = row["cohorts"][j]
        if bag["list"] == LRU_NONE and bag["swapped"] == 0:
            empty = j
        elif bag["list"] != LRU_NONE:
            other = j
            if bag["list"] == cohort["list"]:
                alike = j
    return empty if empty >= 0 else alike if alike >= 0 else other if other >= 0 else upper["first"]


@law
def hidden(group, cohort, above, k, unseen, total):
    """How many of a layer's cohort's pages the only user left does not see, because it has its own at their positions.

    above    int64  pages that the user's own cohort of that slice holds (ORDERED)
    unseen   int64  pages that the user does not see, of `total` in this and the following cohorts (UNIFORM)

    Source: fleetsim's own representation.
    """
    mine = held(cohort)
    if group["kind"] == UNIFORM:
        return mine * unseen // max(1, total)
    length = mine if group["cow"] == 0 else min(group["slice"], group["pages"] - k * group["slice"])
    return min(mine, max(0, mine - max(0, length - above)))


@law
def collapse(row, g, u):
    """Layer `g` has one user left, the group `u` on top of it: what that hides is given back, the rest goes up into it.

    Source: mm/memory.c (a page whose other owners are gone is reused in place), exit_mmap of those owners.
    """
    group, upper = row["groups"][g], row["groups"][u]
    first = row["mappings"][group["maps"]]
    present = present_pages(row, upper)
    slots = upper["resident"] + upper["swapped"] - present
    total = group["resident"] + group["swapped"]
    unseen = max(0, total - first["mapped"] - first["swapped"])
    huge = leave_huge(row, g, written_huge(group, upper))
    for k in range(group["cohorts"]):
        i = group["first"] + k
        cohort = row["cohorts"][i]
        if held(cohort) == 0:
            continue
        above = held(row["cohorts"][upper["first"] + k])
        gone = hidden(group, cohort, above, k, unseen, total)
        total -= held(cohort)
        unseen -= min(unseen, gone)
        pages = min(gone, cohort["nr"])
        free_pages_of(row, i, pages, gone - pages)
        if held(cohort) > 0:
            move_up(row, i, place_above(row, u, i, k))
    gained = present_pages(row, upper) - present
    gained_slots = upper["resident"] + upper["swapped"] - present_pages(row, upper) - slots
    m = group["maps"]
    while m >= 0:
        mapping = row["mappings"][m]
        task = row["tasks"][row["areas"][mapping["area"]]["task"]]
        whole = upper["task"] >= 0 or mapping["mapped"] + mapping["swapped"] >= gained + gained_slots
        pages = gained if whole else min(gained, mapping["mapped"])
        entries = gained_slots if whole else min(gained_slots, mapping["swapped"])
        add_rss(task, upper, pages - mapping["mapped"])
        task["swapents"] += entries - mapping["swapped"]
        if upper["task"] < 0:
            own = row["mappings"][find_mapping(row, mapping["area"], u)]
            own["mapped"] += pages
            own["swapped"] += entries
        mapping["used"] = 0
        m = mapping["next"]
    group["maps"] = -1
    if upper["task"] >= 0:
        upper["cow"] += gained
    upper["huge"] += huge
    lose_huge(row, u, huge_cg(row, u), 0)  # of those gained none may be more than there are pages
    upper["below"] = group["below"]
    drop_group(row, g)


@law
def make_private(row, g):
    """Layer `g` has one user left, an area without a group on top: all of it is that task's own again, write-protected.

    Source: as `collapse`.
    """
    group = row["groups"][g]
    mapping = row["mappings"][group["maps"]]
    t = row["areas"][mapping["area"]]["task"]
    present = present_pages(row, group)
    add_rss(row["tasks"][t], group, present - mapping["mapped"])
    row["tasks"][t]["swapents"] += group["resident"] + group["swapped"] - present - mapping["swapped"]
    mapping["used"] = 0
    group["maps"] = -1
    group["task"] = t
    group["cow"] = present


@law
def release_layers(row, g):
    """Layer `g` has lost a user: give back what nobody sees any more, from there downwards.

    Source: mm/mmap.c exit_mmap, mm/rmap.c unlink_anon_vmas.
    """
    while g >= 0:
        group = row["groups"][g]
        count, above = users_of(row, g)
        if count == 1:
            if above >= 0:
                collapse(row, g, above)
            else:
                make_private(row, g)
        if count > 0:
            return
        below = group["below"]
        for i in range(group["first"], group["first"] + group["cohorts"]):
            free_pages_of(row, i, row["cohorts"][i]["nr"], row["cohorts"][i]["swapped"])
        drop_group(row, g)
        g = below


@law
def forget_layers(row, a, g):
    """Area `a` no longer sees layer `g` and those below it: its page-table entries for them go.

    Source: mm/memory.c zap_pte_range.
    """
    while g >= 0:
        m = find_mapping(row, a, g)
        if m >= 0:
            row["spent_ns"] += row["mappings"][m]["mapped"] * row["cost"][FORK_PAGE]
        drop_mapping(row, a, g)
        g = row["groups"][g]["below"]


@law
def detach(row, a):
    """Area `a` gives up all that it shares since a fork; what it has of its own stays.

    returns  bool  False: it had nothing of its own and a table is full

    Source: mm/memory.c zap_pte_range.
    """
    area = row["areas"][a]
    if row["groups"][area["group"]]["task"] < 0 and not push_layer(row, a):
        return False
    for g in range(area["group"], area["group"] + area["groups"]):
        below = row["groups"][g]["below"]
        row["groups"][g]["below"] = -1
        row["groups"][g]["cow"] = 0
        forget_layers(row, a, below)
        release_layers(row, below)
    return True


@law
def unmap_anon(row, a, budget):
    """Take down an anonymous area, shared since a fork or not: up to `budget` pages of its own, what it shares at once.

    returns  (int64 pages given back, bool the area is gone)

    Source: mm/mmap.c unmap_region, free_pgtables.
    """
    area = row["areas"][a]
    g = area["group"]
    if row["groups"][g]["task"] >= 0:
        if layered(row["groups"][g]) or layered(row["groups"][g + area["groups"] - 1]):
            detach(row, a)
        return zap_area(row, a, budget)
    task = row["tasks"][area["task"]]
    forget_area(row, area)
    for k in range(area["groups"]):
        forget_layers(row, a, g + k)
        release_layers(row, g + k)
    if area["accounted"]:
        row["committed"] -= area["pages"] - area["cut"]
    task["total_vm"] -= area["pages"] - area["cut"]
    task["data_vm"] -= area["pages"] - area["cut"]
    return 0, True
