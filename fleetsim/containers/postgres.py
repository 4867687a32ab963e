# SPDX-License-Identifier: Apache-2.0
"""The `postgres` workload in a pod: a database that depends on the page cache (its laws: `fleetsim/workloads/postgres.py`).

    {name: db, workload: postgres, data: /data/pg, shared_buffers: 512MiB, load: 500/s, slo: {latency: 20ms, share: 99}, workers: 16}

`data` is one of the host's files; `workers` is max_connections: a backend each, and a simulated host holds a few dozen processes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fleetsim.containers.workload import ANYWHERE, PAGE, WORKLOADS, Process, Room, ServerWorkload
from fleetsim.host.spec import Work
from fleetsim.units import NS_PER_S, Duration, PositiveDuration, PositiveSize, Size
from fleetsim.workloads.postgres_types import NR_BACKENDS

HUGE_PAGES = {"off": 0, "try": 1, "on": 2}
BACKENDS_MAX = NR_BACKENDS - 1  # the checkpointer has a row as well


@WORKLOADS.register("postgres")
class Postgres(ServerWorkload):
    """A database: shared buffers, a backend process for every connection, data read through the page cache, a log that is flushed."""

    data: str = Field(description="the file of the host that is its tables and indexes, such as /data/pg", pattern="^/")
    shared_buffers: PositiveSize = Field(128 << 20, description="shared memory that every backend maps")
    hot: int = Field(0, description="percent of the data that is looked at more often (an index, today's rows)", ge=0, le=99)
    hot_looks: int = Field(0, description="percent of the looks that go there", ge=0, le=100)
    looks: int = Field(4, description="blocks of 8KiB that a query looks at", ge=0, le=10_000)
    cpu_us: int = Field(200, description="processor time of a query, microseconds", ge=0, le=10_000_000)
    backend_memory: Size = Field(6 << 20, description="private memory of a backend")
    idle_connections: int = Field(4, description="connections that the clients' pools keep open", ge=0, le=BACKENDS_MAX)
    work_mem: Size = Field(4 << 20, description="memory that a sort takes")
    sorts: float = Field(0.0, description="percent of the queries that sort, to a tenth", ge=0, le=100)
    writes: float = Field(0.0, description="percent of the queries that change a row and commit, to a tenth", ge=0, le=100)
    changes: int = Field(1, description="blocks of 8KiB that one of them changes", ge=1, le=10_000)
    wal_record: PositiveSize = Field(1 << 10, description="log that one of them writes, besides blocks logged as a whole")
    wal: str | None = Field(None, description="path of its log (default: beside the data)", pattern="^/")
    wal_size: PositiveSize = Field(80 << 20, description="segments of the log that are used again and again (min_wal_size)")
    checkpoint: PositiveDuration = Field(300 * NS_PER_S, description="checkpoint_timeout")
    huge_pages: Literal["off", "try", "on"] = Field("off", description="shared buffers in huge pages of the host's pool, if it has any")
    protect_postmaster: bool = Field(False, description="oom_score_adj of the postmaster -1000, of its children as the container has it")
    starting: Duration = Field(NS_PER_S, description="processor time that starting takes")

    @model_validator(mode="after")
    def _processes_fit(self) -> Postgres:
        if self.workers > BACKENDS_MAX:
            raise ValueError(
                f"'workers' is {self.workers} connections, each a process; a simulated host holds {BACKENDS_MAX} of them, write fewer"
            )
        if self.idle_connections > self.workers:
            raise ValueError(f"'idle_connections' is {self.idle_connections}, more than the {self.workers} 'workers'")
        return self

    def processes(self, pod: str, room: Room = ANYWHERE) -> tuple[Process, ...]:
        wal = self.wal or f"{self.data}-wal"
        private, sort = self.backend_memory // PAGE, self.work_mem // PAGE
        values: dict[str, int | str] = {
            "data": self.data,
            "wal": wal,
            "buffer_pages": -(-self.shared_buffers // PAGE),
            "hot_permille": 10 * self.hot,
            "hot_looks_permille": 10 * self.hot_looks,
            "looks": self.looks,
            "backend_pages": private,
            "idle_backends": self.idle_connections,
            "work_pages": sort,
            "sort_permille": round(10 * self.sorts) if sort else 0,
            "write_permille": round(10 * self.writes),
            "changes": self.changes,
            "wal_bytes": self.wal_record,
            "wal_pages": -(-self.wal_size // PAGE),
            "cpu_ns": self.cpu_us * 1000,
            "start_ns": self.starting,
            "huge": HUGE_PAGES[self.huge_pages],
            "protect": int(self.protect_postmaster),
            "checkpoint_ns": self.checkpoint,
        }
        areas = [(private, False)] * self.workers
        areas += [(sort, False)] * (self.workers if self.sorts else 0)
        files = ((self.data, 0, 2 if self.hot else 1), (wal, -(-self.wal_size // PAGE), 0))
        shared = (int(values["buffer_pages"]),)
        work = Work("postgres", values, self.requests, tuple(areas), shared, files, children=self.workers + 1, inherits=1)
        return (Process(pod, start_ns=self.start, work=work),)

    def files(self) -> tuple[str, ...]:
        return (self.data,)
