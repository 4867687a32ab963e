# SPDX-License-Identifier: Apache-2.0
"""The grouped host against the page-exact one (tests/oracle): the same small story, page by page in one and by the slice in the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.host.worlds import PAGES, World, world
from tests.oracle.page_exact import Host, Page, Zone
from tests.oracle.test_page_exact import anon, file_of, paced, run

END_S = 8.0


def page_exact(w: World) -> Host:
    """The oracle's host with the zones that the simulated one was booted with."""
    zones = []
    for name, zone in zip(("DMA", "DMA32"), w.row["zones"], strict=False):
        marks = (int(mark) for mark in zone["wmark"])
        zones.append(Zone(name, int(zone["managed"]), int(zone["free"]), *marks, reserve=int(zone["reserve"])))
    return Host(zones)


def story(h: Host, cached: list[Page], grown: list[Page]) -> Iterator[float]:
    """150 MiB read at 100 MiB/s from 0 s on; 120 MiB grown at 30 from 2 s on; 60 MiB read again at 40 from 6.5 s on."""
    tasks = [paced(h, 0, cached, 100), paced(h, 2, grown, 30, touch=True), paced(h, 6.5, cached[: 60 * PAGES], 40)]
    return run(h, tasks, END_S)


def test_cache_then_growth_then_the_cache_again_is_the_same_story() -> None:
    """
    before  179 MiB free
    ask     a file of 150 MiB, then 120 MiB of anonymous memory over it, then 60 MiB of the file again
    after   the same pages scanned, freed and refaulted, the same lists

    Tolerance: a slice of the file is 600 pages and counts as one refault decision (1.6 % of what is read), the oracle's kswapd
    needs no time, so that a pass more or less lies between the two: 4 % of what is counted.
    """
    w = world(
        tick_ms=1.0,
        files={"/f": 150},
        tasks={
            "reader": "read_file /f 150 100 | until 6.5 | read_file /f 60 40 | sleep 100",
            "hog": "until 2 | mmap_anon A 120 | touch A 120 30 | sleep 100",
        },
    )
    exact = page_exact(w)
    # the two programs' images and page tables are no pages of the oracle: take them from its free pages
    overhead = 2 * 79 + 60
    exact.zones[1].free -= overhead
    exact.taken[1] += overhead
    for _ in story(exact, file_of(150 * PAGES), anon(120 * PAGES)):
        pass
    w.at(END_S)
    ours, truth = w.all_vmstat(), exact.counts()
    for name in ("pgscan_kswapd", "pgsteal_kswapd", "workingset_refault_file", "nr_inactive_file", "nr_inactive_anon"):
        assert ours[name] == pytest.approx(truth[name], rel=0.04), name
    assert ours["nr_free_pages"] == pytest.approx(truth["nr_free_pages"], abs=int(w.row["totalram"]) // 100)
    assert ours["allocstall_movable"] == truth.get("allocstall_movable", 0) == 0
    assert ours["workingset_activate_file"] == truth.get("workingset_activate_file", 0)
