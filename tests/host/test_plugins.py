# SPDX-License-Identifier: Apache-2.0
"""Processes whose program is Python: they are what a built-in workload doing the same is, byte for byte; they begin anew when they are
restarted; they survive a checkpoint; and what is wrong with one is said in a sentence."""

from __future__ import annotations

import errno
import itertools
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetsim.containers.batch import Batch
from fleetsim.containers.plugin import Area, Kernel, Refused
from fleetsim.host.ports import Ports
from fleetsim.host.spec import DiskSpec, Requests, TaskSpec, Work
from fleetsim.linux import mm_types as mm
from tests.host.plugin_programs import Cache, Nap, Shop, Sorter, plug, stepping
from tests.workloads.works import MIB, MS, S, WorksHost, web_task, works_host

PAGE = 4096
OF_THE_WORK = ("works", "turn")
"""What of a record may differ between twins: the row of the workload itself, and what is left there of the last turn."""


def same_but_for_the_work(a: Any, b: Any) -> list[str]:
    """Fields in which two records differ."""
    return [name for name in a.dtype.names if name not in OF_THE_WORK and a[name].tobytes() != b[name].tobytes()]


def assert_twins(first: WorksHost, second: WorksHost) -> None:
    assert [replace(event) for event in first.seen] == second.seen
    assert first.shard.dmesg == second.shard.dmesg
    assert same_but_for_the_work(first.row, second.row) == []


# ------------------------------------------------------------------------------------------------------------ twins


@settings(max_examples=12)
@given(st.integers(0, 400), st.integers(40, 300), st.sampled_from([0, 256]), st.sampled_from([(1, 1), (2, 1), (4, 1), (2, 2), (4, 2)]))
def test_a_plug_in_that_does_what_idle_does_leaves_the_same_bytes(memory: int, limit: int, swap: int, shape: tuple[int, int]) -> None:
    """With limits that kill it, with swap, beside a neighbour, on one or two nodes: the whole host but the row of the work."""

    def run(task: TaskSpec) -> WorksHost:
        neighbour = TaskSpec("hog", ("mmap_anon a 300", "touch a 300 50", "rewrite a 0 20 seq"), 0.0, "hog")
        more: dict[str, Any] = {
            "memory_mib": 512,
            "cpus": shape[0],
            "numa_nodes": shape[1],
            "swap_bytes": swap * MIB,
            "limits": {"nap": limit},
        }
        return works_host(task, neighbour, **more).at(15)

    idle = TaskSpec("nap", (), 0.0, "nap", restart_s=2.0, work=Work("idle", {"pages": memory * 256}, areas=((memory * 256, False),)))
    assert_twins(run(plug(Nap, "nap", memory=f"{memory}MiB" if memory else 0, restart_s=2.0)), run(idle))


@settings(max_examples=12)
@given(
    st.integers(0, 90),
    st.sampled_from([0, 3, 17, 200]),
    st.sampled_from([0, 100, 1000, 1500]),
    st.sampled_from([0, 20_000, 100_000]),
    st.booleans(),
    st.sampled_from([96, 512]),
)
def test_a_plug_in_that_does_what_batch_does_leaves_the_same_bytes(
    size: int, memory: int, permille: int, page_ns: int, fsync: bool, memory_mib: int
) -> None:
    """Reading, sorting in memory, writing through dirty throttling, fsync, exit."""
    files = {"/data/in": 40 * MIB}

    def run(task: TaskSpec) -> WorksHost:
        return works_host(task, memory_mib=memory_mib, files=files, disk=DiskSpec(100_000_000, 500.0)).at(20)

    keys: dict[str, Any] = {"input": "/data/in", "work_memory": f"{memory}MiB" if memory else 0, "fsync": fsync}
    keys |= {"size": f"{size}MiB"} if size else {}
    keys |= {"output": "/data/out"} if permille else {}
    (process,) = Batch.model_validate(keys | ({"output_share": permille / 10} if permille else {})).processes("job")
    assert process.work is not None
    work = replace(process.work, values={**process.work.values, "page_ns": page_ns, "output_permille": permille})
    most = max(pages for _, pages, _ in work.files) * PAGE
    sorter = plug(Sorter, "job", permille=permille, page_ns=page_ns, most=most, **keys)
    assert_twins(run(sorter), run(TaskSpec("job", (), 0.0, "job", work=work)))


@pytest.mark.parametrize("limit", [None, 24])
def test_a_plug_in_that_does_what_web_does_answers_the_same_requests_in_the_same_time(limit: int | None) -> None:
    """Its users see the same: counters and histogram are equal, also when reclaim and a slow disk stall it under a limit."""
    users: dict[str, Any] = {"load": "200/s", "workers": 8, "queue": 1000, "timeout": 0, "slo": {"latency": "100ms"}}
    more: dict[str, Any] = {"limits": {"shop": limit} if limit else {}, "swap_bytes": 256 * MIB, "disk": DiskSpec(50_000_000, 4000.0)}
    base = "32MiB"
    plugged = works_host(plug(Shop, "shop", base=base, **users), **more).at(40)
    built_in = works_host(web_task("shop", rate=200, base_mib=32, peak_ns=14 * 3600 * S), **more).at(40)
    mine, theirs = plugged.server("shop"), built_in.server("shop")
    assert int(theirs["served"]) > 1000
    assert [name for name in mine.dtype.names if mine[name].tobytes() != theirs[name].tobytes()] == []
    assert_twins(plugged, built_in)
    if limit:
        assert int(theirs["buckets"][2:].sum()) > 50, "some of them waited for the disk"


# -------------------------------------------------------------------------------------------- once more, and in pieces


def crowded() -> WorksHost:
    """A cache that is killed now and then, a sorter and a nap on one CPU."""
    cache = plug(Cache, "cache", memory="64MiB", item="4KiB", keys=100_000, load="2000/s", timeout="1s", restart_s=3.0)
    sorter = plug(Sorter, "job", input="/data/in", work_memory="20MiB", output="/data/out", most=64 * MIB)
    nap = plug(Nap, "nap", memory="30MiB")
    return works_host(cache, sorter, nap, cpus=1, memory_mib=256, files={"/data/in": 60 * MIB}, limits={"cache": 40})


def test_the_same_again_in_pieces_of_any_length_and_after_a_checkpoint() -> None:
    """A checkpoint is the records' bytes and what stands beside them, pickled, among it the programs."""
    whole = crowded().at(20)
    kills = [when for when, kind, _ in whole.told("oom_kill")]
    assert len(kills) >= 2, "the cache is killed and comes back"

    pieces = crowded()
    for when in sorted({0.1, 3.33333, 9.87, 12.000001, 19.9999999, *kills}):
        pieces.at(when)
    assert_twins(whole, pieces.at(20))
    assert whole.row.tobytes() == pieces.row.tobytes()

    before, after = crowded().at(kills[1] + 1.5), crowded()
    before_program = before.shard.names_of(0).plugins[0].program
    assert before_program.items > 0
    after.shard.restore(before.shard.snapshot())
    state = pickle.loads(pickle.dumps((before.shard._names, before.shard._pending, before.shard._seq, before.shard._killed)))
    after.shard._names, after.shard._pending, after.shard._seq, after.shard._killed = state
    after.shard.drain_events()
    assert after.shard.names_of(0).plugins[0].program is not before_program
    after.seen = list(before.seen)
    assert after.at(20).row.tobytes() == whole.row.tobytes()
    assert after.seen == whole.seen


def test_a_process_that_starts_again_knows_nothing_of_its_life_before() -> None:
    """A program that counts its steps and draws luck: both begin anew, and the luck is another one in each life."""
    lives: list[list[int]] = []

    def step(program: Any, kernel: Kernel) -> None:
        if not hasattr(program, "area"):
            program.area = kernel.mmap(200 * MIB)
            lives.append([])
        lives[-1].append(kernel.luck(1_000_000))
        kernel.touch(program.area)
        kernel.sleep(0.1)

    host = works_host(stepping("p", step, restart_s=1.0), limits={"p": 64}).at(10)
    kills = len(host.told("oom_kill"))
    assert kills >= 2 and len(lives) in (kills, kills + 1)
    assert len({draw for life in lives for draw in life}) > 0.9 * sum(map(len, lives))
    seen = [list(life) for life in lives]
    lives.clear()
    works_host(stepping("p", step, restart_s=1.0), limits={"p": 64}).at(10)
    assert lives == seen, "the same luck in the same run"


# --------------------------------------------------------------------------------------------------- what calls return


def trace(*steps: Callable[[Any, Kernel], Any], files: tuple[str, ...] = (), **more: Any) -> tuple[list[Any], WorksHost]:
    """What each step returned, one a turn, and the host. A step that returns False is taken again, as a program does that waits."""
    answers: list[Any] = []

    def step(program: Any, kernel: Kernel) -> None:
        if len(answers) == len(steps):
            kernel.sleep(86_400)
            return
        answer = steps[len(answers)](program, kernel)
        if answer is not False:
            answers.append(answer)

    return answers, works_host(stepping("p", step, files=files), files=more.pop("host_files", {}), **more).at(20)


def filled(kernel: Kernel, area: Area, size: int) -> int:
    """Touch `area` up to `size`, in one step."""
    done = 0
    while area.touched < size:
        done += kernel.touch(area, size - area.touched)
    return done


def test_memory_is_mapped_touched_discarded_locked_and_given_back() -> None:
    rss: list[int] = []

    def see(program: Any, kernel: Kernel) -> Any:
        rss.append(int(kernel._row["tasks"][0]["rss_anon"]) * PAGE // MIB)

    def mmap(program: Any, kernel: Kernel) -> None:
        program.a = kernel.mmap(100 * MIB)

    answers, host = trace(
        mmap,
        lambda p, k: (filled(k, p.a, 40 * MIB), p.a.touched, p.a.is_full),
        see,
        lambda p, k: 0 < k.access(p.a, 10 * MIB, at=20 * MIB, write=True) <= 10 * MIB,
        lambda p, k: k.is_resident(p.a),
        lambda p, k: (k.discard(p.a, "first", 10 * MIB), p.a.bytes)[1],
        see,
        lambda p, k: not k.is_resident(p.a),
        lambda p, k: k.mlock(p.a, onfault=True),
        lambda p, k: k.madvise(p.a, "dontneed"),
        see,
        lambda p, k: p.a.touched,
        lambda p, k: k.touch(p.a, 200 * MIB) > 0,
        lambda p, k: k.munmap(p.a),
        see,
        memory_mib=512,
    )
    assert answers[1] == (40 * MIB, 40 * MIB, False)
    assert answers[3:5] == [True, True] and answers[7:10] == [True, True, True] and answers[11] == 0
    assert rss == [pytest.approx(40, abs=2), pytest.approx(30, abs=2), pytest.approx(0, abs=2), pytest.approx(0, abs=2)]
    assert int(host.row["committed"]) < 4096


def test_files_are_written_synced_read_mapped_and_removed() -> None:
    """The fsync takes what 8 MiB take on a disk of 100 MB/s."""
    began: list[float] = []
    answers, host = trace(
        lambda p, k: k.creat("/data/out"),
        lambda p, k: k.write("/data/out", 0, 8 * MIB),
        lambda p, k: k.file_size("/data/out"),
        lambda p, k: began.append(k.now),
        lambda p, k: k.fsync("/data/out"),
        lambda p, k: began.append(k.now),
        lambda p, k: k.read("/data/in", 0, 4 * MIB) or False,
        lambda p, k: k.read("/data/in", 60 * MIB, 8 * MIB),
        lambda p, k: setattr(p, "map", k.mmap_file("/data/out")),
        lambda p, k: 0 < k.access(p.map, 8 * MIB) <= 8 * MIB,
        lambda p, k: k.munmap(p.map),
        lambda p, k: k.unlink("/data/out"),
        lambda p, k: k.file_size("/data/out"),
        lambda p, k: k.pread("/data/random", 50, at_once=4) or False,
        files=("/data/in", "/data/out", "/data/random"),
        host_files={"/data/in": 60 * MIB, "/data/random": 60 * MIB},
        memory_mib=512,
        disk=DiskSpec(100_000_000, 100.0),
    )
    assert answers[0] is True and answers[1] == answers[2] == 8 * MIB
    assert 0 < answers[6] <= 4 * MIB and answers[7] == 0, "beyond the end"
    assert began[1] - began[0] == pytest.approx(8 * MIB / 100e6, rel=0.3)
    assert answers[9:13] == [True, True, True, 0]
    assert 0 < answers[13] <= 50 * PAGE
    assert int(host.row["tasks"][0]["majflt"]) == 0, "read() is no fault, and what was written was cached"


def test_a_call_is_on_the_bill_and_sleeps_end_when_they_say() -> None:
    at: list[float] = []
    note = lambda p, k: at.append(k.now)  # noqa: E731
    trace(
        lambda p, k: (note(p, k), k.compute(0.25)),
        lambda p, k: (note(p, k), k.sleep(1.0)),
        lambda p, k: (note(p, k), k.compute(0.5), k.sleep(1.0)),
        lambda p, k: (note(p, k), k.sleep_until(k.now + 2)),
        lambda p, k: (note(p, k), k.compute(0.5), k.sleep_until(0)),
        note,
    )
    gaps = [b - a for a, b in itertools.pairwise(at)]
    assert gaps == pytest.approx([0.25, 1.0, 1.5, 2.0, 0.5], abs=1e-6)


def test_a_refusal_can_be_caught_and_if_it_is_not_the_process_exits_with_1() -> None:
    def careful(program: Any, kernel: Kernel) -> str:
        with pytest.raises(Refused) as refused:
            kernel.mmap(2 << 30)
        return errno.errorcode[refused.value.errno or 0]

    answers, host = trace(careful, sysctl={"vm.overcommit_memory": 2})
    assert answers == ["ENOMEM"] and host.told("task_exit") == []
    _, host = trace(lambda p, k: k.mmap(2 << 30), sysctl={"vm.overcommit_memory": 2})
    assert [event.data["exit_code"] for event in host.seen if event.kind == "task_exit"] == [1]


def test_whoever_is_killed_in_a_call_does_not_come_back_from_it() -> None:
    came_back: list[str] = []

    def step(program: Any, kernel: Kernel) -> None:
        area = kernel.mmap(200 * MIB)
        try:
            while True:
                kernel.touch(area)
                kernel.madvise(area, "normal")
        except Exception:
            came_back.append("as an exception that a program may catch")
        came_back.append("as if nothing had happened")

    host = works_host(stepping("p", step), limits={"p": 64}).at(5)
    assert len(host.told("oom_kill")) == 1 and came_back == []


def test_exit_ends_it_with_its_code_and_the_requests_it_had_are_lost() -> None:
    def step(program: Any, kernel: Kernel) -> None:
        if kernel.now < 1:
            kernel.come_up()
            kernel.sleep(2)
            return
        assert kernel.take(1000) > 0
        kernel.exit(7)

    users = Requests(workers=4, rate_milli=100_000, queue_max=10_000)
    host = works_host(stepping("p", step, requests=users)).at(5)
    assert [event.data["exit_code"] for event in host.seen if event.kind == "task_exit"] == [7]
    (port,) = Ports(host.shard.records, [host.shard.names_of(0)], [(0, "p")]).read()
    assert (int(port["ready"]), int(port["served"])) == (0, 0)
    assert int(port["broken"]) == pytest.approx(200, abs=10), "they came in its two seconds"
    assert int(port["refused"]) == pytest.approx(300, abs=10), "nobody listens any more"


def test_requests_are_answered_side_by_side_failed_and_held_up_by_a_pause() -> None:
    def step(program: Any, kernel: Kernel) -> None:
        if not hasattr(program, "up"):
            program.up = True
            kernel.come_up()
            kernel.rest(1.0)
            return
        n = kernel.take(1000)
        if n:
            kernel.compute(n * 0.010)
            kernel.finish()
            kernel.fail(n // 2)
        if kernel.now > 5 and not hasattr(program, "paused"):
            program.paused = True
            kernel.pause(0.5)
        kernel.rest(kernel.tick)

    users = Requests(workers=4, rate_milli=100_000, queue_max=10_000, slo_ns=100 * MS)
    host = works_host(stepping("p", step, requests=users), cpus=4).at(10)
    server = host.server("p")
    assert int(server["served"]) + int(server["broken"]) == pytest.approx(1000 - 20, abs=25)
    assert int(server["broken"]) == pytest.approx(int(server["served"]), rel=0.1)
    assert int(server["late"]) == pytest.approx(50, abs=20), "those who came in the half second of the pause"


def test_a_host_without_plug_ins_has_no_turn_under_way() -> None:
    host = works_host(web_task("shop", rate=100)).at(5)
    assert int(host.row["asking"]) == 0 and host.shard.names_of(0).plugins == {}
    assert np.count_nonzero(host.row["tasks"]["state"] == mm.TASK_RUNNING) == 1
