# SPDX-License-Identifier: Apache-2.0
"""A pod as a scenario says it: its containers, what they request and may take, how they are probed and started again.

Most pods have one container, named like the pod; `containers` says several. Requests set no memory.min or memory.low (the MemoryQoS
gate is off by default); they decide the QoS class, with it oom_score_adj, and where the scheduler puts the pod.
Source: kernel-laws §17.1, §17.2, §17.4.
Leaves out: what the node makes of it (`pod_spec.py`), CPU requests (memory alone decides the QoS class).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from fleetsim.containers.resources import Resources, qos_class
from fleetsim.containers.workload import ANYWHERE, PodWorkload, Process, Room
from fleetsim.host.spec import ProbeSpec

GRACE_S = 30
"""terminationGracePeriodSeconds' default."""


@dataclass(frozen=True)
class Container:
    """One of a pod's containers. `requests` and `limits` are bytes of memory; None: not set."""

    name: str
    workload: str
    arguments: PodWorkload
    requests: int | None = None
    limits: int | None = None
    probes: tuple[ProbeSpec, ...] = ()
    init: bool = False
    swap: int = 0  # bytes of swap that it may use, whatever the kubelet's swap behavior is

    @property
    def resources(self) -> Resources:
        return Resources(self.requests, self.limits)


@dataclass(frozen=True)
class Pod:
    """One pod entry of a scenario. The short form's one container stands in the pod's own fields; `several` has the long form's.

    What follows from the fields is worked out once: a plan asks for it on every host that the pod stands on.
    """

    name: str
    workload: str
    arguments: PodWorkload
    requests: int | None = None
    limits: int | None = None
    numa_node: int | None = None  # the only one it may have memory of
    swap: int = 0  # bytes of swap that it may use
    probes: tuple[ProbeSpec, ...] = ()
    several: tuple[Container, ...] = ()
    restart: str = "Always"  # RESTART_POLICIES of the host's record
    max_retries: int = -1  # Docker's on-failure:N
    oom_policy: str = "stop"  # systemd's
    priority: int = 0
    grace_s: int = GRACE_S
    pre_stop_s: int = 0  # how long its preStop hook sleeps
    replica: bool = False  # one of several that may stand on one host: its processes are called after it
    empty_dirs: Mapping[str, int] = field(default_factory=dict)  # mount path in its containers → bytes of tmpfs, 0: no size given

    @cached_property
    def containers(self) -> tuple[Container, ...]:
        if self.several:
            return self.several
        return (Container(self.name, self.workload, self.arguments, self.requests, self.limits, self.probes, swap=self.swap),)

    @cached_property
    def request_bytes(self) -> int | None:
        """What the scheduler sets aside; None: nothing. Init containers run before the others, so the larger counts."""
        init = max((one.resources.request for one in self.containers if one.init), default=0)
        return max(init, sum(one.resources.request for one in self.containers if not one.init)) or None

    @cached_property
    def limit_bytes(self) -> int | None:
        """memory.max of the pod: set if every container has one."""
        main = [one.limits for one in self.containers if not one.init]
        return sum(limit or 0 for limit in main) if all(main) else None

    @cached_property
    def qos(self) -> str:
        return qos_class([one.resources for one in self.containers])

    def processes_of(self, container: Container, room: Room = ANYWHERE) -> tuple[Process, ...]:
        """A container's processes, PID 1 first; in the long form PID 1 is called POD.CONTAINER. `room`: what they find around them."""
        name = f"{self.name}.{container.name}" if self.several else self.name
        processes = container.arguments.processes(name, room)
        if not self.replica:
            return processes
        return tuple(one if one.name.startswith(name) else replace(one, name=f"{name}.{one.name}") for one in processes)

    @cached_property
    def processes(self) -> tuple[Process, ...]:
        return tuple(process for container in self.containers for process in self.processes_of(container))

    @property
    def main(self) -> Container:
        """The first one that is not an init container: a service's requests go to its PID 1."""
        return next(one for one in self.containers if not one.init)

    @property
    def serving_task(self) -> str:
        return self.processes_of(self.main)[0].name

    @property
    def files(self) -> tuple[str, ...]:
        """Files of the host that it reads: none of those in its own tmpfs mounts."""
        named = [path for container in self.containers for path in container.arguments.files()]
        return tuple(path for path in named if not path.startswith(tuple(f"{mount}/" for mount in self.empty_dirs) or ("\0",)))


def digest(host: str, pod: str, what: str) -> str:
    return hashlib.sha256(f"{what}\0{host}\0{pod}".encode()).hexdigest()


def pod_cgroup(host: str, pod: Pod) -> str:
    """The name of the pod's slice, around its container."""
    uid = digest(host, pod.name, "pod")
    dashed = "_".join((uid[:8], uid[8:12], uid[12:16], uid[16:20], uid[20:32]))  # the systemd driver writes '-' as '_'
    return f"kubepods-pod{dashed}.slice" if pod.qos == "guaranteed" else f"kubepods-{pod.qos}-pod{dashed}.slice"


def container_id(host: str, pod: str, container: str) -> str:
    """The runtime's id, 64 hex digits, the same in every run."""
    return digest(host, pod, "container" if container in ("", pod) else f"container {container}")


def container_cgroup(host: str, pod: str, container: str = "") -> str:
    """The name of a container's own cgroup."""
    return f"cri-containerd-{container_id(host, pod, container)}.scope"
