# SPDX-License-Identifier: Apache-2.0
"""Some hosts of a plan, with the exporters that are scraped on them: what every engine runs, in a thread or in an actor.

    part = ShardPlan.cut(plan, first, count, ids)      all that a shard needs to know of the plan, small enough to be sent about
    run = ShardRun(part, profile, sink)                boots the hosts
    run.resume(state)                                  … which go on from where `run.state()` was taken

Rules: a scrape sees its host at its own instant: the host is run up to the scrape's millisecond, read, and run on. Nothing here
depends on which other hosts share the shard. Samples wait in the scrapers and are handed on every few scrapes.
Leaves out: when to run and for how long (the engine says).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fleetsim.containers.kubelet import Kubelet
from fleetsim.fleet.engine import Replica, replicas_of
from fleetsim.fleet.plan import Plan
from fleetsim.host.ports import Ports
from fleetsim.host.shard import Shard
from fleetsim.host.spec import Command, Event, HostSpec
from fleetsim.observe.catalog import Profile
from fleetsim.observe.scrape import SCRATCH, TargetScraper, schedule
from fleetsim.observe.targets import ScrapeTarget, series_labels

NS_PER_MS = 1_000_000
DRAIN_SCRAPES = 8
"""A target's samples are handed on after this many scrapes: some 200 kB each at the full profile."""


class Samples(Protocol):
    """Where a shard's samples go; `rundir.samples.BlockWriter` is one."""

    def samples(self, ids: NDArray[np.int64], times_ms: NDArray[np.int64], values: NDArray[np.float64]) -> None: ...


class SampleSink(Samples, Protocol):
    """… with the table of the series; `rundir.writer.RunWriter` is one."""

    def series(self, labels: Mapping[str, str]) -> int: ...


def series_ids(plan: Plan, profile: Profile, sink: SampleSink) -> list[NDArray[np.int64]]:
    """The sink's ids of every host's series, asked for in the order of the hosts: the same whenever the run goes on."""
    pages = [(TargetScraper(profile, target.host).series, target.labels) for target in plan.scrape_targets]
    return [np.array([sink.series(series_labels(s.name, dict(s.labels), labels)) for s in page], np.int64) for page, labels in pages]


@dataclass(frozen=True)
class ShardPlan:
    """Hosts `first` … of a plan. `replicas`: of the services, as they are at first; `ids`: of each host's series."""

    first: int
    seed: int
    hosts: tuple[HostSpec, ...]
    targets: tuple[ScrapeTarget, ...]
    replicas: tuple[Replica, ...]
    ids: tuple[NDArray[np.int64], ...]
    start_ms: int
    duration_ns: int
    scrape_interval_ms: int

    @staticmethod
    def cut(plan: Plan, first: int, count: int, ids: Sequence[NDArray[np.int64]]) -> ShardPlan:
        return ShardPlan.cut_all(plan, [(first, count)], ids)[0]

    @staticmethod
    def cut_all(plan: Plan, cut: Sequence[tuple[int, int]], ids: Sequence[NDArray[np.int64]]) -> list[ShardPlan]:
        """The shards of (first host, number of hosts) each; the replicas are gone through once for all of them."""
        shard_of = {spec.name: shard for shard, (first, count) in enumerate(cut) for spec in plan.hosts[first : first + count]}
        replicas: list[list[Replica]] = [[] for _ in cut]
        for replica in replicas_of(plan):
            if (shard := shard_of.get(replica[0])) is not None:
                replicas[shard].append(replica)
        return [
            ShardPlan(
                first=first,
                seed=plan.seed,
                hosts=plan.hosts[first : first + count],
                targets=plan.scrape_targets[first : first + count],
                replicas=tuple(mine),
                ids=tuple(ids[first : first + count]),
                start_ms=plan.start_unix_s * 1000,
                duration_ns=plan.duration_ns,
                scrape_interval_ms=plan.scrape_interval_ms,
            )
            for (first, count), mine in zip(cut, replicas, strict=True)
        ]


class ShardRun:
    def __init__(self, part: ShardPlan, profile: Profile, sink: Samples) -> None:
        count = len(part.hosts)
        self.shard = Shard(part.hosts, part.seed, part.first, agent=Kubelet())
        self._number = {spec.name: number for number, spec in enumerate(part.hosts)}
        self._replicas = part.replicas
        self.follow(part.replicas)
        self._sink, self._ids = sink, part.ids
        self._start_ms = part.start_ms
        until_ms = part.start_ms + part.duration_ns // NS_PER_MS + 1
        scratch = np.zeros(1, SCRATCH)
        self._scrapers = [
            TargetScraper(profile, target.host, room=DRAIN_SCRAPES * len(ids), scratch=scratch)
            for target, ids in zip(part.targets, part.ids, strict=True)
        ]
        self._times_ms: list[NDArray[np.int64]] = [
            schedule(target.key, part.seed, part.start_ms, until_ms, part.scrape_interval_ms) for target in part.targets
        ]
        self._next = [0] * count
        self._waiting = [0] * count

    def follow(self, replicas: Sequence[Replica]) -> None:
        """The services' replicas among its hosts, (host, task) of each: `ports` are theirs, in this order."""
        names = [self.shard.names_of(i) for i in range(len(self._number))]
        self.ports = Ports(self.shard.records, names, [(self._number[host], task) for host, task in replicas])

    def advance(self, until_ns: int, commands: Sequence[Command]) -> list[Event]:
        for command in commands:
            self.shard.command(command)
        for host in range(len(self._next)):
            self._advance_host(host, until_ns)
        return self.shard.drain_events()

    def _advance_host(self, host: int, until_ns: int) -> None:
        times_ms, number = self._times_ms[host], self._next[host]
        last_ms = self._start_ms + until_ns // NS_PER_MS
        rows = self.shard.records[host : host + 1]
        while number < len(times_ms) and times_ms[number] <= last_ms:
            t_ms = int(times_ms[number])
            self.shard.advance(host, (t_ms - self._start_ms) * NS_PER_MS)
            self._scrapers[host].scrape(rows, t_ms)
            number += 1
            self._waiting[host] += 1
            if self._waiting[host] >= DRAIN_SCRAPES:
                self._drain(host)
        self._next[host] = number
        self.shard.advance(host, until_ns)

    def _drain(self, host: int) -> None:
        position, t_ms, values = self._scrapers[host].drain()
        self._waiting[host] = 0
        if len(position):
            self._sink.samples(self._ids[host][position], t_ms, values)

    def drain(self) -> None:
        """Hand on every sample that still waits."""
        for host in range(len(self._next)):
            self._drain(host)

    def state(self) -> dict[str, Any]:
        """All that the hosts and their scrapers know, between two advances; no sample waits afterwards."""
        self.drain()
        return {"shard": self.shard.state(), "scrapers": [one.snapshot() for one in self._scrapers], "next": list(self._next)}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; whom to follow is not in it, as that is the control plane's to say."""
        self.shard.resume(state["shard"])
        self.follow(self._replicas)
        for scraper, seen in zip(self._scrapers, state["scrapers"], strict=True):
            scraper.restore(seen)
        self._next = list(state["next"])

    def record(self, host: int) -> bytes:
        return self.shard.records[host].tobytes()
