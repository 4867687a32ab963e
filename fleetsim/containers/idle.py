# SPDX-License-Identifier: Apache-2.0
"""The `idle` workload in a pod: the example of all there is to a workload's arguments (its laws: `fleetsim/workloads/idle.py`)."""

from __future__ import annotations

from pydantic import Field

from fleetsim.containers.workload import ANYWHERE, PAGE, WORKLOADS, PodWorkload, Process, Room
from fleetsim.host.spec import Work
from fleetsim.units import Size


@WORKLOADS.register("idle")
class Idle(PodWorkload):
    """A process that takes some memory and does nothing."""

    memory: Size = Field(1 << 20, description="how much it writes to when it starts")

    def processes(self, pod: str, room: Room = ANYWHERE) -> tuple[Process, ...]:
        pages = self.memory // PAGE
        return (Process(pod, work=Work("idle", {"pages": pages}, areas=((pages, False),))),)
