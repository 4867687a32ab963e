# SPDX-License-Identifier: Apache-2.0
"""MGLRU: where pages join, what aging and eviction do to them, and that nothing changes without it (kernel-laws §3.12)."""

from __future__ import annotations

from math import ceil, log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.hardware.cpu import AGE_PTE
from fleetsim.linux import mm_types as mm
from fleetsim.linux.check import generation_violations
from fleetsim.linux.lru_gen import LRU_GEN_FILE, LRU_REFS_MAX, MAX_NR_GENS, lru_gen_add_seq, lru_gen_seq, lru_tier_from_refs
from fleetsim.linux.lru_gen_age import inc_max_seq, should_run_aging, suitable_to_scan, try_to_inc_max_seq
from fleetsim.linux.lru_gen_evict import scan_folios
from fleetsim.linux.lru_gen_pid import get_tier_idx, get_type_to_scan, positive_ctrl_err, reset_ctrl_pos
from tests.host.worlds import FAST_DISK, PAGES, World, world

COUNT = st.integers(0, 2**20)
GAIN = st.integers(0, 200)


def lists(w: World) -> dict[str, int]:
    """MiB by list, as meminfo shows them."""
    return {name: round(w.meminfo(name)) for name in ("Active(anon)", "Inactive(anon)", "Active(file)", "Inactive(file)")}


def generations(w: World, kind: int, cg: int = 0) -> dict[int, int]:
    """Pages by generation of the anonymous pages (0) or the cache (1) of a lruvec."""
    lruvec, pages = w.row["cgroups"][cg], dict[int, int]()
    for cohort in w.row["cohorts"]:
        if int(cohort["list"]) // 2 == kind and int(cohort["cg"]) == cg and int(cohort["nr"]) > 0:
            seq = int(lru_gen_seq(lruvec, cohort))
            pages[seq] = pages.get(seq, 0) + int(cohort["nr"])
    return pages


def scan(w: World, kind: int = mm.BY_DIRECT, priority: int = 0) -> Any:
    sc = w.row["scan"][1]
    sc["kind"], sc["priority"], sc["wanted"], sc["target"] = kind, priority, 32, 0
    for name in ("reclaimed", "sent", "scanned", "spent_ns", "low_reclaim", "lruvec_scanned"):
        sc[name] = 0
    sc["lruvec_zone"] = mm.NR_ZONES - 1
    return sc


# --- scalar rules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refs", range(LRU_REFS_MAX + 1))
def test_the_tier_is_the_logarithm_of_the_accesses(refs: int) -> None:
    assert lru_tier_from_refs(refs) == ceil(log2(refs + 1))


@given(COUNT, COUNT, GAIN, COUNT, COUNT, GAIN)
def test_the_controller_compares_refault_rates(sr: int, st_: int, sg: int, pr: int, pt: int, pg: int) -> None:
    """T: pv/total ≤ (sp + 1)/(total + 64) by gain; fewer than 64 refaults say nothing."""
    naive = pr < 64 or pr * sg * (st_ + 64) <= (sr + 1) * pg * pt
    assert positive_ctrl_err(sr, st_, sg, pr, pt, pg) == naive


@given(st.integers(1, 512), st.integers(0, 512))
def test_a_page_table_is_worth_a_walk_if_a_page_in_eight_was_accessed(total: int, young: int) -> None:
    assert suitable_to_scan(total, young) == (young / total >= 1 / 8)


def counted(refaulted: list[int], evicted: list[int]) -> Any:
    """A lruvec whose tiers (anon 0, file 0, 1, 2) have these counts."""
    lruvec = np.zeros(1, mm.CGROUP)[0]
    lruvec["refaulted"], lruvec["evicted"] = refaulted, evicted
    return lruvec


def test_a_tier_is_protected_once_it_comes_back_more_than_twice_as_often_as_the_first() -> None:
    assert get_tier_idx(counted([0, 1000, 0, 0], [0, 10_000, 1000, 1000]), LRU_GEN_FILE) == 3
    assert get_tier_idx(counted([0, 1000, 0, 500], [0, 10_000, 1000, 1000]), LRU_GEN_FILE) == 1
    assert get_tier_idx(counted([0, 1000, 500, 500], [0, 10_000, 1000, 1000]), LRU_GEN_FILE) == 0
    assert get_tier_idx(counted([0, 1000, 190, 0], [0, 10_000, 1000, 1000]), LRU_GEN_FILE) == 3


@pytest.mark.parametrize(("swappiness", "kind"), [(10, 1), (90, 1), (110, 0), (190, 0)])
def test_the_type_that_comes_back_less_is_evicted_and_swappiness_weighs(swappiness: int, kind: int) -> None:
    """Both come back alike here, so that only swappiness counts."""
    assert get_type_to_scan(counted([500, 500, 0, 0], [5000, 5000, 0, 0]), swappiness)[0] == kind


def test_counts_of_a_generation_that_is_gone_live_on_as_an_average() -> None:
    lruvec = counted([0, 400, 0, 0], [0, 1000, 0, 0])
    lruvec["protected"][0] = 60
    reset_ctrl_pos(lruvec, LRU_GEN_FILE)
    reset_ctrl_pos(lruvec, LRU_GEN_FILE)
    assert lruvec["avg_refaulted"].tolist() == [0, 100, 0, 0]
    assert lruvec["avg_total"].tolist() == [0, 250, 15, 0]
    assert int(lruvec["refaulted"].sum() + lruvec["evicted"].sum() + lruvec["protected"].sum()) == 0


# --- where pages join --------------------------------------------------------------------------------------------------

MIXED = {"a": "mmap_anon A 40 | touch A 40 200 | sleep 99", "r": "read_file /f 30 200 | sleep 99"}
MIXED["m"] = "mmap_file M /g shared | read M 20 200 seq | sleep 99"


def test_what_is_faulted_in_is_young_and_what_is_read_through_a_file_descriptor_is_old() -> None:
    w = world(512, lru_gen="y", files={"/f": 30, "/g": 20}, tasks=MIXED).at(3)
    assert lists(w) == {"Active(anon)": 40, "Inactive(anon)": 0, "Active(file)": 20, "Inactive(file)": 30}
    assert generations(w, 0) == {3: 40 * PAGES}
    assert generations(w, 1) == {3: 20 * PAGES, 1: 30 * PAGES}
    assert w.vm("pgactivate") == 0


def test_without_it_new_memory_is_inactive_and_nobody_has_a_generation() -> None:
    w = world(512, files={"/f": 30, "/g": 20}, tasks=MIXED).at(3)
    assert lists(w)["Inactive(anon)"] == 40
    assert not w.row["cohorts"]["gen"].any() and not w.row["cohorts"]["refs"].any()


@pytest.mark.parametrize(("max_seq", "oldest", "joins"), [(3, 0, 1), (4, 2, 2), (5, 4, 4)])
def test_cache_joins_the_second_oldest_of_four_generations_and_the_oldest_of_fewer(max_seq: int, oldest: int, joins: int) -> None:
    w = world(256, lru_gen="y")
    lruvec = w.row["cgroups"][0]
    lruvec["max_seq"], lruvec["min_seq"] = max_seq, [min(oldest, max_seq - 1)] * 2
    assert lru_gen_add_seq(w.row, 0, mm.LRU_INACTIVE_FILE, 0) == joins
    assert lru_gen_add_seq(w.row, 0, mm.LRU_INACTIVE_FILE, 1) == max_seq - 1
    assert lru_gen_add_seq(w.row, 0, mm.LRU_INACTIVE_ANON, 0) == max_seq - 1
    assert lru_gen_add_seq(w.row, 0, mm.LRU_ACTIVE_ANON, 0) == max_seq


# --- aging -------------------------------------------------------------------------------------------------------------


def test_aging_keeps_what_was_accessed_young_and_lets_the_rest_grow_old() -> None:
    w = world(
        512,
        swap_mib=64,
        lru_gen="y",
        tasks={
            "a": "mmap_anon A 30 | touch A 30 200 | sleep 99",
            "b": "mmap_anon B 20 | touch B 20 200 | sleep 5 | rewrite B 20 200 seq | sleep 99",
        },
    )
    sc = scan(w.at(2))
    try_to_inc_max_seq(w.row, sc, 0, True)  # all of it was accessed: it belongs to the youngest of before
    assert generations(w, 0) == {3: 50 * PAGES}
    assert sc["spent_ns"] == 50 * PAGES * w.row["cost"][39]
    try_to_inc_max_seq(w.row, sc, 0, True)  # nobody came since
    assert generations(w, 0) == {3: 50 * PAGES} and lists(w)["Inactive(anon)"] == 50
    w.at(7)
    for cohort in w.row["cohorts"]:
        cohort["flags"] |= mm.IN_FILTER
    try_to_inc_max_seq(w.row, sc, 0, True)
    assert generations(w, 0) == {3: 30 * PAGES, 5: 20 * PAGES}
    assert not generation_violations(w.row)


def test_a_walk_passes_over_tables_in_which_nothing_was_accessed_at_the_last_one() -> None:
    w = world(512, swap_mib=64, lru_gen="y", tasks={"a": "mmap_anon A 30 | touch A 30 200 | sleep 5 | rewrite A 30 200 seq | sleep 99"})
    sc = scan(w.at(2))
    for _ in range(2):
        try_to_inc_max_seq(w.row, sc, 0, True)
    w.at(7)
    try_to_inc_max_seq(w.row, sc, 0, True)
    assert generations(w, 0) == {3: 30 * PAGES}, "it was accessed, but the filter did not have it"
    assert any(cohort["flags"] & mm.ACCESSED for cohort in w.row["cohorts"])


def test_what_a_walk_promotes_is_met_once_and_looked_at_again_by_the_next_one() -> None:
    """What joins the youngest generation stays in the Bloom filter, whichever list it came from."""
    w = world(512, swap_mib=64, lru_gen="y", tasks={"a": "mmap_anon A 30 | touch A 30 200 | sleep 99"}).at(2)
    sc = scan(w)
    for _ in range(2):
        try_to_inc_max_seq(w.row, sc, 0, True)
    mine = [c for c in w.row["cohorts"] if c["nr"] > 0]
    for cohort in mine:
        assert int(cohort["list"]) == mm.LRU_INACTIVE_ANON
        cohort["flags"] |= mm.IN_FILTER | mm.ACCESSED
    sc["spent_ns"] = 0
    try_to_inc_max_seq(w.row, sc, 0, True)
    assert all(int(c["flags"]) & mm.IN_FILTER for c in mine)
    assert int(sc["spent_ns"]) == 30 * PAGES * int(w.row["cost"][AGE_PTE]), "each entry is looked at once"


def test_without_page_table_walks_nothing_is_promoted() -> None:
    w = world(512, swap_mib=64, lru_gen="1", tasks={"a": "mmap_anon A 30 | touch A 30 200 | sleep 99"}).at(2)
    for _ in range(2):
        try_to_inc_max_seq(w.row, scan(w), 0, True)
    assert generations(w, 0) == {3: 30 * PAGES} and w.row["cgroups"][0]["max_seq"] == 5


def test_there_are_never_more_than_four_generations_and_the_oldest_makes_room() -> None:
    w = world(512, swap_mib=64, lru_gen="1", files={"/f": 30}, tasks={"r": "read_file /f 30 200 | sleep 99"}).at(2)
    for _ in range(6):
        inc_max_seq(w.row, 0, True)
        assert not generation_violations(w.row)
    lruvec = w.row["cgroups"][0]
    assert lruvec["max_seq"] - lruvec["min_seq"].min() + 1 == MAX_NR_GENS
    assert generations(w, 1) == {int(lruvec["min_seq"][1]): 30 * PAGES}


def test_anonymous_pages_that_cannot_be_swapped_become_young_again() -> None:
    w = world(512, lru_gen="1", tasks={"a": "mmap_anon A 30 | touch A 30 200 | sleep 99"}).at(2)
    seen = []
    for _ in range(5):
        inc_max_seq(w.row, 0, False)
        assert not generation_violations(w.row)
        seen.append(w.row["cgroups"][0]["max_seq"] - min(generations(w, 0)))
    assert seen == [1, 2, 3, 0, 1]


@pytest.mark.parametrize(("young", "old", "due"), [(40, 40, False), (70, 40, True), (40, 15, True)])
def test_three_generations_are_aged_when_the_youngest_is_large_or_the_oldest_small(young: int, old: int, due: bool) -> None:
    """More than half of all pages, or less than a quarter."""
    tasks = {"o": f"mmap_anon A {old} | touch A {old} 500 | sleep 99", "m": "sleep 2 | mmap_anon A 20 | touch A 20 500 | sleep 99"}
    tasks["y"] = f"sleep 4 | mmap_anon A {young} | touch A {young} 500 | sleep 99"
    w = world(512, swap_mib=64, lru_gen="1", tasks=tasks).at(1)
    inc_max_seq(w.row, 0, True)
    w.at(3)
    inc_max_seq(w.row, 0, True)
    w.at(5)
    w.row["cgroups"][0]["min_seq"] = 3
    assert [n // PAGES for n in sorted(generations(w, 0).values())] == sorted([young, old, 20])
    assert should_run_aging(w.row, scan(w), 0, True)[0] == due


# --- eviction ----------------------------------------------------------------------------------------------------------


def test_a_page_that_was_accessed_since_is_kept_and_those_around_it_are_found_with_it() -> None:
    w = world(512, swap_mib=64, swap_disk=FAST_DISK, lru_gen="1", tasks={"a": "mmap_anon A 16 | touch A 16 200 | sleep 99"}).at(2)
    for _ in range(2):
        inc_max_seq(w.row, 0, True)
    w.row["cgroups"][0]["min_seq"] = 3
    assert scan_folios(w.row, scan(w), 0, 0, 3, 4096) == 4096
    assert generations(w, 0) == {5: 16 * PAGES} and w.vm("pswpout") == 0
    assert w.vm("pgactivate") == 4096 // 32 and w.vm("pgscan_direct") == 4096


def test_pages_of_the_lowest_zone_wait_until_the_generation_has_no_others() -> None:
    """e21: the 10 MB of zone DMA that the stream fills are given back twice in a minute, what lies above 30 times."""
    tasks = {"a": "mmap_anon A 150 | touch A 150 200 | sleep 99", "r": "sleep 2 | read_file /big 0 100"}
    w = world(256, lru_gen="y", files={"/big": 2000}, tasks=tasks).at(6)
    low, all_of_them = w.vm("pgalloc_dma"), w.vm("pgsteal_kswapd")
    w.at(16)
    assert w.vm("pgsteal_kswapd") - all_of_them > 800 * PAGES
    assert w.vm("pgalloc_dma") - low < 20 * PAGES


def test_a_stream_does_not_drive_out_a_mapped_working_set() -> None:
    """e21 against e05: with MGLRU the mapped file hardly faults while a stream of read() passes by."""
    tasks = {"svc": "mmap_file M /hot shared | read M 0 200 random", "stream": "sleep 3 | read_file /big 0 200"}
    majfaults = {}
    for chosen in ("n", "y"):
        w = world(256, lru_gen=chosen, files={"/hot": 60, "/big": 600}, tasks=tasks).at(3)
        before = int(w.task("svc")["majflt"])
        majfaults[chosen] = int(w.at(9).task("svc")["majflt"]) - before
    assert majfaults["y"] * 4 < majfaults["n"]


def test_what_is_read_again_and_again_comes_back_once_and_is_protected_then() -> None:
    """e21: the file that is read in turns is evicted by the first pressure, refaults, and stays."""
    tasks = {"svc": "read_file /hot 0 30", "stream": "sleep 6 | read_file /big 0 60"}
    w = world(256, lru_gen="y", files={"/hot": 60, "/big": 900}, tasks=tasks).at(15)
    assert w.vm("workingset_restore_file") > 0 and w.vm("workingset_activate_file") == w.vm("pgrefill") > 0
    before = int(w.task("svc")["blkio_ns"])
    assert int(w.at(17).task("svc")["blkio_ns"]) - before < 100_000_000
    assert w.vm("pgactivate") < 100


def test_memory_that_was_swapped_too_early_is_protected_when_it_gets_old_again() -> None:
    """h22: a set larger than memory, rewritten in turns: refaults count only while the generation they left is the oldest."""
    ops = "mmap_anon A 300 | touch A 300 100 | rewrite A 0 100 seq"
    w = world(256, swap_mib=300, swap_disk=FAST_DISK, lru_gen="y", tasks={"a": ops}).at(16)
    assert 0 < w.vm("workingset_refault_anon") < w.vm("pswpin")
    assert w.vm("workingset_restore_anon") == w.vm("workingset_refault_anon"), "every one of them was a fault"
    assert 0 < w.vm("workingset_activate_anon") <= w.vm("workingset_restore_anon")
    assert not w.kills()


@pytest.mark.parametrize("swap_mib", [0, 200])
def test_a_cgroup_at_its_limit_ages_itself_and_is_killed_only_when_nothing_is_left(swap_mib: int) -> None:
    ops = "read_file /f 60 200 | mmap_anon A 150 | touch A 150 50 | sleep 99"
    host: dict[str, Any] = {"files": {"/f": 60}, "cgroups": {"box": {"memory.max": 80}}, "tasks": {"box/a": ops}}
    w = world(512, swap_mib=swap_mib, swap_disk=FAST_DISK, lru_gen="y", **host).at(8)
    assert w.row["cgroups"][1]["max_seq"] > 3 and w.row["cgroups"][0]["max_seq"] == 3
    assert w.vm("pgscan_direct") == w.vm("pgscan_kswapd") == 0 < w.vm("pgscan_file")
    assert bool(w.kills()) == (swap_mib == 0)


def test_with_min_ttl_somebody_is_killed_rather_than_young_memory_evicted() -> None:
    """6.1 looks at ages only when it looks whether to age, and so not while used-once cache is easily had."""
    host: dict[str, Any] = {
        "swap_mib": 300,
        "swap_disk": FAST_DISK,
        "tasks": {"a": "mmap_anon A 300 | touch A 300 100 | rewrite A 0 100 seq"},
    }
    assert not world(256, lru_gen="y", **host).at(8).kills()
    assert world(256, lru_gen="y", lru_gen_min_ttl_ms=60_000, **host).at(8).kills() == ["a"]


# --- switching ----------------------------------------------------------------------------------------------------------


def test_it_can_be_switched_on_and_off_while_the_host_is_at_work() -> None:
    file = "/sys/kernel/mm/lru_gen/enabled"
    ops = f"sleep 3 | sysw {file} y | sleep 2 | sysw {file} n | sleep 2 | sysw {file} 0x0003 | sleep 99"
    tasks = {"admin": ops, "a": "mmap_anon A 120 | touch A 120 100 | rewrite A 0 50 random", "r": "read_file /f 0 100"}
    w = world(256, swap_mib=64, swap_disk=FAST_DISK, files={"/f": 300}, tasks=tasks)
    seen = []
    for second in (2.5, 4.5, 6.5, 9):
        w.at(second)
        seen.append(int(w.row["lru_gen"]))
    assert seen == [0, 7, 0, 3]


def test_enabling_makes_active_pages_the_youngest_and_anonymous_ones_the_next() -> None:
    tasks = {"admin": "sleep 3 | sysw /sys/kernel/mm/lru_gen/enabled y | sleep 99", "a": MIXED["a"], "r": "read_file /f 60 200 | sleep 99"}
    w = world(512, files={"/f": 30}, tasks=tasks).at(2)
    before = lists(w)
    assert before == {"Active(anon)": 0, "Inactive(anon)": 40, "Active(file)": 30, "Inactive(file)": 0}
    w.at(4)
    assert generations(w, 0) == {2: 40 * PAGES} and generations(w, 1) == {3: 30 * PAGES}
    assert lists(w) == {"Active(anon)": 40, "Inactive(anon)": 0, "Active(file)": 30, "Inactive(file)": 0}


def test_a_page_in_the_wrong_place_is_found() -> None:
    w = world(512, lru_gen="y", files={"/f": 30, "/g": 20}, tasks=MIXED).at(3)
    i = int(w.row["cgroups"][0]["head"][mm.LRU_ACTIVE_ANON])
    w.row["cohorts"][i]["gen"] = 1
    assert generation_violations(w.row)


def test_a_long_tick_reclaims_the_same() -> None:
    tasks = {"a": "mmap_anon A 150 | touch A 150 60 | rewrite A 0 30 random", "r": "read_file /big 0 60"}
    host: dict[str, Any] = {"swap_mib": 100, "swap_disk": FAST_DISK, "files": {"/big": 900}, "tasks": tasks}
    short, long = (world(256, lru_gen="y", tick_ms=tick_ms, **host).at(12) for tick_ms in (1.0, 200.0))
    assert long.vm("pgsteal_kswapd") == pytest.approx(short.vm("pgsteal_kswapd"), rel=0.1)
    assert short.kills() == long.kills() == []
