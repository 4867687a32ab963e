# SPDX-License-Identifier: Apache-2.0
"""kswapd: woken below the low mark, at work until some zone is above high, napping 100 ms before it sleeps (kernel-laws §3.9)."""

from __future__ import annotations

from typing import Any

import pytest

from fleetsim.linux.free_area import boost_marks
from fleetsim.linux.kswapd import NAP_NS, NEVER, end_run, run_kswapd, wakeup_boosted, wakeup_kswapd, wakeup_kswapd_order
from fleetsim.linux.kswapd_turns import OWED_SHARE
from fleetsim.linux.lru_gen_age import inc_max_seq
from fleetsim.linux.mm_types import (
    DEF_PRIORITY,
    KSWAPD_NAP,
    KSWAPD_RUN,
    KSWAPD_SLEEP,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_FILE,
    MAX_RECLAIM_RETRIES,
    WMARK_HIGH,
)
from tests.host.worlds import PAGES, World, world


def starved(free_over_high: int) -> World:
    """An idle host whose zones have `free_over_high` pages more (or less) than high + reserve, the rest taken by the kernel."""
    w = world(256)
    for zone in w.row["zones"]:
        if zone["managed"]:
            hidden = int(zone["pcp"].sum())
            zone["pcp"] = 0
            zone["pinned"] += hidden
            w.row["other_kernel"] += hidden
            taken = int(zone["free"]) - (int(zone["wmark"][WMARK_HIGH] + zone["reserve"]) + free_over_high)
            zone["free"] -= taken
            zone["pinned"] += taken
            w.row["other_kernel"] += taken
    w.row["now_ns"] = 1_000_000_000
    return w


def state(w: World, **fields: Any) -> Any:
    kswapd = w.row["kswapd"][0]
    for name, value in fields.items():
        kswapd[name] = value
    return kswapd


def test_woken_from_sleep_it_runs_at_once_at_the_lowest_pressure() -> None:
    w = starved(-10)
    wakeup_kswapd(w.row)
    kswapd = w.row["kswapd"][0]
    assert (kswapd["state"], kswapd["next_ns"], kswapd["cursor"]) == (KSWAPD_RUN, w.row["now_ns"], -1)
    assert w.row["scan"][0]["priority"] == DEF_PRIORITY
    assert w.vm("pageoutrun") == 1
    assert w.vm("kswapd_low_wmark_hit_quickly") == 0


@pytest.mark.parametrize(
    ("why", "over", "fields"),
    [
        ("already at work", -10, {"state": KSWAPD_RUN}),
        ("hopeless", -10, {"failures": MAX_RECLAIM_RETRIES}),
        ("balanced", +1, {}),
    ],
)
def test_a_wake_up_is_ignored_when_it_is(why: str, over: int, fields: dict[str, int]) -> None:
    w = starved(over)
    before = state(w, **fields).copy()
    wakeup_kswapd(w.row)
    assert w.row["kswapd"][0] == before, why
    assert w.vm("pageoutrun") == 0


def test_woken_during_its_nap_it_slept_too_early() -> None:
    w = starved(-10)
    state(w, state=KSWAPD_NAP, next_ns=w.row["now_ns"] + 50)
    wakeup_kswapd(w.row)
    assert w.row["kswapd"][0]["state"] == KSWAPD_RUN
    assert w.vm("kswapd_low_wmark_hit_quickly") == 1


def test_a_nap_that_ends_balanced_becomes_sleep_and_one_that_does_not_a_run() -> None:
    calm, pressed = starved(+1), starved(-1)
    for w in (calm, pressed):
        state(w, state=KSWAPD_NAP, next_ns=w.row["now_ns"])
        run_kswapd(w.row, 0)
    assert (calm.row["kswapd"][0]["state"], calm.row["kswapd"][0]["next_ns"]) == (KSWAPD_SLEEP, NEVER)
    assert pressed.row["kswapd"][0]["state"] == KSWAPD_RUN
    assert calm.vm("kswapd_high_wmark_hit_quickly") == 0
    assert pressed.vm("kswapd_high_wmark_hit_quickly") == 2, "once for the nap, once for the run in vain (nothing to reclaim) after it"


def test_a_hopeless_kswapd_sleeps_although_nothing_is_balanced() -> None:
    w = starved(-10)
    state(w, state=KSWAPD_NAP, next_ns=w.row["now_ns"], failures=MAX_RECLAIM_RETRIES)
    run_kswapd(w.row, 0)
    assert w.row["kswapd"][0]["state"] == KSWAPD_SLEEP


def test_a_balanced_run_ends_in_a_nap_of_a_tenth_of_a_second() -> None:
    w = starved(+1)
    state(w, state=KSWAPD_RUN, cursor=-1)
    run_kswapd(w.row, 0)
    assert w.row["kswapd"][0]["state"] == KSWAPD_NAP
    assert w.row["kswapd"][0]["next_ns"] == w.row["now_ns"] + 100_000_000
    assert NAP_NS == 100_000_000


@pytest.mark.parametrize(
    ("reclaimed", "priority", "before", "after"),
    [
        (0, 0, 3, 4),  # fruitless at full pressure: a failure
        (0, 5, 3, 3),  # stopped early because the node was balanced meanwhile: no failure
        (1, 0, 3, 0),  # one page is success
    ],
)
def test_only_a_whole_run_without_one_page_is_a_failure(reclaimed: int, priority: int, before: int, after: int) -> None:
    w = starved(-10)
    state(w, state=KSWAPD_RUN, failures=before)
    w.row["scan"][0]["reclaimed"], w.row["scan"][0]["priority"] = reclaimed, priority
    end_run(w.row, w.row["scan"][0], priority < 1)
    assert w.row["kswapd"][0]["failures"] == after
    assert w.row["kswapd"][0]["state"] == KSWAPD_RUN, "not balanced: it goes on at once"


def test_the_sixteenth_failure_makes_it_give_up() -> None:
    """No swap and no cache: nothing to reclaim. 16 fruitless runs (mm/internal.h MAX_RECLAIM_RETRIES), then silence."""
    w = world(256, sysctl={"vm.watermark_boost_factor": 0}, tasks={"hog": "mmap_anon A 177 | touch A 177 100 | sleep 100"}).at(30)
    kswapd = w.row["kswapd"][0]
    assert (kswapd["failures"], kswapd["state"]) == (MAX_RECLAIM_RETRIES, KSWAPD_SLEEP)
    assert w.vm("pageoutrun") - MAX_RECLAIM_RETRIES in (0, 1), "the first one may be content with what the per-cpu lists hid"
    assert w.kills() == []


def test_it_sleeps_as_long_as_free_memory_is_above_low_and_then_keeps_it_between_the_marks() -> None:
    """
    before  an idle host of 256 MiB
    ask     a file of 1200 MiB streamed once, 100 MiB/s
    after   nothing is scanned until MemFree has fallen to the low mark; from then on a saw-tooth above it, by kswapd alone
    """
    w = world(256, files={"/stream": 1200}, tasks={"reader": "read_file /stream 1200 100"})
    # the DMA zone keeps a part of its pages from everybody: what counts is the zone that serves
    zone = w.row["zones"][1]
    least, low, high = (int(mark) for mark in zone["wmark"])
    seen = []
    for step in range(1, 121):
        w.at(step * 0.1)
        if int(zone["free"]) > low and not seen:
            assert w.vm("pgscan_kswapd") == 0
        elif w.progress_mib("reader") < 1200:
            seen.append(int(zone["free"]))
    assert len(seen) > 50
    assert min(seen) >= least - int(zone["pcp_batch"]), "between its slices the reader may go on down to min, and one batch below"
    assert low < sum(seen) / len(seen) < high + 64
    assert max(seen) <= high + w.row["totalram"] // 100 + 64, "it overshoots by less than a pass over one percent of memory"
    assert w.vm("pgscan_kswapd") == w.vm("pgsteal_kswapd") > 900 * PAGES, "used once: every look is a hit"
    assert w.vm("allocstall_movable") < 10, "half a megabyte between low and min: the reader, whom kswapd lets go first, seldom gets there"
    assert w.at(20).row["kswapd"][0]["state"] == KSWAPD_SLEEP


def test_its_whole_run_is_memory_pressure_of_the_host_and_of_no_cgroup() -> None:
    w = world(256, files={"/s": 600}, cgroups={"box": {}}, tasks={"box/reader": "read_file /s 600 100"}).at(8)
    stalled = int(w.row["psi_total_ns"][2][0])
    assert stalled > 0
    assert int(w.cg("box")["psi_total_ns"][2][0]) < stalled // 100
    assert int(w.row["cpu_ns"][2]) >= stalled, "kswapd's processor time"


def test_what_memory_low_protects_is_left_to_direct_reclaim() -> None:
    """
    before  150 MiB of cache, all of it within its cgroup's memory.low
    ask     a neighbour without swap that wants all the rest and a bit more
    after   kswapd runs in vain until it gives up, again and again; direct reclaim breaks the protection and says so
    """
    w = world(
        512,
        files={"/f": 150},
        cgroups={"safe": {"memory.low": 200}, "other": {}},
        tasks={"safe/reader": "read_file /f 150 0 | sleep 100", "other/hog": "sleep 1 | mmap_anon A 340 | touch A 340 100 | sleep 100"},
    ).at(8)
    assert w.progress_mib("hog") == 340
    assert w.vm("pgscan_kswapd") == 0
    assert w.vm("pgsteal_direct") > 10 * PAGES
    assert w.events_of("safe")["low"] > 100
    assert w.vm("pageoutrun") > 5 * MAX_RECLAIM_RETRIES, "each page that direct reclaim finds gives it new hope"


def test_it_takes_a_cpu_and_a_thread_that_slept_takes_it_back() -> None:
    w = world(256, files={"/s": 600}, tasks={"reader": "read_file /s 600 100"}).at(8)
    cpu = w.row["cpu"][0]
    busy = int(cpu["user_ns"] + cpu["system_ns"])
    assert busy == int(w.row["cpu_ns"][0] + w.row["cpu_ns"][2])
    assert w.progress_mib("reader") == 600
    assert int(w.row["psi_total_ns"][0][0]) < int(w.row["psi_total_ns"][2][0]) // 4, "it hardly ever waited for kswapd"


def boosted(w: World, times: int) -> int:
    """The zone that serves has had its marks boosted `times` times; the boost, pages."""
    zone = w.row["zones"][1]
    for _ in range(times):
        boost_marks(zone)
    w.row["boosted"] = 1
    return int(zone["boost"])


@pytest.mark.parametrize("lru_gen", ["n", "y"])
def test_a_boosted_run_swaps_nothing_however_old_the_memory_is(lru_gen: str) -> None:
    ops = {"idle": "mmap_anon A 150 | touch A 150 0 | sleep 100", "reader": "sleep 1 | read_file /f 20 0 | sleep 100"}
    w = world(512, swap_mib=256, lru_gen=lru_gen, sysctl={"vm.swappiness": 200}, files={"/f": 20}, tasks=ops).at(3)
    for _ in range(2 if lru_gen == "y" else 0):
        inc_max_seq(w.row, 0, True)
    boosted(w, 4)
    w.at(6)
    assert w.vm("pageoutrun") >= 1
    assert w.vm("pswpout") == 0


def test_boosted_marks_begin_a_run_that_reclaims_as_much_and_takes_them_off_again() -> None:
    """
    before  half a GiB, much cache, plenty free: kswapd sleeps and the node is balanced
    ask     types are mixed in four pageblocks
    after   one run, about 2048 pages of cache gone, none swapped, the marks as before, kcompactd asked for a pageblock
    """
    w = world(
        512,
        swap_mib=256,
        files={"/f": 150},
        tasks={"reader": "read_file /f 150 0 | sleep 100", "idle": "mmap_anon A 60 | touch A 60 0 | sleep 100"},
    )
    w.at(2)
    zone = w.row["zones"][1]
    marks = zone["wmark"].tolist()
    boost = boosted(w, 4)
    assert boost == min(4 * 512, marks[WMARK_HIGH] * 3 // 2)
    assert zone["wmark"].tolist() == [mark + boost for mark in marks]
    w.at(5)
    assert w.vm("pageoutrun") == 1
    assert boost <= w.vm("pgsteal_kswapd") < 4 * boost
    assert (w.vm("pgscan_anon"), w.vm("pswpout")) == (0, 0)
    assert zone["wmark"].tolist() == marks
    assert (zone["boost"], zone["boosted"], w.row["boosted"]) == (0, 0, 0)
    assert w.vm("compact_daemon_wake") == 1
    assert w.row["kswapd"][0]["state"] == KSWAPD_SLEEP


def test_a_boost_for_which_nothing_can_be_reclaimed_is_given_up_at_once() -> None:
    w = world(512, swap_mib=256, tasks={"idle": "mmap_anon A 60 | touch A 60 0 | sleep 100"}).at(2)
    boosted(w, 4)
    w.at(5)
    assert (w.vm("pageoutrun"), w.vm("pswpout"), w.row["zones"][1]["boost"]) == (1, 0, 0)
    assert w.row["kswapd"][0]["failures"] == 1


def test_what_is_boosted_while_a_run_is_under_way_is_left_to_the_next() -> None:
    w = world(512, swap_mib=256, files={"/f": 150}, tasks={"reader": "read_file /f 150 0 | sleep 100"}).at(2)
    before = boosted(w, 1)
    wakeup_boosted(w.row)
    more = boosted(w, 2) - before
    for _ in range(100):
        if w.row["kswapd"][0]["state"] == KSWAPD_RUN:
            w.row["now_ns"] = w.row["kswapd"][0]["next_ns"]
            run_kswapd(w.row, 0)
    assert w.row["kswapd"][0]["state"] == KSWAPD_NAP
    assert w.row["zones"][1]["boost"] == more


def test_without_a_boost_factor_nothing_is_ever_boosted() -> None:
    w = world(512, sysctl={"vm.watermark_boost_factor": 0})
    assert boosted(w, 3) == 0


@pytest.mark.parametrize(("direct", "asked"), [(True, 0), (False, 9)])
def test_whoever_cannot_reclaim_has_kcompactd_woken_where_kswapd_is_of_no_use(direct: bool, asked: int) -> None:
    w = world(512).at(1)
    wakeup_kswapd_order(w.row, 9, direct)
    assert w.row["kswapd"][0]["state"] == KSWAPD_SLEEP, "balanced"
    assert w.row["kcompactd_max_order"] == asked


def test_a_run_for_a_large_block_falls_back_to_single_pages_and_leaves_the_block_to_kcompactd() -> None:
    """
    before  a host full of cache, just below its marks
    ask     somebody wants 2 MiB at once and may not reclaim
    after   kswapd reclaims, and hands the order over to kcompactd when it goes to sleep
    """
    w = world(256, files={"/f": 300}, tasks={"reader": "read_file /f 300 0 | sleep 100"}).at(4)
    zone = w.row["zones"][1]
    while int(zone["free"]) > int(zone["wmark"][WMARK_HIGH]):
        taken = min(int(zone["free"]), 256)
        zone["pinned"] += taken
        zone["free"] -= taken
        zone["free_area"] = 0
        zone["listed"] = zone["free"]
        zone["free_area"][1][0] = zone["free"]
        w.row["other_kernel"] += taken
    w.row["zones"][0]["wmark"] = 1 << 20
    before = w.vm("compact_daemon_wake")
    wakeup_kswapd_order(w.row, 9, False)
    assert (w.row["kswapd"][0]["state"], w.row["kswapd"][0]["alloc_order"]) == (KSWAPD_RUN, 9)
    w.at(5.1)
    assert w.row["scan"][0]["order"] == 0
    assert w.vm("compact_daemon_wake") == before + 1


def test_writing_the_factor_takes_effect_with_the_next_boost() -> None:
    w = world(512, tasks={"admin": "sleep 1 | sysw /proc/sys/vm/watermark_boost_factor 5000 | sleep 9"}).at(2)
    zone = w.row["zones"][1]
    high = int(zone["wmark"][WMARK_HIGH])
    assert boosted(w, 8) == max(512, high // 2)


@pytest.mark.parametrize("swap_mib", [0, 64])
def test_the_short_way_past_cgroups_without_file_pages_ends_where_the_long_way_does(swap_mib: int) -> None:
    """What is said to be protected, and is not, makes every lruvec have its whole turn."""
    ends = []
    for protected in (0, 1):
        w = world(
            512,
            tick_ms=0,
            swap_mib=swap_mib,
            cgroups={"anon": {}, "anon/below": {}, "cache": {"memory.max": 200 << 20}, "empty": {}},
            files={"/f": 300, "/stream": 4000},
            tasks={
                "anon/a": "mmap_anon A 60 | touch A 60 100 | rewrite A 0 20 seq",
                "anon/below/b": "mmap_anon B 40 | touch B 40 100 | rewrite B 0 20 random",
                "cache/c": "read_file /f 0 60",
                "s": "read_file /stream 0 90",
            },
        )
        w.row["protected"] = protected
        w.at(25)
        assert w.vm("pgsteal_kswapd") > 10_000
        cgroups = [
            (int(w.cg(name)["usage"]), w.cg(name)["size"].tolist(), w.cg(name)["stat"].tolist()) for name in ("anon", "cache", "empty")
        ]
        ends.append((w.all_vmstat(), w.all_meminfo(), cgroups, int(w.row["kswapd"][0]["next_ns"]), w.row["cpu"]["system_ns"].tolist()))
    assert ends[0] == ends[1]


MANY_READERS = {f"r{k}": {"memory.max": 40 << 20} for k in range(8)}


def many_readers(tick_ms: int) -> World:
    """A stream and eight small readers, whose lists a pass scans a few pages of."""
    w = world(
        512,
        cgroups=MANY_READERS,
        files={f"/{name}": 30 for name in MANY_READERS} | {"/stream": 8000},
        tasks={f"{name}/t": f"read_file /{name} 0 10" for name in MANY_READERS} | {"s": "read_file /stream 0 120"},
        tick_ms=tick_ms,
    )
    w.at(40)
    return w


def test_without_a_tick_no_lruvec_is_put_off() -> None:
    w = many_readers(0)
    assert w.vm("pgsteal_kswapd") > 500_000
    assert not w.row["cgroups"]["owed"].any()


def test_with_a_tick_small_scans_add_up_and_take_as_much_in_the_end_from_every_cgroup() -> None:
    exact, ticked = many_readers(0), many_readers(200)
    wanted = int(ticked.row["scan"][0]["wanted"])
    owed = []
    for second in range(41, 51):
        exact.at(second)
        owed.append(int(ticked.at(second).row["cgroups"]["owed"].max()))
        assert ticked.row["cgroups"]["owed"].min() >= 0
    assert 0 < max(owed) <= wanted // OWED_SHARE
    for name in ("pgsteal_kswapd", "pgscan_kswapd"):
        assert ticked.vm(name) == pytest.approx(exact.vm(name), rel=0.01)
    for name in MANY_READERS:
        kept = [int(w.cg(name)["size"][LRU_INACTIVE_FILE] + w.cg(name)["size"][LRU_ACTIVE_FILE]) for w in (exact, ticked)]
        assert kept[1] == pytest.approx(kept[0], rel=0.1)
