# SPDX-License-Identifier: Apache-2.0
"""A load balancer between epochs: who gets requests, who is taken out, what is tried again, and what the service's users feel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetsim.containers.load import Load
from fleetsim.fleet.services import Balancers, HealthCheck, Service
from fleetsim.host.ports import PORT

S = 10**9
MS = 10**6


class Replicas:
    """Replicas made of a few numbers: what each can answer a second; `down` ones refuse, `slow` ones answer health checks late."""

    def __init__(self, count: int = 3, load: str = "300/s", capacity: int = 1000, **more: Any) -> None:
        self.service = Service("shop", tuple((f"h{i}", "web") for i in range(count)), Load.model_validate(load), **more)
        self.ports = np.zeros(count, PORT)
        self.ports["ready"] = 1
        self.ports["answer_ns"] = 10 * MS
        self.capacity = np.full(count, capacity)
        self.balancers = Balancers([self.service], self.ports, 0)
        self.now = 0
        self.events: list[Any] = []
        self.rates: list[list[int]] = []

    def run(self, seconds: int) -> Replicas:
        for _ in range(seconds):
            rates = self.balancers.rates(self.now * S, S)
            self.rates.append((rates // 1000).tolist())
            self.now += 1
            arrived = rates // 1000
            answered = np.where(self.ports["ready"] > 0, np.minimum(arrived, self.capacity), 0)
            self.ports["arrived"] += arrived
            self.ports["served"] += answered
            self.ports["refused"] += arrived - answered
            self.events += self.balancers.look(self.ports, self.now * S)
        return self

    def told(self) -> list[tuple[float, str, str, str]]:
        return [(e.t_ns / S, e.host, e.kind.removeprefix("impact_"), str(e.data["impact"])) for e in self.events]


def test_users_come_when_every_replica_has_answered_and_are_shared_out_evenly() -> None:
    replicas = Replicas().run(30)
    first = next(k for k, rates in enumerate(replicas.rates) if any(rates))
    assert first <= 6
    assert replicas.rates[first:] == [[100, 100, 100]] * (30 - first)
    assert replicas.told() == []


def test_a_replica_that_never_answers_keeps_users_away_for_two_minutes_at_most() -> None:
    replicas = Replicas()
    replicas.ports["ready"][0] = 0
    replicas.run(130)
    assert not any(replicas.rates[119])
    assert replicas.rates[121] == [0, 150, 150]


def test_after_three_failed_checks_a_replica_gets_nothing_and_after_two_good_ones_again() -> None:
    replicas = Replicas(check=HealthCheck(every_ns=5 * S)).run(20)
    replicas.ports["ready"][1] = 0
    replicas.run(40)
    ((down, host, kind, impact),) = [told for told in replicas.told() if told[1]]
    assert (host, kind, impact) == ("h1", "start", "unavailable")
    assert 20 + 2 * 5 < down <= 20 + 3 * 5
    assert replicas.rates[-1] == [150, 0, 150]
    replicas.ports["ready"][1] = 1
    replicas.run(20)
    up = next(told for told in replicas.told() if told[2:] == ("end", "unavailable"))[0]
    assert 60 + 5 < up <= 60 + 2 * 5
    assert replicas.rates[-1] == [100, 100, 100]


def test_a_replica_that_answers_too_late_is_as_good_as_none() -> None:
    replicas = Replicas(check=HealthCheck(every_ns=S, timeout_ns=500 * MS, unhealthy=3)).run(10)
    replicas.ports["answer_ns"][2] = 501 * MS
    replicas.run(5)
    assert replicas.rates[-1] == [150, 150, 0]


def test_least_requests_sends_more_to_who_has_less() -> None:
    replicas = Replicas(balance="least_requests", load="110/s")
    replicas.ports["present"] = (0, 0, 9)
    replicas.run(20)
    assert replicas.rates[-1] == [52, 52, 5]


def test_failed_requests_are_tried_again_as_often_as_the_client_does_and_the_budget_allows() -> None:
    """One of three is down and not yet found out: 100 of 300 fail; tried again they fail with a third, and so on."""
    for retries, budget, wanted in ((0, 1000, 300), (1, 1000, 400), (2, 1000, 433), (2, 200, 360)):
        replicas = Replicas(check=HealthCheck(unhealthy=1000), retries=retries, retry_budget_permille=budget).run(20)
        replicas.ports["ready"][0] = 0
        replicas.run(20)
        assert sum(replicas.rates[-1]) == pytest.approx(wanted, rel=0.05), (retries, budget)


def test_retries_multiply_what_an_overloaded_service_has_to_bear() -> None:
    """300 a second on replicas that answer 80 each: a fifth fails, and with two retries more than 380 come."""
    once, thrice = (Replicas(capacity=80, retries=n, retry_budget_permille=2000).run(60) for n in (0, 2))
    assert sum(once.rates[-1]) == 300
    assert sum(thrice.rates[-1]) > 400
    assert int(thrice.ports["served"].sum()) <= int(once.ports["served"].sum()) * 1.01, "and nobody is helped"


def test_with_nobody_healthy_all_are_tried_or_everything_fails() -> None:
    for panic in (True, False):
        replicas = Replicas(panic=panic, check=HealthCheck(every_ns=S)).run(10)
        replicas.ports["answer_ns"] = 10 * S
        replicas.run(25)
        assert replicas.rates[-1] == ([100, 100, 100] if panic else [0, 0, 0])
        failing = ("", "start", "errors") in [told[1:] for told in replicas.told()]
        assert failing is not panic


def test_what_fails_for_good_is_an_impact_on_the_service_wherever_it_stands_and_ends_when_it_ends() -> None:
    replicas = Replicas(check=HealthCheck(every_ns=2 * S)).run(30)
    replicas.ports["ready"][:] = 0
    replicas.run(20)
    replicas.ports["ready"][:] = 1
    replicas.run(60)
    service = [(t, kind, impact) for t, host, kind, impact in replicas.told() if not host]
    assert [(kind, impact) for _, kind, impact in service] == [("start", "errors"), ("end", "errors")]
    assert 30 < service[0][0] <= 40
    assert 50 < service[1][0] <= 80
    (start,) = [e for e in replicas.events if e.host == "" and e.kind == "impact_start"]
    assert start.data["hosts"] == ["h0", "h1", "h2"]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 400), st.integers(1, 15)), max_size=12),
    st.integers(0, 3),
    st.integers(0, 2000),
    st.booleans(),
)
def test_every_request_is_answered_or_has_failed_or_is_being_tried_again(
    changes: list[tuple[int, bool, int, int]], retries: int, budget: int, panic: bool
) -> None:
    replicas = Replicas(retries=retries, retry_budget_permille=budget, panic=panic)
    (state,) = replicas.balancers._states
    lost = 0.0
    for which, ready, capacity, seconds in [(0, True, 1000, 10), *changes]:
        replicas.ports["ready"][which] = ready
        replicas.capacity[which] = capacity
        for _ in range(seconds):
            before = int(replicas.ports["served"].sum())
            state.window_end_ns = (replicas.now + 10) * S  # nothing is measured and forgotten
            state.failed = 0
            replicas.run(1)
            new = 300 if state.begun else 0
            served = int(replicas.ports["served"].sum()) - before
            lost += new - served - state.failed / 1e6
            assert lost == pytest.approx(sum(state.attempts[1:]) / 1e6, abs=3 + 3 * replicas.now), "the roundings of each second"
            assert sum(state.attempts[1:]) <= state.attempts[0] * max(budget, 1000 * retries) // 1000 + 1
