# SPDX-License-Identifier: Apache-2.0
"""Tables of what several tasks may have in common: files, what they are on (tmpfs mounts, disks, a journal), and who maps their pages.

Rules as in `mm_types.py`, which takes these tables into the host's record.
Source: include/linux/fs.h, include/linux/shmem_fs.h, mm/rmap.c (Linux 6.1); the representation is fleetsim's own.
"""

from __future__ import annotations

import numpy as np

NR_FILES = 48
NR_MAPPINGS = 96
NR_MOUNTS = 12
NR_PAGEVECS = 64

MAPPING = np.dtype(
    [
        ("used", "i2"),
        ("area", "i2"),
        ("group", "i2"),  # whose pages
        ("next", "i2"),  # next mapping of the same group
        ("mmap_miss", "i2"),  # faults that found nothing in the cache, less those that did
        ("mapped", "i8"),  # of them present in the area's page tables
        ("swapped", "i8"),  # anonymous memory: entries of the area's page tables that name a swap slot
    ]
)
"""One area's share in pages that several areas may map (mm/rmap.c walks the same relation from page to page tables)."""

FILE = np.dtype(
    [
        ("used", "i1"),
        ("linked", "i1"),  # 1: it has a name, 0: it goes with its last mapping
        ("more_io", "i1"),  # a file on disk, as all that is not said: on b_more_io, so that the next pass goes on with it whatever its age
        ("queued", "i1"),  # on b_io: the writeback pass under way writes it
        ("mount", "i2"),  # tmpfs mount it is on, −1: a disk
        ("group", "i2"),  # −1: nothing cached and nobody opened it yet
        ("groups", "i2"),
        ("cg", "i2"),  # whose dirty page it was first: the cgroup that its writeback is for
        ("at", "i2"),  # cohort of the group where writeback goes on (writeback_index)
        ("pages", "i8"),  # room for that many: the most it will ever have (on disk: the most a script makes of it, it is cut for that)
        ("size", "i8"),  # pages it has now (i_size)
        ("reserved", "i8"),  # tmpfs: pages in Committed_AS: a shared mapping's at once, a tmpfs file's one by one
        ("blocks", "i4"),  # pages that have a place on disk (delayed allocation gives them one when they are written out)
        ("dirty", "i4"),
        ("writeback", "i4"),
        ("tid", "i4"),  # last transaction that changed its inode
        ("dirtied_ns", "i8"),  # dirtied_when
    ]
)

MOUNT = np.dtype([("used", "i8"), ("max_blocks", "i8"), ("blocks", "i8")])  # tmpfs: its size, and pages in RAM and swap

PAGEVEC = np.dtype(
    [
        ("cohort", "i2"),
        ("file", "i2"),
        ("pages", "i4"),
        ("fresh", "i1"),  # 1: blocks were allocated for them: the journal has to take note before they count as written
        ("done_ns", "i8"),  # when the device is through
    ]
)
"""File pages under writeback, in the order of the device's queue."""

BDI_WRITEBACK = np.dtype(
    [
        ("why", "i8"),  # WB_…: what the flusher is at, 0: asleep
        ("next_ns", "i8"),  # when its next chunk, its next periodic look or the next completion is due
        ("wake_ns", "i8"),  # … of the flusher alone
        ("left", "i8"),  # pages still to be written in this work
        ("cursor", "i8"),  # file whose turn it is
        ("target", "i8"),  # cgroup whose background limit is exceeded; 0: the host's
        ("old_flush_ns", "i8"),  # last periodic look
        ("dirtied", "i8"),  # WB_DIRTIED, pages so far
        ("written", "i8"),  # WB_WRITTEN
        ("write_bandwidth", "i8"),  # pages/s, as all the following
        ("avg_write_bandwidth", "i8"),
        ("dirty_ratelimit", "i8"),
        ("balanced_dirty_ratelimit", "i8"),
        ("stamp_ns", "i8"),  # when they were last estimated …
        ("dirtied_stamp", "i8"),
        ("written_stamp", "i8"),
        ("dirty_limit", "i8"),  # the limit, falling slowly (struct wb_domain)
    ]
)
"""include/linux/backing-dev-defs.h struct bdi_writeback: one for the data disk, with its flusher and its estimates."""

JOURNAL = np.dtype(
    [
        ("tid", "i8"),  # of the running transaction
        ("begun_ns", "i8"),  # when it began, −1: nothing was changed since the last commit
        ("commit_ns", "i8"),  # when the commit under way is on disk, 0: none is
        ("next_ns", "i8"),  # when kjournald2 has something to do
    ]
)
"""include/linux/jbd2.h struct journal_s of the data file system."""

DISK = np.dtype(
    [
        ("latency_ns", "i8"),
        ("ns_per_page", "i8"),
        ("ns_per_request", "i8"),  # 0: no limit of requests per second
        ("slow_percent", "i8"),  # 100: as it should be
        ("failing", "i8"),  # 1: every transfer ends with an error
        ("errors", "i8"),
        ("free_at_ns", "i8"),  # when all that is queued has been moved
        ("requests", "i8", (2,)),  # read, written (/proc/diskstats), as the next two
        ("pages", "i8", (2,)),
        ("wait_ns", "i8", (2,)),
        ("busy_ns", "i8"),
        ("busy_until_ns", "i8"),
    ]
)

FS_FIELDS = [
    ("files", FILE, (NR_FILES,)),
    ("mappings", MAPPING, (NR_MAPPINGS,)),
    ("mounts", MOUNT, (NR_MOUNTS,)),
    # file pages that are dirty or on their way to the data disk
    ("bdi", BDI_WRITEBACK),
    ("pagevecs", PAGEVEC, (NR_PAGEVECS,)),
    ("pv_head", "i8"),
    ("pv_count", "i8"),
    ("nr_dirty", "i8"),  # NR_FILE_DIRTY
    ("nr_writeback", "i8"),  # … of file pages
    ("nr_buffer_heads", "i8"),
    ("bh_pages", "i8"),  # slab pages that hold them
    ("journal", JOURNAL),
]
"""What of it all is in a host's record."""
