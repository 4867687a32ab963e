# SPDX-License-Identifier: Apache-2.0
"""jemalloc block by block against libjemalloc2 5.3.0: every page a block lies in, jemalloc's own stats, and the process's RSS."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fleetsim.allocators.jemalloc_calls import replay_ops
from fleetsim.allocators.jemalloc_exact import (
    NAMES,
    JemallocExact,
    JemallocOptions,
    JemallocReplay,
    parse_malloc_conf,
    roomier,
    sample,
    stats_of,
)
from fleetsim.allocators.patterns import draw
from fleetsim.allocators.trace import SLEEP, Trace, TraceBuilder
from fleetsim.errors import BadInput
from tests.allocators.programs import MS, filled, freed_and_watched, random_program
from tests.allocators.real_library import AT_SLEEPS, Real, compiled, library, mappings_that_moved, replayed, with_thread_starts

CPUS = len(os.sched_getaffinity(0))
LEAF = 2 << 20
THREAD_STORAGE = 272  # bytes that pthread_create() of glibc 2.36 callocs
NEVER = "dirty_decay_ms:-1"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library("libjemalloc.so.2")
    return compiled(tmp_path_factory.mktemp("replay"))


def both(program: Path, trace: Trace, conf: str, folder: Path, every: int) -> tuple[JemallocReplay, Real]:
    ours = JemallocExact(parse_malloc_conf(conf), CPUS).replay(trace, every=every, addresses=True)
    return ours, replayed(program, library("libjemalloc.so.2"), trace, folder, every=every, MALLOC_CONF=conf)


def resident_since_start(ours: JemallocReplay, conf: str) -> np.ndarray:
    nothing = TraceBuilder().build()
    start = JemallocExact(parse_malloc_conf(conf), CPUS).replay(Trace(nothing.ops[:0], 1, 1))
    return ours.samples["resident"] - start.samples["resident"][0]


def without_sleep(trace: Trace) -> Trace:
    return Trace(trace.ops[trace.ops["op"] != SLEEP].copy(), trace.blocks, trace.threads, trace.source)


def leaves_more(ours: np.ndarray, real: Real) -> np.ndarray:
    """Leaves of the radix tree that the real process has more, as its mappings happened to cross a GiB: 2 MiB of metadata each."""
    metadata = real.told[1:, NAMES.index("metadata")]
    return np.rint((metadata - ours["metadata"]) / LEAF).astype(np.int64) * LEAF


@pytest.mark.parametrize("name", ["growth", "random-free", "pinned-top", "sawtooth", "leak", "big-blocks"])
def test_every_page_and_every_number_is_the_librarys_while_nothing_decays(name: str, program: Path, tmp_path: Path) -> None:
    trace = without_sleep(draw(name) if name == "big-blocks" else draw(name, blocks=6000))
    ours, real = both(program, trace, NEVER, tmp_path, every=len(trace.ops) // 20)
    assert (ours.usable[ours.addresses >= 0] == real.usable[ours.addresses >= 0]).all()
    assert mappings_that_moved(ours.addresses, real.addresses) <= 40
    for k, stat in enumerate(NAMES):
        if stat in ("allocated", "active", "retained"):
            assert (ours.stats[stat] == real.told[1:, k]).all(), stat
        else:
            surplus = leaves_more(ours.stats, real)
            exact, crossing = {"metadata": (0, 4096), "resident": (8192, 16_384), "mapped": (0, 8 << 20)}[stat]
            assert np.abs(ours.stats[stat] - (real.told[1:, k] - surplus)).max() <= (crossing if surplus.any() else exact), stat


@pytest.mark.parametrize(("seed", "threads", "conf", "most"), [
    (1, 1, NEVER, 40_000),
    (2, 4, NEVER, 40_000),
    (3, 1, f"{NEVER},tcache:false", 200_000),
    (4, 1, f"{NEVER},lg_tcache_max:20", 12_000_000),
    (5, 3, f"{NEVER},narenas:2,lg_tcache_max:10", 40_000),
    (6, 1, "dirty_decay_ms:0", 400_000),
    (7, 1, f"{NEVER},oversize_threshold:65536,lg_extent_max_active_fit:2", 400_000),
])  # fmt: skip
def test_programs_at_random_lie_page_by_page_where_the_library_puts_them(
    seed: int, threads: int, conf: str, most: int, program: Path, tmp_path: Path
) -> None:
    trace = random_program(seed, 8000, threads=threads, most=most)
    longer, at = with_thread_starts(trace, THREAD_STORAGE)
    ours = JemallocExact(parse_malloc_conf(conf), CPUS).replay(longer, addresses=True)
    real = replayed(program, library("libjemalloc.so.2"), trace, tmp_path, every=len(trace.ops), MALLOC_CONF=conf)
    told = ours.addresses[at]
    assert (ours.usable[at][told >= 0] == real.usable[told >= 0]).all()
    mappings = len(np.unique(told[told >= 0] >> 21))
    assert mappings_that_moved(told, real.addresses) < mappings
    for k, stat in enumerate(NAMES):
        if stat in ("allocated", "active"):
            assert ours.stats[-1][stat] == real.told[-1, k], stat


@pytest.mark.parametrize("name", ["growth", "random-free", "pinned-top", "leak", "threads", "big-blocks"])
def test_resident_memory_over_time_is_the_processs(name: str, program: Path, tmp_path: Path) -> None:
    drawn = {} if name == "big-blocks" else {"blocks": 20_000, "threads": 6}
    trace = without_sleep(draw(name, **drawn))
    ours, real = both(program, trace, "", tmp_path, every=len(trace.ops) // 40)
    rss, since = real.resident[1:] - real.resident[0], resident_since_start(ours, "")
    assert np.abs(since - rss).max() <= 0.05 * rss.max()
    stat = ours.stats["resident"] - ours.stats["metadata"]
    told = real.told[1:, NAMES.index("resident")] - real.told[1:, NAMES.index("metadata")]
    assert np.abs(stat - told).max() <= 0.05 * told.max()


def around_sleeps(program: Path, trace: Trace, conf: str, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Before and after each sleep: RSS since the start, ours and the process's; stats.resident likewise."""
    real = replayed(program, library("libjemalloc.so.2"), trace, folder, every=AT_SLEEPS, MALLOC_CONF=conf)
    heap = JemallocExact(parse_malloc_conf(conf), CPUS).start(trace.threads, trace.blocks)
    none, done, rows = np.zeros(0, np.int64), 0, [(sample(heap, 0)[8], stats_of(heap)[3])]
    for stop in real.op[1:]:
        while done < stop:
            done = int(replay_ops(heap, trace.ops, none, none, done, int(stop)))
            heap = roomier(heap, int(trace.ops[done]["size"])) if done < stop else heap
        rows.append((sample(heap, done)[8], stats_of(heap)[3]))
    ours = np.array(rows)
    return ours[1:, 0] - ours[0, 0], real.resident[1:] - real.resident[0], ours[1:, 1], real.told[1:, NAMES.index("resident")]


def test_free_memory_stays_while_the_process_idles_and_decays_with_activity(program: Path, tmp_path: Path) -> None:
    trace = freed_and_watched(8000, 4096, [900, 1500, 2100, 3300], keep=25, seen=60)  # free runs are short: they are purged one by one
    since, rss, _, _ = around_sleeps(program, trace, "dirty_decay_ms:3000", tmp_path)
    full = since[4]
    assert np.abs(since - rss).max() <= 0.05 * full, (since, rss)
    assert (since[2::2] == since[3::2]).all()  # idle: nothing changes, however long ago it was freed
    kept = (since[6::2] - since[-1]) / (full - since[-1])
    assert np.abs(kept - [0.84, 0.5, 0.16, 0.0]).max() < 0.06  # the smooth step at 0.7, 0.5, 0.3, 0


def test_a_background_thread_gives_memory_back_while_the_process_idles(program: Path, tmp_path: Path) -> None:
    b = TraceBuilder()
    filled(b, 8000, 4096)
    for k in range(8000):
        b.free(k)
    b.sleep(200 * MS)
    b.sleep(1300 * MS)
    since, rss, _, _ = around_sleeps(program, b.build(), "dirty_decay_ms:500,background_thread:true", tmp_path)
    assert abs(since[0] - rss[0]) <= 0.05 * since[0]
    assert since[0] == since[1] and rss[1] > 0.75 * rss[0]  # asleep itself until so much is due that it pays
    assert since[-1] < 0.15 * since[0] and abs(since[-1] - rss[-1]) <= 0.05 * since[0], (since, rss)


def test_muzzy_pages_stay_resident_until_the_kernel_wants_them(program: Path, tmp_path: Path) -> None:
    trace = freed_and_watched(6000, 4096, [300])
    since, rss, stat, told = around_sleeps(program, trace, "dirty_decay_ms:200,muzzy_decay_ms:-1", tmp_path)
    assert np.abs(since - rss).max() <= 0.05 * since.max() and since[-1] > 0.95 * since.max()
    assert np.abs((stat - stat[0]) - (told - told[0])).max() <= 0.05 * stat.max() and stat[-1] < 0.4 * stat.max()


def test_the_end_of_a_thread_purges_its_arena(program: Path, tmp_path: Path) -> None:
    b = TraceBuilder()
    b.malloc("main", 100)
    b.on(1)
    filled(b, 6000, 4096)
    for k in range(6000):
        b.free(k)
    b.sleep(MS)
    b.exit()
    b.on(0).malloc("after", 100)
    b.sleep(MS)
    since, rss, _, _ = around_sleeps(program, b.build(), "", tmp_path)
    assert np.abs(since - rss).max() <= 0.05 * since[0], (since, rss)
    assert since[-1] < 0.1 * since[0]


def test_without_retain_addresses_go_back_as_well() -> None:
    trace = draw("growth", blocks=3000)
    kept = JemallocExact(JemallocOptions(dirty_decay_ms=0)).replay(trace).stats[-1]
    given = JemallocExact(JemallocOptions(dirty_decay_ms=0, retain=False)).replay(trace).stats[-1]
    assert kept["retained"] > 0 and given["retained"] == 0
    assert kept["active"] == given["active"]


def test_classes_of_sizes_and_pages_are_inverse_to_their_sizes() -> None:
    from fleetsim.allocators.jemalloc_sizes import SIZE_OF, page_class, page_class_size, size_class

    for k in range(120):
        assert size_class(int(SIZE_OF[k])) == k and size_class(int(SIZE_OF[k]) + 1) == k + 1
        assert page_class(page_class_size(k)) == k and page_class(page_class_size(k) + 1) == k + 1


@pytest.mark.parametrize(("text", "words"), [
    ("dirty_decay_ms:soon", "must be a whole number"),
    ("narenas:0", "1 to 4094"),
    ("tcache:yes", "true or false"),
    ("prof:true", "unknown option"),
    ("narenas", "unknown option"),
])  # fmt: skip
def test_bad_options_are_refused_with_a_sentence(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_malloc_conf(text)
