# SPDX-License-Identifier: Apache-2.0
"""meminfo and vmstat of a host under pressure: the identities that hold on every Linux host (kernel-laws §5)."""

from __future__ import annotations

import pytest

from fleetsim.linux.vmstat import MEMINFO_FIELDS, VMSTAT_FIELDS
from tests.host.worlds import FAST_DISK, World, world


def pressed(second: float) -> World:
    return world(
        swap_mib=64,
        swap_disk=FAST_DISK,
        cgroups={"box": {"memory.max": 60}},
        files={"/f": 120},
        tasks={
            "reader": "read_file /f 0 30",
            "box/a": "mmap_anon A 80 | touch A 80 10 | sleep 100",
            "hog": "sleep 2 | mmap_anon B 120 | touch B 120 20 | rewrite B 0 20 random",
        },
    ).at(second)


@pytest.mark.parametrize("second", [0.5, 3, 6, 9, 14])
def test_meminfos_lines_agree_with_each_other(second: float) -> None:
    m = pressed(second).all_meminfo()
    assert m["Active"] == m["Active(anon)"] + m["Active(file)"]
    assert m["Inactive"] == m["Inactive(anon)"] + m["Inactive(file)"]
    assert m["Slab"] == m["SReclaimable"] + m["SUnreclaim"]
    assert m["KReclaimable"] == m["SReclaimable"]
    assert m["CommitLimit"] == m["MemTotal"] // 4 * 50 // 100 * 4 + m["SwapTotal"]
    assert m["Cached"] - 6000 == m["Active(file)"] + m["Inactive(file)"], "1500 pages are the root file system's own"
    assert m["MemFree"] + m["Buffers"] + m["Cached"] + m["SwapCached"] + m["AnonPages"] + m["Slab"] < m["MemTotal"]
    assert 0 <= m["MemAvailable"] <= m["MemFree"] + m["Active(file)"] + m["Inactive(file)"] + m["KReclaimable"]
    assert all(value >= 0 for value in m.values())
    assert tuple(m) == MEMINFO_FIELDS


@pytest.mark.parametrize("second", [0.5, 6, 14])
def test_vmstat_says_the_same_as_meminfo_in_pages(second: float) -> None:
    w = pressed(second)
    m, v = w.all_meminfo(), w.all_vmstat()
    for field, key in (
        ("MemFree", "nr_free_pages"),
        ("Inactive(anon)", "nr_inactive_anon"),
        ("Active(anon)", "nr_active_anon"),
        ("Inactive(file)", "nr_inactive_file"),
        ("Active(file)", "nr_active_file"),
        ("AnonPages", "nr_anon_pages"),
        ("Mapped", "nr_mapped"),
        ("PageTables", "nr_page_table_pages"),
        ("SReclaimable", "nr_slab_reclaimable"),
        ("SUnreclaim", "nr_slab_unreclaimable"),
        ("SwapCached", "nr_swapcached"),
    ):
        assert m[field] == 4 * v[key], field
    assert m["KernelStack"] == v["nr_kernel_stack"], "kB in both"
    assert v["nr_file_pages"] * 4 == m["Cached"] + m["SwapCached"] + m["Buffers"]
    assert tuple(v) == VMSTAT_FIELDS


def test_the_counters_of_reclaim_add_up() -> None:
    v = pressed(14).all_vmstat()
    assert v["pgscan_anon"] + v["pgscan_file"] >= v["pgscan_kswapd"] + v["pgscan_direct"] > 0
    assert v["pgsteal_anon"] + v["pgsteal_file"] >= v["pgsteal_kswapd"] + v["pgsteal_direct"] > 0
    assert v["pgsteal_anon"] <= v["pswpout"]
    assert v["workingset_activate_file"] <= v["workingset_refault_file"]
    assert v["workingset_restore_file"] <= v["workingset_activate_file"]
    assert v["pgmajfault"] <= v["pgfault"]
    assert v["pswpin"] * 4 <= v["pgpgin"]
    allocated = v["pgalloc_dma"] + v["pgalloc_dma32"] + v["pgalloc_normal"]
    assert allocated >= v["pgfree"]


def test_page_cache_lowers_free_memory_and_leaves_available_memory_alone() -> None:
    """The mistake that the first pair of scenarios is about."""
    w = world(1024, files={"/f": 700}, tasks={"r": "sleep 1 | read_file /f 700 400 | sleep 100"}).at(0.5)
    before = w.all_meminfo()
    after = w.at(4).all_meminfo()
    assert before["MemFree"] - after["MemFree"] == pytest.approx(700 * 1024, rel=0.01)
    assert abs(before["MemAvailable"] - after["MemAvailable"]) < 0.05 * before["MemAvailable"]


def test_reading_the_lines_changes_nothing() -> None:
    w = pressed(6)
    record = w.row.tobytes()
    w.all_meminfo(), w.all_vmstat()
    assert w.row.tobytes() == record
