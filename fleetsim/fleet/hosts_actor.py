# SPDX-License-Identifier: Apache-2.0
"""What a Ray actor does: some shards of a fleet, moved on by one call per epoch. Nothing of Ray is known here.

    who()                 which machine and which fleetsim this is
    warm(part, profile)   compiles the laws, or finds them compiled
    begin(duty, states, calls)   boots the shards, brings them to their states, and does the calls made since then again
    advance(call)         one epoch                     save()  the shards' states            used()  what this process has taken
    finish()              the last samples are written   fetch(name)  a block that the driver cannot see

Rules: calls are numbered. The number that was done last gets its answer again (a reply can get lost), a number that does not follow
gets None: this process has been started anew and must `begin` first. So a call happens once, whatever dies.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fleetsim import __version__, law
from fleetsim.fleet.engine import Replica
from fleetsim.fleet.own_folder import OwnFolder
from fleetsim.fleet.shard_run import ShardPlan, ShardRun
from fleetsim.fleet.state_file import pack, sources_digest, unpack
from fleetsim.host.content import content_digest
from fleetsim.host.spec import Command, Event
from fleetsim.observe.catalog import Profile
from fleetsim.rundir.samples import BlockWriter, block_files


@dataclass(frozen=True)
class Duty:
    """What does not change while a run goes on."""

    parts: tuple[ShardPlan, ...]
    profile: Profile
    samples_folder: str  # of the run directory, if this machine can see it
    token: str  # content of the file `.token` there, by which that is known
    prefix: str  # of the names of the blocks of this stretch of the run
    block_rows: int


Follow = tuple[tuple[Replica, ...], ...]
"""The services' replicas of each shard."""


@dataclass(frozen=True)
class Call:
    """One epoch: for each shard its commands and the rates of its replicas; or, without `until_ns`, other replicas to follow.

    Rates are int64 as bytes, as ports are: a hundred small arrays pickle slowly.
    """

    number: int
    until_ns: int | None
    commands: tuple[tuple[Command, ...], ...]
    rates: tuple[bytes, ...] | None
    follow: Follow | None = None


def pack_call(call: Call) -> bytes:
    """A call as it is sent, and kept for an actor that must do it again: a balancer's rates are much alike, so it is small."""
    plain = pickle.dumps(call, pickle.HIGHEST_PROTOCOL)
    return len(plain).to_bytes(8, "little") + bytes(pa.compress(plain, codec="lz4", asbytes=True))


def unpack_call(sent: bytes) -> Call:
    size = int.from_bytes(sent[:8], "little")
    call: Call = pickle.loads(pa.decompress(memoryview(sent)[8:], decompressed_size=size, codec="lz4", asbytes=True))
    return call


@dataclass(frozen=True)
class Answer:
    events: list[Event]
    ports: list[bytes]  # of each shard, rows of host.ports.PORT
    busy_s: float  # how long the shards took


@dataclass(frozen=True)
class Used:
    """What a process has taken so far."""

    cpu_s: float
    writing_s: float  # wall time spent on blocks of samples
    rss_before: int  # bytes before it had hosts …
    rss: int  # … and now


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class HostsActor:
    def __init__(self) -> None:
        self._rss_before = 0
        pa.set_cpu_count(1)  # an actor is one core
        pa.set_io_thread_count(1)
        self._runs: list[ShardRun] = []
        self._writers: list[BlockWriter] = []
        self._folder = Path()
        self._own_folder: OwnFolder | None = None  # an actor is killed in the end, so the next one clears it away
        self._number = -1
        self._answer: Answer | None = None

    def who(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "version": __version__, "sources": sources_digest(), "size_class": law.size_class()}

    def warm(self, part: ShardPlan, profile: Profile) -> None:
        """Let one host live until it has been scraped: whoever comes next on this machine finds the laws in the cache."""

        class Nowhere:
            def samples(self, ids: Any, times_ms: Any, values: Any) -> None:
                pass

        run = ShardRun(part, profile, Nowhere())
        run.advance((part.scrape_interval_ms + 1000) * 1_000_000, ())
        run.ports.read()

    def begin(self, duty: Duty, states: Sequence[bytes], calls: Iterable[Call], number: int, follow: Follow | None = None) -> Answer:
        """Be where call `number` left the hosts: at their `states` (none: at boot), and on through `calls`.

        `follow`: the replicas at the time of the states, if they were no longer those of the plan.
        """
        self._number = -1
        self._rss_before = resident_bytes()
        self._choose_folder(duty)
        self._writers, self._runs = [], []
        for place, part in enumerate(duty.parts):
            writer = BlockWriter(self._folder, f"{duty.prefix}-{part.first:07d}-", duty.block_rows)
            run = ShardRun(part, duty.profile, writer)
            if states:
                state = unpack(states[place], Path(f"state of the hosts from {part.hosts[0].name} on"))
                run.resume(state["run"])
                if state["samples"] is not None:
                    writer.resume(state["samples"])
            if follow is not None:
                run.follow(follow[place])
            self._writers.append(writer)
            self._runs.append(run)
        answer = Answer([], self._ports(), 0.0)
        for call in calls:
            answer = self._do(call)
        self._number, self._answer = number, answer
        return answer

    def _choose_folder(self, duty: Duty) -> None:
        """The run directory's own folder where it is seen, else one of this machine's."""
        shared = Path(duty.samples_folder)
        try:
            seen = (shared / ".token").read_text(encoding="ascii") == duty.token
        except (OSError, UnicodeDecodeError):
            seen = False
        if not seen and self._own_folder is None:
            self._own_folder = OwnFolder("fleetsim-samples-")
        self._folder = shared if self._own_folder is None else self._own_folder.path

    def advance(self, call: Call) -> Answer | None:
        if call.number != self._number:
            if call.number != self._number + 1 or self._number < 0:
                return None
            self._answer = self._do(call)
            self._number = call.number
        return self._answer

    def _do(self, call: Call) -> Answer:
        began = time.perf_counter()
        events: list[Event] = []
        for place, run in enumerate(self._runs):
            if call.follow is not None:
                run.follow(call.follow[place])
            if call.until_ns is None:
                continue
            if call.rates is not None:
                run.ports.send(np.frombuffer(call.rates[place], np.int64))
            events += run.advance(call.until_ns, call.commands[place])
        return Answer(events, self._ports(), time.perf_counter() - began)

    def _ports(self) -> list[bytes]:
        return [run.ports.read().tobytes() for run in self._runs]

    def save(self, number: int) -> tuple[list[bytes], list[str]] | None:
        """The shards' states after call `number`, and the blocks that the driver must fetch."""
        if number != self._number:
            return None
        states = [
            pack({"run": run.state(), "samples": writer.state()})  # in this order: the run hands its last samples on
            for run, writer in zip(self._runs, self._writers, strict=True)
        ]
        return states, self._unseen()

    def finish(self, number: int) -> tuple[None, list[str]] | None:
        """Every sample is in a block; and the blocks that the driver must fetch."""
        if number != self._number:
            return None
        for run, writer in zip(self._runs, self._writers, strict=True):
            run.drain()
            writer.flush()
        return None, self._unseen()

    def _unseen(self) -> list[str]:
        return [] if self._own_folder is None else [file.name for file in block_files(self._folder)]

    def fetch(self, name: str) -> bytes | None:
        """A block; None: this process has been started anew and has none."""
        file = self._folder / name
        return file.read_bytes() if self._own_folder is not None and file.is_file() else None

    def forget(self, names: Sequence[str]) -> None:
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def used(self) -> Used:
        return Used(time.process_time(), sum(writer.writing_s for writer in self._writers), self._rss_before, resident_bytes())

    def records(self, number: int, hosts: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Records of hosts, given as (shard, index in it)."""
        if number != self._number:
            return None
        return [self._runs[shard].record(index) for shard, index in hosts]

    def digests(self, number: int) -> list[bytes] | None:
        """Of every host here, in order: what its record says."""
        if number != self._number:
            return None
        return [content_digest(run.record(index)) for run in self._runs for index in range(len(run.shard.names))]
