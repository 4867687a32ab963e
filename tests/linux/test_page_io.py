# SPDX-License-Identifier: Apache-2.0
"""Swap devices that fail, and pages that come from memory: what the task, the log and the counters see."""

from __future__ import annotations

from fleetsim.host.spec import SwapSpec
from tests.host.worlds import FAST_DISK, MIB, PAGES, World, world

GROWING = "mmap_anon A 150 | touch A 150 100"


def squeezed(then: str, failing_at: float, recovers_at: float = 99) -> World:
    """A task is swapped out between 2 and 4 s; its device fails for a while."""
    hog = "until 2 | mmap_anon B 150 | touch B 150 100 | until 6 | exit 0"
    w = world(swap_mib=200, swap_disk=FAST_DISK, tasks={"a": f"{GROWING} | {then} | sleep 100", "b": hog})
    w.command(failing_at, "disk", disk="swap", failing=1)
    w.command(recovers_at, "disk", disk="swap", failing=0)
    return w


def test_a_page_that_cannot_be_read_costs_its_task_a_sigbus() -> None:
    w = squeezed("until 8 | read A 150 100 seq", 7).at(9)
    (exit_event,) = [e for e in w.events("task_exit") if e.subject == "a"]
    assert exit_event.data["exit_code"] == 135
    assert any("Read-error on swap-device (254:16:0)" in line for line in w.shard.dmesg[0])
    assert [e.data["direction"] for e in w.events("swap_error")] == ["read"]


def test_who_needs_nothing_from_the_device_does_not_notice() -> None:
    w = squeezed("until 99", 7).at(12)
    assert [e.subject for e in w.events("task_exit")] == ["b"]


def test_pages_that_cannot_be_written_stay_in_memory_unmapped_and_are_no_progress() -> None:
    """recordings: h34 (SwapCached grows to 358 MB, VmSwap with it, until the OOM killer comes)."""
    w = squeezed("until 99", 0.5).at(3.4)
    assert w.meminfo("SwapCached") > 20
    assert int(w.task("a")["swapents"]) > 20 * PAGES
    assert any("Write-error on swap-device (254:16:0)" in line for line in w.shard.dmesg[0])
    assert w.vm("pgsteal_anon") == 0


def test_a_device_that_recovers_takes_them_after_all() -> None:
    w = squeezed("until 99", 2.0, 2.45).at(2.5)
    assert w.vm("pgsteal_anon") == 0
    failed = int(w.row["swap_failures"])
    w.at(3.5)
    assert int(w.row["swap_failures"]) == failed, "none since"
    assert w.vm("pgsteal_anon") > 10 * PAGES, "those that reclaim met again"


def test_touched_again_such_a_page_needs_no_device() -> None:
    w = squeezed("until 3.4 | rewrite A 150 200 seq", 0.5).at(3.3)
    reads = int(w.row["disk"][1]["pages"][0])
    assert reads == 0
    w.at(4)
    assert w.vm("pswpin") == 0


def test_with_several_areas_the_sound_ones_go_on() -> None:
    areas = (SwapSpec("/dev/good", 100 * MIB, 5, disk=FAST_DISK), SwapSpec("/dev/bad", 100 * MIB, 5, disk=FAST_DISK))
    hog = "until 2 | mmap_anon B 120 | touch B 120 100 | until 6 | exit 0"
    w = world(swaps=areas, tasks={"a": f"{GROWING} | sleep 100", "b": hog})
    w.command(0.5, "disk", disk="/dev/bad", failing=1)
    w.at(5)
    assert int(w.row["disk"][1]["pages"][1]) > 10 * PAGES
    assert int(w.row["disk"][1]["errors"]) == 0
    assert int(w.row["disk"][2]["errors"]) > 0
    assert w.vm("pgsteal_anon") > 5 * PAGES
