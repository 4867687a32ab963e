# SPDX-License-Identifier: Apache-2.0
"""Reclaim's decisions: the worked examples, then the naive twins."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetsim.linux.vmscan_laws import (
    PageRef,
    ScanBalance,
    cache_trim_mode,
    check_references,
    file_is_tiny,
    fract_anon_file,
    inactive_is_low,
    protected_size,
    scan_balance,
    scan_target,
)
from tests.linux import naive

GIB = 1 << 18  # pages
PAGES = st.integers(0, 2**31)
COST = st.integers(0, 2**31)


@pytest.mark.parametrize(("gib", "ratio"), [(0.5, 1), (1, 3), (2, 4), (4, 6), (10, 10), (64, 25), (100, 31), (1024, 101)])
def test_the_inactive_share_shrinks_with_the_root_of_the_list(gib: float, ratio: int) -> None:
    """T-3.1 and the table of kernel-laws 3.2: low below 1/(ratio + 1) of the whole."""
    total = int(gib * GIB)
    just_low = (total - 1) // (ratio + 1)
    assert inactive_is_low(just_low, total - just_low)
    assert not inactive_is_low(just_low + 1, total - just_low - 1)


@given(PAGES, PAGES)
def test_inactive_is_low_equals_its_naive_twin(inactive: int, active: int) -> None:
    assert inactive_is_low(inactive, active) == naive.inactive_is_low(inactive, active)


@pytest.mark.parametrize(
    ("swappiness", "anon_cost", "file_cost", "weights"),
    [
        (60, 0, 0, (60, 140)),  # T-3.2: 30 %
        (60, 1000, 0, (89, 419)),  # T-3.3: 17.5 %
        (60, 0, 1000, (179, 209)),  # T-3.4: 46.1 %
        (100, 0, 0, (100, 100)),  # T-3.5: 50 %
    ],
)
def test_costs_move_the_share_of_swappiness(swappiness: int, anon_cost: int, file_cost: int, weights: tuple[int, int]) -> None:
    assert fract_anon_file(swappiness, anon_cost, file_cost) == weights


@given(COST, COST)
def test_swappiness_0_scans_no_anon_and_200_no_file_whatever_the_costs(anon_cost: int, file_cost: int) -> None:
    """T-3.6."""
    assert fract_anon_file(0, anon_cost, file_cost)[0] == 0
    assert fract_anon_file(200, anon_cost, file_cost)[1] == 0


@given(st.integers(0, 200), COST, COST)
def test_weights_equal_their_naive_twin_and_are_never_both_zero(swappiness: int, anon_cost: int, file_cost: int) -> None:
    weights = fract_anon_file(swappiness, anon_cost, file_cost)
    assert weights == naive.fract_anon_file(swappiness, anon_cost, file_cost)
    assert sum(weights) > 0


@given(st.integers(20, 180), COST, COST)
def test_costs_bend_the_anon_to_file_ratio_by_two_at_most(swappiness: int, anon_cost: int, file_cost: int) -> None:
    """kernel-laws 3.5: between half and double of swappiness : (200 − swappiness), up to rounding of the weights."""
    ap, fp = fract_anon_file(swappiness, anon_cost, file_cost)
    assert 2 * (ap + 1) * (200 - swappiness) >= fp * swappiness
    assert ap * (200 - swappiness) <= 2 * (fp + 1) * swappiness


FLAG = st.booleans()


@given(FLAG, FLAG, st.integers(0, 200) | st.just(0), st.integers(0, 12), FLAG, FLAG)
@example(True, False, 0, 12, True, False)  # swappiness 0 still swaps when hardly any cache is left
@example(True, False, 0, 0, False, False)  # … and never by priority alone
def test_scan_balance_is_the_first_rule_that_matches(can_swap: bool, memcg: bool, s: int, p: int, tiny: bool, trim: bool) -> None:
    assert scan_balance(can_swap, memcg, s, p, tiny, trim).name == naive.scan_balance(can_swap, memcg, s, p, tiny, trim)


def test_swappiness_0_swaps_only_when_the_cache_is_nearly_gone() -> None:
    """kernel-laws 3.5, "swappiness 0 truth"."""
    assert scan_balance(True, False, 0, 3, True, False) == ScanBalance.ANON
    assert scan_balance(True, False, 0, 0, False, False) == ScanBalance.FRACT
    assert scan_balance(True, True, 0, 0, False, False) == ScanBalance.FILE


def test_cache_is_trimmed_while_a_pass_still_finds_used_once_pages() -> None:
    assert cache_trim_mode(4096, 12, False)
    assert not cache_trim_mode(4095, 12, False)
    assert not cache_trim_mode(4096, 12, True)


def test_file_is_tiny_when_dropping_all_of_it_would_not_reach_the_high_marks() -> None:
    assert file_is_tiny(500, 500, 1000, False, 4096, 12)
    assert not file_is_tiny(501, 500, 1000, False, 4096, 12)
    assert not file_is_tiny(500, 500, 1000, True, 4096, 12)  # anon must first be deactivated
    assert not file_is_tiny(500, 500, 1000, False, 4095, 12)  # nothing inactive to take instead


def test_protection_hides_its_share_of_a_list() -> None:
    """T-3.7, and the edges: a hair above protection 32 pages remain, without protection everything does."""
    assert protected_size(1000, 2000, 1000) == 501
    assert protected_size(1000, 1001, 1000) == 32
    assert protected_size(5, 1000, 0) == 5


@given(PAGES, PAGES, PAGES)
def test_protected_size_equals_its_naive_twin(size: int, usage: int, protection: int) -> None:
    assert protected_size(size, usage, protection) == naive.protected_size(size, usage, protection)


def test_a_pass_takes_its_share_of_a_4096th_and_the_last_pass_all() -> None:
    assert scan_target(1_000_000, 12, 60, 200) == 244 * 60 // 200
    assert scan_target(1_000_000, 0, 1, 1) == 1_000_000
    assert scan_target(1_000_000, 0, 0, 1) == 0


@given(st.integers(0, 5), FLAG, FLAG, FLAG, FLAG)
def test_check_references_is_the_kernels_table(pte_refs: int, referenced: bool, is_file: bool, is_exec: bool, mlocked: bool) -> None:
    got = check_references(pte_refs, referenced, is_file, is_exec, mlocked)
    assert got.name == naive.check_references(pte_refs, referenced, is_file, is_exec, mlocked)


def test_a_mapped_page_touched_once_gets_one_more_round() -> None:
    assert check_references(1, False, False, False, False) == PageRef.KEEP
    assert check_references(1, True, False, False, False) == PageRef.ACTIVATE
    assert check_references(1, False, True, True, False) == PageRef.ACTIVATE  # program text at once
