# SPDX-License-Identifier: Apache-2.0
"""Refault distance and reclaim costs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.workingset import lru_note_cost, refault_activates
from tests.linux import naive

PAGES = st.integers(0, 2**31)


def test_a_page_missed_within_the_reach_of_memory_is_activated() -> None:
    """T-3.8: with swap 550 pages could have made room, without it only 300."""
    assert refault_activates(True, 500, 300, 0, 150, 100, True)
    assert not refault_activates(True, 500, 300, 0, 150, 100, False)
    assert refault_activates(True, 550, 300, 0, 150, 100, True)
    assert not refault_activates(True, 551, 300, 0, 150, 100, True)


@given(st.booleans(), PAGES, PAGES, PAGES, PAGES, PAGES, st.booleans())
def test_refault_activation_equals_its_naive_twin(is_file: bool, d: int, af: int, inf: int, aa: int, ina: int, swap: bool) -> None:
    assert refault_activates(is_file, d, af, inf, aa, ina, swap) == naive.refault_activates(is_file, d, af, inf, aa, ina, swap)


def test_a_cost_is_noted_on_its_side() -> None:
    assert lru_note_cost(10, 20, False, 32, 1000) == (42, 20)
    assert lru_note_cost(10, 20, True, 32, 1000) == (10, 52)


def test_costs_are_halved_beyond_a_quarter_of_the_lists() -> None:
    assert lru_note_cost(100, 118, True, 32, 1000) == (100, 150)
    assert lru_note_cost(100, 119, True, 32, 1000) == (50, 75)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 32)), max_size=200), st.integers(1000, 10**6))
def test_remembered_costs_stay_within_a_quarter_of_the_lists(notes: list[tuple[bool, int]], lru_total: int) -> None:
    anon = file = 0
    for is_file, pages in notes:
        anon, file = lru_note_cost(anon, file, is_file, pages, lru_total)
        assert 0 <= anon + file <= lru_total // 4
