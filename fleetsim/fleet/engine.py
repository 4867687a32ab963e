# SPDX-License-Identifier: Apache-2.0
"""What an engine is: the thing that moves hosts through virtual time. One plan, the same bits, whichever engine runs it.

    start(plan, checkpoint)         boots every host; with the folder of a checkpoint they go on from there
    advance(until_ns, commands)     runs all hosts to that instant; commands take effect at their own t_ns, `rates` (requests per
                                    1000 s to every replica of the plan's services, in their order) at once
    follow(replicas)                from now on `rates` and `ports()` are of these (host, task), in this order: pods came or went.
                                    After a start (from a checkpoint too) they are those of the plan
    ports()                         how these replicas stood at that instant, as rows of host.ports.PORT
    checkpoint(folder)              every shard's state as a file of that folder; only between two advances
    read(hosts)                     the hosts' records, as bytes, now
    slowest()                       who keeps the others waiting, for people; empty if nobody does
    digests()                       what every host's record says in the end (host/content.py), in the order of the plan
    stop()                          hands on the last samples

Rules: events come back sorted by (t_ns, host, seq); a command's t_ns is never before the last `until_ns`; samples are written
where the host is, in whatever order (a run directory does not care), and after `checkpoint` and `stop` none waits in a host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fleetsim.fleet.plan import Plan
from fleetsim.host.ports import PORT
from fleetsim.host.spec import Command, Event

Replica = tuple[str, str]
"""Of a service: (host, task)."""

EPOCH_NS = 1_000_000_000
"""How long hosts run alone while the control plane has something to watch for."""


class Mover(Protocol):
    """All that the control plane's way through time needs of an engine (`timeline.py`)."""

    def advance(self, until_ns: int, commands: Sequence[Command], rates: NDArray[np.int64] | None = None) -> list[Event]: ...

    def follow(self, replicas: Sequence[Replica]) -> None: ...

    def ports(self) -> NDArray[Any]: ...


class Engine(Mover, Protocol):
    def start(self, plan: Plan, checkpoint: Path | None = None) -> None: ...

    def checkpoint(self, folder: Path) -> None: ...

    def read(self, hosts: Sequence[str]) -> list[bytes]: ...

    def digests(self) -> list[bytes]: ...

    def slowest(self) -> str: ...

    def stop(self) -> None: ...


def in_order(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda event: (event.t_ns, event.host, event.seq))


def replicas_of(plan: Plan) -> list[Replica]:
    """Of all services of a plan, as they are before the first event."""
    return [replica for service in plan.services for replica in service.replicas]


class Places:
    """Where among all replicas of the services those of each shard stand."""

    def __init__(self, replicas: Sequence[Replica], at: Mapping[str, tuple[int, int]], shards: int) -> None:
        """`at`: the shard of each host, and its index there."""
        self._all = list(replicas)
        shard_of = np.array([at[host][0] for host, _ in replicas], dtype=np.int64)
        self._of = [np.flatnonzero(shard_of == number) for number in range(shards)]

    def replicas(self, shard: int) -> tuple[Replica, ...]:
        return tuple(self._all[place] for place in self._of[shard].tolist())

    def part(self, shard: int, rates: NDArray[np.int64]) -> NDArray[np.int64]:
        return rates[self._of[shard]]

    def together(self, ports: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """All replicas' ports, in their order, of those of the shards."""
        every = np.zeros(len(self._all), PORT)
        for places, part in zip(self._of, ports, strict=True):
            if len(places):
                every[places] = part
        return every
