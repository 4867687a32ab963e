# SPDX-License-Identifier: Apache-2.0
"""Pools of huge pages: reservations, surplus, growth by reclaim, and what they are not part of (kernel-laws §11.3)."""

from __future__ import annotations

import pytest

from tests.host.worlds import PAGES, World, world


def counts(w: World) -> tuple[int, int, int, int]:
    info = w.all_meminfo()
    return (info["HugePages_Total"], info["HugePages_Free"], info["HugePages_Rsvd"], info["HugePages_Surp"])


def test_a_mapping_promises_pages_and_touching_takes_them() -> None:
    """T-11.3, with 2 MiB pages: total 30, map 40 MiB → 20 promised; 30 MiB more → ENOMEM; touch 10 MiB → 5 taken."""
    ops = "hugetlb a 40 | sleep 1 | hugetlb b 30 | sleep 1 | touch a 10 0 | sleep 1 | free a munmap | sleep 100"
    w = world(sysctl={"vm.nr_hugepages": 30}, tasks={"app": ops})
    assert counts(w.at(0.5)) == (30, 30, 20, 0)
    assert counts(w.at(1.5)) == (30, 30, 20, 0), "refused"
    assert counts(w.at(2.5)) == (30, 25, 15, 0)
    assert (int(w.task("app")["hugetlb"]), int(w.task("app")["minflt"])) == (5 * 512, 5)
    assert int(w.task("app")["rss_anon"]) < 100, "huge pages of a pool are in nobody's RSS"
    assert counts(w.at(3.5)) == (30, 30, 0, 0)


def test_a_pool_is_gone_from_free_and_available_memory_used_or_not() -> None:
    without, with_pool = world(tasks={"a": "sleep 9"}).at(1), world(sysctl={"vm.nr_hugepages": 20}, tasks={"a": "sleep 9"}).at(1)
    assert without.free() - with_pool.free() == pytest.approx(40, abs=0.5)
    assert without.meminfo("MemAvailable") - with_pool.meminfo("MemAvailable") == pytest.approx(40, abs=2), "but for the per-cpu lists"
    assert with_pool.meminfo("Hugetlb") == 40
    assert without.meminfo("CommitLimit") - with_pool.meminfo("CommitLimit") == pytest.approx(20, abs=0.1), "half of the rest"
    assert without.meminfo("MemTotal") == with_pool.meminfo("MemTotal")


def test_a_pool_grows_on_a_full_page_cache_by_evicting_it() -> None:
    """e19: 336 huge pages were had at once from 650 MiB of cache, no allocation failed."""
    ops = "read_file /f 200 0 | sleep 2 | sysw /proc/sys/vm/nr_hugepages 50 | sleep 100"
    w = world(files={"/f": 200}, tasks={"app": ops}).at(20)
    assert counts(w) == (50, 50, 0, 0)
    assert w.vm("pgsteal_direct") + w.vm("pgsteal_kswapd") > 50 * 512 // 2
    assert (w.vm("htlb_buddy_alloc_success"), w.vm("htlb_buddy_alloc_fail")) == (50, 0)


def test_a_pool_that_cannot_be_had_stays_short_and_kills_nobody() -> None:
    w = world(tasks={"app": "mmap_anon A 120 | touch A 120 0 | sysw /proc/sys/vm/nr_hugepages 200 | sleep 100"}).at(30)
    total = counts(w)[0]
    assert 20 < total < 60
    assert w.kills() == []
    assert w.vm("htlb_buddy_alloc_fail") == 1


def test_pages_in_use_above_a_lowered_pool_are_surplus_until_they_are_freed() -> None:
    """e19: 400 → 10 left the 50 in use."""
    ops = "hugetlb h 20 | touch h 20 0 | sleep 1 | sysw /proc/sys/vm/nr_hugepages 3 | sleep 1 | exit 0"
    w = world(sysctl={"vm.nr_hugepages": 40}, tasks={"app": ops})
    assert counts(w.at(1.5)) == (10, 0, 0, 7)
    assert counts(w.at(4)) == (3, 3, 0, 0)


def test_overcommit_makes_surplus_pages_for_a_mapping() -> None:
    ops = "sysw /proc/sys/vm/nr_overcommit_hugepages 4 | hugetlb a 8 | sleep 1 | hugetlb b 2 | sleep 1 | free a munmap | sleep 9"
    w = world(tasks={"app": ops})
    assert counts(w.at(0.5)) == (4, 4, 4, 4)
    assert counts(w.at(1.5)) == (4, 4, 4, 4), "a fifth is refused"
    assert counts(w.at(3)) == (0, 0, 0, 0)


def test_no_gigantic_page_is_had_from_a_small_host_and_one_is_from_a_large_one() -> None:
    ops = "sysw /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages 2 | sleep 9"
    assert world(tasks={"app": ops}).at(3).meminfo("Hugetlb") == 0
    large = world(4096, tasks={"app": ops}).at(3)
    assert large.meminfo("Hugetlb") == 2048
    assert large.all_meminfo()["HugePages_Total"] == 0, "only the default size is counted there"


def test_an_areas_size_counts_and_its_memory_is_not_committed() -> None:
    w = world(sysctl={"vm.nr_hugepages": 10}, tasks={"app": "sleep 1 | hugetlb h 20 | sleep 9"})
    size, committed = int(w.at(0.5).task("app")["total_vm"]), w.meminfo("Committed_AS")
    w.at(2)
    assert int(w.task("app")["total_vm"]) - size == 20 * PAGES
    assert w.meminfo("Committed_AS") == committed
