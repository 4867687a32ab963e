# SPDX-License-Identifier: Apache-2.0
"""Pressure averages as the kernel computes and prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.psi_laws import (
    AVG_EXP_10,
    AVG_EXP_60,
    AVG_EXP_300,
    FIXED_1,
    LOAD_EXP_1,
    avg_hundredths,
    calc_avg,
    calc_load,
    fixed_power,
    psi_missed_periods,
    psi_stalled,
    psi_update,
)
from tests.linux import naive

EXPS = (AVG_EXP_10, AVG_EXP_60, AVG_EXP_300)
PERIOD_NS = 2_004_000_000  # 2 s and one tick of 4 ms


def shown(avg: int) -> str:
    return f"{avg_hundredths(avg) // 100}.{avg_hundredths(avg) % 100:02d}"


@pytest.mark.parametrize(
    ("seconds", "averages"),
    [(2, ("9.05", "1.63", "0.34")), (4, ("16.47", "3.21", "0.68")), (6, ("22.54", "4.74", "1.01")), (10, ("31.59", "7.66", "1.68"))],
)
def test_half_stalled_from_nothing(seconds: int, averages: tuple[str, str, str]) -> None:
    """T-9.2."""
    avgs = [0, 0, 0]
    for _ in range(seconds // 2):
        avgs = [calc_avg(avg, exp, 50) for avg, exp in zip(avgs, EXPS)]
    assert tuple(shown(avg) for avg in avgs) == averages


def test_one_of_four_tasks_stalled_is_a_quarter_of_both() -> None:
    """T-9.1: nobody runs on the stalled task's CPU, so a quarter of the machine is fully stalled too."""
    assert psi_stalled(1_000_000, 1, 3, 4, 4) == (250_000, 250_000)


def test_full_is_never_more_than_some() -> None:
    """One of four stalled, the others wait for something else: only its own CPU is fully stalled (test_state asks for both)."""
    assert psi_stalled(1000, 1, 0, 4, 4) == (250, 250)


def test_full_needs_idle_hands_not_only_waiting_ones() -> None:
    assert psi_stalled(1_000_000, 4, 4, 8, 4) == (1_000_000, 0)  # four wait, four work on four CPUs
    assert psi_stalled(1_000_000, 2, 0, 2, 4) == (1_000_000, 1_000_000)
    assert psi_stalled(1_000_000, 0, 1, 2, 4) == (0, 0)  # the other one waits for something else
    assert psi_stalled(1_000_000, 0, 0, 0, 4) == (0, 0)


@given(st.sampled_from(EXPS), st.lists(st.integers(0, 100), max_size=100))
def test_averages_equal_their_naive_twin_and_stay_within_100(exp: int, samples: list[int]) -> None:
    avg = 0
    for pct in samples:
        avg = calc_avg(avg, exp, pct)
        assert 0 <= avg <= 100 * FIXED_1
    assert avg == naive.psi_avg(0, exp, samples)


@pytest.mark.parametrize("exp", EXPS)
def test_a_full_stall_reaches_100_and_a_calm_falls_back_to_zero(exp: int) -> None:
    """The rounding up while rising is what lets it arrive."""
    avg = 0
    for _ in range(3000):
        avg = calc_avg(avg, exp, 100)
    assert shown(avg) == "100.00"
    for _ in range(3000):
        avg = calc_avg(avg, exp, 0)
    assert avg == 0


def test_an_update_takes_whole_per_cents_of_its_period() -> None:
    assert psi_update(0, AVG_EXP_10, 0, PERIOD_NS // 2, PERIOD_NS) == calc_avg(0, AVG_EXP_10, 50)
    assert psi_update(0, AVG_EXP_10, 0, PERIOD_NS // 200, PERIOD_NS) == 0  # half a per cent is none
    assert psi_update(0, AVG_EXP_10, 0, 3 * PERIOD_NS, PERIOD_NS) == calc_avg(0, AVG_EXP_10, 100)  # the rest waits


def test_periods_nobody_saw_decay_the_average() -> None:
    assert psi_missed_periods(10, 10, PERIOD_NS) == 0
    assert psi_missed_periods(10 + PERIOD_NS - 1, 10, PERIOD_NS) == 0
    assert psi_missed_periods(10 + 3 * PERIOD_NS, 10, PERIOD_NS) == 3
    once = calc_load(50 * FIXED_1, AVG_EXP_10, 0)
    assert psi_update(50 * FIXED_1, AVG_EXP_10, 1, 0, PERIOD_NS) == calc_avg(once, AVG_EXP_10, 0)


@given(st.sampled_from(EXPS), st.integers(0, 400))
def test_the_power_is_near_the_real_one(exp: int, n: int) -> None:
    """Rounded to nearest at every of at most 2·log2(n) steps; a factor of n/2 magnifies the error of a squaring."""
    assert abs(fixed_power(exp, n) - FIXED_1 * (exp / FIXED_1) ** n) < 0.5 + n / 2
    assert fixed_power(exp, n) == naive.fixed_power(exp, n)
    assert fixed_power(exp, 0) == FIXED_1


def test_the_load_average_is_the_same_law() -> None:
    """One runnable task for a minute, from idle: 0.62 or 0.63 after 12 steps of 5 s (1 − 1/e = 0.632)."""
    load = 0
    for _ in range(12):
        load = calc_load(load, LOAD_EXP_1, FIXED_1)
    assert avg_hundredths(load) in (62, 63)
