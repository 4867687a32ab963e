# SPDX-License-Identifier: Apache-2.0
"""Anonymous memory on a host: what touching, rewriting and giving back changes (kernel-laws §3.1, §10.1, §11.1)."""

from __future__ import annotations

import pytest

from fleetsim.linux.mm_fault import is_resident, seldom_used
from fleetsim.linux.mm_types import KSWAPD_RUN
from tests.host.worlds import FAST_DISK, PAGES, world


def test_every_first_touch_is_a_minor_fault_and_a_page_of_rss_and_a_rewrite_is_neither() -> None:
    w = world(tasks={"a": "mmap_anon A 40 | touch A 40 100 | sleep 0.5 | rewrite A 80 100 seq | sleep 9"}).at(0.7)
    task = w.task("a")
    assert (int(task["minflt"]), int(task["majflt"])) == (40 * PAGES, 0)
    assert int(task["rss_anon"] - task["base_anon"]) == 40 * PAGES
    w.at(3)
    assert w.progress_mib("a") == 120
    assert (int(task["minflt"]), w.vm("pgfault")) == (40 * PAGES, 40 * PAGES)


def test_mapping_alone_takes_no_memory_but_is_promised() -> None:
    w = world(tasks={"a": "sleep 1 | mmap_anon A 100 | sleep 9"}).at(0.5)
    free, committed = w.meminfo("MemFree"), w.meminfo("Committed_AS")
    w.at(2)
    assert w.meminfo("MemFree") == free
    assert w.meminfo("Committed_AS") == committed + 100
    assert int(w.task("a")["total_vm"]) > 100 * PAGES


def test_a_page_table_page_serves_two_mebibytes() -> None:
    w = world(tasks={"a": "sleep 0.5 | mmap_anon A 33 | touch A 33 100 | sleep 9"}).at(0.2)
    before = w.meminfo("PageTables")
    w.at(2)
    assert (w.meminfo("PageTables") - before) * PAGES == 17
    assert int(w.task("a")["pgtables"]) == 8 + 17


def test_new_pages_stand_on_the_inactive_list() -> None:
    """mm/swap.c lru_cache_add_inactive_or_unevictable, since Linux v5.9."""
    w = world(tasks={"a": "mmap_anon A 40 | touch A 40 100 | sleep 9"}).at(1)
    assert (w.meminfo("Inactive(anon)"), w.meminfo("Active(anon)")) == (40, 0)


def test_munmap_gives_everything_back_and_dontneed_all_but_the_address_space() -> None:
    ops = "mmap_anon A 40 | mmap_anon B 40 | touch A 40 200 | touch B 40 200 | sleep 1 | free A munmap | free B dontneed all | sleep 5"
    w = world(tasks={"a": ops}).at(1)
    free, tables, committed, vm = w.free(), w.meminfo("PageTables"), w.meminfo("Committed_AS"), int(w.task("a")["total_vm"])
    w.at(3)
    assert w.free() - free == 80 + (tables - w.meminfo("PageTables"))
    assert (tables - w.meminfo("PageTables")) * PAGES == 20, "B's page tables stay"
    assert committed - w.meminfo("Committed_AS") == 40
    assert vm - int(w.task("a")["total_vm"]) == 40 * PAGES
    assert int(w.task("a")["hwm"]) > 80 * PAGES, "the high-water mark stays"


def test_what_dontneed_dropped_can_be_touched_anew() -> None:
    w = world(tasks={"a": "mmap_anon A 30 | touch A 30 200 | free A dontneed all | touch A 30 200 | sleep 9"}).at(2)
    assert int(w.task("a")["rss_anon"] - w.task("a")["base_anon"]) == 30 * PAGES
    assert int(w.task("a")["minflt"]) == 60 * PAGES


def test_a_touch_never_goes_beyond_the_area() -> None:
    w = world(tasks={"a": "mmap_anon A 10 | touch A 50 100 | sleep 9"}).at(3)
    assert w.progress_mib("a") == 10


@pytest.mark.parametrize(("mode", "granted"), [(0, [True, False, True]), (1, [True, True, True]), (2, [True, False, False])])
def test_overcommit_decides_at_mmap_and_never_kills(mode: int, granted: list[bool]) -> None:
    """recordings e15: heuristic (0) refuses only one mapping above RAM + swap; always (1) nothing; never (2) the sum."""
    ops = "mmap_anon A 60 | sleep 1 | mmap_anon B 400 | sleep 1 | mmap_anon C 120 | sleep 9"
    w = world(tasks={"a": ops}, sysctl={"vm.overcommit_memory": mode})
    seen, before = [], 0
    for seconds in (0.5, 1.5, 2.5):
        refused = len(w.at(seconds).events("enomem"))
        seen.append(refused == before)
        before = refused
    assert seen == granted
    assert w.kills() == []


def test_noreserve_is_not_counted_in_heuristic_mode_and_ignored_in_mode_two() -> None:
    ops = {"a": "sleep 1 | mmap_anon A 400 noreserve | sleep 9"}
    free, strict = world(tasks=ops), world(tasks=ops, sysctl={"vm.overcommit_memory": 2})
    before = free.at(0.5).meminfo("Committed_AS")
    assert free.at(2).meminfo("Committed_AS") == before
    assert free.events("enomem") == []
    assert len(strict.at(2).events("enomem")) == 1


def test_a_hot_part_takes_its_share_of_random_accesses() -> None:
    """hot:F:P: with probability P in the first fraction F. Under pressure the hot part stays and the cold part is swapped."""
    w = world(swap_mib=200, swap_disk=FAST_DISK, tasks={"a": "mmap_anon A 220 | touch A 220 60 | rewrite A 0 40 hot:0.1:0.95"}).at(12)
    first = int(w.row["areas"][0]["group"])
    hot, cold = w.row["groups"][first], w.row["groups"][first + 1]
    assert (int(hot["pages"]), int(cold["pages"])) == (22 * PAGES, 198 * PAGES)
    assert hot["swapped"] < 0.15 * hot["pages"]
    assert cold["swapped"] > 0.2 * cold["pages"]


def test_a_task_that_touches_what_it_could_not_map_goes_on_without() -> None:
    w = world(tasks={"a": "mmap_anon A 900 | touch A 10 100 | sleep 0.5 | exit 3"}).at(2)
    (end,) = w.events("task_exit")
    assert (end.data["exit_code"], w.progress_mib("a")) == (3, 0)


def test_memory_that_is_used_at_random_stays_and_memory_that_is_not_goes() -> None:
    """Accessed bits: of two areas touched alike, the one accessed since is kept when both come to the tail (kernel-laws §3.1)."""
    w = world(
        swap_mib=200,
        swap_disk=FAST_DISK,
        tasks={
            "idle": "mmap_anon A 70 | touch A 70 100 | sleep 100",
            "busy": "mmap_anon A 70 | touch A 70 100 | rewrite A 0 200 random",
            "grow": "sleep 2 | mmap_anon A 80 | touch A 80 20 | sleep 100",
        },
    ).at(7)
    assert int(w.task("idle")["swapents"]) > 30 * PAGES
    assert int(w.task("busy")["swapents"]) < 5 * PAGES
    assert w.vm("pgactivate") > 20 * PAGES, "seen in use twice, it is moved out of reach"
    assert w.vm("pswpin") < 40 * PAGES, "blind reclaim reads three times as much in again"


@pytest.mark.parametrize("pattern", ["seq", "random"])
def test_reading_what_was_never_written_takes_page_tables_but_no_memory(pattern: str) -> None:
    """kernel-laws §10.1: a read of untouched private anonymous memory maps the zero page, which is in nobody's RSS."""
    w = world(tasks={"a": f"mmap_anon A 40 | sleep 0.5 | read A 400 1000 {pattern} | sleep 1 | rewrite A 40 1000 seq | sleep 9"}).at(0.4)
    free, task = w.free(), w.task("a")
    w.at(1.4)
    assert int(task["rss_anon"] - task["base_anon"]) == 0
    assert free - w.free() == 20 / PAGES, "one page table per 2 MiB"
    assert int(task["minflt"]) == (40 * PAGES if pattern == "seq" else pytest.approx(40 * PAGES, rel=0.01)), "each page faults once"
    faults = int(task["minflt"])
    w.at(4)
    assert int(task["rss_anon"] - task["base_anon"]) == 40 * PAGES
    assert int(task["minflt"]) == faults + 40 * PAGES, "the first write to a page faults again"


def test_few_accesses_to_what_is_all_there_are_seldom_and_many_or_to_what_is_missing_are_not() -> None:
    """What lets a server gather requests while kswapd works elsewhere: an eighth of the pages is the bound, and nothing may be missing."""
    w = world(256, tasks={"app": "mmap_anon a 20 | touch a 20 0 | sleep 99"}).at(2)
    a, pages = int(w.row["handles"][0]), 20 * 256
    assert seldom_used(w.row, a, pages // 8 - 1)
    assert not seldom_used(w.row, a, pages // 8)
    w.row["kswapd"][0]["state"] = KSWAPD_RUN
    assert seldom_used(w.row, a, 10) and not is_resident(w.row, a)
    w.row["groups"][int(w.row["areas"][a]["group"])]["resident"] -= 1
    assert not seldom_used(w.row, a, 10)
