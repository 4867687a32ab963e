# SPDX-License-Identifier: Apache-2.0
"""Block traces for tests: programs at random, and those in which memory is given back by time."""

from __future__ import annotations

from fleetsim.allocators.patterns import Luck
from fleetsim.allocators.trace import Trace, TraceBuilder

MS = 1_000_000


def random_program(seed: int, ops: int, *, threads: int = 1, most: int = 40_000, plain: bool = False, exits: bool = False) -> Trace:
    """malloc and free (unless `plain` also calloc, memalign, realloc) of all sizes, by threads in turn."""
    luck, b = Luck(seed), TraceBuilder(f"random {seed}")
    live: list[int] = []
    for k in range(ops):
        if threads > 1 and luck.below(20) == 0:
            b.on(luck.below(threads))
        size = 1 + luck.below((512, 4096, most, 64)[luck.below(4)])
        what = luck.below(100)
        if what < 50 or not live:
            if what < 4 and not plain:
                b.calloc(k, size)
            elif what < 8 and not plain:
                b.memalign(k, 16 << luck.below(9), size)
            else:
                b.malloc(k, size)
            live.append(k)
        elif what < 62 and not plain:
            b.realloc(live[luck.below(len(live))], size)
        else:
            j = luck.below(len(live))
            live[j], live[-1] = live[-1], live[j]
            b.free(live.pop())
        if exits and b.thread > 0 and luck.below(500) == 0:
            b.exit()
            b.on(0)
    return b.build()


def filled(b: TraceBuilder, blocks: int, most: int, seed: int = 3) -> None:
    luck = Luck(seed)
    for k in range(blocks):
        b.malloc(k, 64 + luck.below(most - 63))


def small_calls(b: TraceBuilder, rounds: int) -> None:
    """Calls that reach the arena's bins often and need next to no memory: allocators that look at time on activity do."""
    for k in range(rounds):
        for j in range(400):
            b.malloc(("tiny", k, j), 16)
        for j in range(400):
            b.free(("tiny", k, j))


def freed_and_watched(blocks: int, most: int, waits_ms: list[int], rounds: int = 30, keep: int = 1 << 30, seen: int = 20) -> Trace:
    """All is freed but each `keep`-th, and some activity `seen` ms later sees it; then at each of these times after that (ms) is more.

    A short sleep ends it all.
    """
    b = TraceBuilder("freed and watched")
    filled(b, blocks, most)
    b.sleep(5 * MS)
    for k in range(blocks):
        if k % keep != keep - 1:
            b.free(k)
    b.sleep(seen * MS)
    small_calls(b, rounds)
    before = 0
    for wait in waits_ms:
        b.sleep((wait - before) * MS)
        before = wait
        small_calls(b, rounds)
    b.sleep(MS)
    return b.build()
