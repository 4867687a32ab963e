# SPDX-License-Identifier: Apache-2.0
"""Windows of file and swap readahead."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from fleetsim.linux.readahead import init_window, next_window, swapin_nr_pages
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
