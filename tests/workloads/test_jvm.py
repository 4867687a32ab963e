# SPDX-License-Identifier: Apache-2.0
"""The JVM workload: collections, the heap in pages, OutOfMemoryError against a kill by the kernel, and a heap that is in swap."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleetsim.host.spec import DiskSpec, TaskSpec
from fleetsim.workloads import jvm_state as v
from scripts.worlds.jvm import MIB, JvmWorld, a_jvm

YOUNG, MIXED, FULL, REMARK = range(4)
LATENCY_MS = 0.2
SLOW = DiskSpec(bytes_per_s=2_000_000_000, latency_us=1000 * LATENCY_MS)


def filled(world: JvmWorld) -> float:
    """Run until it answers; the second at which it did."""
    at = 0.0
    while world["STAGE"] != v.SERVING:
        at += 0.1
        world.at(at)
        assert at < 60, "it never came up"
    return at


# ------------------------------------------------------------------------------------------- collections, as often as eden fills


def test_young_collections_come_as_often_as_the_rate_fills_eden() -> None:
    """kernel-laws §16.1: alloc_rate / eden collections per second; Serial's eden is 8/10 of a third of the heap."""
    jvm = a_jvm({"collector": "serial", "xmx": "300MiB", "xms": "300MiB", "live_set": "50MiB", "allocation_rate": "40MiB/s"})
    at = filled(jvm)
    before = jvm.count(YOUNG)
    jvm.at(at + 60)
    assert abs(jvm.count(YOUNG) - before - 60 * 40 / 80) <= 1


def test_g1_has_a_tenth_in_reserve_and_lets_eden_take_the_rest_up_to_six_tenths() -> None:
    say = {"collector": "g1", "xmx": "1GiB", "xms": "1GiB", "allocation_rate": "200MiB/s", "tenured_share": 0.0}
    for live_mib, least, most in ((300, 0.55, 0.6), (400, 0.49, 0.51)):
        jvm = a_jvm({**say, "live_set": f"{live_mib}MiB"})
        jvm.at(filled(jvm) + 40)  # G1 has seen by then that nothing survives
        assert least * 1024 <= jvm["EDEN_MAX"] // MIB <= most * 1024  # the real one had 570 to 598 MiB beside 300
        assert jvm["OLD_USED"] // MIB == live_mib


def test_what_lives_long_is_promoted_and_what_it_replaces_is_garbage_until_mixed_collections() -> None:
    jvm = a_jvm(
        {"collector": "g1", "xmx": "512MiB", "xms": "512MiB", "live_set": "180MiB", "allocation_rate": "100MiB/s", "tenured_share": 5.0}
    )
    at = filled(jvm)
    most = 0
    for _ in range(120):
        at += 0.5
        jvm.at(at)
        most = max(most, jvm["OLD_USED"])
        assert jvm["OLD_LIVE"] <= 180 * MIB
    assert most > 0.45 * 512 * MIB, "marking starts above 45 %"
    assert jvm.count(MIXED) >= 8 and jvm.count(REMARK) >= 2
    assert jvm.count(FULL) == 0


def test_serial_has_no_mixed_collections_but_full_ones() -> None:
    jvm = a_jvm(
        {"collector": "serial", "xmx": "300MiB", "xms": "300MiB", "live_set": "100MiB", "allocation_rate": "100MiB/s", "tenured_share": 5.0}
    )
    at = filled(jvm)
    for _ in range(120):
        at += 0.5
        jvm.at(at)
        assert jvm["OLD_LIVE"] <= 100 * MIB
    # old has 200 MiB, of them 100 garbage: one full collection for 100 MiB promoted, at 5 MiB/s
    assert 2 <= jvm.count(FULL) <= 4
    assert jvm.count(MIXED) == jvm.count(REMARK) == 0


def test_a_pause_stops_all_workers_and_is_in_the_latency_of_those_who_came_meanwhile() -> None:
    """A full collection of 600 MiB with one thread takes about half a second; at 50/s some 25 requests wait for it, of thousands."""
    say = {"collector": "serial", "xmx": "1GiB", "xms": "1GiB", "live_set": "600MiB", "allocation": "1MiB", "load": "50/s", "cpu": "1ms"}
    jvm = a_jvm({**say, "tenured_share": 3.0})
    at = filled(jvm)
    while jvm.count(FULL) == 0:
        at += 1
        jvm.at(at)
    jvm.at(at + 2)
    slow = sum(int(n) for n in jvm.server["buckets"][5:])  # above 100 ms
    assert 0.4 < jvm.pause_s(FULL) < 0.8
    assert 0.5 * 50 * (jvm.pause_s(FULL) - 0.1) <= slow <= 2 * 50 * jvm.pause_s(FULL) + 10


# ------------------------------------------------------------------------------------------------------ memory that stays


def test_rss_is_the_high_water_mark_and_an_idle_heap_is_not_given_back() -> None:
    say = {"collector": "g1", "xmx": "512MiB", "live_set": "60MiB", "load": "100/s", "tenured_share": 0.5}
    jvm = a_jvm(say).at(30.0)
    high = jvm.rss_mib()
    jvm.command(30.0, "load", task="java", rate_milli=0)
    jvm.at(600.0)
    assert jvm.rss_mib() >= high - 1


def test_a_periodic_collection_gives_the_idle_heap_back() -> None:
    """JEP 346: G1PeriodicGCInterval; after remark at most 70 % of the heap are free."""
    say = {"collector": "g1", "xmx": "512MiB", "xms": "512MiB", "live_set": "60MiB", "load": "100/s", "tenured_share": 0.5}
    jvm = a_jvm({**say, "g1_periodic_gc": "60s"}).at(30.0)
    high = jvm.rss_mib()
    jvm.command(30.0, "load", task="java", rate_milli=0)
    jvm.at(200.0)
    assert jvm["CAPACITY"] <= 1.1 * (jvm["OLD_USED"] + jvm["SURVIVORS"]) / 0.3
    assert jvm.rss_mib() < 0.75 * high


def test_a_region_that_changes_its_generation_is_not_there_twice() -> None:
    """Old grows to three quarters of the heap, is collected to a third, and eden takes six tenths: together more than the heap."""
    say = {"collector": "g1", "xmx": "512MiB", "xms": "512MiB", "live_set": "120MiB", "allocation_rate": "100MiB/s", "ihop": 75}
    jvm = a_jvm({**say, "tenured_share": 10.0})
    at, old, young = filled(jvm), 0.0, 0.0
    for _ in range(160):
        at += 0.5
        jvm.at(at)
        old, young = max(old, jvm["OLD_USED"] / MIB), max(young, jvm["EDEN_MAX"] / MIB)
        assert jvm.heap_mib() <= 513
    assert old + young > 560


def test_max_heap_free_of_100_keeps_it() -> None:
    say = {"collector": "g1", "xmx": "512MiB", "xms": "512MiB", "live_set": "60MiB", "load": "100/s", "tenured_share": 0.5}
    jvm = a_jvm({**say, "g1_periodic_gc": "60s", "max_heap_free": 100}).at(200.0)
    assert jvm["CAPACITY"] == 512 * MIB


@settings(max_examples=6, deadline=None)
@given(
    collector=st.sampled_from(["g1", "serial"]),
    xmx=st.integers(64, 512),
    live=st.integers(5, 100),
    rate=st.integers(1, 200),
    tenured=st.integers(0, 100),
    leak=st.integers(0, 200),
)
def test_the_heap_never_has_more_pages_than_it_is_large(collector: str, xmx: int, live: int, rate: int, tenured: int, leak: int) -> None:
    """Live ≤ used ≤ capacity ≤ -Xmx, pages ≤ capacity; and every page of the host in one place (`at` checks it)."""
    say = {"collector": collector, "xmx": f"{xmx}MiB", "live_set": f"{max(1, xmx * live // 100)}MiB", "leak": f"{leak}KiB"}
    jvm = a_jvm({**say, "allocation_rate": f"{rate}MiB/s", "tenured_share": tenured / 10, "load": "20/s"}, memory_mib=1024)
    for second in range(1, 20, 3):
        jvm.at(float(second))
        if jvm["STAGE"] == v.STARTING:
            continue
        slack = max(2 * MIB, jvm["EDEN_MAX"] // 16 + 2 * 200 * 1024)
        assert 0 <= jvm["OLD_LIVE"] <= jvm["OLD_USED"] <= jvm["HEAP_MAX"] + slack
        assert jvm["CAPACITY"] <= jvm["HEAP_MAX"]
        assert jvm.heap_mib() * MIB <= jvm["CAPACITY"] + slack


# ------------------------------------------------------------------------------------- too small, and too near the limit

SERVICE = {"collector": "g1", "allocation": "2MiB", "load": "100/s", "tenured_share": 2.0}
TIGHT = {**SERVICE, "xmx": "3584MiB", "xms": "3584MiB", "live_set": "1200MiB", "threads": 200, "metaspace": "100MiB", "code_cache": "60MiB"}


def test_a_heap_near_the_limit_is_killed_without_an_error_of_its_own() -> None:
    """T-16.2: 3.5 GiB of heap in a limit of 4 GiB leave 512 MiB for threads, metaspace, code, the collector's tables and buffers."""
    jvm = a_jvm({**TIGHT, "direct_buffers": "512MiB"}, memory_mib=8192, limit_mib=4096, cpus=4).at(120.0)
    (kill,) = jvm.events("oom_kill")
    (end,) = jvm.events("task_exit")
    assert kill.data["constraint"] == "memcg"
    assert (end.data["exit_code"], end.data["oom_killed"]) == (137, True)
    assert not jvm.events("out_of_memory_error")
    assert jvm["OLD_LIVE"] < 0.5 * jvm["HEAP_MAX"], "its heap was in order"


def test_the_same_heap_lives_when_little_is_beside_it() -> None:
    jvm = a_jvm({**TIGHT, "direct_buffers": "32MiB", "metaspace": "60MiB", "threads": 50}, memory_mib=8192, limit_mib=4096, cpus=4).at(
        120.0
    )
    assert not jvm.events("oom_kill", "out_of_memory_error", "task_exit")
    assert jvm.rss_mib() > 3584


LEAKING = {"xmx": "256MiB", "live_set": "64MiB", "load": "50/s", "allocation": "1MiB", "leak": "256KiB"}


def test_a_heap_that_is_too_small_throws_and_lives_on_while_its_requests_fail() -> None:
    jvm = a_jvm({**LEAKING, "collector": "g1"}, limit_mib=512).at(60.0)
    (error,) = jvm.events("out_of_memory_error")
    # 192 MiB at 50 · 256 KiB a second
    assert 12 < error.t_ns / 1e9 < 20
    assert not jvm.events("oom_kill", "task_exit")
    assert jvm.server["broken"] > 1000
    (impact,) = [event for event in jvm.events("impact_start") if event.data["impact"] == "errors"]
    assert impact.t_ns > error.t_ns
    assert jvm.rss_mib() < 400, "its container has room"
    assert jvm["ERRORS"] > 100


def test_exit_on_out_of_memory_ends_with_3_and_it_starts_anew() -> None:
    """-XX:+ExitOnOutOfMemoryError: exit code 3, not 137."""
    jvm = a_jvm({**LEAKING, "collector": "serial", "exit_on_oom": True}, limit_mib=512, restart_s=10.0).at(40.0)
    kinds = [event.kind for event in jvm.events("out_of_memory_error", "task_exit", "restart", "oom_kill")]
    assert kinds[:3] == ["out_of_memory_error", "task_exit", "restart"]
    assert jvm.events("task_exit")[0].data["exit_code"] == 3


def test_a_live_set_that_does_not_fit_ends_it_while_it_starts() -> None:
    """Nobody catches it in main: exit code 1."""
    jvm = a_jvm({"collector": "g1", "xmx": "64MiB", "live_set": "200MiB"}, limit_mib=512).at(20.0)
    assert [event.data["exit_code"] for event in jvm.events("task_exit")] == [1]
    assert jvm.events("out_of_memory_error")


# -------------------------------------------------------------------------------------------------- a heap that is in swap


HOT_NEIGHBOUR = TaskSpec("neighbour", ("mmap_anon a 700", "touch a 700 40", "rewrite a 0 100 random"), start_s=20.0)


def swapped(squeezed: bool, neighbour: TaskSpec = HOT_NEIGHBOUR) -> JvmWorld:
    """A Serial JVM whose old generation fills every 75 s, and a neighbour that takes most of the host at 20 s and uses it."""
    say = {"collector": "serial", "xmx": "300MiB", "xms": "300MiB", "live_set": "120MiB", "hot_share": 5, "cpu": "1ms"}
    load = {"allocation": "1MiB", "load": "50/s", "tenured_share": 1.5, "timeout": "2s", "slo": {"latency": "1s"}}
    return a_jvm(
        {**say, **load},
        memory_mib=1024,
        swap_mib=2048,
        disk=SLOW,
        tasks=(neighbour,) if squeezed else (),
    )


def test_a_full_collection_of_a_swapped_heap_waits_for_each_page_of_it() -> None:
    """kernel-laws §16.1: pause += swapped live pages · t_fault / parallelism."""
    jvm = swapped(squeezed=True)
    at = 90.0
    jvm.at(at)
    while jvm["GC"] != v.FULL_GC:
        task = jvm.task("java")
        before, majflt = int(task["swapents"]), int(task["majflt"])
        at += 0.2
        jvm.at(at)
    while jvm["GC"] == v.FULL_GC:
        at += 0.2
        jvm.at(at)
    (pause,) = [event for event in jvm.events("gc_pause") if event.data["collection"] == "full"]
    faults = int(jvm.task("java")["majflt"]) - majflt
    assert before > 5_000, "a good part of it was in swap"
    assert faults > 0.5 * before
    expected_ms = faults * LATENCY_MS
    assert 0.7 * expected_ms < float(str(pause.data["swap_ms"])) < 1.3 * expected_ms
    assert float(str(pause.data["pause_ms"])) > float(str(pause.data["swap_ms"]))
    jvm.at(at + 15)
    assert jvm.server["timed_out"] > 50
    assert [event.data["impact"] for event in jvm.events("impact_start")] == ["latency", "errors"]


def test_a_full_collection_visits_every_live_page_once_and_leaves_garbage_in_swap() -> None:
    """The neighbour is gone: nothing is swapped out meanwhile. Live objects and garbage lie side by side, so garbage's share stays."""
    neighbour = TaskSpec("neighbour", ("mmap_anon a 700", "touch a 700 40", "rewrite a 4500 100 random"), start_s=20.0)
    jvm = swapped(squeezed=True, neighbour=neighbour).at(95.0)
    assert not jvm.task("neighbour")["rss_anon"]
    hot = int(jvm.row["areas"][jvm["OLD"] - 1]["group"])
    swapped_hot, swapped_cold = (int(jvm.row["groups"][hot + k]["swapped"]) for k in range(2))
    touched = int(jvm.row["areas"][jvm["OLD"] - 1]["touched"]) - jvm["HOT"] // 4096
    live = jvm["OLD_LIVE"] // 4096 - jvm["HOT"] // 4096
    assert swapped_cold > 5_000 and swapped_hot >= 0
    at = 95.0
    while jvm.count(FULL) == 0:
        at += 0.2
        jvm.at(at)
        if jvm.count(FULL) == 0:
            touched = int(jvm.row["areas"][jvm["OLD"] - 1]["touched"]) - jvm["HOT"] // 4096
    assert int(jvm.row["groups"][hot]["swapped"]) == 0
    left = int(jvm.row["groups"][hot + 1]["swapped"])
    assert abs(left - swapped_cold * (touched - live) / touched) < 0.1 * swapped_cold


def test_without_the_neighbour_the_same_collections_are_short() -> None:
    jvm = swapped(squeezed=False).at(200.0)
    assert jvm.count(FULL) >= 1
    assert not jvm.events("gc_pause", "impact_start")
