# SPDX-License-Identifier: Apache-2.0
"""Pressure through a host's record: unions of intervals, the kernel's averages, whose stall it is (kernel-laws §9)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.memcontrol import in_subtree
from fleetsim.linux.mm_types import NS_PER_S, PSI_CPU, PSI_FULL, PSI_IO, PSI_MEM, PSI_SOME
from fleetsim.linux.psi import AWAKE_MAX, count_below, count_threads, productive, stall, update
from fleetsim.linux.psi_laws import avg_hundredths
from tests.host.worlds import DiskSpec, World, world

MS = 1_000_000
BUSY = "read_file /f 0 0"  # of a file of one MiB, unpaced: the processor's work, once it is cached


def some_ms(w: World, kind: int = PSI_MEM, level: int = PSI_SOME) -> float:
    return float(w.row["psi_total_ns"][kind][level]) / MS


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 60)), max_size=30))
def test_overlapping_stalls_count_once(spans: list[tuple[int, int]]) -> None:
    """Intervals reach us in the order of their begin: the total is the length of their union."""
    w = world()
    union: set[int] = set()
    for begin, length in sorted(spans):
        stall(w.row, 0, PSI_MEM, begin * MS, (begin + length) * MS)
        union |= set(range(begin, begin + length))
    assert some_ms(w) == len(union)
    assert some_ms(w, PSI_IO) == some_ms(w, PSI_CPU) == 0


def test_a_stall_is_the_cgroups_and_all_its_ancestors_and_a_kernel_threads_is_the_hosts_alone() -> None:
    w = world(cgroups={"outer": {}, "outer/inner": {}, "other": {}})
    stall(w.row, 2, PSI_MEM, 0, 10 * MS)
    stall(w.row, -1, PSI_MEM, 20 * MS, 25 * MS)
    assert some_ms(w) == 15
    totals = [int(w.cg(name)["psi_total_ns"][PSI_MEM][PSI_SOME]) // MS for name in ("inner", "outer", "other")]
    assert totals == [10, 10, 0]


def test_time_in_which_somebody_was_productive_is_not_full() -> None:
    w = world(cgroups={"a": {}, "b": {}})
    productive(w.row, 2, 0, 6 * MS)  # b works for the first 6 ms
    stall(w.row, 1, PSI_MEM, 0, 10 * MS)  # a waits for 10
    w.row["now_ns"] = 10 * MS  # full is known once the time has passed: somebody may yet work
    update(w.row)
    assert (some_ms(w), some_ms(w, level=PSI_FULL)) == (10, 4)
    assert int(w.cg("a")["psi_total_ns"][PSI_MEM][PSI_FULL]) == 10 * MS, "in a itself nobody worked"


def test_the_hosts_cpu_pressure_is_never_full() -> None:
    w = world(cgroups={"a": {}})
    stall(w.row, 1, PSI_CPU, 0, 10 * MS)
    assert (some_ms(w, PSI_CPU), some_ms(w, PSI_CPU, PSI_FULL)) == (10, 0)


def test_half_a_second_of_every_second_gives_the_kernels_own_averages() -> None:
    """T-9.2: 50 % stall from zero: after 2 s 9.05 / 1.63 / 0.34, … 10 s 31.59 / 7.66 / 1.68."""
    expected = {2: (905, 163, 34), 4: (1647, 321, 68), 6: (2254, 474, 101), 10: (3159, 766, 168)}
    w = world()
    for second in range(1, 11):
        stall(w.row, -1, PSI_MEM, (second - 1) * NS_PER_S, (second - 1) * NS_PER_S + NS_PER_S // 2)
        w.row["now_ns"] = second * NS_PER_S
        update(w.row)
        if second in expected:
            seen = tuple(avg_hundredths(int(avg)) for avg in w.row["psi_avg"][PSI_MEM][PSI_SOME])
            assert seen == expected[second]
    assert int(w.row["psi_total_us"][PSI_MEM][PSI_SOME]) == 5_000_000


def test_a_stall_longer_than_a_period_is_carried_into_the_next() -> None:
    w = world()
    stall(w.row, -1, PSI_MEM, 0, 4 * NS_PER_S)
    w.row["now_ns"] = 2 * NS_PER_S
    update(w.row)
    first = int(w.row["psi_avg"][PSI_MEM][PSI_SOME][0])
    w.row["now_ns"] = 4 * NS_PER_S
    update(w.row)
    assert 0 < first < int(w.row["psi_avg"][PSI_MEM][PSI_SOME][0]) <= 100 << 11
    w.row["now_ns"] = 60 * NS_PER_S
    update(w.row)
    assert avg_hundredths(int(w.row["psi_avg"][PSI_MEM][PSI_SOME][0])) < 50, "calm again"


@pytest.mark.parametrize(("cpus", "percent"), [(1, 100), (2, 0)])
def test_two_who_want_one_cpu_wait_for_it(cpus: int, percent: int) -> None:
    """T-9.1's idea for the processor: two busy loops on one CPU: always one waits; on two CPUs none."""
    w = world(cpus=cpus, files={"/f": 1}, tasks={"a": BUSY, "b": BUSY}).at(1)
    assert 100 * some_ms(w, PSI_CPU) / 1000 == pytest.approx(percent, abs=3)


def test_a_lone_task_that_waits_for_its_disk_stalls_everything_and_one_beside_it_does_not() -> None:
    slow = DiskSpec(bytes_per_s=10 << 20, latency_us=0.0)
    alone = world(disk=slow, files={"/g": 100}, tasks={"r": "read_file /g 100 0"}).at(2)
    beside = world(disk=slow, cpus=2, files={"/f": 1, "/g": 100}, tasks={"r": "sleep 0.5 | read_file /g 100 0", "busy": BUSY}).at(0.5)
    before = [some_ms(beside, PSI_IO, level) for level in (PSI_SOME, PSI_FULL)]
    beside.at(2)
    assert some_ms(alone, PSI_IO, PSI_FULL) > 1800
    for level in (PSI_SOME, PSI_FULL):  # T-9.1: one of the two CPUs that are not idle stands still, for 1.5 s
        assert some_ms(beside, PSI_IO, level) - before[level] == pytest.approx(750, abs=30)


def test_on_four_cpus_one_of_four_who_waits_is_a_quarter() -> None:
    """T-9.1: 4 CPUs, 4 tasks, 1 stalled: some 25 %, full 25 %; in its own cgroup, where nobody else is, 100 %."""
    slow = DiskSpec(bytes_per_s=10 << 20, latency_us=0.0)
    tasks = {"box/r": "sleep 1 | read_file /g 100 0"} | {f"busy{k}": BUSY for k in range(3)}
    w = world(disk=slow, cpus=4, files={"/f": 1, "/g": 100}, cgroups={"box": {}}, tasks=tasks).at(1)
    before = [some_ms(w, PSI_IO, level) for level in (PSI_SOME, PSI_FULL)]
    w.at(3)
    for level in (PSI_SOME, PSI_FULL):
        assert some_ms(w, PSI_IO, level) - before[level] == pytest.approx(500, abs=30)
        assert int(w.cg("box")["psi_total_ns"][PSI_IO][level]) / MS == pytest.approx(2000, abs=100)


def test_the_load_average_counts_who_runs_or_waits() -> None:
    slow = DiskSpec(bytes_per_s=1 << 20, latency_us=0.0)
    w = world(
        cpus=2, disk=slow, files={"/f": 900, "/g": 900}, tasks={"a": "read_file /f 0 0", "b": "read_file /g 0 0", "idle": "sleep 1000"}
    ).at(300)
    one, five, fifteen = (int(load) / 2048 for load in w.row["loadavg"])
    assert one == pytest.approx(2.0, abs=0.1)
    assert one > five > fifteen > 0.4


@given(
    states=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([0, 1 << PSI_MEM, 1 << PSI_IO, 1 << PSI_CPU]), st.booleans()), max_size=20
    ),
    kind=st.sampled_from([PSI_CPU, PSI_IO, PSI_MEM]),
)
def test_who_is_counted_in_a_cgroup_are_those_of_its_subtree_however_many_are_awake(states: list[tuple[int, int, bool]], kind: int) -> None:
    """Up to AWAKE_MAX threads are remembered from counting the host; with more of them everybody is looked at again."""
    w = world(cgroups={"a": {}, "a/b": {}, "c": {}}, tasks={f"{'' if n % 3 == 0 else 'b/'}t{n}": "sleep 100" for n in range(6)}, cpus=4).at(
        1
    )
    row = w.row
    row["threads"]["used"][:20], row["busy_until_ns"][:20], row["nr_threads"] = 1, 0, 20
    row["current"] = -1
    for th, (task, stalled, works) in enumerate(states):
        row["busy_until_ns"][th] = row["now_ns"] + 1
        thread = row["threads"][th]
        thread["task"], thread["stalled"], thread["work_until_ns"] = task, stalled, row["now_ns"] + (1 if works else 0)
    for cg in range(1, 4):
        naive = [0, 0, 0]
        for task, stalled, works in states:
            if in_subtree(row, int(row["tasks"][task]["cg"]), cg):
                waits = bool(stalled & (1 << kind)) and not works
                naive[0] += waits
                naive[1] += not waits and (stalled == 0 or works or bool(stalled & (1 << PSI_CPU)))
                naive[2] += 1
        _, awake = count_threads(row, 3, kind)
        assert (awake < 0) == (len(states) > AWAKE_MAX)
        assert list(count_below(row, 3, kind, cg, awake)) == naive


def test_averages_of_a_cgroup_that_has_forgotten_its_last_stall_are_left_alone() -> None:
    """psi_awake is a saving of work: with everybody looked at all the time the averages are the same."""
    ops = "read_file /f 0 0 | sleep 3 | read_file /f 0 0 | sleep 700"
    saving, looking = (
        world(
            cpus=4,
            cgroups={"a": {}, "b": {}},
            tasks={"a/one": ops, "b/two": "sleep 1000"},
            files={"/f": 8},
            disk=DiskSpec(4_000_000, 500.0),
        )
        for _ in range(2)
    )
    seen = set()
    for second in range(1, 900, 3):
        looking.row["psi_awake"][:] = 255
        for w in (saving, looking):
            w.at(second)
        seen.add(int(saving.row["psi_awake"][0]))
        for name in ("psi_avg", "psi_seen_us", "psi_total_ns"):
            assert (saving.row["cgroups"][name] == looking.row["cgroups"][name]).all(), (second, name)
    assert int(saving.cg("a")["psi_total_ns"].sum()) > 0
    assert seen == {0, 1 << 1}, "a was awake, b never, and in the end nobody"
