# SPDX-License-Identifier: Apache-2.0
"""The tie on a host: what address translation adds to the accesses of a program, and what huge pages take away again."""

from __future__ import annotations

import numpy as np
import pytest

from fleetsim.hardware.tlb import run
from fleetsim.hardware.tlb_patterns import Pattern
from fleetsim.hardware.tlb_profiles import find
from fleetsim.hardware.tlb_run import Machine, result_of, run_pattern
from fleetsim.law import ONE_Q
from fleetsim.linux.huge_mm import split_huge
from fleetsim.linux.translation import about, random_ns, sweep_ns
from tests.host.worlds import PAGES, World, world

MIB_OF_DATABASE = 1536
LOAD_S, RUN_S = 5.0, 0.3


def database(access: str = "random", *, thp: str = "never", profile: str = "server", hugetlb: bool = False, **more: object) -> World:
    """A database that reads and writes its buffer pool as fast as it can, once it is loaded."""
    pool = "hugetlb D" if hugetlb else "mmap_anon D"
    sysctl = {"vm.nr_hugepages": MIB_OF_DATABASE // 2} if hugetlb else {}
    ops = f"{pool} {MIB_OF_DATABASE} | touch D {MIB_OF_DATABASE} 0 | until {LOAD_S} | rewrite D 0 0 {access}"
    return world(4096, thp=thp, cpu_profile=profile, tasks={"db": ops}, sysctl=sysctl, **more).at(LOAD_S)


def rate(w: World) -> float:
    """Accesses per simulated second from now on."""
    before, begin = w.progress_mib("db"), int(w.row["now_ns"]) / 1e9
    w.at(begin + RUN_S)
    return (w.progress_mib("db") - before) * PAGES / RUN_S


def ns_per_access(w: World) -> float:
    return 1e9 / rate(w)


def test_a_database_is_faster_with_huge_pages_and_slow_again_when_they_are_split() -> None:
    small, huge, pool = database(), database(thp="always"), database(hugetlb=True)
    assert huge.meminfo("AnonHugePages") == MIB_OF_DATABASE and small.meminfo("AnonHugePages") == 0
    with_small, with_huge, with_pool = ns_per_access(small), ns_per_access(huge), ns_per_access(pool)
    assert with_small > 2 * with_huge
    assert with_pool == pytest.approx(with_huge, rel=0.05)
    g = int(huge.row["areas"][int(huge.row["handles"][0])]["group"])
    half = int(huge.row["groups"][g]["huge"]) // 2
    split_huge(huge.row, g, int(huge.task("db")["cg"]), half)
    half_split = ns_per_access(huge)
    assert with_huge * 1.2 < half_split < with_small
    split_huge(huge.row, g, int(huge.task("db")["cg"]), int(huge.row["groups"][g]["huge"]))
    assert ns_per_access(huge) == pytest.approx(with_small, rel=0.02)


def test_a_host_without_free_blocks_gets_small_pages_and_their_speed() -> None:
    """THP is on, but every free block is broken: faults fall back, and the database never becomes as fast."""
    w = world(
        4096,
        thp="always",
        cpu_profile="server",
        tasks={"db": f"sleep 1 | mmap_anon D 512 | touch D 512 0 | until {LOAD_S} | rewrite D 0 0 random"},
    )
    w.at(0.5)
    for zone in w.row["zones"]:
        pages = int(zone["free"])
        zone["free_area"] = 0
        zone["free_area"][1][8], zone["free_area"][1][0] = pages >> 8, pages & 255
    w.row["khugepaged_next_ns"] = 1 << 62
    w.at(LOAD_S)
    assert w.vm("thp_fault_fallback") > 0
    whole = world(
        4096, thp="always", cpu_profile="server", tasks={"db": f"mmap_anon D 512 | touch D 512 0 | until {LOAD_S} | rewrite D 0 0 random"}
    )
    assert ns_per_access(w) > 1.5 * ns_per_access(whole.at(LOAD_S))


@pytest.mark.parametrize("huge", [False, True])
def test_what_a_host_pays_is_what_the_exact_simulator_says(huge: bool) -> None:
    """5 ns an access, and the cycles of an exact Skylake at 3 GHz."""
    page = "2M" if huge else "4K"
    exact = run_pattern(Machine(find("skylake"), page), Pattern("uniform", MIB_OF_DATABASE << 20), 100_000, warm_up=100_000)
    paid = ns_per_access(database(thp="always" if huge else "never"))
    assert paid == pytest.approx(5 + exact.cycles_per_access / 3, rel=0.1)


@pytest.mark.parametrize("hot_share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("hot_pages", "cold_pages"), [(48, 4000), (400, 4000), (1200, 1200), (1400, 100_000), (3000, 1_000_000)])
def test_hot_and_cold_parts_pay_what_the_exact_simulator_says(hot_pages: int, cold_pages: int, hot_share: float) -> None:
    """`hot:F:P` of the op language, as a trace of its own."""
    luck = np.random.default_rng(9)
    hot = luck.integers(0, hot_pages, 400_000)
    cold = hot_pages + luck.integers(0, cold_pages, 400_000)
    addresses = np.where(luck.random(400_000) < hot_share, hot, cold) << 12
    machine = Machine(find("skylake"))
    core = machine.core()
    run(core, addresses[:200_000], np.zeros(200_000, np.int8))
    before = result_of(machine, core).cycles
    run(core, addresses[200_000:], np.zeros(200_000, np.int8))
    exact = (result_of(machine, core).cycles - before) / 200_000
    said = random_ns(hot_pages, cold_pages, 0, 0, round(hot_share * ONE_Q), False, 3000) / 1024 * 3
    assert said == pytest.approx(exact, rel=0.1, abs=0.1)


@pytest.mark.parametrize("pages", [31, 33, 1000, 1535, 1600, 28_527, 131_072, 5_000_001, 1 << 30])
def test_the_model_is_told_sizes_to_three_percent_and_says_what_it_would_of_the_exact_ones(pages: int) -> None:
    rounded = about(pages)
    assert rounded == pytest.approx(pages, rel=1 / 31, abs=0)
    exact, said = (random_ns(0, size, 0, 0, 0, False, 3000) for size in (pages, rounded))
    assert said == pytest.approx(exact, rel=0.05, abs=512)  # half a nanosecond where the second TLB's reach ends


def test_a_size_that_breathes_by_a_percent_is_one_size() -> None:
    assert len({about(pages) for pages in range(28_000, 28_280)}) <= 2
    assert [about(pages) for pages in range(32)] == list(range(32))


def test_a_hot_part_that_fits_makes_most_accesses_cheap() -> None:
    even, hot = ns_per_access(database()), ns_per_access(database("hot:0.002:0.95"))
    assert hot < even / 2


def test_a_sweep_pays_one_walk_per_page_and_few_with_huge_pages() -> None:
    """A walk's upper entries are those of the page before: 9 + 30 cycles a page, 13 ns."""
    small, huge = ns_per_access(database("seq")), ns_per_access(database("seq", thp="always"))
    assert small == pytest.approx(5 + 13, rel=0.05)
    assert huge < 6


def test_the_emulated_machine_of_the_recordings_pays_nothing() -> None:
    """Its 20 ns are what was measured; its recordings must be replayed as before."""
    assert ns_per_access(database(profile="lab")) == pytest.approx(20, rel=0.01)
    assert ns_per_access(database(profile="lab", thp="always")) == pytest.approx(20, rel=0.01)


def test_the_answer_is_kept_until_something_changes() -> None:
    w = database()
    rate(w)
    area = w.row["areas"][int(w.row["handles"][0])]
    cost = int(area["walk_cost"])
    assert cost > 10 << 10
    area["walk_cost"] = 0  # nobody would look at it again
    fast = ns_per_access(w)
    assert fast == pytest.approx(5, rel=0.02)
    area["walk_key"] = 0
    assert ns_per_access(w) > 3 * fast and int(area["walk_cost"]) == cost


def test_shares_and_sizes_of_the_classes() -> None:
    """Of 1 GiB, half in huge pages: half of the accesses go to 256 huge pages that the second level knows."""
    pages = 1 << 18
    none, half, full = (random_ns(0, pages, 0, share, 0, False, 3000) for share in (0, 32, 64))
    assert none > half > full > 0
    assert half == pytest.approx((none + full) / 2, rel=0.1)
    assert random_ns(pages, 0, 0, 0, ONE_Q, False, 3000) == none, "all accesses to the hot part"
    assert random_ns(16, 0, 0, 0, ONE_Q, False, 3000) == 0 == sweep_ns(16, 0, 3000)
    assert sweep_ns(pages, 0, 3000) > 100 * sweep_ns(pages, 64, 3000)
    costs = [random_ns(0, 16 << k, 0, 0, 0, False, 3000) for k in range(22)]
    assert (np.diff(costs) >= -20).all()
