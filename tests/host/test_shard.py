# SPDX-License-Identifier: Apache-2.0
"""A shard: commands in at their instant, events out in order, hosts that know nothing of each other, snapshots."""

from __future__ import annotations

import pickle

import pytest

from fleetsim.errors import BadInput
from fleetsim.host.shard import Shard
from fleetsim.host.spec import CgroupSpec, Command
from fleetsim.linux.memcontrol import nr_dying_descendants
from fleetsim.linux.mm_types import NO_LIMIT, NS_PER_S
from tests.host.worlds import PAGES, host_spec, task_spec, world

GROW = "mmap_anon A 200 | touch A 200 50 | sleep 1000"


def test_a_host_says_that_it_booted_and_with_how_much() -> None:
    w = world(512)
    (boot,) = w.events()
    assert (boot.kind, boot.subject, boot.seq, boot.data) == ("boot", "host", 0, {"memory_pages": int(w.row["totalram"])})


def test_the_whole_story_of_a_kill_and_a_restart_in_order() -> None:
    w = world(tasks={"hog": GROW}, restart_s={"hog": 1.0})
    for second in range(1, 7):
        w.at(second)
    assert [event.kind for event in w.events()] == [
        "boot",
        "task_start",
        "oom_kill",
        "impact_start",
        "task_exit",
        "restart",
        "impact_end",
    ]
    kill, start, end = w.events("oom_kill", "task_exit", "restart")
    assert (kill.subject, start.data["exit_code"], start.data["oom_killed"]) == ("hog", 137, True)
    assert end.t_ns - start.t_ns == NS_PER_S


@pytest.mark.parametrize("at_s", [0.0, 1.0, 1.2345])
def test_a_command_is_carried_out_at_its_own_instant_whenever_it_was_given(at_s: float) -> None:
    w = world(tasks={"a": "sleep 100"})
    w.command(at_s, "sysctl", name="vm.swappiness", value=17)
    if at_s:
        w.at(at_s - 0.001)
        assert w.row["sysctl"]["swappiness"] == 60
    w.at(5)
    assert w.row["sysctl"]["swappiness"] == 17
    (done,) = w.events("command")
    assert (done.t_ns, done.subject, done.data) == (
        round(at_s * 1e9),
        "sysctl",
        {"author": "chaos", "name": "vm.swappiness", "value": 17},
    )


def test_a_command_that_comes_late_is_carried_out_at_once() -> None:
    w = world().at(3)
    w.command(1, "sysctl", name="vm.swappiness", value=5)
    w.at(3)
    (done,) = w.events("command")
    assert done.t_ns == 3 * NS_PER_S


def test_commands_of_one_instant_keep_the_order_in_which_they_were_given() -> None:
    w = world()
    for value in (1, 2, 3):
        w.command(1, "sysctl", name="vm.swappiness", value=value)
    w.at(2)
    assert [event.data["value"] for event in w.events("command")] == [1, 2, 3]
    assert w.row["sysctl"]["swappiness"] == 3


def test_watermarks_follow_their_knobs_at_once() -> None:
    w = world(1024)
    before = int(w.row["zones"][1]["wmark"][0])
    w.command(1, "sysctl", name="vm.min_free_kbytes", value=int(w.row["sysctl"]["min_free_kbytes"]) * 4)
    w.at(2)
    assert int(w.row["zones"][1]["wmark"][0]) == pytest.approx(4 * before, rel=0.01)


def test_a_thread_added_to_a_task_shares_its_memory_and_ends_without_it() -> None:
    w = world(tasks={"a": "mmap_anon A 10 | touch A 10 100 | sleep 100"})
    w.command(1, "start_thread", task="a", thread="leak", ops=("mmap_anon L 100", "touch L 100 20"))
    w.at(3)
    grown = int(w.task("a")["rss_anon"]) - int(w.task("a")["base_anon"])
    assert grown == pytest.approx(50 * PAGES, rel=0.02)
    w.command(3, "stop_thread", task="a", thread="leak")
    w.at(6)
    assert int(w.task("a")["rss_anon"]) - int(w.task("a")["base_anon"]) == pytest.approx(grown, abs=64)
    assert w.events("task_exit") == [], "the task lives, and keeps what the thread took"


def test_a_new_task_starts_where_its_cgroup_is() -> None:
    w = world(cgroups={"box": {}})
    w.command(1, "start_task", spec=task_spec("box/late", "mmap_anon A 10 | touch A 10 100 | sleep 100"))
    w.at(3)
    assert int(w.cg("box")["anon"]) > 10 * PAGES
    assert [event.t_ns for event in w.events("task_start")] == [NS_PER_S]


@pytest.mark.parametrize(
    ("kind", "args", "words"),
    [
        ("reboot", {}, "unknown command 'reboot'"),
        ("kill", {"task": "b"}, "no task 'b'.*it has: a"),
        ("limit", {"cgroup": "box", "file": "memory.numa_stat", "bytes": 1}, "unknown cgroup file.*memory.max"),
        ("start_thread", {"task": "a", "thread": "t", "ops": ("dance",)}, "unknown op 'dance'"),
        ("start_task", {"spec": task_spec("nowhere/x", "sleep 1")}, "unknown cgroup 'nowhere'"),
    ],
)
def test_a_command_that_cannot_be_is_refused_in_a_sentence(kind: str, args: dict[str, object], words: str) -> None:
    w = world(cgroups={"box": {}}, tasks={"a": "sleep 100"})
    w.command(1, kind, **args)
    with pytest.raises(BadInput, match=words):
        w.at(2)


def test_an_unknown_host_cannot_be_commanded() -> None:
    with pytest.raises((BadInput, ValueError)):
        world().shard.command(Command(0, "elsewhere", "kill", {}))


def shard_of(*names: str, first_index: int = 0) -> Shard:
    specs = [host_spec(tasks={"hog": GROW, "r": "read_file /f 0 100"}, files={"/f": 60}) for _ in names]
    return Shard([spec.__class__(**{**spec.__dict__, "name": name}) for spec, name in zip(specs, names, strict=True)], 7, first_index)


def test_hosts_of_a_shard_know_nothing_of_each_other() -> None:
    """The same host alone, and as the second of three: the same bytes; neighbours may even stand at another time."""
    alone, three = shard_of("b", first_index=1), shard_of("a", "b", "c")
    alone.advance(0, 6 * NS_PER_S)
    for i, seconds in enumerate((2, 6, 4)):
        three.advance(i, seconds * NS_PER_S)
    assert three.records[1].tobytes() == alone.records[0].tobytes()
    assert [event for event in three.drain_events() if event.host == "b"] == alone.drain_events()
    assert three.dmesg[1] == alone.dmesg[0] != []


def test_events_of_several_hosts_come_sorted_by_time_then_host() -> None:
    shard = shard_of("b", "a")
    for i in range(2):
        shard.advance(i, 6 * NS_PER_S)
    keys = [(event.t_ns, event.host, event.seq) for event in shard.drain_events()]
    assert keys == sorted(keys)
    assert {host for _, host, _ in keys} == {"a", "b"}


def test_a_snapshot_is_the_records_and_nothing_else() -> None:
    shard, other = shard_of("a", "b"), shard_of("a", "b")
    shard.advance(0, 2 * NS_PER_S)
    other.restore(shard.snapshot())
    assert other.snapshot() == shard.snapshot()
    assert int(other.records[0]["now_ns"]) == 2 * NS_PER_S
    assert int(other.records[1]["now_ns"]) == 0


def test_a_state_has_what_waits_to_be_done_and_to_be_told() -> None:
    shard, other = shard_of("a"), shard_of("a")
    shard.advance(0, 2 * NS_PER_S)
    shard.command(Command(3 * NS_PER_S, "a", "sysctl", {"name": "vm.swappiness", "value": 7}))
    other.resume(pickle.loads(pickle.dumps(shard.state())))
    for one in (shard, other):
        one.advance(0, 6 * NS_PER_S)
    assert other.snapshot() == shard.snapshot()
    told = other.drain_events()
    assert told == shard.drain_events()
    assert {"boot", "command"} <= {event.kind for event in told}
    with pytest.raises(BadInput, match="state of the hosts b"):
        other.resume(shard_of("b").state())


def test_a_removed_cgroup_is_a_zombie_until_its_cache_is_gone_and_then_its_row_is_used_again() -> None:
    """Jobs in cgroups of their own that read files and are removed: what they read stays charged to them (kernel-laws §8.2)."""
    w = world(files={f"/f{i}": 10 for i in range(3)})
    rows = []
    for i in range(3):
        w.command(i * 4, "mkdir", spec=CgroupSpec(f"job{i}", limits={"memory.max": 64 << 20}))
        w.command(i * 4, "start_task", spec=task_spec(f"job{i}/reader{i}", f"read_file /f{i} 10 0 | exit 0"))
        w.at(i * 4 + 2)
        rows.append(w.shard.names_of(0).cgroups[f"job{i}"])
        w.command(i * 4 + 2, "rmdir", cgroup=f"job{i}")
    w.at(12)
    assert rows == [1, 2, 3]
    assert nr_dying_descendants(w.row, 0) == 3
    assert int(w.row["cgroups"][0]["children"]) == 3
    assert [int(w.row["cgroups"][i]["usage"]) >= 10 * PAGES for i in rows] == [True] * 3
    w.command(12, "start_task", spec=task_spec("admin", "sysw /proc/sys/vm/drop_caches 3"))
    w.command(14, "mkdir", spec=CgroupSpec("next"))
    w.at(15)
    assert nr_dying_descendants(w.row, 0) == 0
    assert w.shard.names_of(0).cgroups["next"] == 1
    assert int(w.row["cgroups"][0]["children"]) == 1


def test_a_cgroup_with_a_process_or_a_cgroup_in_it_is_busy() -> None:
    w = world(cgroups={"box": {}}, tasks={"box/app": "sleep 2 | exit 0"}).at(1)
    w.command(1, "mkdir", spec=CgroupSpec("inner", "box"))
    w.command(1, "rmdir", cgroup="box")
    with pytest.raises(BadInput, match=r"cgroup 'box' is busy \(EBUSY\): app, inner"):
        w.at(1.5)
    w.command(5, "rmdir", cgroup="inner")
    w.command(5, "rmdir", cgroup="box")
    assert list(w.at(6).shard.names_of(0).cgroups) == [""]
    w.command(6, "rmdir", cgroup="box")
    with pytest.raises(BadInput, match="no cgroup 'box'"):
        w.at(7)


def test_what_a_removed_cgroup_evicted_is_no_recent_refault_for_the_next_one() -> None:
    """mm/workingset.c: mem_cgroup_from_id finds nobody. While the cgroup is there, its working set makes the same pages active."""
    ops = "read_file /hot 20 0 | read_file /hot 20 0 | read_file /f 40 0 | exit 0"
    for removed in (False, True):
        w = world(512, files={"/f": 40, "/hot": 20}, cgroups={"a": {"memory.max": 32}, "b": {}}, tasks={"a/r": ops}).at(3)
        before = w.vm("workingset_activate_file")
        if removed:
            w.command(5, "rmdir", cgroup="a")
        w.command(6, "start_task", spec=task_spec("b/again", "read_file /f 40 0 | sleep 99"))
        w.at(9)
        assert w.vm("workingset_refault_file") > 0
        assert (w.vm("workingset_activate_file") > before) is not removed


def test_who_writes_to_the_file_of_a_removed_cgroup_changes_nobody_elses() -> None:
    w = world(cgroups={"a": {}}, tasks={"t": "sleep 5 | sysw /sys/fs/cgroup/a/memory.max 20M | sleep 99"}).at(1)
    w.command(1, "rmdir", cgroup="a")
    w.command(2, "mkdir", spec=CgroupSpec("b"))
    w.at(8)
    assert int(w.cg("b")["max"]) == NO_LIMIT
