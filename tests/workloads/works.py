# SPDX-License-Identifier: Apache-2.0
"""A small simulated host with workloads that are not scripts, and the few questions that tests ask of them.

host = works_host(web_task("shop", rate=100), memory_mib=1024, limits={"shop": 256})
host.at(30).server("shop")["served"]
"""

from __future__ import annotations

from typing import Any

from fleetsim.host.shard import Shard
from fleetsim.host.spec import CgroupSpec, Command, DiskSpec, Event, HostSpec, Requests, TaskSpec, Work
from fleetsim.linux.check import violations

MIB = 1 << 20
MS = 10**6
S = 10**9


def web_task(name: str, *, rate: float = 0, base_mib: int = 16, **more: Any) -> TaskSpec:
    """A web server with a small working set; `more` are its arguments and those of its users, by field."""
    values = {
        "base_pages": base_mib * 256,
        "request_bytes": 100 << 10,
        "leak_bytes": 0,
        "cpu_ns": MS,
        "looks": 10,
        "start_ns": 100 * MS,
    }
    users = {"workers": 8, "queue_max": 1000, "timeout_ns": 0, "slo_ns": 100 * MS, "rate_milli": int(rate * 1000)}
    users |= {key: more.pop(key) for key in list(more) if key in Requests.__dataclass_fields__}
    return TaskSpec(name, (), 0.0, name, work=Work("web", values | more, Requests(**users)))


class WorksHost:
    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.seen: list[Event] = []

    @property
    def row(self) -> Any:
        return self.shard.records[0]

    def at(self, seconds: float) -> WorksHost:
        self.shard.advance(0, int(seconds * S))
        self.seen += self.shard.drain_events()
        assert violations(self.row) == []
        return self

    def do(self, kind: str, **args: Any) -> WorksHost:
        self.shard.command(Command(int(self.row["now_ns"]), "h", kind, args))
        return self

    def server(self, task: str) -> Any:
        return self.work(task)["server"]

    def work(self, task: str) -> Any:
        t = self.shard.names_of(0).tasks[task]
        return next(work for work in self.row["works"] if work["kind"] > 0 and int(work["task"]) == t)

    def rss_mib(self, task: str) -> float:
        return float(self.row["tasks"][self.shard.names_of(0).tasks[task]]["rss_anon"]) / 256

    def told(self, kind: str = "") -> list[tuple[float, str, str]]:
        """(second, kind, impact or subject) of what happened so far."""
        return [(e.t_ns / S, e.kind, str(e.data.get("impact", e.subject))) for e in self.seen if kind in e.kind]


def works_host(*tasks: TaskSpec, memory_mib: int = 1024, cpus: int = 4, limits: dict[str, int] | None = None, **more: Any) -> WorksHost:
    """`limits`: MiB of memory.max by task; each task has a cgroup of its own."""
    wanted = limits or {}
    cgroups = tuple(CgroupSpec(t.cgroup, "", {"memory.max": wanted[t.name] * MIB} if t.name in wanted else {}) for t in tasks)
    disk = more.pop("disk", DiskSpec(500_000_000, 100.0))
    return WorksHost(Shard([HostSpec("h", memory_mib * MIB, cpus=cpus, cgroups=cgroups, tasks=tasks, disk=disk, **more)], 1))
