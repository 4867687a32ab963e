# SPDX-License-Identifier: Apache-2.0
"""Transparent huge pages: who gets them, what they cost, and what becomes of them (kernel-laws §10.3, §10.4)."""

from __future__ import annotations

import itertools

import pytest

from fleetsim.linux.huge_memory import rmqueue_huge
from fleetsim.linux.huge_mm import lose_huge, split_huge
from fleetsim.linux.mm_types import WMARK_LOW
from tests.host.worlds import FAST_DISK, PAGES, World, world

UNITS = 60  # of 2 MiB


def touched(enabled: str = "always", word: str = "", mib: int = 2 * UNITS, **more: object) -> World:
    return world(1024, thp=enabled, tasks={"a": f"mmap_anon A {mib} {word} | touch A {mib} 200 | sleep 99"}, **more).at(3)


@pytest.mark.parametrize(
    ("enabled", "word", "huge"),
    [
        ("always", "", True),
        ("always", "thp", True),
        ("always", "nothp", False),
        ("madvise", "", False),
        ("madvise", "thp", True),
        ("never", "thp", False),
    ],
)
def test_who_gets_huge_pages(enabled: str, word: str, huge: bool) -> None:
    w = touched(enabled, word)
    assert w.vm("thp_fault_alloc") == (UNITS if huge else 0)
    assert w.meminfo("AnonHugePages") == (2 * UNITS if huge else 0)
    assert w.vm("nr_anon_transparent_hugepages") == (UNITS if huge else 0)
    assert w.vm("thp_fault_fallback") == 0
    assert int(w.task("a")["minflt"]) == (UNITS if huge else 2 * UNITS * PAGES), "one fault brings 512 pages"
    assert int(w.task("a")["rss_anon"] - w.task("a")["base_anon"]) == 2 * UNITS * PAGES
    assert int(w.task("a")["pgtables"]) - 8 == UNITS, "the page table is set aside (kernel-laws §11.1)"


def test_the_first_touch_of_two_mib_brings_all_of_it() -> None:
    w = world(1024, thp="always", tasks={"a": "mmap_anon A 10 | touch A 1 100 | sleep 9"}).at(2)
    assert int(w.task("a")["rss_anon"] - w.task("a")["base_anon"]) == 512
    assert w.progress_mib("a") == 1


def test_the_odd_end_of_an_area_is_made_of_small_pages() -> None:
    w = touched(mib=5)
    assert w.vm("thp_fault_alloc") == 2
    assert int(w.task("a")["minflt"]) == 2 + PAGES


def test_below_512_mib_of_memory_there_are_none() -> None:
    w = world(256, thp="always", tasks={"a": "mmap_anon A 40 | touch A 40 200 | sleep 9"}).at(2)
    assert w.vm("thp_fault_alloc") == 0


def test_memory_used_at_random_has_them_too() -> None:
    w = world(1024, thp="always", tasks={"a": "mmap_anon A 100 | touch A 100 200 | rewrite A 0 10 random for=2 | sleep 9"}).at(5)
    assert w.vm("thp_fault_alloc") == 50


def test_without_a_free_block_the_fault_falls_back_to_small_pages() -> None:
    w = world(1024, thp="always", tasks={"a": "sleep 1 | mmap_anon A 20 | touch A 20 200 | sleep 9"}).at(0.5)
    for zone in w.row["zones"]:
        pages = int(zone["free"])
        zone["free_area"] = 0
        zone["free_area"][1][8], zone["free_area"][1][0] = pages >> 8, pages & 255
    w.at(3)
    assert w.vm("thp_fault_fallback") == 10
    assert w.vm("thp_fault_alloc") == 0
    assert int(w.task("a")["minflt"]) == 20 * PAGES


def test_a_block_is_taken_only_above_the_watermark() -> None:
    w = world(1024)
    taken = 0
    while rmqueue_huge(w.row, WMARK_LOW) >= 0:
        taken += 1
    for zone in w.row["zones"]:
        if zone["managed"]:
            assert int(zone["free"]) > zone["wmark"][WMARK_LOW] + zone["reserve"], "512 pages less one stay above it, kernel-laws §1.5"
            assert int(zone["free"]) <= zone["wmark"][WMARK_LOW] + zone["reserve"] + 2 * 512
    assert taken > 300


@pytest.mark.parametrize(("word", "huge"), [("", 4), ("thp", 10)])
def test_a_cgroup_at_its_limit_gets_small_pages_unless_huge_ones_were_asked_for(word: str, huge: int) -> None:
    ops = f"read_file /f 30 500 | mmap_anon A 20 {word} | touch A 20 100 | sleep 9"
    w = world(1024, thp="always", files={"/f": 30}, cgroups={"box": {"memory.max": 40}}, tasks={"box/a": ops}).at(3)
    assert w.vm("thp_fault_alloc") == pytest.approx(huge, abs=1)
    assert w.vm("thp_fault_fallback_charge") == w.vm("thp_fault_fallback") == pytest.approx(10 - huge, abs=1)
    assert int(w.cg("box")["anon_thp"]) == 512 * w.vm("thp_fault_alloc")
    assert w.kills() == []


def test_exit_and_dontneed_give_them_back() -> None:
    ops = "mmap_anon A 60 | touch A 60 200 | free A dontneed all | touch A 20 200 | sleep 1 | exit 0"
    w = world(1024, thp="always", tasks={"a": ops}).at(1)
    assert w.meminfo("AnonHugePages") == 20
    w.at(9)
    assert w.meminfo("AnonHugePages") == 0
    assert int(w.row["cgroups"][0]["anon_thp"]) == 0


def test_under_pressure_they_go_to_swap_whole_and_come_back_small() -> None:
    """recordings README, "What a simulator writer would get wrong" 14."""
    ops = {"a": "mmap_anon A 400 | touch A 400 400 | sleep 99", "b": "sleep 3 | mmap_anon B 700 nothp | touch B 700 200 | sleep 99"}
    w = world(1024, swap_mib=400, swap_disk=FAST_DISK, thp="always", tasks=ops).at(12)
    assert w.vm("pswpout") > 20_000
    assert w.vm("thp_swpout") == pytest.approx(w.vm("pswpout") / 512, rel=0.3)
    assert w.meminfo("AnonHugePages") + 2 * w.vm("thp_swpout") == 400


def test_a_split_keeps_the_pages_and_loses_the_huge_one() -> None:
    w = touched()
    g = int(w.row["areas"][0]["group"])
    split_huge(w.row, g, 0, 3)
    assert w.meminfo("AnonHugePages") == 2 * (UNITS - 3)
    assert (w.vm("thp_split_pmd"), w.vm("thp_split_page"), w.vm("thp_deferred_split_page")) == (3, 3, 3)
    assert lose_huge(w.row, g, 0, int(w.row["groups"][g]["resident"])) == UNITS - 3
    assert w.row["anon_thp"] == 0


def test_khugepaged_makes_small_pages_huge_at_sixteen_mib_in_ten_seconds() -> None:
    """kernel-laws §10.4: 4096 pages per 10 s."""
    w = world(1024, thp="always", tasks={"a": "sleep 1 | mmap_anon A 100 | touch A 100 400 | sleep 200"}).at(0.5)
    lists = [zone["free_area"].copy() for zone in w.row["zones"]]
    for zone in w.row["zones"]:
        pages = int(zone["free"])
        zone["free_area"] = 0
        zone["free_area"][1][8], zone["free_area"][1][0] = pages >> 8, pages & 255
    w.at(3)
    assert w.vm("thp_fault_alloc") == 0
    for zone, before in zip(w.row["zones"], lists, strict=True):  # memory is whole again
        pages = int(zone["free"])
        zone["free_area"] = 0
        zone["free_area"][1][10], zone["free_area"][1][0] = pages >> 10, pages & 1023
        assert before.sum() >= 0
    w.at(3.1)
    seen = []
    for t in range(10, 90, 10):
        w.at(3.1 + t)
        seen.append(w.vm("thp_collapse_alloc"))
    assert seen[0] == 8
    assert seen[-1] == 50, "all of it, once"
    assert max(b - a for a, b in itertools.pairwise(seen)) == 8
    assert w.meminfo("AnonHugePages") == 100


def forked(ops: str) -> World:
    return world(1024, thp="always", tasks={"a": f"mmap_anon A 40 | touch A 40 400 | fork_hold 3 | {ops}"})


def test_a_fork_shares_huge_pages_as_they_are() -> None:
    """h27: AnonHugePages stays at 300 MiB after the fork, and nothing is split while nobody writes."""
    w = forked("sleep 9").at(1)
    assert (w.meminfo("AnonHugePages"), w.vm("thp_split_pmd"), w.vm("thp_split_page")) == (40, 0, 0)
    w.at(6)
    assert w.meminfo("AnonHugePages") == 40, "the child is gone, the parent has them for itself"


def test_a_write_to_a_shared_huge_page_splits_it_in_the_writers_page_table_alone() -> None:
    """h27: ten more thp_split_pmd per 20 MiB written; AnonHugePages falls when the child, who still maps them whole, is gone."""
    w = forked("rewrite A 20 0 seq | sleep 9").at(2)
    assert (w.vm("thp_split_pmd"), w.vm("thp_split_page"), w.meminfo("AnonHugePages")) == (10, 0, 40)
    assert w.vm("thp_fault_alloc") == 20, "what was copied was copied page by page"
    w.at(6)
    assert w.meminfo("AnonHugePages") == 20


def test_where_a_page_table_stands_no_huge_page_is_faulted_in_until_it_is_unmapped() -> None:
    """e00: 300 MiB touched, given back by MADV_DONTNEED, then advised to be huge: they come as 76,800 single pages again."""
    ops = "mmap_anon A 40 | touch A 40 400 | free A {} | {} | touch A 40 400 | sleep 9"
    given_back = world(1024, thp="madvise", tasks={"a": ops.format("dontneed", "madvise A hugepage")}).at(5)
    assert (given_back.vm("thp_fault_alloc"), given_back.meminfo("AnonHugePages")) == (0, 0)
    huge_before = world(1024, thp="always", tasks={"a": ops.format("dontneed", "sleep 0.1")}).at(5)
    assert huge_before.vm("thp_fault_alloc") == 40, "the page table of a huge page goes with it"


def test_a_shared_huge_page_goes_to_swap_and_comes_back_in_pieces() -> None:
    w = world(
        700,
        swap_mib=900,
        thp="always",
        tasks={
            "a": "mmap_anon A 200 | touch A 200 400 | fork_hold 60 | sleep 99",
            "b": "sleep 2 | mmap_anon B 500 | touch B 500 50 | sleep 99",
        },
    ).at(40)
    assert w.vm("thp_swpout") == w.vm("thp_split_pmd") > 0
    w.at(90)
    assert w.kills() == []
