# SPDX-License-Identifier: Apache-2.0
"""Built-in block traces, one for each thing that people call a leak. Each is a function of a few numbers and a seed.

Rules: a pattern ends with half a minute of silence, so that allocators which give memory back over time have had theirs.
Leaves out: what a program does with its blocks besides writing them once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fleetsim.allocators.trace import Trace, TraceBuilder

SECOND = 1_000_000_000
MASK = (1 << 64) - 1


class Luck:
    """Random numbers of a seed: the k-th is a hash of (seed, k) (splitmix64; Steele, Lea & Flood 2014)."""

    def __init__(self, seed: int) -> None:
        self.state = seed & MASK

    def below(self, n: int) -> int:
        """Uniform in 0 .. n−1."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        return (z ^ z >> 31) * n >> 64

    def shuffled(self, items: list[int]) -> list[int]:
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = self.below(i + 1)
            out[i], out[j] = out[j], out[i]
        return out


@dataclass(frozen=True)
class Shape:
    """How large a pattern is drawn."""

    blocks: int = 50_000
    least: int = 64  # bytes
    most: int = 4096
    threads: int = 16
    seed: int = 1


@dataclass(frozen=True)
class Pattern:
    shows: str  # one sentence
    draw: Callable[[TraceBuilder, Shape, Luck], None]
    shape: Shape = Shape()


def _fill(b: TraceBuilder, s: Shape, luck: Luck, first: int, count: int) -> None:
    for k in range(first, first + count):
        b.malloc(k, s.least + luck.below(s.most - s.least + 1))


def _silence(b: TraceBuilder, seconds: int = 30) -> None:
    b.on(0)
    for _ in range(seconds):
        b.sleep(SECOND)


def _growth(b: TraceBuilder, s: Shape, luck: Luck) -> None:
    _fill(b, s, luck, 0, s.blocks)
    b.sleep(SECOND)
    for k in range(s.blocks):
        b.free(k)


def _growth_reverse(b: TraceBuilder, s: Shape, luck: Luck) -> None:
    """What a thread cache keeps is what was freed first: here the blocks beside the top."""
    _fill(b, s, luck, 0, s.blocks)
    b.sleep(SECOND)
    for k in reversed(range(s.blocks)):
        b.free(k)


def _leak(b: TraceBuilder, s: Shape, luck: Luck) -> None:
    """Requests of three blocks; of one in four requests one block is forgotten."""
    for k in range(0, s.blocks, 3):
        _fill(b, s, luck, k, 3)
        for j in range(k, k + 3):
            if j % 12 != 0:
                b.free(j)
        if k % 300 == 0:
            b.sleep(SECOND // 10)


def _random_free(b: TraceBuilder, s: Shape, luck: Luck) -> None:
    _fill(b, s, luck, 0, s.blocks)
    b.sleep(SECOND)
    for k in luck.shuffled(list(range(s.blocks)))[: s.blocks * 9 // 10]:
        b.free(k)


def _random_free_trim(b: TraceBuilder, s: Shape, luck: Luck) -> None:
    _random_free(b, s, luck)
    _silence(b, 5)
    b.trim()


def _pinned_top(b: TraceBuilder, s: Shape, luck: Luck) -> None:
    _fill(b, s, luck, 0, s.blocks)
    b.malloc("pin", s.most)
    b.sleep(SECOND)
    for k in range(s.blocks):
        b.free(k)


def _sawtooth(b: TraceBuilder, s: Shape, luck: Luck) -> None:
    for tooth in range(10):
        _fill(b, s, luck, tooth * s.blocks, s.blocks)
        b.sleep(SECOND)
        for k in luck.shuffled(list(range(tooth * s.blocks, (tooth + 1) * s.blocks))):
            b.free(k)
        b.sleep(SECOND)


def _big_blocks(b: TraceBuilder, s: Shape, luck: Luck) -> None:
    """The first large block freed raises the threshold; those after it come from the heap and one small block keeps them there."""
    for turn in range(s.blocks):
        for k in range(20):
            b.malloc((turn, k), s.least + luck.below(s.most - s.least + 1))
        b.malloc(("note", turn), 64)
        b.sleep(SECOND)
        for k in range(20):
            b.free((turn, k))
        b.sleep(SECOND)


def _threads(b: TraceBuilder, s: Shape, luck: Luck) -> None:
    """Every thread has its burst in turn and keeps one block in a hundred."""
    each = s.blocks // s.threads
    for t in range(1, s.threads + 1):
        b.on(t)
        _fill(b, s, luck, t * each, each)
        b.sleep(SECOND // 10)
        for k in range(t * each, (t + 1) * each):
            if k % 100 != 99:
                b.free(k)


def _sessions(b: TraceBuilder, s: Shape, luck: Luck) -> None:
    """Sessions of 200 blocks begin one after the other and end at random; one in ten stays."""
    count = s.blocks // 200
    _fill(b, s, luck, 0, count * 200)
    b.sleep(SECOND)
    for session in luck.shuffled(list(range(count)))[: count * 9 // 10]:
        for k in range(session * 200, (session + 1) * 200):
            b.free(k)


PATTERNS: dict[str, Pattern] = {
    "growth": Pattern("grow, then free all, the oldest first: the memory comes back", _growth),
    "growth-reverse": Pattern("the same, the newest first: what the thread cache keeps lies at the top and holds all", _growth_reverse),
    "leak": Pattern("a real leak: live grows with mapped and resident, nothing is fragmented", _leak),
    "random-free": Pattern("nine tenths freed at random: fragmentation keeps the pages", _random_free),
    "random-free-trim": Pattern("the same, and malloc_trim at the end gives whole pages back", _random_free_trim),
    "pinned-top": Pattern("all freed but the last block: the break cannot fall", _pinned_top),
    "sessions": Pattern("blocks that began together are freed together, one session in ten stays: large holes", _sessions),
    "sawtooth": Pattern("load comes and goes ten times; the peak is kept or given back between", _sawtooth, Shape(blocks=10_000)),
    "big-blocks": Pattern("large blocks come and go; the dynamic threshold moves them from mmap into the heap", _big_blocks,
                          Shape(blocks=20, least=150_000, most=1_000_000)),
    "threads": Pattern("bursts in many threads: each arena keeps its own", _threads),
}  # fmt: skip


def draw(name: str, **changed: int) -> Trace:
    """The trace of a pattern, with some numbers of its Shape changed."""
    pattern = PATTERNS[name]
    shape = replace(pattern.shape, **changed)
    builder = TraceBuilder(name)
    pattern.draw(builder, shape, Luck(shape.seed))
    _silence(builder)
    return builder.build()
