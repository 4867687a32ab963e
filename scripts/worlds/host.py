# SPDX-License-Identifier: Apache-2.0
"""A small simulated host drawn from a literal, and the few questions that tests and measurements ask it.

    w = world(memory_mib=256, swap_mib=64, cgroups={"box": {"memory.max": 64}}, files={"/data": 100},
              tasks={"hog": "mmap_anon A 300 | touch A 300 100", "box/app": "read_file /data 0 50"})
    w.at(5.0)                    run to the fifth second; every look checks that the tables are sound
    w.meminfo("MemFree")         MiB, as /proc/meminfo would say
    w.vm("pgscan_kswapd")        a line of /proc/vmstat
    w.task("app"), w.cg("box")   rows of the record
    w.kills()                    who was killed, in order

Sizes are MiB, so that a page count never has to be worked out by hand; times are seconds. A task's name may carry its
cgroup (`box/app`). Small hosts keep these tests quick even as plain Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from fleetsim.host.shard import Shard
from fleetsim.host.spec import CgroupSpec, Command, DiskSpec, Event, HostSpec, TaskSpec
from fleetsim.linux import mm_types as mm
from fleetsim.linux.check import violations
from fleetsim.linux.per_cpu_pages import nr_pcp
from fleetsim.linux.vmstat import MEMINFO_COUNTS, MEMINFO_FIELDS, VMSTAT_FIELDS, meminfo, vmstat
from scripts.worlds.heaps import heap_violations

MIB = 1 << 20
PAGES = 256  # of 4 KiB in a MiB
FAST_DISK = DiskSpec(bytes_per_s=2_000_000_000, latency_us=50.0)


def in_bytes(file: str, value: int) -> int:
    """A limit as tests write it (MiB, −1 for max; memory.oom.group is a switch, cpuset.mems a bit for each node)."""
    return value if file in ("memory.oom.group", "cpuset.mems") or value < 0 else value * MIB


def cgroup_spec(path: str, limits: Mapping[str, int]) -> CgroupSpec:
    parent, _, name = path.rpartition("/")
    return CgroupSpec(name, parent.rpartition("/")[2], {file: in_bytes(file, value) for file, value in limits.items()})


def task_spec(name: str, ops: str, **more: Any) -> TaskSpec:
    """`box/app` and `op | op | op`."""
    path, _, comm = name.rpartition("/")
    return TaskSpec(comm, tuple(op.strip() for op in ops.split("|")), cgroup=path.rpartition("/")[2], **more)


@dataclass
class World:
    shard: Shard
    seen: list[Event] = field(default_factory=list)

    @property
    def row(self) -> Any:
        return self.shard.records[0]

    def at(self, seconds: float) -> Self:
        self.shard.advance(0, round(seconds * mm.NS_PER_S))
        found = violations(self.row) + heap_violations(self.row)
        assert not found, found
        return self

    def task(self, name: str) -> Any:
        return self.row["tasks"][self.shard.names_of(0).tasks[name]]

    def cg(self, name: str) -> Any:
        return self.row["cgroups"][self.shard.names_of(0).cgroups[name]]

    def events_of(self, name: str) -> dict[str, int]:
        """memory.events (and memory.swap.events) of a cgroup."""
        return {event: int(self.cg(name)["events"][i]) for event, i in mm.EV.items()}

    def meminfo(self, name: str) -> float:
        """MiB (HugePages_*: a count)."""
        value = self.all_meminfo()[name]
        return value if name in MEMINFO_COUNTS else value / 1024

    def free(self) -> float:
        """MiB that nobody has: MemFree and what the per-cpu lists hide from it."""
        return self.meminfo("MemFree") + int(nr_pcp(self.row)) / PAGES

    def all_meminfo(self) -> dict[str, int]:
        values = np.zeros(len(MEMINFO_FIELDS), np.int64)
        meminfo(self.row, values)
        return {name: int(value) for name, value in zip(MEMINFO_FIELDS, values, strict=True)}

    def all_vmstat(self) -> dict[str, int]:
        values = np.zeros(len(VMSTAT_FIELDS), np.int64)
        vmstat(self.row, values)
        return {name: int(value) for name, value in zip(VMSTAT_FIELDS, values, strict=True)}

    def vm(self, name: str) -> int:
        return self.all_vmstat()[name]

    def progress_mib(self, task: str) -> float:
        return float(self.row["programs"][int(self.task(task)["main_thread"])]["progress"]) / PAGES

    def events(self, *kinds: str) -> list[Event]:
        """Everything that happened so far, or only some kinds."""
        self.seen += self.shard.drain_events()
        return [event for event in self.seen if not kinds or event.kind in kinds]

    def kills(self) -> list[str]:
        return [event.subject for event in self.events("oom_kill")]

    def command(self, at_s: float, kind: str, **args: object) -> None:
        self.shard.command(Command(round(at_s * mm.NS_PER_S), self.shard.names[0], kind, args))


def host_spec(
    memory_mib: int = 256,
    *,
    tasks: Mapping[str, str] | None = None,
    cgroups: Mapping[str, Mapping[str, int]] | None = None,
    files: Mapping[str, int] | None = None,
    swap_mib: int = 0,
    adj: Mapping[str, int] | None = None,
    start_s: Mapping[str, float] | None = None,
    restart_s: Mapping[str, float] | None = None,
    **more: Any,
) -> HostSpec:
    def named(table: Mapping[str, Any] | None, name: str, default: Any) -> Any:
        return (table or {}).get(name.rpartition("/")[2], default)

    more = {"cpus": 1, "thp": "never", "cpu_profile": "lab", "disk": FAST_DISK, **more}
    specs = tuple(
        task_spec(name, ops, oom_score_adj=named(adj, name, 0), start_s=named(start_s, name, 0.0), restart_s=named(restart_s, name, None))
        for name, ops in (tasks or {}).items()
    )
    return HostSpec(
        name="host",
        memory_bytes=memory_mib * MIB,
        swap_bytes=swap_mib * MIB,
        files={path: size * MIB for path, size in (files or {}).items()},
        cgroups=tuple(cgroup_spec(path, limits) for path, limits in (cgroups or {}).items()),
        tasks=specs,
        **more,
    )


def world(memory_mib: int = 256, *, seed: int = 1, tick_ms: float = 10.0, **drawn: Any) -> World:
    """Boot the host that the arguments of `host_spec` describe."""
    return World(Shard([host_spec(memory_mib, **drawn)], seed=seed, tick_ns=round(tick_ms * mm.NS_PER_MS)))
