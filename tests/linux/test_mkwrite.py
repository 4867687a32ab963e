# SPDX-License-Identifier: Apache-2.0
"""Writes through a shared mapping of a file: which of them fault, what becomes dirty, and who is braked (recording h34)."""

from __future__ import annotations

import pytest

from fleetsim.host.spec import DiskSpec
from tests.host.worlds import PAGES, World, world


def mapped(ops: str, **more: object) -> World:
    return world(512, files={"/f": 64}, tasks={"a": f"mmap_file M /f shared | {ops} | sleep 99"}, **more)


def test_a_sweep_reads_in_windows_of_32_and_faults_once_for_each_of_their_pages() -> None:
    """h34: 161 major and 4,959 minor faults for 5,120 pages."""
    w = mapped("rewrite M 64 100 seq").at(4)
    major, minor = int(w.task("a")["majflt"]), int(w.task("a")["minflt"])
    assert major == 64 * PAGES // 32
    assert major + minor == 64 * PAGES, "a write maps the page it wants, not those around it"
    assert w.vm("nr_dirtied") == 64 * PAGES


def test_what_is_dirty_already_is_written_without_a_fault_and_what_was_written_back_faults_again() -> None:
    w = world(512, files={"/f": 24}, tasks={"a": "mmap_file M /f shared | rewrite M 48 100 seq | sleep 99"}).at(3)
    assert int(w.task("a")["minflt"]) + int(w.task("a")["majflt"]) == 24 * PAGES, "the second round meets dirty pages"
    w = mapped("rewrite M 64 100 seq | sleep 50 | rewrite M 64 100 seq").at(45)
    assert w.meminfo("Dirty") == 0
    before = int(w.task("a")["minflt"])
    assert int(w.at(60).task("a")["minflt"]) - before == 64 * PAGES, "writeback protects pages against writes again"
    assert w.vm("nr_dirtied") == 2 * 64 * PAGES


def test_a_writer_through_a_mapping_is_braked_like_one_who_calls_write() -> None:
    """64 MiB/s to a disk of 8 MiB/s: dirty memory stays below its limit."""
    w = world(
        256,
        files={"/f": 200},
        disk=DiskSpec(bytes_per_s=8 << 20, latency_us=50),
        tasks={"a": "mmap_file M /f shared | rewrite M 0 64 seq | sleep 99"},
    ).at(60)
    assert w.meminfo("Dirty") + w.meminfo("Writeback") <= 0.2 * (w.meminfo("MemAvailable") + w.meminfo("Dirty")), "vm.dirty_ratio 20"
    assert w.progress_mib("a") < 60 * 24


def test_random_writes_that_miss_more_than_they_hit_stop_reading_around() -> None:
    """h34: after 100 misses (mm/filemap.c MMAP_LOTSAMISS) a fault reads the one page it wants."""
    w = world(512, files={"/f": 200}, tasks={"a": "mmap_file M /f shared | rewrite M 12 4 random | sleep 99"}).at(8)
    major = int(w.task("a")["majflt"])
    read = int(w.vm("pgpgin")) // 4
    assert major > 2_000
    assert read == pytest.approx(major + 100 * 31, rel=0.15)


def test_a_private_mapping_is_promised_memory_and_a_shared_one_is_not() -> None:
    base = world(512, files={"/f": 64}, tasks={"a": "sleep 99"}).at(1).meminfo("Committed_AS")
    assert mapped("sleep 1").at(1).meminfo("Committed_AS") == base
    private = world(512, files={"/f": 64}, tasks={"a": "mmap_file M /f | sleep 2 | free M munmap | sleep 99"}).at(1)
    assert private.meminfo("Committed_AS") == base + 64
    assert private.at(4).meminfo("Committed_AS") == base
