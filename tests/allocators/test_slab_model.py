# SPDX-License-Identifier: Apache-2.0
"""The cheap model of jemalloc and tcmalloc against their exact simulators: resident bytes within 10 % over a sweep of what tasks do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fleetsim.allocators import jemalloc_calls, jemalloc_exact, tcmalloc_calls, tcmalloc_exact
from fleetsim.allocators.jemalloc_exact import JemallocExact, parse_malloc_conf
from fleetsim.allocators.patterns import Luck
from fleetsim.allocators.slab_laws import ONE, decay_share, kept_of_run, power_q, returned_pages
from fleetsim.allocators.slab_model import (
    ALL,
    AT_RANDOM,
    IN_ORDER,
    JEMALLOC,
    TCMALLOC,
    free_blocks,
    look_at_time,
    malloc_blocks,
    new_heap,
    resident_bytes,
)
from fleetsim.allocators.tcmalloc_exact import TcmallocExact
from fleetsim.allocators.trace import Trace, TraceBuilder
from tests.allocators.programs import MS, small_calls


@dataclass(frozen=True)
class Step:
    what: str  # malloc, free, wait
    blocks: int = 0
    least: int = 0
    most: int = 0
    how: int = ALL
    percent: int = 100
    ms: int = 0


def exact(kind: int, steps: list[Step], conf: str) -> list[int]:
    """Resident bytes after each step, since the start."""
    b, luck, live, number, ends = TraceBuilder(), Luck(5), [], 0, []
    for step in steps:
        if step.what == "malloc":
            for _ in range(step.blocks):
                b.malloc(number, step.least + luck.below(step.most - step.least + 1))
                live.append(number)
                number += 1
        elif step.what == "free":
            order = luck.shuffled(live) if step.how == AT_RANDOM else live
            count = len(live) * step.percent // 100
            for k in order[:count]:
                b.free(k)
            gone = set(order[:count])
            live = [k for k in live if k not in gone]
        else:
            b.sleep(step.ms * MS)
            small_calls(b, 40)
        ends.append(len(b.rows))
    trace = b.build()
    if kind == JEMALLOC:
        return resident_after(jemalloc_exact, jemalloc_calls.replay_ops, JemallocExact(parse_malloc_conf(conf)), trace, ends)
    return resident_after(tcmalloc_exact, tcmalloc_calls.replay_ops, TcmallocExact(), trace, ends)


def resident_after(module: Any, replay_ops: Any, simulator: Any, trace: Trace, ends: list[int]) -> list[int]:
    heap = simulator.start(trace.threads, trace.blocks)
    none, done, told = np.zeros(0, np.int64), 0, [module.sample(heap, 0)[8]]
    for end in ends:
        while done < end:
            done = int(replay_ops(heap, trace.ops, none, none, done, end))
            heap = module.roomier(heap, int(trace.ops[done]["size"])) if done < end else heap
        told.append(module.sample(heap, done)[8])
    return [bytes_ - told[0] for bytes_ in told[1:]]


def cheap(kind: int, steps: list[Step], decay_ms: int) -> list[int]:
    row, classes = new_heap(kind, decay_ms=decay_ms)
    now, told = 0, []
    for step in steps:
        if step.what == "malloc":
            malloc_blocks(row, classes, step.blocks, step.least, step.most)
        elif step.what == "free":
            free_blocks(row, classes, step.how, ONE * step.percent // 100, now)
        else:
            now += step.ms * MS
            look_at_time(row, now)
        told.append(int(resident_bytes(row, classes)))
    return told


def mallocs(blocks: int, least: int, most: int) -> Step:
    return Step("malloc", blocks, least, most)


SIZES = [(80_000, 16, 512), (20_000, 64, 4096), (20_000, 1000, 1000), (3000, 8000, 12_000), (800, 20_000, 100_000), (120, 300_000, 900_000)]


@pytest.mark.parametrize("kind", [JEMALLOC, TCMALLOC], ids=["jemalloc", "tcmalloc"])
@pytest.mark.parametrize("sizes", SIZES, ids=[f"{least}-{most}" for _, least, most in SIZES])
@pytest.mark.parametrize("then", [
    [Step("free", how=AT_RANDOM, percent=50), "again"],
    [Step("free", how=AT_RANDOM, percent=90), Step("wait", ms=20), Step("wait", ms=2000)],
    [Step("free", how=IN_ORDER, percent=60), Step("wait", ms=20), Step("wait", ms=2000), "again"],
    [Step("free", how=ALL), Step("wait", ms=20), Step("wait", ms=300), Step("wait", ms=200), Step("wait", ms=1500)],
], ids=["half", "most", "first", "all"])  # fmt: skip
def test_resident_bytes_are_the_exact_ones_within_a_tenth(kind: int, sizes: tuple[int, int, int], then: list[Step]) -> None:
    blocks, least, most = sizes
    again = mallocs(blocks // 3, least, most)
    steps = [mallocs(blocks, least, most), *(again if step == "again" else step for step in then)]
    ours, theirs = cheap(kind, steps, 1000), exact(kind, steps, "dirty_decay_ms:1000")
    for step, a, b in zip(steps, ours, theirs, strict=True):
        settled = step.what == "malloc" or step.how == AT_RANDOM  # else whole extents come and go: of the most there was
        assert abs(a - b) <= 0.1 * (b if settled and step.what != "wait" else max(theirs)), (step, ours, theirs)


def test_a_heap_that_is_kept_for_ever_loses_nothing_and_one_that_decays_at_once_all() -> None:
    for ms, left in ((-1, 1), (0, 0)):
        row, classes = new_heap(JEMALLOC, decay_ms=ms)
        malloc_blocks(row, classes, 10_000, 1000, 1000)
        free_blocks(row, classes, ALL, ONE, 0)
        before = int(resident_bytes(row, classes))
        look_at_time(row, 1)
        assert int(resident_bytes(row, classes)) == left * before


def test_tcmalloc_returns_nothing_before_two_gib_and_then_a_thousandth() -> None:
    assert returned_pages(1 << 18, 1024) == 0
    assert returned_pages((1 << 18) + 50_000, 1024) == 50 and returned_pages((1 << 18) + 50_000, 10_240) == 500
    row, classes = new_heap(TCMALLOC, release_rate=10)
    for _ in range(15):
        malloc_blocks(row, classes, 100, 1 << 20, 1 << 20)
        free_blocks(row, classes, ALL, ONE, 0)
    full = int(resident_bytes(row, classes))
    assert full >= 100 << 20
    for _ in range(30):
        malloc_blocks(row, classes, 100, 1 << 20, 1 << 20)
        free_blocks(row, classes, ALL, ONE, 0)
    assert int(resident_bytes(row, classes)) < full


def test_the_laws_of_chance_equal_their_naive_twins() -> None:
    for x in (0.0, 0.3, 0.9, 0.99, 1.0):
        for n in (0, 1, 7, 100):
            assert power_q(round(x * ONE), n) / ONE == pytest.approx(x**n, abs=1e-6)
    assert decay_share(0, 1000) >> 24 == 1 and decay_share(10**9, 1000) == 0 and decay_share(10**18, -1) >> 24 == 1
    assert decay_share(500_000_000, 1000) / (1 << 24) == pytest.approx(0.5, abs=0.01)
    eight = (8 << 20) // 4096
    assert kept_of_run(eight, IN_ORDER, True, 8 << 20) == eight  # it lies in mappings of 2, 2.5, 3 and 3.5 MiB
    assert kept_of_run(100 * eight, AT_RANDOM, True, 8 << 20) < 5 * eight


def test_pages_of_a_heap_are_never_lost() -> None:
    row, classes = new_heap(JEMALLOC, decay_ms=-1, threshold=1 << 60)
    luck = Luck(11)
    for turn in range(200):
        most = int(resident_bytes(row, classes))
        if luck.below(2):
            malloc_blocks(row, classes, 1 + luck.below(5000), 16, 16 + luck.below(30_000))
            assert int(resident_bytes(row, classes)) >= most - 128 * 5000
        else:
            free_blocks(row, classes, luck.below(3), luck.below(ONE), turn)
            assert most - 128 * 200_000 <= int(resident_bytes(row, classes)) <= most
        for name in ("live", "slabs", "holey", "spare", "pool"):
            assert np.min(row[name]) >= 0, name
        assert (row["holey"] <= row["slabs"]).all()
        assert (row["slabs"][: len(classes)] * classes[:, 2] == row["live"][: len(classes)] + row["spare"][: len(classes)]).all()
