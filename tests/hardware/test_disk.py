# SPDX-License-Identifier: Apache-2.0
"""A disk: latency per request, bandwidth shared by the queue."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.hardware.disk import READ, REQUEST_PAGES, WRITE, busy_ms, submit, submit_chain, submit_many
from fleetsim.linux.fs_types import DISK
from tests.host.worlds import world


def disk(latency_ns: int, ns_per_page: int) -> Any:
    row = world().row["disk"][0]
    row["latency_ns"], row["ns_per_page"] = latency_ns, ns_per_page
    return row


def test_an_idle_disk_takes_its_latency_and_the_transfer() -> None:
    assert submit(disk(100, 10), 5000, 32, READ) == 5000 + 320 + 100


def test_a_busy_disk_serves_one_after_the_other_and_latencies_overlap() -> None:
    d = disk(100, 10)
    assert submit(d, 0, 32, READ) == 420
    assert submit(d, 0, 32, READ) == 740, "the second waits for the first one's transfer, not for its latency"
    assert submit(d, 10_000, 1, READ) == 10_110, "idle again"


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 64)), min_size=1, max_size=40))
def test_no_order_of_requests_beats_the_bandwidth(requests: list[tuple[int, int]]) -> None:
    d, now, done, pages = disk(7, 13), 0, 0, 0
    first = requests[0][0]
    for wait, n in requests:
        now += wait
        pages += n
        last, done = done, submit(d, now, n, WRITE)
        assert done >= now + n * 13 + 7
        assert done >= last, "in order"
    assert done >= first + pages * 13


def test_requests_per_second_are_a_limit_of_their_own() -> None:
    d = disk(0, 10)
    d["ns_per_request"] = 1_000_000
    assert submit(d, 0, 1, READ) == 1_000_000
    assert submit(d, 0, REQUEST_PAGES * 3, WRITE) == 4_000_000, "three requests at the least"
    assert [int(n) for n in d["requests"]] == [1, 3]
    assert [int(n) for n in d["pages"]] == [1, REQUEST_PAGES * 3]


def test_a_slow_disk_takes_its_time_over_everything() -> None:
    d = disk(100, 10)
    d["slow_percent"] = 500
    assert submit(d, 0, 32, READ) == 5 * 320 + 5 * 100


def test_busy_time_counts_overlapping_requests_once_and_the_queues_future_not_yet() -> None:
    d = disk(0, 1_000_000)
    submit(d, 0, 10, READ)
    submit(d, 0, 10, WRITE)
    assert busy_ms(d, 5_000_000) == 5
    assert busy_ms(d, 100_000_000) == 20
    submit(d, 100_000_000, 10, READ)
    assert busy_ms(d, 200_000_000) == 30, "the pause between is not busy"


@given(
    pages=st.integers(1, 500),
    window=st.integers(1, 320),
    now=st.integers(0, 3_000_000),
    queued=st.integers(0, 400),
    slow=st.sampled_from([100, 100, 250]),
    iops=st.sampled_from([0, 50_000]),
)
def test_a_chain_is_what_its_transfers_one_by_one_are(pages: int, window: int, now: int, queued: int, slow: int, iops: int) -> None:
    """The closed form against the loop that it stands for: the same end and the same counters."""
    disks = np.zeros(2, DISK)
    for disk in disks:
        disk["latency_ns"], disk["ns_per_page"], disk["ns_per_request"], disk["slow_percent"] = 80_000, 1_400, iops, slow
        submit(disk, 0, queued, WRITE)
    end, left = now, pages
    while left > 0:
        end = int(submit(disks[0], end, min(window, left), READ))
        left -= window
    assert int(submit_chain(disks[1], now, pages, window, READ)) == end
    assert disks[0].tobytes() == disks[1].tobytes()


@pytest.mark.parametrize(("pages", "window", "at_once"), [(2, 2, 1), (200, 2, 1), (200, 2, 8), (201, 2, 7), (64_000, 2, 16), (10, 32, 4)])
@pytest.mark.parametrize("slow", [100, 700])
def test_many_readers_at_once_are_the_simulation_of_each_of_them(pages: int, window: int, at_once: int, slow: int) -> None:
    """The naive twin sends every request on its own: each reader's next one when its last is done."""
    one, twin = np.zeros(2, DISK)
    for disk in (one, twin):
        disk["latency_ns"], disk["ns_per_page"], disk["slow_percent"] = 100_000, 2_000, slow
    done = int(submit_many(one, 1_000, pages, window, at_once, READ))
    free = [1_000] * at_once
    for _ in range(-(-pages // window)):
        reader = free.index(min(free))
        free[reader] = int(submit(twin, free[reader], window, READ))
    assert done == pytest.approx(max(free), rel=0.03)
    assert int(one["requests"][READ]) == int(twin["requests"][READ])
    assert int(one["free_at_ns"]) <= done, "whoever comes next does not wait for these readers, only for the device"
