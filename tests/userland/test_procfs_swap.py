# SPDX-License-Identifier: Apache-2.0
"""/proc/swaps, zram's mm_stat and zswap's lines, byte for byte as the recordings' kernel wrote them."""

from __future__ import annotations

from fleetsim.host.spec import SwapSpec, ZswapSpec
from fleetsim.userland import sysfs
from fleetsim.userland.procfs import tree
from fleetsim.userland.procfs_swap import io_stat, mm_stat, swaps
from tests.host.worlds import FAST_DISK, MIB, world

TWO_AREAS = """\
Filename				Type		Size		Used		Priority
/dev/vdb                                partition	98300		0		10
/dev/vdd                                partition	409596		0		5
"""
"""start.json of recording h31."""


def test_swaps_of_two_areas() -> None:
    areas = (SwapSpec("/dev/vdb", 96 * MIB, 10, disk=FAST_DISK), SwapSpec("/dev/vdd", 400 * MIB, 5, disk=FAST_DISK))
    w = world(swaps=areas)
    assert swaps(w.row, w.shard.names_of(0).swaps) == TWO_AREAS
    assert tree(w.row, w.shard.names_of(0).swaps)["swaps"] == TWO_AREAS


def test_large_areas_and_files_take_other_tabs() -> None:
    """mm/swapfile.c swap_show: one tab less from 10,000,000 kB on; a file has a tab of its own."""
    w = world(swaps=(SwapSpec("/swap/file", (10 << 30) + 4096, kind="file"),))
    assert swaps(w.row, w.shard.names_of(0).swaps).splitlines()[1] == "/swap/file                              file\t\t10485760\t0\t\t-2"


def test_an_area_that_is_not_used_has_no_line() -> None:
    w = world(swaps=(SwapSpec("/dev/vdb", 96 * MIB, on=False),))
    assert swaps(w.row, w.shard.names_of(0).swaps).count("\n") == 1
    assert swaps(world().row).count("\n") == 1


def test_the_one_area_of_an_ordinary_host() -> None:
    w = world(swap_mib=64, swap_disk=FAST_DISK, tasks={"a": "mmap_anon A 220 | touch A 220 200 | sleep 100"}).at(4)
    line = swaps(w.row, w.shard.names_of(0).swaps).splitlines()[1].split()
    assert line[:3] == ["/dev/vdb", "partition", "65536"]
    assert int(line[3]) == 65536 - w.meminfo("SwapFree") * 1024 > 0


def test_a_fresh_zram_holds_the_header_of_mkswap() -> None:
    """Recording h33 at its start: one page of 4,096 bytes in 52, no failures."""
    w = world(swaps=(SwapSpec("/dev/zram0", 256 * MIB, 100, "zram"),))
    assert mm_stat(w.row["zram"]) == "    4096       52     4096        0     4096        0        0        0        0\n"
    assert io_stat(w.row["zram"]) == "       0        0        0        0\n"
    assert sysfs.tree(w.row)["block/zram0/disksize"] == f"{256 * MIB}\n"
    assert swaps(w.row, w.shard.names_of(0).swaps).splitlines()[1].split() == ["/dev/zram0", "partition", "262140", "0", "100"]


def test_zswap_has_its_lines_where_it_is_built_in_and_only_there() -> None:
    """Recording h35: after SwapFree and after cow_ksm."""
    w = world(swap_mib=100, swap_disk=FAST_DISK, zswap=ZswapSpec(enabled=False))
    files = tree(w.row)
    assert "SwapFree:         102400 kB\nZswap:                 0 kB\nZswapped:              0 kB\nDirty:" in files["meminfo"]
    assert "cow_ksm 0\nzswpin 0\nzswpout 0\ndirect_map_level2_splits" in files["vmstat"]
    assert sysfs.tree(w.row)["kernel/debug/zswap/pool_total_size"] == "0\n"
    plain = tree(world(swap_mib=100, swap_disk=FAST_DISK).row)
    assert "Zswap" not in plain["meminfo"]
    assert "zswp" not in plain["vmstat"]
