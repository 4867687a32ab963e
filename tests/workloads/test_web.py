# SPDX-License-Identifier: Apache-2.0
"""A pool of workers on a simulated host: it starts, answers, fills up when requests do, leaks, dies and comes back; and `idle` idles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleetsim.host.spec import DiskSpec, TaskSpec, Work
from tests.workloads.works import MS, S, web_task, works_host


def test_an_idle_process_takes_its_memory_and_nothing_more() -> None:
    host = works_host(TaskSpec("idle", (), 0.0, "idle", work=Work("idle", {"pages": 25 * 256}))).at(60)
    assert host.rss_mib("idle") == pytest.approx(25, abs=1.5)
    assert host.told() == [(0, "boot", "h"), (0, "task_start", "idle")]


def test_it_answers_once_it_is_up_and_everybody_who_came() -> None:
    host = works_host(web_task("shop", rate=200)).at(30)
    server = host.server("shop")
    assert int(server["served"]) == pytest.approx(200 * 29, rel=0.05)
    assert int(server["refused"]) + int(server["timed_out"]) + int(server["broken"]) == 0
    assert int(server["buckets"][0]) == int(server["served"]), "a millisecond of work, nothing to wait for"
    assert host.rss_mib("shop") == pytest.approx(16 + 2, abs=2)


def test_requests_that_pile_up_hold_memory_and_the_high_water_mark_stays() -> None:
    """4 CPUs answer 400 a second of 10 ms each; for 5 s 600 come: 1000 wait with 100 KiB each, and what they took is kept."""
    host = works_host(web_task("shop", rate=100, cpu_ns=10 * MS, workers=16, queue_max=5000)).at(10)
    calm = host.rss_mib("shop")
    host.do("load", task="shop", rate_milli=600_000).at(15)
    host.do("load", task="shop", rate_milli=100_000).at(20)
    piled = host.rss_mib("shop")
    assert piled - calm == pytest.approx(100, rel=0.3)
    assert host.at(60).rss_mib("shop") == pytest.approx(piled, abs=1), "nothing is given back"
    assert int(host.server("shop")["present"]) <= 16


def test_a_leak_grows_with_the_requests_until_the_limit_kills_and_the_next_life_begins_anew() -> None:
    task = replace(web_task("shop", rate=500, leak_bytes=16 << 10), restart_s=5.0)
    host = works_host(task, limits={"shop": 64}).at(3)
    early, served = host.rss_mib("shop"), int(host.server("shop")["served"])
    host.at(5)
    grown = (int(host.server("shop")["served"]) - served) * 16 / 1024
    assert host.rss_mib("shop") - early == pytest.approx(grown, rel=0.1)
    host.at(30)
    kills = [when for when, _, _ in host.told("oom_kill")]
    assert len(kills) >= 2
    assert int(host.server("shop")["broken"]) + int(host.server("shop")["refused"]) > 1000, "five seconds nobody answers"
    assert ("impact_start", "errors") in [(kind, what) for _, kind, what in host.told()]


def test_a_server_that_is_held_up_breaches_its_objective_until_it_has_caught_up() -> None:
    """Three times the load it can bear for 20 s; clients are patient. The objective is missed from the next look on, and met again
    once the backlog is worked off."""
    host = works_host(web_task("shop", rate=100, cpu_ns=10 * MS, queue_max=100_000, request_bytes=0)).at(20)
    assert host.told("impact") == []
    host.do("load", task="shop", rate_milli=1_200_000).at(40)
    host.do("load", task="shop", rate_milli=100_000).at(150)
    (start, _, first), (end, _, _) = host.told("impact")
    assert (start, first) == (30, "latency")
    backlog_s = 20 * 800 / 300  # what came too much, and the room that is left for it
    assert backlog_s < end - 40 - 10 <= backlog_s + 10, "closed by ten seconds that are in order"
    assert int(host.server("shop")["timed_out"]) == 0


def test_when_pages_must_come_from_a_disk_only_some_requests_are_slow() -> None:
    """Its working set is swapped out by a neighbour: the mean goes up, and the fast ones are as fast as ever."""
    neighbour = TaskSpec("hog", ("sleep 10", "mmap_anon a 160", "touch a 160 0", "rewrite a 0 200 seq"), 0.0, "hog")
    host = works_host(
        web_task("shop", rate=50, base_mib=96), neighbour, memory_mib=300, swap_bytes=1 << 30, disk=DiskSpec(100_000_000, 8000.0)
    ).at(9)
    assert int(host.server("shop")["buckets"][1:].sum()) == 0
    host.at(60)
    buckets = host.server("shop")["buckets"]
    assert int(host.row["tasks"][host.shard.names_of(0).tasks["shop"]]["majflt"]) > 100
    assert int(buckets[1:].sum()) > 50
    assert int(host.server("shop")["arrived"]) - int(host.server("shop")["served"]) < 2 * S // MS


def test_a_web_server_that_cannot_map_its_memory_ends() -> None:
    """Overcommit says no (mode 2): it exits with 1, as a program does whose allocation failed."""
    host = works_host(web_task("shop", rate=10, base_mib=900), sysctl={"vm.overcommit_memory": 2}).at(10)
    assert [kind for _, kind, _ in host.told("task_exit")] == ["task_exit"]
    assert [e.data["exit_code"] for e in host.seen if e.kind == "task_exit"] == [1]
