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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.fleet.checkpoint import Cut, check_cut, cut_of, shard_file
from fleetsim.fleet.engine import Places, Replica, in_order, replicas_of
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.shard_run import SampleSink, ShardPlan, ShardRun, series_ids
from fleetsim.fleet.state_file import read_state, write_state
from fleetsim.host.content import content_digest
from fleetsim.host.spec import Command, Event
from fleetsim.observe.catalog import Profile

HOSTS_PER_SHARD_MAX = 64
SHARDS_WISHED = 32  # enough for the threads of any one machine to share evenly


def shard_size(hosts: int) -> int:
    """Hosts per shard: small fleets are cut fine, so that every thread has work."""
    return max(1, min(HOSTS_PER_SHARD_MAX, -(-hosts // SHARDS_WISHED)))


def cut_evenly(hosts: int, size: int) -> Cut:
    return tuple((first, min(size, hosts - first)) for first in range(0, hosts, size))


class LocalEngine:
    def __init__(self, profile: Profile, sink: SampleSink, threads: int | None = None) -> None:
        self._profile, self._sink = profile, sink
        self._threads = threads or len(os.sched_getaffinity(0))
        self._pool: ThreadPoolExecutor | None = None
        self._shards: list[ShardRun] = []
        self._cut: Cut = ()
        self._at: dict[str, tuple[int, int]] = {}  # host → (its shard, its index there)
        self._places: Places
        self._busy = False  # in an advance, or left it by an exception

    def start(self, plan: Plan, checkpoint: Path | None = None) -> None:
        hosts = len(plan.hosts)
        self._cut = cut_evenly(hosts, shard_size(hosts)) if checkpoint is None else check_cut(cut_of(checkpoint), hosts, checkpoint)
        where = [(number, place) for number, (_, count) in enumerate(self._cut) for place in range(count)]
        self._at = {spec.name: at for spec, at in zip(plan.hosts, where, strict=True)}
        self._places = Places(replicas_of(plan), self._at, len(self._cut))
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="shard")
        ids = series_ids(plan, self._profile, self._sink)
        parts = ShardPlan.cut_all(plan, self._cut, ids)
        # The first shard alone: it compiles the laws (or finds them in the cache), and the others then only use them.
        head = [self._begin(parts[0], checkpoint)]
        self._shards = head + list(self._pool.map(lambda part: self._begin(part, checkpoint), parts[1:]))

    def _begin(self, part: ShardPlan, checkpoint: Path | None) -> ShardRun:
        run = ShardRun(part, self._profile, self._sink)
        if checkpoint is not None:
            state = read_state(checkpoint / shard_file(part.first, len(part.hosts)))
            run.resume(state["run"])
            if state["samples"] is not None:  # an engine wrote it whose shards write their own blocks
                self._sink.samples(*state["samples"]["waiting"])
        return run

    def advance(self, until_ns: int, commands: Sequence[Command], rates: NDArray[np.int64] | None = None) -> list[Event]:
        assert self._pool is not None, "start comes first"
        due: list[list[Command]] = [[] for _ in self._shards]
        for command in commands:
            due[self._at[command.host][0]].append(command)
        self._busy = True
        if rates is not None:
            for number, shard in enumerate(self._shards):
                shard.ports.send(self._places.part(number, rates))
        done = self._pool.map(lambda pair: pair[0].advance(until_ns, pair[1]), zip(self._shards, due, strict=True))
        events = in_order([event for events in done for event in events])
        self._busy = False
        return events

    def follow(self, replicas: Sequence[Replica]) -> None:
        self._places = Places(replicas, self._at, len(self._cut))
        for number, shard in enumerate(self._shards):
            shard.follow(self._places.replicas(number))

    def ports(self) -> NDArray[Any]:
        return self._places.together([shard.ports.read() for shard in self._shards])

    def checkpoint(self, folder: Path) -> None:
        assert self._pool is not None and not self._busy, "between two advances"

        def write(at: tuple[ShardRun, tuple[int, int]]) -> None:
            write_state(folder / shard_file(*at[1]), {"run": at[0].state(), "samples": None})

        list(self._pool.map(write, zip(self._shards, self._cut, strict=True)))

    def read(self, hosts: Sequence[str]) -> list[bytes]:
        return [self._shards[shard].record(place) for shard, place in (self._at[host] for host in hosts)]

    def digests(self) -> list[bytes]:
        assert self._pool is not None
        of_a_shard = self._pool.map(lambda shard: [content_digest(shard.record(i)) for i in range(len(shard.shard.names))], self._shards)
        return [digest for digests in of_a_shard for digest in digests]

    def slowest(self) -> str:
        return ""

    def stop(self) -> None:
        """Hand on the last samples and let the threads go. After a failure nobody waits for them: a law may still be compiling."""
        if not self._busy:
            for shard in self._shards:
                shard.drain()
        if self._pool is not None:
            self._pool.shutdown(wait=not self._busy, cancel_futures=True)
            self._pool = None
