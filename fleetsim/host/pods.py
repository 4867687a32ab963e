# SPDX-License-Identifier: Apache-2.0
"""Pods come to a host and leave it: rows of the tables in `kubelet_types.py`, their cgroups, processes and tmpfs mounts.

Rules: the processes of a container stand in consecutive rows of the task table, PID 1 first; a pod that left gives back all its rows.
Leaves out: when they start, end and start again (`fleetsim/containers/kubelet.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetsim.errors import BadInput
from fleetsim.host import kubelet_types as kt
from fleetsim.host.cgroups import add_cgroup, is_gone, let_go_of_the_dying, remove_cgroup
from fleetsim.host.programs import Names, add_task, expect_files, find_rows, task_rows
from fleetsim.host.spec import ContainerSpec, KubeletSpec, PodSpec, ProbeSpec
from fleetsim.linux import mm_types as mm
from fleetsim.linux.fs_types import NR_MOUNTS
from fleetsim.linux.shm import shmem_unlink
from fleetsim.workloads.arrivals import COUNTERS
from fleetsim.workloads.requests import observe

PAGE = 4096


def configure(row: Any, spec: KubeletSpec) -> None:
    """The kubelet's own settings; it looks first one second after boot."""
    kubelet = row["kubelet"]
    kubelet["used"], kubelet["runtime"] = 1, kt.RUNTIMES.index(spec.runtime)
    kubelet["hard_pages"], kubelet["soft_pages"] = spec.eviction_hard_bytes // PAGE, spec.eviction_soft_bytes // PAGE
    kubelet["soft_grace_ns"] = int(spec.eviction_soft_grace_s * mm.NS_PER_S)
    kubelet["pod_grace_ns"] = spec.eviction_max_pod_grace_s * mm.NS_PER_S
    kubelet["transition_ns"], kubelet["monitor_period_ns"] = int(spec.transition_s * mm.NS_PER_S), int(spec.monitor_s * mm.NS_PER_S)
    kubelet["probe_ns"], kubelet["busy"] = mm.NEVER, 1
    kubelet["soft_since_ns"], kubelet["low_ns"] = -1, -1
    kubelet["status_ns"] = 5 * mm.NS_PER_S
    kubelet["next_ns"], kubelet["monitor_ns"] = kt.RELIST_NS, int(spec.monitor_s * mm.NS_PER_S)


def add_pod(row: Any, names: Names, spec: PodSpec, *, at_boot: bool) -> int:
    """Enter a pod with everything of it; BadInput if the host is full.

    returns  its row; its processes start at their own time (`at_boot`) or now
    """
    if spec.name in names.pods:
        raise BadInput(f"host {names.host}: there is a pod {spec.name!r} already")
    p = find_rows(row["pods"]["used"], 1)
    if p < 0:
        raise BadInput(f"host {names.host}: more than {kt.NR_PODS} pods")
    for cgroup in spec.cgroups:
        if cgroup.name not in names.cgroups:
            add_cgroup(row, names, cgroup)
    for path, size in spec.tmpfs.items():
        add_mount(row, names, path, size)
    pod = row["pods"][p]
    pod["used"], pod["phase"], pod["qos"] = 1, kt.PENDING, kt.QOS_CLASSES.index(spec.qos)
    pod["restart"], pod["cg"], pod["priority"] = kt.RESTART_POLICIES.index(spec.restart), names.cgroups[spec.cgroup], spec.priority
    pod["grace_ns"], pod["memory_request"] = spec.grace_s * mm.NS_PER_S, spec.request_bytes
    pod["pre_stop_s"] = spec.pre_stop_s
    names.pods[spec.name] = p
    row["nr_pods"] = max(int(row["nr_pods"]), p + 1)
    for container in spec.containers:
        for task in container.tasks:
            expect_files(row, names, task.ops)
    for container in spec.containers:
        add_container(row, names, p, spec, container, at_boot)
    return p


def no_room(row: Any, names: Names, spec: PodSpec) -> str:
    """What a pod needs more of than the tables of the host have left; empty: it fits."""
    tasks = [task for container in spec.containers for task in container.tasks]
    let_go_of_the_dying(row)
    wanted = (
        ("pods", 1, row["pods"]["used"] == 0),
        ("containers", len(spec.containers), row["containers"]["used"] == 0),
        ("probes", sum(len(container.probes) for container in spec.containers), row["probes"]["used"] == 0),
        ("cgroups", sum(cgroup.name not in names.cgroups for cgroup in spec.cgroups), row["cgroups"]["used"] == 0),
        ("tmpfs mounts", len(spec.tmpfs), row["mounts"]["used"] == 0),
        ("tasks", len(tasks), row["tasks"]["state"] == mm.TASK_FREE),
        ("workloads", sum(task.work is not None for task in tasks), row["works"]["kind"] == 0),
        ("ops", sum(max(1, len(task.ops)) for task in tasks), row["ops"]["used"] == 0),
    )
    for what, count, free in wanted:
        if count > int(free.sum()):
            return what
    return ""


def add_mount(row: Any, names: Names, path: str, size: int) -> None:
    m = find_rows(row["mounts"]["used"], 1)
    if m < 0:
        raise BadInput(f"host {names.host}: more than {NR_MOUNTS - 1} tmpfs mounts (emptyDir of medium Memory and /dev/shm count)")
    names.mounts[path] = m
    row["mounts"][m] = (1, size // PAGE if size else int(row["totalram"]) // 2, 0)


def add_container(row: Any, names: Names, p: int, pod: PodSpec, spec: ContainerSpec, at_boot: bool) -> None:
    c = find_rows(row["containers"]["used"], 1)
    if c < 0:
        raise BadInput(f"host {names.host}: more than {kt.NR_CONTAINERS} containers")
    first = task_rows(row, len(spec.tasks))
    for t, task in enumerate(spec.tasks, first):
        add_task(row, names, task, started=at_boot, at=t)
        row["tasks"][t]["pid_ns"] = first + 1
        names.pod_of[task.name] = pod.name
    held = any(task.held for task in spec.tasks)
    container = row["containers"][c]
    container["used"], container["pod"], container["init"] = 1, p, spec.init
    container["state"], container["reason"] = kt.WAITING, kt.CONTAINER_CREATING if held else kt.NO_REASON
    container["cg"], container["max_retries"] = names.cgroups[spec.cgroup], spec.max_retries
    container["oom_policy"] = kt.OOM_POLICIES.index(spec.oom_policy)
    container["request"], container["limit"] = spec.request_bytes, spec.limit_bytes
    container["first"], container["tasks"] = first, len(spec.tasks)
    names.containers[pod.name, spec.name] = c
    row["nr_containers"] = max(int(row["nr_containers"]), c + 1)
    for probe in spec.probes:
        add_probe(row, names, c, probe)


def add_probe(row: Any, names: Names, c: int, spec: ProbeSpec) -> None:
    b = find_rows(row["probes"]["used"], 1)
    if b < 0:
        raise BadInput(f"host {names.host}: more than {kt.NR_PROBES} probes")
    probe = row["probes"][b]
    probe["used"], probe["kind"], probe["container"] = 1, kt.PROBE_KINDS.index(spec.kind), c
    probe["delay_s"], probe["period_s"], probe["timeout_s"] = spec.delay_s, spec.period_s, spec.timeout_s
    probe["failure_threshold"], probe["success_threshold"] = spec.failure_threshold, spec.success_threshold
    probe["next_ns"] = mm.NEVER
    row["nr_probes"] = max(int(row["nr_probes"]), b + 1)


def processes_of(row: Any, c: int) -> range:
    """Rows of a container's processes (without what they forked)."""
    container = row["containers"][c]
    return range(int(container["first"]), int(container["first"]) + int(container["tasks"]))


def containers_of(row: Any, p: int) -> list[int]:
    containers = row["containers"][: int(row["nr_containers"])]
    found: list[int] = np.flatnonzero((containers["used"] != 0) & (containers["pod"] == p)).tolist()
    return found


def is_empty(row: Any, p: int) -> bool:
    """True if no process of the pod is left, nor one that it forked."""
    return all(
        is_gone(task)
        for c in containers_of(row, p)
        for task in row["tasks"][: int(row["nr_tasks"])]
        if int(task["pid_ns"]) == int(row["containers"][c]["first"]) + 1
    )


def remove_pod(row: Any, names: Names, p: int) -> None:
    """The last process is gone: rmdir of its cgroups, and its rows are free again."""
    name = names.pod_name(p)
    gone = [key for key in names.containers if key[0] == name]
    for key in gone:
        c = names.containers.pop(key)
        for t in processes_of(row, c):
            free_task_row(row, names, t)
        row["probes"][row["probes"]["container"] == c] = empty_row(row["probes"])
        rmdir(row, names, int(row["containers"][c]["cg"]))
        row["containers"][c] = empty_row(row["containers"])
    for path in [path for path in names.mounts if path.startswith(volumes_of(name))]:
        unmount(row, names, path)
    if sum(int(pod["used"]) and int(pod["cg"]) == int(row["pods"][p]["cg"]) for pod in row["pods"]) == 1:
        rmdir(row, names, int(row["pods"][p]["cg"]))
    row["pods"][p] = empty_row(row["pods"])
    del names.pods[name]


def volumes_of(pod: str) -> str:
    """Where the tmpfs mounts of a pod stand on its host."""
    return f"/var/lib/kubelet/pods/{pod}/"


def rmdir(row: Any, names: Names, cg: int) -> None:
    name = names.cgroup_name(cg)
    remove_cgroup(row, names, name)
    names.gone.add(name)


def unmount(row: Any, names: Names, path: str) -> None:
    """umount of a tmpfs: its files are gone, and their memory is free."""
    for name in [name for name in names.files if name.startswith(path + "/")]:
        f = names.files.pop(name)
        shmem_unlink(row, f)
        row["files"][f]["used"] = 0
    row["mounts"][names.mounts.pop(path)] = empty_row(row["mounts"])


def empty_row(table: Any) -> Any:
    """One row of a table with zeroes in it."""
    return np.zeros(1, table.dtype)[0]


def free_task_row(row: Any, names: Names, t: int) -> None:
    """A process that never starts again leaves its rows: task, thread, program and ops."""
    name = names.task_name(t)
    th = int(row["tasks"][t]["main_thread"])
    program = row["programs"][th]
    if int(program["work"]) > 0:
        work = row["works"][int(program["work"]) - 1]
        if work["server"]["used"]:
            observe(row, work["server"])
            names.ended[name] = {counter: int(work["server"][counter]) for counter in COUNTERS}
        row["works"][int(program["work"]) - 1] = empty_row(row["works"])
        names.plugins.pop(int(program["work"]) - 1, None)
    row["ops"][int(program["first"]) : int(program["first"]) + int(program["ops"])] = empty_row(row["ops"])
    row["programs"][th] = empty_row(row["programs"])
    row["heaps"]["used"][row["heaps"]["task"] == t] = 0
    row["tasks"][t] = empty_row(row["tasks"])
    names.tasks.pop(name, None)
    names.pod_of.pop(name, None)
    names.gone.add(name)
    for key in [key for key in names.handles if key[0] == name]:
        names.handles.pop(key)  # handles are counted up, never used again
