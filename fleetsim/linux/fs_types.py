# SPDX-License-Identifier: Apache-2.0
"""Tables of what several tasks may have in common: files, the tmpfs mounts they are on, and who maps their pages.

Rules as in `mm_types.py`, which takes these tables into the host's record.
Source: include/linux/fs.h, include/linux/shmem_fs.h, mm/rmap.c (Linux 6.1); the representation is fleetsim's own.
"""

from __future__ import annotations

import numpy as np

NR_FILES = 48
NR_MAPPINGS = 96
NR_MOUNTS = 6

MAPPING = np.dtype(
    [
        ("used", "i2"),
        ("area", "i2"),
        ("group", "i2"),  # whose pages
        ("next", "i2"),  # next mapping of the same group
        ("mapped", "i8"),  # of them present in the area's page tables
        ("swapped", "i8"),  # anonymous memory: entries of the area's page tables that name a swap slot
    ]
)
"""One area's share in pages that several areas may map (mm/rmap.c walks the same relation from page to page tables)."""

FILE = np.dtype(
    [
        ("used", "i8"),
        ("pages", "i8"),  # room for that many: the most it will ever have
        ("group", "i8"),
        ("groups", "i8"),
        ("size", "i8"),  # pages it has now (i_size)
        ("mount", "i2"),  # tmpfs mount it is on, −1: a disk
        ("linked", "i2"),  # 1: it has a name, 0: it goes with its last mapping
        ("reserved", "i8"),  # pages of it in Committed_AS: a shared mapping's at once, a tmpfs file's one by one
    ]
)

MOUNT = np.dtype([("used", "i8"), ("max_blocks", "i8"), ("blocks", "i8")])  # tmpfs: its size, and pages in RAM and swap
