# SPDX-License-Identifier: Apache-2.0
"""Stories that once ended wrongly. Each was found by reading, proved by a run, and told here as it should go."""

from __future__ import annotations

import pytest

from fleetsim.host.spec import Command
from fleetsim.host.step import FREE_STEPS_MAX
from tests.host.worlds import world

S = 1_000_000_000


def test_an_idle_neighbours_finished_writes_do_not_keep_a_cgroup_from_swapping() -> None:
    """a swaps a little and sleeps; b then needs 500 MiB of swap through 32 MiB of memory: there is room, so nobody dies."""
    w = world(
        swap_mib=1024,
        cgroups={"a": {"memory.max": 32}, "b": {"memory.max": 32}},
        tasks={"a/idle": "mmap_anon A 50 | touch A 50 0 | sleep 200", "b/busy": "mmap_anon B 500 | touch B 500 20 | sleep 100"},
        start_s={"busy": 2},
    ).at(40)
    assert w.kills() == []
    assert w.progress_mib("busy") == 500


def test_the_brake_of_memory_high_is_the_same_at_every_tick() -> None:
    """100 MiB/s against memory.high of 40 MiB without swap: a crawl of some MiB in half a minute, however long a tick is."""
    usage = []
    for tick_ms in (10, 200):
        w = world(cgroups={"g": {"memory.high": 40}}, tasks={"g/t": "mmap_anon A 200 | touch A 200 100 | sleep 99"}, tick_ms=tick_ms).at(30)
        usage.append(int(w.cg("g")["usage"]) // 256)
    assert 40 < usage[0] < 50
    assert abs(usage[0] - usage[1]) <= 1


def test_a_limit_lowered_below_an_idle_task_is_reached_with_swap_and_kills_nobody() -> None:
    w = world(swap_mib=512, cgroups={"g": {}}, tasks={"g/t": "mmap_anon A 150 | touch A 150 0 | sleep 99"}).at(2)
    w.shard.command(Command(3 * S, w.shard.names[0], "limit", {"cgroup": "g", "file": "memory.max", "bytes": 50 << 20}))
    w.at(20)
    assert int(w.cg("g")["usage"]) <= 50 * 256
    assert w.kills() == []


def test_memory_written_before_it_was_touched_is_faulted_in() -> None:
    """The first round over an area is made of faults, swept or at random; after that it is resident."""
    for pattern in ("seq", "random"):
        w = world(tasks={"t": f"mmap_anon A 40 | rewrite A 200 0 {pattern} | sleep 99"}).at(5)
        assert int(w.task("t")["rss_anon"]) // 256 == 40, pattern
        assert w.progress_mib("t") == 200


def test_a_kill_by_a_lowered_limit_is_logged_at_its_own_instant_with_the_victim_still_in_the_table() -> None:
    w = world(cgroups={"g": {}}, tasks={"g/victim": "mmap_anon A 100 | touch A 100 0 | sleep 99"}).at(2)
    w.shard.command(Command(2 * S + S // 2, w.shard.names[0], "limit", {"cgroup": "g", "file": "memory.max", "bytes": 20 << 20}))
    w.at(3)
    log = w.shard.dmesg[0]
    assert all("[    2.500000]" in line for line in log)
    assert any(line.split()[-1] == "victim" for line in log), "its row of the task table"
    assert any("total-vm:" in line and "total-vm:0kB" not in line for line in log)


def test_a_childs_exit_does_not_close_its_parents_pipes() -> None:
    """They were given back twice: once by the child that had them open too, once by the parent."""
    w = world(tasks={"t": "pipes 10 0 | fork_hold 2 | sleep 3 | exit 0"}).at(1)
    held = int(w.row["other_kernel"])
    assert held - int(w.at(2.5).row["other_kernel"]) == 0, "the child is gone, the pipes are not"
    assert held - int(w.at(8).row["other_kernel"]) == 10


def test_a_parents_exit_leaves_the_pipes_to_the_child_that_has_them_open_too() -> None:
    w = world(tasks={"t": "pipes 10 0 | fork_hold 4 | sleep 1 | exit 0"}).at(0.5)
    held = int(w.row["other_kernel"])
    assert int(w.at(2).row["other_kernel"]) == held, "the parent is gone"
    assert int(w.at(6).row["other_kernel"]) == held - 10


def test_a_write_that_gets_fewer_new_pages_than_it_wants_writes_to_the_cached_ones_all_the_same() -> None:
    """It stopped after the new ones: the file then had more pages in the cache than it was long, and the next write cost less than nothing.
    Found by a random program: a task in a cgroup whose parent leaves it 17 MiB writes over a file, with a second one in its way."""
    w = world(
        memory_mib=1751,
        cpus=1,
        tick_ms=20.0,
        lru_gen="1",
        sysctl={"overcommit_memory": 2},
        files={"/f0": 1, "/f1": 1},
        cgroups={
            "g0": {"memory.low": 17, "memory.high": 350, "memory.max": 17},
            "g0/g1": {"memory.low": 2276, "memory.high": 2276, "memory.max": 700},
            "g0/g2": {"memory.oom.group": 1},
            "g0/g2/g3": {"memory.low": 350, "memory.high": 700, "memory.max": 87},
        },
        tasks={
            "g0/g2/t0": "shm A 1 | write_file /f0 17 35 over | write_file /dev/shm/t 1225 1751 over",
            "t1": "mmap_anon B 350 | touch B 350 350 | unlink /f0",
            "t2": "free B munmap | shm B 2276 | touch B 2276 35 | mmap_anon A 2276 thp | write_file /f0 1225 1751 over | exit 8",
            "g0/g2/t3": "unlink /f0 | mtrim",
            "t4": "free A dontneed all | write_file /dev/shm/t 1225 1751 over",
        },
    )
    for tenth in range(1, 11):
        w.at(tenth / 10)  # each look checks that no group has more pages resident than pages
        assert int(w.row["cpu_ns"].min()) >= 0


def test_an_op_that_does_nothing_and_takes_no_time_stops_the_run_and_does_not_hang_it() -> None:
    w = world(tasks={"t": "sleep 1 | until 0 | sleep 99"}).at(0.5)
    w.row["free_steps"] = FREE_STEPS_MAX - 1
    with pytest.raises(AssertionError, match="for ever"):
        w.at(2)
