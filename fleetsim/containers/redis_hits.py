# SPDX-License-Identifier: Apache-2.0
"""Which share of the commands finds its key, by how many of the keys are there: the points between which `redis_laws` draws lines.

Keys are asked for independently of each other, the r-th most popular in proportion to r^−skew (0: all alike). Of n keys that are there
Che's approximation says which: with the characteristic time T a key of popularity p is there with probability 1 − e^(−pT) if the least
recently used goes first, and pT / (1 + pT) if any key goes; T is where these add up to n.
Leaves out: that `maxmemory-samples 5` only comes near the least recently used; trends.
Source: Che, Tung, Wang (2002), "Hierarchical Web Caching Systems"; Martina, Garetto, Leonardi (2014) for the random policy.
"""

from __future__ import annotations

import math

POINTS = 9  # at 1, 1/2 … 1/256 of the keys
ONE_Q = 1 << 20
BUCKETS = 64  # of ranks that are as good as alike, for each factor of ten


def popularity(keys: int, skew: float) -> list[tuple[int, float]]:
    """(keys, share of the commands that asks for one of them), the most popular first."""
    groups: list[tuple[int, float]] = []
    first = 1
    while first <= keys:
        last = min(keys, max(first, math.ceil(first * 10 ** (1 / BUCKETS)) - 1))
        groups.append((last - first + 1, ((first + last) / 2) ** -skew))
        first = last + 1
    total = sum(count * weight for count, weight in groups)
    return [(count, weight / total) for count, weight in groups]


def there(share: float, time: float, random: bool) -> float:
    """Probability that a key is there."""
    return share * time / (1 + share * time) if random else -math.expm1(-share * time)


def hit_rate(keys: int, live: float, skew: float, random: bool) -> float:
    """Share of the commands that find their key when `live` of `keys` keys are there."""
    if live >= keys or skew == 0:
        return min(1.0, live / keys)
    groups = popularity(keys, skew)
    low, high = 0.0, 1.0
    while sum(count * there(share, high, random) for count, share in groups) < live:
        low, high = high, 4 * high
    for _ in range(60):
        middle = (low + high) / 2
        if sum(count * there(share, middle, random) for count, share in groups) < live:
            low = middle
        else:
            high = middle
    return sum(count * share * there(share, high, random) for count, share in groups)


def hit_slots(keys: int, skew: float, random: bool) -> tuple[int, int, int]:
    """The points from 1 downwards in 2^20ths, three to a number of 63 bits."""
    points = [round(ONE_Q * hit_rate(keys, keys / 2**k, skew, random)) for k in range(POINTS)]
    first, second, third = (sum(point << 21 * k for k, point in enumerate(points[i : i + 3])) for i in (0, 3, 6))
    return first, second, third
