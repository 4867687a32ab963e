# SPDX-License-Identifier: Apache-2.0
"""Taking pages from zones: the highest zone first, never below mark + reserve; giving them back where they came from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.mm_types import ALL_NODES, WMARK_HIGH, WMARK_LOW, WMARK_MIN
from fleetsim.linux.nodes import nr_high_in
from fleetsim.linux.zonelist import balanced, give_back, pin_got, rmqueue, unpin
from tests.host.worlds import World, world

DMA, DMA32, NORMAL, NODE1 = range(4)


def free(w: World) -> list[int]:
    """Pages that nobody has, those on the per-cpu lists included."""
    return [int(zone["free"] + zone["pcp"].sum()) for zone in w.row["zones"]]


def no_lists(w: World) -> World:
    """Per-cpu lists of one page, as if every page were asked for by itself, and nothing on them."""
    for zone in w.row["zones"]:
        zone["pinned"] += zone["pcp"].sum()
        zone["pcp"] = 0
        zone["pcp_batch"] = zone["pcp_high"] = 1
    return w


@pytest.mark.parametrize("mark", [WMARK_MIN, WMARK_LOW, WMARK_HIGH])
def test_each_zone_is_emptied_down_to_its_mark_and_reserve_the_highest_first(mark: int) -> None:
    w = no_lists(world(3400))
    floors = [int(zone["wmark"][mark] + zone["reserve"]) for zone in w.row["zones"]]
    room = [have - floor for have, floor in zip(free(w), floors, strict=True)]
    assert min(room[:NODE1]) > 0, "this world has room in all three zones"
    assert rmqueue(w.row, room[NORMAL] + 5, mark) == room[NORMAL] + 5
    assert w.row["got"].tolist() == [0, 5, room[NORMAL], 0], "the Normal zone serves until its mark, then DMA32"
    assert rmqueue(w.row, 1 << 40, mark) == room[DMA] + room[DMA32] - 5
    assert free(w) == floors
    assert rmqueue(w.row, 1, mark) == 0, "and there it ends"


def test_the_low_zones_reserve_grows_with_what_lies_above_it() -> None:
    """kernel-laws §1.4: managed pages above / 256 (DMA, DMA32); the highest zone keeps none."""
    small, large = world(1024).row["zones"], world(8192).row["zones"]
    assert small[DMA32]["reserve"] == 0, "no zone above it"
    assert large[DMA32]["reserve"] == large[NORMAL]["managed"] // 256
    assert large[DMA]["reserve"] == (large[DMA32]["managed"] + large[NORMAL]["managed"]) // 256


def test_one_zone_above_its_high_mark_is_enough_to_be_balanced() -> None:
    row = world(8192).row
    for z in range(3):
        row["zones"][z]["free"] = row["zones"][z]["wmark"][WMARK_HIGH] + row["zones"][z]["reserve"]
    assert not balanced(row, 0, ALL_NODES), "at the mark is not above it"
    for z in range(3):
        row["zones"][z]["free"] += 1
        assert balanced(row, 0, ALL_NODES)
        row["zones"][z]["free"] -= 1
    assert nr_high_in(row, ALL_NODES) == sum(int(zone["wmark"][WMARK_HIGH]) for zone in row["zones"])


def test_pinned_pages_come_back_and_those_of_the_boot_do_not() -> None:
    w = world(256)
    before = free(w)
    rmqueue(w.row, 100, WMARK_LOW)
    pin_got(w.row)
    unpin(w.row, 60)
    assert sum(free(w)) == sum(before) - 40
    unpin(w.row, 1_000_000)
    assert free(w) == before


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3000)), max_size=30))
def test_a_page_given_back_returns_to_the_zone_it_came_from(steps: list[tuple[bool, int]]) -> None:
    w = world(256)
    cohort, start = w.row["cohorts"][0], free(w)
    for take, pages in steps:
        if take:
            cohort["nr"] += rmqueue(w.row, pages, WMARK_MIN)
            cohort["low_zone"] += w.row["got"][:2].astype("i4")
        else:
            pages = min(pages, int(cohort["nr"]))
            give_back(w.row, cohort, pages)
            cohort["nr"] -= pages
        assert [a + int(b) for a, b in zip(free(w)[:2], cohort["low_zone"], strict=True)] == start[:2]
        assert sum(free(w)) + int(cohort["nr"]) == sum(start)
