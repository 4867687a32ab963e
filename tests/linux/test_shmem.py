# SPDX-License-Identifier: Apache-2.0
"""Shared memory and tmpfs on a host: whose the pages are, what counts them, and what makes them go (kernel-laws §14, §6, §8.2)."""

from __future__ import annotations

import pytest

from fleetsim.linux import mm_types as mm
from fleetsim.linux.syscalls import map_file, shm_rmid, shmget, touch
from tests.host.worlds import FAST_DISK, PAGES, World, world


def test_shared_memory_counts_as_cache_and_shmem_and_rss_but_is_neither_anonymous_nor_available() -> None:
    w = world(tasks={"a": "sleep 1 | shm S 50 | touch S 50 400 | sleep 9"}).at(0.5)
    before, free, available, anon = w.meminfo("Cached"), w.meminfo("MemFree"), w.meminfo("MemAvailable"), w.meminfo("AnonPages")
    mapped = w.meminfo("Mapped")
    w.at(3)
    task = w.task("a")
    assert (w.meminfo("Shmem"), w.meminfo("Cached") - before, w.meminfo("Mapped") - mapped) == (50, 50, 50)
    assert w.vm("nr_shmem") == 50 * PAGES
    assert w.meminfo("AnonPages") == anon
    assert w.meminfo("Inactive(anon)") == 50, "swap-backed pages stand on anonymous lists"
    assert free - w.meminfo("MemFree") == pytest.approx(50, abs=0.4), "and its page tables and nodes"
    assert available - w.meminfo("MemAvailable") == pytest.approx(50, abs=0.4)
    assert (int(task["rss_shmem"]), int(task["rss_anon"])) == (50 * PAGES, int(task["base_anon"]))
    assert int(task["minflt"]) == 50 * PAGES


def test_shared_anonymous_memory_is_promised_at_once_a_tmpfs_file_page_by_page() -> None:
    w = world(tasks={"a": "sleep 1 | shm S 50 | sleep 1 | write_file /dev/shm/f 30 0 | sleep 9"}).at(0.5)
    before = w.meminfo("Committed_AS")
    assert w.at(1.5).meminfo("Committed_AS") - before == 50
    assert w.at(3).meminfo("Committed_AS") - before == 80


def test_a_tmpfs_file_outlives_who_wrote_it_and_unlink_gives_it_back() -> None:
    w = world(tasks={"w": "write_file /dev/shm/f 40 200 | exit 0", "u": "sleep 3 | unlink /dev/shm/f | sleep 9"})
    free, shmem = w.at(0.0).meminfo("MemFree"), w.meminfo("Shmem")
    w.at(2)
    assert (w.meminfo("Shmem") - shmem, int(w.task("w")["state"])) == (40, mm.TASK_DEAD)
    assert w.meminfo("Mapped") == 0, "written, not mapped"
    w.at(4)
    assert w.meminfo("Shmem") == shmem
    assert w.meminfo("MemFree") == pytest.approx(free, abs=3), "but what the per-cpu lists hold"


def test_shared_anonymous_memory_goes_with_its_last_mapping() -> None:
    w = world(tasks={"a": "shm S 40 | touch S 40 0 | sleep 1 | exit 0"}).at(0.9)
    committed = w.meminfo("Committed_AS")
    assert w.meminfo("Shmem") == 40
    w.at(3)
    assert (w.meminfo("Shmem"), w.meminfo("Mapped")) == (0, 0)
    assert committed - w.meminfo("Committed_AS") > 40
    assert not w.row["files"]["used"].any(), "its row is free again"


@pytest.mark.parametrize("end", ["free S munmap", "exit 0"])
def test_munmap_and_exit_end_it_alike(end: str) -> None:
    w = world(
        swap_mib=50,
        swap_disk=FAST_DISK,
        tasks={"a": f"shm S 90 | touch S 90 400 | sleep 2 | {end}", "p": "mmap_anon A 170 | touch A 170 200"},
    )
    w.at(2)
    assert w.meminfo("SwapFree") < 50, "some of it is in swap"
    w.at(6)
    assert (w.meminfo("Shmem"), w.meminfo("SwapFree")) == (0, 50)


def swapped_host() -> World:
    return world(
        swap_mib=120,
        swap_disk=FAST_DISK,
        tasks={
            "s": "shm S 60 | touch S 60 400 | until 6 | read S 60 0 seq | sleep 99",
            "f": "write_file /dev/shm/f 40 400 | until 8 | unlink /dev/shm/f | sleep 99",
            "p": "until 1 | mmap_anon A 140 | touch A 140 200 | until 5 | exit 0",
        },
    )


def test_swapped_shared_memory_is_in_nobodys_vmswap_and_comes_back_by_major_faults() -> None:
    w = swapped_host().at(4)
    used = 120 - w.meminfo("SwapFree")
    assert used > 50
    assert int(w.task("s")["swapents"]) == int(w.task("f")["swapents"]) == 0
    assert int(w.task("s")["rss_shmem"]) < 50 * PAGES
    assert w.meminfo("Shmem") + used == 100
    faults = int(w.task("s")["majflt"])
    w.at(7)
    assert int(w.task("s")["rss_shmem"]) == 60 * PAGES
    assert int(w.task("s")["majflt"]) > faults
    assert w.vm("pswpin") > 0


def test_unlink_frees_the_swap_slots_too() -> None:
    w = swapped_host().at(7.5)
    free = w.meminfo("SwapFree")
    w.at(9)
    assert w.meminfo("SwapFree") == 120
    assert free < 120


def test_tmpfs_has_half_the_memory_unless_a_size_is_given_and_is_full_then() -> None:
    """mm/shmem.c shmem_default_max_blocks; write() answers ENOSPC, so the driver's op ends there."""
    w = world(
        memory_mib=256,
        tmpfs={"/half": 0, "/small": 20 << 20},
        tasks={"a": "write_file /half/f 200 0 | write_file /small/f 200 0 | sleep 9"},
    )
    half = int(w.row["totalram"]) // 2 // PAGES
    w.at(4)
    assert w.meminfo("Shmem") == pytest.approx(half + 20, abs=1)
    assert w.progress_mib("a") == pytest.approx(half + 20, abs=1)


def test_writing_again_truncates_first_and_over_does_not() -> None:
    w = world(
        tasks={
            "a": "write_file /dev/shm/f 40 0 | sleep 1 | write_file /dev/shm/f 10 0 | sleep 1 | write_file /dev/shm/f 5 0 over | sleep 9"
        }
    )
    assert w.at(0.9).meminfo("Shmem") == 40
    assert w.at(1.9).meminfo("Shmem") == 10
    assert w.at(4).meminfo("Shmem") == 10


def test_a_wrapping_writer_takes_no_more_than_its_lap() -> None:
    w = world(tasks={"a": "write_file /dev/shm/f 100 0 wrap=10 | sleep 9"}).at(2)
    assert (w.meminfo("Shmem"), w.progress_mib("a")) == (10, 100)


def test_pages_are_charged_to_whom_touched_them_first_and_stay_charged() -> None:
    """kernel-laws §8.2."""
    w = world(
        cgroups={"first": {}, "second": {}},
        tasks={
            "first/a": "write_file /dev/shm/f 40 0 | exit 0",
            "second/b": "sleep 1 | mmap_file M /dev/shm/f | read M 40 0 seq | sleep 9",
        },
    ).at(3)
    assert int(w.cg("first")["shmem"]) == int(w.cg("first")["file"]) == 40 * PAGES
    assert int(w.cg("first")["usage"]) - int(w.cg("first")["kernel"]) == 40 * PAGES
    assert (int(w.cg("second")["shmem"]), int(w.task("b")["rss_shmem"])) == (0, 40 * PAGES)


def test_two_who_map_one_file_both_have_it_in_their_rss_and_mapped_counts_it_once() -> None:
    read = "mmap_file M /f | read M 120 0 random | sleep 2"
    w = world(files={"/f": 30}, tasks={"a": f"{read} | exit 0", "b": f"{read} | sleep 99"}).at(1.5)
    a, b = int(w.task("a")["rss_file"]), int(w.task("b")["rss_file"])
    assert min(a, b) > 25 * PAGES
    assert w.meminfo("Mapped") == pytest.approx(30, abs=1)
    w.at(4)
    assert int(w.task("b")["rss_file"]) == b, "the other's exit is nothing to this one"
    assert w.meminfo("Mapped") == pytest.approx((b - int(w.task("b")["base_file"])) / PAGES)


def test_reclaim_takes_a_file_from_all_who_map_it() -> None:
    read = "mmap_file M /f | read M 200 0 random | sleep 99"
    w = world(files={"/f": 40}, tasks={"a": read, "b": read, "p": "sleep 2 | mmap_anon A 235 | touch A 235 100 | sleep 99"}, memory_mib=280)
    before = [int(w.at(1.9).task(name)["rss_file"]) for name in "ab"]
    after = [int(w.at(6).task(name)["rss_file"]) for name in "ab"]
    assert all(now < then - 10 * PAGES for now, then in zip(after, before, strict=True)), (before, after)


def test_a_sweep_over_a_mapped_file_maps_it_sixteen_pages_a_fault() -> None:
    """mm/memory.c do_fault_around: fault_around_bytes 64 KiB."""
    w = world(
        files={"/f": 32}, tasks={"r": "read_file /f 32 0 | sleep 99", "m": "sleep 1 | mmap_file M /f | read M 96 0 seq | sleep 99"}
    ).at(3)
    task = w.task("m")
    assert int(task["rss_file"] - task["base_file"]) == 32 * PAGES
    assert (int(task["minflt"]), int(task["majflt"])) == (32 * PAGES // 16, 0)


def test_shared_memory_used_at_random_faults_each_page_once() -> None:
    w = world(tasks={"a": "shm S 20 | rewrite S 400 0 random | sleep 99", "b": "shm S 20 | read S 400 0 hot:0.5:0.5 | sleep 99"}).at(3)
    for name in "ab":
        assert int(w.task(name)["rss_shmem"]) == pytest.approx(20 * PAGES, rel=0.01)
        assert int(w.task(name)["minflt"]) == pytest.approx(20 * PAGES, rel=0.02)


def test_a_system_v_segment_stays_until_it_is_removed_and_its_last_mapper_is_gone() -> None:
    """ipc/shm.c: IPC_RMID marks it; the last detach destroys it."""
    w = world(tasks={"a": "sleep 99"}).at(1)
    row = w.row
    f = int(shmget(row, 0, 10 * PAGES, mm.ORDERED))
    a = int(map_file(row, 0, f, mm.ORDERED, 0, 0))
    row["areas"][a]["touched"] = 0
    while touch(row, 0, a, 512) >= 0:
        pass
    assert (w.at(1).meminfo("Shmem"), int(w.task("a")["rss_shmem"])) == (10, 10 * PAGES)
    shm_rmid(row, 0, f)
    assert w.at(1).meminfo("Shmem") == 10, "still attached"
    w.command(2, "kill", task="a")
    assert w.at(4).meminfo("Shmem") == 0
    assert not row["files"][f]["used"]


def test_a_segment_nobody_maps_goes_at_once_when_it_is_removed() -> None:
    w = world(tasks={"a": "sleep 99"}).at(1)
    committed = w.meminfo("Committed_AS")
    f = int(shmget(w.row, 0, 10 * PAGES, mm.ORDERED))
    assert w.at(1).meminfo("Committed_AS") == committed + 10
    shm_rmid(w.row, 0, f)
    assert w.at(1).meminfo("Committed_AS") == committed


def test_more_shared_memory_than_overcommit_allows_is_refused() -> None:
    w = world(sysctl={"vm.overcommit_memory": 2}, tasks={"a": "shm S 500 | touch S 500 0 | sleep 99"}).at(2)
    assert (w.meminfo("Shmem"), len(w.events("enomem"))) == (0, 1)


def test_a_full_tmpfs_write_at_random_and_a_dontneed_leave_sound_tables() -> None:
    """MADV_DONTNEED of a shared mapping takes its page-table entries; the object keeps its pages."""
    w = world(tasks={"a": "shm S 30 | touch S 30 0 | sleep 1 | free S dontneed all | sleep 1 | touch S 30 0 | sleep 9"})
    assert int(w.at(0.9).task("a")["rss_shmem"]) == 30 * PAGES
    assert (int(w.at(1.9).task("a")["rss_shmem"]), w.meminfo("Shmem")) == (0, 30)
    assert int(w.at(4).task("a")["rss_shmem"]) == 30 * PAGES
    assert int(w.task("a")["minflt"]) == 60 * PAGES


def test_shared_memory_that_was_read_at_random_before_it_is_written_in_order_is_written_all_the_same() -> None:
    """Nothing was missing any more, so that not one page was touched, and no time passed."""
    w = world(tasks={"t": "shm B 20 | read B 200 0 hot:0.1:0.9 | touch B 20 0 | sleep 99"}).at(2)
    assert w.progress_mib("t") == 220
    assert int(w.task("t")["rss_shmem"]) == 20 * PAGES
