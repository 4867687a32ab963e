# SPDX-License-Identifier: Apache-2.0
"""What is counted for each NUMA node (mm/vmstat.c node_page_state): plain Python, for reports and files that somebody reads.

Lists, free pages and zones are exact. What is counted for the whole host is shared out by where the pages lie that it is about: dirty
pages, those under writeback and mapped ones by their cohorts, the kernel's own by what each node has taken for it since boot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fleetsim.linux.mm_types import NR_LRU_LISTS, VM, ZONE_NODE1, ZONE_NORMAL
from fleetsim.linux.mmzone import NR_NUMA_STATS

LISTS = ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")
NUMASTAT = ("numa_hit", "numa_miss", "numa_foreign", "numa_interleave", "numa_local", "numa_other")
NODE_VMSTAT = {f"nr_{name}": name for name in LISTS} | {
    "nr_free_pages": "free",
    "nr_anon_pages": "anon",
    "nr_file_pages": "file_pages",
    "nr_shmem": "shmem",
    "nr_mapped": "mapped",
    "nr_dirty": "dirty",
    "nr_writeback": "writeback",
    "nr_slab_reclaimable": "slab_reclaimable",
    "nr_slab_unreclaimable": "slab_unreclaimable",
    "nr_page_table_pages": "page_tables",
}
KERNEL = ("slab_reclaimable", "slab_unreclaimable", "kernel_stack", "page_tables")


def zones_of(row: Any, node: int) -> list[Any]:
    """The zones of a node that have pages, from the lowest up."""
    return [zone for zone in row["zones"] if int(zone["managed"]) and int(zone["node"]) == node]


def pages_of_zone(cohorts: Any, z: int) -> Any:
    """Pages of each cohort in one zone."""
    if z == ZONE_NODE1:
        return cohorts["node1"]
    return cohorts["low_zone"][:, z] if z < ZONE_NORMAL else cohorts["nr"] - cohorts["low_zone"].sum(axis=1) - cohorts["node1"]


def pages_by_node(row: Any) -> tuple[Any, Any]:
    """Pages of each cohort on the first node, and on the second."""
    far = row["cohorts"]["node1"].astype("i8")
    return row["cohorts"]["nr"] - far, far


def node_counts(row: Any, node: int) -> dict[str, int]:
    """Pages of a node: total, free, the lists, and what NODE_VMSTAT and the OOM report name."""
    cohorts, groups = row["cohorts"], row["groups"]
    there = pages_by_node(row)[node]
    on_list = cohorts["list"] >= 0
    group = np.where(cohorts["group"] >= 0, cohorts["group"], 0)
    is_file, shmem = (groups["is_file"][group] > 0) & on_list, (groups["shmem"][group] > 0) & on_list
    anon = on_list & ~is_file & ~shmem
    nr = np.maximum(1, cohorts["nr"].astype("i8"))
    in_cache = cohorts["wb"].astype("i8") * there // nr  # of anonymous pages: in the swap cache
    counts = {name: int(there[cohorts["list"] == lru].sum()) for lru, name in enumerate(LISTS[:NR_LRU_LISTS])}
    zones = zones_of(row, node)
    counts["total"] = sum(int(zone["managed"]) for zone in zones)
    counts["free"] = sum(int(zone["free"]) for zone in zones)
    counts["free_pcp"] = sum(int(zone["pcp"].sum()) for zone in zones)
    counts["shmem"] = int((there - in_cache)[shmem].sum())
    counts["anon"] = int((there - in_cache)[anon].sum()) + (int(row["unlisted_anon"]) if node == 0 else 0)
    counts["file_pages"] = int(there[is_file].sum()) + int(in_cache[anon | shmem].sum()) + counts["shmem"]
    counts["file_pages"] += int(row["unlisted_file"]) if node == 0 else 0
    counts["dirty"] = int((cohorts["dirty"].astype("i8") * there // nr)[is_file].sum())
    counts["writeback"] = int(in_cache[is_file].sum())
    mapped = groups["mapped"][group] * there // np.maximum(1, groups["resident"][group])
    counts["mapped"] = int(mapped[is_file | shmem].sum()) + (int(row["boot_mapped"]) if node == 0 else 0)
    pinned = [sum(int(zone["pinned"]) for zone in zones_of(row, n)) for n in range(int(row["nr_nodes"]))]
    counts |= {name: int(row[name]) * pinned[node] // max(1, sum(pinned)) for name in KERNEL}
    return counts


def node_numastat(row: Any, vm: Mapping[str, int], node: int) -> dict[str, int]:
    """A node's numastat counters; those of the only node are the host's."""
    if int(row["nr_nodes"]) == 1:
        return {name: vm[name] for name in NUMASTAT}
    assert VM["numa_other"] - VM["numa_hit"] == NR_NUMA_STATS - 1
    return dict(zip(NUMASTAT, row["numa"][node].tolist(), strict=True))
