# SPDX-License-Identifier: Apache-2.0
"""vm.zone_reclaim_mode: a node's page cache is dropped before memory of another node is used (mm/vmscan.c node_reclaim).

Off by default since 3.16, and a classic: with it on, a host reads its files again and again while half of its memory is free.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import (
    ALL_NODES,
    BY_DIRECT,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_FILE,
    MAX_RECLAIM_RETRIES,
    NR_COHORTS,
    NR_ZONES,
    SWAP_CLUSTER_MAX,
    VM,
)
from fleetsim.linux.nodes import pages_on_nodes
from fleetsim.linux.vmscan import begin_direct, sweep

RECLAIM_WRITE, RECLAIM_UNMAP = 2, 4  # bits of zone_reclaim_mode; any of them switches it on
NODE_RECLAIM_PRIORITY = 4
ZONE_RECLAIM_FAILED = VM["zone_reclaim_failed"]


@law
def node_pagecache_reclaimable(row, node):
    """File pages of a node that could be dropped: unmapped ones, and only clean ones, unless the mode allows more.

    Source: mm/vmscan.c node_pagecache_reclaimable, node_unmapped_file_pages.
    """
    mode = row["sysctl"]["zone_reclaim_mode"]
    row["reclaim_nodes"] = 1 << node
    pages = 0
    for i in range(NR_COHORTS):
        cohort = row["cohorts"][i]
        if cohort["list"] == LRU_INACTIVE_FILE or cohort["list"] == LRU_ACTIVE_FILE:
            there = pages_on_nodes(row, cohort)
            if mode & RECLAIM_UNMAP == 0 and row["groups"][cohort["group"]]["maps"] >= 0:
                there = 0
            if mode & RECLAIM_WRITE == 0:
                there -= min(there, cohort["dirty"])
            pages += there
    row["reclaim_nodes"] = ALL_NODES
    return pages


@law
def node_reclaim(row, node):
    """Reclaim from a node that an allocation would rather use than another, if it has more page cache than vm.min_unmapped_ratio.

    returns  int64  pages reclaimed

    Source: mm/vmscan.c node_reclaim, __node_reclaim (it begins at priority 4 and does not wait).
    Leaves out: the slab alone (vm.min_slab_ratio); mapped pages are passed over as a whole by the test above, not one by one.
    """
    managed = 0
    for z in range(NR_ZONES):
        if row["zones"][z]["node"] == node:
            managed += row["zones"][z]["managed"]
    if row["kswapd"][node]["failures"] >= MAX_RECLAIM_RETRIES:
        return 0
    if node_pagecache_reclaimable(row, node) <= managed * row["sysctl"]["min_unmapped_ratio"] // 100:
        return 0
    may_unmap = row["sysctl"]["zone_reclaim_mode"] & RECLAIM_UNMAP > 0  # anonymous pages are mapped, so that it decides on swap too
    sc = begin_direct(row, BY_DIRECT, 0, SWAP_CLUSTER_MAX, 1 if may_unmap else 0)
    row["reclaim_nodes"] = 1 << node
    sweep(row, sc, NODE_RECLAIM_PRIORITY)
    row["reclaim_nodes"] = ALL_NODES
    if sc["reclaimed"] < SWAP_CLUSTER_MAX:
        row["vm"][ZONE_RECLAIM_FAILED] += 1
    return sc["reclaimed"]
