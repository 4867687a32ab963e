# SPDX-License-Identifier: Apache-2.0
"""Getting pages for a task when they are not simply there (mm/page_alloc.c __alloc_pages_slowpath, mm/memcontrol.c try_charge).

Time must pass between two fruitless rounds: writes complete and kswapd goes on meanwhile, or sixteen rounds would come
in no time and kill falsely. So one call makes at most one round of reclaim, adds what it cost to the caller's bill
(`spent_ns`, `wait_ns`), and returns what it got, maybe nothing; the caller comes back when its time is up.
Leaves out: orders above 0, GFP classes other than GFP_HIGHUSER_MOVABLE.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import TICK
from fleetsim.law import law
from fleetsim.linux.kswapd import wakeup_kswapd
from fleetsim.linux.memcontrol import event, event_times, margin, swap_room
from fleetsim.linux.memcontrol_laws import high_delay_ns
from fleetsim.linux.mempolicy import first_node
from fleetsim.linux.mm_types import (
    ALL_NODES,
    BY_DIRECT,
    BY_MEMCG,
    EV,
    MAX_RECLAIM_RETRIES,
    MEMCG_CHARGE_BATCH,
    NO_LIMIT,
    NR_WRITEBACK,
    NR_ZONES,
    PSI_MEM,
    SWAP_CLUSTER_MAX,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
)
from fleetsim.linux.node_reclaim import node_reclaim
from fleetsim.linux.nodes import count_node_lists, nr_free_in, zone_allowed, zonelist
from fleetsim.linux.oom_kill import out_of_memory
from fleetsim.linux.per_cpu_pages import drain_all_pages
from fleetsim.linux.vmscan import do_try_to_free_pages, reclaim_rounds
from fleetsim.linux.zonelist import rmqueue, take_from_zone

EV_HIGH, EV_MAX, EV_SWAP_HIGH = EV["high"], EV["max"], EV["swap_high"]
HZ = 250
THROTTLE_NS = 100_000_000
QUANTUM_SHIFT = 8  # of a limit, what a turn may make room for at once …
ROUNDS_MAX = 64  # … and the rounds of reclaim that are made as one


@law
def bill_reclaim(row, wait_ns):
    """Put the processor time of the reclaim just done, and a throttle's sleep, on the caller's bill, as memory stall.

    Source: kernel/sched/psi.c psi_memstall_enter around direct and memcg reclaim; kernel-laws §2.4, §9.
    """
    spent = row["scan"][1]["spent_ns"]
    row["spent_ns"] += spent
    row["wait_ns"] += wait_ns
    row["reclaim_ns"] += spent
    row["stall_ns"][PSI_MEM] += spent + wait_ns


@law
def until_written(row):
    """Time until the pages that reclaim sent out last are written, or, if it met nothing but dirty file pages, until some of those are, ns.

    Source: mm/vmscan.c reclaim_throttle(VMSCAN_THROTTLE_WRITEBACK), by what it waits for.
    """
    sc = row["scan"][1]
    if sc["sent"] + sc["reclaimed"] == 0 and sc["dirty"] > 0 and row["pv_count"] > 0:
        return min(THROTTLE_NS, max(0, row["pagevecs"][row["pv_head"]]["done_ns"] - row["now_ns"]))
    if sc["sent"] == 0 or row["wb_count"] == 0:
        return 0
    last = row["writeback"][(row["wb_head"] + row["wb_count"] - 1) % NR_WRITEBACK]
    return max(0, last["done_ns"] - row["now_ns"])


@law
def should_reclaim_retry(row):
    """True if some zone that may be used would pass its min watermark once everything reclaimable were free.

    Source: mm/page_alloc.c should_reclaim_retry, mm/vmscan.c zone_reclaimable_pages; kernel-laws §2.2 f.
    Leaves out: the lists by zone (the host's lists stand for each zone's).
    """
    nodes = row["mems_allowed"]
    lists = row["scan"][1]["lists"]
    row["reclaim_nodes"] = nodes
    count_node_lists(row, lists)
    row["reclaim_nodes"] = ALL_NODES
    reclaimable = lists[2] + lists[3]
    if row["swap_free"] > 0:
        reclaimable += lists[0] + lists[1]
    if reclaimable == 0:
        reclaimable = nr_free_in(row, nodes)
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        if zone_allowed(row, z, nodes) and zone["free"] + reclaimable > zone["wmark"][WMARK_MIN] + zone["reserve"]:
            return True
    return False


@law
def rmqueue_local(row, pages):
    """vm.zone_reclaim_mode: zone by zone, rather reclaim the preferred node's unmapped page cache than go on to the next.

    returns  (int64 pages taken of that node above its low marks, int64 pages that may be taken elsewhere instead: what was reclaimed may
             still be on the per-cpu lists, so that the next page tries again)

    Source: mm/page_alloc.c get_page_from_freelist (node_reclaim), zone_allows_reclaim.
    """
    for z in range(NR_ZONES):
        row["got"][z] = 0
    node = first_node(row["mems_allowed"], row["preferred_node"])
    elsewhere = pages
    for place in range(NR_ZONES):
        z = zonelist(node, place)
        if not zone_allowed(row, z, 1 << node):
            continue
        got = take_from_zone(row, z, pages, WMARK_LOW, node)
        if got == 0 and node_reclaim(row, node) > 0:
            elsewhere = 1
            row["spent_ns"] += row["scan"][1]["spent_ns"]
            row["reclaim_ns"] += row["scan"][1]["spent_ns"]
            row["stall_ns"][PSI_MEM] += row["scan"][1]["spent_ns"]
            got = take_from_zone(row, z, pages, WMARK_LOW, node)
        if got > 0:
            return got, 0
    return 0, elsewhere


@law
def alloc_pages(row, th, pages):
    """Take up to `pages` pages for thread `th`, reclaiming and in the end killing as the kernel does.

    th       int64  thread row
    pages    int64  wanted, > 0
    returns  int64  taken (by zone in row["got"]); 0: one fruitless or fruitful round was made, come back

    Source: mm/page_alloc.c __alloc_pages_slowpath, __alloc_pages_may_oom; kernel-laws §2.2, §2.3.
    """
    thread = row["threads"][th]
    got, elsewhere = 0, pages
    if row["nr_nodes"] > 1 and row["sysctl"]["zone_reclaim_mode"] > 0:
        got, elsewhere = rmqueue_local(row, pages)
    if got == 0:
        got = rmqueue(row, elsewhere, WMARK_LOW)
    if got > 0:
        thread["no_progress"] = 0
        return got
    wakeup_kswapd(row)
    got = rmqueue(row, min(pages, SWAP_CLUSTER_MAX), WMARK_MIN)
    if got > 0:
        thread["no_progress"] = 0
        return got
    reclaimed = do_try_to_free_pages(row, 0, SWAP_CLUSTER_MAX, BY_DIRECT)
    if reclaimed + row["scan"][1]["sent"] > 0:
        thread["no_progress"] = 0
        bill_reclaim(row, until_written(row))
        got = rmqueue(row, min(pages, SWAP_CLUSTER_MAX), WMARK_MIN)
        if got == 0:
            drain_all_pages(row)
            got = rmqueue(row, min(pages, SWAP_CLUSTER_MAX), WMARK_MIN)
        return got
    bill_reclaim(row, max(row["cost"][TICK], until_written(row)))  # reclaim_throttle(NOPROGRESS or WRITEBACK)
    thread["no_progress"] += 1
    if thread["no_progress"] <= MAX_RECLAIM_RETRIES and should_reclaim_retry(row):
        return 0
    got = rmqueue(row, min(pages, SWAP_CLUSTER_MAX), WMARK_HIGH)  # somebody may have freed a lot meanwhile
    if got == 0:
        out_of_memory(row, 0, thread["task"])
        row["wait_ns"] += row["cost"][TICK]
    thread["no_progress"] = 0
    return got


@law
def try_charge(row, th, pages):
    """How many of `pages` pages may be charged to the thread's own cgroup now; 0 after a round of reclaim: come back.

    Source: mm/memcontrol.c mem_cgroup_charge.
    """
    return try_charge_memcg(row, th, row["tasks"][row["threads"][th]["task"]]["cg"], pages)


@law
def try_charge_memcg(row, th, cg, pages):
    """How many of `pages` pages may be charged to `cg` now, for thread `th`; 0 after a round of reclaim: come back.

    Source: mm/memcontrol.c try_charge_memcg; kernel-laws §8.3, T-8.1. Leaves out: per-CPU stocks (a charge is exact).
    """
    thread = row["threads"][th]
    if cg == 0:
        return pages
    at = cg
    while at > 0:  # above memory.high every 64 pages end in a return to user mode and its brake
        group = row["cgroups"][at]
        if group["high"] < NO_LIMIT:
            pages = min(pages, max(MEMCG_CHARGE_BATCH, group["high"] - group["usage"]))
        at = group["parent"]
    room, level = margin(row, cg)
    if room > 0:
        thread["charge_retries"] = 0
        return min(pages, room)
    reclaimed = reclaim_at_limit(row, cg, level, pages)
    room, _ = margin(row, cg)
    if room > 0:
        return min(pages, room)
    if reclaimed + row["scan"][1]["sent"] > 0:
        return 0
    thread["charge_retries"] += 1
    if swap_room(row, level) > 0:  # earlier writes may still be under way: the round waits for them
        row["wait_ns"] += row["cost"][TICK]
    if thread["charge_retries"] >= MAX_RECLAIM_RETRIES + 2:  # first try, one after draining the stocks, sixteen retries
        thread["charge_retries"] = 0
        if not out_of_memory(row, level, thread["task"]):
            row["wait_ns"] += row["cost"][TICK]
        row["wait_ns"] += row["cost"][TICK]
    return 0


@law
def reclaim_at_limit(row, cg, level, pages):
    """A round of reclaim because a charge to `cg` met the memory.max of `level`.

    On a host with a tick a turn is a quantum of work, and the rounds that it takes are made in it, as long as they free pages and none
    has to be written; but no more at once than a 256th of the limit. As many as the first round says are made as one.

    pages    int64  to be charged
    returns  int64  pages reclaimed at last

    Source: mm/memcontrol.c try_charge_memcg (a round for every charge); the quantum is fleetsim's own (design §3.3).
    """
    enough = 1
    if row["tick_ns"] > 0:
        enough = min(pages, row["cgroups"][level]["max"] >> QUANTUM_SHIFT)
    event(row, level, EV_MAX)
    reclaimed = do_try_to_free_pages(row, level, SWAP_CLUSTER_MAX, BY_MEMCG)
    while True:
        bill_reclaim(row, until_written(row))
        room, at = margin(row, cg)
        if room >= enough or at != level or reclaimed == 0 or row["scan"][1]["sent"] > 0:
            return reclaimed
        rounds = min(ROUNDS_MAX, (enough - room + reclaimed - 1) // reclaimed)
        event_times(row, level, EV_MAX, rounds)
        reclaimed = reclaim_rounds(row, level, rounds) // rounds


@law
def handle_over_high(row, th, pages):
    """Back to user mode over memory.high: reclaim what was charged; if a penalty is due, go on while that frees anything, else try
    sixteen times more, and only then sleep. Each round is a `high` event.

    pages  int64  charged since the last return to user mode

    Source: mm/memcontrol.c mem_cgroup_handle_over_high, reclaim_high; kernel-laws §8.4, T-8.3.
    Leaves out: the rounds over all ancestors in turn (each level has its own rounds here).
    """
    cg = row["tasks"][row["threads"][th]["task"]]["cg"]
    charged = max(pages, MEMCG_CHARGE_BATCH)
    at = cg
    while at > 0:
        group = row["cgroups"][at]
        retries, wanted = MAX_RECLAIM_RETRIES, max(pages, SWAP_CLUSTER_MAX)
        while group["usage"] > group["high"]:
            event(row, at, EV_HIGH)
            reclaimed = do_try_to_free_pages(row, at, wanted, BY_MEMCG)
            delay = high_delay_ns(group["usage"], group["high"], charged, HZ)  # 0 if too short to be worth a sleep
            going_on = delay > 0 and row["scan"][1]["sent"] == 0 and (reclaimed > 0 or retries > 0)
            if reclaimed + row["scan"][1]["sent"] > 0:
                delay = 0
            bill_reclaim(row, until_written(row) if going_on else delay + until_written(row))
            if not going_on:
                break
            retries -= 1 if reclaimed == 0 else 0
            wanted = SWAP_CLUSTER_MAX
        at = group["parent"]
    handle_over_swap_high(row, cg, charged)


@law
def handle_over_swap_high(row, cg, charged):
    """The same brake with the swap counter: nothing is reclaimed for it, so that each of the sixteen retries is a `high` event
    of memory.swap.events, and then the task sleeps.

    Source: mm/memcontrol.c swap_find_max_overage, mem_cgroup_handle_over_high (6.1: both penalties are added).
    """
    delay, at = 0, cg
    while at > 0:
        group = row["cgroups"][at]
        if group["swap"] > group["swap_high"]:
            delay = max(delay, high_delay_ns(group["swap"], group["swap_high"], charged, HZ))
        at = group["parent"]
    at = cg
    while at > 0:
        group = row["cgroups"][at]
        if group["swap"] > group["swap_high"]:
            event_times(row, at, EV_SWAP_HIGH, MAX_RECLAIM_RETRIES + 1 if delay > 0 else 1)
        at = group["parent"]
    if delay > 0:
        row["wait_ns"] += delay
        row["stall_ns"][PSI_MEM] += delay


@law
def enforce_limit(row, cg):
    """A limit was just written: reclaim down to it; below memory.max kill if sixteen rounds free nothing, below memory.high never.

    returns  bool  True: pages are on their way to swap, call again when they are written

    Source: mm/memcontrol.c memory_max_write, memory_high_write; kernel-laws §8.1. Leaves out: the time the writer spends,
    and further kills at once: a victim's memory comes back over time, what is missing then is the next charge's business.
    """
    group = row["cgroups"][cg]
    for limit in (group["max"], group["high"]):
        retries = MAX_RECLAIM_RETRIES
        while group["usage"] > limit and retries > 0:
            in_flight = 0
            for k in range(row["wb_count"]):
                in_flight += row["writeback"][(row["wb_head"] + k) % NR_WRITEBACK]["pages"]
            wanted = max(SWAP_CLUSTER_MAX, group["usage"] - limit - in_flight)
            if do_try_to_free_pages(row, cg, wanted, BY_MEMCG) == 0:
                retries -= 1
            if row["scan"][1]["sent"] > 0:  # on its way to swap: freed by the next call's scan
                return True
    if group["usage"] > group["max"]:
        last = row["writeback"][(row["wb_head"] + row["wb_count"] - 1) % NR_WRITEBACK]
        if row["wb_count"] > 0 and last["done_ns"] > row["now_ns"]:  # earlier writes are still under way
            return True
        out_of_memory(row, cg, -1)
    return False
