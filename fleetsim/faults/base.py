# SPDX-License-Identifier: Apache-2.0
"""What a fault is: a mechanism that goes wrong on purpose, told as commands to a host, and the harm it is known for.

Rules: a fault changes what tasks ask for, a setting or a limit, and nothing else: counters, pools, metrics and impacts
are out of its reach (commands are all it can return). Its docstring is what `fleetsim list faults` prints.
Adding one is one file in this folder; the smallest one, which does nothing, shows all there is to fill in:

    @FAULTS.register("nothing")
    class Nothing(Fault):
        '''Nothing goes wrong.'''

        def inject(self, target: Target, at_ns: int) -> list[Command]:
            return []
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from fleetsim.host.spec import Command
from fleetsim.registry import Registry


@dataclass(frozen=True)
class Target:
    """Whom one fault hits: a container on a host (`pod`), or the host itself (`pod` is None)."""

    fault_id: str  # unique in the scenario: names what the fault starts, so that it can be found again
    host: str
    memory_bytes: int  # of the host
    swap_bytes: int
    pod: str | None = None
    task: str | None = None  # the container's PID 1
    tasks: tuple[str, ...] = ()  # all of the container's processes
    cgroup: str = ""  # the container's
    pod_cgroup: str = ""  # the one around the pod's containers; empty: its runtime makes none
    limit_bytes: int | None = None  # the container's memory.max
    beside_bytes: int | None = 0  # memory.max of the pod's other containers together; None: one of them has no limit
    settings: Mapping[str, int] = field(default_factory=dict)  # the host's sysctls as booted

    @property
    def room_bytes(self) -> int:
        """More than this the target cannot hold: its limit (containers do not swap), else all that the host has."""
        return self.limit_bytes or self.memory_bytes + self.swap_bytes


class Fault(BaseModel, ABC):
    """Base of all faults: the fields are the parameters that a timeline entry gives."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    harm: ClassVar[str | None] = None
    """The impact this mechanism is known for; None: it hurts nobody, however much it changes what graphs show."""
    returns_after_restart: ClassVar[bool] = False
    """True for what is a property of the program (a leak): a restarted target has it again."""

    @abstractmethod
    def inject(self, target: Target, at_ns: int) -> list[Command]:
        """The commands that make it go wrong."""

    def clear(self, target: Target, at_ns: int) -> list[Command]:
        """The commands that end it; what it has done already stays done."""
        return []

    def is_certain(self, target: Target, lasting_ns: int) -> bool:
        """Must the harm have come after `lasting_ns`? Then it is expected, unless the scenario says what is."""
        return False

    def files(self) -> Mapping[str, int]:
        """Files (path → bytes) that the fault reads; they are on the hit hosts' disks from the start."""
        return {}

    def refuse(self, target: Target) -> str | None:
        """Why this target cannot be hit, as the end of a sentence; None: it can."""
        return None


FAULTS: Registry[type[Fault]] = Registry("fault")
