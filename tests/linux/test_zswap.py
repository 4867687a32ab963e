# SPDX-License-Identifier: Apache-2.0
"""zswap: what it takes, when it stops, what it writes back, and who pays (kernel-laws §12.3; recordings h35 and h36)."""

from __future__ import annotations

import pytest

from fleetsim.host.spec import SwapSpec, ZswapSpec
from fleetsim.linux.zswap import zswap_can_accept, zswap_current, zswap_max_pages
from tests.host.worlds import FAST_DISK, MIB, PAGES, World, world


def squeezed(zswap: ZswapSpec, noise: int = 1500, then: str = "sleep 100", limits: dict[str, int] | None = None) -> World:
    hog = f"until 2 | mmap_anon B 150 noise={noise} | touch B 150 100 | until 6 | exit 0"
    ops = f"mmap_anon A 150 noise={noise} | touch A 150 100 | {then}"
    areas = (SwapSpec("/dev/vdb", 300 * MIB, disk=FAST_DISK),)
    return world(swaps=areas, zswap=zswap, cgroups={"box": limits or {}}, tasks={"box/a": ops, "b": hog})


def test_what_fits_is_compressed_keeps_its_slot_and_meets_no_disk() -> None:
    """recordings: h36 (17,634 pages stored, zswpout as many, pswpout 0, pgpgout as before)."""
    w = squeezed(ZswapSpec(50, zpool="zsmalloc")).at(4)
    stored = int(w.row["zswap"]["stored"])
    assert stored == int(w.row["swap_info"][0]["inuse"]) == int(w.row["zswap"]["zswpout"]) > 20 * PAGES
    assert (w.vm("pswpout"), w.vm("pgpgout"), int(w.row["disk"][1]["pages"][1])) == (0, 0, 0)
    assert w.vm("pgsteal_anon") == stored, "freed in the same scan"
    assert w.vm("nr_vmscan_write") == stored
    assert int(w.row["zswap"]["pages"]) == w.vm("nr_zspages") == pytest.approx(stored * 2 / 5, abs=2)


def test_a_full_pool_stays_full() -> None:
    """recordings: h35 (5 % of RAM: pool_limit_hit 2, written_back_pages 4, and all the rest goes to the disk)."""
    w = squeezed(ZswapSpec(5)).at(4)
    zswap = w.row["zswap"]
    assert int(zswap["pages"]) == zswap_max_pages(w.row)
    assert 1 <= int(zswap["pool_limit_hit"]) <= 4
    assert int(zswap["written_back"]) == 2 * int(zswap["pool_limit_hit"]), "two pages of one page of zbud"
    assert not zswap_can_accept(w.row)
    assert w.vm("pswpout") == int(w.row["disk"][1]["pages"][1]) > 10 * PAGES
    assert int(w.row["swap_info"][0]["inuse"]) == int(zswap["stored"]) + w.vm("pswpout")


def test_below_the_threshold_it_accepts_again() -> None:
    """mm/zswap.c zswap_can_accept: 90 % of the pool's limit."""
    again = "until 8 | rewrite A 150 0 seq for=1 | sleep 100"
    w = squeezed(ZswapSpec(5), then=again).at(4)
    taken = int(w.row["zswap"]["zswpout"])
    w.at(10)
    assert int(w.row["zswap"]["stored"]) == 0
    assert zswap_can_accept(w.row)
    w.command(10, "start_thread", task="a", thread="more", ops=("mmap_anon C 150", "touch C 150 0"))
    w.at(13)
    assert int(w.row["zswap"]["zswpout"]) > taken
    assert int(w.row["zswap"]["full"]) in (0, 1)


def test_pages_come_back_from_the_pool_with_the_usual_readahead() -> None:
    """recordings: h36 (25,600 pages by 3,212 major faults, zswpin and not pswpin)."""
    w = squeezed(ZswapSpec(50, zpool="zsmalloc"), then="until 7 | read A 150 100 seq | sleep 100").at(6.9)
    out = int(w.task("a")["swapents"])
    w.at(10)
    read = int(w.row["zswap"]["zswpin"])
    assert read >= out
    assert w.vm("pswpin") == 0
    assert int(w.task("a")["majflt"]) == pytest.approx(read / 8, rel=0.1)


def test_what_hardly_compresses_is_refused() -> None:
    w = squeezed(ZswapSpec(20), noise=4000).at(4)
    assert int(w.row["zswap"]["reject_compress_poor"]) == w.vm("pswpout") > 10 * PAGES
    assert int(w.row["zswap"]["stored"]) == 0


def test_pages_all_alike_take_no_memory() -> None:
    w = squeezed(ZswapSpec(1), noise=0).at(4)
    assert int(w.row["zswap"]["same"]) == int(w.row["zswap"]["stored"]) > 20 * PAGES
    assert int(w.row["zswap"]["pages"]) == 0


def test_the_cgroup_pays_for_the_compressed_bytes() -> None:
    """recordings: h35 (memory.zswap.current 9,354,678 while 3,516 pages of the cgroup are stored)."""
    w = squeezed(ZswapSpec(50)).at(4)
    bytes_held = int(zswap_current(w.row, w.shard.names_of(0).cgroups["box"]))
    assert bytes_held > MIB
    kernel = int(w.cg("box")["kernel"]) - int(w.cg("box")["pagetables"])
    assert kernel * 4096 == pytest.approx(bytes_held, abs=16 * 4096)
    w.command(5, "kill", task="a")
    w.at(8)
    assert int(w.cg("box")["kernel"]) == 0
    assert int(zswap_current(w.row, w.shard.names_of(0).cgroups["box"])) == 0


@pytest.mark.parametrize("mib", [0, 2])
def test_memory_zswap_max_sends_the_rest_to_the_disk(mib: int) -> None:
    w = squeezed(ZswapSpec(50), limits={"memory.zswap.max": mib}).at(4)
    held = int(zswap_current(w.row, w.shard.names_of(0).cgroups["box"]))
    assert held <= mib * MIB + 40 * 4096
    assert w.vm("pswpout") > 10 * PAGES


def test_switched_off_it_takes_no_more_but_keeps_what_it_has() -> None:
    w = world(
        swaps=(SwapSpec("/dev/vdb", 300 * MIB, disk=FAST_DISK),),
        zswap=ZswapSpec(enabled=False),
        tasks={"a": "mmap_anon A 280 | touch A 280 100 | sleep 100"},
    ).at(5)
    assert int(w.row["zswap"]["stored"]) == 0
    assert w.vm("pswpout") > 10 * PAGES


def test_pages_all_alike_are_compressed_like_any_other_if_nobody_looks_for_them() -> None:
    """same_filled_pages_enabled=0: they take room in the pool and are charged."""
    w = squeezed(ZswapSpec(50, zpool="zsmalloc", same_filled_pages_enabled=False), noise=0).at(4)
    assert int(w.row["zswap"]["same"]) == 0 < int(w.row["zswap"]["stored"])
    assert int(w.row["zswap"]["pages"]) > 0
    assert int(zswap_current(w.row, 1)) > 0


def test_swapoff_reads_from_the_pool_what_the_pool_has() -> None:
    w = squeezed(ZswapSpec(50, zpool="zsmalloc"), then="until 8 | swapoff /dev/vdb | sleep 100").at(7.9)
    stored, read = int(w.row["zswap"]["stored"]), w.vm("pswpin")
    assert stored > 20 * PAGES
    w.at(20)
    assert w.meminfo("SwapTotal") == 0
    assert (int(w.row["zswap"]["zswpin"]), w.vm("pswpin") - read) == (pytest.approx(stored, abs=PAGES), pytest.approx(0, abs=PAGES))
