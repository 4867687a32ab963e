# SPDX-License-Identifier: Apache-2.0
"""The buddy allocator's free lists by order and type (kernel-laws §1.6)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.free_area import blocks_at_least, put_merged, steal_suitable_fallback, take_blocks
from fleetsim.linux.mmzone import MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE, NR_ORDERS
from tests.host.worlds import world


def zone_with(**lists: dict[int, int]) -> Any:
    """unmovable={9: 2} …: free blocks by order."""
    zone = world(256).row["zones"][1]
    zone["free_area"] = 0
    for mt, name in enumerate(("unmovable", "movable", "reclaimable")):
        for order, count in lists.get(name, {}).items():
            zone["free_area"][mt][order] = count
    zone["listed"] = pages(zone)
    zone["pageblocks"] = (10, 10, 10)
    return zone


def pages(zone: Any) -> int:
    return sum(int(n) << order for counts in zone["free_area"] for order, n in enumerate(counts))


def test_the_smallest_block_is_taken_first_and_the_last_one_is_split() -> None:
    zone = zone_with(movable={0: 3, 2: 1, 5: 1, 10: 1})
    take_blocks(zone, MIGRATE_MOVABLE, 8)
    assert zone["free_area"][MIGRATE_MOVABLE].tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1], "3 + 4 + 1 of the 32"
    assert zone["listed"] == pages(zone)


def test_halves_that_come_back_merge() -> None:
    zone = zone_with(unmovable={0: 1, 1: 1, 2: 1})
    put_merged(zone, MIGRATE_UNMOVABLE, 1)
    assert zone["free_area"][MIGRATE_UNMOVABLE].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("wanted", "lists", "taken_from", "order"),
    [
        (MIGRATE_UNMOVABLE, {"reclaimable": {3: 1}, "movable": {3: 1}}, MIGRATE_RECLAIMABLE, 3),
        (MIGRATE_UNMOVABLE, {"reclaimable": {3: 1}, "movable": {9: 1}}, MIGRATE_MOVABLE, 9),
        (MIGRATE_RECLAIMABLE, {"unmovable": {3: 1}, "movable": {3: 1}}, MIGRATE_UNMOVABLE, 3),
        (MIGRATE_MOVABLE, {"unmovable": {9: 1}, "reclaimable": {2: 1}}, MIGRATE_UNMOVABLE, 9),
        (MIGRATE_MOVABLE, {"unmovable": {4: 1}, "reclaimable": {2: 1}}, MIGRATE_UNMOVABLE, 4),
        (MIGRATE_MOVABLE, {"unmovable": {3: 1}, "reclaimable": {2: 1}}, MIGRATE_RECLAIMABLE, 2),
        (MIGRATE_MOVABLE, {"unmovable": {1: 1, 3: 1}, "reclaimable": {2: 1}}, MIGRATE_UNMOVABLE, 1),
        (MIGRATE_UNMOVABLE, {"movable": {4: 5, 9: 1}}, MIGRATE_MOVABLE, 9),
    ],
)
def test_an_empty_type_takes_the_largest_block_of_the_others_and_movable_pages_the_smallest_of_small_ones(
    wanted: int, lists: Any, taken_from: int, order: int
) -> None:
    zone = zone_with(**lists)
    before = pages(zone)
    assert steal_suitable_fallback(zone, wanted)
    assert zone["free_area"][wanted][order] == 1
    assert pages(zone) == before
    assert zone["pageblocks"][wanted] - 10 == 10 - zone["pageblocks"][taken_from] == (1 << order) >> 9


def test_of_a_block_of_two_pageblocks_the_kernel_takes_one() -> None:
    zone = zone_with(movable={10: 1})
    assert steal_suitable_fallback(zone, MIGRATE_UNMOVABLE)
    assert (zone["free_area"][MIGRATE_UNMOVABLE][9], zone["free_area"][MIGRATE_MOVABLE][9]) == (1, 1)


def test_nothing_free_is_nothing_to_steal() -> None:
    assert not steal_suitable_fallback(zone_with(), MIGRATE_MOVABLE)


@given(st.lists(st.integers(0, 30), min_size=NR_ORDERS, max_size=NR_ORDERS), st.data())
def test_any_amount_can_be_taken_and_the_rest_is_still_there(counts: list[int], data: st.DataObject) -> None:
    zone = zone_with(movable=dict(enumerate(counts)))
    total = pages(zone)
    wanted = data.draw(st.integers(0, total))
    take_blocks(zone, MIGRATE_MOVABLE, wanted)
    assert pages(zone) == int(zone["listed"]) == total - wanted
    assert zone["free_area"].min() >= 0


def test_blocks_are_counted_in_the_order_asked_for() -> None:
    assert blocks_at_least(zone_with(movable={8: 5, 9: 1, 10: 2}, unmovable={9: 1}), 9) == 1 + 2 * 2 + 1


@pytest.mark.parametrize(
    ("order", "factor", "managed", "boosts"),
    [
        (9, 15_000, 60_000, [0]),  # a whole pageblock changes hands: nothing is mixed
        (8, 15_000, 60_000, [512, 1024, 1500, 1500]),  # 150 % of high = 1000
        (8, 0, 60_000, [0]),
        (8, 15_000, 2_047, [0]),  # less than four pageblocks
        (8, 100, 60_000, [512, 512]),  # at least one pageblock
    ],
)
def test_taking_a_part_of_another_types_pageblock_boosts_the_marks(order: int, factor: int, managed: int, boosts: list[int]) -> None:
    zone = zone_with(movable={order: 10})
    zone["wmark"], zone["boost_factor"], zone["managed"] = (600, 800, 1000), factor, managed
    for boost in boosts:
        assert steal_suitable_fallback(zone, MIGRATE_UNMOVABLE)
        assert zone["boost"] == boost
        assert zone["wmark"].tolist() == [600 + boost, 800 + boost, 1000 + boost]
        assert zone["boosted"] == (1 if boost else 0)
