# SPDX-License-Identifier: Apache-2.0
"""cgroup limits on a host: max kills, high only slows down, min and low protect, and every ancestor counts (kernel-laws §8)."""

from __future__ import annotations

import pytest

from fleetsim.linux.memcontrol import calculate_protection, charge, event, margin, swap_room
from fleetsim.linux.mm_types import BY_MEMCG, EV, NO_LIMIT
from fleetsim.linux.vmscan import do_try_to_free_pages
from tests.host.worlds import FAST_DISK, PAGES, World, world

GROW = "mmap_anon A 100 | touch A 100 20 | sleep 100"


def test_at_memory_max_with_nothing_to_reclaim_eighteen_rounds_are_tried_and_then_one_is_killed() -> None:
    """T-8.1: first try, one after draining the stocks, sixteen retries; each is a `max` event."""
    w = world(cgroups={"box": {"memory.max": 50}}, tasks={"box/hog": GROW, "box/mate": "sleep 100"}).at(4)
    assert w.events_of("box") == {
        "low": 0,
        "high": 0,
        "max": 18,
        "oom": 1,
        "oom_kill": 1,
        "oom_group_kill": 0,
        "swap_max": 0,
        "swap_fail": 0,
        "swap_high": 0,
    }
    assert w.kills() == ["hog"]
    assert int(w.cg("box")["peak"]) == 50 * PAGES, "not one page above the limit"
    assert w.vm("pgscan_kswapd") == w.vm("allocstall_movable") == 0, "the host itself was never short of memory"
    assert w.row["psi_total_us"][2][0] < 1000, "a kill inside a cgroup is no pressure on the host"


def test_while_each_round_frees_a_page_nobody_is_killed() -> None:
    """T-8.2: a file twice as large as the limit, read for ever: reclaim without end, no OOM."""
    w = world(files={"/f": 60}, cgroups={"box": {"memory.max": 30}}, tasks={"box/reader": "read_file /f 0 40"}).at(20)
    events = w.events_of("box")
    assert events["max"] > 500
    assert (events["oom"], w.kills()) == (0, [])
    assert w.progress_mib("reader") == pytest.approx(40 * 20, rel=0.02), "the cache is cheap to drop: the pace is kept"


def test_a_cgroup_eats_its_own_cache_before_it_dies_and_nobody_elses() -> None:
    """
    before  box (max 50 MiB) holds 50 MiB of cache; 60 MiB of cache belong to nobody
    ask     100 MiB of anonymous memory in box
    after   box's cache is gone to the last page, then hog dies; the other cache was not touched
    """
    w = world(
        files={"/own": 60, "/other": 60},
        cgroups={"box": {"memory.max": 50}},
        tasks={
            "outside": "read_file /other 60 200 | sleep 100",
            "box/reader": "read_file /own 60 100 | sleep 100",
            "box/hog": "sleep 1 | " + GROW,
        },
    )
    w.at(2)
    assert int(w.cg("box")["file"]) < 50 * PAGES
    w.at(8)
    assert w.kills() == ["hog"]
    assert int(w.cg("box")["file"]) == 0
    assert w.meminfo("Inactive(file)") == pytest.approx(60, abs=0.1)


def test_above_memory_high_a_task_crawls_and_is_never_killed() -> None:
    """kernel-laws §8.4 and recordings e07: a brake, not a wall; the sleep is memory pressure of the cgroup."""
    w = world(
        cgroups={"box": {"memory.high": 50}},
        tasks={"box/hog": "mmap_anon A 150 | touch A 150 20 | sleep 100", "free": "mmap_anon A 50 | touch A 50 2 | sleep 9"},
    )
    w.at(2)
    assert w.progress_mib("hog") == pytest.approx(40, abs=1)
    w.at(22)
    assert 50 < w.progress_mib("hog") < 62, "ten per cent over cost 0.64 s per 64 pages (T-8.3)"
    assert w.kills() == []
    sleeps = (w.progress_mib("hog") - 50) * PAGES / 64
    assert w.events_of("box")["high"] == pytest.approx(17 * sleeps, rel=0.15), "sixteen tries after the first before each sleep"
    assert w.events_of("box")["max"] == w.events_of("box")["oom"] == 0
    stalled_s = int(w.cg("box")["psi_total_ns"][2][1]) / 1e9
    assert stalled_s > 0.9 * (22 - 2.6), "it sleeps nearly all the time from 2.5 s on, and there is nobody else in the group"
    assert w.progress_mib("free") == pytest.approx(2 * 22, rel=0.02), "the neighbour outside is not hurt"


def test_memory_high_with_something_to_reclaim_costs_no_sleep() -> None:
    w = world(files={"/f": 120}, cgroups={"box": {"memory.high": 30}}, tasks={"box/reader": "read_file /f 120 40 | sleep 100"}).at(4)
    assert w.progress_mib("reader") == pytest.approx(120, abs=1)
    assert int(w.cg("box")["usage"]) <= 31 * PAGES
    assert w.events_of("box")["high"] > 0


def protected(limits: dict[str, int]) -> World:
    """An idle cgroup of 40 MiB anon + 30 MiB cache beside a sibling that may not swap and takes nearly all the rest."""
    return world(
        swap_mib=100,
        swap_disk=FAST_DISK,
        files={"/f": 30},
        cgroups={"idle": limits, "sibling": {"memory.swap.max": 0}},
        tasks={
            "idle/db": "mmap_anon A 40 | touch A 40 100 | read_file /f 30 100 | sleep 100",
            "sibling/hog": "mmap_anon A 160 | sleep 2 | touch A 150 50 | sleep 100",
        },
    ).at(8)


def test_an_unprotected_cgroup_loses_its_cache_first_and_then_is_swapped_out() -> None:
    w = protected({})
    assert int(w.cg("idle")["file"]) < 32, "the cache to the last few pages"
    assert int(w.cg("idle")["swap"]) > 10 * PAGES, "and then anonymous memory, as much as was needed"
    assert w.kills() == []


def test_memory_low_is_kept_while_others_have_something_and_broken_in_need() -> None:
    """recordings e08b: `low` events say that it was broken."""
    w = protected({"memory.low": 60})
    assert w.events_of("idle")["low"] > 0
    assert int(w.cg("idle")["anon"]) < 40 * PAGES
    assert w.kills() == []


def test_memory_min_is_never_broken_rather_a_task_dies_with_swap_still_free() -> None:
    w = protected({"memory.min": 60})
    assert int(w.cg("idle")["usage"]) >= 60 * PAGES - 32
    assert int(w.cg("idle")["anon"]) > 40 * PAGES
    assert w.kills() == ["hog"]
    assert w.meminfo("SwapFree") == 100


def test_memory_low_gives_up_nothing_while_an_unprotected_neighbour_has_cache() -> None:
    w = world(
        files={"/keep": 60, "/stream": 400},
        cgroups={"kept": {"memory.low": 70}, "other": {}},
        tasks={"kept/r": "read_file /keep 60 200 | sleep 100", "other/s": "sleep 1 | read_file /stream 400 100 | sleep 100"},
    ).at(7)
    assert w.vm("pgsteal_kswapd") > 200 * PAGES
    assert int(w.cg("kept")["file"]) == 60 * PAGES
    assert w.events_of("kept")["low"] == 0


def test_charges_events_and_statistics_reach_every_ancestor() -> None:
    w = world(cgroups={"outer": {"memory.max": 40}, "outer/inner": {}}, tasks={"outer/inner/hog": GROW, "outer/mate": "sleep 100"}).at(4)
    assert w.kills() == ["hog"]
    assert (w.events_of("outer")["max"], w.events_of("outer")["oom"]) == (18, 1), "the level that was at its limit"
    assert w.events_of("inner")["max"] == w.events_of("inner")["oom"] == 0
    assert w.events_of("inner")["oom_kill"] == w.events_of("outer")["oom_kill"] == 1, "the victim's own cgroup, and upwards"
    assert int(w.cg("outer")["stat"][10]) >= int(w.cg("inner")["stat"][10]) > 39 * PAGES, "pgfault"
    assert int(w.cg("inner")["usage"]) == 0


def test_the_tightest_level_decides_what_may_still_be_charged() -> None:
    w = world(cgroups={"outer": {"memory.max": 40}, "outer/inner": {"memory.max": 60}})
    charge(w.row, 2, 30 * PAGES)
    assert tuple(int(v) for v in margin(w.row, 2)) == (10 * PAGES, 1)
    charge(w.row, 1, 20 * PAGES)
    assert tuple(int(v) for v in margin(w.row, 2)) == (0, 1), "never negative"
    assert tuple(int(v) for v in margin(w.row, 0)) == (NO_LIMIT, -1)
    assert int(w.row["cgroups"][0]["usage"]) == 50 * PAGES


def test_events_are_counted_upwards_but_never_at_the_root() -> None:
    w = world(cgroups={"outer": {}, "outer/inner": {}})
    event(w.row, 2, EV["oom"])
    assert [int(w.row["cgroups"][cg]["events"][EV["oom"]]) for cg in (0, 1, 2)] == [0, 1, 1]


def test_room_for_swapping_is_the_least_of_host_and_all_levels() -> None:
    w = world(swap_mib=100, cgroups={"outer": {"memory.swap.max": 40}, "outer/inner": {"memory.swap.max": 60}})
    assert swap_room(w.row, 2) == 40 * PAGES
    w.cg("outer")["swap"] = 50 * PAGES
    assert swap_room(w.row, 2) == 0, "a limit lowered below what is used leaves none"
    assert swap_room(w.row, 0) == 100 * PAGES


@pytest.mark.parametrize(("usage", "effective"), [((8, 4), (6.67, 3.33)), ((2, 2), (2, 2))])
def test_overcommitted_protection_is_shared_in_proportion(usage: tuple[int, int], effective: tuple[float, float]) -> None:
    """T-3.9: the parent protects 10; A uses 8 of low 8, B 4 of low 4 → 6.67 and 3.33."""
    w = world(cgroups={"p": {"memory.low": 10}, "p/a": {"memory.low": 8}, "p/b": {"memory.low": 4}})
    for name, mib in (("p", sum(usage)), ("a", usage[0]), ("b", usage[1])):
        w.cg(name)["usage"] = mib * PAGES
    for cg in (1, 2, 3):
        calculate_protection(w.row, 0, cg)
    shares = [int(w.cg(name)["elow"]) / PAGES for name in ("a", "b")]
    if sum(usage) > 10:
        assert shares == [pytest.approx(value, abs=0.01) for value in effective]
    else:
        assert all(share >= value for share, value in zip(shares, effective, strict=True)), "what is unclaimed is shared (recursiveprot)"
    calculate_protection(w.row, 1, 2)
    assert int(w.cg("a")["elow"]) == 8 * PAGES, "a direct child of the reclaim root is protected by its own setting"


def test_a_limit_lowered_below_the_usage_reclaims_at_once() -> None:
    """mm/memcontrol.c memory_max_write: whoever writes the file waits until the usage is below it."""
    w = world(files={"/f": 40}, cgroups={"box": {}}, tasks={"box/r": "read_file /f 40 100 | sleep 100"})
    w.command(0.9, "limit", cgroup="box", file="memory.max", bytes=20 << 20)
    assert int(w.at(0.8).cg("box")["usage"]) > 40 * PAGES
    assert int(w.at(1.2).cg("box")["usage"]) <= 20 * PAGES
    assert w.kills() == []


def test_a_limit_lowered_below_what_can_be_reclaimed_kills() -> None:
    w = world(
        cgroups={"box": {}},
        tasks={"box/a": "mmap_anon A 40 | touch A 40 100 | sleep 100", "box/b": "sleep 100"},
    )
    w.command(1, "limit", cgroup="box", file="memory.max", bytes=20 << 20)
    w.at(3)
    assert w.kills() == ["a"]
    assert int(w.cg("box")["usage"]) <= 20 * PAGES


def test_the_target_of_a_reclaim_keeps_the_protection_that_an_earlier_reclaim_from_above_gave_it() -> None:
    """mm/memcontrol.c mem_cgroup_calculate_protection (6.1): "effective values of the reclaim targets are ignored so they can be stale";
    but shrink_node_memcgs tests them, so a cgroup whose memory.min is its memory.max finds nothing to reclaim in itself."""
    w = world(files={"/f": 60}, cgroups={"box": {"memory.min": 50, "memory.max": 50}}, tasks={"box/r": "read_file /f 30 0 | sleep 100"})
    w.at(1)
    calculate_protection(w.row, 0, 1)  # as kswapd would
    assert int(w.cg("box")["emin"]) == 50 * PAGES
    assert do_try_to_free_pages(w.row, 1, 32, BY_MEMCG) == 0
    w.cg("box")["emin"] = 0  # nobody reclaimed from above before
    assert do_try_to_free_pages(w.row, 1, 32, BY_MEMCG) >= 32


def test_memory_swap_high_slows_a_task_down_as_memory_high_does() -> None:
    """mm/memcontrol.c mem_cgroup_handle_over_high (6.1): the swap counter's overage is a penalty of its own, without reclaim."""
    ops = "mmap_anon A 150 | touch A 150 100 | sleep 100"
    done = []
    for limits in ({"memory.max": 60}, {"memory.max": 60, "memory.swap.high": 10}):
        w = world(swap_mib=200, swap_disk=FAST_DISK, cgroups={"box": limits}, tasks={"box/a": ops}).at(5)
        done.append(w.progress_mib("a"))
    assert done[0] == 150
    assert 70 < done[1] < 110, "it goes on, slower and slower"
    assert w.events_of("box")["swap_high"] > 17
    assert w.events_of("box")["high"] == 0
    assert float(w.row["psi_total_ns"][2][0]) > 2e9
    assert w.kills() == []


def test_memory_swap_high_can_be_written_by_a_task() -> None:
    ops = "sysw /sys/fs/cgroup/box/memory.swap.high 10M | sysw /sys/fs/cgroup/box/memory.zswap.max 3M | sleep 100"
    w = world(cgroups={"box": {}}, tasks={"a": ops}).at(1)
    assert (int(w.cg("box")["swap_high"]), int(w.cg("box")["zswap_max"])) == (10 * PAGES, 3 * PAGES)


def test_a_limit_further_up_is_kept_by_reclaiming_from_those_below_it() -> None:
    """mem_cgroup_iter walks the subtree of the one whose limit was hit: the pages are all in its children."""
    ops = {f"outer/{name}/r": f"read_file /{name} 100 0 | sleep 99" for name in "ab"}
    w = world(512, files={"/a": 100, "/b": 100}, cgroups={"outer": {"memory.max": 64}, "outer/a": {}, "outer/b": {}}, tasks=ops).at(5)
    assert w.progress_mib("r") >= 100
    assert int(w.cg("outer")["usage"]) <= 64 * 256
    assert w.vm("oom_kill") == 0 and w.vm("pgsteal_file") >= 130 * 256
