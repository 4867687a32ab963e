# SPDX-License-Identifier: Apache-2.0
"""The page allocator's tables (include/linux/mmzone.h): nodes, zones with their free lists, regions of memory. Pages unless said."""

from __future__ import annotations

import numpy as np

from fleetsim.linux.capacity_classes import CAPACITY

NR_ORDERS = 11  # free blocks of 2^0 .. 2^10 pages (MAX_ORDER of 6.1)
PAGEBLOCK_ORDER = 9  # 2 MiB: a huge page, and the unit of migratetypes
MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE = 0, 1, 2
NR_MIGRATETYPES = 3
NR_REGIONS = CAPACITY.regions  # stretches of physical memory whose fragmentation is told apart, see holes.py

# numastat's counters (include/linux/mmzone.h enum numa_stat_item)
NUMA_HIT, NUMA_MISS, NUMA_FOREIGN, NUMA_INTERLEAVE_HIT, NUMA_LOCAL, NUMA_OTHER = range(6)
NR_NUMA_STATS = 6
NR_NODES = 2

NODE_FIELDS = [
    ("nr_nodes", "i8"),  # NUMA nodes: 1 or 2
    ("numa_node", "i8"),  # node of the CPU that allocates just now …
    ("preferred_node", "i8"),  # … where its pages should come from first …
    ("mems_allowed", "i8"),  # … and the nodes they may come from, a bit each
    ("interleave", "i8"),  # 1: every other page from the next node
    ("reclaim_nodes", "i8"),  # nodes whose pages the reclaim under way takes, a bit each
    ("numa", "i8", (NR_NODES, NR_NUMA_STATS)),  # numastat's counters of each node
]

ZONE = np.dtype(
    [
        ("node", "i1"),  # NUMA node
        ("kind", "i1"),  # its name, see ZONE_NAMES
        ("managed", "i8"),  # pages handed to the buddy allocator
        ("free", "i8"),  # NR_FREE_PAGES
        ("wmark", "i8", (3,)),  # min, low, high
        ("reserve", "i8"),  # lowmem_reserve against a request for the highest zone
        ("protection", "i8", (5,)),  # lowmem_reserve[] against a request for each zone, as /proc/zoneinfo shows it
        ("free_area", "i4", (NR_MIGRATETYPES, NR_ORDERS)),  # free blocks
        ("listed", "i8"),  # pages in them; lags behind `free` only inside one allocation or one giving back
        ("pageblocks", "i4", (NR_MIGRATETYPES,)),
        ("region", "i8"),  # row of the region that is being filled, −1
        ("loose", "i8"),  # free pages inside the zone's regions
        ("hole_pageblocks", "i4"),  # … free pageblocks among them that lie in no larger free block
        ("held", "i8"),  # pages on the per-cpu lists of which it is known in which region they lie
        ("pcp", "i8", (2,)),  # pages on the per-cpu lists: movable order 0, and all others
        ("pcp_batch", "i8"),
        ("pcp_high", "i8"),
        ("boost", "i8"),  # watermark_boost: part of all three marks until kswapd has reclaimed that much
        ("boost_factor", "i8"),  # vm.watermark_boost_factor
        ("boosted", "i8"),  # ZONE_BOOSTED_WATERMARK: a fallback has just mixed types, kswapd is to be woken
        ("compact_considered", "i8"),  # requests refused since compaction failed last
        ("compact_defer_shift", "i8"),
        ("compact_order_failed", "i8"),  # the lowest order at which it failed
        ("compact_skip", "i8"),  # 1: its pageblocks were all looked at in vain; 2: … and by a task, which kswapd clears when it sleeps
        ("pcp_factor", "i8"),  # how often in a row the lists were trimmed: doubles what is given back
        ("pinned", "i8"),  # pages of this zone that stand on no LRU list: the kernel's own and programs' images
        ("boot_pinned", "i8"),  # … of them taken before the host was up, never given back
    ]
)

REGION = np.dtype(
    [
        ("zone", "i1"),
        ("group", "i2"),  # who took the last page of it
        ("freer", "i2"),  # who gave pages back last …
        ("freed", "i4"),  # … and how many since the one before
        ("held", "i4"),  # pages of it that wait on the per-cpu lists, where every k-th page stays behind …
        ("run", "i2"),  # … how they lie (row["free_run"] when they were given back)
        ("pages", "i8"),  # 0: the row is free
        ("used", "i8"),
        ("runs", "i8"),  # stretches of one owner
        ("holes_q", "i8"),  # stretches of free pages, 1/1024
    ]
)
"""Pages of a zone that were taken one after the other, and so lie side by side."""
