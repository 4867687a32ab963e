# SPDX-License-Identifier: Apache-2.0
"""Swapping on a host: the write is asynchronous, the memory comes back on a later scan, slots are given back (kernel-laws §3.7, §12)."""

from __future__ import annotations

import pytest

from fleetsim.hardware.disk import WRITE, submit
from fleetsim.host.spec import DiskSpec
from fleetsim.linux.mm_types import BY_KSWAPD, LRU_INACTIVE_ANON
from fleetsim.linux.swap import free_written, swap_out
from tests.host.worlds import FAST_DISK, PAGES, World, world

SLOW_DISK = DiskSpec(bytes_per_s=20_000_000, latency_us=200.0)


def resident(swap_disk: DiskSpec = FAST_DISK, **more: int) -> World:
    """One task with 40 MiB in memory, nothing in swap; the first cohort of its area is the oldest."""
    return world(swap_mib=more.get("swap_mib", 64), swap_disk=swap_disk, tasks={"a": "mmap_anon A 40 | touch A 40 200 | sleep 100"}).at(1)


def tail(w: World) -> int:
    return int(w.row["cgroups"][0]["tail"][LRU_INACTIVE_ANON])


def test_a_page_sent_out_is_unmapped_at_once_and_its_memory_comes_back_on_a_later_scan() -> None:
    w = resident()
    free, rss = w.free(), int(w.task("a")["rss_anon"])
    swap_out(w.row, 0, tail(w), 100)
    assert int(w.task("a")["rss_anon"]) == rss - 100
    assert int(w.task("a")["swapents"]) == 100
    assert (w.vm("pswpout"), w.vm("nr_swapcached")) == (100, 100)
    assert w.free() == free, "the write has only begun"
    assert free_written(w.row, 0, 0, 1000) == 0
    w.row["now_ns"] += 1_000_000_000
    assert w.free() == free, "the write is done, but nobody has looked"
    assert free_written(w.row, 0, 0, 60) == 60
    assert free_written(w.row, 0, 0, 1000) == 40
    assert w.free() == pytest.approx(free + 100 / PAGES)
    assert w.vm("nr_swapcached") == 0
    assert int(w.row["wb_count"]) == 0


def test_writes_are_done_in_the_order_of_the_device() -> None:
    w = resident(SLOW_DISK)
    oldest = tail(w)
    swap_out(w.row, 0, oldest, 50)
    w.row["now_ns"] += 100_000_000
    swap_out(w.row, 0, int(w.row["cohorts"][oldest]["prev"]), 50)
    first = submit(w.row["disk"][1].copy(), w.row["now_ns"], 0, WRITE)
    assert first > w.row["now_ns"]
    w.row["now_ns"] += 5_000_000  # 50 pages take 10 ms on this disk: the first write is long done, the second is not
    assert free_written(w.row, 0, 0, 1000) == 50


def test_written_over_while_it_is_in_the_swap_cache_a_page_needs_no_disk() -> None:
    """recordings: SwapCached; a write to such a page gives its slot back (free_swap_cache)."""
    w = world(
        swap_mib=64, swap_disk=SLOW_DISK, tasks={"a": "mmap_anon A 40 | touch A 40 200 | sleep 0.5 | rewrite A 40 100 seq | sleep 100"}
    ).at(0.5)
    swap_out(w.row, 0, tail(w), 150)
    w.at(2)
    assert w.vm("pswpin") == 0
    assert w.meminfo("SwapFree") == 64
    assert w.meminfo("SwapCached") == 0
    assert int(w.task("a")["rss_anon"]) - int(w.task("a")["base_anon"]) == 40 * PAGES


def test_a_sequential_pass_reads_eight_pages_per_major_fault_and_a_random_one_reads_one() -> None:
    """kernel-laws §12: page_cluster 3 reads 8 pages ahead; random access does not (recordings: 6 and 1.0)."""
    ratio = {}
    for pattern in ("seq", "random"):
        w = world(
            swap_mib=200,
            swap_disk=FAST_DISK,
            tasks={"a": f"mmap_anon A 240 | touch A 240 100 | rewrite A 0 50 {pattern}"},
        ).at(8)
        assert w.vm("pgmajfault") > 500
        ratio[pattern] = w.vm("pswpin") / w.vm("pgmajfault")
    assert 5 < ratio["seq"] <= 8
    assert ratio["random"] == 1


def test_a_sweep_larger_than_memory_is_slow_and_kills_nobody() -> None:
    """kernel-laws §12.5: 240 MiB swept over and over in 179 MiB with 200 MiB of swap: much is read in again, all of it fits."""
    w = world(swap_mib=200, swap_disk=FAST_DISK, tasks={"a": "mmap_anon A 240 | touch A 240 200 | rewrite A 480 100 seq | sleep 100"}).at(
        10
    )
    assert w.kills() == []
    assert w.progress_mib("a") == 240 + 480
    assert w.vm("pswpin") > 0.6 * 480 * PAGES


def test_swap_max_is_a_wall_and_memory_swap_current_never_exceeds_it() -> None:
    w = world(
        swap_mib=100,
        swap_disk=FAST_DISK,
        cgroups={"box": {"memory.max": 40, "memory.swap.max": 10}},
        tasks={"box/hog": "mmap_anon A 100 | touch A 100 20 | sleep 100"},
    )
    (kill,) = w.at(5).events("oom_kill")
    assert kill.subject == "hog"
    assert kill.data["swap_bytes"] == 10 << 20, "all that it may, and not a slot more"
    assert w.meminfo("SwapFree") == 100, "the dead give their slots back"


def test_swap_max_gives_a_cgroup_that_much_more_memory() -> None:
    """40 MiB of memory and 10 MiB of swap hold 50 MiB: on a fast disk the writes are done while reclaim still scans."""
    w = world(
        swap_mib=100,
        swap_disk=FAST_DISK,
        cgroups={"box": {"memory.max": 40, "memory.swap.max": 10}},
        tasks={"box/hog": "mmap_anon A 100 | touch A 100 20 | sleep 100"},
    ).at(5)
    assert w.kills() == ["hog"]
    assert w.progress_mib("hog") > 45


def test_without_swap_nothing_is_ever_written_out() -> None:
    w = world(tasks={"a": "mmap_anon A 170 | touch A 170 100 | rewrite A 0 100 seq"}).at(5)
    assert w.vm("pswpout") == w.vm("pswpin") == 0
    assert w.meminfo("SwapTotal") == 0


def test_munmap_and_exit_give_slots_back() -> None:
    w = world(
        swap_mib=128,
        swap_disk=FAST_DISK,
        tasks={
            "a": "mmap_anon A 80 | touch A 80 200 | sleep 4 | free A munmap | sleep 100",
            "b": "sleep 1 | mmap_anon B 130 | touch B 130 100 | sleep 4 | exit 0",
        },
    )
    w.at(3.5)
    assert w.meminfo("SwapFree") < 128
    w.at(10)
    assert w.meminfo("SwapFree") == 128
    assert w.meminfo("SwapCached") == 0
    assert int(w.task("a")["swapents"]) == 0


def test_swapping_costs_the_anonymous_side_of_the_balance() -> None:
    w = resident()
    swap_out(w.row, 0, tail(w), 64)
    assert int(w.row["cgroups"][0]["anon_cost"]) == 64
    assert int(w.row["cgroups"][0]["file_cost"]) == 0
    assert w.row["scan"][0]["kind"] == BY_KSWAPD
