# SPDX-License-Identifier: Apache-2.0
"""zram as a swap device: memory that is really taken, synchronous writes, limits, and pages that come back without readahead."""

from __future__ import annotations

import pytest

from fleetsim.host.spec import SwapSpec
from tests.host.worlds import FAST_DISK, MIB, PAGES, World, world

HOG = "until 2 | mmap_anon B 150 noise={n} | touch B 150 100 | until 6 | exit 0"


def squeezed(noise: int, mib: int = 200, limit: int = 0, then: str = "sleep 100", *more: SwapSpec) -> World:
    zram = SwapSpec("/dev/zram0", mib * MIB, 100, "zram", mem_limit_bytes=limit * MIB)
    ops = f"mmap_anon A 150 noise={noise} | touch A 150 100 | {then}"
    return world(swaps=(zram, *more), tasks={"a": ops, "b": HOG.format(n=noise)})


def test_compressed_pages_take_memory_that_only_zspages_tell_of() -> None:
    """kernel-laws §12.4: it shows in nr_zspages and as missing memory, in no line of meminfo."""
    w = squeezed(1500).at(4)
    zram = w.row["zram"]
    assert int(zram["stored"]) > 20 * PAGES
    assert int(zram["pages"]) == pytest.approx(int(zram["stored"]) * 2 / 5, abs=2)
    assert w.vm("nr_zspages") == int(zram["pages"])
    assert int(w.row["swap_info"][0]["inuse"]) == int(zram["stored"]) - 1, "the first page is mkswap's"


def test_what_is_written_is_free_in_the_same_scan_and_no_block_io() -> None:
    """recordings: h33 (pgsteal_anon follows pswpout, pgpgout stays as it was)."""
    w = squeezed(1500).at(4)
    assert w.vm("pswpout") == w.vm("nr_written") == w.vm("nr_vmscan_write") > 20 * PAGES
    assert w.vm("pgsteal_anon") == w.vm("pswpout")
    assert w.vm("pgpgout") == 0
    assert (w.meminfo("SwapCached"), w.meminfo("Writeback")) == (0, 0)


def test_every_page_that_comes_back_is_a_major_fault_and_gives_up_its_slot() -> None:
    """recordings: h33, h34 (25,529 pages in, as many major faults). Even a read: the swap cache is skipped."""
    w = squeezed(1500, 200, 0, "until 7 | read A 150 100 seq | sleep 100").at(6.9)
    out, stored = int(w.task("a")["swapents"]), int(w.row["zram"]["stored"])
    w.at(10)
    assert int(w.task("a")["majflt"]) == w.vm("pswpin") == out == stored - 1
    assert (w.vm("swap_ra"), w.meminfo("SwapCached")) == (0, 0)
    assert int(w.row["zram"]["stored"]) == 1
    assert int(w.row["zram"]["pages"]) == 1


def test_pages_all_alike_take_nothing_and_those_that_do_not_compress_a_page_each() -> None:
    w = squeezed(0).at(4)
    assert int(w.row["zram"]["same"]) == int(w.row["zram"]["stored"]) - 1 > 20 * PAGES
    assert int(w.row["zram"]["pages"]) == 1
    w = squeezed(4096).at(4)
    assert int(w.row["zram"]["huge"]) == int(w.row["zram"]["pages"]) - 1


def test_pages_that_do_not_compress_free_nothing_so_that_the_oom_killer_comes() -> None:
    """A page each for a page each: zram of such pages is no swap at all."""
    assert squeezed(4096).at(30).kills() != []
    assert squeezed(400).at(30).kills() == []


def test_at_its_memory_limit_writes_fail() -> None:
    """recordings: h34 (40 MiB limit: mem_used_total stands at it, failed_writes counts each page twice, an OOM kill ends it)."""
    w = squeezed(1500, 300, 10).at(2.9)
    zram = w.row["zram"]
    assert int(zram["pages"]) == int(zram["mem_limit"]) == 10 * PAGES
    assert int(zram["failed_writes"]) == 2 * int(w.row["swap_failures"]) > 0
    assert w.meminfo("SwapCached") > 10
    assert w.vm("nr_written") == w.vm("pswpout") + int(w.row["swap_failures"])


def test_when_it_is_full_the_disk_takes_over() -> None:
    """recordings: h33 (262,140 kB of zram full, the rest on the disk of priority −2)."""
    disk = SwapSpec("/dev/vdb", 200 * MIB, disk=FAST_DISK)
    w = squeezed(1500, 20, 0, "sleep 100", disk).at(4)
    assert int(w.row["swap_info"][0]["inuse"]) == 20 * PAGES - 1
    assert int(w.row["disk"][1]["pages"][1]) == int(w.row["swap_info"][1]["inuse"]) > 20 * PAGES
    assert w.vm("pgpgout") == 4 * int(w.row["disk"][1]["pages"][1])


def test_a_forked_childs_share_and_an_exit_leave_nothing_behind() -> None:
    then = "until 7 | fork_hold 2 | rewrite A 150 100 seq | until 12 | exit 0"
    w = squeezed(1500, 200, 0, then)
    for second in range(1, 15):
        w.at(second)
    assert int(w.row["zram"]["stored"]) == 1
    assert w.meminfo("SwapFree") == w.meminfo("SwapTotal")
