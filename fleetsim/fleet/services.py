# SPDX-License-Identifier: Apache-2.0
"""Services: replicas on many hosts behind a load balancer, which only acts between epochs.

    requests of the epoch = the load (more by the hour) + retries of what failed in the last one
                 ↓ shared out among the replicas that the balancer believes in
    hosts run alone for an epoch; their counters say what was answered, late, refused, given up
                 ↓
    health checks · retries · impacts on the service

Rules: a replica is taken out after `unhealthy` failed checks in a row and back after `healthy` good ones; without any it is tried as if
all were well (`panic`), or everything fails. A client tries again at once, `retries` times, as far as the `retry_budget` allows.
What fails for good, or is late, counts for the service; an impact opens and closes as those of a single server do. A run begins
with a service that was running already: its users come once every replica has answered a first time, or after two minutes.
Source: the terms and defaults are those of Envoy (outlier and health checking, retry budgets, panic threshold) and HAProxy.
Leaves out: connections, so also their draining one by one: a replica that is drained gets nothing new and answers what it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.containers.load import Load
from fleetsim.host.ports import COUNTERS
from fleetsim.host.spec import Event
from fleetsim.units import NS_PER_S
from fleetsim.workloads.arrivals import sine_q

WINDOW_NS = 10 * NS_PER_S
ERRORS_PERMILLE = 10
FIRST_USERS_NS = 120 * NS_PER_S
FIRST_SEQ = 1 << 40  # of the events told here: after those of the host itself at the same instant
MICRO = 1_000_000  # requests are counted in millionths here: all arithmetic is on integers, so that it is the same everywhere


@dataclass(frozen=True)
class HealthCheck:
    """How the balancer finds out who can be sent requests."""

    every_ns: int = 5 * NS_PER_S
    timeout_ns: int = NS_PER_S
    unhealthy: int = 3
    healthy: int = 2


@dataclass(frozen=True)
class Service:
    """A planned service. `replicas`: (host, task) of each, in the order of the fleet."""

    name: str
    replicas: tuple[tuple[str, str], ...]
    load: Load
    balance: str = "round_robin"  # round_robin | least_requests
    check: HealthCheck = HealthCheck()
    retries: int = 0
    retry_budget_permille: int = 200  # retries per new request, at most
    panic: bool = True
    slo_permille: int = 10  # share of requests that may be late
    has_slo: bool = False


def load_at(load: Load, t_ns: int, start_unix_ns: int) -> int:
    """Requests per 1000 s of the whole service at an instant of the run."""
    if load.steps:
        return max((step for step in load.steps if step[0] <= t_ns), default=(0, 0))[1]
    if load.low == load.high:
        return load.low
    degrees = (start_unix_ns + t_ns - load.peak) % load.period * 360 // load.period + 90
    return (load.low + load.high) // 2 + ((load.high - load.low) // 2 * int(sine_q(degrees)) >> 20)


@dataclass
class ServiceState:
    """What the balancer of one service knows."""

    service: Service
    start_unix_ns: int
    before: NDArray[Any]  # ports of the replicas at the last look
    healthy: NDArray[np.bool_] = field(init=False)
    streak: NDArray[np.int64] = field(init=False)  # checks in a row that say otherwise
    seen_up: NDArray[np.bool_] = field(init=False)  # it has answered before, so that being gone is a harm
    attempts: list[int] = field(init=False)  # micro-requests of the last epoch by how often they were tried before
    answered: int = 0  # requests since the last look at the objectives …
    late: int = 0
    unsent: int = 0  # micro-requests of the epoch that nobody could be sent
    failed: int = 0  # … and micro-requests that failed for good
    window_end_ns: int = WINDOW_NS
    begun: bool = False  # users have come
    open: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        count = len(self.service.replicas)
        self.healthy = np.zeros(count, dtype=bool)
        self.streak = np.zeros(count, dtype=np.int64)
        self.seen_up = np.zeros(count, dtype=bool)
        self.attempts = [0] * (self.service.retries + 1)

    def look(self, ports: NDArray[Any], now_ns: int) -> list[Event]:
        """Take in what the replicas did up to `now_ns`; the events of the service."""
        delta = {name: int(ports[name].sum() - self.before[name].sum()) for name in COUNTERS}
        self.before = ports.copy()
        self.answered += delta["served"]
        self.late += delta["late"]
        self._fail(self.unsent + MICRO * (delta["refused"] + delta["timed_out"] + delta["broken"]))
        self.unsent = 0
        events = self._check_health(ports, now_ns)
        if now_ns >= self.window_end_ns:
            events += self._measure(now_ns)
        return events

    def rates(self, now_ns: int, epoch_ns: int) -> NDArray[np.int64]:
        """Requests per 1000 s for every replica in the epoch that begins now."""
        self.begun = self.begun or bool(self.seen_up.all()) or now_ns >= FIRST_USERS_NS
        if not self.begun:
            return np.zeros(len(self.seen_up), dtype=np.int64)
        new = load_at(self.service.load, now_ns + epoch_ns // 2, self.start_unix_ns)
        self.attempts[0] = new * epoch_ns // (NS_PER_S * 1000 // MICRO)
        self._keep_to_budget()
        weights = self._weights()
        if not weights.any():  # nobody to send them to: they fail at once, and are tried again
            self.unsent = sum(self.attempts)
            return np.zeros(len(weights), dtype=np.int64)
        rate = sum(self.attempts) * NS_PER_S // epoch_ns // (MICRO // 1000)
        total = int(weights.sum())
        if rate * int(weights.max()) < 1 << 63:
            return rate * weights // total
        return np.array([rate * weight // total for weight in weights.tolist()], dtype=np.int64)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _weights(self) -> NDArray[np.int64]:
        believed = self.healthy
        if not believed.any() and self.service.panic:
            believed = self.seen_up
        if self.service.balance == "least_requests":
            return np.where(believed, MICRO // (1 + self.before["present"].astype(np.int64)), 0)
        return believed.astype(np.int64)

    def _fail(self, failed: int) -> None:
        """So many micro-requests failed: who may tries again, the others have failed for good."""
        total = sum(self.attempts)
        by_try = [failed * count // total if total else 0 for count in self.attempts]
        self.failed += failed - sum(by_try[:-1])
        self.attempts[1:] = by_try[:-1]

    def _keep_to_budget(self) -> None:
        retries, most = sum(self.attempts[1:]), self.attempts[0] * self.service.retry_budget_permille // 1000
        if retries > most:
            self.failed += retries - most
            self.attempts[1:] = [count * most // retries for count in self.attempts[1:]]

    def _check_health(self, ports: NDArray[Any], now_ns: int) -> list[Event]:
        """Each replica is checked at its own second of the period."""
        check = self.service.check
        period = max(1, check.every_ns // NS_PER_S)
        due = (now_ns // NS_PER_S + np.arange(len(ports))) % period == 0
        good = (ports["ready"] > 0) & (ports["answer_ns"] <= check.timeout_ns)
        differs = due & (good != self.healthy)
        self.streak = np.where(due, np.where(differs, self.streak + 1, 0), self.streak)
        needed = np.where(self.healthy, check.unhealthy, np.where(self.seen_up, check.healthy, 1))
        turns = differs & (self.streak >= needed)
        events: list[Event] = []
        for i in np.flatnonzero(turns).tolist():
            self.healthy[i] = not self.healthy[i]
            self.streak[i] = 0
            host, task = self.service.replicas[i]
            up = bool(self.healthy[i])
            if up and not self.seen_up[i]:
                self.seen_up[i] = True
                continue
            data = {"impact": "unavailable", "service": self.service.name}
            events.append(self._event(now_ns, "impact_end" if up else "impact_start", task, data, host))
        return events

    def _measure(self, now_ns: int) -> list[Event]:
        self.window_end_ns += WINDOW_NS
        events: list[Event] = []
        if self.service.has_slo and self.answered > 0:
            events += self._set(now_ns, "latency", 1000 * self.late > self.service.slo_permille * self.answered)
        if self.answered * MICRO + self.failed >= MICRO:
            events += self._set(now_ns, "errors", 1000 * self.failed > ERRORS_PERMILLE * (self.answered * MICRO + self.failed))
        self.answered = self.late = self.failed = 0
        return events

    def _set(self, now_ns: int, impact: str, is_open: bool) -> list[Event]:
        if is_open == (impact in self.open):
            return []
        (self.open.add if is_open else self.open.discard)(impact)
        hosts = list(dict.fromkeys(host for host, _ in self.service.replicas))
        data = {"impact": impact, "service": self.service.name, "hosts": hosts}
        return [self._event(now_ns, "impact_start" if is_open else "impact_end", self.service.name, data)]

    def _event(self, now_ns: int, kind: str, subject: str, data: dict[str, Any], host: str = "") -> Event:
        return Event(now_ns, host, 0, kind, subject, data)


class Balancers:
    """All services of a plan, epoch by epoch."""

    def __init__(self, services: Sequence[Service], ports: NDArray[Any], start_unix_ns: int) -> None:
        self._states: list[ServiceState] = []
        self._parts: list[slice] = []
        first = 0
        for service in services:
            part = slice(first, first + len(service.replicas))
            self._states.append(ServiceState(service, start_unix_ns, ports[part].copy()))
            self._parts.append(part)
            first = part.stop
        self._count = first
        self._seq = FIRST_SEQ

    def look(self, ports: NDArray[Any], now_ns: int) -> list[Event]:
        """The services' own events."""
        events = [event for state, part in zip(self._states, self._parts, strict=True) for event in state.look(ports[part], now_ns)]
        numbered = [replace(event, seq=self._seq + number) for number, event in enumerate(events)]
        self._seq += len(events)
        return numbered

    def rates(self, now_ns: int, epoch_ns: int) -> NDArray[np.int64]:
        rates = np.zeros(self._count, dtype=np.int64)
        for state, part in zip(self._states, self._parts, strict=True):
            rates[part] = state.rates(now_ns, epoch_ns)
        return rates
