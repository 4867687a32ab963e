# SPDX-License-Identifier: Apache-2.0
"""Files lose their pages: unlink, O_TRUNC, drop_caches."""

from __future__ import annotations

import pytest

from fleetsim.linux.mm_types import TASK_DEAD, TASK_RUNNING
from tests.host.worlds import PAGES, DiskSpec, world


def test_unlink_drops_every_page_and_dirty_ones_are_never_written() -> None:
    w = world(tasks={"w": "sleep 0.5 | write_file /out 12 200 | sleep 1 | unlink /out | sleep 100"})
    free = w.at(0.2).meminfo("MemFree")
    w.at(1.5)
    assert (w.meminfo("Dirty"), w.meminfo("Cached")) == (12, pytest.approx(12 + w.row["unlisted_file"] / PAGES))
    w.at(3)
    assert (w.meminfo("Dirty"), w.vm("nr_written")) == (0, 0)
    assert w.meminfo("MemFree") == pytest.approx(free, abs=0.5)


def test_unlink_waits_for_pages_under_writeback() -> None:
    slow = DiskSpec(bytes_per_s=5 << 20, latency_us=100.0)
    w = world(disk=slow, tasks={"w": "write_file /out 10 0 fsync", "u": "sleep 0.5 | unlink /out | exit 0"}).at(5)
    gone = {e.subject: e.t_ns / 1e9 for e in w.events("task_exit")}
    assert gone["u"] > 1.9
    assert w.meminfo("Writeback") == 0


def test_an_unlinked_file_can_be_made_anew_and_a_missing_one_be_unlinked() -> None:
    w = world(tasks={"w": "unlink /out | write_file /out 8 200 | unlink /out | write_file /out 4 200 | sleep 100"}).at(2)
    assert (w.meminfo("Dirty"), int(w.row["files"][0]["size"])) == (4, 4 * PAGES)


def test_an_unlinked_file_that_is_mapped_keeps_its_pages_until_it_is_unmapped() -> None:
    w = world(files={"/f": 20}, tasks={"m": "mmap_file M /f | read M 20 200 seq | unlink /f | sleep 2 | free M munmap | sleep 100"}).at(1.5)
    assert w.meminfo("Inactive(file)") + w.meminfo("Active(file)") == 20
    w.at(4)
    assert w.meminfo("Inactive(file)") + w.meminfo("Active(file)") == 0


def test_drop_caches_takes_what_is_clean_and_unmapped() -> None:
    w = world(
        files={"/read": 20, "/mapped": 10},
        tasks={
            "r": "read_file /read 20 200",
            "m": "mmap_file M /mapped | read M 10 200 seq | sleep 100",
            "w": "write_file /out 8 200 | sleep 100",
        },
    ).at(3)
    w.command(3, "sysctl", name="vm.drop_caches", value=1)
    w.at(3.1)
    assert w.vm("drop_pagecache") == 1
    assert w.meminfo("Dirty") == 8
    assert w.meminfo("Inactive(file)") + w.meminfo("Active(file)") == 18, "mapped and dirty ones stay"
    assert w.vm("workingset_refault_file") == 0


@pytest.mark.parametrize("pattern", ["seq", "random"])
def test_who_maps_a_file_that_somebody_cuts_dies_of_sigbus_beyond_its_new_end(pattern: str) -> None:
    tasks = {
        "mapper": f"mmap_file M /f shared | read M 40 0 {pattern} | sleep 2 | read M 40 0 {pattern} | sleep 99",
        "cutter": "sleep 1 | write_file /f 2 0 | sleep 99",
    }
    w = world(files={"/f": 40}, tasks=tasks).at(2)
    assert int(w.task("mapper")["state"]) == TASK_RUNNING, "as long as it does not look"
    w.at(4)
    assert (int(w.task("mapper")["state"]), int(w.task("mapper")["exit_code"])) == (TASK_DEAD, 128 + 7)
