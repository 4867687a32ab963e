# SPDX-License-Identifier: Apache-2.0
"""Keyed permutations of 0 … n−1: the same key and n always give the same order, and every number once.

Four rounds of a Feistel network over the next even number of bits, walked again while the result is n or more.
Leaves out: secrecy; it is luck, not cryptography.
Source: J. Black and P. Rogaway, "Ciphers with Arbitrary Finite Domains" (2002), cycle walking.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ROUNDS = 4
_A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


def _mix(x: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        x = (x ^ key) * _A
        x = (x ^ (x >> np.uint64(29))) * _B
    return x ^ (x >> np.uint64(32))


@lru_cache(maxsize=256)
def round_keys(*words: int) -> tuple[np.uint64, ...]:
    """A key for each round, out of any whole numbers."""
    state = np.zeros(1, np.uint64)
    for word in words:
        state = _mix(state, np.uint64(word & 0xFFFF_FFFF_FFFF_FFFF))
    keys = []
    for number in range(ROUNDS):
        state = _mix(state, np.uint64(number + 1))
        keys.append(state[0])
    return tuple(keys)


def permuted(numbers: NDArray[np.int64], n: int, *key: int) -> NDArray[np.int64]:
    """Where each of `numbers`, all of 0 … n−1, goes."""
    if n <= 2 or len(numbers) == 0:
        return numbers.copy()
    half = ((n - 1).bit_length() + 1) // 2
    mask, shift, keys = np.uint64((1 << half) - 1), np.uint64(half), round_keys(n, *key)
    result = numbers.astype(np.uint64)
    todo = np.arange(len(numbers))
    while len(todo):
        left, right = result[todo] >> shift, result[todo] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right, round_key) & mask)
        result[todo] = left << shift | right
        todo = todo[result[todo] >= n]
    return result.astype(np.int64)
