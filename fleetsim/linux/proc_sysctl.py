# SPDX-License-Identifier: Apache-2.0
"""What a write to /proc/sys/vm, /sys/kernel/mm or a cgroup's file does (fs/proc/proc_sysctl.c and the files' owners).

`sysctl_paths.py` turns a path and its text into one of the knobs below, a target (a cgroup, a pool) and a number.
An order that takes time (evicting a cache, growing a pool) is worked off in pieces: each call says whether it is done.
Leaves out: EINVAL of values out of range (refused where they are read), permissions.
Source: kernel/sysctl.c, mm/page_alloc.c, mm/khugepaged.c, mm/memcontrol.c (Linux 6.1); kernel-laws §1.2, §4.3, §8.1, §11.3.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import SYSCALL, TICK
from fleetsim.law import law
from fleetsim.linux.alloc_slowpath import bill_reclaim, enforce_limit, until_written
from fleetsim.linux.compaction import compact_nodes
from fleetsim.linux.drop_caches import drop_pagecache
from fleetsim.linux.hugetlb import set_max_huge_pages
from fleetsim.linux.lru_gen_state import lru_gen_change_state
from fleetsim.linux.mm_types import BY_MEMCG, MAX_RECLAIM_RETRIES, NO_LIMIT, NR_ZONES, NS_PER_MS, VM, WMARK_HIGH, ZONE_NORMAL
from fleetsim.linux.nodes import zonelist
from fleetsim.linux.page_alloc import (
    calculate_min_free_kbytes,
    lowmem_reserve,
    recommended_min_free_kbytes,
    totalreserve_of_zone,
    wmark_gap,
    wmark_min,
    zone_batchsize,
    zone_pcp_high,
)
from fleetsim.linux.shrinker import drop_slab
from fleetsim.linux.sysctl import LOWMEM_RESERVE_RATIO
from fleetsim.linux.vmscan import do_try_to_free_pages

KNOBS = (
    "nothing swappiness overcommit_memory overcommit_ratio overcommit_kbytes admin_reserve_kbytes user_reserve_kbytes page_cluster "
    "dirty_ratio dirty_background_ratio panic_on_oom oom_kill_allocating_task min_free_kbytes watermark_scale_factor "
    "vfs_cache_pressure dirty_bytes dirty_background_bytes dirty_expire_centisecs dirty_writeback_centisecs "
    "compaction_proactiveness compact_unevictable_allowed extfrag_threshold watermark_boost_factor "
    "drop_caches compact_memory nr_hugepages nr_overcommit_hugepages thp_enabled thp_defrag lru_gen lru_gen_min_ttl "
    "memory.max memory.high memory.min memory.low memory.swap.max memory.oom.group memory.reclaim "
    "memory.swap.high memory.zswap.max zswap_enabled zswap_max_pool_percent zswap_accept_threshold_percent zswap_same_filled "
    "zone_reclaim_mode min_unmapped_ratio"
).split()
KNOB = {name: i for i, name in enumerate(KNOBS)}
(_, SWAPPINESS, OVERCOMMIT_MEMORY, OVERCOMMIT_RATIO, OVERCOMMIT_KBYTES, ADMIN_RESERVE, USER_RESERVE, PAGE_CLUSTER) = range(8)
(DIRTY_RATIO, DIRTY_BACKGROUND_RATIO, PANIC_ON_OOM, OOM_KILL_ALLOCATING, MIN_FREE, SCALE_FACTOR, CACHE_PRESSURE) = range(8, 15)
(DIRTY_BYTES, DIRTY_BACKGROUND_BYTES, DIRTY_EXPIRE, DIRTY_WRITEBACK) = range(15, 19)
PROACTIVENESS, UNEVICTABLE_ALLOWED, EXTFRAG_THRESHOLD, BOOST_FACTOR = range(19, 23)
(DROP_CACHES, COMPACT_MEMORY, NR_HUGEPAGES, NR_OVERCOMMIT, THP_ENABLED, THP_DEFRAG, LRU_GEN_ENABLED, LRU_GEN_MIN_TTL) = range(23, 31)
(CG_MAX, CG_HIGH, CG_MIN, CG_LOW, CG_SWAP_MAX, CG_OOM_GROUP, CG_RECLAIM) = range(31, 38)
(CG_SWAP_HIGH, CG_ZSWAP_MAX, ZSWAP_ENABLED, ZSWAP_MAX_POOL, ZSWAP_ACCEPT, ZSWAP_SAME_FILLED) = range(38, 44)
ZONE_RECLAIM_MODE, MIN_UNMAPPED_RATIO = 44, 45
RESERVE_RATIO_0, RESERVE_RATIO_1, RESERVE_RATIO_2 = LOWMEM_RESERVE_RATIO[:3]

assert len(KNOBS) == MIN_UNMAPPED_RATIO + 1
CGROUP_KNOBS = (CG_MAX, CG_HIGH, CG_MIN, CG_LOW, CG_SWAP_MAX, CG_OOM_GROUP, CG_RECLAIM, CG_SWAP_HIGH, CG_ZSWAP_MAX)
DONE = -1
ZSWAP_MAX_PAGES = (1 << 31) - 1
NR_PROTECTIONS = 5  # DMA, DMA32, Normal, Movable, Device
DROP_SLAB = VM["drop_slab"]


@law
def setup_per_zone_wmarks(row):
    """min, low and high of every zone, its reserves against requests for higher ones, totalreserve, and the per-cpu lists' sizes.

    Source: mm/page_alloc.c setup_per_zone_wmarks, setup_per_zone_lowmem_reserve, calculate_totalreserve_pages; kernel-laws §1.3, §1.4.
    """
    zones, sysctl = row["zones"], row["sysctl"]
    total = 0
    for z in range(NR_ZONES):
        total += zones[z]["managed"]
    reserves = 0
    upper = 0
    for place in range(NR_ZONES):
        z = zonelist(0, place)
        zone = zones[z]
        managed = zone["managed"]
        if managed == 0:
            continue
        if zone["node"] > 0:  # its node's only one
            upper = 0
        share = wmark_min(sysctl["min_free_kbytes"], managed, total)
        gap = wmark_gap(share, managed, sysctl["watermark_scale_factor"])
        for mark in range(3):
            zone["wmark"][mark] = share + mark * gap
        zone["boost"] = 0
        zone["boost_factor"] = sysctl["watermark_boost_factor"]
        ratio = RESERVE_RATIO_0 if zone["kind"] == 0 else RESERVE_RATIO_1 if zone["kind"] == 1 else RESERVE_RATIO_2
        zone["reserve"] = lowmem_reserve(upper, ratio) if upper > 0 else 0
        reserves += totalreserve_of_zone(managed, zone["reserve"], share + 2 * gap)
        between = 0
        for j in range(NR_PROTECTIONS):
            between += zones[j]["managed"] if z < j <= ZONE_NORMAL and zones[j]["node"] == zone["node"] else 0
            zone["protection"][j] = lowmem_reserve(between, ratio) if between > 0 else 0
        zone["pcp_batch"] = zone_batchsize(managed)
        zone["pcp_high"] = zone_pcp_high(share + gap, row["cpus"], zone["pcp_batch"])
        upper += managed
    row["totalreserve"] = reserves


@law
def set_recommended_min_free_kbytes(row, thp):
    """transparent_hugepage/enabled was written: khugepaged starts or stops, and asks for free memory or no longer does.

    thp  int64  0: never

    Source: mm/khugepaged.c start_stop_khugepaged, set_recommended_min_free_kbytes; kernel-laws §1.2. A lower value that
    somebody wrote before is overwritten; without huge pages the value of boot comes back unless a higher one was written.
    """
    usable, zones = 0, 0
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        usable += max(0, zone["managed"] - zone["wmark"][WMARK_HIGH])
        zones += 1 if zone["managed"] > 0 else 0
    sysctl = row["sysctl"]
    base = calculate_min_free_kbytes(usable * 4)
    if thp == 0:
        if base > row["user_min_free_kbytes"]:
            sysctl["min_free_kbytes"] = base
    else:
        sysctl["min_free_kbytes"] = max(sysctl["min_free_kbytes"], recommended_min_free_kbytes(base, zones, usable))
    setup_per_zone_wmarks(row)


@law
def memory_reclaim(row, cg, wanted, done):
    """memory.reclaim: reclaim `wanted` pages from a cgroup, a round a call; sixteen fruitless rounds are EAGAIN.

    done     int64  2^8 · pages reclaimed so far + fruitless rounds
    returns  int64  the same after this round; DONE

    Source: mm/memcontrol.c memory_reclaim; kernel-laws §8.1.
    """
    pages, idle = done >> 8, done & 255
    if pages >= wanted:
        return DONE
    reclaimed = do_try_to_free_pages(row, cg, wanted - pages, BY_MEMCG)
    sent = row["scan"][1]["sent"]
    bill_reclaim(row, until_written(row))
    if reclaimed + sent == 0:
        idle += 1
        if idle > MAX_RECLAIM_RETRIES:
            return DONE  # EAGAIN
    elif reclaimed + pages >= wanted:
        return DONE
    return (pages + reclaimed << 8) + idle


@law
def set_sysctl_field(row, knob, value):
    """A setting that is only remembered.

    Source: kernel/sysctl.c vm_table.
    """
    sysctl = row["sysctl"]
    if knob == SWAPPINESS:
        sysctl["swappiness"] = value
    elif knob == OVERCOMMIT_MEMORY:
        sysctl["overcommit_memory"] = value
    elif knob == OVERCOMMIT_RATIO:
        sysctl["overcommit_ratio"] = value
        sysctl["overcommit_kbytes"] = 0
    elif knob == OVERCOMMIT_KBYTES:
        sysctl["overcommit_kbytes"] = value
    elif knob == ADMIN_RESERVE:
        sysctl["admin_reserve_kbytes"] = value
    elif knob == USER_RESERVE:
        sysctl["user_reserve_kbytes"] = value
    elif knob == PAGE_CLUSTER:
        sysctl["page_cluster"] = value
    elif knob == DIRTY_RATIO:
        sysctl["dirty_ratio"] = value
        sysctl["dirty_bytes"] = 0
    elif knob == DIRTY_BACKGROUND_RATIO:
        sysctl["dirty_background_ratio"] = value
        sysctl["dirty_background_bytes"] = 0
    elif knob == DIRTY_BYTES:
        sysctl["dirty_bytes"] = value
        sysctl["dirty_ratio"] = 0
    elif knob == DIRTY_BACKGROUND_BYTES:
        sysctl["dirty_background_bytes"] = value
        sysctl["dirty_background_ratio"] = 0
    elif knob == DIRTY_EXPIRE:
        sysctl["dirty_expire_centisecs"] = value
    elif knob == DIRTY_WRITEBACK:
        sysctl["dirty_writeback_centisecs"] = value
    elif knob == PROACTIVENESS:
        sysctl["compaction_proactiveness"] = value
    elif knob == UNEVICTABLE_ALLOWED:
        sysctl["compact_unevictable_allowed"] = value
    elif knob == EXTFRAG_THRESHOLD:
        sysctl["extfrag_threshold"] = value
    elif knob == BOOST_FACTOR:
        sysctl["watermark_boost_factor"] = value
        for z in range(NR_ZONES):
            row["zones"][z]["boost_factor"] = value
    elif knob == PANIC_ON_OOM:
        sysctl["panic_on_oom"] = value
    elif knob == OOM_KILL_ALLOCATING:
        sysctl["oom_kill_allocating_task"] = value
    elif knob == CACHE_PRESSURE:
        sysctl["vfs_cache_pressure"] = value
    elif knob == MIN_FREE:
        sysctl["min_free_kbytes"] = value
        row["user_min_free_kbytes"] = value
        setup_per_zone_wmarks(row)
    elif knob == SCALE_FACTOR:
        sysctl["watermark_scale_factor"] = value
        setup_per_zone_wmarks(row)


@law
def write_limit(row, knob, cg, value):
    """A limit of a cgroup, in pages (memory.oom.group: 0 or 1).

    returns  bool  False: the cgroup is still above it, and pages are on their way to swap: come back

    Source: mm/memcontrol.c memory_max_write, memory_high_write and their neighbours; kernel-laws §8.1.
    """
    group = row["cgroups"][cg]
    if knob == CG_MIN:
        group["min"] = value
        row["protected"] = 1
    elif knob == CG_LOW:
        group["low"] = value
        row["protected"] = 1
    elif knob == CG_SWAP_MAX:
        group["swap_max"] = value
    elif knob == CG_SWAP_HIGH:
        group["swap_high"] = value
    elif knob == CG_ZSWAP_MAX:
        group["zswap_max"] = -1 if value == NO_LIMIT else min(value, ZSWAP_MAX_PAGES)
    elif knob == CG_OOM_GROUP:
        group["oom_group"] = value
    else:
        if knob == CG_MAX:
            group["max"] = value
        else:
            group["high"] = value
        if group["usage"] > value:
            again = enforce_limit(row, cg)
            bill_reclaim(row, max(until_written(row), row["cost"][TICK]) if again else 0)
            return not again
    return True


@law
def set_zswap_parameter(row, knob, value):
    """A file of /sys/module/zswap/parameters; nothing happens where zswap is not built in.

    Source: mm/zswap.c (module_param_cb, module_param_named).
    """
    zswap = row["zswap"]
    if zswap["built_in"] == 0:
        return
    if knob == ZSWAP_ENABLED:
        zswap["enabled"] = value
    elif knob == ZSWAP_MAX_POOL:
        zswap["max_pool_percent"] = value
    elif knob == ZSWAP_ACCEPT:
        zswap["accept_threshold_percent"] = value
    elif zswap["stored"] == 0:  # what is stored was counted by the old setting
        zswap["same_filled"] = value


@law
def write_knob(row, th, knob, which, value, done):
    """One write, or the next piece of one under way.

    knob     int64  position in KNOBS
    which    int64  row of the cgroup, or of the hugetlb pool
    value    int64  pages, kB, or as the file takes it
    done     int64  0 at first, then what the last call returned
    returns  int64  DONE, or the state of the work: come back when the bill is paid

    Source: fs/proc/proc_sysctl.c proc_sys_call_handler; fs/kernfs/file.c kernfs_fop_write_iter.
    """
    row["spent_ns"] += row["cost"][SYSCALL]
    if knob == NR_HUGEPAGES:
        return DONE if set_max_huge_pages(row, th, which, value) else 0
    if knob == NR_OVERCOMMIT:
        row["hstates"][which]["overcommit"] = 0 if which > 0 else value  # EINVAL for gigantic pages
    elif knob == ZONE_RECLAIM_MODE:
        row["sysctl"]["zone_reclaim_mode"] = value
    elif knob == MIN_UNMAPPED_RATIO:
        row["sysctl"]["min_unmapped_ratio"] = value
    elif knob in CGROUP_KNOBS and which < 0:
        return DONE  # ENOENT: the cgroup was removed
    elif knob == CG_RECLAIM:
        return memory_reclaim(row, which, value, done)
    elif knob >= ZSWAP_ENABLED:
        set_zswap_parameter(row, knob, value)
    elif knob >= CG_MAX:
        return DONE if write_limit(row, knob, which, value) else 0
    elif knob == DROP_CACHES:
        if value & 1:
            drop_pagecache(row)
        if value & 2:
            row["scan"][1]["spent_ns"] = 0
            drop_slab(row, row["scan"][1])
            row["spent_ns"] += row["scan"][1]["spent_ns"]
            row["vm"][DROP_SLAB] += 1
    elif knob == COMPACT_MEMORY:
        compact_nodes(row)
    elif knob == LRU_GEN_ENABLED:
        lru_gen_change_state(row, value)
    elif knob == LRU_GEN_MIN_TTL:
        row["lru_gen_min_ttl"] = value * NS_PER_MS
    elif knob == THP_DEFRAG:
        row["thp_defrag"] = value
    elif knob == THP_ENABLED:
        row["thp_enabled"] = value
        set_recommended_min_free_kbytes(row, value)
    else:
        set_sysctl_field(row, knob, value)
    return DONE
