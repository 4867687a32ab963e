# SPDX-License-Identifier: Apache-2.0
"""What the freeing of pages leaves behind: whole blocks, or holes between pages that stay (linux/holes.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.holes import hole_blocks
from fleetsim.linux.mmzone import NR_ORDERS, NR_REGIONS
from fleetsim.linux.per_cpu_pages import drain_all_pages, nr_pcp
from tests.host.worlds import PAGES, World, world


def blocks(free: int, holes: int) -> list[int]:
    inside = [int(hole_blocks(free, holes, order)) for order in range(NR_ORDERS)] + [0]
    return [inside[o] - 2 * inside[o + 1] if o < NR_ORDERS - 1 else inside[o] for o in range(NR_ORDERS)]


def naive_blocks(length: int) -> list[float]:
    """One hole of `length` pages cut into maximal aligned blocks, averaged over all places it can be at."""
    counts = [0.0] * NR_ORDERS
    for begin in range(1024):
        at, end = begin, begin + length
        while at < end:
            order = 0
            while order < NR_ORDERS - 1 and at % (2 << order) == 0 and at + (2 << order) <= end:
                order += 1
            counts[order] += 1 / 1024
            at += 1 << order
    return counts


@pytest.mark.parametrize("length", [1, 3, 7, 10, 64, 100, 300])
def test_holes_hold_the_blocks_that_fit_in_them_at_any_place(length: int) -> None:
    many = blocks(length * 4096, 4096)
    assert [n / 4096 for n in many] == pytest.approx(naive_blocks(length), abs=0.01)


@given(st.integers(0, 1 << 24), st.integers(0, 1 << 20))
def test_no_page_is_lost_and_no_count_negative(free: int, holes: int) -> None:
    counts = blocks(free, min(holes, free))
    assert min(counts) >= 0
    assert sum(n << order for order, n in enumerate(counts)) == free


def movable(w: World) -> list[int]:
    return [int(n) for n in w.row["zones"][1]["free_area"][1]]


def quiet(ops: dict[str, str]) -> World:
    return world(512, files={"/f": 200}, tasks=ops)


def test_memory_taken_by_one_task_and_given_back_is_whole_again() -> None:
    w = quiet(
        {"a": "mmap_anon A 300 | touch A 300 300 | sleep 1 | free A munmap | mmap_anon B 300 | touch B 300 300 | free B munmap | sleep 9"}
    )
    before = movable(w.at(0))
    after = movable(w.at(9))
    assert after[10] >= before[10] - 10, "all but what the per-cpu lists hide and page tables cut up"
    assert w.row["regions"]["used"].sum() <= nr_pcp(w.row), "what is not whole again waits for pages of the per-cpu lists"


def test_memory_taken_in_turns_is_left_with_holes_when_one_goes() -> None:
    """Recording e02: after the kill the victim's 768 MiB lie in holes between what the others read and wrote meanwhile."""
    turns = {"a": "mmap_anon A 150 | touch A 150 50 | sleep 1 | free A munmap | sleep 9"}
    turns |= {"b": "mmap_anon A 150 | touch A 150 50 | sleep 9"}
    w = quiet(turns).at(5)
    after = movable(w)
    assert sum(n << order for order, n in enumerate(after) if order < 8) > 0.6 * (150 - 20) * PAGES, "holes of 64 pages, not 4 MiB blocks"
    w.at(30)  # b ends too; its last pages are on the per-cpu lists and keep what lies between them apart
    drain_all_pages(w.row)
    assert sum(n << order for order, n in enumerate(movable(w)) if order < 8) < 20 * PAGES, (
        "but for what the lists gave back to another region"
    )


def test_random_reclaim_leaves_small_holes_and_a_sweep_large_ones() -> None:
    hog = "sleep 3 | mmap_anon A 330 | touch A 330 100 | sleep 9"
    swept = quiet({"r": "read_file /f 200 200 | sleep 99", "hog": hog}).at(8)
    assert swept.vm("pgsteal_file") > 20 * PAGES
    assert sum(movable(swept)[:5]) < 200


def test_regions_never_run_out() -> None:
    ops = " | ".join(
        f"mmap_anon A{i} {5 + i % 7} | touch A{i} {5 + i % 7} 500" + (f" | free A{i - 3} munmap" if i % 2 else "") for i in range(3, 40)
    )
    w = world(1024, tasks={"a": ops + " | sleep 99", "b": "mmap_anon Z 200 | touch Z 200 100 | sleep 99"}).at(9)
    assert (w.row["regions"]["pages"] > 0).sum() <= NR_REGIONS


def test_every_eighth_page_stays_behind_and_the_holes_between_them_are_of_seven_pages() -> None:
    """Recorded (e13_thp_always_frag): 23,892 free blocks each of order 0, 1 and 2, though the lists hold more than a region of pages."""
    w = world(1024, tasks={"a": "mmap_anon A 800 nothp | touch A 800 0 | free A dontneed keep_every:8 | sleep 99"}).at(5)
    zone = w.row["zones"][1]
    holes = int(zone["loose"]) // 7
    for order in range(3):
        assert int(zone["free_area"][1][order]) == pytest.approx(holes, rel=0.06)
    assert int(zone["free_area"][1][4:9].sum()) < 200
    assert int(zone["held"]) == int(w.row["regions"]["held"][w.row["regions"]["zone"] == 1].sum())
    assert 0 <= int(zone["held"]) <= int(zone["pcp"][0])
