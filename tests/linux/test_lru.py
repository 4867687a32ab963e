# SPDX-License-Identifier: Apache-2.0
"""LRU lists and bags: whatever is done to them, links, sizes and page counts agree (naive twin: a Python list)."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from fleetsim.law import ONE_Q
from fleetsim.linux.bags import CLASS, accessed_q, blend_base, expected, open_bag, rebag, two_oldest
from fleetsim.linux.mm_inline import list_add, list_del, list_move, move_pages
from fleetsim.linux.mm_types import LRU_ACTIVE_FILE, LRU_INACTIVE_FILE, LRU_NONE, REFERENCED, UNIFORM, WORKINGSET
from fleetsim.linux.vma import BAGS, make_group
from tests.host.worlds import World, world

COHORTS = 6
LISTS = 4


def standing(w: World, cg: int, lru: int) -> list[int]:
    """Cohorts of a list from the newest to the oldest, by its links."""
    found, i = [], int(w.row["cgroups"][cg]["head"][lru])
    while i >= 0:
        found.append(i)
        i = int(w.row["cohorts"][i]["next"])
    return found


def with_cohorts() -> World:
    w = world(cgroups={"outer": {}, "outer/inner": {}})
    for i in range(COHORTS):
        w.row["cohorts"][i]["cg"] = 2
        w.row["cohorts"][i]["nr"] = 10 + i
    return w


@given(st.lists(st.tuples(st.sampled_from(["add", "move", "del"]), st.integers(0, COHORTS - 1), st.integers(0, LISTS - 1)), max_size=60))
def test_lists_behave_like_lists_whose_first_element_is_the_newest(steps: list[tuple[str, int, int]]) -> None:
    w = with_cohorts()
    twin: list[list[int]] = [[] for _ in range(LISTS)]
    for what, i, lru in steps:
        at = next((n for n in range(LISTS) if i in twin[n]), None)
        if what == "add":
            if at is not None:
                continue  # a cohort stands on one list
            list_add(w.row, i, lru)
        elif what == "move":
            list_move(w.row, i, lru)
        else:
            list_del(w.row, i)
        if at is not None:
            twin[at].remove(i)
        if what != "del":
            twin[lru].insert(0, i)
    for lru in range(LISTS):
        assert standing(w, 2, lru) == twin[lru]
        assert int(w.row["cgroups"][2]["tail"][lru]) == (twin[lru][-1] if twin[lru] else -1)
        pages = sum(10 + i for i in twin[lru])
        assert [int(w.row["cgroups"][cg]["tree"][lru]) for cg in (0, 1, 2)] == [pages] * 3, "all ancestors count them"
        assert [int(w.row["cgroups"][cg]["size"][lru]) for cg in (0, 1, 2)] == [0, 0, pages], "the lruvec alone"


@given(st.integers(1, 500), st.integers(0, 500), st.integers(0, 500), st.integers(1, 500))
def test_pages_that_change_cohort_take_their_share_of_low_zones_along(nr: int, dma: int, dma32: int, pages: int) -> None:
    dma = min(dma, nr)
    dma32, pages = min(dma32, nr - dma), min(pages, nr)
    w = with_cohorts()
    a, b = w.row["cohorts"][0], w.row["cohorts"][1]
    a["nr"], a["low_zone"] = nr, (dma, dma32)
    b["nr"] = 0
    move_pages(w.row, 0, 1, pages)
    assert (int(a["nr"]), int(b["nr"])) == (nr - pages, pages)
    assert (a["low_zone"] + b["low_zone"]).tolist() == [dma, dma32]
    for cohort in (a, b):
        assert cohort["low_zone"].min() >= 0
        assert int(cohort["low_zone"].sum()) <= int(cohort["nr"])


def uniform(pages: int) -> tuple[World, Any]:
    w = world()
    assert make_group(w.row, 0, UNIFORM, 1, 0, pages)
    return w, w.row["groups"][0]


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, ONE_Q)), min_size=1, max_size=50))
@example([(1, ONE_Q * 9 // 10)] * 10)  # ten calls for nine tenths of a page are nine pages, not five
def test_expected_values_are_never_off_by_a_page_however_they_are_asked_for(steps: list[tuple[int, int]]) -> None:
    _, group = uniform(1000)
    exact = whole = 0
    for pages, share in steps:
        exact += pages * share
        whole += expected(group, pages, share)
    assert exact - ONE_Q < whole * ONE_Q <= exact


def test_after_as_many_accesses_as_pages_63_percent_were_hit() -> None:
    """1 − 1/e = 0.632 (kernel-laws §20.2); nothing at first, all but everything after five times as many."""
    w, group = uniform(1000)
    cohort = w.row["cohorts"][0]
    shares = []
    for touches in (0, 1000, 5000, 50_000):
        group["touches"] = touches
        shares.append(accessed_q(group, cohort) / ONE_Q)
    assert shares[0] == 0
    assert abs(shares[1] - 0.632) < 0.001
    assert abs(shares[2] - 0.9933) < 0.001
    assert shares[3] == 1


def test_young_pages_join_the_same_bag_and_later_ones_open_another() -> None:
    w, _ = uniform(1000)
    first = open_bag(w.row, 0, 0, LRU_INACTIVE_FILE, 0)
    assert open_bag(w.row, 0, 0, LRU_INACTIVE_FILE, 0) == first
    assert open_bag(w.row, 0, 0, LRU_INACTIVE_FILE, REFERENCED) != first, "another class of flags"
    assert open_bag(w.row, 0, 0, LRU_ACTIVE_FILE, 0) != first, "another list"
    w.row["now_ns"] += 600_000_000
    assert open_bag(w.row, 0, 0, LRU_INACTIVE_FILE, 0) != first, "half a second later"


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0, REFERENCED, WORKINGSET]), st.booleans()), min_size=1, max_size=80))
def test_however_often_pages_move_between_bags_none_is_lost(steps: list[tuple[int, int, bool]]) -> None:
    w, group = uniform(1000)
    start = open_bag(w.row, 0, 0, LRU_INACTIVE_FILE, 0)
    w.row["cohorts"][start]["nr"] = 500
    for lru in ("size", "tree"):
        w.row["cgroups"][0][lru][LRU_INACTIVE_FILE] = 500
    for pages, flags, active in steps:
        w.row["now_ns"] += 300_000_000
        group["touches"] += 100
        i = int(w.row["cgroups"][0]["tail"][LRU_INACTIVE_FILE])
        if i < 0:
            i = int(w.row["cgroups"][0]["tail"][LRU_ACTIVE_FILE])
        rebag(w.row, i, LRU_ACTIVE_FILE if active else LRU_INACTIVE_FILE, flags, min(pages, int(w.row["cohorts"][i]["nr"])))
        if w.row["cohorts"][i]["nr"] == 0:
            list_del(w.row, i)
        rows = w.row["cohorts"][:BAGS]
        assert int(rows["nr"].sum()) == 500
        assert int(rows["nr"].min()) >= 0
        assert all(row["list"] != LRU_NONE or row["nr"] == 0 for row in rows)
        assert int(w.row["cgroups"][0]["size"][2:4].sum()) == 500


@given(st.integers(0, 1000), st.integers(0, 10_000), st.integers(1, 1000), st.integers(0, 10_000))
def test_a_bags_age_is_the_mean_of_its_pages(nr: int, base: int, pages: int, joined: int) -> None:
    cohort = uniform(1000)[0].row["cohorts"][0]
    cohort["nr"], cohort["base"] = nr, base
    blend_base(cohort, pages, joined)
    assert cohort["base"] == (nr * base + pages * joined) // (nr + pages)


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(0, 3), st.integers(0, 9), st.integers(0, 2)), min_size=2, max_size=BAGS),
    st.booleans(),
)
def test_of_two_old_bags_that_are_alike_those_with_the_fewest_pages_are_found(bags: list[tuple[int, int, int, int]], strict: bool) -> None:
    """Against a naive search: the sum of their pages is the least of all pairs, the older one is kept."""
    w, group = uniform(10_000)
    rows = w.row["cohorts"][int(group["first"]) : int(group["first"]) + BAGS]
    w.row["now_ns"] = 10 << 40
    classes = (0, REFERENCED, WORKINGSET, REFERENCED | WORKINGSET)
    for row, (nr, flags, born, wb) in zip(rows, bags, strict=False):
        row["list"], row["nr"], row["flags"], row["born"], row["wb"] = LRU_INACTIVE_FILE, nr, classes[flags], born, int(wb == 0)
    pairs = [
        int(a["nr"] + b["nr"])
        for i, a in enumerate(rows[: len(bags)])
        for j, b in enumerate(rows[: len(bags)])
        if i != j and b["wb"] == 0 and a["born"] <= b["born"] and (not strict or a["flags"] & CLASS == b["flags"] & CLASS)
    ]
    keep, drop = two_oldest(w.row, 0, strict)
    assert (drop >= 0) == bool(pairs)
    if pairs:
        a, b = w.row["cohorts"][keep], w.row["cohorts"][drop]
        assert int(a["nr"] + b["nr"]) == min(pairs) and a["born"] <= b["born"] and b["wb"] == 0


def test_when_every_class_has_but_one_bag_two_classes_of_a_list_become_one() -> None:
    """Few bags and many classes: no page is lost, none changes its list, and the larger class gives its name."""
    w, group = uniform(10_000)
    rows = w.row["cohorts"][:BAGS]
    w.row["now_ns"] = 10 << 40
    half = BAGS // 2
    group["cohorts"] = 6  # as a tiny group has
    classes = (0, REFERENCED, WORKINGSET)
    for k in range(6):
        rows[k]["nr"], rows[k]["flags"] = 10 + k, classes[k % 3]
        list_add(w.row, k, LRU_INACTIVE_FILE if k < 3 else LRU_ACTIVE_FILE)
    rows["group"][6:] = -1
    bag = open_bag(w.row, 0, 0, LRU_ACTIVE_FILE, REFERENCED | WORKINGSET)
    assert half > 6 and rows[bag]["nr"] == 0 and rows[bag]["list"] == LRU_ACTIVE_FILE
    assert rows[bag]["flags"] & CLASS == REFERENCED | WORKINGSET
    assert sorted(int(n) for n in rows["nr"][:6] if n) == [12, 13, 14, 15, 21]  # 10 and 11 of the inactive list
    merged = next(row for row in rows[:6] if row["nr"] == 21)
    assert merged["list"] == LRU_INACTIVE_FILE and merged["flags"] & CLASS == classes[1]
