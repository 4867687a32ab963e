# SPDX-License-Identifier: Apache-2.0
"""Traces made on the spot: the classic ways of going through a working set.

    sequential   from begin to end and again, one access per cache line (64 B)
    stride       the same with a step of one's choice
    uniform      any 8 bytes, all equally likely
    zipf         4 KiB pages by popularity, the k-th of them k^−skew times as popular as the first, scattered over the working set
    chase        all nodes of a linked list in one fixed random order, and again: a pointer chase

Rules: access number n is a function of (pattern, seed, n) alone, so a trace can be made in pieces of any length, and is the same on
every machine. Luck is a hash of seed and n. Popularities are exact for the first 64 pages; beyond, pages of nearly the same rank (1/64
apart) share their mean.
Leaves out: writes (a translation costs the same), several areas at once.
Source: Zipf's law as in YCSB; permutation by a Feistel network with cycle walking (Black and Rogaway 2002).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

import numpy as np

from fleetsim.errors import BadInput
from fleetsim.law import law

BASE = 1 << 44  # where the working set lies: aligned to every page size, room for WORKING_SET_MAX above it
WORKING_SET_MAX = 1 << 46
LINE, PAGE = 64, 4096
M31, M32 = (1 << 31) - 1, (1 << 32) - 1
PROBABILITY_BITS = 52
EXACT_RANKS = 64
PATTERNS = ("sequential", "stride", "uniform", "zipf", "chase")


@law
def mix32(x):
    """A bijection of 32-bit numbers that leaves no pattern.

    x        int64  0..2^32−1
    returns  int64  0..2^32−1

    Source: an integer hash of the murmur family (shift, multiply); the multiplier keeps products below 2^63.
    """
    x = ((x >> 16) ^ x) * 0x45D9F3B & M32
    x = ((x >> 16) ^ x) * 0x45D9F3B & M32
    return (x >> 16) ^ x


@law
def draw(seed, n):
    """The n-th number of a seed's luck.

    returns  int64  0..2^62−1

    Source: counter-based, as Salmon et al. 2011 argue for; the hash is `mix32`.
    """
    high = mix32(mix32((n ^ seed) & M32) ^ mix32((n >> 32 ^ seed >> 32) & M31 ^ 0x5BD1E995))
    low = mix32((high ^ n ^ 0x27D4EB2F) & M32)
    return (high & M31) << 31 | mix32(low ^ 0x165667B1) & M31


@law
def permuted(seed, n, count):
    """Where the n-th of `count` things lies in a random order.

    n        int64  0..count−1
    returns  int64  0..count−1, each once

    Source: Feistel network of four rounds; what falls outside goes round again (Black and Rogaway 2002).
    """
    half = 1
    while count > 1 << 2 * half:
        half += 1
    mask = (1 << half) - 1
    while True:
        left, right = n >> half, n & mask
        for k in range(4):
            left, right = right, left ^ mix32(right ^ mix32((seed + k * 0x9E3779B) & M32)) & mask
        n = left << half | right
        if n < count:
            return n


@law
def fill_permuted(out, seed, count):
    """Where each of the first things lies: `permuted` of 0, 1, 2 …

    Source: see `permuted`.
    """
    for n in range(len(out)):
        out[n] = permuted(seed, n, count)


@law
def fill_stride(out, at, count, step):
    """Addresses number `at` and on of a walk over `count` places `step` bytes apart, and again.

    Source: see the module.
    """
    for i in range(len(out)):
        out[i] = BASE + (at + i) % count * step


@law
def fill_uniform(out, at, seed, size):
    """Addresses of 8 bytes somewhere in `size` bytes.

    Source: see the module.
    """
    words = max(1, size // 8)
    for i in range(len(out)):
        out[i] = BASE + draw(seed, at + i) % words * 8


@law
def fill_zipf(out, at, seed, pages, reached, ranks):
    """Addresses in pages whose popularity falls with their rank.

    reached  int64[:]  probability of each class of ranks and all before it, 2^52ths
    ranks    int64[:]  first rank of each class, and the number of pages at the end

    Source: inversion of the distribution, then equally likely within a class.
    """
    for i in range(len(out)):
        luck = draw(seed, at + i)
        wanted = luck & ((1 << PROBABILITY_BITS) - 1)
        low, high = 0, len(reached) - 1
        while low < high:
            middle = low + high >> 1
            if reached[middle] > wanted:
                high = middle
            else:
                low = middle + 1
        more = draw(seed ^ 0x2545F491, at + i)
        rank = ranks[low] + more % (ranks[low + 1] - ranks[low])
        out[i] = BASE + permuted(seed, rank, pages) * PAGE + (more >> 40) % 512 * 8


@law
def fill_chase(out, at, seed, nodes, step):
    """Addresses of the nodes of a linked list that lie in random order, one after the other.

    Source: see the module.
    """
    for i in range(len(out)):
        out[i] = BASE + permuted(seed, (at + i) % nodes, nodes) * step


def zipf_classes(pages: int, skew_percent: int) -> tuple[np.ndarray, np.ndarray]:
    """(cumulated probabilities in 2^52ths, first ranks and the number of pages) of k^−skew.

    Decimal arithmetic, so that they are the same everywhere.
    """
    ranks = list(range(min(pages, EXACT_RANKS)))
    while ranks[-1] < pages - 1:
        ranks.append(min(pages - 1, ranks[-1] + max(1, ranks[-1] // EXACT_RANKS)))
    ranks.append(pages)
    exponent = Decimal(-skew_percent) / 100
    sizes = [after - first for first, after in pairwise(ranks)]
    weights = [size * (Decimal(first + 1) + Decimal(size - 1) / 2) ** exponent for size, first in zip(sizes, ranks)]
    total, so_far, reached = sum(weights), Decimal(0), []
    for weight in weights:
        so_far += weight
        reached.append(int(so_far / total * (1 << PROBABILITY_BITS)))
    reached[-1] = 1 << PROBABILITY_BITS
    return np.array(reached, np.int64), np.array(ranks, np.int64)


@dataclass(frozen=True)
class Pattern:
    """A pattern over a working set. `step_bytes` is the stride, or the distance of a list's nodes."""

    name: str
    working_set: int
    seed: int = 1
    step_bytes: int = LINE
    skew_percent: int = 99

    def __post_init__(self) -> None:
        if self.name not in PATTERNS:
            raise BadInput(f"unknown pattern {self.name!r}; known are: {', '.join(PATTERNS)}")
        if not PAGE <= self.working_set <= WORKING_SET_MAX:
            raise BadInput(f"a working set is 4KiB to 64TiB; {self.working_set} bytes is not")
        if not 1 <= self.step_bytes <= self.working_set:
            raise BadInput(f"a step is 1 byte to the working set of {self.working_set} bytes; {self.step_bytes} is not")
        if not 0 <= self.skew_percent <= 400:
            raise BadInput(f"a skew is 0 to 4 (YCSB's is 0.99); {self.skew_percent / 100} is not")

    @property
    def places(self) -> int:
        """How many places of `step_bytes` the working set has."""
        return max(1, self.working_set // self.step_bytes)

    def maker(self) -> Maker:
        return Maker(self)


class Maker:
    """Makes a pattern's addresses, piece by piece."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        if pattern.name == "zipf":
            self.reached, self.ranks = zipf_classes(pattern.working_set // PAGE, pattern.skew_percent)

    def fill(self, out: np.ndarray, at: int) -> None:
        """Write the addresses of accesses number `at` and on."""
        p = self.pattern
        if p.name in ("sequential", "stride"):
            fill_stride(out, at, p.places, p.step_bytes)
        elif p.name == "uniform":
            fill_uniform(out, at, p.seed, p.working_set)
        elif p.name == "zipf":
            fill_zipf(out, at, p.seed, p.working_set // PAGE, self.reached, self.ranks)
        else:
            fill_chase(out, at, p.seed, p.places, p.step_bytes)
