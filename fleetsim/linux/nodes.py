# SPDX-License-Identifier: Apache-2.0
"""NUMA nodes: whose zones, pages and free memory are whose.

A host has one node, or two. The first has the zones DMA, DMA32 and Normal, the second a single one. Lists are those of the whole
host: a cohort knows how many of its pages lie on the second node, and whoever reclaims for one node (its kswapd, an allocation
that is bound to it, zone_reclaim_mode) passes over the pages of the other one, which leaves each node's pages in the order in which
the kernel's own list of that node has them. row["reclaim_nodes"] says whose pages may be taken, a bit for each node.
Leaves out: a clock of evictions, a balance of costs and generations (MGLRU) of each node's own; automatic NUMA balancing.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import ALL_NODES, NR_COHORTS, NR_LRU_LISTS, NR_ZONES, VM, WMARK_HIGH, ZONE_NODE1, ZONE_NORMAL
from fleetsim.linux.mmzone import NUMA_FOREIGN, NUMA_HIT, NUMA_INTERLEAVE_HIT, NUMA_LOCAL, NUMA_MISS, NUMA_OTHER

VM_NUMA_HIT = VM["numa_hit"]


@law
def zonelist(node, place):
    """The zone at a place of a node's zonelist: its own zones, the highest first, then those of the other node.

    Source: mm/page_alloc.c build_zonelists, build_zonerefs_node; kernel-laws §1.1.
    """
    if node > 0:
        return NR_ZONES - 1 - place
    return ZONE_NORMAL - place if place <= ZONE_NORMAL else ZONE_NODE1


@law
def bit_of(row, node):
    """A node as a set of nodes; of a host that has but one, the set of all.

    Source: include/linux/nodemask.h nodemask_of_node.
    """
    return ALL_NODES if row["nr_nodes"] == 1 else 1 << node


@law
def zone_allowed(row, z, nodes):
    """True if zone `z` has pages and is on one of `nodes`.

    Source: mm/page_alloc.c for_each_zone_zonelist_nodemask.
    """
    zone = row["zones"][z]
    return zone["managed"] > 0 and (nodes >> zone["node"]) & 1 > 0


@law
def numa_statistics(row, z, pages, preferred):
    """Book where `pages` pages came from.

    preferred  int64  the node of the first zone that was asked

    Source: mm/page_alloc.c zone_statistics; mm/mempolicy.c alloc_page_interleave.
    """
    if row["nr_nodes"] == 1:
        row["vm"][VM_NUMA_HIT] += pages
        return
    node = row["zones"][z]["node"]
    numa = row["numa"]
    if node == preferred:
        numa[node][NUMA_HIT] += pages
        if row["interleave"] > 0:
            numa[node][NUMA_INTERLEAVE_HIT] += pages
    else:
        numa[node][NUMA_MISS] += pages
        numa[preferred][NUMA_FOREIGN] += pages
    numa[node][NUMA_LOCAL if node == row["numa_node"] else NUMA_OTHER] += pages


@law
def of_second_node(row, cohort, pages):
    """How many of `pages` pages that leave a cohort are on the second node: its share, or what the reclaim of one node says.

    Source: fleetsim's own representation.
    """
    far = cohort["node1"]
    if far == 0:
        return far
    if row["reclaim_nodes"] == ALL_NODES:
        share = far * pages // max(1, cohort["nr"])
    else:
        share = min(far, pages) if row["reclaim_nodes"] > 1 else 0
    return max(share, pages - (cohort["nr"] - far))


@law
def pages_on_nodes(row, cohort):
    """Pages of a cohort that the reclaim under way may take.

    Source: fleetsim's own representation.
    """
    nodes = row["reclaim_nodes"]
    if nodes == ALL_NODES:
        return cohort["nr"]
    return cohort["node1"] if nodes > 1 else cohort["nr"] - cohort["node1"]


@law
def next_on_nodes(row, i):
    """Cohort `i` of a list, or the next newer one with pages that the reclaim under way may take; −1: there is none.

    Source: fleetsim's own representation.
    """
    if row["reclaim_nodes"] == ALL_NODES:
        return i
    while i >= 0 and pages_on_nodes(row, row["cohorts"][i]) == 0:
        i = row["cohorts"][i]["prev"]
    return i


@law
def lruvec_lru_size(row, cg, lru):
    """Pages on a list of lruvec `cg` that the reclaim under way may take.

    Source: mm/vmscan.c lruvec_lru_size.
    """
    if row["reclaim_nodes"] == ALL_NODES:
        return row["cgroups"][cg]["size"][lru]
    pages = 0
    i = row["cgroups"][cg]["tail"][lru]
    while i >= 0:
        pages += pages_on_nodes(row, row["cohorts"][i])
        i = row["cohorts"][i]["prev"]
    return pages


@law
def count_node_lists(row, out):
    """Pages of each list of the whole host that the reclaim under way may take.

    out  int64[NR_LRU_LISTS]

    Source: mm/vmstat.c node_page_state(NR_LRU_BASE + lru).
    """
    if row["reclaim_nodes"] == ALL_NODES:
        for lru in range(NR_LRU_LISTS):
            out[lru] = row["cgroups"][0]["tree"][lru]
        return
    for lru in range(NR_LRU_LISTS):
        out[lru] = 0
    for i in range(NR_COHORTS):
        cohort = row["cohorts"][i]
        if cohort["list"] >= 0:
            out[cohort["list"]] += pages_on_nodes(row, cohort)


@law
def nr_free(row):
    """NR_FREE_PAGES of the host, pages.

    Source: mm/vmstat.c global_zone_page_state(NR_FREE_PAGES).
    """
    total = 0
    for z in range(NR_ZONES):
        total += row["zones"][z]["free"]
    return total


@law
def nr_free_in(row, nodes):
    """NR_FREE_PAGES of some nodes, pages.

    Source: mm/vmstat.c sum_zone_node_page_state(NR_FREE_PAGES).
    """
    total = 0
    for z in range(NR_ZONES):
        if zone_allowed(row, z, nodes):
            total += row["zones"][z]["free"]
    return total


@law
def nr_high_in(row, nodes):
    """Σ over the zones of some nodes of the high watermark, pages.

    Source: mm/vmscan.c prepare_scan_count (total_high_wmark), balance_pgdat.
    """
    total = 0
    for z in range(NR_ZONES):
        if zone_allowed(row, z, nodes):
            total += row["zones"][z]["wmark"][WMARK_HIGH]
    return total
