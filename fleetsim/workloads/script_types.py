# SPDX-License-Identifier: Apache-2.0
"""The tables of the `script` workload: its operations by number, one row for each op of a program, one for each thread's progress."""

from __future__ import annotations

import numpy as np

from fleetsim.linux.syscalls import CAPACITY

NR_OPS = CAPACITY.ops
NR_HANDLES = CAPACITY.handles

(
    OP_NOTHING,
    OP_MMAP_ANON,
    OP_TOUCH,
    OP_ACCESS,
    OP_READ_FILE,
    OP_MMAP_FILE,
    OP_MUNMAP,
    OP_DONTNEED,
    OP_FREE_PART,
    OP_MADVISE,
    OP_MLOCK,
    OP_SLEEP,
    OP_UNTIL,
    OP_EXIT,
    OP_SHM,
    OP_WRITE_FILE,
    OP_UNLINK,
    OP_PROBE,
    OP_MALLOC,
    OP_MFREE,
    OP_MTRIM,
    OP_ALLOCATOR,
    OP_FORK_HOLD,
    OP_HUGETLB,
    OP_STAT_MISSING,
    OP_STAT_FILES,
    OP_MKFILES,
    OP_PIPES,
    OP_SYSW,
    OP_SWAPON,
    OP_SWAPOFF,
    OP_PIN,
    OP_MEMPOLICY,
) = range(33)

PACED = (OP_TOUCH, OP_ACCESS, OP_READ_FILE, OP_WRITE_FILE, OP_STAT_MISSING, OP_STAT_FILES, OP_MKFILES, OP_PIPES)
ON_A_HEAP = (OP_MALLOC, OP_MFREE, OP_MTRIM, OP_ALLOCATOR)

OP = np.dtype(
    [
        ("used", "i1"),
        ("code", "i1"),
        (
            "pattern",
            "i1",
        ),  # ORDERED or UNIFORM; free: which part; madvise: the advice; mlock: 1 on fault; mempolicy: MPOL_…
        ("accounted", "i1"),  # mmap_anon: 0 for MAP_NORESERVE; free: 1 for munmap
        ("thp", "i1"),  # mmap_anon: 1 MADV_HUGEPAGE, −1 MADV_NOHUGEPAGE; hugetlb: 1 for pages of 1 GiB
        ("write", "i1"),  # access: 1 for rewrite, 0 for read; write_file: 1 keeps what the file holds (over)
        ("fsync", "i1"),  # write_file: 1 ends with an fsync
        ("handle", "i2"),  # which of the task's areas; stat_*, mkfiles: which directory's names; sysw: the knob; swapon: the area
        ("file", "i2"),  # mmap_anon: bytes of each page that do not compress, −1: the host's default
        ("pages", "i8"),  # how much; 0 is endless; pin: the CPU; mempolicy: the nodes, a bit each
        ("ns_per_quantum", "i8"),  # 0: unpaced
        ("time_ns", "i8"),  # duration (sleep, for=), instant (until), or exit code
        ("hot_pages", "i4"),  # write_file: back to the begin after that many (wrap); overcommit_probe: pages of one try
        ("hot_q", "i8"),  # malloc: the sizes asked for; mfree: a fraction
        # allocator: pattern says which; time_ns, hot_q and accounted are its settings (Allocator.as_numbers)
    ]
)

PROGRAM = np.dtype(
    [
        ("first", "i2"),  # row of its first op
        ("ops", "i2"),
        ("op", "i2"),  # index of the op under way
        ("fresh_op", "i1"),  # 1: the op has not begun yet
        ("done", "i8"),  # pages done in this op
        ("at", "i8"),  # cursor, pages
        ("fresh", "i4"),  # read: pages of the current slice that came from disk; access: 1 if nothing of the area was touched yet
        ("stage", "i8"),  # write_file: 0 to be opened, 1 open, then stages of fsync
        ("quantum", "i4"),  # pages left of the quantum under way
        ("planned", "i4"),  # pages of the whole of it
        ("deadline_ns", "i8"),
        ("end_ns", "i8"),  # for=
        ("progress", "i8"),  # pages done by all ops
        ("progress_bytes", "i8"),  # … and what is left over of a page, by ops that count bytes
        ("counted", "i4"),  # … of them not pages but files
        ("names", "i4"),  # names made or asked for so far: the next op goes on with new ones
        ("due", "i8"),  # pages that the paces of earlier ops asked for
        ("begun_ns", "i8"),  # when the op under way began
        ("work", "i2"),  # 0: a script; else one more than the row of the workload that the thread runs (works.py)
        ("once", "i1"),  # 1: an extra thread: when its ops are done the task goes on; CHILD: it sleeps through its op and exits
    ]
)

SCRIPT_FIELDS = [
    ("tick_ns", "i8"),
    ("ops", OP, (NR_OPS,)),
    ("handles", "i2", (NR_HANDLES,)),  # area row of each handle, −1
]
