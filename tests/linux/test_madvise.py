# SPDX-License-Identifier: Apache-2.0
"""What a task may tell the kernel about its memory: cold, paged out, free to be dropped, partly given back (kernel-laws §3.7, §4.3)."""

from __future__ import annotations

import pytest

from fleetsim.errors import BadInput
from fleetsim.linux.madvise import kept_of
from fleetsim.workloads.script_ops import parse_op
from tests.host.worlds import FAST_DISK, PAGES, World, world


def anon(w: World, task: str) -> int:
    """Pages of the task's areas that are mapped."""
    return int(w.task(task)["rss_anon"]) - int(w.task(task)["base_anon"])


def test_paged_out_memory_leaves_the_rss_at_once_but_comes_back_to_the_host_under_pressure_only() -> None:
    """recordings e25: RSS to 0 and all of it written, MemFree unmoved, SwapCached as large as the area."""
    w = world(
        swap_mib=128,
        swap_disk=FAST_DISK,
        tasks={
            "out": "mmap_anon A 40 | touch A 40 200 | sleep 1 | madvise A pageout | sleep 100",
            "grower": "sleep 3 | mmap_anon B 158 | touch B 158 100 | sleep 100",
        },
    ).at(1)
    free = w.meminfo("MemFree")
    w.at(2.9)
    assert anon(w, "out") == 0
    assert int(w.task("out")["swapents"]) == 40 * PAGES
    assert w.vm("pswpout") == 40 * PAGES
    assert w.meminfo("MemFree") == free
    assert w.meminfo("SwapCached") == 40
    assert (w.vm("pgscan_kswapd"), w.vm("pgsteal_anon")) == (0, 0), "it is not reclaim's work"
    w.at(6)
    assert w.meminfo("SwapCached") < 30
    assert w.vm("pgsteal_anon") > 10 * PAGES, "dropped when memory is short"


@pytest.mark.parametrize("pattern", ["seq", "random"])
def test_what_was_paged_out_and_is_in_memory_still_needs_no_disk(pattern: str) -> None:
    w = world(
        swap_mib=128,
        swap_disk=FAST_DISK,
        tasks={"a": f"mmap_anon A 40 | touch A 40 200 | rewrite A 1 9 {pattern} | madvise A pageout | read A 600 0 {pattern} | sleep 100"},
    ).at(5)
    assert w.vm("pswpin") == 0
    assert w.vm("pgmajfault") == 0
    assert anon(w, "a") == 40 * PAGES
    assert w.meminfo("SwapFree") == pytest.approx(88, abs=0.1), "it was only read: the slots are kept"
    assert w.meminfo("SwapCached") == pytest.approx(40, abs=0.1)


def test_cold_memory_goes_before_memory_that_was_used_as_long_ago() -> None:
    w = world(
        swap_mib=128,
        swap_disk=FAST_DISK,
        tasks={
            "cold": "mmap_anon A 40 | touch A 40 200 | madvise A cold | sleep 100",
            "plain": "mmap_anon A 40 | touch A 40 200 | sleep 100",
            "grower": "sleep 2 | mmap_anon B 120 | touch B 120 100 | sleep 100",
        },
    ).at(1)
    assert anon(w, "cold") == 40 * PAGES
    w.at(8)
    assert int(w.task("cold")["swapents"]) > 15 * PAGES
    assert int(w.task("plain")["swapents"]) < 1 * PAGES


def test_active_memory_that_is_cold_is_deactivated() -> None:
    w = world(
        swap_mib=200,
        swap_disk=FAST_DISK,
        tasks={
            "a": "mmap_anon A 30 | touch A 30 200 | rewrite A 0 50 random for=8 | madvise A cold | sleep 100",
            "b": "mmap_anon B 160 | touch B 160 60 | sleep 100",
        },
    ).at(7.5)
    active, before = w.meminfo("Active(anon)"), w.vm("pgdeactivate")
    assert active > 10
    w.at(9)
    assert w.meminfo("Active(anon)") < 1
    assert w.vm("pgdeactivate") - before == pytest.approx((active - w.meminfo("Active(anon)")) * PAGES, abs=300)


def lazy(then: str, pattern: str = "seq", swap_mib: int = 64) -> World:
    return world(
        swap_mib=swap_mib,
        swap_disk=FAST_DISK,
        tasks={
            "a": f"mmap_anon A 40 | touch A 40 200 | rewrite A 1 0 {pattern} | madvise A free | {then} | sleep 100",
            "grower": "sleep 3 | mmap_anon B 158 | touch B 158 100 | sleep 100",
        },
    )


@pytest.mark.parametrize("pattern", ["seq", "random"])
@pytest.mark.parametrize("swap_mib", [64, 0])
def test_memory_free_to_be_dropped_stays_in_the_rss_and_goes_first_without_io(pattern: str, swap_mib: int) -> None:
    w = lazy("sleep 1", pattern, swap_mib).at(2.5)
    assert anon(w, "a") == 40 * PAGES
    assert w.vm("pglazyfree") == 40 * PAGES
    assert w.meminfo("Inactive(file)") == pytest.approx(40, abs=0.1), "no longer swap-backed: it counts as file"
    assert w.meminfo("Cached") < 10, "but it is no page cache"
    w.at(6)
    assert w.vm("pglazyfreed") > 20 * PAGES
    assert anon(w, "a") == 40 * PAGES - w.vm("pglazyfreed")
    assert w.vm("pswpout") == 0


@pytest.mark.parametrize("pattern", ["seq", "random"])
def test_written_to_again_it_is_kept(pattern: str) -> None:
    w = lazy(f"rewrite A 800 0 {pattern}", pattern).at(2.5)
    assert int(w.row["lazy"]) == 0
    w.at(6)
    assert w.vm("pglazyfreed") == 0
    assert anon(w, "a") + int(w.task("a")["swapents"]) == 40 * PAGES


def test_dropped_memory_is_new_when_it_is_written_and_zero_when_it_is_read() -> None:
    w = lazy("sleep 5 | read A 40 200 seq | sleep 1 | rewrite A 40 200 seq").at(5)
    dropped, faults = w.vm("pglazyfreed"), int(w.task("a")["minflt"])
    assert dropped > 20 * PAGES
    w.at(6)
    assert anon(w, "a") <= 40 * PAGES - dropped
    assert int(w.task("a")["minflt"]) == faults + w.vm("pglazyfreed")
    w.at(10)
    assert anon(w, "a") + int(w.task("a")["swapents"]) == 40 * PAGES


@pytest.mark.parametrize(("start", "length", "every", "kept"), [(0, 16, 8, 2), (1, 16, 8, 2), (1, 7, 8, 0), (8, 1, 8, 1), (0, 10, 3, 4)])
def test_every_kth_page_is_kept(start: int, length: int, every: int, kept: int) -> None:
    assert kept_of(start, length, every) == kept == sum(at % every == 0 for at in range(start, start + length))


@pytest.mark.parametrize("pattern", ["seq", "random"])
@pytest.mark.parametrize(
    ("part", "left", "size"),
    [
        ("dontneed first:10", 30, 40),
        ("dontneed last:10", 30, 40),
        ("dontneed keep_every:8", 5, 40),
        ("munmap first:10", 30, 30),
        ("munmap last:10", 30, 30),
        ("munmap keep_every:4", 10, 40),
        ("dontneed all", 0, 40),
        ("munmap all", 0, 0),
    ],
)
def test_a_part_of_an_area_is_given_back(part: str, left: int, size: int, pattern: str) -> None:
    w = world(tasks={"a": f"mmap_anon A 40 | touch A 40 200 | rewrite A 4 0 {pattern} | sleep 1 | free A {part} | sleep 100"}).at(1)
    free, vm, tables = w.free(), int(w.task("a")["total_vm"]), int(w.task("a")["pgtables"])
    w.at(3)
    assert anon(w, "a") == pytest.approx(left * PAGES, abs=2)
    assert int(w.task("a")["total_vm"]) == vm - (40 - size) * PAGES
    back = tables - int(w.task("a")["pgtables"])
    assert back == (40 - size) // 2, "page tables go with their 2 MiB when those are unmapped, and stay when only the pages go"
    assert (w.free() - free) * PAGES == pytest.approx((40 - left) * PAGES + back, abs=64), "but for a slab or two"


def test_swapped_pages_are_given_back_with_the_part() -> None:
    w = world(
        swap_mib=128,
        swap_disk=FAST_DISK,
        tasks={
            "a": "mmap_anon A 40 | touch A 40 200 | sleep 8 | free A dontneed keep_every:4 | sleep 100",
            "b": "sleep 1 | mmap_anon B 150 | touch B 150 100 | free B munmap | sleep 100",
        },
    ).at(7)
    assert int(w.task("a")["swapents"]) > 5 * PAGES
    w.at(10)
    assert anon(w, "a") + int(w.task("a")["swapents"]) == pytest.approx(10 * PAGES, abs=16)
    assert w.meminfo("SwapFree") == pytest.approx(128 - int(w.task("a")["swapents"]) / PAGES, abs=w.meminfo("SwapCached") + 0.01)


def test_what_was_given_back_faults_again_when_it_is_written() -> None:
    w = world(
        tasks={"a": "mmap_anon A 40 | touch A 40 200 | free A dontneed keep_every:8 | sleep 1 | rewrite A 40 100 seq | sleep 100"}
    ).at(1)
    faults = int(w.task("a")["minflt"])
    w.at(3)
    assert anon(w, "a") == 40 * PAGES
    assert int(w.task("a")["minflt"]) == faults + 35 * PAGES


def test_a_task_that_touches_what_it_unmapped_dies_of_it() -> None:
    w = world(tasks={"a": "mmap_anon A 40 | touch A 40 200 | free A munmap first:10 | rewrite A 40 100 seq | sleep 100"}).at(3)
    (gone,) = w.events("task_exit")
    assert gone.data["exit_code"] == 139


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("madvise A sometimes", "unknown advice 'sometimes'; known are: normal, willneed, dontneed, free"),
        ("free A later", "memory is freed by munmap or dontneed, not by 'later'"),
        ("free A munmap half", "unknown part 'half'; known are all, first:MiB, last:MiB, keep_every:k"),
        ("free A dontneed keep_every:0", "keep_every must be at least one page"),
    ],
)
def test_an_op_that_cannot_be_meant_is_refused_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        parse_op(text)
