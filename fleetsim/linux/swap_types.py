# SPDX-License-Identifier: Apache-2.0
"""The tables of swap: areas, a zram device, zswap (include/linux/swap.h, drivers/block/zram/zram_drv.h, mm/zswap.c).

Which slot a page has is not kept; how many slots of each area a group has is (`group["slots"]`), once a host has more than the one
disk area that most hosts have (`row["swap_mode"]`). Of those, `group["stored"]` are compressed in memory, in zram or in zswap.
"""

from __future__ import annotations

import numpy as np

NR_SWAPFILES = 3
NR_DISKS = 4  # the data disk, and one for each swap area that has its own

SWAP_OFF, SWAP_ON, SWAP_LEAVING = 0, 1, 2  # SWP_USED and SWP_WRITEOK; leaving: swapoff is under way
ON_ZRAM = -1  # swap_info["disk"] of an area on zram0

SWAP_INFO = np.dtype(
    [
        ("state", "i1"),
        ("is_file", "i1"),
        ("disk", "i2"),  # row of the disk it is on, ON_ZRAM
        ("prio", "i4"),
        ("pages", "i8"),
        ("inuse", "i8"),  # slots in use (swap_mode 1)
    ]
)
"""include/linux/swap.h struct swap_info_struct."""

ZRAM = np.dtype(
    [
        ("disksize", "i8"),  # pages
        ("mem_limit", "i8"),  # pages, 0: none
        ("stored", "i8"),  # pages stored (pages_stored)
        ("compr_bytes", "i8"),  # compr_data_size
        ("used_q", "i8"),  # 2^20ths of a page that its objects take
        ("pages", "i8"),  # pages of its zspages (mem_used_total)
        ("max_pages", "i8"),
        ("same", "i8"),  # same_pages
        ("huge", "i8"),  # huge_pages
        ("huge_since", "i8"),
        ("failed_writes", "i8"),
    ]
)

ZSWAP = np.dtype(
    [
        ("built_in", "i4"),  # 1: the kernel has it, used or not
        ("enabled", "i4"),
        ("pool", "i8"),  # zswap.ZBUD or ZSMALLOC
        ("max_pool_percent", "i8"),
        ("accept_threshold_percent", "i8"),
        ("same_filled", "i8"),  # 1: same_filled_pages_enabled
        ("stored", "i8"),  # stored_pages
        ("same", "i8"),  # same_filled_pages
        ("used_q", "i8"),  # 2^20ths of a page that its objects take
        ("pages", "i8"),  # pages of the pool (pool_total_size)
        ("full", "i8"),  # zswap_pool_reached_full
        ("pool_limit_hit", "i8"),
        ("written_back", "i8"),
        ("reject_compress_poor", "i8"),
        ("reject_alloc_fail", "i8"),
        ("reject_reclaim_fail", "i8"),
        ("zswpin", "i8"),
        ("zswpout", "i8"),
    ]
)

SWAP_FIELDS = [
    ("swap_info", SWAP_INFO, (NR_SWAPFILES,)),
    ("swap_mode", "i8"),  # 0: no area but row 0, on a disk, and no zswap: counts of the whole host are enough
    ("swap_got", "i8", (NR_SWAPFILES,)),  # result of the last choice of slots, by area
    ("swap_got_stored", "i8"),  # … of them compressed in memory
    ("swap_last", "i8"),  # area that the last batch of slots came from …
    ("swap_batch", "i8"),  # … and what is left of it
    ("swap_turn", "i8"),  # choices made so far: what rounding owes goes to the areas in turn
    ("swap_failures", "i8"),  # pages whose write or read failed
    ("swap_told_ns", "i8"),  # the kernel's log says no more of them until then
    ("swapoff_task", "i8"),  # 1 + task that is in swapoff(): the first to go when memory is out
    ("noise", "i8"),  # bytes of a page that do not compress, where nothing is said
    ("zram", ZRAM),
    ("zswap", ZSWAP),
]
