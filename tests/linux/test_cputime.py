# SPDX-License-Identifier: Apache-2.0
"""Whose the CPUs' time was: user, system, idle and iowait always add up to the clock."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.cputime import account_iowait, account_time, can_preempt, cpu_times, idlest_cpu, put_off
from fleetsim.linux.mm_types import (
    CPU_IDLE,
    CPU_IOWAIT,
    CPU_SYSTEM,
    CPU_USER,
    HELD_BY_EXIT,
    HELD_BY_KSWAPD,
    HELD_BY_THREAD,
    NS_PER_S,
)
from tests.host.worlds import DiskSpec, world

MS = 1_000_000


def times(w: object, cpu: int = 0) -> list[int]:
    out = np.zeros(8, np.int64)
    cpu_times(w.row, cpu, out)  # type: ignore[attr-defined]
    return [int(n) for n in out]


def test_work_is_shown_as_it_passes_not_when_it_is_booked() -> None:
    w = world()
    account_time(w.row, 0, HELD_BY_THREAD, 2 * MS, 4 * MS)
    shown = []
    for now_ms in (0, 1, 3, 6, 10):
        w.row["now_ns"] = now_ms * MS
        shown.append([n // MS for n in times(w)[: CPU_IOWAIT + 1]])
    #                   user nice system idle iowait
    assert shown == [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [2, 0, 1, 0, 0], [2, 0, 4, 0, 0], [2, 0, 4, 4, 0]]


def test_idle_time_is_iowait_while_the_last_task_waits_for_its_disk_and_nobody_else_works() -> None:
    w = world()
    account_iowait(w.row, 0, 10 * MS)
    w.row["now_ns"] = 4 * MS
    assert times(w)[CPU_IOWAIT] == 4 * MS
    account_time(w.row, 0, HELD_BY_THREAD, 3 * MS, 0)  # somebody else runs: the rest of the wait is not idle
    w.row["now_ns"] = 20 * MS
    assert [n // MS for n in times(w)[: CPU_IOWAIT + 1]] == [3, 0, 0, 13, 4]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 20)), max_size=20))
def test_the_four_add_up_and_never_run_back(steps: list[tuple[int, int, int, int]]) -> None:
    w = world()
    before = times(w)
    for user, system, wait, pause in steps:
        now = int(w.row["now_ns"])
        if int(w.row["cpu"][0]["free_ns"]) <= now:
            account_time(w.row, 0, HELD_BY_THREAD, user * MS, system * MS)
            account_iowait(w.row, 0, now + (user + system + wait) * MS)
        w.row["now_ns"] = now + pause * MS // 2
        after = times(w)
        assert sum(after) == int(w.row["now_ns"])
        assert all(a >= b for a, b in zip(after, before, strict=True))
        before = after


def test_an_idle_cpu_is_taken_before_a_busy_one() -> None:
    w = world(cpus=3)
    account_time(w.row, 0, HELD_BY_THREAD, 5 * MS, 0)
    account_time(w.row, 1, HELD_BY_THREAD, 3 * MS, 0)
    assert idlest_cpu(w.row) == 2
    account_time(w.row, 2, HELD_BY_THREAD, 9 * MS, 0)
    assert idlest_cpu(w.row) == 1


def test_who_slept_preempts_kswapd_and_exits_but_no_other_thread() -> None:
    w = world()
    w.row["now_ns"] = 5 * MS
    for holder, taken in ((HELD_BY_THREAD, False), (HELD_BY_KSWAPD, True), (HELD_BY_EXIT + 3, True)):
        w.row["cpu"][0]["holder"] = holder
        w.row["busy_until_ns"][0] = 4 * MS
        assert bool(can_preempt(w.row, 0, 0)) == taken
        w.row["busy_until_ns"][0] = 5 * MS
        assert not can_preempt(w.row, 0, 0), "it had the CPU a moment ago"
    assert not put_off(w.row, 0, 7 * MS)
    assert int(w.row["tasks"][3]["exit_ready_ns"]) == 7 * MS + 1


def test_faults_and_reads_are_system_time_and_sweeps_user_time() -> None:
    tasks = {"toucher": "mmap_anon A 50 | touch A 50 0", "sweeper": "mmap_anon B 10 | touch B 10 0 | rewrite B 9000 0 seq"}
    w = world(tasks=tasks).at(3)
    toucher, sweeper = w.task("toucher"), w.task("sweeper")
    assert int(toucher["stime_ns"]) > 100 * int(toucher["utime_ns"])
    assert int(sweeper["utime_ns"]) == 9000 * 256 * int(w.row["cost"][1])
    total = sum(int(t["utime_ns"] + t["stime_ns"]) for t in (toucher, sweeper)) + 2 * int(w.row["cost"][13])
    assert int(w.row["cpu_ns"][CPU_USER] + w.row["cpu_ns"][CPU_SYSTEM]) == total
    assert int(w.row["cpu_ns"][CPU_IDLE]) == 3 * NS_PER_S - total


def test_a_lone_reader_of_a_slow_disk_is_iowait() -> None:
    w = world(disk=DiskSpec(bytes_per_s=10 << 20, latency_us=0.0), files={"/g": 100}, tasks={"r": "read_file /g 100 0"}).at(2)
    assert int(w.row["cpu_ns"][CPU_IOWAIT]) > 1.8 * NS_PER_S
