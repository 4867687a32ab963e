# SPDX-License-Identifier: Apache-2.0
"""A small host with pods and somebody who looks after them, drawn from literals (see `tests/host/worlds.py` for the questions).

w = pod_world(script_pod("app", "mmap_anon a 100 | touch a 100 50 | sleep 60", limits=64), memory_mib=256).at(30)
w.story("oom_kill", "container_exit", "back_off", "restart")     what happened, in order
"""

from __future__ import annotations

from typing import Any

from fleetsim.containers.kubelet import Kubelet
from fleetsim.containers.pod import Container, Pod
from fleetsim.containers.pod_spec import NodeOptions, PodSpecs
from fleetsim.containers.resources import Node
from fleetsim.containers.script import Script, ScriptProcess
from fleetsim.host.boot import mem_total_pages
from fleetsim.host.shard import Shard
from fleetsim.host.spec import HostSpec, KubeletSpec, ProbeSpec
from fleetsim.linux import mm_types as mm
from tests.host.worlds import FAST_DISK, MIB, World


def ops_of(text: str) -> tuple[str, ...]:
    return tuple(op.strip() for op in text.split("|"))


def script(text: str = "", processes: dict[str, str] | None = None) -> Script:
    """One process, or several by name, the first of them PID 1."""
    if processes is None:
        return Script(ops=ops_of(text))
    return Script(processes=tuple(ScriptProcess(name=name, ops=ops_of(ops)) for name, ops in processes.items()))


def mib(size: int | None) -> int | None:
    return None if size is None else size * MIB


def script_pod(
    name: str,
    text: str = "sleep 100000",
    requests: int | None = None,
    limits: int | None = None,
    *,
    processes: dict[str, str] | None = None,
    probes: tuple[ProbeSpec, ...] = (),
    **more: Any,
) -> Pod:
    return Pod(name, "script", script(text, processes), mib(requests), mib(limits), probes=probes, **more)


def script_container(
    name: str, text: str = "sleep 100000", requests: int | None = None, limits: int | None = None, **more: Any
) -> Container:
    return Container(name, "script", script(text), mib(requests), mib(limits), **more)


def pod_of(name: str, *containers: Container, **more: Any) -> Pod:
    first = next(one for one in containers if not one.init)
    return Pod(name, "script", first.arguments, first.requests, first.limits, several=containers, **more)


class PodWorld(World):
    def story(self, *kinds: str) -> list[tuple[str, str]]:
        """(kind, subject) of what happened, in order."""
        return [(event.kind, event.subject) for event in self.events(*kinds)]

    def times(self, kind: str, subject: str) -> list[float]:
        """Seconds at which it happened to `subject`."""
        return [event.t_ns / mm.NS_PER_S for event in self.events(kind) if event.subject == subject]

    def container(self, pod: str, container: str = "") -> Any:
        return self.row["containers"][self.shard.names_of(0).containers[pod, container or pod]]

    def pod(self, name: str) -> Any:
        return self.row["pods"][self.shard.names_of(0).pods[name]]


def pod_world(
    *pods: Pod,
    memory_mib: int = 256,
    runtime: str = "kubernetes",
    hard_mib: int = 0,
    soft_mib: int = 0,
    tick_ms: float = 100.0,
    options: dict[str, Any] | None = None,
    eviction: dict[str, Any] | None = None,
    **more: Any,
) -> PodWorld:
    """Boot a host with these pods. `hard_mib`, `soft_mib`: eviction thresholds, `eviction`: further fields of KubeletSpec."""
    kubelet = KubeletSpec(runtime, hard_mib * MIB, soft_mib * MIB, **(eviction or {}))
    node = Node(mem_total_pages(memory_mib * MIB) * 4096, eviction_hard=hard_mib * MIB)
    chosen = NodeOptions(node, runtime=runtime, kubelet=kubelet, **(options or {}))
    spec = HostSpec(
        "host",
        memory_mib * MIB,
        pods=PodSpecs("host", pods, chosen),
        kubelet=kubelet,
        **{"cpus": 1, "thp": "never", "cpu_profile": "lab", "disk": FAST_DISK, **more},
    )
    return PodWorld(Shard([spec], seed=1, tick_ns=round(tick_ms * mm.NS_PER_MS), agent=Kubelet()))
