# SPDX-License-Identifier: Apache-2.0
"""Zones: reserves and watermarks as kernels printed them, then as the naive twins compute them."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.page_alloc import (
    boost_watermark,
    calculate_min_free_kbytes,
    fragmentation_index,
    lowmem_reserve,
    recommended_min_free_kbytes,
    si_mem_available,
    totalreserve_of_zone,
    unusable_free_index,
    watermark_for,
    wmark_gap,
    wmark_min,
    zone_batchsize,
    zone_pcp_high,
    zone_watermark_ok,
    zone_watermark_usable,
)
from fleetsim.linux.sysctl import LOWMEM_RESERVE_RATIO
from tests.linux import naive

GIB_KB = 1024 * 1024
PAGES = st.integers(0, 2**31)


def marks(min_free_kb: int, managed: list[int], scale: int = 10) -> list[tuple[int, int, int]]:
    shares = [wmark_min(min_free_kb, pages, sum(managed)) for pages in managed]
    gaps = [wmark_gap(share, pages, scale) for share, pages in zip(shares, managed)]
    return [(share, share + gap, share + 2 * gap) for share, gap in zip(shares, gaps)]


def reserves(managed: list[int]) -> list[list[int]]:
    """reserves[z][j]: what zone z keeps from a request that may use zones up to j."""
    return [
        [lowmem_reserve(above, LOWMEM_RESERVE_RATIO[z]) for above in accumulate([0] * (z + 1) + managed[z + 1 :])]
        for z in range(len(managed))
    ]


@pytest.mark.parametrize(
    ("lowmem_gib", "min_free_kb"), [(1, 4096), (4, 8192), (8, 11585), (16, 16384), (64, 32768), (256, 65536), (512, 92681)]
)
def test_min_free_kbytes_grows_with_the_square_root_of_memory(lowmem_gib: int, min_free_kb: int) -> None:
    """T-1.1 and the table of kernel-laws 1.2."""
    assert calculate_min_free_kbytes(lowmem_gib * GIB_KB) == min_free_kb


def test_min_free_kbytes_stays_between_128_kb_and_256_mb() -> None:
    assert calculate_min_free_kbytes(16) == 128
    assert calculate_min_free_kbytes(64 * 1024 * GIB_KB) == 262_144


def test_huge_pages_raise_min_free_kbytes_to_eleven_blocks_a_zone() -> None:
    """T-1.2, T-1.3, and that a host beyond 272 GiB is above it anyway."""
    assert recommended_min_free_kbytes(16384, 3, 16 * GIB_KB // 4) == 67_584
    assert recommended_min_free_kbytes(4096, 2, 262_144) == 45_056
    assert recommended_min_free_kbytes(92_681, 3, 512 * GIB_KB // 4) == 92_681
    assert recommended_min_free_kbytes(128, 2, 4000) == 800  # a tiny host: a twentieth of its memory


def test_watermarks_are_those_of_a_real_three_zone_host() -> None:
    """T-1.4 (live kernel)."""
    assert marks(67_584, [3840, 772_918, 1_343_488]) == [(30, 37, 44), (6159, 7698, 9237), (10_706, 13_382, 16_058)]


def test_lowmem_reserve_keeps_low_zones_from_requests_that_could_go_higher() -> None:
    """T-1.5 (live kernel)."""
    got = reserves([3840, 772_918, 1_343_488, 0, 0])
    assert got[0] == [0, 3019, 8267, 8267, 8267]
    assert got[1] == [0, 0, 5248, 5248, 5248]
    assert lowmem_reserve(1_000_000, 0) == 0


@pytest.mark.parametrize("recording", ["e02_oom_noswap", "e30_eight_gib", "e23_minfree_135168"])
def test_watermarks_of_the_recorded_hosts_follow_from_managed_pages_alone(recording: str, shared_dir: Path) -> None:
    start = json.loads((shared_dir / "recordings" / recording / "start.json").read_text())
    zones = [z for z in start["zones"].values() if z["managed_pages"]]
    managed = [z["managed_pages"] for z in zones]
    low_kb, high_sum = int(start["sysctl_vm"]["min_free_kbytes"]), sum(z["high_pages"] for z in zones)
    assert marks(low_kb, managed) == [(z["min_pages"], z["low_pages"], z["high_pages"]) for z in zones]
    if recording != "e23_minfree_135168":  # there the user had set it
        lowmem_kb = 4 * (sum(managed) - high_sum)
        assert recommended_min_free_kbytes(calculate_min_free_kbytes(lowmem_kb), len(zones), sum(managed) - high_sum) == low_kb


@given(st.integers(128, 2**24), st.lists(st.integers(1, 2**31), min_size=1, max_size=5), st.integers(1, 3000))
def test_watermarks_equal_their_naive_twin(min_free_kb: int, managed: list[int], scale: int) -> None:
    assert marks(min_free_kb, managed, scale) == naive.marks(min_free_kb, managed, scale)


def test_a_zone_reserves_at_most_itself() -> None:
    assert totalreserve_of_zone(3840, 8267, 44) == 3840
    assert totalreserve_of_zone(772_918, 5248, 9237) == 14_485


def test_mem_available_counts_half_of_what_is_reclaimable_at_least() -> None:
    """T-5.1."""
    assert si_mem_available(100_000, 34_383, 400_000, 80_000, 21_117) * 4 == 2_013_532
    assert si_mem_available(0, 0, 1000, 0, 21_117) == 500  # only half of a small cache
    assert si_mem_available(10, 34_383, 0, 0, 21_117) == 0  # never below zero


def test_who_may_go_how_far_below_the_mark() -> None:
    """kernel-laws 1.5: atomic requests reach 3/8 of the mark, OOM victims half, both together a quarter."""
    mark = 8000
    assert watermark_for(mark, False, False, False) == 8000
    assert watermark_for(mark, True, False, False) == 4000
    assert watermark_for(mark, True, True, False) == 3000
    assert watermark_for(mark, False, False, True) == 4000
    assert watermark_for(mark, True, True, True) == 2000


def test_a_zone_gives_a_page_only_above_mark_and_reserve() -> None:
    usable = zone_watermark_usable(10_000, 0, 0, 0)
    assert not zone_watermark_ok(usable, 9000, 1000, 0, 0)
    assert zone_watermark_ok(usable, 8999, 1000, 0, 0)


def test_a_high_order_needs_its_block_not_only_its_pages() -> None:
    usable = zone_watermark_usable(100_000, 9, 512, 0)
    assert usable == 100_000 - 511 - 512
    assert not zone_watermark_ok(usable, 1000, 0, 9, 0)
    assert zone_watermark_ok(usable, 1000, 0, 9, 1)


def test_mixing_migratetypes_boosts_the_watermark_block_by_block() -> None:
    """kernel-laws 1.3: by 512 pages each, up to 150 % of high."""
    boost, seen = 0, []
    for _ in range(4):
        boost = boost_watermark(boost, 1000, 244_155, 15_000)
        seen.append(boost)
    assert seen == [512, 1024, 1500, 1500]
    assert boost_watermark(0, 100, 244_155, 15_000) == 512  # one block even where 150 % of high is less
    assert boost_watermark(7, 1000, 244_155, 0) == 7  # switched off
    assert boost_watermark(7, 1000, 2047, 15_000) == 7  # a zone below four blocks
    assert boost_watermark(7, 0, 244_155, 15_000) == 7  # before the watermarks are set


def test_per_cpu_lists_are_sized_as_on_a_real_host() -> None:
    """T-1.6 (live kernel)."""
    assert zone_batchsize(772_918) == 63
    assert zone_batchsize(65_536) == 15
    assert zone_pcp_high(7698, 2, 63) == 3849
    assert zone_pcp_high(37, 2, 63) == 252


@given(PAGES)
def test_batch_size_equals_its_naive_twin(managed: int) -> None:
    assert zone_batchsize(managed) == naive.zone_batchsize(managed)


def index_of(blocks: list[int], order: int) -> int:
    pages = sum(n << k for k, n in enumerate(blocks))
    return fragmentation_index(sum(blocks), pages, sum(n << (k - order) for k, n in enumerate(blocks) if k >= order), order)


@pytest.mark.parametrize(
    ("blocks", "order", "index"),
    [
        ([1000, 500, 250] + [0] * 8, 9, 997),  # T-1.7
        ([10] + [0] * 10, 9, 899),  # T-1.8
        ([100, 0, 0, 5] + [0] * 7, 4, 908),  # T-1.9
        ([0] * 11, 9, 0),
        ([0] * 10 + [1], 9, -1000),
    ],
)
def test_fragmentation_index_tells_fragmentation_from_lack_of_memory(blocks: list[int], order: int, index: int) -> None:
    assert index_of(blocks, order) == index


@given(st.lists(st.integers(0, 2**24), min_size=11, max_size=11), st.integers(0, 10))
def test_fragmentation_indices_equal_their_naive_twins(blocks: list[int], order: int) -> None:
    pages = sum(n << k for k, n in enumerate(blocks))
    suitable = sum(n << (k - order) for k, n in enumerate(blocks) if k >= order)
    assert index_of(blocks, order) == naive.fragmentation_index(blocks, order)
    assert unusable_free_index(pages, suitable, order) == naive.unusable_free_index(blocks, order)
