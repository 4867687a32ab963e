# SPDX-License-Identifier: Apache-2.0
"""Node-pressure eviction by memory.available: who goes first, and when the node's condition changes. Pure functions.

Source: pkg/kubelet/eviction (helpers.go rankMemoryPressure, eviction_manager.go synchronize); kernel-laws §17.3.
Leaves out: nodefs, imagefs, PIDs; minimum reclaim; notification by the kernel (KernelMemcgNotification, off by default).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fleetsim.units import show_bytes

MIB = 1 << 20


@dataclass(frozen=True)
class Usage:
    """A pod as the eviction manager sees it: bytes; `working_set` is its cgroup's usage − inactive_file."""

    pod: str
    working_set: int
    request: int
    priority: int = 0

    @property
    def exceeds(self) -> bool:
        return self.working_set > self.request


def rank(pods: Iterable[Usage]) -> list[Usage]:
    """First to go first: those above their request, of them the lowest priority, of them the one furthest above its request."""
    return sorted(pods, key=lambda pod: (not pod.exceeds, pod.priority, pod.request - pod.working_set))


def under_pressure(low_ns: int, now_ns: int, transition_ns: int) -> bool:
    """MemoryPressure holds until no threshold was met for the transition period. `low_ns` < 0: none ever was."""
    return low_ns >= 0 and now_ns - low_ns < transition_ns


def grace_is_over(since_ns: int, now_ns: int, grace_ns: int) -> bool:
    """A soft threshold counts once it was met all through its grace period. `since_ns` < 0: it is not met."""
    return since_ns >= 0 and now_ns - since_ns >= grace_ns


def admits(qos: str, pressure: bool) -> bool:
    """Under MemoryPressure a node takes no BestEffort pod.

    Source: eviction_manager.go Admit. Leaves out: critical pods and tolerations.
    """
    return not (pressure and qos == "besteffort")


def message(threshold_bytes: int, available_bytes: int, containers: Iterable[tuple[str, int, int]]) -> str:
    """The pod's status message. `containers`: (name, working set, request) of those above their request.

    Source: eviction/helpers.go evictionMessage.
    """
    head = (
        f"The node was low on resource: memory. Threshold quantity: {quantity(threshold_bytes)}, available: {quantity(available_bytes)}. "
    )
    return head + "".join(
        f"Container {name} was using {quantity(used)}, request is {quantity(request)}, has larger consumption of memory. "
        for name, used, request in containers
    )


def quantity(count: int) -> str:
    """Bytes as Kubernetes writes them: 100Mi."""
    return show_bytes(count // 1024 * 1024).removesuffix("B")
