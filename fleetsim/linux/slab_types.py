# SPDX-License-Identifier: Apache-2.0
"""Tables of what the kernel keeps for itself: slab caches, unused names and inodes, the journal, pools of huge pages.

Rules as in `mm_types.py`, which takes these tables into the host's record.
Source: mm/slab.h, include/linux/dcache.h, include/linux/jbd2.h, include/linux/hugetlb.h (Linux 6.1); the representation is fleetsim's own.
"""

from __future__ import annotations

import numpy as np

from fleetsim.linux.capacity_classes import CAPACITY
from fleetsim.linux.slab_caches import NR_CACHES

NR_DENTRY_RUNS = CAPACITY.dentry_runs  # more than cgroups
NR_NAME_TREES = CAPACITY.name_trees
NR_HSTATES = 2  # sizes of huge pages: 2 MiB, 1 GiB

SLAB = np.dtype([("objects", "i4"), ("slabs", "i4"), ("loose", "i4")])  # one cache: in use; slabs; holes between survivors

DENTRY_RUN = np.dtype([("names", "i4", (3,)), ("referenced", "i4"), ("cg", "i4")])  # see dcache.py; oldest run first

NAME_TREE = np.dtype(
    [
        ("kind", "i1"),  # dcache.NEGATIVE, PLAIN or OPENED; −1: free row
        ("on_disk", "i1"),  # 0: tmpfs or ramfs, whose names are pinned as long as the file exists
        ("file", "i2"),  # row of the file that stands for its directory's and inodes' blocks, −1
        ("exist", "i4"),  # files that exist
        ("wanted", "i4"),  # names that all scripts together will make
        ("lo", "i4"),  # cached are the names lo..hi−1 …
        ("hi", "i4"),
        ("new", "i4"),  # … and 0..new−1
    ]
)

EXT4_JOURNAL = np.dtype(
    [
        ("blocks", "i8"),  # metadata blocks of the running transaction
        ("commit_ns", "i8"),  # when it commits
        ("dirty", "i8"),  # committed blocks not yet written to their own place
        ("write_ns", "i8"),  # when they are
        ("next_ns", "i8"),  # the earlier of the two
    ]
)

HSTATE = np.dtype([(name, "i8") for name in ("nr", "free", "resv", "surplus", "overcommit")])  # one pool, in huge pages

KERNEL_OWN_FIELDS = [
    ("randomize_va_space", "i8"),  # kernel.randomize_va_space
    ("slab", SLAB, (NR_CACHES,)),
    ("dentries", DENTRY_RUN, (NR_DENTRY_RUNS,)),
    ("nr_dentries", "i8"),
    ("name_trees", NAME_TREE, (NR_NAME_TREES,)),
    ("xa_seen", "i8"),  # pages allocated and freed when the page cache's slabs were last brought up to date
    ("workingset_nodes", "i8"),
    ("buffer_heads", "i8"),  # of the file system's own blocks cached since boot
    ("ext4_journal", EXT4_JOURNAL),
    ("hstates", HSTATE, (NR_HSTATES,)),
    ("user_min_free_kbytes", "i8"),  # vm.min_free_kbytes as somebody wrote it, −1: nobody did
]
