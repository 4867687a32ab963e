# SPDX-License-Identifier: Apache-2.0
"""The kernel's integer arithmetic, against Python's exact one."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from fleetsim.linux.math64 import div64_s64, int_sqrt, rounddown_pow_of_two, roundup_pow_of_two
from tests.linux import naive

BIG = 2**62
INT64 = st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1)


@given(INT64, INT64.filter(bool))
@example(-7, 2)
@example(7, -2)
def test_division_rounds_towards_zero_as_c_does(a: int, b: int) -> None:
    assert div64_s64(a, b) == naive.truncate(Fraction(a, b))


@given(st.integers(0, BIG) | st.integers(0, 2**31 - 1).map(lambda r: r * r) | st.integers(1, 2**31 - 1).map(lambda r: r * r - 1))
def test_int_sqrt_is_the_floor_of_the_root(x: int) -> None:
    assert int_sqrt(x) == math.isqrt(x)


def test_int_sqrt_of_nothing_is_zero() -> None:
    assert int_sqrt(0) == 0
    assert int_sqrt(-5) == 0


@given(st.integers(1, BIG))
@example(1)
@example(BIG)
def test_powers_of_two_enclose_the_number(x: int) -> None:
    assert roundup_pow_of_two(x) == naive.roundup_pow_of_two(x)
    assert rounddown_pow_of_two(x) == naive.rounddown_pow_of_two(x)
