# SPDX-License-Identifier: Apache-2.0
"""What looking after thirty containers costs: the same calm hosts with their kubelet, with probes, and with nobody.

Figures are processor time of this process per simulated host and second. The hosts are stepped in turn, a second at a time, so that
their records do not stay in the processor's caches.
Leaves out: pressure (the kubelet's cost does not depend on it, but for the evictions).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from fleetsim.containers.idle import Idle
from fleetsim.containers.kubelet import Kubelet
from fleetsim.containers.pod import Pod
from fleetsim.containers.pod_spec import NodeOptions, PodSpecs
from fleetsim.containers.resources import Node
from fleetsim.host.boot import mem_total_pages
from fleetsim.host.shard import Agent, Shard
from fleetsim.host.spec import HostSpec, KubeletSpec, ProbeSpec

GIB, MIB, NS_PER_S = 1 << 30, 1 << 20, 10**9
CONTAINERS, MEMORY = 30, 64 * GIB
WARM_UP_S, MEASURED_S = 30, 120
PROBES = (ProbeSpec("readiness"), ProbeSpec("liveness"))
PROBED = 24  # containers with both probes: as many as a host's record holds
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class KubeletBench:
    hosts: int
    alone_us: float  # per host-second, nobody looks
    kubelet_us: float
    probes_us: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        rows = (
            ("nobody looks", self.alone_us, ""),
            ("a kubelet that may evict", self.kubelet_us, f"+{self.kubelet_us - self.alone_us:.1f}"),
            (f"and probes of {PROBED} containers", self.probes_us, f"+{self.probes_us - self.alone_us:.1f}"),
        )
        head = f"{self.hosts} calm hosts × {CONTAINERS} containers, µs per host-second"
        return "\n".join([head, *(f"{what:34} {us:6.1f}   {more}" for what, us, more in rows)])


def host(name: str, *, probes: bool) -> HostSpec:
    """64 GiB, 30 pods that hold 100 MiB each and do nothing."""
    options = NodeOptions(Node(mem_total_pages(MEMORY) * 4096), kubelet=KubeletSpec(eviction_hard_bytes=100 * MIB))
    idle = Idle.model_validate({"memory": "100MiB"})
    pods = [Pod(f"p{n}", "idle", idle, GIB, 2 * GIB) for n in range(CONTAINERS)]
    if probes:
        pods = [replace(pod, probes=PROBES) if n < PROBED else pod for n, pod in enumerate(pods)]
    return HostSpec(name, MEMORY, cpus=16, pods=PodSpecs(name, tuple(pods), options), kubelet=options.kubelet)


def measure(hosts: int, agent: Agent | None, *, probes: bool = False) -> float:
    """µs per host-second once everything has started."""
    shard = Shard([host(f"h{n}", probes=probes) for n in range(hosts)], seed=1, agent=agent)
    began = 0.0
    for second in range(1, WARM_UP_S + MEASURED_S + 1):
        if second == WARM_UP_S + 1:
            began = time.process_time()
        for n in range(hosts):
            shard.advance(n, second * NS_PER_S)
    return (time.process_time() - began) / (hosts * MEASURED_S) * 1e6


def run_bench_kubelet(progress: Progress, hosts: int = 100) -> KubeletBench:
    progress("stepping hosts that nobody looks after", 0.0)
    alone = measure(hosts, None)
    progress("stepping hosts with a kubelet", 0.3)
    kubelet = measure(hosts, Kubelet())
    progress("stepping hosts with a kubelet and probes", 0.6)
    return KubeletBench(hosts, alone, kubelet, measure(hosts, Kubelet(), probes=True))
