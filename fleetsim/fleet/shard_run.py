# SPDX-License-Identifier: Apache-2.0
"""Some hosts of a plan, with the exporters that are scraped on them: what every engine runs, in a thread or in an actor.

Rules: a scrape sees its host at its own instant: the host is run up to the scrape's millisecond, read, and run on. Nothing here
depends on which other hosts share the shard. Samples wait in the scrapers and are handed on every few scrapes.
Leaves out: when to run and for how long (the engine says).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fleetsim.containers.kubelet import Kubelet
from fleetsim.fleet.engine import SampleSink
from fleetsim.fleet.plan import Plan
from fleetsim.host.ports import Ports
from fleetsim.host.shard import Shard
from fleetsim.host.spec import Command, Event
from fleetsim.observe.catalog import Profile
from fleetsim.observe.scrape import TargetScraper, schedule
from fleetsim.observe.targets import series_labels

NS_PER_MS = 1_000_000
DRAIN_SCRAPES = 8
"""A target's samples are handed on after this many scrapes: some 200 kB each at the full profile."""


class ShardRun:
    """Hosts `first` .. `first + count − 1` of the plan."""

    def __init__(self, plan: Plan, first: int, count: int, profile: Profile, sink: SampleSink) -> None:
        self.shard = Shard(plan.hosts[first : first + count], plan.seed, first, agent=Kubelet())
        self._number = {spec.name: number for number, spec in enumerate(plan.hosts[first : first + count])}
        self.follow([replica for service in plan.services for replica in service.replicas if replica[0] in self._number])
        self._sink = sink
        self._start_ms = plan.start_unix_s * 1000
        until_ms = self._start_ms + plan.duration_ns // NS_PER_MS + 1
        targets = plan.scrape_targets[first : first + count]
        self._scrapers = [TargetScraper(profile, target.host) for target in targets]
        self._times_ms: list[NDArray[np.int64]] = [
            schedule(target.key, plan.seed, self._start_ms, until_ms, plan.scrape_interval_ms) for target in targets
        ]
        self._ids: list[NDArray[np.int64]] = [
            np.array([sink.series(series_labels(s.name, dict(s.labels), target.labels)) for s in scraper.series], dtype=np.int64)
            for target, scraper in zip(targets, self._scrapers, strict=True)
        ]
        self._next = [0] * count
        self._waiting = [0] * count

    def follow(self, replicas: Sequence[tuple[str, str]]) -> None:
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
        while number < len(times_ms) and times_ms[number] <= last_ms:
            t_ms = int(times_ms[number])
            self.shard.advance(host, (t_ms - self._start_ms) * NS_PER_MS)
            self._scrapers[host].scrape(self.shard.records[host], t_ms)
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

    def record(self, host: int) -> bytes:
        return self.shard.records[host].tobytes()
