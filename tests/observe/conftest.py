# SPDX-License-Identifier: Apache-2.0
"""What a host would show, as literal numbers: the tests of `observe` need no running host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fleetsim.linux.vmstat_names import MEMINFO_FIELDS, VMSTAT_FIELDS
from fleetsim.observe.node_exporter import READING

BOOT_UNIX_S = 1_700_000_000

MakeReading = Callable[..., np.void]


@pytest.fixture
def make_reading() -> MakeReading:
    """`make_reading(now_s=30, memory_full_s=2, …)`: a READING in which every number is another one; stalls come with direct reclaim."""

    def make(
        *, now_s: float = 0, memory_full_s: float = 0, io_full_s: float = 0, allocstall: int | None = None, boot_unix_s: int = BOOT_UNIX_S
    ) -> np.void:
        reading = np.zeros(1, READING)[0]
        reading["meminfo"] = 1_000_000 + 7 * np.arange(len(MEMINFO_FIELDS))
        reading["vmstat"] = 5_000_000 + 11 * np.arange(len(VMSTAT_FIELDS))
        reading["psi_total_us"] = [[222_084_213, 0], [13_116_640, 0], [987_654_321, 0]]
        reading["psi_total_us"][:, 1] = [0, round(io_full_s * 1e6), round(memory_full_s * 1e6)]
        for zone in ("dma", "dma32", "normal", "movable", "device"):
            reading["vmstat"][VMSTAT_FIELDS.index(f"allocstall_{zone}")] = 0
        direct_reclaims = round(10 * (memory_full_s + io_full_s)) if allocstall is None else allocstall
        reading["vmstat"][VMSTAT_FIELDS.index("allocstall_normal")] = direct_reclaims
        reading["loadavg"] = [3051, 5754, 4464]
        reading["boot_unix_s"] = boot_unix_s
        reading["now_ns"] = reading["psi_at_ns"] = round(now_s * 1e9)
        return reading

    return make
