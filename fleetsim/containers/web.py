# SPDX-License-Identifier: Apache-2.0
"""The `web` workload in a pod: a pool of workers that answer requests out of a working set (its laws: `fleetsim/workloads/web.py`)."""

from __future__ import annotations

from pydantic import Field

from fleetsim.containers.workload import ANYWHERE, PAGE, WORKLOADS, Process, Room, ServerWorkload
from fleetsim.host.spec import Work
from fleetsim.units import NS_PER_S, Duration, PositiveSize, Size

LEAK_AREA_PAGES = 1 << 40  # never too small: what is counted is what is touched


@WORKLOADS.register("web")
class Web(ServerWorkload):
    """Workers that answer requests from a working set in memory; every request holds memory while it is there, and may leak some."""

    working_set: PositiveSize = Field(256 << 20, description="memory that it looks at to answer")
    request_memory: Size = Field(256 << 10, description="what a request holds while it waits or is served")
    leak: Size = Field(0, description="what a request leaves behind for ever, such as 2KiB")
    cpu: Duration = Field(1_000_000, description="processor time of a request")
    looks: int = Field(20, description="pages of the working set that a request looks at", ge=0, le=100_000)
    starting: Duration = Field(2 * NS_PER_S, description="processor time that starting takes, besides filling the working set")

    def processes(self, pod: str, room: Room = ANYWHERE) -> tuple[Process, ...]:
        base = self.working_set // PAGE + 1
        held = (self.workers + self.queue) * self.request_memory // PAGE + 1
        values = {
            "base_pages": base,
            "request_bytes": self.request_memory,
            "leak_bytes": self.leak,
            "cpu_ns": self.cpu,
            "looks": self.looks,
            "start_ns": self.starting,
        }
        areas = [(base, True), (held, False)] + ([(LEAK_AREA_PAGES, False)] if self.leak else [])
        return (Process(pod, start_ns=self.start, work=Work("web", values, self.requests, tuple(areas))),)
