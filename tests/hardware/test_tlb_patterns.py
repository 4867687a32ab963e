# SPDX-License-Identifier: Apache-2.0
"""Patterns of access: what they visit, how often, and that a trace does not depend on how it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.errors import BadInput
from fleetsim.hardware.tlb_patterns import BASE, PAGE, PATTERNS, Pattern, permuted, zipf_classes
from fleetsim.hardware.tlb_run import pieces

MIB = 1 << 20


def addresses(pattern: Pattern, count: int, start: int = 0) -> np.ndarray:
    return np.concatenate([piece.copy() for piece, _ in pieces(pattern, count, start)]) - BASE


@given(st.integers(1, 3000), st.integers(0, 1 << 40))
def test_a_permutation_visits_each_once(count: int, seed: int) -> None:
    assert sorted(permuted(seed, n, count) for n in range(count)) == list(range(count))


@pytest.mark.parametrize("name", PATTERNS)
def test_a_trace_is_the_same_however_it_is_cut_and_stays_in_its_working_set(name: str) -> None:
    pattern = Pattern(name, 3 * MIB, seed=11)
    whole = addresses(pattern, 5000)
    assert np.array_equal(whole[1234:3000], addresses(pattern, 3000 - 1234, 1234))
    assert whole.min() >= 0 and whole.max() < 3 * MIB


@pytest.mark.parametrize("name", ["uniform", "zipf", "chase"])
def test_luck_follows_from_the_seed(name: str) -> None:
    first, again, other = (addresses(Pattern(name, MIB, seed=seed), 1000) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_first_numbers_are_the_same_on_every_machine() -> None:
    assert addresses(Pattern("uniform", MIB), 3).tolist() == [62600, 304752, 780848]
    assert addresses(Pattern("zipf", MIB), 3).tolist() == [249960, 162064, 957152]
    assert addresses(Pattern("chase", MIB), 3).tolist() == [769600, 257664, 932160]


def test_a_chase_visits_every_node_once_per_round_and_rounds_are_alike() -> None:
    pattern = Pattern("chase", 64 * 1000, seed=3)
    first, second = np.split(addresses(pattern, 2000), 2)
    assert sorted(first) == [64 * node for node in range(1000)]
    assert np.array_equal(first, second)
    assert np.mean(np.abs(np.diff(first)) < 64 * 10) < 0.05  # neighbours in time are none in space


def test_sequential_and_stride_go_round() -> None:
    assert addresses(Pattern("sequential", 4096), 66).tolist() == [64 * (i % 64) for i in range(66)]
    assert addresses(Pattern("stride", 40_000, step_bytes=10_000), 6).tolist() == [0, 10_000, 20_000, 30_000, 0, 10_000]


def test_uniform_is_uniform() -> None:
    hits = np.bincount(addresses(Pattern("uniform", MIB), 256_000) // PAGE, minlength=256)
    chi_square = ((hits - 1000) ** 2 / 1000).sum()
    assert 160 < chi_square < 370  # 255 degrees of freedom: ± 5 σ


@pytest.mark.parametrize("skew", [0, 50, 99, 150])
def test_zipf_is_zipf(skew: int) -> None:
    """Counts by rank against the law itself, in bins of ranks; the permutation hides which page has which rank."""
    pages, count = 4096, 400_000
    hits = np.sort(np.bincount(addresses(Pattern("zipf", pages * PAGE, skew_percent=skew), count) // PAGE, minlength=pages))[::-1]
    weights = (np.arange(pages) + 1.0) ** (-skew / 100)
    expected = weights / weights.sum() * count
    if skew:
        for first, end in ((0, 1), (1, 8), (8, 64), (64, 512)):
            assert hits[first:end].sum() == pytest.approx(expected[first:end].sum(), rel=0.04)
    else:
        assert hits[0] < expected[0] * 1.6


@given(st.integers(1, 1 << 34), st.integers(0, 400))
def test_zipf_classes_cover_all_ranks_and_all_luck(pages: int, skew: int) -> None:
    reached, ranks = zipf_classes(pages, skew)
    assert ranks[0] == 0 and ranks[-1] == pages and (np.diff(ranks) > 0).all()
    assert len(reached) == len(ranks) - 1 and reached[-1] == 1 << 52 and (np.diff(reached) >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "random", "working_set": MIB}, "known are: sequential, stride"),
        ({"name": "uniform", "working_set": 100}, "100 bytes"),
        ({"name": "stride", "working_set": MIB, "step_bytes": 2 * MIB}, "2097152"),
        ({"name": "zipf", "working_set": MIB, "skew_percent": 500}, "5.0"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Pattern(**arguments)  # type: ignore[arg-type]
