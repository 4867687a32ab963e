# SPDX-License-Identifier: Apache-2.0
"""What a PostgreSQL server is told and what it knows of itself: its slots, and the table of its processes.

A row of `BACKEND` is a process that a postmaster forked: the checkpointer, or a backend, which serves one connection.
"""

from __future__ import annotations

import numpy as np

from fleetsim.linux.syscalls import CAPACITY

BLOCK = 2  # pages of 4 KiB in one of its blocks (BLCKSZ 8192)
NR_BACKENDS = CAPACITY.backends
CHECKPOINTER, CLIENT = 1, 2

BACKEND = np.dtype(
    [
        ("owner", "i1"),  # row of its postmaster's work and one more; 0: the row is free
        ("role", "i1"),  # CHECKPOINTER or CLIENT
        ("th", "i2"),  # its thread
        ("shared", "i2"),  # areas: its mapping of the shared buffers, −1: they are huge pages
        ("private", "i2"),  # … its own memory
        ("sort", "i2"),  # … a sort's, −1: none
    ]
)

ARGUMENTS = (
    "data",
    "wal",
    "buffer_pages",
    "hot_permille",
    "hot_looks_permille",
    "looks",
    "backend_pages",
    "idle_backends",
    "work_pages",
    "sort_permille",
    "write_permille",
    "changes",
    "wal_bytes",
    "wal_pages",
    "cpu_ns",
    "start_ns",
    "huge",
    "protect",
    "checkpoint_ns",
)
(
    DATA,  # file: the tables and indexes
    WAL,  # file: the write-ahead log, whose segments are used again
    BUFFER_PAGES,  # shared_buffers
    HOT_PERMILLE,  # part of the data that is looked at more often …
    HOT_LOOKS_PERMILLE,  # … and the part of the looks that go there
    LOOKS,  # blocks that a query looks at, besides those that always are in the shared buffers
    BACKEND_PAGES,  # private memory of a backend
    IDLE_BACKENDS,  # connections that the clients' pools keep open
    WORK_PAGES,  # what a sort takes, at most work_mem
    SORT_PERMILLE,  # queries that sort
    WRITE_PERMILLE,  # … that change a row and commit
    CHANGES,  # blocks that one of them changes, as many of them hot as of the looks
    WAL_BYTES,  # log of one of them
    WAL_PAGES,  # the log is written from the start again after that much (min_wal_size)
    CPU_NS,  # processor time of a query
    START_NS,
    HUGE,  # huge_pages: HUGE_OFF, HUGE_TRY, HUGE_ON
    PROTECT,  # 1: oom_score_adj of the postmaster is −1000, its children's what it was
    CHECKPOINT_NS,  # checkpoint_timeout
    STAGE,  # CLEANING, MAPPING or SERVING
    PHASE,  # of the batch under way
    SHARED,  # area of the shared buffers, one more than its row, 0: none
    IS_HUGE,  # 1: they are huge pages
    ADJ,  # oom_score_adj of the children
    HOT_PAGES,  # of the data file
    FULL_AFTER,  # looks of queries until the shared buffers are full
    LOOKED,  # queries that filled the shared buffers so far, at most FULL_AFTER
    FILLED,  # pages of the shared buffers that are filled
    CARRY_HOT,  # parts of a miss, of a write, of a sort, of a page of log that are still to come
    CARRY_COLD,
    CARRY_WRITES,
    CARRY_SORTS,
    CARRY_WAL,
    CARRY_HOT_CHANGES,
    CARRY_HOT_WHOLE,
    CARRY_COLD_WHOLE,
    CARRY_DIRTY,
    CARRY_PUSHED,
    LEFT_HOT,  # pages that the batch under way still reads
    LEFT_COLD,
    SORTS,  # sorts of the batch …
    WRITES,  # commits of the batch
    WAL_LEFT,  # … pages of log that it still writes
    WAL_AT,
    SYNC,  # stage of the fsync of the log
    TURN,  # whose turn it is among the backends
    DIRTY,  # blocks of the shared buffers that differ from the file
    EVICTED,  # … that had to be written before their buffer could be used
    TO_WRITE,  # … that the checkpoint under way still writes
    CHECKPOINT_AT,  # when it began, 0: none is under way
    WHOLE_HOT,  # blocks that were changed, and so logged as a whole, since the last checkpoint began
    WHOLE_COLD,
    SINCE,  # queries since then, at most FULL_AFTER
    CHECKPOINT_SYNC,  # stage of its fsync
    LAST_NS,  # when the last batch began
) = range(55)
NR_USED = LAST_NS + 1
