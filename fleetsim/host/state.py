# SPDX-License-Identifier: Apache-2.0
"""One host's record: the kernel's tables and the workloads' own, as one NumPy structured dtype.

A shard of a fleet is an array of such records: a snapshot is a copy, a checkpoint is a file.
"""

from __future__ import annotations

import numpy as np

from fleetsim.allocators.tables import ALLOCATOR_FIELDS
from fleetsim.host.kubelet_types import KUBELET_FIELDS
from fleetsim.linux.capacity_classes import CAPACITY
from fleetsim.linux.mm_types import KERNEL_FIELDS, NR_THREADS
from fleetsim.workloads.script_types import PROGRAM, SCRIPT_FIELDS
from fleetsim.workloads.works import WORK_FIELDS

TURN = np.dtype([("cpu", "i2"), ("preempted_ns", "i8"), ("utime_ns", "i8"), ("stime_ns", "i8")])
"""What `run_thread` knows in the middle of a plug-in's turn: its CPU, until when somebody else had it, the task's times before."""

HOST = np.dtype(
    [
        *KERNEL_FIELDS,
        ("programs", PROGRAM, (NR_THREADS,)),  # one per thread
        *SCRIPT_FIELDS,
        *WORK_FIELDS,
        *ALLOCATOR_FIELDS,
        *KUBELET_FIELDS,
        ("turn", TURN),
        ("slow_next_ns", "i8"),  # when progress is next compared with pace (impact.py)
        ("slow_seen", "i8", (NR_THREADS, 2)),  # progress and due at the last comparison
        ("full_seen_ns", "i8"),  # PSI memory full at the last comparison
        ("stalled_open", "i1"),  # 1: an impact "unresponsive" is open
        ("slow_open", "i1", (NR_THREADS,)),  # 1: an impact "slow" is open
    ]
)

HOST_BYTES_MAX = CAPACITY.bytes_max
assert HOST.itemsize <= HOST_BYTES_MAX, f"a host's record is {HOST.itemsize} bytes, more than the {HOST_BYTES_MAX} of the budget"
