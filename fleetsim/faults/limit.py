# SPDX-License-Identifier: Apache-2.0
"""A container's memory limit is changed while it runs (a wrong value rolled out, a vertical autoscaler's mistake)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from fleetsim.faults.base import FAULTS, Fault, Target
from fleetsim.host.spec import Command
from fleetsim.units import PositiveSize

NO_LIMIT = -1  # "max" in the interface file


@FAULTS.register("memory_limit")
class MemoryLimit(Fault):
    """The container's memory.max is set to another value; ending the fault puts the old one back."""

    harm: ClassVar[str | None] = "killed"

    limit: PositiveSize = Field(description="the new limit, such as 256MiB")

    def inject(self, target: Target, at_ns: int) -> list[Command]:
        return _limits(target, at_ns, self.limit)

    def clear(self, target: Target, at_ns: int) -> list[Command]:
        return _limits(target, at_ns, target.limit_bytes or NO_LIMIT)

    def refuse(self, target: Target) -> str | None:
        return "a limit belongs to a container; name a pod" if target.pod is None else None


def _limits(target: Target, at_ns: int, limit_bytes: int) -> list[Command]:
    """The container's limit, and around it that of the pod: the sum over its containers, if all have one, as the kubelet writes it."""
    written = {target.cgroup: limit_bytes}
    if target.pod_cgroup:
        unlimited = limit_bytes == NO_LIMIT or target.beside_bytes is None
        written = {target.pod_cgroup: NO_LIMIT if unlimited else limit_bytes + (target.beside_bytes or 0), **written}
    return [Command(at_ns, target.host, "limit", {"cgroup": name, "file": "memory.max", "bytes": size}) for name, size in written.items()]
