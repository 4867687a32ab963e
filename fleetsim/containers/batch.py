# SPDX-License-Identifier: Apache-2.0
"""The `batch` workload in a pod: a job that streams, sorts and writes at its time (its laws: `fleetsim/workloads/batch.py`).

    {name: report, workload: batch, input: /data/log, output: /data/report, work_memory: 2GiB, rate: 200MiB/s, at: 2h, every: 24h}

Without `every` it runs once and its process ends with exit code 0, as a Job's does; it is not started again.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from fleetsim.containers.workload import ANYWHERE, PAGE, WORKLOADS, PodWorkload, Process, Room
from fleetsim.host.spec import Work
from fleetsim.units import NS_PER_S, ByteRate, Duration, PositiveDuration, PositiveSize, Size


@WORKLOADS.register("batch")
class Batch(PodWorkload):
    """A job that streams a file, sorts it in memory, writes a result, and ends or waits for the next night."""

    input: str = Field(description="the file of the host that it reads", pattern="^/")
    size: PositiveSize | None = Field(None, description="how much it reads, from the start again at the end (default: the file once)")
    rate: ByteRate | None = Field(None, description="how fast it reads, such as 200MiB/s (default: as fast as it can)")
    work_memory: Size = Field(0, description="memory in which it sorts what it read, run by run")
    output: str | None = Field(None, description="the file that it writes", pattern="^/")
    output_share: float = Field(100.0, description="percent of what it read that it writes, to a tenth", ge=0, le=1000)
    output_most: PositiveSize = Field(64 << 30, description="room for the output")
    fsync: bool = Field(True, description="whether it waits at the end until its output is on disk")
    cpu_us: int = Field(1, description="processor time for 4KiB of input, microseconds", ge=0, le=100_000)
    at: Duration = Field(0, description="when it begins, counted from midnight UTC")
    every: PositiveDuration | None = Field(None, description="how often, such as 24h (default: once)")

    @model_validator(mode="after")
    def _not_itself(self) -> Batch:
        if self.output == self.input:
            raise ValueError(f"'output' is the input {self.input!r}; write to another file")
        return self

    def processes(self, pod: str, room: Room = ANYWHERE) -> tuple[Process, ...]:
        pages = self.work_memory // PAGE
        read = 0 if self.size is None else -(-self.size // PAGE)
        most = max(1, round(read * self.output_share / 100)) if read else self.output_most // PAGE
        values: dict[str, int | str] = {
            "input": self.input,
            "output": self.output or -1,
            "input_pages": read,
            "work_pages": pages,
            "output_permille": round(10 * self.output_share) if self.output else 0,
            "page_ns": 0 if self.rate is None else NS_PER_S * PAGE // self.rate,
            "cpu_ns": self.cpu_us * 1000,
            "with_fsync": int(self.fsync),
            "at_ns": self.at,
            "every_ns": self.every or 0,
        }
        files = ((self.input, 0, 0), *(((self.output, most, 0),) if self.output else ()))
        work = Work("batch", values, None, ((pages, False),) if pages else (), files=files)
        return (Process(pod, work=work, restarts=self.every is not None),)

    def files(self) -> tuple[str, ...]:
        return (self.input,)
