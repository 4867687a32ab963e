# SPDX-License-Identifier: Apache-2.0
"""A block trace: what one process asked of malloc, call by call, as an array; and what an exact allocator makes of it.

An exact allocator (`glibc_exact.py`) replays a trace block by block and answers with a table over time. All of them share
these two shapes: `OP` in, `SAMPLE` out.
Rules: blocks are numbered densely (a number is used again once its block is freed), so that an allocator keeps them in an array.
Ops are done one after the other in the trace's order, whatever thread does them: nobody ever waits for a lock.
Leaves out: what a failed call would do; memory never runs out here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

MALLOC, CALLOC, MEMALIGN, REALLOC, FREE, TOUCH, TRIM, SLEEP, EXIT = range(9)
"""What an op does. TRIM is malloc_trim(); SLEEP only lets time pass; EXIT ends its thread."""
OP_NAMES = ("malloc", "calloc", "memalign", "realloc", "free", "touch", "trim", "sleep", "exit")

BLOCK_MAX = 64 << 30  # bytes of one block
THREADS_MAX = 4096

OP = np.dtype(
    [
        ("op", "i2"),
        ("thread", "i2"),  # 0 is the main thread
        ("block", "i4"),  # −1 for trim, sleep, exit
        ("size", "i8"),  # bytes asked for; of touch: bytes written; of trim: pad to keep; of sleep: ns
        ("written", "i8"),  # bytes from its begin that the program writes at once; after realloc only those beyond the old size
        ("argument", "i8"),  # memalign: alignment; touch: offset of the first byte written
        ("time_ns", "i8"),  # when; of sleep: when it ends
    ]
)

SAMPLE = np.dtype(
    [
        ("op", "i8"),  # ops done so far
        ("time_ns", "i8"),
        ("live", "i8"),  # bytes the program asked for and has not freed
        ("allocated", "i8"),  # bytes it may use in them (malloc_usable_size)
        ("cached", "i8"),  # bytes freed that wait ready for the next request of their size (thread caches, fastbins)
        ("free", "i8"),  # other free bytes the allocator keeps, not counting untouched room at an end
        ("mapped", "i8"),  # bytes the allocator has from the kernel for use: heap, mmapped chunks
        ("reserved", "i8"),  # bytes of address space it takes, what may not be used yet included (VSZ)
        ("resident", "i8"),  # bytes of it in memory (RSS)
        ("brk", "i8"),  # bytes of the brk heap
        ("mmapped", "i8"),  # bytes of blocks with a mapping of their own
        ("arenas", "i8"),
        ("metadata", "i8"),  # bytes resident in which the allocator keeps its own tables (glibc has none: its headers are in the blocks)
    ]
)


@dataclass(frozen=True)
class Trace:
    """Ops in order."""

    ops: np.ndarray
    blocks: int  # numbers in use: 0 .. blocks−1
    threads: int
    source: str = ""

    def __post_init__(self) -> None:
        assert self.ops.dtype == OP, self.ops.dtype


@dataclass(frozen=True)
class Replay:
    """What an exact allocator answers."""

    allocator: str
    samples: np.ndarray  # SAMPLE, one row each `every` ops and one at the end
    addresses: np.ndarray  # per op the address the call returned, −1: none; empty unless asked for
    usable: np.ndarray  # per op malloc_usable_size of that block
    facts: dict[str, int] = field(default_factory=dict)  # the allocator's own words for its state at the end, bytes or counts

    @property
    def last(self) -> Any:
        return self.samples[-1]

    @property
    def peak(self) -> Any:
        """The sample with the most resident memory."""
        return self.samples[int(np.argmax(self.samples["resident"]))]


Progress = Callable[[float], None]


class ExactAllocator(Protocol):
    """The shape of an exact simulator: made with its settings, then replays any number of traces, each from a fresh process."""

    name: str

    def replay(self, trace: Trace, *, every: int = 0, addresses: bool = False, progress: Progress | None = None) -> Replay:
        """every: a sample each so many ops, 0: about a thousand in all; addresses: also tell each op's address."""
        ...


def sampling(trace: Trace, every: int) -> int:
    """Ops between two samples: `every`, or what gives about a thousand."""
    return every if every > 0 else max(1, len(trace.ops) // 1000)


def fragmentation(samples: np.ndarray) -> np.ndarray:
    """Share of resident bytes that no live block may use, 0..1 (never below 0: blocks may be untouched; 0 if nothing is resident)."""
    resident = np.maximum(samples["resident"], 1)
    return np.where(samples["resident"] > 0, np.clip(1.0 - samples["allocated"] / resident, 0.0, 1.0), 0.0)


class TraceBuilder:
    """Makes a trace op by op. Blocks are known by any hashable name; misuse is a KeyError (readers check before)."""

    def __init__(self, source: str = "") -> None:
        self.source = source
        self.rows: list[tuple[int, int, int, int, int, int, int]] = []
        self.numbers: dict[Any, int] = {}  # live block → number
        self.spare: list[int] = []
        self.blocks = 0
        self.thread = 0
        self.threads = 1
        self.time_ns = 0
        self.written: int | None = None  # bytes written of each new block; None: all of it

    def _add(self, op: int, block: int, size: int, written: int = 0, argument: int = 0) -> None:
        self.rows.append((op, self.thread, block, size, written, argument, self.time_ns))

    def on(self, thread: int) -> TraceBuilder:
        """What follows is done by this thread."""
        self.thread = thread
        self.threads = max(self.threads, thread + 1)
        return self

    def _new(self, name: Any) -> int:
        assert name not in self.numbers, name
        if self.spare:
            number = self.spare.pop()
        else:
            number, self.blocks = self.blocks, self.blocks + 1
        self.numbers[name] = number
        return number

    def _writes(self, size: int) -> int:
        return size if self.written is None else min(size, self.written)

    def malloc(self, name: Any, size: int) -> None:
        self._add(MALLOC, self._new(name), size, self._writes(size))

    def calloc(self, name: Any, size: int) -> None:
        self._add(CALLOC, self._new(name), size, self._writes(size))

    def memalign(self, name: Any, alignment: int, size: int) -> None:
        self._add(MEMALIGN, self._new(name), size, self._writes(size), alignment)

    def realloc(self, name: Any, size: int) -> None:
        """Of size 0 it frees, as in glibc."""
        if size == 0:
            self.free(name)
        else:
            self._add(REALLOC, self.numbers[name], size, self._writes(size))

    def free(self, name: Any) -> None:
        number = self.numbers.pop(name)
        self.spare.append(number)
        self._add(FREE, number, 0)

    def touch(self, name: Any, size: int, offset: int = 0) -> None:
        self._add(TOUCH, self.numbers[name], size, 0, offset)

    def trim(self, pad: int = 0) -> None:
        self._add(TRIM, -1, pad)

    def sleep(self, ns: int) -> None:
        self.time_ns += ns
        self._add(SLEEP, -1, ns)

    def exit(self) -> None:
        self._add(EXIT, -1, 0)

    def build(self) -> Trace:
        return Trace(np.array(self.rows, dtype=OP), max(1, self.blocks), self.threads, self.source)
