# SPDX-License-Identifier: Apache-2.0
"""A thread's malloc on a host, by three allocators: RSS is what the exact simulators say of the same calls, and who gives back when."""

from __future__ import annotations

import pytest

from fleetsim.allocators.tables import NR_SLAB_CLASSES
from fleetsim.fleet.malloc_loops import exactly, loops_trace, parse_loops
from fleetsim.workloads.heap_calls import heap_stats
from tests.host.worlds import World, world

MIB = 1 << 20
ALLOCATORS = {"glibc": "", "jemalloc": "allocator jemalloc |", "tcmalloc": "allocator tcmalloc |"}


def run(allocator: str, ops: str, *looks: float, memory_mib: int = 512, **drawn: object) -> tuple[World, list[float]]:
    """MiB that the program's RSS has grown by since its start, at each look."""
    w = world(memory_mib, tasks={"p": f"until 0.5 | {allocator} {ops} | sleep 1000"}, **drawn).at(0.4)
    start = int(w.task("p")["rss_anon"])
    return w, [(int(w.at(at).task("p")["rss_anon"]) - start) / 256 for at in looks]


@pytest.mark.parametrize("name", sorted(ALLOCATORS))
@pytest.mark.parametrize("sizes", [(20_000, 64, 4096), (60_000, 16, 512), (2000, 8000, 12_000)], ids=["mixed", "small", "pages"])
def test_grow_free_most_at_random_idle_and_work_on_is_resident_as_the_exact_simulator_says(name: str, sizes: tuple[int, int, int]) -> None:
    blocks, least, most = sizes
    few = blocks // 4
    w, ours = run(
        ALLOCATORS[name],
        f"malloc {blocks} {least}-{most} 0 | until 5 | mfree random:0.9 | "
        f"until 36 | malloc {few} {least}-{most} 0 | until 50 | malloc 10 64 0",
        *(4.9, 35.9, 40.0, 51.0),
    )
    steps = parse_loops(f"malloc {blocks} {least}-{most} | free random 90% | wait 30 | malloc {few} {least}-{most} | wait 14")
    grown, freed, woken, after, later = (x / MIB for x in exactly(name, "", 2, *loops_trace(steps, 5)))
    table = 8 * (blocks + few) / MIB  # the program's own table of pointers
    assert ours[0] == pytest.approx(grown + 8 * blocks / MIB, rel=0.1)
    assert ours[1] == pytest.approx(freed + 8 * blocks / MIB, rel=0.1), "nobody calls it: nothing goes back"
    assert ours[2] == pytest.approx(after + table, rel=0.1), (woken, after)
    assert ours[3] == pytest.approx(later + table, rel=0.1), "what was freed long ago is gone from jemalloc now"
    assert w.events("enomem", "table_full") == []


def test_what_jemalloc_keeps_leaves_over_ten_seconds_if_its_background_thread_runs_and_stays_if_nobody_looks() -> None:
    ops = "malloc 40000 2048 0 | until 5 | mfree all"
    looks = 4.9, 6.0, 8.0, 10.0, 12.0, 16.0
    _, idle = run("allocator jemalloc |", ops, *looks)
    assert idle[1] > 0.85 * idle[0] and idle[-1] == idle[1]
    _, served = run("allocator jemalloc background_thread |", ops, *looks)
    table = 8 * 40_000 / MIB
    left = [(x - table) / (idle[1] - table) for x in served[1:]]
    # smoothstep over ten seconds: after one, three, five, seven of them 0.99, 0.84, 0.5, 0.16 are left
    assert left == pytest.approx([0.99, 0.84, 0.5, 0.16, 0.0], abs=0.06)
    _, quick = run("allocator jemalloc dirty_decay_ms=1000 background_thread |", ops, *looks)
    assert quick[2] - table < 1


def test_a_decay_time_of_minus_one_keeps_and_of_nought_gives_back_at_once() -> None:
    ops = "malloc 20000 2048 0 | until 5 | mfree all"
    _, never = run("allocator jemalloc dirty_decay_ms=-1 background_thread |", ops, 4.9, 60)
    _, at_once = run("allocator jemalloc dirty_decay_ms=0 |", ops, 4.9, 6)
    assert never[1] > 0.8 * never[0] and at_once[1] < 1


@pytest.mark.parametrize("name", sorted(ALLOCATORS))
def test_mtrim_gives_back_what_each_has_a_call_for(name: str) -> None:
    w, seen = run(ALLOCATORS[name], "malloc 40000 1024 0 | until 5 | mfree first:0.9 | until 8 | mtrim", 4.9, 7, 10)
    assert seen[1] > 0.8 * seen[0], "kept: no block at the top was freed, nobody looked at the time, less than 2 GiB were freed"
    assert seen[2] < 0.2 * seen[0]
    live, allocated, resident = (int(x) for x in heap_stats(w.row, 0))
    assert live == pytest.approx(4000 * 1024, rel=0.02) and live <= allocated <= resident
    assert resident / MIB == pytest.approx(seen[2] - 8 * 40_000 / MIB, abs=0.3)


def test_blocks_freed_once_are_not_freed_again() -> None:
    for name in ALLOCATORS:
        w, _ = run(
            ALLOCATORS[name], "malloc 10000 1000 0 | until 3 | mfree first:0.5 | until 4 | mfree first:0.5 | until 5 | mfree last:0.25", 2.9
        )
        live = [int(heap_stats(w.at(at).row, 0)[0]) / 10_000 for at in (3.9, 4.9, 5.9)]
        assert live == pytest.approx([500, 500, 250], rel=0.03), name


def test_what_was_swapped_out_of_a_heap_comes_back_when_its_room_is_used_again() -> None:
    ops = "malloc 20000 2000 0 | until 2 | mfree random:0.5 | mmap_anon A 90 | touch A 90 0 | rewrite A 90 0 seq for=3 | free A munmap"
    ops += " | until 20 | malloc 8000 2000 0"
    w, _ = run("allocator jemalloc |", ops, 19, memory_mib=128, swap_mib=128)
    out, before = int(w.task("p")["swapents"]), w.vm("pswpin")
    assert out > 1000
    w.at(25)
    assert out - int(w.task("p")["swapents"]) > out // 4 and w.vm("pswpin") - before > out // 4
    assert w.kills() == []


def test_a_dead_programs_heap_leaves_nothing_behind() -> None:
    w = world(
        256,
        cgroups={"box": {"memory.max": 20}},
        tasks={"box/p": "allocator jemalloc | malloc 100000 64-4096 0 | sleep 5"},
        restart_s={"p": 1.0},
    ).at(6)
    assert set(w.kills()) == {"p"} and len(w.kills()) > 1
    assert int(w.row["heaps"]["used"].sum()) == 1 and int(w.row["slab_heaps"]["used"].sum()) == 1
    assert int(w.row["slab_classes"]["used"].sum()) <= 26 < NR_SLAB_CLASSES
    assert w.cg("box")["usage"] <= 20 * 256


def test_jemalloc_maps_without_reserve_where_the_host_overcommits_and_tcmalloc_does_not() -> None:
    seen = {}
    for name in ("jemalloc", "tcmalloc"):
        w, _ = run(ALLOCATORS[name], "malloc 20000 2000 0", 3)
        seen[name] = int(w.row["committed"])
    assert seen["tcmalloc"] - seen["jemalloc"] > 30 * 256
    strict, _ = run(
        ALLOCATORS["jemalloc"], "malloc 200000 1000 0", 3, memory_mib=128, sysctl={"overcommit_memory": 2, "overcommit_ratio": 80}
    )
    assert strict.events("enomem") != [] and strict.kills() == []


def test_a_threshold_that_is_set_stays_what_it_is() -> None:
    for words, threshold in (
        ("", 2 << 20),
        ("allocator glibc mmap_threshold=131072 |", 128 << 10),
        ("allocator glibc trim_threshold=131072 |", 128 << 10),
    ):
        w, _ = run(words, "malloc 10 2000000 0 | mfree all", 3)
        assert int(w.row["heaps"][0]["mmap_threshold"]) == pytest.approx(threshold, rel=0.05), words


def test_a_heap_that_comes_late_has_a_place_left_however_fragmented_the_others_are() -> None:
    ops = " | ".join(f"malloc 300 {1000 + 37 * n}-{9000 + 90 * n} 0 | mfree keep_every:{2 + n % 5}" for n in range(30))
    tasks = {"early": ops + " | sleep 1000"} | {f"p{n}": "sleep 20 | malloc 3000 1000 0 | sleep 1000" for n in range(24)}
    w = world(1024, tasks=tasks).at(25)
    assert w.events("enomem", "table_full") == []
    assert all(int(w.task(f"p{n}")["rss_anon"]) > 700 for n in range(24))
