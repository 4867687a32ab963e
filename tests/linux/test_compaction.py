# SPDX-License-Identifier: Apache-2.0
"""Compaction: when it begins and ends, how often it is refused, and what it makes (kernel-laws §1.9)."""

from __future__ import annotations

import pytest

from fleetsim.hardware.cpu import MIGRATE
from fleetsim.linux.compaction import (
    compact_nodes,
    compact_zone,
    compaction_deferred,
    compaction_suitable,
    defer_compaction,
    extfrag_for_order,
    fragmentation_score_node,
    fragmentation_score_wmark,
    run_kcompactd,
    try_to_compact_pages,
)
from fleetsim.linux.free_area import blocks_at_least
from fleetsim.linux.mm_types import NEVER
from tests.host.worlds import PAGES, World, world


@pytest.mark.parametrize(("proactiveness", "low", "high"), [(20, 80, 90), (100, 5, 15), (0, 100, 100)])
def test_t_1_11_the_marks_of_proactive_compaction(proactiveness: int, low: int, high: int) -> None:
    assert (fragmentation_score_wmark(proactiveness, True), fragmentation_score_wmark(proactiveness, False)) == (low, high)


def test_t_1_10_each_failure_doubles_how_many_requests_are_refused() -> None:
    zone = world(256).row["zones"][1]
    refused = []
    for _ in range(8):
        defer_compaction(zone)
        count = 0
        while compaction_deferred(zone):
            count += 1
        refused.append(count)
    assert refused == [1, 3, 7, 15, 31, 63, 63, 63]


def test_the_score_is_the_share_of_free_memory_in_small_blocks() -> None:
    assert extfrag_for_order(0, 0, 9) == 0
    assert extfrag_for_order(5120, 0, 9) == 100
    assert extfrag_for_order(5120, 5, 9) == 50


def full_of_holes() -> World:
    """Two tasks that took memory in turns of 256 KiB, one of which gave its own back: 300 MiB in holes of 64 pages."""
    turns = "mmap_anon A 300 nothp | touch A 300 100"
    w = world(1024, tasks={"a": f"{turns} | free A munmap | sleep 99", "b": f"{turns} | sleep 99"}).at(2.9)
    w.row["sysctl"]["compaction_proactiveness"] = 0
    w.at(5)
    w.row["kcompactd_next_ns"] = NEVER
    return w


def test_compaction_makes_pageblocks_and_loses_no_page() -> None:
    w = full_of_holes()
    zone = w.row["zones"][1]
    before, free = int(blocks_at_least(zone, 9)), w.free()
    made, spent = compact_zone(w.row, 1, 20)
    assert made == 20
    assert int(blocks_at_least(zone, 9)) >= before + 20
    assert w.free() == free
    w.at(5.01)
    moved = w.vm("pgmigrate_success")
    assert moved == pytest.approx(20 * 256, rel=0.2), "half of each block was in use"
    assert w.vm("compact_isolated") == 2 * moved
    assert w.vm("compact_migrate_scanned") >= 20 * 512
    assert spent >= moved * w.row["cost"][MIGRATE]


def test_compact_memory_empties_all_holes() -> None:
    w = full_of_holes()
    compact_nodes(w.row)
    assert int(blocks_at_least(w.row["zones"][1], 9)) * 512 > 0.9 * int(w.row["zones"][1]["free"])
    w.at(5.01)


def test_memory_that_may_not_be_moved_stays() -> None:
    w = full_of_holes()
    w.row["sysctl"]["compact_unevictable_allowed"] = 0
    rows = w.row["cohorts"]
    for i in range(len(rows)):
        if rows[i]["nr"] > 0:
            rows[i]["list"] = 4
    assert compact_zone(w.row, 1, 20)[0] == 0
    assert not try_to_compact_pages(w.row) or blocks_at_least(w.row["zones"][1], 9) > 0


def test_kcompactd_compacts_above_ninety_down_to_eighty() -> None:
    w = full_of_holes()
    w.row["sysctl"]["compaction_proactiveness"] = 60  # 40 and 50
    assert fragmentation_score_node(w.row) > 30
    zone = w.row["zones"][1]
    taken = []
    while fragmentation_score_node(w.row) <= 50:  # somebody takes the whole blocks
        if zone["free_area"][1][10] == 0:
            break
        zone["free_area"][1][10] -= 1
        zone["free"] -= 1024
        zone["listed"] -= 1024
        zone["pinned"] += 1024
        w.row["other_kernel"] += 1024
        taken.append(1)
    assert fragmentation_score_node(w.row) > 50
    w.row["kcompactd_next_ns"] = w.row["now_ns"]
    run_kcompactd(w.row)
    assert extfrag_for_order(int(zone["free"]), int(blocks_at_least(zone, 9)), 9) <= 41
    assert w.row["kcompactd_next_ns"] == w.row["now_ns"] + 500_000_000
    w.at(5.2)


def test_a_host_without_holes_has_no_kcompactd_to_pay_for() -> None:
    w = world(1024, tasks={"a": "mmap_anon A 100 | touch A 100 100 | sleep 9"}).at(3)
    assert w.row["kcompactd_next_ns"] == NEVER


def test_lack_of_memory_is_no_reason_to_compact() -> None:
    w = world(1024)
    zone = w.row["zones"][1]
    assert compaction_suitable(w.row, zone), "plenty is free (and not in need)"
    zone["free"] = zone["wmark"][1] + 100
    assert not compaction_suitable(w.row, zone)
    assert PAGES == 256
