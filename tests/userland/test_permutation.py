# SPDX-License-Identifier: Apache-2.0
"""A keyed permutation is one: of all numbers at once and of each alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.userland.permutation import permuted


@given(st.integers(1, 20_000), st.integers(0, 1 << 70), st.integers(0, 50))
def test_every_number_comes_once(n: int, key: int, more: int) -> None:
    assert np.array_equal(np.sort(permuted(np.arange(n), n, key, more)), np.arange(n))


def test_one_number_alone_goes_where_it_goes_among_all_and_another_key_is_another_order() -> None:
    together = permuted(np.arange(5000), 5000, 7)
    assert all(permuted(np.array([k]), 5000, 7)[0] == together[k] for k in range(0, 5000, 311))
    assert (permuted(np.arange(5000), 5000, 8) == together).mean() < 0.01
    assert abs(np.corrcoef(np.arange(5000), together)[0, 1]) < 0.05
