# SPDX-License-Identifier: Apache-2.0
"""Windows of file and swap readahead."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetsim.law import ONE_Q
from fleetsim.linux.readahead import clustered, init_window, next_window, read_around, swapin_nr_pages
from tests.linux import naive


def windows(req: int, biggest: int, count: int) -> list[int]:
    sizes = [init_window(req, biggest)]
    while len(sizes) < count:
        sizes.append(next_window(sizes[-1], biggest))
    return sizes


def test_a_sequential_reader_ramps_up_to_128_kib() -> None:
    """T-4.1."""
    assert windows(1, 32, 6) == [4, 8, 16, 32, 32, 32]


@example(1, 64)  # a window of exactly max/16 only doubles
@given(st.integers(1, 4096), st.sampled_from([1, 2, 8, 32, 64, 512, 1000, 2048]))
def test_windows_equal_their_naive_twin(req: int, biggest: int) -> None:
    assert windows(req, biggest, 8) == naive.sequential_windows(req, biggest, 8)


def test_swap_windows_follow_the_hits_and_shrink_by_half_at_most() -> None:
    """T-12.1, and the start of a sequential pass."""
    assert swapin_nr_pages(0, False, 8, 8) == 4
    assert swapin_nr_pages(3, False, 0, 8) == 8
    assert swapin_nr_pages(0, True, 0, 8) == 2
    assert swapin_nr_pages(0, False, 0, 8) == 1
    assert swapin_nr_pages(7, True, 8, 1) == 1  # vm.page-cluster 0 switches it off


@given(st.integers(0, 64), st.booleans(), st.integers(0, 64), st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_swap_windows_equal_their_naive_twin(hits: int, adjacent: bool, last: int, biggest: int) -> None:
    assert swapin_nr_pages(hits, adjacent, last, biggest) == naive.swapin_nr_pages(hits, adjacent, last, biggest)


@pytest.mark.parametrize(("share", "window", "expected"), [(1000, 32, 32), (500, 32, 27), (100, 32, 19), (100, 16, 9), (1000, 1, 1)])
def test_pages_of_a_kind_that_came_in_windows_lie_together(share: int, window: int, expected: int) -> None:
    """∫ m^u over the window: m = ½ gives 64 · (1 − √½) / ln 2 = 27.0 of 32; m = 1/10 gives 19.0."""
    assert clustered(share, 1000, window) == expected


def test_windows_thrown_at_random_leave_gaps_of_the_expected_size() -> None:
    """A naive file, read around at places of a fixed pseudo-random walk until half of it is there: what a window still finds."""
    size, window, at = 20_000, 32, 7
    missing = set(range(size))
    while len(missing) > size // 2:
        at = (at * 1_103_515_245 + 12_345) % 2**31
        page = at % size
        if page in missing:
            missing -= set(range(page - window // 2, page + window // 2))
    found = [sum(page + d in missing for d in range(-window // 2, window // 2)) for page in sorted(missing)]
    assert clustered(len(missing), size, window) == pytest.approx(sum(found) / len(found), rel=0.1)


def test_what_reclaim_took_page_by_page_is_strewn_and_what_it_took_whole_lies_together() -> None:
    assert read_around(1000, 0, 1000, 32, 0) == 32, "a cold file: a whole window"
    assert read_around(500, 500, 1000, 32, 0) == clustered(500, 1000, 32), "nothing was kept: windows went as they came"
    assert read_around(500, 500, 1000, 32, ONE_Q) == 1 + 16, "all were kept but these: half of the neighbours are missing, by chance"
    assert read_around(500, 250, 1000, 32, ONE_Q) == (clustered(500, 1000, 32) + 17) // 2
