# SPDX-License-Identifier: Apache-2.0
"""vm.zone_reclaim_mode: page cache of a node is dropped before the other node is used. Outside truth: h55 (`tests/ground_truth/`)."""

from __future__ import annotations

import pytest

from fleetsim.linux.mmzone import NUMA_FOREIGN
from fleetsim.linux.node_reclaim import node_pagecache_reclaimable, node_reclaim
from fleetsim.linux.node_stat import node_counts
from tests.host.worlds import PAGES, World
from tests.linux.test_nodes import two_nodes


def reader(mode: int) -> World:
    return two_nodes(files={"/f": 800}, sysctl={"zone_reclaim_mode": mode}, tasks={"r": "pin 0 | read_file /f 800 200 | sleep 99"}).at(6)


def test_with_it_a_host_reads_its_files_again_although_half_of_its_memory_is_free() -> None:
    off, on = reader(0), reader(1)
    assert node_counts(off.row, 1)["inactive_file"] > 300 * PAGES
    assert node_counts(on.row, 1)["inactive_file"] < 60 * PAGES
    assert node_counts(on.row, 1)["free"] > 350 * PAGES
    assert on.vm("pgscan_direct") > 200 * PAGES, "it is the reader that reclaims"
    assert (on.vm("allocstall_movable"), on.vm("pgscan_kswapd")) == (0, 0), "without being stalled, and without kswapd"
    assert int(on.row["numa"][0][NUMA_FOREIGN]) < int(off.row["numa"][0][NUMA_FOREIGN]) // 5


def test_what_is_mapped_or_dirty_is_left_alone_unless_the_mode_says_otherwise() -> None:
    tasks = {
        "m": "pin 0 | mmap_file M /mapped shared | read M 60 0 seq | sleep 99",
        "w": "pin 0 | write_file /out 40 0 | sleep 99",
        "r": "pin 0 | read_file /plain 50 0 | sleep 99",
    }
    w = two_nodes(files={"/mapped": 60, "/plain": 50}, sysctl={"dirty_ratio": 90, "dirty_background_ratio": 80}, tasks=tasks).at(2)
    found = []
    for mode in (1, 2, 4, 7):
        w.row["sysctl"]["zone_reclaim_mode"] = mode
        found.append(int(node_pagecache_reclaimable(w.row, 0)) / PAGES)
    assert found == pytest.approx([50, 90, 110, 150], abs=4)
    assert int(node_pagecache_reclaimable(w.row, 1)) == 0


def test_too_little_cache_is_not_worth_it() -> None:
    w = reader(1)
    assert int(node_reclaim(w.row, 0)) >= 32
    w.row["sysctl"]["min_unmapped_ratio"] = 100
    assert int(node_reclaim(w.row, 0)) == 0
