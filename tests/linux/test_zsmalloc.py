# SPDX-License-Identifier: Apache-2.0
"""How much memory compressed pages take, as zram's and zswap's own files tell it on a real kernel (recordings h33 to h36)."""

from __future__ import annotations

import pytest

from fleetsim.linux.zram_drv import HUGE_CLASS_SIZE, zram_object
from fleetsim.linux.zsmalloc import PAGE, PAGE_Q, lzo_size, pages_per_zspage, zbud_pages_q, zs_pages_q, zs_size_class


@pytest.mark.parametrize(("noise", "size"), [(1500, 1537), (2600, 2653)])
def test_what_lzo_makes_of_a_page(noise: int, size: int) -> None:
    """h33: compr_data_size is 28,331,192 for 16,518 pages of the one and 1,110 of the other, 21,607,225 for 8,075 of the other."""
    assert lzo_size(noise) == pytest.approx(size, abs=1)


def test_classes_are_sixteen_bytes_apart_and_hold_the_handle() -> None:
    assert [zs_size_class(n) for n in (1, 24, 25, 40, 41, 1537, 4096)] == [32, 32, 48, 48, 64, 1552, 4096]


def best_by_hand(size_class: int) -> int:
    """The first of the best, by exhaustion."""
    shares = [(n * PAGE // size_class * size_class) * 100 // (n * PAGE) for n in range(1, 5)]
    return shares.index(max(shares)) + 1


@pytest.mark.parametrize("size_class", range(32, PAGE + 1, 16))
def test_a_zspage_has_as_many_pages_as_waste_least(size_class: int) -> None:
    assert pages_per_zspage(size_class) == best_by_hand(size_class)


def test_objects_in_their_pages() -> None:
    """h36: 29,024,256 bytes for 17,634 pages of 1,500 random bytes: five to two pages. h33: three of 2,600 to two pages."""
    assert zs_pages_q(lzo_size(1500)) == 2 * PAGE_Q // 5
    assert pytest.approx(29_024_256, rel=0.01) == 17_634 * 2 / 5 * PAGE
    assert zs_pages_q(lzo_size(2600)) == 2 * PAGE_Q // 3
    assert zs_pages_q(PAGE) == PAGE_Q


def test_the_huge_class_begins_where_no_zspage_holds_more_than_one() -> None:
    """mm/zsmalloc.c zs_huge_class_size: with the handle of 8 bytes an object of 3,257 is in a class of a page each."""
    assert zs_pages_q(HUGE_CLASS_SIZE - 1) < PAGE_Q
    assert zs_pages_q(HUGE_CLASS_SIZE) == PAGE_Q
    assert zram_object(3190) < HUGE_CLASS_SIZE
    assert zram_object(3196) == PAGE


@pytest.mark.parametrize(("size", "pages_q"), [(100, PAGE_Q // 2), (1984, PAGE_Q // 2), (1985, PAGE_Q), (3968, PAGE_Q), (3969, 0)])
def test_zbud_puts_at_most_two_into_a_page_and_refuses_what_hardly_compresses(size: int, pages_q: int) -> None:
    """h35: 17,630 pages of 1,500 bytes in 8,815 of the pool, 3,434 of 2,600 in 3,434."""
    assert zbud_pages_q(size) == pages_q
