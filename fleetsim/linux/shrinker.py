# SPDX-License-Identifier: Apache-2.0
"""Slab shrinkers: after its pages, every lruvec of a reclaim pass gives up cached objects (mm/vmscan.c shrink_slab, do_shrink_slab).

    shrink_slab            for one cgroup: the superblock's shrinker, then the shadow nodes'
      └ do_shrink_slab     how many objects this priority asks for, in whole batches; the rest is deferred
          ├ super_cache    names and inodes, in proportion (fs/super.c)
          └ shadow_nodes   nodes of page-cache trees beyond what refaults need (mm/workingset.c)

What is freed counts as reclaimed. Leaves out: the shrinkers of the journal, of extents and of ext4's other caches.
Source: mm/vmscan.c, fs/super.c, mm/workingset.c (Linux 6.1); kernel-laws §13.3.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import SLAB_SCAN
from fleetsim.law import law
from fleetsim.linux.dcache import prune_dcache_sb, prune_icache_sb
from fleetsim.linux.mm_types import VM
from fleetsim.linux.slab_caches import XA_NODE
from fleetsim.linux.slub import charge_objects, kmem_cache_free
from fleetsim.linux.xarray import SLOTS, sync_page_cache_slabs

SLABS_SCANNED, NODERECLAIM = VM["slabs_scanned"], VM["workingset_nodereclaim"]
SUPER, SHADOW = 0, 1  # positions in cgroup["deferred"]
SUPER_BATCH = 1024  # s_shrink.batch
SHRINK_BATCH = 128
DEFAULT_SEEKS = 2
NODES_SHIFT = 3  # one node per 8 pages that could be cached is worth keeping


@law
def shrink_delta(freeable: int, priority: int, seeks: int) -> int:
    """New work for a shrinker at a reclaim priority.

        (freeable >> priority) · 4 / seeks;   freeable / 2 if an object costs nothing to make again (seeks 0)

    freeable  int64  objects, ≥ 0
    priority  int64  0..12
    seeks     int64  cost of making an object again, in disk seeks
    returns   int64  objects

    Source: mm/vmscan.c do_shrink_slab; kernel-laws §13.3, T-13.1. Leaves out: nothing.
    """
    if seeks == 0:
        return freeable // 2
    return (freeable >> priority) * 4 // seeks


@law
def total_scan(freeable: int, deferred: int, delta: int, priority: int) -> int:
    """Objects a shrinker is asked to look at now.

        min((deferred >> priority) + delta, 2 · freeable)

    Source: mm/vmscan.c do_shrink_slab; kernel-laws §13.3, T-13.1. Leaves out: nothing.
    """
    return min((deferred >> priority) + delta, 2 * freeable)


@law
def next_deferred(freeable: int, deferred: int, delta: int, scanned: int) -> int:
    """Work left for the next call.

        min(max(deferred + delta − scanned, 0), 2 · freeable)

    Source: mm/vmscan.c do_shrink_slab; kernel-laws §13.3, T-13.2. Leaves out: nothing.
    """
    return min(max(deferred + delta - scanned, 0), 2 * freeable)


@law
def vfs_pressure_ratio(objects: int, pressure: int) -> int:
    """Names and inodes as the shrinker counts them: vm.vfs_cache_pressure per cent of them.

    Source: include/linux/dcache.h vfs_pressure_ratio; kernel-laws §13.3, T-13.3. Leaves out: nothing.
    """
    return objects // 100 * pressure + objects % 100 * pressure // 100


@law
def super_cache_scan(row, cg, wanted):
    """Look at `wanted` names and inodes, in proportion to how many there are, and one more of each.

    returns  int64  pages given back

    Source: fs/super.c super_cache_scan; kernel-laws §13.3.
    """
    group = row["cgroups"][cg]
    names, inodes = int(group["dentries"]), int(group["inodes"])
    total = names + inodes + 1
    _, _, pages = prune_dcache_sb(row, cg, wanted * names // total + 1)
    _, more = prune_icache_sb(row, cg, wanted * inodes // total + 1)
    return pages + more


@law
def shadow_nodes_to_spare(row, cg):
    """Shadow nodes beyond one per eight pages of the cgroup's lists and slabs.

    Source: mm/workingset.c count_shadow_nodes.
    """
    group = row["cgroups"][cg]
    if group["shadow_nodes"] == 0:
        return 0
    pages = group["slab_r"] + group["slab_u"] >> 12
    if cg == 0:
        pages = row["slab_reclaimable"] + row["slab_unreclaimable"]
        for i in range(1, row["nr_cgroups"]):
            pages -= row["cgroups"][i]["slab_r"] + row["cgroups"][i]["slab_u"] >> 12
    for lru in range(5):
        pages += group["size"][lru]
    return max(0, int(group["shadow_nodes"]) - (pages >> NODES_SHIFT))


@law
def oldest_shadows(row, cg):
    """The cohort of a cgroup's files that left its shadows first, of those with a whole node of them; of equals the first row.

    returns  int64  cohort row, −1: there is none

    Source: mm/list_lru.c (the order of the shadow nodes' list).
    """
    oldest, age = -1, 0
    for g in range(row["nr_groups"]):
        group = row["groups"][g]
        if group["evicted"] < SLOTS or group["used"] == 0:
            continue
        for i in range(group["first"], group["first"] + group["cohorts"]):
            cohort = row["cohorts"][i]
            if cohort["evicted"] >= SLOTS and cohort["cg"] == cg:
                shadow = cohort["shadow"]
                if oldest < 0 or shadow < age or (shadow == age and i < oldest):
                    oldest, age = i, shadow
    return oldest


@law
def scan_shadow_nodes(row, cg, wanted):
    """Forget the oldest shadows, `wanted` nodes of them: those pages will come back as if never seen.

    returns  int64  pages given back

    Source: mm/workingset.c scan_shadow_nodes, shadow_lru_isolate.
    """
    left = min(wanted, int(row["cgroups"][cg]["shadow_nodes"]))
    freed = 0
    while left > 0:
        oldest = oldest_shadows(row, cg)
        if oldest < 0:
            break
        cohort = row["cohorts"][oldest]
        n = min(left, int(cohort["evicted"]) // SLOTS)
        cohort["evicted"] -= n * SLOTS
        row["groups"][cohort["group"]]["evicted"] -= n * SLOTS
        left -= n
        freed += n
    group = row["cgroups"][cg]
    group["shadow_nodes"] -= freed
    group["xa_nodes"] -= freed
    row["workingset_nodes"] -= freed
    row["vm"][NODERECLAIM] += freed
    charge_objects(row, cg, XA_NODE, -freed)
    return kmem_cache_free(row, XA_NODE, freed, 0)


@law
def do_shrink_slab(row, sc, cg, which, priority):
    """One shrinker of one cgroup at one priority: whole batches, the rest deferred.

    which    int64  SUPER or SHADOW
    returns  int64  pages given back

    Source: mm/vmscan.c do_shrink_slab; kernel-laws §13.3, T-13.1, T-13.2.
    """
    group = row["cgroups"][cg]
    if which == SUPER:
        freeable = vfs_pressure_ratio(int(group["dentries"]) + int(group["inodes"]), row["sysctl"]["vfs_cache_pressure"])
    else:
        freeable = shadow_nodes_to_spare(row, cg)
    if freeable == 0:
        return 0
    batch = SUPER_BATCH if which == SUPER else SHRINK_BATCH
    before = int(group["deferred"][which])
    delta = shrink_delta(freeable, priority, DEFAULT_SEEKS if which == SUPER else 0)
    if before + delta == 0:
        return 0
    left = total_scan(freeable, before, delta, priority)
    scanned = 0
    pages = 0
    while left >= batch or left >= freeable:
        n = min(batch, left)
        if which == SUPER:
            pages += super_cache_scan(row, cg, n)
        left -= n
        scanned += n
    if which == SHADOW and scanned > 0:  # the oldest first, whatever the batches
        pages = scan_shadow_nodes(row, cg, scanned)
    group["deferred"][which] = next_deferred(freeable, before, delta, scanned)
    row["vm"][SLABS_SCANNED] += scanned
    sc["spent_ns"] += scanned * row["cost"][SLAB_SCAN]
    return pages


@law
def has_objects(row, cg):
    """True if a cgroup has anything that a shrinker could take.

    Source: mm/vmscan.c shrink_slab_memcg (the shrinkers' bitmap).
    """
    group = row["cgroups"][cg]
    return int(group["dentries"]) + int(group["inodes"]) + int(group["shadow_nodes"]) > 0


@law
def shrink_slab(row, sc, cg):
    """The turn of a cgroup's slabs in a reclaim pass; what is freed counts as reclaimed.

    Source: mm/vmscan.c shrink_node_memcgs, shrink_slab; kernel-laws §13.3.
    """
    group = row["cgroups"][cg]
    if int(group["dentries"]) + int(group["inodes"]) > 0:
        sc["reclaimed"] += do_shrink_slab(row, sc, cg, SUPER, sc["priority"])
    if group["shadow_nodes"] > 0:
        sc["reclaimed"] += do_shrink_slab(row, sc, cg, SHADOW, sc["priority"])


@law
def drop_slab(row, sc):
    """drop_caches 2: all shrinkers at priority 0, again and again until a round frees (nearly) nothing.

    Source: mm/vmscan.c drop_slab; kernel-laws §4.3.
    """
    sync_page_cache_slabs(row)
    for shift in range(40):
        freed = 0
        for cg in range(row["nr_cgroups"]):
            before = int(row["cgroups"][cg]["dentries"]) + int(row["cgroups"][cg]["inodes"]) + int(row["cgroups"][cg]["shadow_nodes"])
            if before > 0:
                do_shrink_slab(row, sc, cg, SUPER, 0)
                do_shrink_slab(row, sc, cg, SHADOW, 0)
                left = int(row["cgroups"][cg]["dentries"]) + int(row["cgroups"][cg]["inodes"]) + int(row["cgroups"][cg]["shadow_nodes"])
                freed += before - left
        if freed >> shift <= 1:
            return
