# SPDX-License-Identifier: Apache-2.0
"""What a node makes of a pod: cgroups, oom_score_adj, swap, tmpfs, processes. As the kubelet does it, or Docker, or systemd.

    kubepods.slice                             memory.max = capacity − reserved, if anything is
    ├── kubepods-besteffort.slice
    ├── kubepods-burstable.slice
    │   └── kubepods-burstable-podUID.slice
    │       └── cri-containerd-ID.scope        memory.max = limits, memory.swap.max = 0, memory.oom.group = 1
    └── kubepods-podUID.slice                  (Guaranteed pods stand directly under kubepods)

    system.slice ├── docker-ID.scope           --memory: memory.max, and as much swap again (--memory-swap is not given)
                 └── NAME.service              MemoryMax=, OOMPolicy=

Source: kernel-laws §17.1, §17.2; pkg/kubelet/qos/policy.go, pkg/kubelet/cm, cgroup driver systemd; docker run(1); systemd.service(5).
Leaves out: a pause container's own memory, cgroups of the system's own daemons; memory.min of kubepods counts the pods that are there
when the host boots, and not those that a scheduler sends later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

from fleetsim.containers.pod import Container, Pod, container_cgroup, container_id, pod_cgroup
from fleetsim.containers.resources import Node, memory_high, oom_score_adj, swap_limit
from fleetsim.containers.workload import Room
from fleetsim.host.pods import volumes_of
from fleetsim.host.spec import CgroupSpec, ContainerSpec, KubeletSpec, PodSpec, TaskSpec, Work
from fleetsim.units import NS_PER_S

KUBEPODS, SYSTEM = "kubepods.slice", "system.slice"
SHM_BYTES = 64 << 20
"""A container's /dev/shm, unless its runtime is told otherwise."""
DEV_SHM = "/dev/shm"


@dataclass(frozen=True)
class NodeOptions:
    """A host as its kubelet is configured."""

    node: Node
    swap_bytes: int = 0
    cpus: int = 4
    runtime: str = "kubernetes"  # kubernetes | docker | systemd
    memory_qos: bool = False  # feature gate MemoryQoS
    throttling_permille: int = 900  # … memoryThrottlingFactor
    limited_swap: bool = False  # memorySwap.swapBehavior: LimitedSwap
    single_process_oom_kill: bool = False
    kubelet: KubeletSpec = field(default_factory=KubeletSpec)


def kubepods(options: NodeOptions, guaranteed_bytes: int = 0, burstable_bytes: int = 0) -> tuple[CgroupSpec, ...]:
    """The tree above all pods. With MemoryQoS the requests of all pods are kept for them."""
    node = options.node
    limits = {"memory.max": node.kubepods_max} if node.kubepods_max < node.capacity else {}
    kept = {"memory.min": guaranteed_bytes + burstable_bytes} if options.memory_qos else {}
    burstable = {"memory.min": burstable_bytes} if options.memory_qos else {}
    return (
        CgroupSpec(KUBEPODS, "", {**limits, **kept}),
        CgroupSpec("kubepods-besteffort.slice", KUBEPODS),
        CgroupSpec("kubepods-burstable.slice", KUBEPODS, burstable),
    )


def tree_of(options: NodeOptions, pods: tuple[Pod, ...]) -> tuple[CgroupSpec, ...]:
    if options.runtime != "kubernetes":
        return (CgroupSpec(SYSTEM),)
    sums = {qos: sum(pod.request_bytes or 0 for pod in pods if pod.qos == qos) for qos in ("guaranteed", "burstable")}
    return kubepods(options, sums["guaranteed"], sums["burstable"])


@dataclass(frozen=True)
class PodSpecs(Sequence[PodSpec]):
    """All pods of a host, the tree above them first. They are made whenever somebody looks: what hosts have in common is kept once."""

    host: str
    pods: tuple[Pod, ...]
    options: NodeOptions

    def __len__(self) -> int:
        return len(self.pods)

    def __iter__(self) -> Iterator[PodSpec]:
        tree = tree_of(self.options, self.pods)
        return (pod_spec(self.host, pod, self.options, tree) for pod in self.pods)

    @overload
    def __getitem__(self, index: int) -> PodSpec: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[PodSpec, ...]: ...

    def __getitem__(self, index: int | slice) -> PodSpec | tuple[PodSpec, ...]:
        return tuple(self)[index]

    def alike(self, other: object) -> bool:
        """True if the other host has the same pods (`host/alike.py`)."""
        return isinstance(other, PodSpecs) and self.pods == other.pods and self.options == other.options

    def cgroup_names(self) -> list[str]:
        """Of the pods' and their containers' own cgroups: ids that are made of the host's name."""
        host, options = self.host, self.options
        slices = [pod_cgroup(host, pod) for pod in self.pods] if options.runtime == "kubernetes" else []
        return slices + [cgroup_of(host, pod, container, options) for pod in self.pods for container in pod.containers]


def pod_spec(host: str, pod: Pod, options: NodeOptions, tree: tuple[CgroupSpec, ...]) -> PodSpec:
    in_kubernetes = options.runtime == "kubernetes"
    slice_name = pod_cgroup(host, pod)
    cgroups = [*tree]
    if in_kubernetes:
        parent = KUBEPODS if pod.qos == "guaranteed" else f"kubepods-{pod.qos}.slice"
        limit = {} if not pod.limit_bytes else {"memory.max": pod.limit_bytes}
        kept = {"memory.min": pod.request_bytes} if options.memory_qos and pod.request_bytes else {}
        cgroups.append(CgroupSpec(slice_name, parent, {**limit, **kept}))
    containers = []
    for container in pod.containers:
        name = cgroup_of(host, pod, container, options)
        cgroups.append(CgroupSpec(name, slice_name if in_kubernetes else SYSTEM, limits_of(pod, container, options)))
        containers.append(
            ContainerSpec(
                container.name,
                tasks_of(host, pod, container, options),
                name,
                container.resources.request,
                container.limits or 0,
                container.init,
                container.probes if in_kubernetes else (),
                pod.max_retries,
                pod.oom_policy,
            )
        )
    return PodSpec(
        pod.name,
        tuple(containers),
        slice_name if in_kubernetes else SYSTEM,
        pod.qos,
        pod.request_bytes or 0,
        pod.priority,
        pod.restart,
        pod.grace_s,
        pod.pre_stop_s if in_kubernetes else 0,
        tuple(cgroups),
        mounts_of(pod, options),
    )


def cgroup_of(host: str, pod: Pod, container: Container, options: NodeOptions) -> str:
    if options.runtime == "docker":
        return f"docker-{container_id(host, pod.name, container.name)}.scope"
    return f"{pod.name}.service" if options.runtime == "systemd" else container_cgroup(host, pod.name, container.name)


def limits_of(pod: Pod, container: Container, options: NodeOptions) -> dict[str, int]:
    """The files that the runtime writes in a container's cgroup."""
    one = container.resources
    written = {} if not one.limits else {"memory.max": one.limits}
    if options.runtime == "kubernetes":
        written["memory.swap.max"] = container.swap
        if options.limited_swap and not container.swap:
            written["memory.swap.max"] = swap_limit(pod.qos, one, options.node.capacity, options.swap_bytes)
        written["memory.oom.group"] = int(not options.single_process_oom_kill)
        if options.memory_qos and one.request:
            written["memory.min"] = one.request
        if options.memory_qos and pod.qos != "guaranteed":
            high = memory_high(one, options.node.allocatable, options.throttling_permille)
            written |= {} if high is None else {"memory.high": high}
    elif options.runtime == "docker" and one.limits:
        written["memory.swap.max"] = container.swap or one.limits
    elif options.runtime == "systemd" and pod.oom_policy == "kill":
        written["memory.oom.group"] = 1
    if pod.numa_node is not None:
        written["cpuset.mems"] = 1 << pod.numa_node
    return written


def tasks_of(host: str, pod: Pod, container: Container, options: NodeOptions) -> tuple[TaskSpec, ...]:
    """The container's processes: one cgroup, one oom_score_adj. They wait for the pod's init containers, if it has any."""
    adj = oom_score_adj(pod.qos, container.resources.request, options.node.capacity) if options.runtime == "kubernetes" else 0
    mounts = mount_points(pod, options)
    init = [one for one in pod.containers if one.init]
    held = bool(init) and container != init[0]
    room = Room(options.node.capacity, options.cpus, container.limits)
    return tuple(
        TaskSpec(
            process.name,
            tuple(in_mounts(op, mounts) for op in process.ops),
            process.start_ns / NS_PER_S,
            cgroup_of(host, pod, container, options),
            adj,
            work=None if process.work is None else work_in_mounts(process.work, mounts),
            held=held,
        )
        for process in pod.processes_of(container, room)
    )


# --- tmpfs ------------------------------------------------------------------------------------------------------------


def mount_points(pod: Pod, options: NodeOptions) -> dict[str, str]:
    """Path in the containers → path on the host, of the pod's emptyDirs and, if anything of it is used, of its /dev/shm."""
    base = volumes_of(pod.name)
    points = {path: f"{base}volumes/kubernetes.io~empty-dir/{path.strip('/').replace('/', '-')}" for path in pod.empty_dirs}
    if options.runtime != "systemd" and DEV_SHM not in points and uses(pod, DEV_SHM):
        points[DEV_SHM] = f"{base}shm"
    return points


def uses(pod: Pod, folder: str) -> bool:
    words = [word for process in pod.processes for op in process.ops for word in op.split()]
    words += [value for process in pod.processes if process.work for value in process.work.values.values() if isinstance(value, str)]
    return any(word.startswith(f"{folder}/") for word in words)


def mounts_of(pod: Pod, options: NodeOptions) -> dict[str, int]:
    """Path on the host → bytes. An emptyDir without a size may grow to what the pod may take (SizeMemoryBackedVolumes)."""
    most = min(pod.limit_bytes or options.node.allocatable, options.node.allocatable)
    sizes = {DEV_SHM: SHM_BYTES, **{path: size or most for path, size in pod.empty_dirs.items()}}
    return {host_path: sizes[path] for path, host_path in mount_points(pod, options).items()}


def in_mounts(op: str, mounts: dict[str, str]) -> str:
    """An op with paths as the host sees them."""
    return " ".join(moved(word, mounts) for word in op.split()) if mounts else op


def moved(word: str, mounts: dict[str, str]) -> str:
    for path, host_path in mounts.items():
        if word.startswith(f"{path}/"):
            return host_path + word[len(path) :]
    return word


def work_in_mounts(work: Work, mounts: dict[str, str]) -> Work:
    return replace(work, values={name: moved(v, mounts) if isinstance(v, str) else v for name, v in work.values.items()})
