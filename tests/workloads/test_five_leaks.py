# SPDX-License-Identifier: Apache-2.0
"""Five programs whose memory looks leaked, and only one is: a leak, fragmentation, an allocator that never returns, arenas times
threads, malloc_trim not called. RSS is alike; what the kernel, the allocator and a trim say tells them apart as far as in life."""

from __future__ import annotations

import re

from fleetsim.fleet.one_host import labels_of
from fleetsim.userland.page_table import PageTables
from fleetsim.userland.procfs_maps import smaps
from fleetsim.workloads.heap_calls import heap_stats
from tests.host.worlds import World, world

THREADS = 6
TASKS = {
    "leak": "malloc 40000 2000 0",
    "fragmented": "malloc 590000 64-160 0 | mfree keep_every:12",
    "keeper": "allocator jemalloc dirty_decay_ms=-1 background_thread | malloc 39500 2000 0 | mfree all",
    "arenas": "malloc 5600 2000 0 | malloc 1 5000 | mfree first:0.9998",
    "untrimmed": "malloc 40000 2000 0 | malloc 1 5000 | mfree first:0.99998",
}


def host(then: str) -> World:
    w = world(1024, tasks={name: f"{ops} | until 60 | {then} | sleep 1000" for name, ops in TASKS.items()})
    for n in range(THREADS):
        ops = (
            "malloc 5600 2000 0",
            "malloc 1 5000 0",
            "mfree first:0.9998",
            "until 60",
            *(() if then == "sleep 1" else (then,)),
            "sleep 1000",
        )
        w.command(1.0, "start_thread", task="arenas", thread=f"worker{n}", ops=ops)
    return w


def rss_mib(w: World) -> dict[str, float]:
    return {name: int(w.task(name)["rss_anon"]) / 256 for name in TASKS}


def told(w: World, name: str) -> tuple[float, float, int]:
    """(MiB live, MiB resident, heaps) as the program's own allocator tells."""
    t = w.shard.names_of(0).tasks[name]
    heaps = [h for h, heap in enumerate(w.row["heaps"]) if heap["used"] and int(heap["task"]) == t]
    stats = [heap_stats(w.row, h) for h in heaps]
    return sum(int(s[0]) for s in stats) / (1 << 20), sum(int(s[2]) for s in stats) / (1 << 20), len(heaps)


def heap_of_smaps(w: World, name: str) -> float:
    """MiB of Rss that smaps tells of the areas called [heap]."""
    t = w.shard.names_of(0).tasks[name]
    text = smaps(PageTables(w.row, t, labels_of(w.shard, t)))
    return sum(int(rss) for rss in re.findall(r"\[heap\]\n(?:(?!Rss:).*\n)*Rss: +(\d+) kB", text)) / 1024


def test_five_kinds_of_leak_are_alike_in_rss_and_are_told_apart_by_smaps_by_malloc_stats_and_by_a_trim() -> None:
    w = host("sleep 1").at(50)
    alike = rss_mib(w)
    assert max(alike.values()) < 1.15 * min(alike.values()), alike
    assert w.at(55).events("enomem", "table_full", "oom_kill") == [] and rss_mib(w) == alike, "and none of them moves"

    stats = {name: told(w, name) for name in TASKS}
    assert stats["leak"][0] > 0.9 * stats["leak"][1], "what leaks is live"
    for name in ("fragmented", "keeper", "arenas", "untrimmed"):
        live, resident, _ = stats[name]
        assert live < 0.12 * resident, (name, stats)
    assert {name: heaps for name, (_, _, heaps) in stats.items() if heaps > 1} == {"arenas": THREADS + 1}

    in_heap = {name: heap_of_smaps(w, name) for name in TASKS}
    assert in_heap["keeper"] < 1 and all(in_heap[name] > 60 for name in ("leak", "fragmented", "untrimmed")), in_heap

    trimmed = rss_mib(host("mtrim").at(70))
    given_back = {name: alike[name] - trimmed[name] for name in TASKS}
    assert given_back["leak"] < 1 and given_back["fragmented"] < 0.35 * alike["fragmented"], given_back
    for name in ("keeper", "arenas", "untrimmed"):
        assert given_back[name] > 0.9 * stats[name][1], (name, given_back)
