# SPDX-License-Identifier: Apache-2.0
"""Services: replicas on many hosts behind a load balancer, which only acts between epochs.

    requests of the epoch = the load (more by the hour) + retries of what failed in the last one
                 ↓ shared out among the replicas that the balancer believes in
    hosts run alone for an epoch; their counters say what was answered, late, refused, given up
                 ↓
    endpoints · health checks · connections cut · retries · impacts on the service

Rules: in Kubernetes a replica is an endpoint while its pod is Ready; the balancer hears of a change a second late (status, EndpointSlice,
proxy). Of the endpoints one is taken out after `unhealthy` failed checks in a row and back after `healthy` good ones; a new one needs
one. Without a healthy endpoint all endpoints are tried as if they were well (`panic`), or everything fails; without any
endpoint everything fails. Who is taken out gets nothing new and finishes what it has, for `drain` at most: then its
connections are cut. A client tries again at once, `retries` times, as far as the `retry_budget` allows.
What fails for good, or is late, counts for the service; an impact opens and closes as those of a single server do. A run begins
with a service that was running already: its users come once every replica has answered a first time, or after two minutes.
Source: the terms and defaults are those of Kubernetes (endpoints), Envoy (outlier and health checking, retry budgets, panic threshold)
and HAProxy (a server that is taken out keeps its sessions, unless `shutdown-sessions` says otherwise: `drain`).
Leaves out: endpoints that are terminating but still serving, which kube-proxy takes when there are no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.containers.load import Load
from fleetsim.fleet.connections import Connections
from fleetsim.host.spec import Command, Event
from fleetsim.units import NS_PER_S
from fleetsim.workloads.arrivals import COUNTERS, sine_q

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
class Endpoint:
    """A pod of a Deployment, as a service sees it: (host, the process that serves). `leaving`: it was deleted or has failed."""

    replica: tuple[str, str]
    leaving: bool


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
    deployment: str = ""  # the Deployment whose pods its replicas are: they come and go
    drain_ns: int | None = None  # None: connections to who was taken out are never cut
    connections: int = 0  # long-lived connections that carry the requests; 0: every request is balanced by itself
    connection_age_ns: int = 0  # … and their greatest age; 0: none
    later: tuple[tuple[int, Load], ...] = ()  # (from that instant on, this load): a what-if

    def load_from(self, t_ns: int) -> Load:
        """The load that holds in the epoch that begins then."""
        return ([self.load] + [load for since_ns, load in self.later if since_ns <= t_ns])[-1]


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
    """What the balancer of one service knows. Arrays go by replica, in the order of `replicas`."""

    service: Service
    start_unix_ns: int
    before: NDArray[Any]  # ports of the replicas at the last look
    replicas: list[tuple[str, str]] = field(init=False)
    hosts: dict[str, None] = field(init=False)  # where it stands, or stood
    endpoint: NDArray[np.bool_] = field(init=False)  # as it was at the last look …
    told: NDArray[np.bool_] = field(init=False)  # … and as the balancer has heard of it
    healthy: NDArray[np.bool_] = field(init=False)
    streak: NDArray[np.int64] = field(init=False)  # checks in a row that say otherwise
    seen_up: NDArray[np.bool_] = field(init=False)  # it has answered before, so that being gone is a harm
    out_ns: NDArray[np.int64] = field(init=False)  # since when it is taken out; −1: it is not; −2: its connections were cut
    attempts: list[int] = field(init=False)  # micro-requests of the last epoch by how often they were tried before
    answered: int = 0  # requests since the last look at the objectives …
    late: int = 0
    unsent: int = 0  # micro-requests of the epoch that nobody could be sent
    failed: int = 0  # … and micro-requests that failed for good
    window_end_ns: int = WINDOW_NS
    begun: bool = False  # users have come
    open: set[str] = field(default_factory=set)
    away: NDArray[np.bool_] = field(init=False)  # its `unavailable` is open
    leaving: NDArray[np.bool_] = field(init=False)  # somebody takes it away on purpose: no harm
    cuts: list[Command] = field(default_factory=list)  # what is to be done on hosts

    def __post_init__(self) -> None:
        count = len(self.service.replicas)
        self.replicas = list(self.service.replicas)
        self.hosts = dict.fromkeys(host for host, _ in self.replicas)
        self.endpoint, self.told, self.healthy, self.seen_up, self.away, self.leaving = (np.zeros(count, dtype=bool) for _ in range(6))
        self.streak = np.zeros(count, dtype=np.int64)
        self.out_ns = np.full(count, -1, dtype=np.int64)
        self.attempts = [0] * (self.service.retries + 1)
        service = self.service
        self.connections = Connections(service.connections, service.connection_age_ns, service.balance == "least_requests")

    def look(self, ports: NDArray[Any], now_ns: int) -> list[Event]:
        """Take in what the replicas did up to `now_ns`; the events of the service."""
        delta = {name: int(ports[name].sum() - self.before[name].sum()) for name in COUNTERS}
        self.before = ports.copy()
        self.answered += delta["served"]
        self.late += delta["late"]
        self._fail(self.unsent + MICRO * (delta["refused"] + delta["timed_out"] + delta["broken"]))
        self.unsent = 0
        self.told, self.endpoint = self.endpoint, ports["endpoint"] > 0
        self._check_health(ports, now_ns)
        events = self._take_out(now_ns)
        if now_ns >= self.window_end_ns:
            events += self._measure(now_ns)
        return events

    def follow(self, pods: Sequence[Endpoint], now_ns: int) -> list[Event]:
        """The Deployment has other pods now; what is known of those that stay is kept."""
        replicas, leaving = [one.replica for one in pods], np.array([one.leaving for one in pods], dtype=bool)
        if replicas == self.replicas:
            self.leaving = leaving
            return []
        ended = [self._available(now_ns, k, True) for k in np.flatnonzero(self.away).tolist() if self.replicas[k] not in set(replicas)]
        at = {replica: k for k, replica in enumerate(self.replicas)}
        rows = np.array([at.get(replica, -1) for replica in replicas], dtype=np.int64)

        def moved(array: NDArray[Any], new: Any) -> NDArray[Any]:
            result = np.full(len(rows), new, dtype=array.dtype)
            result[rows >= 0] = array[rows[rows >= 0]]
            return result

        self.before = moved(self.before, np.zeros((), self.before.dtype))
        self.endpoint, self.told, self.healthy, self.seen_up, self.away = (
            moved(array, False) for array in (self.endpoint, self.told, self.healthy, self.seen_up, self.away)
        )
        self.streak, self.out_ns = moved(self.streak, 0), moved(self.out_ns, -1)
        self.replicas, self.leaving = replicas, leaving
        self.hosts |= dict.fromkeys(host for host, _ in replicas)
        return ended

    def rates(self, now_ns: int, epoch_ns: int) -> NDArray[np.int64]:
        """Requests per 1000 s for every replica in the epoch that begins now."""
        self.begun = self.begun or (bool(self.seen_up.all()) and len(self.seen_up) > 0) or now_ns >= FIRST_USERS_NS
        if not self.begun:
            return np.zeros(len(self.seen_up), dtype=np.int64)
        new = load_at(self.service.load_from(now_ns), now_ns + epoch_ns // 2, self.start_unix_ns)
        self.attempts[0] = new * epoch_ns // (NS_PER_S * 1000 // MICRO)
        self._keep_to_budget()
        weights = self._weights(epoch_ns)
        if not weights.any():  # nobody to send them to: they fail at once, and are tried again
            self.unsent = sum(self.attempts)
            return np.zeros(len(weights), dtype=np.int64)
        rate = sum(self.attempts) * NS_PER_S // epoch_ns // (MICRO // 1000)
        total = int(weights.sum())
        if rate * int(weights.max()) < 1 << 63:
            return rate * weights // total
        return np.array([rate * weight // total for weight in weights.tolist()], dtype=np.int64)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _taken_in(self) -> NDArray[np.bool_]:
        return self.told & self.healthy

    def _weights(self, epoch_ns: int) -> NDArray[np.int64]:
        believed = self._taken_in()
        if not believed.any() and self.service.panic:
            believed = self.told & self.seen_up
        if self.service.connections:
            taken_in = [replica for replica, yes in zip(self.replicas, believed.tolist(), strict=True) if yes]
            is_open = self.connections.settle(taken_in, epoch_ns)
            return np.array([is_open[replica] for replica in self.replicas], dtype=np.int64)
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

    def _check_health(self, ports: NDArray[Any], now_ns: int) -> None:
        """Each replica is checked at its own second of the period, a new one at once."""
        check = self.service.check
        period = max(1, check.every_ns // NS_PER_S)
        due = ((now_ns // NS_PER_S + np.arange(len(ports))) % period == 0) | ~self.seen_up
        good = (ports["ready"] > 0) & (ports["answer_ns"] <= check.timeout_ns)
        differs = due & (good != self.healthy)
        self.streak = np.where(due, np.where(differs, self.streak + 1, 0), self.streak)
        needed = np.where(self.healthy, check.unhealthy, np.where(self.seen_up, check.healthy, 1))
        turns = differs & (self.streak >= needed)
        self.healthy = self.healthy ^ turns
        self.streak[turns] = 0
        self.seen_up = self.seen_up | (self.healthy & self.told)

    def _take_out(self, now_ns: int) -> list[Event]:
        """Who is taken out and who is back; of who is out for long enough the connections are cut."""
        taken_in = self._taken_in()
        out = ~taken_in & self.seen_up
        self.out_ns[taken_in] = -1
        self.out_ns[out & (self.out_ns == -1)] = now_ns
        if self.service.drain_ns is not None:
            over = (self.out_ns >= 0) & (self.out_ns <= now_ns - self.service.drain_ns)
            self.out_ns[over] = -2
            cut = [self.replicas[k] for k in np.flatnonzero(over).tolist()]
            self.cuts += [Command(now_ns, host, "cut", {"task": task}, "balancer") for host, task in cut]
        changes = (taken_in & self.away) | (out & ~self.away & ~self.leaving)
        return [self._available(now_ns, k, bool(taken_in[k])) for k in np.flatnonzero(changes).tolist()]

    def _available(self, now_ns: int, k: int, yes: bool) -> Event:
        self.away[k] = not yes
        host, task = self.replicas[k]
        data = {"impact": "unavailable", "service": self.service.name}
        return self._event(now_ns, "impact_end" if yes else "impact_start", task, data, host)

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
        data = {"impact": impact, "service": self.service.name, "hosts": list(self.hosts)}
        return [self._event(now_ns, "impact_start" if is_open else "impact_end", self.service.name, data)]

    def _event(self, now_ns: int, kind: str, subject: str, data: dict[str, Any], host: str = "") -> Event:
        return Event(now_ns, host, 0, kind, subject, data)


class Balancers:
    """All services of a plan, epoch by epoch."""

    def __init__(self, services: Sequence[Service], ports: NDArray[Any], start_unix_ns: int) -> None:
        self._states: list[ServiceState] = []
        first = 0
        for service in services:
            self._states.append(ServiceState(service, start_unix_ns, ports[first : first + len(service.replicas)].copy()))
            first += len(service.replicas)
        self._seq = FIRST_SEQ
        self._late: list[Event] = []  # to be told at the next look

    @property
    def replicas(self) -> list[tuple[str, str]]:
        """(host, task) of all, in the order of `rates` and of the ports."""
        return [replica for state in self._states for replica in state.replicas]

    def replan(self, services: Sequence[Service]) -> None:
        """These are the services from now on: the same replicas, another load to come."""
        for state, service in zip(self._states, services, strict=True):
            state.service = service

    def look(self, ports: NDArray[Any], now_ns: int) -> list[Event]:
        """The services' own events."""
        events, self._late = self._late, []
        first = 0
        for state in self._states:
            part = slice(first, first + len(state.replicas))
            events += state.look(ports[part], now_ns)
            first = part.stop
        numbered = [replace(event, seq=self._seq + number) for number, event in enumerate(events)]
        self._seq += len(events)
        return numbered

    def follow(self, pods: Mapping[str, Sequence[Endpoint]], now_ns: int) -> bool:
        """Deployments have changed: `pods` of each by its name. True: `replicas` are others now."""
        before = self.replicas
        for state in self._states:
            if state.service.deployment:
                self._late += state.follow(pods[state.service.deployment], now_ns)
        return self.replicas != before

    def commands(self) -> list[Command]:
        """Connections to be cut."""
        cuts = [command for state in self._states for command in state.cuts]
        for state in self._states:
            state.cuts = []
        return cuts

    def rates(self, now_ns: int, epoch_ns: int) -> NDArray[np.int64]:
        rates = [state.rates(now_ns, epoch_ns) for state in self._states]
        return np.concatenate(rates) if rates else np.zeros(0, dtype=np.int64)
