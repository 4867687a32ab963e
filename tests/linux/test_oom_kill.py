# SPDX-License-Identifier: Apache-2.0
"""Whom an OOM kills, one at a time, and what is booked for it (kernel-laws §7)."""

from __future__ import annotations

import re

import pytest

from fleetsim.errors import BadInput
from fleetsim.linux.mm_types import TASK_EXITING, TASK_RUNNING
from fleetsim.linux.oom_kill import out_of_memory, select_bad_process, task_points, total_pages
from fleetsim.linux.pgtable import mm_pgtables
from tests.host.worlds import FAST_DISK, PAGES, DiskSpec, World, world


def sized(adj: dict[str, int] | None = None, **mib: int) -> World:
    """Tasks of the given sizes, all calm."""
    return world(1024, tasks={name: f"mmap_anon A {size} | touch A {size} 900 | sleep 1000" for name, size in mib.items()}, adj=adj).at(2)


def chosen(w: World, cg: int = 0) -> str:
    t = int(select_bad_process(w.row, cg, -1))
    return w.shard.names_of(0).task_name(t) if t >= 0 else str(t)


def test_the_largest_is_chosen() -> None:
    assert chosen(sized(small=10, large=40, middle=20)) == "large"


def test_of_equals_the_later_in_the_task_list_is_chosen() -> None:
    """mm/oom_kill.c oom_evaluate_task: `points >= chosen_points` since Linux v5.9."""
    assert chosen(sized(first=20, second=20)) == "second"


@pytest.mark.parametrize(
    ("adj", "victim"),
    [
        ({}, "large"),
        ({"large": -1000}, "small"),
        ({"large": -500}, "small"),  # −500/1000 of the host outweighs 300 MiB
        ({"small": 500}, "small"),
        ({"large": -1000, "small": -1000}, "-1"),
        ({"large": -999, "small": -1000}, "large"),  # however little it counts, it can be chosen
    ],
)
def test_oom_score_adj_moves_the_choice_and_minus_1000_forbids_it(adj: dict[str, int], victim: str) -> None:
    assert chosen(sized(adj, small=20, large=300)) == victim


def test_badness_is_rss_and_swap_and_page_tables() -> None:
    w = sized(a=40)
    task = w.task("a")
    pages = int(task["rss_anon"] + task["rss_file"] + mm_pgtables(w.row, 0))
    assert task_points(w.row, 0, total_pages(w.row, 0, -1)) == pages
    task["swapents"] = 1234
    assert task_points(w.row, 0, total_pages(w.row, 0, -1)) == pages + 1234


def test_inside_a_cgroup_only_its_subtree_is_looked_at_and_measured_against_its_limit() -> None:
    w = world(
        1024,
        swap_mib=50,
        cgroups={"box": {"memory.max": 100, "memory.swap.max": 20}, "box/inner": {}},
        tasks={
            "outside": "mmap_anon A 300 | touch A 300 900 | sleep 1000",
            "box/inner/in": "mmap_anon A 20 | touch A 20 900 | sleep 1000",
            "box/mate": "mmap_anon A 10 | touch A 10 900 | sleep 1000",
        },
    ).at(2)
    assert (chosen(w, 0), chosen(w, 1), chosen(w, 2)) == ("outside", "in", "in")
    assert total_pages(w.row, 1, -1) == 120 * PAGES
    assert total_pages(w.row, 0, -1) == int(w.row["totalram"]) + 50 * PAGES


def test_while_a_victims_memory_is_still_coming_back_nobody_new_is_chosen() -> None:
    w = sized(a=60, b=50)
    out_of_memory(w.row, 0, 1)
    assert int(w.task("a")["state"]) == TASK_EXITING
    for _ in range(5):
        assert out_of_memory(w.row, 0, 1), "there is hope: wait"
    assert int(w.task("b")["state"]) == TASK_RUNNING
    assert w.vm("oom_kill") == 1
    w.at(3)
    assert chosen(w) == "b"


def test_a_task_killed_by_a_person_does_not_hold_the_oom_killer_back() -> None:
    """Only an OOM victim (TIF_MEMDIE) does; a SIGKILL from outside is not one."""
    w = sized(a=60, b=50)
    w.command(2.0, "kill", task="a")
    w.at(2.001)
    assert int(w.task("a")["state"]) == TASK_EXITING
    assert chosen(w) == "b"


def test_a_host_that_runs_out_kills_once_and_lives_on() -> None:
    """
    before  a 20 MiB bystander
    ask     200 MiB on a host of 179 MiB
    after   one kill at the min mark, the hog; its memory is back; the bystander never noticed
    """
    w = world(
        tasks={"bystander": "mmap_anon A 20 | touch A 20 50 | rewrite A 0 10 seq", "hog": "mmap_anon A 200 | touch A 200 50 | sleep 100"}
    )
    w.at(6)
    assert w.kills() == ["hog"]
    assert w.vm("oom_kill") == 1
    assert w.meminfo("MemFree") > 150
    assert w.progress_mib("bystander") == pytest.approx(20 + 10 * 5.6, rel=0.02)
    (kill,) = w.events("oom_kill")
    assert kill.data["constraint"] == "none"
    assert kill.data["anon_rss_bytes"] == pytest.approx(155 << 20, rel=0.03)


def test_the_one_who_asks_is_often_not_the_one_who_dies() -> None:
    w = world(
        tasks={"idle": "mmap_anon A 120 | touch A 120 200 | sleep 100", "late": "sleep 2 | mmap_anon A 80 | touch A 80 20 | sleep 100"}
    ).at(8)
    (kill,) = w.events("oom_kill")
    assert (kill.subject, kill.data["invoker"]) == ("idle", "late")


def test_oom_kill_allocating_task_takes_whoever_asked() -> None:
    w = world(
        tasks={"idle": "mmap_anon A 120 | touch A 120 200 | sleep 100", "late": "sleep 2 | mmap_anon A 80 | touch A 80 20 | sleep 100"},
        sysctl={"vm.oom_kill_allocating_task": 1},
    ).at(8)
    assert w.kills() == ["late"]


def test_panic_on_oom_stops_everything() -> None:
    w = world(tasks={"a": "sleep 100", "hog": "mmap_anon A 200 | touch A 200 100 | sleep 100"}, sysctl={"vm.panic_on_oom": 1}).at(5)
    assert [event.kind for event in w.events("oom_panic", "oom_kill")] == ["oom_panic"]
    assert int(w.task("a")["state"]) != TASK_RUNNING


def test_a_cgroups_oom_panics_only_when_asked_twice() -> None:
    box = {"cgroups": {"box": {"memory.max": 20}}, "tasks": {"box/hog": "mmap_anon A 60 | touch A 60 100 | sleep 100"}}
    assert world(**box, sysctl={"vm.panic_on_oom": 1}).at(3).kills() == ["hog"]  # type: ignore[arg-type]
    assert world(**box, sysctl={"vm.panic_on_oom": 2}).at(3).kills() == []  # type: ignore[arg-type]


def grouped(**more: int) -> World:
    return world(
        cgroups={"outer": {"memory.max": 60, **more}, "outer/box": {"memory.oom.group": 1}},
        tasks={
            "outer/box/hog": "mmap_anon A 100 | touch A 100 50 | sleep 100",
            "outer/box/mate": "sleep 100",
            "outer/box/shield": "sleep 100",
            "outer/other": "sleep 100",
            "outside": "sleep 100",
        },
        adj={"shield": -1000},
    ).at(4)


def logged(w: World) -> list[str]:
    """Who is killed by the kernel's log."""
    return [found[1] for line in w.shard.dmesg[0] if (found := re.search(r"Killed process \d+ \((\w+)\)", line))]


def test_oom_group_kills_all_of_the_victims_group_but_the_shielded() -> None:
    """The walk over the group meets the first victim again: the real kernel's log names it twice (recorded). The history tells it once."""
    w = grouped()
    assert w.kills() == ["hog", "mate"]
    assert logged(w) == ["hog", "hog", "mate"]
    (told,) = [line for line in w.shard.dmesg[0] if "are going to be killed" in line]
    assert told.endswith("Tasks in /outer/box are going to be killed due to memory.oom.group set")
    assert w.events_of("box")["oom_group_kill"] == w.events_of("outer")["oom_group_kill"] == 1


def test_the_highest_group_inside_the_domain_is_the_one_that_dies() -> None:
    assert logged(grouped(**{"memory.oom.group": 1})) == ["hog", "hog", "mate", "other"]


def test_oom_group_counts_its_first_victim_twice_as_the_kernel_does() -> None:
    assert grouped().events_of("box")["oom_kill"] == 3


def test_when_nobody_may_be_killed_the_host_is_deadlocked_on_memory_and_says_so() -> None:
    """mm/oom_kill.c out_of_memory: `panic("System is deadlocked on memory")`."""
    w = world(tasks={"hog": "mmap_anon A 200 | touch A 200 100 | sleep 100"}, adj={"hog": -1000}).at(5)
    assert w.events("oom_panic")


def test_swap_counts_against_its_owner() -> None:
    w = world(
        swap_mib=100,
        swap_disk=FAST_DISK,
        tasks={
            "idle": "mmap_anon A 120 | touch A 120 50 | sleep 100",
            "hog": "sleep 3 | mmap_anon A 100 | touch A 100 30 | mmap_anon B 90 | touch B 90 30 | sleep 100",
        },
    ).at(12)
    assert w.kills()
    (first, *_) = w.events("oom_kill")
    assert int(first.data["swap_bytes"]) + int(first.data["anon_rss_bytes"]) > 115 << 20  # type: ignore[call-overload]


def test_the_heuristic_of_2_6_11_kills_the_young_with_a_large_address_space_not_who_holds_the_memory() -> None:
    """Before 2.6.36 address space counts, touched or not; the superuser's tasks count a sixteenth; a negative nice helps nobody."""
    tasks = {"holder": "mmap_anon A 200 | touch A 200 900 | sleep 1000", "mapper": "mmap_anon A 300 | sleep 1000"}
    modern, historical = world(1024, tasks=tasks).at(2), world(1024, tasks=tasks, oom_heuristic="2.6.11").at(2)
    assert (chosen(modern), chosen(historical)) == ("holder", "mapper")
    historical.task("mapper")["superuser"] = 1
    assert chosen(historical) == "holder"
    historical.task("mapper")["nice"] = 10
    assert chosen(historical) == "holder", "twice a sixteenth"
    historical.task("holder")["oom_score_adj"] = -1000
    assert chosen(historical) == "mapper"


def test_an_unknown_heuristic_is_refused() -> None:
    with pytest.raises(BadInput, match=r"known are 5\.9, 2\.6\.11"):
        world(oom_heuristic="4.4")


def slow_reader(bytes_per_s: int) -> World:
    """A task with 60 MiB that waits for one window of 128 KiB from a disk of this speed, when it is killed at 2 s."""
    w = world(
        files={"/f": 10},
        disk=DiskSpec(bytes_per_s=bytes_per_s, latency_us=0.0),
        tasks={"victim": "mmap_anon A 60 | touch A 60 0 | sleep 1.7 | read_file /f 10 0", "other": "sleep 1000"},
    ).at(2)
    assert out_of_memory(w.row, 0, 1)
    return w


def test_a_victim_dies_when_its_disk_lets_go_of_it() -> None:
    w = slow_reader(128 << 10)  # a second for a window
    w.at(2.2)
    assert int(w.task("victim")["rss_anon"]) > 60 * PAGES, "the wait is uninterruptible"
    w.at(4)
    assert int(w.task("victim")["rss_anon"]) == 0
    assert not any("oom_reaper" in line for line in w.shard.dmesg[0])


def test_after_two_seconds_the_reaper_takes_the_memory_and_another_may_be_chosen() -> None:
    w = slow_reader(16 << 10)  # eight seconds for a window
    w.at(3.9)
    assert int(w.task("victim")["rss_anon"]) > 60 * PAGES
    assert chosen(w) == "-2", "there is hope"
    w.at(4.5)
    assert int(w.task("victim")["rss_anon"]) < PAGES
    assert int(w.task("victim")["state"]) == TASK_EXITING
    assert chosen(w) == "other"
    reaped = [line for line in w.shard.dmesg[0] if "oom_reaper: reaped process" in line]
    assert len(reaped) == 1 and "(victim), now anon-rss:0kB" in reaped[0]
    assert int(w.at(20).task("victim")["state"]) not in (TASK_EXITING, TASK_RUNNING)


@pytest.mark.parametrize(("mode", "global_kills", "memcg_kills"), [(0, 1, 1), (1, 0, 1), (2, 0, 0)])
def test_panic_on_oom(mode: int, global_kills: int, memcg_kills: int) -> None:
    """1: only if the host is out of memory; 2: also for a cgroup (kernel-laws §7.3)."""
    seen = []
    for cg in (0, 1):
        w = world(cgroups={"box": {}}, tasks={"box/a": "sleep 1000"}, sysctl={"vm.panic_on_oom": mode}).at(1)
        out_of_memory(w.row, cg, 0)
        seen.append(w.at(2).vm("oom_kill"))
        assert bool(w.events("oom_panic")) == (seen[-1] == 0)
    assert seen == [global_kills, memcg_kills]
