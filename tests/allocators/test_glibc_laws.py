# SPDX-License-Identifier: Apache-2.0
"""malloc in formulas: worked examples, and brute force over single requests and single bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.allocators import glibc_laws as law

SIZES = st.tuples(st.integers(1, 5000), st.integers(0, 3000)).map(lambda t: (t[0], t[0] + t[1]))


def test_t_15_1_a_chunk_above_the_threshold_is_mapped_by_itself() -> None:
    assert law.chunk_size(200 << 10) == 204_816
    assert law.mapped_pages(204_816) * law.PAGE == 208_896


@pytest.mark.parametrize(
    ("request_bytes", "chunk"), [(1, 32), (24, 32), (25, 48), (64, 80), (120, 128), (121, 144), (1032, 1040), (300_000, 300_016)]
)
def test_a_chunk_is_the_request_and_eight_bytes_rounded_up_to_sixteen(request_bytes: int, chunk: int) -> None:
    assert law.chunk_size(request_bytes) == chunk
    assert law.chunk_size(law.smallest_request(chunk)) == chunk
    assert law.smallest_request(chunk) == 0 or law.chunk_size(law.smallest_request(chunk) - 1) < chunk


@given(SIZES)
def test_the_mean_chunk_is_the_mean_over_all_requests(sizes: tuple[int, int]) -> None:
    least, most = sizes
    chunks = [law.chunk_size(size) for size in range(least, most + 1)]
    assert law.mean_chunk_q(least, most) == sum(chunks) * 1024 // len(chunks)


@given(SIZES, st.integers(0, 9000))
def test_the_share_of_requests_that_fit_is_counted_one_by_one(sizes: tuple[int, int], limit: int) -> None:
    least, most = sizes
    fit = sum(law.chunk_size(size) <= limit for size in range(least, most + 1))
    assert law.share_up_to(least, most, limit) == 1024 * fit // (most - least + 1)


@given(st.integers(49, 200_000))
def test_whole_pages_of_a_free_chunk_are_counted_over_every_place_where_it_may_begin(size: int) -> None:
    total = sum(max(0, (at + size) // law.PAGE - -(-(at + 48) // law.PAGE)) for at in range(0, law.PAGE, 16))
    places = law.PAGE // 16
    assert law.whole_pages_q(size, 1, 100, 100) == pytest.approx(total * 1024 / places, abs=1024 / places * 2 + 1)


def test_a_gap_of_two_blocks_of_very_different_sizes_sometimes_holds_a_page() -> None:
    assert law.whole_pages_q(4000, 2, 100, 100) == 0, "never, if all are alike"
    assert 50 < law.whole_pages_q(4000, 2, 1000, 3000) < 200


def test_equal_requests_leave_the_rest_of_a_gap_and_many_sizes_leave_little() -> None:
    assert law.waste_per_gap(10_000, 5, 2000, 2000, 3000, 3000) == 10_000 % 3008
    assert law.waste_per_gap(4000, 1, 2000, 6000, 2000, 6000) < 50
    assert 0.2 < law.waste_per_gap(8032, 2, 2000, 6000, 2000, 6000) / 2016 < 0.4, "measured with glibc 2.36: 0.28"


def test_fastbin_chunks_keep_a_freed_heap_from_merging() -> None:
    assert law.coalesces(0, 100), "no fastbin chunk: each free merges"
    assert not law.coalesces(1024, 1 << 20), "nothing but fastbin chunks: none does"
    assert not law.coalesces(600, 12_700), "e20: 59 % of the blocks, gaps of 12.7 KB"
    assert law.coalesces(600, 70_000) is False
    assert law.coalesces(300, 70_000), "one free makes 64 KiB, 71 % of them do"


@given(st.integers(0, 1000), st.integers(1, 400), st.integers(1, 50))
def test_multiples_in_a_range_are_counted(first: int, span: int, every: int) -> None:
    assert law.multiples(first, span, every) == sum(n % every == 0 for n in range(first, first + span))


def test_blocks_kept_twice_are_those_of_the_common_multiple() -> None:
    assert law.common_multiple(4, 6) == 12
    assert law.common_multiple(1, 7) == 7
    assert law.common_multiple(1 << 20, (1 << 20) - 1) == 1 << 30
