# SPDX-License-Identifier: Apache-2.0
"""A load balancer between epochs: who gets requests, who is taken out, what is tried again, and what the service's users feel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetsim.containers.load import Load
from fleetsim.fleet.services import Balancers, Endpoint, HealthCheck, Service
from fleetsim.host.ports import PORT
from fleetsim.workloads.arrivals import COUNTERS

S = 10**9
MS = 10**6


class Replicas:
    """Replicas made of a few numbers: what each can answer a second; `down` ones refuse, `slow` ones answer health checks late."""

    def __init__(self, count: int = 3, load: str = "300/s", capacity: int = 1000, **more: Any) -> None:
        self.service = Service("shop", tuple((f"h{i}", "web") for i in range(count)), Load.model_validate(load), **more)
        self.ports = np.zeros(count, PORT)
        self.ports["ready"] = self.ports["endpoint"] = 1
        self.ports["answer_ns"] = 10 * MS
        self.capacity = np.full(count, capacity)
        self.balancers = Balancers([self.service], self.ports, 0)
        self.now = 0
        self.events: list[Any] = []
        self.rates: list[list[int]] = []
        self.cuts: list[tuple[int, str, Any]] = []

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
            self.cuts += [(self.now, c.host, c.args["task"]) for c in self.balancers.commands() if c.kind == "cut"]
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


# --- who is taken out, and what becomes of what it has ----------------------------------------------------------------------


def test_a_pod_that_is_not_ready_gets_nothing_a_second_later_whatever_its_health_checks_say() -> None:
    replicas = Replicas().run(20)
    replicas.ports["endpoint"][1] = 0
    replicas.run(3)
    assert replicas.rates[-3:] == [[100, 100, 100], [100, 100, 100], [150, 0, 150]], "one look until it is seen, one until it is heard of"
    assert replicas.told() == [(22, "h1", "start", "unavailable")]
    replicas.ports["endpoint"][1] = 1
    replicas.run(3)
    assert replicas.rates[-1] == [100, 100, 100] and replicas.told()[1:] == [(25, "h1", "end", "unavailable")]


def test_without_any_endpoint_everything_fails_panic_or_not() -> None:
    """Kubernetes' answer is a connection refused (or 503): there is nobody to try, other than with endpoints that fail their checks."""
    replicas = Replicas(panic=True).run(20)
    replicas.ports["endpoint"][:] = 0
    replicas.run(20)
    assert replicas.rates[-1] == [0, 0, 0]
    assert ("", "start", "errors") in [told[1:] for told in replicas.told()]


@pytest.mark.parametrize(("drain_s", "cut_s"), [(None, None), (0, 22), (5, 27)])
def test_connections_of_who_is_taken_out_are_cut_when_it_had_its_time_to_finish(drain_s: int | None, cut_s: int | None) -> None:
    replicas = Replicas(drain_ns=None if drain_s is None else drain_s * S).run(20)
    replicas.ports["endpoint"][1] = 0
    replicas.run(40)
    assert replicas.cuts == ([] if cut_s is None else [(cut_s, "h1", "web")]), "once"
    replicas.ports["endpoint"][1] = 1
    replicas.run(10)
    replicas.ports["ready"][1] = 0
    replicas.run(60)
    assert len(replicas.cuts) == (0 if cut_s is None else 2), "and again when it is taken out again, here for failed checks"


def test_who_is_back_before_its_time_is_over_keeps_its_connections() -> None:
    replicas = Replicas(drain_ns=10 * S).run(20)
    replicas.ports["endpoint"][1] = 0
    replicas.run(9)
    replicas.ports["endpoint"][1] = 1
    replicas.run(30)
    assert replicas.cuts == []


def pods(*names: str, leaving: tuple[str, ...] = ()) -> dict[str, list[Endpoint]]:
    return {"shop": [Endpoint((f"h{name}", "web"), name in leaving) for name in names]}


def test_pods_that_come_are_used_as_soon_as_they_answer_and_those_that_are_deleted_do_no_harm() -> None:
    replicas = Replicas(deployment="shop").run(20)
    assert not replicas.balancers.follow(pods("0", "1", "2"), 20 * S), "the same ones"
    assert replicas.balancers.follow(pods("0", "1", "2", "3", leaving=("1",)), 20 * S)
    replicas.ports = np.append(replicas.ports, np.zeros(1, PORT))
    replicas.capacity = np.append(replicas.capacity, 1000)
    replicas.ports["endpoint"][1] = 0
    replicas.run(3)
    assert replicas.rates[-1] == [150, 0, 150, 0]
    replicas.ports[3] = replicas.ports[0]
    for counter in COUNTERS:
        replicas.ports[3][counter] = 0
    replicas.run(3)
    assert replicas.rates[-1] == [100, 0, 100, 100], "its first good check is enough, and comes at once"
    assert replicas.balancers.follow(pods("0", "2", "3"), 26 * S)
    replicas.ports, replicas.capacity = np.delete(replicas.ports, 1), np.delete(replicas.capacity, 1)
    replicas.run(3)
    assert replicas.rates[-1] == [100, 100, 100]
    assert replicas.told() == []


def test_the_harm_of_a_replica_ends_when_another_takes_its_place() -> None:
    replicas = Replicas(deployment="shop").run(20)
    replicas.ports["endpoint"][1] = 0
    replicas.run(5)
    replicas.balancers.follow(pods("0", "2"), 25 * S)
    replicas.ports, replicas.capacity = np.delete(replicas.ports, 1), np.delete(replicas.capacity, 1)
    replicas.run(1)
    assert replicas.told() == [(22, "h1", "start", "unavailable"), (25, "h1", "end", "unavailable")]
    assert len({event.seq for event in replicas.events}) == 2


def test_clients_that_stay_on_their_connection_leave_a_replica_idle_that_comes_back() -> None:
    """Ten connections to three replicas; one is away for a while. gRPC's remedy is a greatest age of connections."""
    for age_s, idle in ((0, True), (60, False)):
        replicas = Replicas(connections=10, connection_age_ns=age_s * S, load="1000/s").run(20)
        assert sorted(replicas.rates[-1]) == [300, 300, 400]
        replicas.ports["endpoint"][1] = 0
        replicas.run(10)
        assert replicas.rates[-1][1] == 0 and sum(replicas.rates[-1]) == 1000
        replicas.ports["endpoint"][1] = 1
        replicas.run(120)
        assert (replicas.rates[-1][1] == 0) is idle
        assert idle or min(replicas.rates[-1]) >= 200


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["come", "delete", "go", "unready", "ready"]), st.integers(0, 5)), max_size=15), st.integers(0, 2)
)
def test_no_request_is_lost_or_doubled_while_pods_come_and_go(steps: list[tuple[str, int]], retries: int) -> None:
    replicas = Replicas(deployment="shop", retries=retries, capacity=200, drain_ns=2 * S)
    (state,) = replicas.balancers._states
    names, deleted, made, lost = ["0", "1", "2"], set[str](), 3, 0.0
    for what, which in [("ready", 0)] * 8 + steps:
        at = which % len(names) if names else -1
        if what == "come":
            names.append(str(made))
            made += 1
            row = np.zeros(1, PORT)
            row["ready"] = row["endpoint"] = 1
            replicas.ports, replicas.capacity = np.append(replicas.ports, row), np.append(replicas.capacity, 200)
        elif names and what == "go":
            deleted.discard(names.pop(at))
            replicas.ports, replicas.capacity = np.delete(replicas.ports, at), np.delete(replicas.capacity, at)
        elif names and what == "delete":
            deleted.add(names[at])
            replicas.ports["endpoint"][at] = replicas.ports["ready"][at] = 0
        elif names:
            replicas.ports["endpoint"][at] = what == "ready"
        replicas.balancers.follow(pods(*names, leaving=tuple(deleted)), replicas.now * S)
        assert [host for host, _ in replicas.balancers.replicas] == [f"h{name}" for name in names]
        before = int(replicas.ports["served"].sum())
        state.window_end_ns, state.failed = (replicas.now + 10) * S, 0  # nothing is measured and forgotten
        replicas.run(1)
        lost += (300 if state.begun else 0) - (int(replicas.ports["served"].sum()) - before) - state.failed / 1e6
        assert lost == pytest.approx(sum(state.attempts[1:]) / 1e6, abs=3 + 8 * replicas.now), "the roundings of each second"
    open_now = {replica for replica, away in zip(state.replicas, state.away.tolist(), strict=True) if away}
    told = [(e.host, e.kind) for e in replicas.events if e.data["impact"] == "unavailable"]
    for host in {host for host, _ in told}:
        mine = [kind for one, kind in told if one == host]
        assert mine == ["impact_start", "impact_end"] * (len(mine) // 2) + ["impact_start"] * (len(mine) % 2)
        assert len(mine) % 2 == ((host, "web") in open_now) or (host, "web") not in replicas.balancers.replicas
