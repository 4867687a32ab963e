# SPDX-License-Identifier: Apache-2.0
"""Locked memory: out of reclaim's reach, brought in at once or as it is touched (kernel-laws §3.1)."""

from __future__ import annotations

import pytest

from fleetsim.linux.mlock import vm_locked
from tests.host.worlds import FAST_DISK, PAGES, world


@pytest.mark.parametrize("pattern", ["seq", "random"])
def test_locked_memory_is_never_swapped(pattern: str) -> None:
    w = world(
        swap_mib=128,
        swap_disk=FAST_DISK,
        tasks={
            "a": f"mmap_anon A 40 | touch A 40 200 | rewrite A 4 0 {pattern} | mlock A | sleep 100",
            "b": "sleep 1 | mmap_anon B 200 | touch B 200 100 | sleep 100",
        },
    ).at(6)
    assert w.meminfo("SwapFree") < 100
    assert int(w.task("a")["swapents"]) == 0
    assert w.meminfo("Mlocked") == w.meminfo("Unevictable") == 40
    assert vm_locked(w.row, 0) == 40 * PAGES
    assert w.vm("unevictable_pgs_mlocked") == 40 * PAGES


def test_mlock_brings_in_what_was_never_touched_and_on_fault_it_does_not() -> None:
    now, later = (world(tasks={"a": f"mmap_anon A 40 | touch A 10 200 | mlock A{how} | sleep 100"}).at(2) for how in ("", " onfault"))
    assert now.meminfo("Mlocked") == 40
    assert now.progress_mib("a") == 50, "what mlock brought in is progress"
    assert later.meminfo("Mlocked") == 10
    assert vm_locked(later.row, 0) == 40 * PAGES, "VmLck counts the area, not its pages"


def test_on_fault_the_pages_touched_later_are_locked_too() -> None:
    w = world(tasks={"a": "mmap_anon A 40 | touch A 10 200 | mlock A onfault | sleep 1 | touch A 20 200 | sleep 100"}).at(3)
    assert w.meminfo("Mlocked") == 30


@pytest.mark.parametrize("pattern", ["seq", "random"])
def test_mlock_brings_back_what_is_in_swap_and_what_was_given_back(pattern: str) -> None:
    w = world(
        swap_mib=128,
        swap_disk=FAST_DISK,
        tasks={
            "a": f"mmap_anon A 40 | touch A 40 200 | rewrite A 4 0 {pattern} | free A dontneed keep_every:2 | sleep 8 | mlock A | sleep 99",
            "b": "sleep 1 | mmap_anon B 165 | touch B 165 100 | sleep 4 | free B munmap | sleep 100",
        },
    ).at(7)
    assert int(w.task("a")["swapents"]) > 2 * PAGES
    w.at(12)
    assert int(w.task("a")["swapents"]) == 0
    assert w.meminfo("Mlocked") == 40
    assert int(w.task("a")["rss_anon"] - w.task("a")["base_anon"]) == 40 * PAGES


def test_unmapping_and_exit_unlock() -> None:
    w = world(tasks={"a": "mmap_anon A 30 | mlock A | sleep 1 | free A munmap | mmap_anon B 20 | mlock B | sleep 1 | exit 0"}).at(0.8)
    assert w.meminfo("Mlocked") == 30
    w.at(1.6)
    assert w.meminfo("Mlocked") == 20
    w.at(4)
    assert w.meminfo("Mlocked") == 0
    assert w.vm("unevictable_pgs_munlocked") == 50 * PAGES


def test_a_locked_file_stays_in_the_cache_and_can_go_once_it_is_unmapped() -> None:
    w = world(
        files={"/lib": 40, "/data": 400},
        tasks={
            "a": "mmap_file M /lib | read M 40 0 seq | mlock M | sleep 6 | free M munmap | sleep 100",
            "b": "sleep 1 | read_file /data 400 100 | sleep 4 | read_file /data 400 100 | sleep 100",
        },
    ).at(5.5)
    assert w.meminfo("Mlocked") == 40
    w.at(14)
    assert w.meminfo("Mlocked") == 0


def test_more_locked_than_there_is_kills() -> None:
    w = world(swap_mib=64, swap_disk=FAST_DISK, tasks={"a": "mmap_anon A 300 noreserve | mlock A | sleep 100"}).at(20)
    assert w.kills() == ["a"], "swap is of no use for locked memory"
    assert w.vm("pswpout") < 2 * PAGES
