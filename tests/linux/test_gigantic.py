# SPDX-License-Identifier: Apache-2.0
"""The pool of 1 GiB pages: set aside at boot or later, one fault for a GiB, no page tables below the PUD, nothing on demand."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fleetsim.containers.ops import check_op
from fleetsim.linux.pgtable import BLOCKS_PER_PMD, nr_tables
from fleetsim.linux.translation import random_ns
from tests.host.worlds import World, world

GIB_PAGES = 262_144
FILES = "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"


def pool(w: World) -> tuple[int, int, int, int]:
    """nr, free, resv, surplus."""
    return tuple(int(w.row["hstates"][1][name]) for name in ("nr", "free", "resv", "surplus"))  # type: ignore[return-value]


def host(ops: str, pages: int = 3, mib: int = 8192, **more: object) -> World:
    return world(mib, hugepages_1gib=pages, tasks={"db": ops}, **more)


def test_the_command_lines_pool_is_there_at_boot_and_gone_from_free_memory() -> None:
    without, with_pool = host("sleep 9", 0).at(1), host("sleep 9", 3).at(1)
    assert pool(with_pool) == (3, 3, 0, 0)
    assert without.free() - with_pool.free() == pytest.approx(3072, abs=1)
    assert (with_pool.meminfo("Hugetlb"), with_pool.all_meminfo()["HugePages_Total"]) == (3072, 0)
    assert without.meminfo("MemTotal") == with_pool.meminfo("MemTotal")


def test_hugetlb_in_meminfo_is_the_sum_of_both_pools_and_the_counts_are_of_the_default_one() -> None:
    w = host("sleep 9", 2, sysctl={"vm.nr_hugepages": 100}).at(1)
    assert w.meminfo("Hugetlb") == 2 * 1024 + 200
    assert w.all_meminfo()["HugePages_Total"] == 100


def test_a_boot_that_asks_for_more_than_fits_gets_what_fits() -> None:
    nr = pool(host("sleep 9", 30).at(1))[0]
    assert 4 <= nr <= 7


def test_a_fault_takes_a_whole_gib_clears_it_and_is_one_minor_fault() -> None:
    w = host("hugetlb G 2048 1G | sleep 1 | touch G 1 0 | sleep 3 | touch G 1500 0 | sleep 3 | free G munmap | sleep 99")
    assert pool(w.at(0.5)) == (3, 3, 2, 0)
    w.at(3)
    assert pool(w) == (3, 2, 1, 0)
    task = w.task("db")
    assert (int(task["hugetlb"]), int(task["minflt"])) == (GIB_PAGES, 1)
    assert int(task["stime_ns"]) > 20_000_000, "a GiB of zeros takes its time"
    assert int(task["rss_anon"]) < 100, "it is in nobody's RSS"
    w.at(6)
    assert pool(w) == (3, 1, 0, 0)
    assert int(w.task("db")["minflt"]) == 2
    assert pool(w.at(9)) == (3, 3, 0, 0)
    assert int(w.task("db")["hugetlb"]) == 0


def test_an_odd_size_is_rounded_up_to_whole_pages_and_what_is_not_there_is_refused() -> None:
    w = host("hugetlb G 1025 1G | sleep 1 | hugetlb H 1025 1G | sleep 9", 3).at(0.5)
    assert pool(w) == (3, 3, 2, 0)
    size = int(w.task("db")["total_vm"])
    assert pool(w.at(2)) == (3, 3, 2, 0), "two more are not to be had"
    assert int(w.task("db")["total_vm"]) == size


def test_no_gigantic_page_is_made_on_demand() -> None:
    """mm/hugetlb.c alloc_surplus_huge_page: not for gigantic pages, whatever nr_overcommit_hugepages says."""
    overcommit = FILES.replace("nr_huge", "nr_overcommit_huge")
    w = host(f"sysw {overcommit} 4 | hugetlb G 1024 1G | sleep 9", 0).at(2)
    assert pool(w) == (0, 0, 0, 0)
    assert int(w.row["hstates"][1]["overcommit"]) == 0, "EINVAL"


def test_what_is_in_use_when_the_pool_shrinks_is_surplus_until_it_is_freed() -> None:
    w = host(f"hugetlb G 2048 1G | touch G 2048 0 | sysw {FILES} 0 | sleep 5 | free G munmap | sleep 99")
    assert pool(w.at(4)) == (2, 0, 0, 2)
    assert pool(w.at(9)) == (0, 0, 0, 0)


@pytest.mark.parametrize("gib", [1, 2, 3])
def test_a_gib_needs_no_page_table_of_its_own_below_the_pud(gib: int) -> None:
    """24 GiB in small pages have 48 MiB of them (T-11.1), in 2 MiB pages one page for each GiB, in 1 GiB pages none."""
    idle, giant = host("sleep 99").at(4), host(f"hugetlb G {gib * 1024} 1G | touch G {gib * 1024} 0 | sleep 99").at(4)
    huge = world(8192, sysctl={"vm.nr_hugepages": 512 * gib}, tasks={"db": f"hugetlb G {gib * 1024} | touch G {gib * 1024} 0 | sleep 99"})
    tables = [int(w.task("db")["pgtables"]) for w in (idle, giant, huge.at(4))]
    assert tables[1] == tables[0]
    assert gib <= tables[2] - tables[0] + 1 <= gib + 2
    assert int(nr_tables(giant.row, 0)) == tables[1]


def test_an_area_of_gigantic_pages_begins_at_a_whole_gib_and_overlaps_no_other() -> None:
    ops = "mmap_anon A 100 | hugetlb G 1024 1G | mmap_anon B 3000 | hugetlb H 1500 1G | hugetlb S 4 | mmap_anon C 5 | sleep 99"
    w = host(ops, 3, sysctl={"vm.nr_hugepages": 4}).at(1)
    spans = []
    for area in w.row["areas"]:
        if int(area["kind"]):
            blocks = -(-int(area["pages"]) // 512)
            if int(area["hstate"]):
                assert int(area["start"]) % BLOCKS_PER_PMD == 0
                blocks = -(-blocks // 512) * 512
            spans.append((int(area["start"]), int(area["start"]) + blocks))
    spans.sort()
    assert len(spans) == 6
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_random_access_is_translated_faster_the_larger_the_pages() -> None:
    """Cascade Lake: 4 entries for 1 GiB in the first TLB, 16 in the second; 24 GiB are more than both, 4 GiB are not."""
    for gib in (8, 24, 100):
        pages = gib * GIB_PAGES
        small, huge = random_ns(0, pages, 0, 0, 0, False, 3000), random_ns(0, pages, 0, 64, 0, False, 3000)
        assert 0 < 1.5 * random_ns(0, pages, 0, 64, 0, True, 3000) < huge < small
    assert random_ns(0, 4 * GIB_PAGES, 0, 64, 0, True, 3000) == 0 < random_ns(0, 4 * GIB_PAGES, 0, 64, 0, False, 3000)


@pytest.mark.parametrize("words", ["", " 2M", " 1G"])
def test_a_scenario_says_the_size_of_the_pages(words: str) -> None:
    check_op(f"hugetlb shared 2048{words}")
    with pytest.raises(ValueError, match="'4K' is too much"):
        check_op("hugetlb shared 2048 4K")
