# SPDX-License-Identifier: Apache-2.0
"""What an engine is: the thing that moves hosts through virtual time. One plan, the same bits, whichever engine runs it.

    start(plan)                     boots every host
    advance(until_ns, commands)     runs all hosts to that instant; commands take effect at their own t_ns, `rates` (requests per
                                    1000 s to every replica of the plan's services, in their order) at once
    follow(replicas)                from now on `rates` and `ports()` are of these (host, task), in this order: pods came or went
    ports()                         how these replicas stood at that instant, as rows of host.ports.PORT
    read(hosts)                     the hosts' records, as bytes, now
    stop()

Rules: events come back sorted by (t_ns, host, seq); a command's t_ns is never before the last `until_ns`; samples are written
where the host is, into the `SampleSink` that the engine was made with, in whatever order (a run directory does not care).
Leaves out: checkpoints (design §8), until a shard's snapshot holds the names of what commands have started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fleetsim.fleet.plan import Plan
from fleetsim.host.spec import Command, Event

EPOCH_NS = 1_000_000_000
"""How long hosts run alone while the control plane has something to watch for."""


class SampleSink(Protocol):
    """Where scraped samples go; `rundir.writer.RunWriter` is one."""

    def series(self, labels: Mapping[str, str]) -> int: ...

    def samples(self, ids: NDArray[np.int64], times_ms: NDArray[np.int64], values: NDArray[np.float64]) -> None: ...


class Engine(Protocol):
    def start(self, plan: Plan) -> None: ...

    def advance(self, until_ns: int, commands: Sequence[Command], rates: NDArray[np.int64] | None = None) -> list[Event]: ...

    def follow(self, replicas: Sequence[tuple[str, str]]) -> None: ...

    def ports(self) -> NDArray[Any]: ...

    def read(self, hosts: Sequence[str]) -> list[bytes]: ...

    def stop(self) -> None: ...


def in_order(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda event: (event.t_ns, event.host, event.seq))
