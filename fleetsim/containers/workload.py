# SPDX-License-Identifier: Apache-2.0
"""What a pod's `workload:` may be: each is a frozen pydantic model of its own arguments that says which processes they make.

Adding one is one file in this folder: register the model under the name that scenarios write; its fields are the
arguments of the pod entry, its docstring is what `fleetsim list workloads` prints. The smallest one, which does nothing, is
`fleetsim/containers/idle.py`; one that serves requests starts from `ServerWorkload`.
Leaves out: what the processes do in time (that is `fleetsim/workloads/`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from fleetsim.containers.load import Load, Slo, requests_of
from fleetsim.host.spec import Requests, Work
from fleetsim.registry import Registry
from fleetsim.units import NS_PER_S, Duration

PAGE = 4096


@dataclass(frozen=True)
class Process:
    """One process of a container; `name` is its comm, unique on the host."""

    name: str
    ops: tuple[str, ...] = ()
    start_ns: int = 0
    work: Work | None = None  # what it does, if it is not a script
    restarts: bool = True  # it is started again when it ended


@dataclass(frozen=True)
class Room:
    """What a container finds around itself: programs that size themselves look at it."""

    host_bytes: int = 16 << 30  # memory of the host
    cpus: int = 4
    limit_bytes: int | None = None  # memory.max of the container

    @property
    def visible_bytes(self) -> int:
        """The memory that a container-aware program reckons with."""
        return self.host_bytes if self.limit_bytes is None else min(self.host_bytes, self.limit_bytes)


ANYWHERE = Room()
"""For whoever only wants to know which processes there are."""


class PodWorkload(BaseModel, ABC):
    """Base of all workloads' arguments: unknown arguments are refused, numbers keep their type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)

    @abstractmethod
    def processes(self, pod: str, room: Room = ANYWHERE) -> tuple[Process, ...]:
        """The container's processes; the first one is its PID 1."""

    def files(self) -> tuple[str, ...]:
        """Paths that must be among the host's files."""
        return ()


class ServerWorkload(PodWorkload):
    """Base of the workloads that answer requests (see `load.py` for what the keys mean)."""

    load: Load | None = Field(None, description="requests that come to it, such as 200/s (default: none)")
    workers: int = Field(16, description="requests that it serves at the same time", ge=1, le=100_000)
    queue: int = Field(128, description="requests that may wait; more are refused", ge=0, le=1_000_000)
    timeout: Duration = Field(10 * NS_PER_S, description="after that long a client goes away (0: never)")
    cancels: bool = Field(False, description="it drops a request whose client has gone away; else it serves it for nothing")
    slo: Slo | None = Field(None, description="how fast answers should be, such as {latency: 200ms, share: 99}")
    finish: Duration = Field(
        0, description="after SIGTERM it takes nothing new and finishes what it has, for so long at most (0: it ends at once)"
    )
    start: Duration = Field(0, description="when the container starts, counted from the boot of the host")

    @property
    def requests(self) -> Requests:
        return requests_of(self.load, self.workers, self.queue, self.timeout, self.cancels, self.slo, self.finish)


WORKLOADS: Registry[type[PodWorkload]] = Registry("workload")
