# SPDX-License-Identifier: Apache-2.0
"""glibc block by block, against the C library of this machine: the same trace, the same addresses, the same break and pages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleetsim.allocators.exact import exact_allocator
from fleetsim.allocators.glibc_exact import GlibcExact
from fleetsim.allocators.glibc_exact_tables import BIN, BRK_BASE, CACHED, FAST, FREE, MIDDLE, MMAPPED, NBINS, PAGE, TOP, USED
from fleetsim.allocators.glibc_tunables import parse_tunables
from fleetsim.allocators.patterns import PATTERNS, draw
from fleetsim.allocators.trace import Replay, Trace, TraceBuilder
from tests.allocators.random_traces import SETTINGS, random_trace
from tests.allocators.real_malloc import Real, compiled, needs_glibc_2_36, replay_real

HEAP_MAX = 64 << 20
STACK_PAGES = 3  # of a thread that replays: what its stack and its own data take


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_glibc_2_36()
    return compiled(tmp_path_factory.mktemp("replay"))


def both(program: Path, trace: Trace, tunables: str = "", every: int = 0) -> tuple[Replay, Real]:
    told = {"GLIBC_TUNABLES": ":".join(f"glibc.malloc.{t}" for t in tunables.split(":"))} if tunables else {}
    cpus = os.cpu_count() or 1
    ours = exact_allocator("glibc", tunables, min(cpus, 127)).replay(trace, every=every, addresses=True)
    return ours, replay_real(program, trace, program.parent, every=every, **told)


def assert_same(trace: Trace, ours: Replay, real: Real) -> None:
    """Every block at the same place of the same heap, as large; at every sample the same break; the same pages but for stacks."""
    returned = ours.addresses > 0
    in_brk = returned & (ours.addresses < MIDDLE)
    np.testing.assert_array_equal(in_brk, (real.addresses >= real.heap) & (real.addresses < real.heap + (1 << 40)))
    np.testing.assert_array_equal(ours.addresses[in_brk] - BRK_BASE, real.addresses[in_brk] - real.heap)
    np.testing.assert_array_equal(ours.usable[returned], real.usable[returned])
    in_heap = returned & ~in_brk & (ours.usable % 16 == 8)  # of a thread's arena: its heaps are 64 MiB and aligned
    np.testing.assert_array_equal(ours.addresses[in_heap] % HEAP_MAX, real.addresses[in_heap] % HEAP_MAX)
    np.testing.assert_array_equal(ours.samples["op"], real.op)
    np.testing.assert_array_equal(ours.samples["brk"], real.brk)
    stacks = STACK_PAGES * PAGE * (trace.threads - 1)
    off = real.resident - ours.samples["resident"]
    assert off.min() >= 0 and off.max() <= stacks, f"resident is off by {off.min()} to {off.max()} bytes"
    if trace.threads == 1:
        np.testing.assert_array_equal(ours.samples["reserved"], real.reserved)


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_every_pattern_is_what_this_machines_glibc_does_with_it(program: Path, name: str) -> None:
    trace = draw(name)
    ours, real = both(program, trace)
    assert_same(trace, ours, real)
    peak = real.resident.max()
    assert np.abs(ours.samples["resident"] - real.resident).max() <= 0.05 * peak


@pytest.mark.parametrize("tunables", ["arena_max=1", "arena_max=4", "tcache_count=0", "mmap_threshold=4096", "trim_threshold=100000000"])
def test_settings_act_as_they_do_in_life(program: Path, tunables: str) -> None:
    for name in ("threads", "big-blocks", "growth"):
        trace = draw(name, blocks=PATTERNS[name].shape.blocks // 5)
        ours, real = both(program, trace, tunables)
        assert_same(trace, ours, real)


@given(st.integers(0, 1 << 40), st.sampled_from(SETTINGS))
@settings(max_examples=120)
@example(21, "tcache_count=100:mxfast=64")
def test_addresses_on_one_thread_are_the_real_ones(program: Path, seed: int, tunables: str) -> None:
    trace = random_trace(seed)
    ours, real = both(program, trace, tunables, every=1 if len(trace.ops) < 1000 else 0)
    assert_same(trace, ours, real)


@given(st.integers(0, 1 << 40), st.sampled_from(SETTINGS), st.sampled_from([2, 3, 9, 30]))
@settings(max_examples=60)
def test_addresses_on_many_threads_are_the_real_ones(program: Path, seed: int, tunables: str, threads: int) -> None:
    trace = random_trace(seed, threads)
    ours, real = both(program, trace, tunables, every=1 if len(trace.ops) < 1000 else 0)
    assert_same(trace, ours, real)


@pytest.mark.parametrize(("size", "heaps"), [(110_000, 1), (120_000, 2)])
def test_an_arena_of_a_thread_goes_on_in_other_heaps_and_gives_them_back(program: Path, size: int, heaps: int) -> None:
    """Unless the rest of a full heap was so small that it went into the tcache: that looks used, and holds the heap."""
    b = TraceBuilder("heaps").on(1)
    for k in range(1500):
        b.malloc(k, size)
    for k in range(1500):
        b.free(1499 - k)
    ours, real = both(program, b.build(), every=50)
    assert_same(b.build(), ours, real)
    assert ours.samples["reserved"].max() // HEAP_MAX == 3
    assert ours.last["reserved"] // HEAP_MAX == heaps


def test_a_heap_that_is_made_and_taken_away_in_one_call_sends_the_request_to_the_main_arena(program: Path) -> None:
    """The rest of the full heap is freed, which trims the arena: the new heap is all top, so it goes. Found by random traces."""
    b = TraceBuilder("made and taken").on(1)
    b.written = 0
    b.malloc("a", 50 << 20)
    b.malloc("b", 5 << 20)
    b.free("b")
    b.malloc("c", 20 << 20)
    ours, real = both(program, b.build(), "mmap_threshold=100000000", every=1)
    assert_same(b.build(), ours, real)
    assert ours.addresses[0] > MIDDLE > ours.addresses[-1]


def test_arenas_are_eight_for_each_cpu_and_nine_where_there_is_one() -> None:
    """The limit is looked up only once there are more than eight (arena_test); from malloc/arena.c, as tests have the CPUs they have."""
    b = TraceBuilder("arenas")
    for thread in range(1, 40):
        b.on(thread).malloc(thread, 100)
    seen = [exact_allocator("glibc", "", cpus).replay(b.build()).facts["arenas"] for cpus in (1, 2, 4)]
    assert seen == [9, 16, 32]


def test_t_15_1_the_first_free_of_a_mapped_chunk_raises_the_threshold(program: Path) -> None:
    b = TraceBuilder("T-15.1")
    b.malloc(1, 200 << 10)
    b.free(1)
    b.malloc(2, 200 << 10)
    ours, real = both(program, b.build(), every=1)
    assert_same(b.build(), ours, real)
    assert list(ours.samples["mmapped"]) == [208_896, 0, 0], "the next one comes from the heap"
    assert (ours.facts["mmap_threshold_bytes"], ours.facts["trim_threshold_bytes"]) == (208_896, 417_792)


def test_the_threshold_follows_what_is_freed_up_to_32_mib(program: Path) -> None:
    b = TraceBuilder("threshold")
    for k, mib in enumerate((1, 4, 16, 31, 33, 40)):
        b.malloc(k, mib << 20)
        b.free(k)
        b.malloc(100 + k, mib << 20)
    ours, real = both(program, b.build(), every=1)
    assert_same(b.build(), ours, real)
    assert ours.facts["mmapped_chunks"] == 2, "33 and 40 MiB are mapped again and again"


def test_kernel_laws_15_1_a_block_near_the_top_keeps_the_break(program: Path) -> None:
    falls = []
    for pinned in (False, True):
        b = TraceBuilder("pin")
        for k in range(1000):
            b.malloc(k, 20_000)
        if pinned:
            b.malloc("pin", 5_000)
        for k in range(1000):
            b.free(k)
        ours, real = both(program, b.build(), every=1)
        assert_same(b.build(), ours, real)
        falls.append(int(ours.samples["brk"].max() - ours.last["brk"]))
    assert falls == [pytest.approx(19_352 << 10, rel=0.01), 0], "recorded in a process that had mapped more before"


def test_malloc_trim_on_a_top_of_the_smallest_size_moves_the_break_up(program: Path) -> None:
    """glibc 2.36 compares −1 with an unsigned pad; found by random traces."""
    b = TraceBuilder("smallest top")
    b.malloc(0, 135_168 - 656 - 32 - 8)  # all of the first heap but MINSIZE
    b.trim(100_000)
    ours, real = both(program, b.build(), "mmap_threshold=1000000", every=1)
    assert_same(b.build(), ours, real)
    assert ours.last["brk"] - ours.samples["brk"][0] == 102_400


def test_what_was_not_written_is_not_resident_and_calloc_writes_only_what_may_be_dirty(program: Path) -> None:
    b = TraceBuilder("untouched")
    b.written = 0
    b.malloc("large", 100 << 20)
    b.malloc("old", 100_000)
    b.free("old")
    b.calloc("cleared", 50_000)  # from the top, but of what the heap had at first
    b.calloc("fresh", 3 << 20)
    b.touch("large", 10 << 20, 5)
    ours, real = both(program, b.build(), every=1)
    assert_same(b.build(), ours, real)
    assert 10 << 20 < ours.last["resident"] < 11 << 20


# --- what must hold of any heap, without a real one beside it ---------------------------------------------------------------------


def violations(row: Any, chunks: np.ndarray, pages: np.ndarray) -> list[str]:
    """What is wrong with the allocator's tables, in sentences."""
    found: list[str] = []
    free = cached = 0
    for a in range(int(row["arenas"])):
        arena = row["arena"][a]
        if arena["top"] < 0:
            continue
        c, count, end = int(arena["top"]), 0, None
        while c >= 0:  # from the top down, by address
            chunk = chunks[c]
            if end is not None and chunk["addr"] + chunk["size"] != end:
                found.append(f"chunk {c} ends at {chunk['addr'] + chunk['size']:#x}, the next begins at {end:#x}")
            if chunk["state"] == FREE and chunk["prev"] >= 0 and chunks[chunk["prev"]]["state"] == FREE:
                found.append(f"free chunks {c} and {chunk['prev']} lie side by side")
            end, c, count = chunk["addr"], int(chunk["prev"]), count + 1
        if a == 0 and end != BRK_BASE:
            found.append(f"the heap begins at {end:#x}")
        if a == 0 and chunks[int(arena["top"])]["addr"] + chunks[int(arena["top"])]["size"] != row["brk"]:
            found.append("the top does not end at the break")
        for head in range(a * NBINS, (a + 1) * NBINS):
            sizes, c = [], int(chunks[head]["fd"])
            while chunks[c]["state"] != BIN:
                if chunks[c]["state"] != FREE or chunks[int(chunks[c]["fd"])]["bk"] != c:
                    found.append(f"chunk {c} of bin {head % NBINS} is linked wrongly")
                sizes.append(int(chunks[c]["size"]))
                c = int(chunks[c]["fd"])
            free += sum(sizes)
            if head % NBINS >= 64 and sizes != sorted(sizes, reverse=True):
                found.append(f"bin {head % NBINS} is not sorted: {sizes}")
        for c in arena["fast"]:
            while c >= 0:
                cached += int(chunks[c]["size"])
                c = chunks[c]["fd"]
    for thread in row["threads"]:
        for index in np.flatnonzero(thread["counts"]):
            c, count = thread["heads"][index], 0
            while c >= 0:
                cached += int(chunks[c]["size"])
                c, count = chunks[c]["fd"], count + 1
            if count != thread["counts"][index]:
                found.append(f"tcache bin {index} has {count} chunks and counts {thread['counts'][index]}")
    if (free, cached) != (int(row["free"]), int(row["cached"])):
        found.append(f"{free} bytes are free and {cached} cached, counted are {int(row['free'])} and {int(row['cached'])}")
    if int(pages.sum()) != row["resident"]:
        found.append(f"{int(pages.sum())} pages are resident, counted are {int(row['resident'])}")
    return found


@given(st.integers(0, 1 << 40), st.sampled_from(SETTINGS), st.sampled_from([1, 1, 5, 20]))
@settings(max_examples=60)
def test_chunks_tile_each_heap_and_every_sum_holds(seed: int, tunables: str, threads: int) -> None:
    trace = random_trace(seed, threads)
    none = np.zeros(0, np.int64)
    row, chunks, pages, samples = GlibcExact(parse_tunables(tunables)).run(trace, 1, none, none)
    assert violations(row, chunks, pages) == []
    last = samples[-1]
    assert last["live"] <= last["allocated"] <= last["mapped"] <= last["reserved"]
    assert (samples["resident"] <= samples["mapped"] + PAGE).all()
    assert len(samples) == len(trace.ops)
    assert {int(s) for s in np.unique(chunks["state"])} <= {USED, CACHED, FAST, FREE, TOP, MMAPPED, BIN, 5}


def test_the_same_in_plain_python() -> None:
    """The laws without Numba give the same addresses and samples."""
    script = (
        "import hashlib; from fleetsim.allocators.glibc_exact import GlibcExact; from tests.allocators.random_traces import random_trace\n"
        "for seed in (3, 4, 5):\n"
        "    r = GlibcExact().replay(random_trace(seed, 3, 200), every=1, addresses=True)\n"
        "    print(hashlib.sha256(r.addresses.tobytes() + r.usable.tobytes() + r.samples.tobytes()).hexdigest())\n"
    )
    answers = set()
    for off in ("0", "1"):
        environment = os.environ | {"NUMBA_DISABLE_JIT": off}
        answers.add(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment).stdout)
    assert len(answers) == 1 and len(answers.pop().split()) == 3
