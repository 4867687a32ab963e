# SPDX-License-Identifier: Apache-2.0
"""The Ray engine with stand-ins for its actors, in this process: what the controller takes with as many actors as nobody has at hand.

Everything of `ray_engine.py` is as it is but for Ray: calls and answers are pickled as Ray would pickle them, each actor is an object of
this process that simulates nothing. It answers with its replicas' ports (all ready, all that was sent answered) and with the events that
a real host of the fleet starts with: it boots, its containers start and become ready.

Rules: the stand-ins' own time is counted apart (`apart_s`), pickling on the actor's side included, so that it can be taken off.
Leaves out: Ray's own time for a call, and the network's (docs/scaling.md has the first, measured); kills and leaks.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fleetsim.errors import ToolFailed
from fleetsim.fleet.hosts import pod_names
from fleetsim.fleet.hosts_actor import Answer, Call, Used, unpack_call
from fleetsim.fleet.ray_engine import RayEngine
from fleetsim.fleet.shard_run import ShardPlan
from fleetsim.host.ports import PORT
from fleetsim.host.spec import Event
from fleetsim.observe.catalog import Profile
from fleetsim.rundir.writer import RunWriter

READY_S = 2
"""After so many epochs the containers are ready."""


class StandInCluster:
    """As many actors as are asked for, and nothing to leave."""

    size_class = ""

    def __init__(self, actors: int) -> None:
        self._actors = actors

    def actors_for(self, hosts: int, hosts_per_actor: int | None) -> int:
        return min(hosts, self._actors)

    def leave(self) -> None:
        """Nothing was begun."""


class StandIn:
    """One actor's answers."""

    def __init__(self, parts: Sequence[ShardPlan]) -> None:
        self._hosts = [part.hosts for part in parts]
        self._ports = [np.zeros(len(part.replicas), PORT) for part in parts]
        self._epoch = 0

    def begin(self) -> Answer:
        return Answer([], [ports.tobytes() for ports in self._ports], 0.0)

    def advance(self, call: Call) -> Answer:
        if call.follow is not None:
            self._ports = [np.zeros(len(replicas), PORT) for replicas in call.follow]
        if call.until_ns is None:
            return self.begin()
        self._epoch += 1
        events = self._starts(call.until_ns) if self._epoch in (1, READY_S) else []
        for shard, ports in enumerate(self._ports):
            ports["ready"] = ports["endpoint"] = self._epoch >= READY_S
            if call.rates is not None:
                done = np.frombuffer(call.rates[shard], np.int64) // 1000
                ports["arrived"] += done
                ports["served"] += done
        return Answer(events, [ports.tobytes() for ports in self._ports], 0.0)

    def _starts(self, until_ns: int) -> list[Event]:
        """As real hosts do: `boot`, and `task_start` and `pod_ready` of every container."""
        first = self._epoch == 1
        events = []
        for hosts in self._hosts:
            for spec in hosts:
                pods = pod_names(spec)
                if first:
                    events.append(Event(0, spec.name, 0, "boot", spec.name, {"memory_pages": spec.memory_bytes >> 12}))
                for number, name in enumerate(pods):
                    seq = 1 + number + (0 if first else len(pods))
                    data = {"pid": 1000 + number} if first else {"pod": name}
                    events.append(Event(until_ns - 1, spec.name, seq, "task_start" if first else "pod_ready", name, data))
        return events


class StandInEngine(RayEngine):
    """RayEngine, whose actors are StandIns; a "reference" here is a thunk that gives pickled bytes."""

    def __init__(self, profile: Profile, writer: RunWriter, attempt: int, actors: int) -> None:
        super().__init__(profile, writer, attempt, StandInCluster(actors), None)  # type: ignore[arg-type]
        self.apart_s = 0.0
        self.calls = 0

    def _make_actors(self, parts_of: Sequence[Sequence[ShardPlan]]) -> None:
        self._actors = [StandIn(parts) for parts in parts_of]

    def _warm(self, plan: Any, ids: Any) -> None:
        """There is nothing to compile."""

    def _begin(self, number: int) -> Any:
        return pickle.dumps(self._actors[number].begin(), 5)

    def _each(self, ask: Callable[[Any, int], Any]) -> list[Any]:
        return [pickle.loads(ask(Remote(self, actor), number)) for number, actor in enumerate(self._actors)]

    @staticmethod
    def _all(asked: Sequence[Any]) -> list[Any]:
        return [pickle.loads(one) for one in asked]

    def digests(self) -> list[bytes]:
        return [b"" for count in self._cut for _ in range(count[1])]

    def checkpoint(self, folder: Path) -> None:
        raise ToolFailed("stand-ins for actors simulate nothing, so there is no state of theirs to keep or to go on from")

    def used(self) -> list[Used]:
        return []

    def stop(self) -> None:
        self._actors = []


class Remote:
    """`actor.epoch.remote(call)` of a stand-in."""

    def __init__(self, engine: StandInEngine, actor: StandIn) -> None:
        self._engine, self._actor = engine, actor
        self.epoch = self

    def remote(self, sent: bytes) -> bytes:
        began = time.thread_time()
        answer = pickle.dumps(self._actor.advance(unpack_call(sent)), 5)
        self._engine.apart_s += time.thread_time() - began
        self._engine.calls += 1
        return answer
