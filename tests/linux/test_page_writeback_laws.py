# SPDX-License-Identifier: Apache-2.0
"""Dirty limits and the brake on writers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.page_writeback_laws import dirty_limit, dirty_limits, dirty_thresholds, dirtyable, pos_ratio
from tests.linux import naive

PAGES = st.integers(1, 2**31)


def test_dirtyable_memory_is_free_and_file_cache_beyond_the_reserves() -> None:
    assert dirtyable(100_000, 34_383, 300_000, 100_000) == 100_000 - 34_383 + 400_000 + 1
    assert dirtyable(1000, 34_383, 0, 0) == 1


def test_limits_are_twenty_and_ten_per_cent_through_fixed_point() -> None:
    """T-4.2."""
    assert dirty_thresholds(1_000_000, 20, 10) == (199_951, 99_853, 149_902)


def test_a_background_limit_not_below_the_limit_is_half_of_it() -> None:
    assert dirty_thresholds(1_000_000, 10, 10)[:2] == (99_853, 49_926)
    assert dirty_limits(100, 300) == (100, 50, 75)


def test_bytes_win_over_the_ratio_and_round_up_to_pages() -> None:
    assert dirty_limit(1_000_000, 20, 8192) == 2
    assert dirty_limit(1_000_000, 20, 8193) == 3


@given(PAGES, st.integers(0, 100), st.integers(0, 100))
def test_thresholds_equal_their_naive_twin(pages: int, ratio: int, bg_ratio: int) -> None:
    assert dirty_thresholds(pages, ratio, bg_ratio) == naive.dirty_thresholds(pages, ratio, bg_ratio)


@pytest.mark.parametrize(("dirty", "ratio"), [(1500, 1.99), (1600, 1.21), (1750, 1.0), (1950, 0.50), (2000, 0.01)])
def test_the_brake_is_a_cubic_through_the_set_point(dirty: int, ratio: float) -> None:
    """T-4.3: freerun 1500, limit 2000, set point 1750."""
    assert round(pos_ratio(1750, dirty, 2000) / 1024, 2) == ratio


@given(st.integers(100, 2**30), st.integers(100, 2**30), st.integers(0, 2**31))
def test_the_brake_follows_the_real_curve(setpoint: int, width: int, dirty: int) -> None:
    """The `| 1` of the divisor takes at most 1 % of x (width ≥ 100) and every step of the cube drops less than 1/1024: where
    the curve is not clamped, |x| ≤ 1.01, that is below 3 · 1.01² · (0.01 + 1/1024) + 2/1024 < 0.04."""
    limit = setpoint + width
    assert abs(pos_ratio(setpoint, dirty, limit) / 1024 - naive.pos_ratio_real(setpoint, dirty, limit)) < 0.04
