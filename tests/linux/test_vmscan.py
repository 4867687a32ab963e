# SPDX-License-Identifier: Apache-2.0
"""Reclaim on a host: what goes first, how anon and cache share the loss, what protection keeps (kernel-laws §3)."""

from __future__ import annotations

import pytest

from fleetsim.linux.mm_types import BY_DIRECT, BY_MEMCG, CG, DEF_PRIORITY, LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE
from fleetsim.linux.vmscan import cut_to_proportion, do_try_to_free_pages, get_scan_count
from tests.host.worlds import FAST_DISK, PAGES, World, world


def scanning(kind: int = BY_DIRECT, *, swap_mib: int = 64, priority: int = 2, **lists: int) -> World:
    """A host whose cgroup `box` has lists of the given lengths, and a pass about to look at it."""
    w = world(swap_mib=swap_mib, cgroups={"box": {}})
    names = ("inactive_anon", "active_anon", "inactive_file", "active_file")
    for cg in (w.cg("box"), w.row["cgroups"][0]):
        cg["tree"][:4] = [lists.get(name, 0) for name in names]
    w.cg("box")["size"][:4] = w.cg("box")["tree"][:4]
    w.cg("box")["usage"] = sum(lists.values())
    sc = w.row["scan"][1]
    sc["may_swap"] = sc["rounds"] = 1
    sc["kind"], sc["target"], sc["priority"] = kind, 0, priority
    return w


def goals(w: World) -> list[int]:
    get_scan_count(w.row, w.row["scan"][1], 1)
    return [int(n) for n in w.row["scan"][1]["nr"]]


@pytest.mark.parametrize(
    ("swappiness", "anon_percent"),
    [(60, 30), (100, 50), (0, 0), (200, 100)],  # T-3.2, T-3.5, T-3.6
)
def test_swappiness_splits_a_scan_whose_costs_are_equal(swappiness: int, anon_percent: int) -> None:
    w = scanning(inactive_anon=4000, inactive_file=4000)
    w.row["sysctl"]["swappiness"] = swappiness
    anon, _, file, _ = goals(w)
    assert (anon, file) == (4000 // 4 * anon_percent // 100, 4000 // 4 * (100 - anon_percent) // 100)


@pytest.mark.parametrize(("anon_cost", "file_cost", "permille"), [(1000, 0, 175), (0, 1000, 461)])  # T-3.3, T-3.4
def test_the_side_whose_reclaim_cost_io_is_scanned_less(anon_cost: int, file_cost: int, permille: int) -> None:
    w = scanning(inactive_anon=400_000, inactive_file=400_000)
    w.row["cgroups"][0]["anon_cost"], w.row["cgroups"][0]["file_cost"] = anon_cost, file_cost
    assert goals(w)[0] == pytest.approx(100_000 * permille / 1000, rel=0.005)


def test_without_room_in_swap_only_cache_is_scanned() -> None:
    assert goals(scanning(swap_mib=0, inactive_anon=4000, inactive_file=4000)) == [0, 0, 1000, 0]
    w = scanning(inactive_anon=4000, inactive_file=4000)
    w.row["swap_free"] = 0
    assert goals(w) == [0, 0, 1000, 0], "swap that is full is no swap"


def test_at_the_highest_pressure_both_sides_are_scanned_whole() -> None:
    assert goals(scanning(priority=0, inactive_anon=100, active_anon=50, inactive_file=900, active_file=10)) == [100, 50, 900, 10]


def test_each_lower_priority_number_doubles_the_scan() -> None:
    scans = [goals(scanning(priority=p, inactive_file=8192, swap_mib=0))[LRU_INACTIVE_FILE] for p in (12, 11, 10)]
    assert scans == [2, 4, 8]


def test_protected_memory_is_scanned_in_proportion_to_its_excess() -> None:
    """T-3.7: list of 1000 pages, usage 2000, protected 1000 → 501 are open to reclaim."""
    w = scanning(priority=0, swap_mib=0, inactive_file=1000, active_file=1000)
    w.cg("box")["elow"] = 1000
    assert goals(w)[LRU_INACTIVE_FILE] == 501
    w.row["scan"][1]["target"] = 1
    assert goals(w)[LRU_INACTIVE_FILE] == 1000, "but not from reclaim aimed at the group itself"


def test_when_the_target_is_met_the_smaller_side_is_dropped_and_the_larger_cut_to_the_same_share() -> None:
    """100 of 400 anon and 400 of 1000 file pages are left: anon is the smaller rest and goes; file may reach the share of anon
    that was scanned (75 %), of which 600 pages are done already."""
    w = world()
    sc = w.row["scan"][1]
    sc["may_swap"] = sc["rounds"] = 1
    sc["goal"], sc["nr"] = (400, 0, 1000, 0), (100, 0, 400, 0)
    assert cut_to_proportion(sc)
    assert sc["nr"][LRU_INACTIVE_ANON] == 0
    assert sc["nr"][LRU_INACTIVE_FILE] == 1000 * (100 - 100 * 100 // 401) // 100 - 600
    assert not cut_to_proportion(sc), "one side only: nothing to balance"


def test_clean_cache_goes_before_a_single_page_of_anonymous_memory_without_swap() -> None:
    """
    before  100 MiB of cache read once, nothing else
    ask     170 MiB of anonymous memory
    after   the cache made room page for page; nobody was killed; every page scanned was freed
    """
    w = world(
        files={"/f": 100},
        tasks={"reader": "read_file /f 100 200 | sleep 100", "hog": "mmap_anon A 170 | sleep 1 | touch A 170 50 | sleep 100"},
    )
    w.at(1.5)
    assert w.meminfo("Active(file)") + w.meminfo("Inactive(file)") == pytest.approx(100, abs=0.1)
    w.at(10)
    assert w.meminfo("AnonPages") > 170
    assert w.meminfo("Inactive(file)") < 10
    assert w.kills() == []
    assert w.vm("pgscan_anon") == w.vm("pgsteal_anon") == 0
    assert w.vm("pgsteal_file") == w.vm("pgscan_file")


@pytest.mark.parametrize(("swappiness", "swaps"), [(0, False), (60, True), (200, True)])
def test_swappiness_decides_whether_idle_memory_makes_room_for_a_cache_that_is_read_again(swappiness: int, swaps: bool) -> None:
    w = world(
        swap_mib=128,
        swap_disk=FAST_DISK,
        sysctl={"vm.swappiness": swappiness},
        files={"/warm": 150},
        tasks={"idle": "mmap_anon A 80 | touch A 80 200 | sleep 100", "reader": "sleep 1 | read_file /warm 0 200"},
    )
    w.at(8)
    assert (w.vm("pswpout") > 0) == swaps
    assert w.vm("workingset_refault_file") > 0


def test_the_first_stream_swaps_nothing_because_used_once_cache_is_trimmed() -> None:
    """recordings e09: the first seconds of a stream swap nothing at swappiness 60 (cache_trim_mode)."""
    w = world(
        swap_mib=128,
        files={"/s": 400},
        tasks={"idle": "mmap_anon A 80 | touch A 80 200 | sleep 100", "s": "sleep 1 | read_file /s 400 100 | sleep 100"},
    )
    w.at(6)
    assert w.vm("pgsteal_file") > 200 * PAGES
    assert w.vm("pswpout") == 0


def test_an_inactive_list_that_is_not_low_keeps_the_active_one_safe() -> None:
    """Pages read twice survive a stream read once (kernel-laws §3.2: inactive · ratio ≥ active)."""
    w = world(
        files={"/hot": 40, "/s": 600},
        tasks={"h": "read_file /hot 40 200 | read_file /hot 40 200 | sleep 100", "s": "sleep 1 | read_file /s 600 100 | sleep 100"},
    )
    w.at(9)
    assert w.vm("pgsteal_file") > 400 * PAGES
    assert int(w.row["cgroups"][0]["tree"][LRU_ACTIVE_FILE]) == 40 * PAGES
    assert w.vm("pgdeactivate") == 0


def test_direct_reclaim_of_a_cgroup_counts_as_its_own_and_not_as_the_hosts() -> None:
    """kernel-laws §3.10: /proc/vmstat's pgscan_direct is global reclaim only; pgscan_file counts every kind."""
    w = world(files={"/f": 60}, cgroups={"box": {"memory.max": 30}}, tasks={"box/r": "read_file /f 60 100 | sleep 100"}).at(2)
    stat = dict(
        zip(("pgscan_kswapd", "pgscan_direct", "pgsteal_kswapd", "pgsteal_direct"), w.cg("box")["stat"][6:10].tolist(), strict=True)
    )
    assert stat["pgsteal_direct"] >= 30 * PAGES
    assert w.vm("pgscan_file") == stat["pgscan_direct"] > 0
    assert w.vm("pgscan_direct") == w.vm("pgscan_kswapd") == 0
    assert w.row["scan"][1]["kind"] == BY_MEMCG
    assert 0 <= w.row["scan"][1]["priority"] <= DEF_PRIORITY


def test_refaults_permit_deactivation_once_and_are_remembered_when_reclaim_ends() -> None:
    """mm/vmscan.c snapshot_refaults: only what was activated since the last reclaim counts as a sign of need."""
    w = world(files={"/f": 20}, cgroups={"box": {}}, tasks={"box/r": "read_file /f 40 200 | sleep 100"}).at(1)
    box, refaulted = w.cg("box"), CG["workingset_activate_file"]
    assert int(box["tree"][LRU_ACTIVE_FILE]) == 20 * PAGES
    box["stat"][refaulted] = 7
    do_try_to_free_pages(w.row, 1, 32, BY_MEMCG)
    assert box["refaults"].tolist() == [0, 7]
    assert w.row["scan"][1]["may_deactivate"][1] == 1
