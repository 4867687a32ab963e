# SPDX-License-Identifier: Apache-2.0
"""Booting: every page has its place at once, watermarks are the kernel's, and impossible hosts are refused in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.errors import BadInput
from fleetsim.host.state import HOST, HOST_BYTES_MAX
from fleetsim.linux.check import violations
from fleetsim.linux.fs_types import NR_FILES
from fleetsim.linux.mm_types import NR_CGROUPS, NR_TASKS
from fleetsim.workloads.script_types import NR_OPS
from tests.host.worlds import world


@given(st.integers(128, 1 << 20), st.integers(1, 128), st.sampled_from(["never", "madvise", "always"]))
def test_a_host_of_any_size_boots_with_every_page_in_its_place(memory_mib: int, cpus: int, thp: str) -> None:
    w = world(memory_mib, cpus=cpus, thp=thp)
    assert violations(w.row) == []
    m = w.all_meminfo()
    assert 0.6 * memory_mib * 1024 < m["MemTotal"] < memory_mib * 1024
    assert 0 < m["MemAvailable"] <= m["MemTotal"]
    zones = w.row["zones"]
    assert sum(int(zone["managed"]) for zone in zones) == int(w.row["totalram"])
    for zone in zones:
        if zone["managed"]:
            low, mid, high = (int(mark) for mark in zone["wmark"])
            assert 0 <= low <= mid <= high < int(zone["managed"]), "the DMA zone of a huge host keeps next to nothing"
            assert high - mid == mid - low


def test_huge_pages_raise_the_reserve() -> None:
    """recordings: 45 056 kB with THP (khugepaged), 3.9 MB without, on a host of 969 MiB."""
    with_thp, without = (int(world(1024, thp=thp).row["sysctl"]["min_free_kbytes"]) for thp in ("madvise", "never"))
    assert with_thp == 45_056
    assert without == pytest.approx(3_900, rel=0.05)


def test_swap_and_its_device_are_what_was_asked_for() -> None:
    w = world(swap_mib=100)
    assert (w.meminfo("SwapTotal"), w.meminfo("SwapFree")) == (100, 100)
    assert w.row["swap_disk"] == 0, "it shares the data disk unless it has its own"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"memory_mib": 48}, "too few to boot.*128MiB"),
        ({"cpu_profile": "abacus"}, "unknown CPU profile 'abacus'; known are"),
        ({"cgroups": {"a/b": {}}}, "unknown parent 'a'; parents come first"),
        ({"cgroups": {f"c{n}": {} for n in range(NR_CGROUPS)}}, f"more than {NR_CGROUPS - 1} cgroups"),
        ({"cgroups": {"c": {"memory.peak": 1}}}, "unknown cgroup file 'memory.peak'; known are"),
        ({"files": {f"/{n}": 1 for n in range(NR_FILES + 1)}}, f"more than {NR_FILES} files"),
        ({"tasks": {"x/a": "sleep 1"}}, "unknown cgroup 'x'"),
        ({"tasks": {f"t{n}": "sleep 1" for n in range(NR_TASKS + 1)}}, f"more than {NR_TASKS} tasks"),
        ({"tasks": {"a": " | ".join(["sleep 1"] * (NR_OPS + 1))}}, f"more than {NR_OPS} ops"),
        ({"tasks": {"a": "read_file /none 1 1"}}, "unknown file '/none'; the host's files are: none"),
        ({"tasks": {"a": " | ".join(f"mmap_anon A{n} 1" for n in range(129))}}, "more than 128 areas"),
    ],
)
def test_an_impossible_host_is_refused_in_a_sentence(more: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        world(**more)


def test_a_record_fits_its_budget() -> None:
    assert HOST.itemsize <= HOST_BYTES_MAX == 256 * 1024


def test_limits_are_rounded_down_to_pages_and_minus_one_is_max() -> None:
    w = world(cgroups={"box": {"memory.max": -1, "memory.high": 3}})
    w.command(0, "limit", cgroup="box", file="memory.low", bytes=3 * 4096 + 4095)
    w.at(1)
    assert int(w.cg("box")["low"]) == 3
    assert int(w.cg("box")["high"]) == 3 * 256
    assert int(w.cg("box")["max"]) == 1 << 50
