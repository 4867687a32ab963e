# SPDX-License-Identifier: Apache-2.0
"""Is the oracle itself sane? What every Linux host does under pressure, and what one recorded host did.

A small host: 64 MiB in one zone, 1 MiB taken by the kernel, watermarks 512 / 640 / 768 pages."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.page_exact import ACTIVE_FILE, Host, OutOfMemory, Page, Zone

MIN, LOW, HIGH = 512, 640, 768
TOTAL = 16_384


def host(*, swap: int = 0, swappiness: int = 60, pages: int = TOTAL) -> Host:
    return Host([Zone("Normal", pages, pages - 256, MIN, LOW, HIGH)], swap_total=swap, swappiness=swappiness)


def file_of(pages: int) -> list[Page]:
    return [Page(is_file=True) for _ in range(pages)]


def anon(pages: int) -> list[Page]:
    return [Page(is_file=False) for _ in range(pages)]


def read_all(h: Host, file: list[Page]) -> int:
    """One sequential pass; how many pages were in memory."""
    return sum(h.read(page) == "hit" for page in file)


def test_without_pressure_nothing_is_ever_scanned() -> None:
    h = host(swap=4096)
    read_all(h, file_of(8000))
    for page in anon(4000):
        h.touch(page)
    h.check()
    assert h.counts()["nr_inactive_file"] == 8000
    assert h.counts()["nr_inactive_anon"] == 4000
    assert not any(h.events.values())


def test_a_stream_keeps_free_memory_between_low_and_high_and_costs_no_direct_reclaim() -> None:
    h = host()
    lowest = highest = None
    for n, page in enumerate(file_of(60_000)):
        h.read(page)
        if n > 20_000:
            lowest, highest = min(lowest or TOTAL, h.free), max(highest or 0, h.free)
    h.check()
    assert LOW - 1 <= lowest <= LOW
    assert HIGH < highest <= HIGH + 16_384 // 4  # balance is looked at only between passes
    assert h.events["pgscan_kswapd"] == h.events["pgsteal_kswapd"] > 40_000  # used once: every look is a hit
    assert h.events["allocstall_movable"] == 0


def test_a_cyclic_read_larger_than_memory_never_hits() -> None:
    """kernel-laws 12.5: the cliff of LRU."""
    h, file = host(), file_of(20_000)
    read_all(h, file)
    assert sum(read_all(h, file) for _ in range(3)) == 0
    assert h.events["workingset_refault_file"] == 60_000


def test_a_cyclic_read_smaller_than_memory_always_hits_and_becomes_active() -> None:
    h, file = host(), file_of(8000)
    read_all(h, file)
    assert read_all(h, file) == 8000
    assert h.counts()["nr_active_file"] == 8000
    assert h.events["pgactivate"] == 8000


def test_pages_read_twice_survive_a_stream_read_once() -> None:
    """Second touch activates; a stream is trimmed from the inactive list as long as it is not low."""
    h, hot = host(), file_of(3000)
    read_all(h, hot)
    read_all(h, hot)
    read_all(h, file_of(30_000))
    assert sum(page.lru == ACTIVE_FILE for page in hot) == 3000


def test_a_page_missed_soon_after_eviction_comes_back_active() -> None:
    """T-3.8 at work: distance no larger than the active list."""
    h, hot = host(), file_of(3000)
    read_all(h, hot)
    read_all(h, hot)  # 3000 active pages give the reach
    stream = file_of(16_000)
    read_all(h, stream)
    oldest_gone = [page for page in stream if page.zone is None][-100:]
    assert len(oldest_gone) == 100
    read_all(h, oldest_gone)
    assert h.events["workingset_refault_file"] == 100
    assert h.events["workingset_activate_file"] == 100


def test_growth_without_swap_eats_the_cache_first_and_then_runs_out_at_the_min_mark() -> None:
    h, grown = host(), anon(TOTAL)
    read_all(h, file_of(8000))
    with pytest.raises(OutOfMemory):
        for page in grown:
            h.touch(page)
    assert h.counts()["nr_inactive_file"] + h.counts()["nr_active_file"] == 0
    assert h.free == MIN
    assert sum(page.zone is not None for page in grown) == TOTAL - 256 - MIN
    assert h.events["allocstall_movable"] > 0
    assert h.kswapd_failures > 0


def test_memory_of_the_dead_is_free_again() -> None:
    h, grown = host(swap=1000), anon(TOTAL + 2000)
    with pytest.raises(OutOfMemory):
        for page in grown:
            h.touch(page)
    assert h.swap_free == 0
    h.release(grown)
    h.elapse(10**9)
    h.check()
    assert h.free == TOTAL - 256
    assert h.swap_free == 1000


def test_growth_with_swap_pushes_out_what_was_touched_longest_ago() -> None:
    """The first pass finds every page touched and keeps it one round; the second writes it out in order."""
    h, idle, grown = host(swap=TOTAL), anon(6000), anon(14_000)
    for page in [*idle, *grown]:
        h.touch(page)
    h.check()
    gone = [page.zone is None for page in idle]
    assert h.events["pswpout"] >= 20_000 - TOTAL
    assert gone == sorted(gone, reverse=True)  # a prefix of the idle pages
    assert all(page.zone is not None for page in grown[-1000:])


def test_swapping_in_to_write_gives_the_slot_back_and_to_read_keeps_it() -> None:
    h, idle = host(swap=TOTAL), anon(6000)
    for page in [*idle, *anon(14_000)]:
        h.touch(page)
    out = [page for page in idle if page.zone is None]
    before = h.swap_free
    assert h.touch(out[0], write=True) == "major"
    assert not out[0].slot
    assert h.touch(out[1], write=False) == "major"
    assert out[1].slot
    assert h.swap_free >= before - 2000  # what came in had to push others out
    h.check()


def test_a_page_wanted_back_while_it_is_being_written_needs_no_disk() -> None:
    h, idle = host(swap=TOTAL), anon(6000)
    for page in [*idle, *anon(9500)]:
        h.touch(page)
    written = next(page for page in idle if page.writeback)
    assert h.touch(written) == "minor"
    h.elapse(10**9)
    assert written.zone is not None
    assert written.dirty  # the copy on disk is old now: it will be written again
    h.check()


@pytest.mark.parametrize(("swappiness", "swaps"), [(0, False), (60, True), (200, True)])
def test_swappiness_decides_whether_idle_memory_makes_room_for_a_rereadable_cache(swappiness: int, swaps: bool) -> None:
    h, file = host(swap=TOTAL, swappiness=swappiness), file_of(12_000)
    for page in anon(8000):
        h.touch(page)
    for _ in range(6):
        read_all(h, file)
    h.check()
    assert (h.events["pswpout"] > 0) == swaps


def test_higher_swappiness_swaps_more() -> None:
    out = []
    for swappiness in (1, 60, 200):
        h, file = host(swap=TOTAL, swappiness=swappiness), file_of(12_000)
        for page in anon(8000):
            h.touch(page)
        for _ in range(6):
            read_all(h, file)
        out.append(h.events["pswpout"])
    assert out[0] < out[1] < out[2]


def test_a_low_zone_keeps_its_reserve_from_those_who_could_use_a_higher_one() -> None:
    h = Host([Zone("DMA", 3840, 3800, 174, 217, 260, 944), Zone("DMA32", TOTAL, TOTAL, MIN, LOW, HIGH)])
    for page in file_of(40_000):
        h.read(page)
    h.check()
    assert h.zones[0].free >= 217 + 944
    assert h.zones[1].free >= LOW - 1


OPS = st.lists(
    st.tuples(st.sampled_from(["read", "touch", "peek", "map", "release"]), st.integers(0, 1199), st.integers(1, 400)),
    min_size=1,
    max_size=60,
)


@given(OPS, st.sampled_from([0, 300, 2000]), st.sampled_from([0, 60, 200]))
@settings(max_examples=40)
def test_no_program_of_accesses_loses_a_page_or_turns_a_counter_back(ops: list[tuple[str, int, int]], swap: int, swappiness: int) -> None:
    h = Host([Zone("Normal", 1024, 1000, 64, 80, 96)], swap_total=swap, swappiness=swappiness)
    file, memory = file_of(1200), anon(1200)
    before = dict(h.events)
    for kind, start, length in ops:
        span = slice(start, min(start + length, 1200))
        try:
            if kind == "read":
                read_all(h, file[span])
            elif kind == "release":
                h.release(memory[span])
            else:
                for page in (file if kind == "map" else memory)[span]:
                    h.touch(page, write=kind == "touch")
        except OutOfMemory:
            h.release(memory)
        h.check()
        assert all(h.events[name] >= value for name, value in before.items())
        before = dict(h.events)


# --- recorded hosts


def recorded(folder: Path, swap: int = 0, swappiness: int = 60) -> Host:
    """The host of a recording, from what was known before it began."""
    found = json.loads((folder / "start.json").read_text())["zones"]
    zones = []
    for name, z in found.items():
        if z["managed_pages"]:
            marks = (z["min_pages"], z["low_pages"], z["high_pages"])
            zones.append(Zone(name, z["managed_pages"], z["free_pages"], *marks, reserve=int(z["protection"].split(",")[3])))
    return Host(zones, swap_total=swap, swappiness=swappiness)


def paced(h: Host, start_s: float, pages: list[Page], mib_per_s: float, *, touch: bool = False, endless: bool = False) -> Iterator[float]:
    """Work in quanta of 64 pages; says when the next one is due."""
    for n in count(0, 64):
        if n >= len(pages) and not endless:
            return
        yield start_s + n / 256 / mib_per_s
        for k in range(n, n + 64):
            page = pages[k % len(pages)]
            if touch:
                h.touch(page)
            else:
                h.read(page)


def run(h: Host, tasks: list[Iterator[float]], end_s: float) -> Iterator[float]:
    """All tasks by deadline; stops for a look every half second, as the sampler of the recordings did."""
    due = [(next(task), n) for n, task in enumerate(tasks)]
    sampled = 0.0
    while due and min(due)[0] < end_s:
        when, n = min(due)
        due.remove((when, n))
        h.elapse(max(int(when * 1e9) - h.now_ns, 0))
        if when >= sampled + 0.5:
            sampled = when
            yield when
        if (following := next(tasks[n], None)) is not None:
            due.append((following, n))
    h.check()


def trace(folder: Path, until_s: float) -> list[dict[str, str]]:
    with gzip.open(folder / "trace.csv.gz", "rt") as file:
        return [row for row in csv.DictReader(file) if float(row["time_s"]) <= until_s]


def grew(rows: list[dict[str, str]], name: str) -> int:
    return int(rows[-1][f"vmstat.{name}"]) - int(rows[0][f"vmstat.{name}"])


def test_a_recorded_host_reading_and_growing_is_met(shared_dir: Path) -> None:
    """e04 (no swap): the saw-tooth of MemFree, kswapd's scans and runs, refaults.

    Wrong by intent: kswapd needs no time against the tasks here, so the peaks are a few per cent of a pass higher and it runs
    more often. Without the look after its nap it would run 122 times instead of 333 (seen while writing this)."""
    folder = shared_dir / "recordings" / "e04_cache_then_anon"
    h, big, grown = recorded(folder), file_of(1200 * 256), anon(650 * 256)
    tasks = [paced(h, 2, big, 60), paced(h, 30, grown, 25, touch=True), paced(h, 65, big[: 600 * 256], 40)]
    plateau = [h.free for when in run(h, tasks, 100) if 25 < when < 60]
    rows = trace(folder, 100)
    seen = [int(row["vmstat.nr_free_pages"]) for row in rows if 25 < float(row["time_s"]) < 60]
    assert min(plateau) == pytest.approx(min(seen), rel=0.02)
    assert fmean(plateau) == pytest.approx(fmean(seen), rel=0.02)
    assert max(plateau) == pytest.approx(max(seen), rel=0.06)
    for name in ("pgscan_kswapd", "pgsteal_kswapd", "workingset_refault_file"):
        assert h.events[name] == pytest.approx(grew(rows, name), rel=0.01), name
    for name in ("pageoutrun", "kswapd_high_wmark_hit_quickly"):
        assert h.events[name] == pytest.approx(grew(rows, name), rel=0.15), name
    assert h.events["allocstall_movable"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("swappiness", [0, 60, 200])
def test_a_recorded_host_that_swaps_is_met(swappiness: int, shared_dir: Path) -> None:
    """e09: 600 MB idle anon, a warm file read again and again, a stream (seen: within 4 %; activations at 200 within 18 %)."""
    folder = shared_dir / "recordings" / f"e09_swappiness_{swappiness}"
    h, idle, warm, stream = recorded(folder, 131_071, swappiness), anon(600 * 256), file_of(256 * 256), file_of(1200 * 256)
    tasks = [paced(h, 1, idle, 80, touch=True), paced(h, 11, warm, 25, endless=True), paced(h, 20, stream, 40, endless=True)]
    for _ in run(h, tasks, 61):
        assert h.swap_free >= 0
    rows = trace(folder, 61)
    for name in ("pswpout", "pgscan_anon", "pgscan_file", "pgsteal_file", "workingset_refault_file"):
        assert h.events[name] == pytest.approx(grew(rows, name), rel=0.05), name
    assert h.events["workingset_activate_file"] == pytest.approx(grew(rows, "workingset_activate_file"), rel=0.2)
    assert h.events["allocstall_movable"] == 0
