# SPDX-License-Identifier: Apache-2.0
"""Pages on the per-cpu lists are free but not in MemFree: taken by batches, given back late (kernel-laws §1.7)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.mm_types import KSWAPD_RUN
from fleetsim.linux.per_cpu_pages import MOVABLE, OTHERS, drain_all_pages, free_unref_pages, nr_pcp_high, rmqueue_pcplist, trim
from tests.host.worlds import World, world


def lists(batch: int = 63, high: int = 1000, free: int = 5000) -> tuple[World, Any]:
    w = world(256)
    zone = w.row["zones"][1]
    zone["pcp"], zone["pcp_batch"], zone["pcp_high"], zone["free"] = 0, batch, high, free
    return w, zone


def test_one_page_taken_takes_a_batch_out_of_memfree_and_the_next_ones_nothing() -> None:
    _, zone = lists()
    assert rmqueue_pcplist(zone, 1, 4000) == 1
    assert (zone["free"], zone["pcp"][MOVABLE]) == (5000 - 63, 62)
    assert rmqueue_pcplist(zone, 62, 4000) == 62
    assert (zone["free"], zone["pcp"][MOVABLE]) == (5000 - 63, 0)


def test_a_zone_at_its_mark_gives_one_last_batch() -> None:
    """Recording e02: DMA32 stood 29 pages below its min mark at the kill."""
    _, zone = lists()
    assert rmqueue_pcplist(zone, 500, 10) == 10
    assert zone["free"] == 5000 - 63


def naive_free(zone: dict[str, int], pages: int) -> None:
    """free_unref_page_commit, one page after the other."""
    for _ in range(pages):
        zone["count"] += 1
        if zone["count"] >= zone["high"]:
            most = zone["high"] - zone["batch"]
            bulk = zone["batch"] << zone["factor"]
            if bulk < most:
                zone["factor"] += 1
            bulk = max(zone["batch"], min(bulk, most))
            zone["count"] -= bulk
            zone["free"] += bulk


@given(st.lists(st.integers(1, 5000), max_size=6), st.integers(1, 63), st.integers(2, 60))
def test_giving_back_trims_as_page_by_page(amounts: list[int], batch: int, times: int) -> None:
    w, zone = lists(batch, batch * times)
    naive = {"count": 0, "high": batch * times, "batch": batch, "factor": 0, "free": 5000}
    for pages in amounts:
        free_unref_pages(w.row, zone, MOVABLE, pages)
        naive_free(naive, pages)
        assert (int(zone["free"]), int(zone["pcp"].sum()), int(zone["pcp_factor"])) == (naive["free"], naive["count"], naive["factor"])


def test_a_large_exit_hides_up_to_a_low_watermark_of_pages() -> None:
    """Recording e17: 60 MiB were freed by the first kill, MemFree rose by 5.5 MiB; the lists held the rest."""
    w, zone = lists(63, 13_861)
    free_unref_pages(w.row, zone, MOVABLE, 15_360)
    assert 15_360 - (int(zone["free"]) - 5000) == pytest.approx(13_861, rel=0.15)


def test_while_kswapd_reclaims_the_lists_are_short() -> None:
    w, zone = lists(63, 13_861)
    free_unref_pages(w.row, zone, OTHERS, 2000)
    w.row["kswapd"][0]["state"] = KSWAPD_RUN
    assert nr_pcp_high(w.row, zone) == 4 * 63
    zone["listed"] = zone["free"]
    trim(w.row)
    assert zone["pcp"].sum() == 252
    assert zone["free"] == 5000 + 2000 - 252


def test_drained_lists_are_empty_and_no_page_is_lost() -> None:
    w = world(256, tasks={"a": "mmap_anon A 60 | touch A 60 200 | free A munmap | sleep 9"}).at(3)
    hidden, free = w.free() - w.meminfo("MemFree"), w.free()
    assert hidden > 1
    drain_all_pages(w.row)
    assert w.free() == w.meminfo("MemFree") == free
    w.at(3.1)
