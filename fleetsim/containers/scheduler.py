# SPDX-License-Identifier: Apache-2.0
"""kube-scheduler by memory: NodeResourcesFit with its default score LeastAllocated. Only requests count, never limits or real use.

Rules: a node fits if the requests of all its pods and the new one are within its allocatable memory; a node with the taint
memory-pressure takes no BestEffort pod; among those that fit the emptiest by requests wins, ties go by a keyed hash, as the
scheduler draws them.
Source: pkg/scheduler/framework/plugins/noderesources (fit.go, least_allocated.go); kernel-laws §17.3.
Leaves out: CPU, affinity, topology spread, preemption; BalancedAllocation (memory alone is always balanced); a container without
requests counts 200 MiB in the score, as there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

NONZERO_REQUEST = 200 << 20
"""DefaultMemoryRequest: what a container that requests nothing counts in the score."""
SCORE_MAX = 100
MAX_PODS = 110
"""The kubelet's maxPods. Not what a host's record holds: where pods go must not hang on the size class."""


@dataclass(frozen=True)
class NodeInfo:
    """What the scheduler knows of a node, bytes."""

    name: str
    allocatable: int
    requested: int = 0  # Σ requests of its pods
    nonzero: int = 0  # … with the default for those who request nothing
    pods: int = 0
    pressure: bool = False  # taint node.kubernetes.io/memory-pressure:NoSchedule
    max_pods: int = MAX_PODS

    def fits(self, request: int) -> bool:
        return self.requested + request <= self.allocatable and self.pods < self.max_pods

    def with_pod(self, request: int) -> NodeInfo:
        return replace(self, requested=self.requested + request, nonzero=self.nonzero + (request or NONZERO_REQUEST), pods=self.pods + 1)

    def without_pod(self, request: int) -> NodeInfo:
        return replace(self, requested=self.requested - request, nonzero=self.nonzero - (request or NONZERO_REQUEST), pods=self.pods - 1)


def score(node: NodeInfo, request: int) -> int:
    """LeastAllocated: (allocatable − requested) · 100 / allocatable, the new pod included; 0 if it is more than there is."""
    wanted = node.nonzero + (request or NONZERO_REQUEST)
    if node.allocatable <= 0 or wanted > node.allocatable:
        return 0
    return (node.allocatable - wanted) * SCORE_MAX // node.allocatable


def place(pod: str, request: int, qos: str, nodes: Sequence[NodeInfo], seed: int) -> str | None:
    """The node for a pod; None: it stays Pending."""
    fitting = [node for node in nodes if node.fits(request) and not (node.pressure and qos == "besteffort")]
    if not fitting:
        return None
    return min(fitting, key=lambda node: (-score(node, request), _luck(seed, pod, node.name), node.name)).name


def place_all(pods: Iterable[tuple[str, int, str]], nodes: Sequence[NodeInfo], seed: int) -> dict[str, str | None]:
    """Place (name, request, qos) one after the other, as the scheduler's queue does."""
    known = {node.name: node for node in nodes}
    placed: dict[str, str | None] = {}
    for name, request, qos in pods:
        placed[name] = place(name, request, qos, list(known.values()), seed)
        if (where := placed[name]) is not None:
            known[where] = known[where].with_pod(request)
    return placed


def _luck(seed: int, pod: str, node: str) -> bytes:
    return hashlib.sha256(f"{seed}\0schedule\0{pod}\0{node}".encode()).digest()
