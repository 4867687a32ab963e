# SPDX-License-Identifier: Apache-2.0
"""The local engine: this process, all cores. Laws release the GIL, so threads are enough; it starts at once.

Rules: hosts are cut into shards by their number alone, never by how many threads there are, and a shard is one thread's at a
time: any number of threads gives the same bits.
Leaves out: fleets larger than this machine's memory (that is what the Ray engine is for).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.fleet.engine import SampleSink, in_order
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.shard_run import ShardRun
from fleetsim.host.ports import PORT
from fleetsim.host.spec import Command, Event
from fleetsim.observe.catalog import Profile

HOSTS_PER_SHARD_MAX = 64
SHARDS_WISHED = 32  # enough for the threads of any one machine to share evenly


def shard_size(hosts: int) -> int:
    """Hosts per shard: small fleets are cut fine, so that every thread has work."""
    return max(1, min(HOSTS_PER_SHARD_MAX, -(-hosts // SHARDS_WISHED)))


class LocalEngine:
    def __init__(self, profile: Profile, sink: SampleSink, threads: int | None = None) -> None:
        self._profile, self._sink = profile, sink
        self._threads = threads or len(os.sched_getaffinity(0))
        self._pool: ThreadPoolExecutor | None = None
        self._shards: list[ShardRun] = []
        self._shard_of: dict[str, int] = {}
        self._host_at: dict[str, int] = {}
        self._places: list[NDArray[np.int64]] = []  # of each shard's replicas among all
        self._busy = False  # in an advance, or left it by an exception

    def start(self, plan: Plan) -> None:
        size = shard_size(len(plan.hosts))
        firsts = range(0, len(plan.hosts), size)
        for number, spec in enumerate(plan.hosts):
            self._shard_of[spec.name], self._host_at[spec.name] = divmod(number, size)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="shard")
        # The first shard alone: it compiles the laws (or finds them in the cache), and the others then only use them.
        head = [ShardRun(plan, 0, min(size, len(plan.hosts)), self._profile, self._sink)]
        rest = self._pool.map(
            lambda first: ShardRun(plan, first, min(size, len(plan.hosts) - first), self._profile, self._sink), firsts[1:]
        )
        self._shards = head + list(rest)
        self.follow([replica for service in plan.services for replica in service.replicas])

    def advance(self, until_ns: int, commands: Sequence[Command], rates: NDArray[np.int64] | None = None) -> list[Event]:
        assert self._pool is not None, "start comes first"
        due: list[list[Command]] = [[] for _ in self._shards]
        for command in commands:
            due[self._shard_of[command.host]].append(command)
        self._busy = True
        if rates is not None:
            for shard, places in zip(self._shards, self._places, strict=True):
                shard.ports.send(rates[places])
        done = self._pool.map(lambda pair: pair[0].advance(until_ns, pair[1]), zip(self._shards, due, strict=True))
        events = in_order([event for events in done for event in events])
        self._busy = False
        return events

    def follow(self, replicas: Sequence[tuple[str, str]]) -> None:
        shards = np.array([self._shard_of[host] for host, _ in replicas], dtype=np.int64)
        self._places = [np.flatnonzero(shards == number) for number in range(len(self._shards))]
        for shard, places in zip(self._shards, self._places, strict=True):
            shard.follow([replicas[place] for place in places.tolist()])

    def ports(self) -> NDArray[Any]:
        every = np.zeros(sum(len(places) for places in self._places), PORT)
        for shard, places in zip(self._shards, self._places, strict=True):
            if len(places):
                every[places] = shard.ports.read()
        return every

    def read(self, hosts: Sequence[str]) -> list[bytes]:
        return [self._shards[self._shard_of[host]].record(self._host_at[host]) for host in hosts]

    def stop(self) -> None:
        """Hand on the last samples and let the threads go. After a failure nobody waits for them: a law may still be compiling."""
        if not self._busy:
            for shard in self._shards:
                shard.drain()
        if self._pool is not None:
            self._pool.shutdown(wait=not self._busy, cancel_futures=True)
            self._pool = None
