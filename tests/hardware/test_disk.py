# SPDX-License-Identifier: Apache-2.0
"""A disk: latency per request, bandwidth shared by the queue."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleetsim.hardware.disk import submit
from tests.host.worlds import world


def disk(latency_ns: int, ns_per_page: int) -> Any:
    row = world().row["disk"][0]
    row["latency_ns"], row["ns_per_page"] = latency_ns, ns_per_page
    return row


def test_an_idle_disk_takes_its_latency_and_the_transfer() -> None:
    assert submit(disk(100, 10), 5000, 32) == 5000 + 320 + 100


def test_a_busy_disk_serves_one_after_the_other_and_latencies_overlap() -> None:
    d = disk(100, 10)
    assert submit(d, 0, 32) == 420
    assert submit(d, 0, 32) == 740, "the second waits for the first one's transfer, not for its latency"
    assert submit(d, 10_000, 1) == 10_110, "idle again"


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 64)), min_size=1, max_size=40))
def test_no_order_of_requests_beats_the_bandwidth(requests: list[tuple[int, int]]) -> None:
    d, now, done, pages = disk(7, 13), 0, 0, 0
    first = requests[0][0]
    for wait, n in requests:
        now += wait
        pages += n
        last, done = done, submit(d, now, n)
        assert done >= now + n * 13 + 7
        assert done >= last, "in order"
    assert done >= first + pages * 13
