# SPDX-License-Identifier: Apache-2.0
"""The `log` workload in a pod: a broker like Kafka's (its laws: `fleetsim/workloads/log.py`).

{name: broker, workload: log, path: /data/log, record: 4KiB, load: 5000/s, slo: {latency: 100ms, share: 99}, retention: 8GiB}
"""

from __future__ import annotations

from pydantic import Field, model_validator

from fleetsim.containers.workload import ANYWHERE, PAGE, WORKLOADS, Process, Room, ServerWorkload
from fleetsim.host.spec import Work
from fleetsim.units import PositiveSize, Size
from fleetsim.workloads.log import NR_SEGMENTS


@WORKLOADS.register("log")
class Log(ServerWorkload):
    """A broker that appends to segments, deletes old ones, and whose consumers read from the page cache, or from disk when they lag."""

    path: str = Field(description="where its segments are, such as /data/log", pattern="^/")
    record: PositiveSize = Field(1 << 10, description="what a produce request appends")
    segment: PositiveSize = Field(1 << 30, description="size of a segment (log.segment.bytes)")
    retention: PositiveSize = Field(4 << 30, description="older segments are deleted (log.retention.bytes)")
    heap: Size = Field(256 << 20, description="the broker's own memory")
    cpu_us: int = Field(50, description="processor time of a request, microseconds", ge=0, le=10_000_000)
    consumers: bool = Field(True, description="somebody reads all that is written")
    lag: Size = Field(0, description="one more consumer is so far behind (0: there is none)")

    @model_validator(mode="after")
    def _segments(self) -> Log:
        if not self.segment * 2 <= self.retention <= self.segment * NR_SEGMENTS:
            raise ValueError(f"'retention' is 2 to {NR_SEGMENTS} times 'segment'; write a segment of another size")
        return self

    def processes(self, pod: str, room: Room = ANYWHERE) -> tuple[Process, ...]:
        segments, pages, heap = self.retention // self.segment, -(-self.segment // PAGE), self.heap // PAGE
        paths = [f"{self.path}/{number:020}.log" for number in range(segments)]
        values: dict[str, int | str] = {
            "heap_pages": heap,
            "record_bytes": self.record,
            "segment_pages": pages,
            "segments": segments,
            "cpu_ns": self.cpu_us * 1000,
            "consumers": int(self.consumers),
            "lag_pages": self.lag // PAGE,
            **{f"segment{k}": paths[k] if k < segments else -1 for k in range(NR_SEGMENTS)},
        }
        files = tuple((path, pages, 0) for path in paths)
        return (Process(pod, start_ns=self.start, work=Work("log", values, self.requests, ((heap, False),) if heap else (), files=files)),)
