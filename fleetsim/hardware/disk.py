# SPDX-License-Identifier: Apache-2.0
"""A block device: a fixed latency per request and a bandwidth shared by everybody who queues.

A request waits until the device has moved what was asked of it before, then for its own pages, then for the latency.
Leaves out: seek order, merging, separate read and write queues.
"""

from __future__ import annotations

from fleetsim.law import law


@law
def submit(disk, now_ns, pages):
    """Queue a transfer and say when it is done.

        begin = max(now, free_at) ;  free_at = begin + pages · ns_per_page ;  done = free_at + latency

    disk      record  a row of `DISK`
    now_ns    int64   when it is submitted
    pages     int64   ≥ 0
    returns   int64   ns, when the data is there

    Source: fleetsim's own device model; the latencies are data (kernel-laws §10.5).
    Leaves out: see the module.
    """
    begin = max(now_ns, disk["free_at_ns"])
    disk["free_at_ns"] = begin + pages * disk["ns_per_page"]
    return disk["free_at_ns"] + disk["latency_ns"]
