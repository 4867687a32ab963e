# SPDX-License-Identifier: Apache-2.0
"""Google's tcmalloc block by block against what a build of it said of itself (`google_recordings.py`), its documents, and itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetsim.allocators.google_tcmalloc_calls import replay_ops
from fleetsim.allocators.google_tcmalloc_exact import (
    NAMES,
    GoogleOptions,
    GoogleReplay,
    GoogleTcmallocExact,
    parse_google_tcmalloc,
    roomier,
    stats_of,
)
from fleetsim.allocators.google_tcmalloc_sizes import CLASSES, CPU_SLOTS, MAX_SIZE, MOVED, OBJECTS, PAGE, SIZE_OF, SPAN_PAGES, size_class
from fleetsim.allocators.google_tcmalloc_tables import CACHED, KIND_LISTS, GoogleHeap
from fleetsim.allocators.google_tcmalloc_tracker import mark_range, unmark_range
from fleetsim.allocators.patterns import draw
from fleetsim.allocators.trace import Trace, TraceBuilder
from fleetsim.errors import BadInput
from tests.allocators.google_recordings import FILE, RELEASES, THREAD_STORAGE, TRACES, cpus_of, every_of, one_run, without_sleep
from tests.allocators.programs import random_program
from tests.allocators.real_library import compiled, with_thread_starts

RECORDED = json.loads(FILE.read_text("utf-8"))["samples"]
LIBRARY = "FLEETSIM_GOOGLE_TCMALLOC"  # a libtcmalloc.so one has built, to be asked anew
MIB = 1 << 20


def ours(name: str, trace: Trace, addresses: bool = False) -> tuple[GoogleReplay, np.ndarray]:
    """Our replay of a recorded trace, and where in it each of the trace's own ops stands."""
    o, at, every = GoogleOptions(release_on_trim=RELEASES.get(name, 0)), np.arange(len(trace.ops)), every_of(trace)
    if trace.threads > 1:
        trace, at = with_thread_starts(trace, THREAD_STORAGE)
        every = len(trace.ops)
    return GoogleTcmallocExact(o, cpus_of(trace)).replay(trace, every=every, addresses=addresses), at


@pytest.mark.parametrize("name", TRACES)
def test_every_property_is_the_librarys(name: str) -> None:
    """To the byte, at every sample."""
    replay, _ = ours(name, TRACES[name]())
    rows = np.array(RECORDED[name])[1:]
    assert len(rows) == len(replay.stats)
    for k, property_ in enumerate(NAMES):
        assert (replay.stats[property_] == rows[:, 2 + k]).all(), property_


@pytest.mark.parametrize("name", TRACES)
def test_resident_memory_is_the_processs_within_a_few_per_cent(name: str) -> None:
    replay, _ = ours(name, TRACES[name]())
    rows = np.array(RECORDED[name])
    nothing = Trace(TRACES[name]().ops[:0], 1, 1)
    start = int(GoogleTcmallocExact().replay(nothing).samples["resident"][0])
    since, rss = replay.samples["resident"] - start, rows[1:, 1] - rows[0, 1]
    assert np.abs(since - rss).max() <= 0.02 * rss.max() + 256 * 1024


@pytest.mark.parametrize("name", ["growth", "random 1", "threads", "release all"])
def test_addresses_are_those_of_a_library_one_has_built(name: str, tmp_path: Path) -> None:
    library = os.environ.get(LIBRARY)
    if not library:
        pytest.skip(f"needs a build of google/tcmalloc named by {LIBRARY}; its recorded figures are compared above")
    trace = TRACES[name]()
    replay, at = ours(name, trace, addresses=True)
    _, real = one_run(compiled(tmp_path), Path(library), trace, RELEASES.get(name, 0), tmp_path)
    known = replay.addresses[at] >= 0
    _, counts = np.unique(real[known] - replay.addresses[at][known], return_counts=True)
    assert counts.max() >= 0.95 * known.sum()  # a preempted process has another order in its cache


def test_classes_hold_their_sizes_and_move_as_documented() -> None:
    """docs/design.md: about 60–80 classes were 86, now fewer; objects of at most 256 KiB, each span whole pages."""
    assert SIZE_OF[-1] == MAX_SIZE and CLASSES == 49
    for size in range(0, MAX_SIZE, 61):
        k = int(size_class(size, 16))
        assert SIZE_OF[k] % 16 == 0 and SIZE_OF[k] >= size and (SIZE_OF[k - 1] < size or SIZE_OF[k - 1] == 8)
    assert (SPAN_PAGES[1:] * PAGE >= SIZE_OF[1:]).all() and (MOVED[1:] >= 2).all() and (OBJECTS[1:] >= 1).all()
    assert size_class(MAX_SIZE + 1, 16) == 0 and size_class(100, 2 * PAGE) == 0
    assert SIZE_OF[size_class(100, 64)] == 128


def test_a_cpus_lists_grow_by_misses_within_its_budget() -> None:
    """A list begins without room, gets a batch's at the first underflow, and never more than the budget or the slab lets it."""
    b = TraceBuilder("growing")
    b.malloc("first", 300)
    exact = GoogleTcmallocExact(cpus=1)
    heap = played(exact, b.build())
    k = int(size_class(300, 16))
    cpu = heap.cpus[0]
    assert cpu["capacity"][k] == min(32, CPU_SLOTS[k]) == 27
    assert cpu["length"][k] == 14  # half a list, rounded up: 15 objects were fetched
    for j in range(200):
        b.malloc(j, 300)
    heap = played(exact, b.build())
    assert heap.cpus[0]["capacity"][k] == CPU_SLOTS[k]
    spent = int((heap.cpus["capacity"] * SIZE_OF).sum())
    assert spent + int(heap.cpus["available"][0]) == 3 << 19


def test_threads_of_one_cpu_share_its_cache_and_others_do_not() -> None:
    b = TraceBuilder("two threads")
    for k in range(100):
        b.malloc(k, 300)
    for k in range(20):
        b.free(k)
    b.on(1).malloc("next", 300)
    freed = set(range(20))
    for cpus, shared in ((1, True), (2, False)):
        replay = GoogleTcmallocExact(cpus=cpus).replay(b.build(), addresses=True)
        assert (replay.addresses[-1] in {int(replay.addresses[k]) for k in freed}) is shared


def test_a_small_budget_sends_more_to_the_transfer_cache() -> None:
    trace = without_sleep(draw("random-free", blocks=5000))
    large, small = (GoogleTcmallocExact(GoogleOptions(max_per_cpu_cache_size=n), 1).replay(trace).stats[-1] for n in (3 << 19, 1 << 16))
    assert small["tcmalloc.cpu_free"] < 1 << 16 < large["tcmalloc.cpu_free"]
    assert small["underflows"] > large["underflows"]


def test_nothing_is_returned_by_itself_and_a_release_breaks_huge_pages() -> None:
    """Background release is 0 as it comes and malloc_trim() asks for no bytes; a request takes free pages out of huge pages in use."""
    b = TraceBuilder("half free")
    for k in range(8000):
        b.malloc(k, 8192)
    for k in range(8000):
        if k % 4 != 0:
            b.free(k)
    b.sleep(700_000_000_000)  # longer than any demand is remembered
    b.malloc("later", 8192)
    b.sleep(700_000_000_000)
    b.trim()
    trace = b.build()
    kept = GoogleTcmallocExact(cpus=1).replay(trace).stats[-1]
    gone = GoogleTcmallocExact(parse_google_tcmalloc("release_on_trim=all"), 1).replay(trace).stats[-1]
    whole = GoogleTcmallocExact(parse_google_tcmalloc("release_on_trim=all:hpaa_subrelease=f"), 1).replay(trace).stats[-1]
    name = "tcmalloc.pageheap_unmapped_bytes"
    assert kept[name] == whole[name] < 3 * MIB
    assert gone[name] > 40 * MIB


def test_a_background_release_waits_for_a_minute_of_less_demand() -> None:
    """At 16 KiB/s it takes all free pages of a huge page each time its turn comes, once what varied a minute ago is forgotten."""
    b = TraceBuilder("half free")
    for k in range(8000):
        b.malloc(k, 8192)
    for k in range(8000):
        if k % 4 != 0:
            b.free(k)
    for _ in range(100):
        b.sleep(1_000_000_000)
    trace = b.build()
    exact = GoogleTcmallocExact(parse_google_tcmalloc("background_release_rate=16384"), 1)
    unmapped = exact.replay(trace, every=1).stats["tcmalloc.pageheap_unmapped_bytes"][-100:]
    assert unmapped[:59].max() < 5 * MIB < unmapped[75] < 20 * MIB < unmapped[-1] < 40 * MIB


def test_recent_demand_keeps_a_release_from_breaking_huge_pages() -> None:
    """What was in use at the peak of the last minutes stays, unless the intervals are set to nothing."""
    b = TraceBuilder("just freed")
    for k in range(8000):
        b.malloc(k, 8192)
    for k in range(8000):
        if k % 4 != 0:
            b.free(k)
    b.trim()
    off = "release_on_trim=all:skip_subrelease_short_interval=0:skip_subrelease_long_interval=0"
    name = "tcmalloc.pageheap_unmapped_bytes"
    skipped = GoogleTcmallocExact(parse_google_tcmalloc("release_on_trim=all"), 1).replay(b.build()).stats[-1][name]
    taken = GoogleTcmallocExact(parse_google_tcmalloc(off), 1).replay(b.build()).stats[-1][name]
    assert skipped < 5 * MIB and taken > 40 * MIB


def test_large_blocks_that_waste_huge_pages_go_to_a_region() -> None:
    """docs/regions-are-not-optional.md: many blocks of 2.1 MiB would waste almost half; after 64 MiB of it they share a region."""
    b = TraceBuilder("just above a huge page")
    b.written = 4096
    for k in range(400):
        b.malloc(k, 2 * MIB + 65_536)
    last = GoogleTcmallocExact(cpus=1).replay(b.build()).last
    assert last["live"] < last["mapped"] < last["live"] + 80 * MIB  # without regions: 770 MiB more


def test_huge_pages_above_the_caches_limit_go_back_at_once() -> None:
    """The cache keeps ten huge pages; more only when the use of the last second fell and rose again."""
    b = TraceBuilder("up and down")
    for k in range(40):
        b.malloc(k, 4 * MIB)
    for k in range(40):
        b.free(k)
    exact = GoogleTcmallocExact(cpus=1)
    heap = played(exact, b.build())
    assert int((heap.huge == CACHED).sum()) == heap.state[0]["cached"] == 10
    for k in range(40):
        b.malloc(("again", k), 4 * MIB)
    for k in range(40):
        b.free(("again", k))
    heap = played(exact, b.build())
    assert heap.state[0]["cached"] == 80 and heap.state[0]["limit"] == 88  # the dip, and a tenth


def played(exact: GoogleTcmallocExact, trace: Trace) -> GoogleHeap:
    heap, done, nothing = exact.start(trace.blocks), 0, np.zeros(0, np.int64)
    while done < len(trace.ops):
        done = int(replay_ops(heap, trace.ops, nothing, nothing, done, len(trace.ops)))
        heap = heap if done == len(trace.ops) else roomier(heap, trace.ops[done], "test")
    return heap


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([500, 40_000, 400_000, 3_000_000]), st.integers(1, 3))
def test_every_page_is_in_one_place(seed: int, most: int, threads: int) -> None:
    """Whatever a program does: blocks do not overlap, every page is counted once, every list holds what it should."""
    trace = random_program(seed, 600, most=most, threads=threads)
    heap = played(GoogleTcmallocExact(cpus=2), trace)
    live = heap.blocks[heap.blocks["live"] == 1]
    live = live[np.argsort(live["address"])]
    assert (live["address"][:-1] + live["size"][:-1] <= live["address"][1:]).all()
    allocated, size, free, unmapped, *_ = stats_of(heap)
    assert min(allocated, free, unmapped) >= 0 and size - free >= allocated >= int(live["size"].sum())
    assert int(heap.state[0]["touched"]) == int(heap.touched.sum())
    exist = heap.trackers[heap.trackers["exists"] == 1]
    assert (exist["used"].sum(1) == exist["in_use"]).all() and (exist["released"].sum(1) == exist["released_count"]).all()
    assert len(exist) == heap.state[0]["trackers"] == heap.groups.sum()
    for h in np.flatnonzero(heap.lists.ravel() >= 0):
        assert heap.trackers[heap.lists.ravel()[h]]["list"] == h and h < 7 * KIND_LISTS


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 5)), max_size=60))
def test_a_range_of_pages_is_taken_from_the_shortest_run_that_holds_it(steps: list[tuple[int, int]]) -> None:
    """Against the obvious: all free runs, sorted."""
    used, taken, end = np.zeros(64, np.uint8), [], 64
    for pages, drop in steps:
        runs = [(len(r), r.start) for r in free_runs(used)]
        fits = sorted(run for run in runs if run[0] >= pages)
        if fits:
            first, longest = mark_range(used, 0, end, pages)
            assert first == fits[0][1]
            taken.append((int(first), pages))
            assert longest == max((len(r) for r in free_runs(used)), default=0)
        if drop < len(taken):
            begin, count = taken.pop(drop)
            length = unmark_range(used, 0, end, begin, count)
            assert length == next(len(r) for r in free_runs(used) if begin in r)


def free_runs(used: np.ndarray) -> list[range]:
    edges = np.flatnonzero(np.diff(np.concatenate(([1], used, [1]))))
    return [range(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize(("text", "words"), [
    ("background_release_rate=fast", "whole number"),
    ("skip_subrelease_long_interval=-1", "whole number, 0 to 86400"),
    ("hpaa_subrelease=perhaps", "must be t or f"),
    ("release_rate=1", "unknown setting"),
])  # fmt: skip
def test_bad_settings_are_refused_with_a_sentence(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_google_tcmalloc(text)


def test_an_alignment_at_which_the_library_aborts_is_refused() -> None:
    b = TraceBuilder("wide")
    b.memalign("x", 4 * MIB, 100)
    with pytest.raises(BadInput, match="op 1 wants an alignment above 2 MiB"):
        GoogleTcmallocExact().replay(b.build())
