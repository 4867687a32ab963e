# SPDX-License-Identifier: Apache-2.0
"""Loops of malloc and free in a line, `malloc 20000 64-4096 | free random 90% | wait 12`: exact simulators beside the cheap models.

    malloc N LEAST-MOST       N blocks of sizes uniform between the two (or of one size), each written once
    free all                  every block, the oldest first
    free first P%             the oldest of the blocks
    free random P%            any of them
    wait SECONDS              time passes, then there is a little activity (allocators that return memory by time look at it then)

Rules: the figures are resident bytes since the process's start. glibc has no model here: its model (`glibc.py`) lives in hosts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleetsim.allocators.exact import exact_allocator
from fleetsim.allocators.jemalloc_exact import parse_malloc_conf
from fleetsim.allocators.patterns import Luck
from fleetsim.allocators.slab_laws import ONE
from fleetsim.allocators.slab_model import (
    ALL,
    AT_RANDOM,
    IN_ORDER,
    free_blocks,
    look_at_time,
    malloc_blocks,
    resident_bytes,
)
from fleetsim.allocators.slab_table import new_heap
from fleetsim.allocators.tables import JEMALLOC, TCMALLOC
from fleetsim.allocators.tcmalloc_exact import parse_tcmalloc
from fleetsim.allocators.trace import BLOCK_MAX, Trace, TraceBuilder
from fleetsim.errors import BadInput
from fleetsim.units import size_bytes

MS = 1_000_000
BLOCKS_MAX = 2_000_000
ACTIVITY = (40, 400)  # rounds, and small blocks in each
WAIT_MAX_S = 10_000_000
NUMBER = r"\d{1,300}"
SIZE = rf"{NUMBER}(?:[KMGT]i?B?|B)?"  # bytes, or with a unit
_STEP = re.compile(
    rf"malloc (?P<blocks>{NUMBER}) (?P<least>{SIZE})(?:-(?P<most>{SIZE}))?|free all|"
    rf"free (?P<how>first|random) (?P<percent>{NUMBER})%|wait (?P<seconds>{NUMBER}(?:\.\d{{1,3}})?)"
)


@dataclass(frozen=True)
class Step:
    what: str  # malloc, free or wait
    blocks: int = 0
    least: int = 0
    most: int = 0
    how: int = ALL
    percent: int = 100
    ms: int = 0
    text: str = ""


def bytes_of(text: str) -> int:
    """Bytes of `4096`, `4096B` or `4KiB`; ValueError for `4KB`."""
    plain = text.removesuffix("B")
    return int(plain) if plain.isdigit() else size_bytes(text)


def parse_loops(text: str) -> list[Step]:
    """The steps of a line. Anything else is bad input."""
    steps = []
    for part in (" ".join(p.split()) for p in text.split("|")):
        found = _STEP.fullmatch(part)
        if found is None:
            raise BadInput(f"the step {part!r}: it must be malloc N LEAST-MOST, free all, free first P%, free random P% or wait SECONDS")
        g = found.groupdict()
        if g["blocks"]:
            try:
                least, most = bytes_of(g["least"]), bytes_of(g["most"] or g["least"])
            except ValueError as error:
                raise BadInput(f"the step {part!r}: {error}") from None
            if not 1 <= least <= most <= BLOCK_MAX or not 1 <= int(g["blocks"]) <= BLOCKS_MAX:
                raise BadInput(f"the step {part!r}: at most {BLOCKS_MAX:,} blocks, of 1 to {BLOCK_MAX:,} bytes, the smaller size first")
            steps.append(Step("malloc", int(g["blocks"]), least, most, text=part))
        elif g["seconds"]:
            if float(g["seconds"]) > WAIT_MAX_S:
                raise BadInput(f"the step {part!r}: at most {WAIT_MAX_S:,} seconds")
            steps.append(Step("wait", ms=round(float(g["seconds"]) * 1000), text=part))
        elif int(g["percent"] or 100) > 100:
            raise BadInput(f"the step {part!r}: at most 100%")
        else:
            how = {None: ALL, "first": IN_ORDER, "random": AT_RANDOM}[g["how"]]
            steps.append(Step("free", how=how, percent=int(g["percent"] or 100), text=part))
    return steps


def loops_trace(steps: Sequence[Step], seed: int = 1) -> tuple[Trace, list[int]]:
    """The block trace of the steps, and where in it each ends."""
    b, luck, number, ends = TraceBuilder("loops"), Luck(seed), 0, []
    live: list[int] = []
    for step in steps:
        if step.what == "malloc":
            for k in range(number, number + step.blocks):
                b.malloc(k, step.least + luck.below(step.most - step.least + 1))
                live.append(k)
            number += step.blocks
        elif step.what == "free":
            order = luck.shuffled(live) if step.how == AT_RANDOM else live
            gone = order[: len(live) * step.percent // 100]
            for k in gone:
                b.free(k)
            dead = set(gone)
            live = [k for k in live if k not in dead]
        else:
            b.sleep(step.ms * MS)
            for k in range(ACTIVITY[0]):
                for j in range(ACTIVITY[1]):
                    b.malloc((k, j), 16)
                for j in range(ACTIVITY[1]):
                    b.free((k, j))
        ends.append(len(b.rows))
    return b.build(), ends


def exactly(name: str, settings: str, cpus: int, trace: Trace, ends: Sequence[int]) -> list[int]:
    """Resident bytes after each step by the exact simulator."""
    simulator = exact_allocator(name, settings, cpus)
    nothing = TraceBuilder()
    nothing.sleep(0)
    start = int(simulator.replay(nothing.build(), every=1).last["resident"])
    return [int(simulator.replay(Trace(trace.ops[:end], trace.blocks, 1), every=end).last["resident"]) - start for end in ends]


def cheaply(name: str, settings: str, steps: Sequence[Step]) -> list[int] | None:
    """Resident bytes after each step by the cheap model; None: there is none."""
    if name == "jemalloc":
        o = parse_malloc_conf(settings)
        heap, table = new_heap(JEMALLOC, decay_ms=o.dirty_decay_ms, threshold=o.oversize_threshold or 1 << 62)
    elif name == "tcmalloc":
        heap, table = new_heap(TCMALLOC, release_rate=parse_tcmalloc(settings).release_rate)
    else:
        return None
    now, told = 0, []
    for step in steps:
        if step.what == "malloc":
            malloc_blocks(heap, table, step.blocks, step.least, step.most)
        elif step.what == "free":
            free_blocks(heap, table, step.how, ONE * step.percent // 100)
        else:
            now += step.ms * MS
            look_at_time(heap, now)
        told.append(int(resident_bytes(heap, table)))
    return told


@dataclass(frozen=True)
class LoopsAccount:
    """Per allocator what is resident after each step."""

    steps: tuple[Step, ...]
    exact: dict[str, list[int]]
    model: dict[str, list[int] | None]

    def as_json(self) -> dict[str, Any]:
        return {"steps": [s.text for s in self.steps], "resident": self.exact, "model": self.model}

    def as_text(self) -> str:
        names = list(self.exact)
        width = max(len("resident after"), *(len(s.text) for s in self.steps)) + 2
        heads = [h for name in names for h in ([name] if self.model[name] is None else [name, "its model"])]
        columns = [max(12, len(h) + 2) for h in heads]
        lines = [f"{'resident after':{width}}" + "".join(f"{h:>{c}}" for h, c in zip(heads, columns, strict=True))]
        for k, step in enumerate(self.steps):
            cells = []
            for name in names:
                cells.append(self.exact[name][k])
                modelled = self.model[name]
                if modelled is not None:
                    cells.append(modelled[k])
            lines.append(f"{step.text:{width}}" + "".join(f"{n / (1 << 20):>{c - 4}.1f} MiB" for n, c in zip(cells, columns, strict=True)))
        return "\n".join(lines)


def account_of_loops(text: str, names: Sequence[str], settings: str, cpus: int, seed: int = 1) -> LoopsAccount:
    steps = parse_loops(text)
    trace, ends = loops_trace(steps, seed)
    exact = {name: exactly(name, settings, cpus, trace, ends) for name in names}
    return LoopsAccount(tuple(steps), exact, {name: cheaply(name, settings, steps) for name in names})
