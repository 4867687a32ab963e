# SPDX-License-Identifier: Apache-2.0
"""The ops malloc, mfree and mtrim of scripts (fleetsim/workloads/script_malloc.py) as block traces, call by call."""

from __future__ import annotations

import numpy as np

from fleetsim.allocators.glibc_exact import GlibcExact
from fleetsim.allocators.patterns import Luck
from fleetsim.allocators.trace import Trace, TraceBuilder

POINTER_BYTES = 8
MALLOC_PAGES = 33  # the heap and what is resident of it before the first block: the model begins with it


def trace_of(ops: list[str], seed: int = 1) -> tuple[Trace, list[int], list[int]]:
    """The trace, and after each op: calls made so far, blocks asked for so far."""
    b, luck = TraceBuilder(" | ".join(ops)), Luck(seed)
    asked, calls, blocks = 0, [], []
    for op in ops:
        word, _, rest = op.partition(" ")
        if word == "malloc":
            count, sizes = rest.split()
            least, _, most = sizes.partition("-")
            for k in range(asked, asked + int(count)):
                b.malloc(k, int(least) + (luck.below(int(most) - int(least) + 1) if most else 0))
            asked += int(count)
        elif word == "mfree":
            for k in freed(rest, asked, luck):
                if k in b.numbers:
                    b.free(k)
        else:
            b.trim()
        calls.append(len(b.rows))
        blocks.append(asked)
    return b.build(), calls, blocks


def freed(which: str, asked: int, luck: Luck) -> list[int]:
    """Numbers of the blocks that an mfree names, in its order."""
    how, _, amount = which.partition(":")
    low, high = 0, asked
    if how == "first":
        high = int(asked * float(amount))
    elif how == "last":
        low = int(asked * (1 - float(amount)))
    numbers = range(low, high)
    if how == "keep_every":
        return [k for k in numbers if k % int(amount) != 0]
    if how == "random":
        return [k for k in numbers if luck.below(1 << 20) < float(amount) * (1 << 20)]
    return list(numbers)


def exact_pages(ops: list[str], seed: int = 1) -> list[tuple[int, int]]:
    """(address space, resident pages) after each op, of heap and mappings and of the program's table of pointers (touched part)."""
    trace, calls, blocks = trace_of(ops, seed)
    r = GlibcExact().replay(trace, every=1)
    rows = r.samples[np.array(calls) - 1]
    tables = [-(-n * POINTER_BYTES // 4096) for n in blocks]
    return [(int(s["mapped"]) // 4096, int(s["resident"]) // 4096 + table) for s, table in zip(rows, tables)]
