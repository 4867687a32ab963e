# SPDX-License-Identifier: Apache-2.0
"""The page cache on a host: second touch, refaults, sweeps larger than the cache, mapped files (kernel-laws §3.1, §3.8, §4.1)."""

from __future__ import annotations

import pytest

from tests.host.worlds import PAGES, DiskSpec, world


def test_a_file_read_once_stands_inactive_and_read_twice_active() -> None:
    w = world(files={"/f": 60}, tasks={"r": "read_file /f 60 200 | sleep 0.5 | read_file /f 60 200 | sleep 100"}).at(0.6)
    assert (w.meminfo("Inactive(file)"), w.meminfo("Active(file)"), w.vm("pgactivate")) == (60, 0, 0)
    w.at(2)
    assert (w.meminfo("Inactive(file)"), w.meminfo("Active(file)"), w.vm("pgactivate")) == (0, 60, 60 * PAGES)
    assert w.vm("pgpgin") == 60 * 1024, "kB: the second pass needed no disk"
    w.at(3)
    assert w.vm("pgfault") == 0, "read() faults nothing in"


def test_a_third_reading_changes_nothing() -> None:
    w = world(files={"/f": 30}, tasks={"r": "read_file /f 90 200 | sleep 100"}).at(2)
    assert (w.meminfo("Active(file)"), w.vm("pgactivate")) == (30, 30 * PAGES)


def test_a_cyclic_read_larger_than_the_cache_never_hits() -> None:
    """recordings: a sequential pass larger than the cache has 0 % hits and every page is a refault."""
    w = world(files={"/f": 260}, tasks={"r": "read_file /f 1040 200 | sleep 100"}).at(8)
    assert w.progress_mib("r") == 1040
    assert w.vm("pgpgin") == 1040 * 1024, "all of it came from disk"
    assert w.vm("workingset_refault_file") == pytest.approx(780 * PAGES, rel=0.02), "every page of rounds two to four"
    assert w.vm("workingset_activate_file") == 0
    assert w.vm("pgsteal_kswapd") == w.vm("pgscan_kswapd")


def test_a_cyclic_read_smaller_than_the_cache_always_hits() -> None:
    w = world(files={"/f": 100}, tasks={"r": "read_file /f 800 200 | sleep 100"}).at(8)
    assert w.progress_mib("r") == 800
    assert w.vm("pgpgin") == 100 * 1024
    assert w.vm("workingset_refault_file") == 0


@pytest.mark.parametrize(("stream", "activated"), [(150, True), (320, False)])
def test_a_page_missed_soon_after_its_eviction_comes_back_active_and_one_missed_late_does_not(stream: int, activated: bool) -> None:
    """T-3.8 at work: the distance is compared with the active file list (80 MiB here, no swap)."""
    w = world(
        files={"/hot": 80, "/s": stream},
        tasks={
            "h": "read_file /hot 160 400 | sleep 100",
            "s": f"sleep 1 | read_file /s {stream} 200 | sleep 1 | read_file /s 10 100 | sleep 100",
        },
    ).at(6)
    refaults = w.vm("workingset_refault_file")
    assert 10 * PAGES <= refaults < 14 * PAGES, "counted by slices of the file: up to one slice more than was read"
    assert w.vm("workingset_activate_file") == (refaults if activated else 0)


def test_pages_that_were_active_when_evicted_are_restored_with_their_workingset_bit() -> None:
    """A hot file, pushed out by a working set that needs all memory, comes back: refaults that count as restores, cost and pressure."""
    w = world(
        files={"/hot": 60},
        tasks={
            "h": "read_file /hot 180 300 | sleep 4 | read_file /hot 60 100 | sleep 100",
            "hog": "sleep 1 | mmap_anon A 160 | touch A 160 100 | sleep 1.5 | free A munmap | sleep 100",
        },
    ).at(10)
    assert w.vm("workingset_refault_file") > 30 * PAGES
    assert w.vm("workingset_restore_file") > 0
    assert w.vm("workingset_restore_file") <= w.vm("workingset_activate_file") <= w.vm("workingset_refault_file")
    assert int(w.row["psi_total_us"][2][0]) > 0


def test_reading_waits_for_the_disk_and_that_is_io_pressure() -> None:
    disk = DiskSpec(bytes_per_s=20 << 20, latency_us=0.0)
    w = world(files={"/f": 200}, disk=disk, tasks={"r": "read_file /f 200 0 | sleep 100"}).at(5)
    assert w.progress_mib("r") == pytest.approx(5 * 20, rel=0.03), "unpaced: as fast as the disk"
    io_some = int(w.row["psi_total_us"][1][0]) / 5e6
    assert io_some > 0.95
    assert int(w.row["psi_total_us"][2][0]) == 0, "first-time misses are no memory pressure"


def test_the_cache_stays_when_its_reader_is_gone_and_belongs_to_its_cgroup() -> None:
    w = world(files={"/f": 40}, cgroups={"box": {}}, tasks={"box/r": "read_file /f 40 200"}).at(2)
    assert len(w.events("task_exit")) == 1
    assert w.meminfo("Inactive(file)") == 40
    assert int(w.cg("box")["file"]) == 40 * PAGES
    nodes = int(w.cg("box")["usage"]) - 40 * PAGES
    assert nodes == int(w.cg("box")["kernel"]) == pytest.approx(40 * PAGES / 64 * 592 / 4096, abs=2), "and so do the nodes that find it"


def test_a_file_mapped_and_read_at_random_faults_in_around_each_miss() -> None:
    """kernel-laws §4.1, §10.1: a major fault reads around (32 pages), maps up to 16, and hits map in minor faults."""
    w = world(files={"/f": 60}, tasks={"m": "mmap_file M /f | read M 0 100 random for=6 | sleep 100"}).at(8)
    task = w.task("m")
    assert w.meminfo("Cached") > 60
    assert int(task["rss_file"]) >= 60 * PAGES, "all of it is mapped in the end"
    assert 60 * PAGES / 32 <= int(task["majflt"]) < 60 * PAGES / 4, "the fewer are missing, the less a read around brings"
    assert w.meminfo("Mapped") >= 60


def test_unmapping_a_file_leaves_its_pages_cached_and_in_nobodys_rss() -> None:
    w = world(files={"/f": 40}, tasks={"m": "mmap_file M /f | read M 0 200 random for=3 | free M munmap | sleep 100"}).at(5)
    assert w.meminfo("Mapped") == 0
    assert int(w.task("m")["rss_file"]) == 196, "the program's own text"
    assert w.meminfo("Inactive(file)") + w.meminfo("Active(file)") > 35


def test_hot_mapped_pages_survive_a_stream_better_than_cold_ones() -> None:
    """Accessed bits keep the hot part when both stand at the tail; recordings e05: even so some of it is lost."""
    w = world(
        files={"/db": 120, "/s": 600},
        tasks={"m": "mmap_file M /db | read M 0 300 hot:0.2:0.98", "s": "sleep 4 | read_file /s 600 60 | sleep 100"},
    ).at(14)
    first = int(w.row["areas"][0]["group"])
    hot, cold = w.row["groups"][first], w.row["groups"][first + 1]
    assert hot["resident"] / hot["pages"] > cold["resident"] / cold["pages"]
    assert w.vm("workingset_refault_file") > 0


def test_reading_a_file_at_random_hits_as_often_as_it_is_cached() -> None:
    """About half of a 360 MiB file is in memory: random reads hit about half the time, where a sweep never does."""
    w = world(files={"/f": 360}, tasks={"r": "read_file /f 360 300 | sleep 1 | read_file /f 400 200 rand | sleep 100"}).at(2)
    before = w.vm("pgpgin")
    w.at(8)
    assert w.progress_mib("r") == 760
    assert 0.3 < (w.vm("pgpgin") - before) / 1024 / 400 < 0.7
