# SPDX-License-Identifier: Apache-2.0
"""cgroup v2: protection, the memory.high brake, and how long a charge tries before it kills."""

from __future__ import annotations

from math import floor

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fleetsim.linux.memcontrol_laws import ChargeNext, charge_next, effective_protection, high_delay_ns, high_delay_ticks
from fleetsim.linux.mm_types import MAX_RECLAIM_RETRIES
from tests.linux import naive

GIB = 1 << 18  # pages
PAGES = st.integers(0, 2**31)
MS = 1_000_000


def test_overcommitted_protection_is_shared_in_proportion() -> None:
    """T-3.9: 10 GiB for claims of 8 and 4."""
    shares = [effective_protection(g * GIB, 12 * GIB, g * GIB, 10 * GIB, 12 * GIB, False) / GIB for g in (8, 4)]
    assert [round(share, 2) for share in shares] == [6.67, 3.33]


def test_unclaimed_protection_goes_to_unprotected_children_if_mounted_so() -> None:
    """T-3.10."""
    assert effective_protection(6, 10, 0, 6, 2, True) == 3
    assert effective_protection(6, 10, 0, 6, 2, False) == 0


@given(PAGES, PAGES, PAGES, st.integers(0, 2**51), PAGES, PAGES, st.booleans())
def test_protection_equals_its_naive_twin(
    u: int, others: int, setting: int, parent_e: int, others_claim: int, slack: int, rec: bool
) -> None:
    parent_u, siblings = u + others, min(u, setting) + min(others, others_claim)
    assume(parent_u < 2**31)
    exact = naive.effective_protection(u, parent_u, setting, parent_e, siblings, rec)
    assert effective_protection(u, parent_u, setting, parent_e, siblings, rec) == floor(min(exact, u))


@pytest.mark.parametrize(("percent", "ms"), [(1, 6), (2, 25), (5, 159), (10, 639), (18, 2000), (50, 2000)])
def test_the_high_brake_grows_with_the_square_of_the_overage(percent: int, ms: int) -> None:
    """T-8.3: 64 pages, 1000 ticks a second."""
    high = 262_144
    assert high_delay_ticks(high * (100 + percent) // 100, high, 64, 1000) == ms


def test_the_high_brake_forgives_ten_milliseconds_in_whole_ticks() -> None:
    high = 262_144
    assert high_delay_ns(high * 101 // 100, high, 64, 1000) == 0
    assert high_delay_ns(high * 102 // 100, high, 64, 1000) == 25 * MS
    owed = {high_delay_ticks(usage, high, 64, 1000): high_delay_ns(usage, high, 64, 1000) for usage in range(high, high * 102 // 100)}
    assert owed[10] == 0
    assert owed[11] == 11 * MS
    assert high_delay_ns(high, high, 64) == 0
    assert high_delay_ns(high - 1, high, 64) == 0
    assert high_delay_ns(high * 105 // 100, high, 64) == 156 * MS  # 39 ticks of 4 ms: 250 a second is the default
    assert high_delay_ns(high * 105 // 100, high, 512) == 1248 * MS  # a huge page owes eight times the 39 ticks


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(1, 512))
def test_the_high_brake_follows_the_real_curve_and_never_overflows(usage: int, high: int, pages: int) -> None:
    """Below the exact curve by less than one tick per started 64 pages and the 20 bits of the overage."""
    hz = 1000
    exact = naive.high_delay_seconds(usage, high, pages) * hz
    got = high_delay_ticks(usage, high, pages, hz)
    assert 0 <= got <= 2 * hz
    assert exact * 0.99 - (pages / 64 + 1) <= got <= exact + 1e-6


def rounds_until_oom(reclaimed: list[int], nr_pages: int = 1) -> int:
    """Reclaim rounds of one charge before the killer is asked; reclaimed[i] pages in round i, none after the list."""
    retries, drained, rounds = MAX_RECLAIM_RETRIES, False, 0
    while True:
        freed = reclaimed[rounds] if rounds < len(reclaimed) else 0
        rounds += 1
        step = charge_next(nr_pages, 0, freed, drained, retries)
        if step == ChargeNext.OOM:
            return rounds
        drained = drained or step == ChargeNext.DRAIN
        retries -= step == ChargeNext.RETRY_COUNTED


def test_a_full_cgroup_reclaims_eighteen_times_in_vain_before_it_kills() -> None:
    """T-8.1: one round, one after draining the stocks, sixteen retries."""
    assert rounds_until_oom([]) == 18


def test_a_cgroup_that_reclaims_anything_never_kills_for_small_charges() -> None:
    """T-8.2: thrash, not OOM. A huge page is not worth it."""
    assert rounds_until_oom([0] + [1] * 1000) == 1001 + 17
    assert rounds_until_oom([0] + [1] * 1000, nr_pages=512) == 18


def test_room_that_appears_is_taken_at_once() -> None:
    assert charge_next(512, 512, 0, True, 0) == ChargeNext.RETRY
    assert charge_next(512, 511, 0, True, 0) == ChargeNext.OOM
