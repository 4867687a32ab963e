# SPDX-License-Identifier: Apache-2.0
"""Block traces without plan: every call of malloc's family, in sizes that reach every kind of bin, by one thread or several."""

from __future__ import annotations

from fleetsim.allocators.patterns import Luck
from fleetsim.allocators.trace import Trace, TraceBuilder

SCALES = (100, 200, 1000, 5000, 70_000, 400_000, 3_000_000)  # bytes: fastbins, tcache, small and large bins, mappings
EXITS_MAX = 4  # the cache of stacks holds five
SETTINGS = (
    "",
    "tcache_count=0",
    "mxfast=0",
    "mxfast=160",
    "top_pad=0",
    "mmap_threshold=4096",
    "mmap_threshold=100000000",
    "trim_threshold=1000",
    "tcache_max=100",
    "tcache_unsorted_limit=2",
    "mmap_max=3",
    "tcache_count=100:mxfast=64",
    "arena_max=2",
    "arena_test=2",
)


def random_trace(seed: int, threads: int = 1, ops: int = 0) -> Trace:
    luck = Luck(seed)
    b = TraceBuilder(f"random {seed}")
    scale = SCALES[luck.below(len(SCALES))]
    live: list[int] = []
    ended: set[int] = set()
    grow = 60  # per cent of the ops that allocate
    for name in range(ops or (60, 500, 3000)[luck.below(3)]):
        if luck.below(500) == 0:
            grow = (30, 50, 70)[luck.below(3)]
        if threads > 1 and luck.below(10) == 0:
            b.on([t for t in range(threads) if t not in ended][luck.below(threads - len(ended))])
        b.written = (None, None, None, 0, 1, 100)[luck.below(6)]
        kind = luck.below(1000)
        if kind < 10 * grow or not live:
            allocate(b, luck, name, size_of(luck, scale))
            live.append(name)
        elif kind < 930:
            b.free(live.pop(luck.below(len(live)) if luck.below(10) < 7 else -1))
        elif kind < 985:
            b.realloc(live[luck.below(len(live))], max(1, size_of(luck, scale)))
        elif kind < 990:
            b.trim((0, 0, 100_000)[luck.below(3)])
        elif kind < 993 and b.thread > 0 and len(ended) < EXITS_MAX:
            ended.add(b.thread)
            b.exit()
            b.on(0)
        else:
            b.free(live.pop(0))
    return b.build()


def size_of(luck: Luck, scale: int) -> int:
    """Half of them small, most of the rest spread over the magnitudes, a few large."""
    kind = luck.below(10)
    if kind < 5:
        return luck.below(min(scale, 300))
    if kind < 9:
        return luck.below(1 + (scale >> luck.below(scale.bit_length())))
    return luck.below(scale * 2)


def allocate(b: TraceBuilder, luck: Luck, name: int, size: int) -> None:
    kind = luck.below(20)
    if kind < 15:
        b.malloc(name, size)
    elif kind < 18:
        b.calloc(name, size)
    else:
        b.memalign(name, 1 << luck.below(13), size)
