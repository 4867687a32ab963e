# SPDX-License-Identifier: Apache-2.0
"""Areas, groups and cohorts: how they are cut, and what a full table answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.mm_types import NR_AREAS, NR_COHORTS, NR_GROUPS, ORDERED, UNIFORM
from fleetsim.linux.vma import (
    BAGS,
    BAGS_SMALL,
    BAGS_TINY,
    COHORT_PAGES_MIN,
    COHORTS_MAX,
    cohorts_for,
    drop_group,
    find_cohorts,
    find_groups,
    make_groups,
)
from tests.host.worlds import world


@given(st.integers(1, 40_000), st.booleans())
def test_cohorts_cover_a_group_exactly_and_are_not_too_small(pages: int, shared: bool) -> None:
    n = cohorts_for(65_536, pages, ORDERED, shared)
    size = (pages + n - 1) // n
    assert 1 <= n <= COHORTS_MAX
    assert n * size >= pages
    assert n == 1 or pages // n >= COHORT_PAGES_MIN


def test_a_group_that_matters_gets_64_cohorts_and_a_small_one_few() -> None:
    ram = 16 << 20  # 64 GiB
    mib = [16_384, 4096, 2048, 1024, 512, 256, 64, 16, 8]
    assert [cohorts_for(ram, size << 8, ORDERED, False) for size in mib] == [64, 64, 32, 16, 16, 6, 4, 4, 2]
    bags = [BAGS, BAGS, BAGS, BAGS, BAGS_SMALL, BAGS_SMALL, BAGS_SMALL, BAGS_TINY, BAGS_TINY]
    assert [cohorts_for(ram, size << 8, UNIFORM, False) for size in mib] == bags


@given(st.integers(1, 1 << 22), st.integers(1, 1 << 22), st.sampled_from([ORDERED, UNIFORM]), st.booleans())
def test_a_larger_group_never_has_fewer_cohorts(pages: int, more: int, kind: int, shared: bool) -> None:
    assert cohorts_for(1 << 22, pages, kind, shared) <= cohorts_for(1 << 22, pages + more, kind, shared)


def test_what_several_cgroups_may_be_charged_for_has_room_for_each() -> None:
    """A bag's pages are charged to one cgroup: a small file that is read at random by many needs bags for all of them."""
    assert cohorts_for(1 << 24, 100, UNIFORM, True) == BAGS_SMALL > BAGS_TINY == cohorts_for(1 << 24, 100, UNIFORM, False)


@given(st.lists(st.tuples(st.booleans(), st.integers(64, 9000), st.integers(0, 9)), max_size=40))
def test_rows_are_claimed_without_overlap_and_given_back(steps: list[tuple[bool, int, int]]) -> None:
    w = world(256)
    alive: list[int] = []
    for make, pages, which in steps:
        if make:
            g = int(make_groups(w.row, ORDERED if which % 2 else UNIFORM, 0, 0, pages, 0))
            if g >= 0:
                alive.append(g)
        elif alive:
            drop_group(w.row, alive.pop(which % len(alive)))
        owned: list[int] = []
        for g in alive:
            group = w.row["groups"][g]
            rows = range(int(group["first"]), int(group["first"] + group["cohorts"]))
            assert all(int(w.row["cohorts"][i]["group"]) == g for i in rows)
            owned += rows
        assert len(owned) == len(set(owned))
        assert int((w.row["cohorts"]["group"] >= 0).sum()) == len(owned)


def test_a_hot_and_a_cold_part_are_made_together_or_not_at_all() -> None:
    w = world(256)
    g = int(make_groups(w.row, UNIFORM, 0, 0, 1000, 200))
    assert [int(w.row["groups"][g + k]["pages"]) for k in range(2)] == [200, 800]
    w.row["cohorts"]["group"] = 0
    w.row["cohorts"]["group"][5 : 5 + BAGS_SMALL] = -1  # room for one of the two
    used = int(w.row["groups"]["used"].sum())
    assert make_groups(w.row, UNIFORM, 0, 0, 1000, 200) == -1
    assert int(w.row["groups"]["used"].sum()) == used


def test_the_tables_say_when_they_are_full() -> None:
    w = world(256)
    w.row["groups"]["used"] = 1
    assert find_groups(w.row, 1) == -1
    w.row["groups"]["used"][NR_GROUPS - 1] = 0
    assert find_groups(w.row, 1) == NR_GROUPS - 1
    assert find_groups(w.row, 2) == -1
    w.row["cohorts"]["group"] = 0
    assert find_cohorts(w.row, 1) == -1
    w.row["cohorts"]["group"][NR_COHORTS - 3 :] = -1
    assert (find_cohorts(w.row, 3), find_cohorts(w.row, 4)) == (NR_COHORTS - 3, -1)


def test_a_full_area_table_answers_enomem_and_says_so_each_time() -> None:
    """A task that maps for ever: the kernel has vm.max_map_count, this host has a table; neither is silent."""
    maps = NR_AREAS + 12
    w = world(
        1024, tasks={"a": " | ".join(["mmap_anon A 1"] * maps) + " | sleep 100", "b": "sleep 1 | mmap_anon B 5 | touch B 5 100 | sleep 100"}
    ).at(2)
    full = w.events("table_full")
    assert [event.subject for event in full] == ["a"] * 12 + ["b"]
    assert full[-1].data == {"pages": 5 * 256}
    assert w.progress_mib("b") == 0, "b has no memory, and is alive"
    assert w.kills() == []


def test_a_refusal_by_overcommit_is_told_apart_from_a_full_table() -> None:
    w = world(tasks={"a": "mmap_anon A 900 | sleep 100"}).at(1)
    assert [event.data for event in w.events("enomem")] == [{"pages": 900 * 256}]
    assert w.events("table_full") == []


def test_events_that_did_not_fit_are_counted_not_forgotten() -> None:
    w = world(tasks={"a": " | ".join(["mmap_anon A 900"] * 150) + " | sleep 100"}).at(2)
    lost = [event.data["lost"] for event in w.events("table_full")]
    assert len(w.events("enomem")) + sum(lost) == 150  # type: ignore[arg-type]
