# SPDX-License-Identifier: Apache-2.0
"""The cheap model of jemalloc and tcmalloc against their exact simulators: resident bytes within 10 % over a sweep of what tasks do."""

from __future__ import annotations

import numpy as np
import pytest

from fleetsim.allocators.patterns import Luck
from fleetsim.allocators.slab_laws import ONE, decay_share, kept_of_run, power_q, returned_pages
from fleetsim.allocators.slab_model import (
    ALL,
    AT_RANDOM,
    IN_ORDER,
    free_blocks,
    look_at_time,
    malloc_blocks,
    pool_pages,
    purge,
    resident_bytes,
)
from fleetsim.allocators.slab_table import JEMALLOC_CLASSES, new_heap
from fleetsim.allocators.tables import JEMALLOC, TCMALLOC
from fleetsim.fleet.malloc_loops import cheaply, exactly, loops_trace, parse_loops

BYTES = JEMALLOC_CLASSES[:, 0]
SIZES = [(80_000, 16, 512), (20_000, 64, 4096), (20_000, 1000, 1000), (3000, 8000, 12_000), (800, 20_000, 100_000), (120, 300_000, 900_000)]


@pytest.mark.parametrize("kind", ["jemalloc", "tcmalloc"])
@pytest.mark.parametrize("sizes", SIZES, ids=[f"{least}-{most}" for _, least, most in SIZES])
@pytest.mark.parametrize("then", [
    "free random 50% | AGAIN",
    "free random 90% | wait 0.02 | wait 2",
    "free first 60% | wait 0.02 | wait 2 | AGAIN",
    "free all | wait 0.02 | wait 0.3 | wait 0.2 | wait 1.5",
], ids=["half", "most", "first", "all"])  # fmt: skip
def test_resident_bytes_are_the_exact_ones_within_a_tenth(kind: str, sizes: tuple[int, int, int], then: str) -> None:
    blocks, least, most = sizes
    steps = parse_loops(f"malloc {blocks} {least}-{most} | " + then.replace("AGAIN", f"malloc {blocks // 3} {least}-{most}"))
    settings = "dirty_decay_ms:1000" if kind == "jemalloc" else ""
    ours, theirs = cheaply(kind, settings, steps), exactly(kind, settings, 2, *loops_trace(steps, 5))
    assert ours is not None
    for step, a, b in zip(steps, ours, theirs, strict=True):
        settled = step.what == "malloc" or step.how == AT_RANDOM  # else whole extents come and go: of the most there was
        assert abs(a - b) <= 0.1 * (b if settled and step.what != "wait" else max(theirs)), (step, ours, theirs)


def test_a_heap_that_is_kept_for_ever_loses_nothing_and_one_that_decays_at_once_all() -> None:
    for ms, left in ((-1, 1), (0, 0)):
        heap, table = new_heap(JEMALLOC, decay_ms=ms)
        malloc_blocks(heap, table, 10_000, 1000, 1000)
        free_blocks(heap, table, ALL, ONE)
        before = int(resident_bytes(heap, table))
        look_at_time(heap, 1)
        assert int(resident_bytes(heap, table)) == left * before


def test_tcmalloc_returns_nothing_before_two_gib_and_then_a_thousandth() -> None:
    assert returned_pages(1 << 18, 1024) == 0
    assert returned_pages((1 << 18) + 50_000, 1024) == 50 and returned_pages((1 << 18) + 50_000, 10_240) == 500
    heap, table = new_heap(TCMALLOC, release_rate=10)
    for _ in range(15):
        malloc_blocks(heap, table, 100, 1 << 20, 1 << 20)
        free_blocks(heap, table, ALL, ONE)
    full = int(resident_bytes(heap, table))
    assert full >= 100 << 20
    for _ in range(30):
        malloc_blocks(heap, table, 100, 1 << 20, 1 << 20)
        free_blocks(heap, table, ALL, ONE)
    assert int(resident_bytes(heap, table)) < full


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
    heap, table = new_heap(JEMALLOC, decay_ms=-1, threshold=1 << 60)
    luck = Luck(11)
    for _ in range(200):
        most = int(resident_bytes(heap, table))
        if luck.below(2):
            malloc_blocks(heap, table, 1 + luck.below(5000), 16, 16 + luck.below(30_000))
            assert int(resident_bytes(heap, table)) >= most - 128 * 5000
        else:
            free_blocks(heap, table, luck.below(3), luck.below(ONE))
            assert most - 128 * 200_000 <= int(resident_bytes(heap, table)) <= most
        rows = table[table["used"] == 1]
        for name in ("live", "slabs", "holey", "spare"):
            assert (rows[name] >= 0).all(), name
        assert (heap["pool"] >= 0).all() and (rows["holey"] <= rows["slabs"]).all()
        assert (rows["slabs"] * JEMALLOC_CLASSES[rows["k"], 2] == rows["live"] + rows["spare"]).all()
        assert heap["live"] == rows["live"].sum() + heap["large_live"] and heap["asked"] >= 0


def test_a_class_takes_a_row_of_the_shared_table_only_while_it_has_slabs_and_a_full_table_is_no_memory() -> None:
    heap, table = new_heap(JEMALLOC)
    assert malloc_blocks(heap, table, 1000, 100, 100) == 1000 and table["used"].sum() == 1
    assert malloc_blocks(heap, table, 50_000, 64, 4096) == 50_000 and table["used"].sum() == np.sum((BYTES >= 64) & (BYTES <= 4096))
    assert free_blocks(heap, table, ALL, ONE) == 51_000 and table["used"].sum() == 0 and heap["head"] == -1
    assert malloc_blocks(heap, table[:2], 90, 16, 112) < 90, "two classes found a row, the others none"


def test_a_purge_gives_all_free_pages_back_and_nothing_else() -> None:
    for kind in (JEMALLOC, TCMALLOC):
        heap, table = new_heap(kind)
        malloc_blocks(heap, table, 20_000, 64, 4096)
        free_blocks(heap, table, AT_RANDOM, ONE * 95 // 100)
        before, pool = int(resident_bytes(heap, table)), int(pool_pages(heap))
        purge(heap)
        assert pool > 1000 and int(resident_bytes(heap, table)) == before - 4096 * pool


def test_a_loop_in_many_small_parts_is_the_same_as_at_once() -> None:
    parts, whole = new_heap(TCMALLOC), new_heap(TCMALLOC)
    for _ in range(160):
        malloc_blocks(*parts, 125, 64, 4096)
    malloc_blocks(*whole, 20_000, 64, 4096)
    by_class = [sorted((int(c["k"]), int(c["live"])) for c in table if c["used"]) for _, table in (parts, whole)]
    assert len(by_class[0]) == len(by_class[1])
    assert all(abs(a - b) <= 2 for (_, a), (_, b) in zip(*by_class, strict=True)), by_class
