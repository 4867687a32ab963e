# SPDX-License-Identifier: Apache-2.0
"""A small host with workloads as scenarios write them.

    w = world_of(256, files={"/data/in": 64}, job={"workload": "batch", "input": "/data/in"}).at(30)
    work_of(w, "job")["slots"][batch.READ]

Sizes of memory and files are MiB; a pod's arguments are those of a scenario.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetsim.containers.workload import WORKLOADS
from fleetsim.fleet.scenario import load_plugins
from fleetsim.host.shard import Shard
from fleetsim.host.spec import TaskSpec
from fleetsim.linux import mm_types as mm
from scripts.worlds.host import FAST_DISK, MIB, World, cgroup_spec, host_spec

TICK_MS = 200


def world_of(
    memory_mib: int,
    *,
    files: Mapping[str, int] | None = None,
    cgroups: Mapping[str, Mapping[str, int]] | None = None,
    in_cgroup: Mapping[str, str] | None = None,
    restart_s: float | None = 10.0,
    scripts: Mapping[str, str] | None = None,
    tick_ms: float = TICK_MS,
    **more: Any,
) -> World:
    """Pods are the keyword arguments that are mappings with `workload`; the rest is for `host_spec`."""
    load_plugins()
    pods = {name: more.pop(name) for name in [name for name, value in more.items() if isinstance(value, Mapping) and "workload" in value]}
    spec = host_spec(memory_mib, files=files, tasks=scripts, **{"cpus": 4, "disk": FAST_DISK, **more})
    tasks = list(spec.tasks)
    for name, keys in pods.items():
        model = WORKLOADS[keys["workload"]]
        arguments = model.model_validate({key: value for key, value in keys.items() if key != "workload"})
        for process in arguments.processes(name):
            cgroup = (in_cgroup or {}).get(name, "")
            tasks.append(
                TaskSpec(
                    process.name, process.ops, process.start_ns / 1e9, cgroup, 0, restart_s if process.restarts else None, work=process.work
                )
            )
    groups = tuple(cgroup_spec(path, limits) for path, limits in (cgroups or {}).items())
    whole = type(spec)(**{**spec.__dict__, "tasks": tuple(tasks), "cgroups": groups})
    return World(Shard([whole], seed=1, tick_ns=round(tick_ms * mm.NS_PER_MS)))


def work_of(world: World, name: str) -> Any:
    """The row of a process' workload."""
    t = world.shard.names_of(0).tasks[name]
    return next(work for work in world.row["works"] if work["kind"] > 0 and int(work["task"]) == t)


def mean_ms(server: Any) -> float:
    return float(server["latency_sum_us"]) / 1000 / max(1, int(server["served"]))


def mib(pages: int) -> float:
    return pages * 4096 / MIB
