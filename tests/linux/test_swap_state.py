# SPDX-License-Identifier: Apache-2.0
"""The swap cache after a fault: who keeps a slot, and for how long (kernel-laws §12.1, §8.6)."""

from __future__ import annotations

import pytest

from fleetsim.linux.swap_state import mem_cgroup_swap_full, vm_swap_full
from tests.host.worlds import FAST_DISK, PAGES, World, world


def come_back(verb: str, pattern: str = "seq", swap_mib: int = 200, **more: object) -> World:
    """40 MiB go to swap, the memory is given free again, and the task comes back to its pages."""
    return world(
        swap_mib=swap_mib,
        swap_disk=FAST_DISK,
        tasks={
            "a": f"mmap_anon A 60 | touch A 60 200 | madvise A cold | sleep 6 | {verb} A 600 1000 {pattern} | sleep 100",
            "b": "sleep 1 | mmap_anon B 165 | touch B 165 100 | sleep 2 | free B munmap | sleep 100",
        },
        **more,  # type: ignore[arg-type]
    ).at(6)


@pytest.mark.parametrize("pattern", ["seq", "random"])
def test_pages_that_are_only_read_keep_their_slots(pattern: str) -> None:
    """recordings e25: after the read pass SwapFree is as low as before, SwapCached as high as what came back."""
    w = come_back("read", pattern)
    free, away, cached = w.meminfo("SwapFree"), int(w.task("a")["swapents"]), w.meminfo("SwapCached")
    assert away > 10 * PAGES
    w.at(12)
    assert int(w.task("a")["swapents"]) <= (0 if pattern == "seq" else away // 100), "mapped again: not in VmSwap"
    assert w.meminfo("SwapFree") == pytest.approx(free, abs=1)
    assert w.meminfo("SwapCached") == pytest.approx(cached + away / PAGES, rel=0.15)


@pytest.mark.parametrize("pattern", ["seq", "random"])
def test_pages_that_are_written_give_their_slots_back(pattern: str) -> None:
    w = come_back("rewrite", pattern).at(12)
    assert w.meminfo("SwapFree") > 199
    assert w.meminfo("SwapCached") < 1


def test_a_write_after_a_read_faults_once_more_and_frees_the_slot() -> None:
    w = come_back("read A 60 1000 seq | sleep 1 | rewrite")
    w.at(7)
    clean, faults = int(w.row["swap_clean"]), int(w.task("a")["minflt"])
    assert clean > 10 * PAGES
    w.at(12)
    assert int(w.row["swap_clean"]) == 0
    assert int(w.task("a")["minflt"]) == faults + clean
    assert w.vm("pgreuse") == clean
    assert w.meminfo("SwapFree") == 200


def test_with_more_than_half_of_swap_in_use_no_slot_is_kept() -> None:
    w = world(
        swap_mib=50,
        swap_disk=FAST_DISK,
        tasks={
            "a": "mmap_anon A 60 | touch A 60 200 | madvise A cold | sleep 6 | read A 60 1000 seq | sleep 100",
            "b": "sleep 1 | mmap_anon B 160 | touch B 160 100 | sleep 2 | free B munmap | sleep 100",
        },
    ).at(6)
    away = int(w.task("a")["swapents"])
    assert away > 26 * PAGES
    assert vm_swap_full(w.row)
    w.at(12)
    assert w.meminfo("SwapFree") > 24, "slots are given back until half is free"
    assert int(w.row["swap_clean"]) < 26 * PAGES


def test_a_cgroup_has_its_own_half() -> None:
    w = world(
        swap_mib=200,
        swap_disk=FAST_DISK,
        cgroups={"box": {"memory.max": 60, "memory.swap.max": 60}},
        tasks={"box/a": "mmap_anon A 100 | touch A 100 200 | sleep 100"},
    ).at(3)
    assert w.row["cgroups"][1]["swap"] > 30 * PAGES
    assert not vm_swap_full(w.row)
    assert mem_cgroup_swap_full(w.row, 1)
    assert not mem_cgroup_swap_full(w.row, 0)


def test_clean_pages_are_dropped_without_being_written_again() -> None:
    w = world(
        swap_mib=200,
        swap_disk=FAST_DISK,
        tasks={
            "a": "mmap_anon A 60 | touch A 60 200 | madvise A cold | sleep 6 | read A 60 1000 seq | madvise A cold | sleep 100",
            "b": "sleep 1 | mmap_anon B 165 | touch B 165 100 | sleep 2 | free B munmap | sleep 3 | mmap_anon C 165 | touch C 165 100",
        },
    ).at(8)
    written, clean = w.vm("pswpout"), int(w.row["swap_clean"])
    assert clean > 10 * PAGES
    w.at(10)
    assert int(w.row["swap_clean"]) < clean / 4
    assert w.vm("pswpout") - written < clean / 4
    assert w.vm("swap_ra") == w.vm("swap_ra_hit") > 0


def test_slots_of_clean_pages_are_taken_back_when_swap_is_short() -> None:
    """mm/swapfile.c __try_to_reclaim_swap: swap that only the cache holds does not kill anybody."""
    w = world(
        swap_mib=50,
        swap_disk=FAST_DISK,
        tasks={
            "a": "mmap_anon A 20 | touch A 20 200 | madvise A pageout | read A 20 0 seq | read A 0 50 random",
            "b": "sleep 1 | mmap_anon B 190 | touch B 190 100 | sleep 100",
        },
    ).at(6)
    assert w.kills() == []
    assert int(w.row["swap_clean"]) < 20 * PAGES
    assert w.meminfo("SwapFree") < 10


def test_swap_refused_by_the_limit_is_counted_as_max_and_fail() -> None:
    w = world(
        swap_mib=100,
        swap_disk=FAST_DISK,
        cgroups={"box": {"memory.max": 40, "memory.swap.max": 10}},
        tasks={"box/hog": "mmap_anon A 100 | touch A 100 20 | sleep 100"},
    )
    w.cg("box")["swap_max"] = 10 * PAGES - 7  # reclaim comes 32 pages at a time: the last time it is refused some
    w.at(5)
    events = w.events_of("box")
    assert events["swap_fail"] == events["swap_max"] > 0
