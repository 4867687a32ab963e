# SPDX-License-Identifier: Apache-2.0
"""What a pod's `workload:` may be: each is a frozen pydantic model of its own arguments that says which processes they make.

Adding one is one file in this folder: register the model under the name that scenarios write; its fields are the
arguments of the pod entry, its docstring is what `fleetsim list workloads` prints. The smallest one:

    @WORKLOADS.register("idle")
    class Idle(PodWorkload):
        '''A container that does nothing.'''

        def processes(self, pod: str) -> tuple[Process, ...]:
            return (Process(name=pod, ops=("sleep 86400",)),)

Leaves out: what the processes do in time (that is `fleetsim/workloads/`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from fleetsim.registry import Registry


@dataclass(frozen=True)
class Process:
    """One process of a container; `name` is its comm, unique on the host."""

    name: str
    ops: tuple[str, ...]
    start_ns: int = 0


class PodWorkload(BaseModel, ABC):
    """Base of all workloads' arguments: unknown arguments are refused, numbers keep their type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)

    @abstractmethod
    def processes(self, pod: str) -> tuple[Process, ...]:
        """The container's processes; the first one is its PID 1."""

    def files(self) -> tuple[str, ...]:
        """Paths that must be among the host's files."""
        return ()


WORKLOADS: Registry[type[PodWorkload]] = Registry("workload")
