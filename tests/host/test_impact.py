# SPDX-License-Identifier: Apache-2.0
"""Harm is measured by work not done: opened below half of the pace, closed at four fifths, never judged by memory."""

from __future__ import annotations

from tests.host.worlds import DiskSpec, World, world

DISK = DiskSpec(bytes_per_s=10 << 20, latency_us=0.0)


def slow(w: World) -> list[tuple[str, float]]:
    return [(event.kind, event.t_ns / 1e9) for event in w.events("impact_start", "impact_end") if event.data["impact"] == "slow"]


def test_a_task_that_keeps_its_pace_has_no_impact_however_little_memory_is_left() -> None:
    w = world(tasks={"a": "mmap_anon A 170 | touch A 170 100 | rewrite A 0 20 seq"}).at(60)
    assert w.meminfo("MemFree") < 15
    assert slow(w) == []


def test_half_the_pace_for_ten_seconds_opens_it_and_the_pace_kept_again_closes_it() -> None:
    """A reader of 40 MiB/s on a disk of 10; once its file is cached it keeps the pace."""
    w = world(disk=DISK, files={"/f": 150}, tasks={"r": "read_file /f 0 40"}).at(60)
    assert slow(w)[0] == ("impact_start", 10.0)
    assert [kind for kind, _ in slow(w)] == ["impact_start", "impact_end"]
    assert slow(w)[1][1] in (20.0, 30.0)


def test_between_half_and_four_fifths_neither_opens_nor_closes() -> None:
    w = world(disk=DISK, files={"/f": 5000}, tasks={"r": "read_file /f 0 15"}).at(60)  # two thirds of its pace, for ever
    assert slow(w) == []


def test_an_unpaced_task_cannot_be_slow_and_a_sleeping_one_neither() -> None:
    w = world(disk=DISK, files={"/f": 5000}, tasks={"r": "read_file /f 0 0", "s": "sleep 1000"}).at(60)
    assert slow(w) == []


def test_the_impact_ends_with_its_task() -> None:
    w = world(disk=DISK, files={"/f": 5000}, tasks={"r": "read_file /f 0 100"})
    w.command(15, "kill", task="r")
    w.at(60)
    assert slow(w) == [("impact_start", 10.0), ("impact_end", 20.0)]


def test_a_kill_by_the_kernel_is_an_impact_until_the_task_runs_again() -> None:
    ops = {"hog": "mmap_anon A 200 | touch A 200 50 | sleep 1000"}
    for restart, ended in ((None, 0), (1.0, 1)):
        w = world(tasks=ops, restart_s={"hog": restart} if restart else None)
        for second in range(1, 7):
            w.at(second)
        killed = [event.kind for event in w.events("impact_start", "impact_end")]
        assert killed == ["impact_start"] + ["impact_end"] * ended
