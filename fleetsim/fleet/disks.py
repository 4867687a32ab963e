# SPDX-License-Identifier: Apache-2.0
"""The kinds of disk a scenario can name, each a latency of one request and a bandwidth shared by everybody.

Source of the latencies: kernel-laws §10.5 (user-reported figures at queue depth 1; the network one is an assumption
inside its 0.5–2 ms). Source of the bandwidths: nvme: a mid-range PCIe 3 drive's datasheet; ssd: the SATA 6 Gb/s link less
its encoding; hdd: a 7200 rpm drive's sustained rate; network: the baseline of a general-purpose cloud volume (125 MiB/s).
Leaves out: queue depth (a disk here serves one request after the other), write caches, burst credits.
"""

from __future__ import annotations

from fleetsim.host.spec import DiskSpec

DISKS: dict[str, DiskSpec] = {
    "nvme": DiskSpec(bytes_per_s=2_000_000_000, latency_us=80.0),
    "ssd": DiskSpec(bytes_per_s=540_000_000, latency_us=152.0),
    "hdd": DiskSpec(bytes_per_s=180_000_000, latency_us=7500.0),
    "network": DiskSpec(bytes_per_s=125 << 20, latency_us=1000.0),
}
DEFAULT_DISK = "nvme"
