# SPDX-License-Identifier: Apache-2.0
"""A pod on a host, as the kubelet and the container runtime set it up: cgroups, oom_score_adj, restart.

    kubepods.slice
    ├── kubepods-besteffort.slice
    ├── kubepods-burstable.slice
    │   └── kubepods-burstable-podUID.slice
    │       └── cri-containerd-ID.scope      memory.max = limits, memory.swap.max = 0, memory.oom.group = 1
    └── kubepods-podUID.slice                (Guaranteed pods stand directly under kubepods)

Rules: one container per pod, named like it. Requests set no memory.min or memory.low (the MemoryQoS gate is off by
default); they decide the QoS class and with it oom_score_adj. Swap is closed to containers (kubelet's NoSwap).
Source: kernel-laws §17.1, §17.2, §17.4; kubelet's pkg/kubelet/qos/policy.go and pkg/kubelet/cm, cgroup driver systemd.
Leaves out: kube-reserved (kubepods has no limit of its own), CPU requests (memory alone decides the QoS class), the
doubling of the restart delay up to 300 s (every restart waits the first 10 s), reset after ten minutes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fleetsim.containers.workload import PodWorkload
from fleetsim.host.spec import CgroupSpec, TaskSpec
from fleetsim.units import NS_PER_S

KUBEPODS = "kubepods.slice"
RESTART_S = 10.0
"""CrashLoopBackOff's first delay (kernel-laws §17.4)."""

GUARANTEED_ADJ, BESTEFFORT_ADJ = -997, 1000
BURSTABLE_ADJ_MIN, BURSTABLE_ADJ_MAX = 3, 999


@dataclass(frozen=True)
class Pod:
    """One pod entry of a scenario. `requests` and `limits` are bytes of memory; None: not set."""

    name: str
    workload: str
    arguments: PodWorkload
    requests: int | None = None
    limits: int | None = None
    numa_node: int | None = None  # the only one it may have memory of

    @property
    def request_bytes(self) -> int | None:
        """The API server's defaulting: a container with limits and no requests requests its limits."""
        return self.limits if self.requests is None else self.requests

    @property
    def qos(self) -> str:
        if not self.request_bytes and not self.limits:
            return "besteffort"
        return "guaranteed" if self.limits is not None and self.request_bytes == self.limits else "burstable"


def oom_score_adj(qos: str, request_bytes: int, capacity_bytes: int) -> int:
    """What the kubelet writes to /proc/PID/oom_score_adj: clamp(1000 − 1000·request/capacity, 3, 999) for Burstable.

    Source: kernel-laws §17.1, worked example T-17.1; pkg/kubelet/qos/policy.go. Leaves out: node-critical pods (−997).
    """
    if qos == "guaranteed":
        return GUARANTEED_ADJ
    if qos == "besteffort":
        return BESTEFFORT_ADJ
    adj = 1000 - 1000 * request_bytes // capacity_bytes
    return min(max(adj, BURSTABLE_ADJ_MIN), BURSTABLE_ADJ_MAX)


def _digest(host: str, pod: str, what: str) -> str:
    return hashlib.sha256(f"{what}\0{host}\0{pod}".encode()).hexdigest()


def pod_cgroup(host: str, pod: Pod) -> str:
    """The name of the pod's slice, around its container."""
    uid = _digest(host, pod.name, "pod")
    dashed = "_".join((uid[:8], uid[8:12], uid[12:16], uid[16:20], uid[20:32]))  # the systemd driver writes '-' as '_'
    return f"kubepods-pod{dashed}.slice" if pod.qos == "guaranteed" else f"kubepods-{pod.qos}-pod{dashed}.slice"


def container_cgroup(host: str, pod: str) -> str:
    """The name of the container's own cgroup: the runtime's id, 64 hex digits, the same in every run."""
    return f"cri-containerd-{_digest(host, pod, 'container')}.scope"


def cgroups_of(host: str, pods: tuple[Pod, ...]) -> tuple[CgroupSpec, ...]:
    """The kubepods tree with one branch per pod, parents first."""
    if not pods:
        return ()
    tree = [
        CgroupSpec(KUBEPODS),
        CgroupSpec("kubepods-besteffort.slice", KUBEPODS),
        CgroupSpec("kubepods-burstable.slice", KUBEPODS),
    ]
    for pod in pods:
        slice_name = pod_cgroup(host, pod)
        parent = KUBEPODS if pod.qos == "guaranteed" else f"kubepods-{pod.qos}.slice"
        limit = {} if not pod.limits else {"memory.max": pod.limits}
        tree.append(CgroupSpec(slice_name, parent, limit))
        inside = {**limit, "memory.swap.max": 0, "memory.oom.group": 1}
        if pod.numa_node is not None:
            inside["cpuset.mems"] = 1 << pod.numa_node
        tree.append(CgroupSpec(container_cgroup(host, pod.name), slice_name, inside))
    return tuple(tree)


def tasks_of(host: str, pod: Pod, capacity_bytes: int) -> tuple[TaskSpec, ...]:
    """The container's processes: one cgroup, one oom_score_adj, started again ten seconds after death."""
    adj = oom_score_adj(pod.qos, pod.request_bytes or 0, capacity_bytes)
    return tuple(
        TaskSpec(
            process.name,
            process.ops,
            process.start_ns / NS_PER_S,
            container_cgroup(host, pod.name),
            adj,
            RESTART_S if process.restarts else None,
            work=process.work,
        )
        for process in pod.arguments.processes(pod.name)
    )
