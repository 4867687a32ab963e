# SPDX-License-Identifier: Apache-2.0
"""Compaction: when it begins and ends, how often it is refused, and what it makes (kernel-laws §1.9)."""

from __future__ import annotations

import pytest

from fleetsim.hardware.cpu import MIGRATE
from fleetsim.linux.compaction import (
    COMPACT_CONTINUE,
    COMPACT_SKIPPED,
    COMPACT_SUCCESS,
    compact_nodes,
    compact_zone,
    compaction_defer_reset,
    compaction_deferred,
    compaction_suitable,
    defer_compaction,
    reset_isolation_suitable,
    try_to_compact_pages,
    wakeup_kcompactd,
)
from fleetsim.linux.free_area import blocks_at_least
from fleetsim.linux.kcompactd import (
    extfrag_for_order,
    fragmentation_score_node,
    fragmentation_score_wmark,
    kcompactd_do_work,
    run_kcompactd,
)
from fleetsim.linux.mm_types import NEVER, WMARK_HIGH, WMARK_LOW, WMARK_MIN
from tests.host.worlds import PAGES, World, world


@pytest.mark.parametrize(("proactiveness", "low", "high"), [(20, 80, 90), (100, 5, 15), (0, 100, 100)])
def test_t_1_11_the_marks_of_proactive_compaction(proactiveness: int, low: int, high: int) -> None:
    assert (fragmentation_score_wmark(proactiveness, True), fragmentation_score_wmark(proactiveness, False)) == (low, high)


def test_t_1_10_each_failure_doubles_how_many_requests_are_refused() -> None:
    zone = world(256).row["zones"][1]
    refused = []
    for _ in range(8):
        defer_compaction(zone, 9)
        count = 0
        while compaction_deferred(zone, 9):
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
    made, spent = compact_zone(w.row, 1, 20, True)
    assert made == 20
    assert int(blocks_at_least(zone, 9)) >= before + 20
    assert w.free() == free
    w.at(5.01)
    moved = w.vm("pgmigrate_success")
    assert moved == pytest.approx(20 * 256, rel=0.2), "half of each block was in use"
    assert w.vm("compact_isolated") == 2 * moved
    assert moved < w.vm("compact_migrate_scanned") <= 20 * 512, "a step for each page in use, and one for each free block"
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
    assert compact_zone(w.row, 1, 20, True)[0] == 0
    assert not try_to_compact_pages(w.row, 9) or blocks_at_least(w.row["zones"][1], 9) > 0


def test_kcompactd_compacts_of_its_own_accord_from_high_down_to_low() -> None:
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


def in_pieces(order: int, blocks: int) -> World:
    """An idle host whose free memory of zone DMA32 lies in `blocks` blocks of one order and no others."""
    w = world(1024)
    zone = w.row["zones"][1]
    pages = blocks << order
    zone["pinned"] += zone["free"] + zone["pcp"].sum() - pages
    w.row["other_kernel"] += zone["free"] + zone["pcp"].sum() - pages
    zone["pcp"] = 0
    zone["free"] = zone["listed"] = pages
    zone["free_area"] = 0
    zone["free_area"][1][order] = blocks
    for z in (0, 2):
        w.row["zones"][z]["managed"] = 0
    return w


def test_whether_to_compact_depends_on_order_mark_and_reason() -> None:
    w = in_pieces(3, 6000)
    zone = w.row["zones"][1]
    assert compaction_suitable(w.row, zone, 3, WMARK_MIN) == COMPACT_SUCCESS, "there are blocks of 8 pages"
    assert compaction_suitable(w.row, zone, 4, WMARK_MIN) == COMPACT_SKIPPED, "index 500: as if memory were short"
    assert compaction_suitable(w.row, zone, 5, WMARK_MIN) == COMPACT_CONTINUE, "enough is free, in pieces too small"
    assert compaction_suitable(w.row, zone, 9, WMARK_MIN) == COMPACT_CONTINUE
    zone["free"] = zone["wmark"][WMARK_LOW] + (2 << 9)
    assert compaction_suitable(w.row, zone, 9, WMARK_MIN) == COMPACT_SKIPPED, "at low and a gap: reclaim first"
    zone["free"] += 1
    assert compaction_suitable(w.row, zone, 9, WMARK_MIN) == COMPACT_CONTINUE
    zone["free"] = zone["wmark"][WMARK_MIN] + 17
    zone["free_area"] = 0
    zone["free_area"][1][0] = zone["free"]
    assert compaction_suitable(w.row, zone, 3, WMARK_MIN) == COMPACT_CONTINUE, "up to order 3 the gap is above min"
    assert compaction_suitable(w.row, zone, 4, WMARK_MIN) == COMPACT_SKIPPED


def test_lack_of_memory_is_no_reason_to_compact() -> None:
    w = in_pieces(8, 60)
    zone = w.row["zones"][1]
    zone["wmark"] = 10
    w.row["sysctl"]["extfrag_threshold"] = 500
    assert compaction_suitable(w.row, zone, 10, WMARK_MIN) == COMPACT_CONTINUE, "index 750"
    w.row["sysctl"]["extfrag_threshold"] = 800
    assert compaction_suitable(w.row, zone, 10, WMARK_MIN) == COMPACT_SKIPPED
    assert PAGES == 256


def test_orders_below_the_one_that_failed_are_not_deferred_and_success_ends_it() -> None:
    zone = world(256).row["zones"][1]
    compaction_defer_reset(zone, 9, True)
    defer_compaction(zone, 5)
    assert not compaction_deferred(zone, 4)
    assert compaction_deferred(zone, 5)
    assert zone["compact_considered"] == 1
    compaction_defer_reset(zone, 6, True)
    assert (zone["compact_defer_shift"], zone["compact_order_failed"]) == (0, 7)


def test_what_a_task_looked_at_in_vain_is_looked_at_again_when_kswapd_has_slept() -> None:
    w = full_of_holes()
    w.row["sysctl"]["compact_unevictable_allowed"] = 0
    lists = w.row["cohorts"]["list"].copy()
    w.row["cohorts"]["list"][w.row["cohorts"]["nr"] > 0] = 4
    before = w.vm("compact_migrate_scanned")
    assert compact_zone(w.row, 1, 1, False)[0] == 0
    seen = w.vm("compact_migrate_scanned")
    assert seen > before
    assert seen > 0
    assert compact_zone(w.row, 1, 1, False) == (0, 0), "every pageblock is skipped"
    assert w.vm("compact_migrate_scanned") == seen
    reset_isolation_suitable(w.row)
    w.row["cohorts"]["list"] = lists
    assert compact_zone(w.row, 1, 1, False)[0] == 1


def test_kcompactd_works_at_once_where_it_makes_sense_and_else_finds_out_when_it_looks_next() -> None:
    w = full_of_holes()
    zone = w.row["zones"][1]
    w.row["now_ns"] = 7_300_000_000
    w.row["sysctl"]["compaction_proactiveness"] = 20
    wakeup_kcompactd(w.row, 0)
    assert w.row["kcompactd_next_ns"] == NEVER, "order 0 needs no compaction"
    wakeup_kcompactd(w.row, 9)
    assert w.row["kcompactd_next_ns"] == 7_500_000_000, "whole blocks are free: nothing to do"
    w.row["now_ns"] = 7_500_000_000
    run_kcompactd(w.row)
    assert (w.vm("compact_daemon_wake"), w.vm("compact_daemon_migrate_scanned")) == (1, 0)
    whole = int(zone["free_area"][:, 9:].sum(axis=0) @ [512, 1024])
    zone["free_area"][:, 9:] = 0
    zone["free"] -= whole
    zone["listed"] -= whole
    zone["pinned"] += whole
    w.row["other_kernel"] += whole
    wakeup_kcompactd(w.row, 9)
    assert w.row["kcompactd_next_ns"] == w.row["now_ns"]
    kcompactd_do_work(w.row)
    assert w.vm("compact_daemon_wake") == 2
    assert w.vm("compact_daemon_migrate_scanned") == w.vm("compact_migrate_scanned") > 256
    assert blocks_at_least(zone, 9) == 1
    assert w.row["kcompactd_max_order"] == 0
    assert zone["free"] > zone["wmark"][WMARK_HIGH]
    w.at(7.6)
