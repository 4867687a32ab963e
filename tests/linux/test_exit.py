# SPDX-License-Identifier: Apache-2.0
"""Tasks come and go on a host: what a program costs before it asks for anything, and that its end gives all of it back."""

from __future__ import annotations

import numpy as np
import pytest

from fleetsim.linux.exit import IMAGE_ANON, IMAGE_SLAB, IMAGE_STACK
from fleetsim.linux.mm_types import TASK_DEAD, TASK_EXITING, TASK_RUNNING
from tests.host.worlds import FAST_DISK, PAGES, world

IMAGE = IMAGE_ANON + IMAGE_SLAB + IMAGE_STACK + 8


def test_an_empty_program_costs_what_was_measured() -> None:
    """First process of a cgroup on the recorded kernel: 216 KiB anon, 32 KiB page tables, 16 KiB stack, 16 KiB slab and others (e06)."""
    w = world(cgroups={"box": {}}, tasks={"box/a": "sleep 100"}).at(1)
    assert int(w.cg("box")["usage"]) == IMAGE == 70
    assert int(w.cg("box")["anon"]) == 54
    assert int(w.cg("box")["kernel"]) == 16
    assert int(w.task("a")["rss_anon"]) == 54


@pytest.mark.parametrize("end", ["exit 3", "sleep 0.1"])
def test_after_the_end_every_pool_is_as_before_the_start(end: str) -> None:
    ops = (
        "mmap_anon A 60 | mmap_anon R 30 | touch A 60 200 | touch R 30 200 | "
        + f"rewrite R 9 200 random | mmap_file M /f | read M 9 100 random | {end}"
    )
    w = world(swap_mib=32, swap_disk=FAST_DISK, files={"/f": 20}, cgroups={"box": {}}, tasks={"box/a": ops})
    before = {name: np.array(w.row[name]) for name in POOLS}
    committed = int(w.row["committed"])
    w.at(5)
    (end_event,) = w.events("task_exit")
    assert end_event.data == {"exit_code": 3 if end == "exit 3" else 0, "oom_killed": False, "pid": 83}
    assert {name: int(w.row[name]) for name in POOLS} == {name: int(value) for name, value in before.items()}
    assert int(w.row["committed"]) == committed
    cache = int(w.cg("box")["file"])
    assert int(w.cg("box")["usage"]) == cache > 0, "its page cache stays charged"
    assert int(w.cg("box")["kernel"]) == int(w.cg("box")["pagetables"]) == 0
    assert not w.row["areas"]["kind"].any()
    assert int(w.row["groups"]["used"].sum()) == 1, "the file's"


POOLS = ("slab_unreclaimable", "kernel_stack", "page_tables", "unlisted_anon", "anon_mapped", "file_mapped", "swap_cache", "swap_free")


def test_a_large_task_takes_a_while_to_give_its_memory_back() -> None:
    """1.25 µs per page on the recordings' CPU; recordings: 0.05 to 0.7 s after the kill."""
    w = world(1024, tasks={"a": "mmap_anon A 600 | touch A 600 900 | sleep 100"}).at(2)
    full = w.free()
    w.command(2.0, "kill", task="a")
    w.at(2.1)
    half = w.free()
    assert int(w.task("a")["state"]) == TASK_EXITING
    assert full < half < full + 600
    w.at(2.3)
    assert int(w.task("a")["state"]) == TASK_DEAD
    assert w.free() > full + 600
    (end,) = w.events("task_exit")
    assert end.t_ns - 2_000_000_000 == pytest.approx(600 * PAGES * 1250, rel=0.02)


def test_a_task_that_restarts_begins_anew_with_a_new_pid_and_its_counters_at_zero() -> None:
    w = world(tasks={"a": "mmap_anon A 20 | touch A 20 100 | sleep 0.3 | exit 1"}, restart_s={"a": 1.0}).at(4)
    starts = w.events("task_start", "restart")
    ends = w.events("task_exit")
    assert len(starts) >= 3
    assert [event.data["pid"] for event in starts] == list(range(83, 83 + len(starts)))
    assert starts[1].t_ns - ends[0].t_ns == 1_000_000_000
    assert int(w.task("a")["exits"]) == len(ends)
    w.at(ends[-1].t_ns / 1e9 + 1.1)
    assert int(w.task("a")["minflt"]) <= 20 * PAGES
    assert int(w.task("a")["state"]) == TASK_RUNNING


def test_a_restarted_task_has_no_areas_of_its_former_life() -> None:
    """The first op of its second life frees an area that it has not mapped yet: nothing happens, least of all to a neighbour."""
    w = world(tasks={"a": "free B munmap | mmap_anon B 60 | sleep 0.1"}, restart_s={"a": 0.2})
    w.at(2)
    assert int(w.row["committed"]) >= 0
    assert not w.events("enomem", "table_full")


def test_the_first_start_is_a_start_however_soon_the_task_ends() -> None:
    w = world(tasks={"a": "exit 0"}).at(1)
    assert [event.kind for event in w.events()] == ["boot", "task_start", "task_exit"]


def test_a_task_that_ended_by_itself_and_restarts_had_no_impact() -> None:
    w = world(tasks={"a": "sleep 0.2 | exit 0"}, restart_s={"a": 0.2})
    for step in range(1, 20):
        w.at(step / 10)
    assert w.events("restart")
    assert w.events("impact_start", "impact_end") == []
