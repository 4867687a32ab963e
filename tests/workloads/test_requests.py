# SPDX-License-Identifier: Apache-2.0
"""Requests of a server: what arrives is served, refused, given up or still there; latencies are those of a queue in front of workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetsim.host.state import HOST
from fleetsim.workloads.arrivals import LE_MS, arrive, rate_now, sine_q
from fleetsim.workloads.requests import answer_ns, come_up, finish, go_down, in_parallel, rest, take

MS = 1_000_000
S = 1000 * MS


class Queue:
    """One server on a host that does nothing else; time is moved by hand."""

    def __init__(self, *, workers: int = 1, rate: float = 0.0, queue: int = 1_000_000, timeout_s: float = 0.0, **more: int) -> None:
        self.records: Any = np.zeros(1, HOST)
        self.row = self.records[0]
        self.row["cpus"] = 64
        self.server = self.row["works"][0]["server"]
        self.server["used"] = 1
        self.server["workers"], self.server["queue_max"] = workers, queue
        self.server["rate"], self.server["timeout_ns"] = int(rate * 1000), int(timeout_s * S)
        for name, value in more.items():
            self.server[name] = value
        come_up(self.row, self.server)

    @property
    def now_s(self) -> float:
        return float(self.row["now_ns"]) / S

    def batch(self, at_s: float, cost_ms: float, most: int = 1_000_000, then_s: float = 1.0) -> int:
        """At that time serve what is there, `cost_ms` of waiting each, and mean to come back `then_s` later."""
        self.row["now_ns"] = max(int(at_s * S), int(self.row["now_ns"]))
        self.row["spent_ns"] = self.row["wait_ns"] = 0
        self.row["stall_ns"] = 0
        n = int(take(self.row, 0, self.server, most))
        if n:
            self.row["wait_ns"] = int(n * cost_ms * MS)
            in_parallel(self.row, self.server)
            finish(self.row, 0, self.server)
        rest(self.row, 0, self.server, int(then_s * S))
        self.row["now_ns"] += self.row["spent_ns"] + self.row["wait_ns"]
        return n

    def lost(self) -> int:
        return int(self.server["refused"] + self.server["timed_out"] + self.server["broken"])

    def mean_ms(self) -> float:
        return float(self.server["latency_sum_us"]) / 1000 / max(1, int(self.server["buckets"].sum()))


def test_a_hundred_a_second_are_a_thousand_in_ten_seconds_however_often_somebody_looks() -> None:
    for looks in (1, 7, 1000):
        queue = Queue(rate=100)
        for k in range(1, looks + 1):
            queue.row["now_ns"] = k * 10 * S // looks
            arrive(queue.row, queue.server)
        assert int(queue.server["arrived"]) == pytest.approx(1000, abs=1)


def test_a_day_has_its_peak_and_its_quietest_hour() -> None:
    queue = Queue(rate=100, swing=50_000, period_ns=24 * 3600 * S, peak_ns=14 * 3600 * S)
    rates = {hour: int(rate_now(queue.server, hour * 3600 * S)) / 1000 for hour in range(24)}
    assert rates[14] == pytest.approx(150, rel=0.01)
    assert rates[2] == pytest.approx(50, rel=0.01)
    assert rates[20] == pytest.approx(100, abs=1)
    assert sum(rates.values()) / 24 == pytest.approx(100, rel=0.01)


@given(st.integers(-10_000, 10_000))
def test_the_integer_sine_is_a_sine(degrees: int) -> None:
    assert int(sine_q(degrees)) / 2**20 == pytest.approx(float(np.sin(np.radians(degrees))), abs=0.002)


def test_who_finds_the_workers_free_takes_his_service_time_whatever_the_batch() -> None:
    """200 a second on 8 workers at 10 ms each: a quarter busy. Batches a second apart must not look like a second of waiting."""
    queue = Queue(workers=8, rate=200)
    for second in range(1, 61):
        queue.batch(second, cost_ms=10)
    assert int(queue.server["served"]) == pytest.approx(60 * 200, abs=400)
    assert queue.mean_ms() == pytest.approx(10, rel=0.05)
    assert int(queue.server["buckets"][LE_MS.index(25) + 1 :].sum()) == 0
    assert queue.lost() == 0


def test_a_pause_makes_everybody_wait_who_comes_in_it() -> None:
    """Ten seconds in which nothing is served: half of the thousand that came waited more than five, then the backlog is worked off."""
    queue = Queue(workers=10, rate=100)
    for second in range(1, 11):
        queue.batch(second, cost_ms=10)
    before = int(queue.server["buckets"].sum())
    queue.row["now_ns"] += 10 * S  # nobody runs
    for k in range(80):
        queue.batch(queue.now_s + 0.125, cost_ms=10, then_s=0.125)
        assert int(queue.server["arrived"]) == int(queue.server["served"]) + int(queue.server["backlog"]), k
    waited = queue.server["buckets"]
    assert int(waited[LE_MS.index(5000) + 1 :].sum()) == pytest.approx(500, rel=0.1), "those of the first five seconds"
    assert int(waited.sum()) - before > 1900


@pytest.mark.parametrize("late_ms", [0.000001, 5.0, 200.0])
def test_a_delay_of_a_batch_delays_those_who_come_in_it_and_nobody_else(late_ms: float) -> None:
    """Batches a second apart, each begun late: who came before that had found a free worker."""
    queue = Queue(workers=8, rate=1000)
    for second in range(1, 31):
        while queue.batch(second + late_ms / 1000, cost_ms=0.1, then_s=0) and int(queue.server["held_ns"]):
            pass
        queue.server["wake_ns"] = (second + 1) * S
    served, slow = int(queue.server["served"]), int(queue.server["buckets"][LE_MS.index(10) :].sum())
    assert served > 28_000
    assert slow / served == pytest.approx(max(0, late_ms - 5) / 1000, abs=0.02)
    assert queue.lost() == 0


def test_of_a_batch_in_which_some_waited_for_a_disk_only_those_are_slow() -> None:
    queue = Queue(workers=4, rate=100)
    queue.row["now_ns"] = S
    n = int(take(queue.row, 0, queue.server, 1000))
    queue.row["tasks"][0]["majflt"] += 5
    queue.row["spent_ns"], queue.row["wait_ns"], queue.row["stall_ns"][1] = n * MS, 5 * 400 * MS, 5 * 400 * MS
    in_parallel(queue.row, queue.server)
    finish(queue.row, 0, queue.server)
    buckets = queue.server["buckets"]
    assert int(buckets[LE_MS.index(100) :].sum()) == 5
    assert int(buckets[: LE_MS.index(25)].sum()) == n - 5


def test_a_full_queue_refuses_and_a_quiet_one_does_not() -> None:
    queue = Queue(workers=1, rate=100, queue=50)
    for second in range(1, 11):
        queue.batch(second, cost_ms=5)
    assert int(queue.server["refused"]) == 0, "half busy: nobody queues, though a second's requests are done in one go"
    for _ in range(20):
        queue.batch(queue.now_s, cost_ms=20, most=25, then_s=0)
    assert int(queue.server["refused"]) > 0, "twice as much as it can do"
    assert int(queue.server["present"]) <= 51


@pytest.mark.parametrize(("cancels", "done_after_s"), [(0, 55), (1, 1)])
def test_a_server_that_does_not_notice_when_clients_go_away_works_for_nothing_long_after(cancels: int, done_after_s: int) -> None:
    """Twice the load that it can serve for a minute, clients with a timeout of a second: first come first served answers hardly any of
    them. One that drops the requests of who went away is well again at once, the other has another minute's work to do for nobody."""
    queue = Queue(workers=1, rate=100, timeout_s=1, cancels=cancels)
    queue.row["now_ns"] = 100 * MS
    while queue.now_s < 60:
        queue.batch(queue.now_s, cost_ms=20, most=10, then_s=0)
    assert int(queue.server["served"]) < 0.1 * int(queue.server["arrived"])
    assert int(queue.server["buckets"][LE_MS.index(1000) + 1 :].sum()) == 0, "an answer that nobody waits for is no answer"
    arrive(queue.row, queue.server)
    queue.server["rate"] = 0
    while queue.batch(queue.now_s, cost_ms=20, most=10, then_s=0):
        pass
    assert queue.now_s - 60 == pytest.approx(done_after_s, abs=8)


def test_a_process_that_dies_loses_what_it_had_and_refuses_until_it_is_back() -> None:
    queue = Queue(workers=1, rate=100)
    queue.row["now_ns"] = S
    go_down(queue.row, queue.server)
    assert int(queue.server["broken"]) == 100
    queue.row["now_ns"] = 3 * S
    come_up(queue.row, queue.server)
    assert int(queue.server["refused"]) == 200
    assert queue.batch(4, cost_ms=1) == 100


def test_an_answer_now_would_take_as_long_as_what_waits_before_it() -> None:
    queue = Queue(workers=10, rate=100)
    for second in range(1, 11):
        queue.batch(second, cost_ms=10)
    calm = int(answer_ns(queue.row, queue.server)) / MS
    assert calm == pytest.approx(10, abs=1)
    queue.row["now_ns"] += 9 * S - 100 * 10 * MS // 10  # it was to go on eight seconds ago
    assert int(answer_ns(queue.row, queue.server)) / S == pytest.approx(8, abs=0.2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0.1, 80), st.integers(1, 400)), min_size=1, max_size=25),
    st.integers(1, 20),
    st.floats(0, 500),
    st.sampled_from([0.0, 0.5, 5.0]),
    st.integers(0, 300),
    st.integers(0, 1),
)
def test_no_request_is_lost_or_doubled(steps: list[Any], workers: int, rate: float, timeout: float, room: int, cancels: int) -> None:
    queue = Queue(workers=workers, rate=rate, timeout_s=timeout, queue=room, cancels=cancels)
    for pause, cost, most in steps:
        queue.batch(queue.now_s + pause, cost_ms=cost, most=most, then_s=0.5)
        server = queue.server
        assert int(server["arrived"]) == int(server["served"]) + queue.lost() + int(server["backlog"])
        assert int(server["buckets"].sum()) == int(server["served"])
        assert int(server["backlog"]) >= 0
        assert int(server["oldest_ns"]) <= int(queue.row["now_ns"])
