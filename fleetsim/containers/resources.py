# SPDX-License-Identifier: Apache-2.0
"""What requests and limits become: QoS class, oom_score_adj, memory.min and memory.high, swap, and what a node can give.

All bytes, whole numbers. Source: kernel-laws §17.1 to §17.3; pkg/kubelet/qos/policy.go, pkg/apis/core/v1/helper/qos/qos.go,
pkg/kubelet/kuberuntime/kuberuntime_container_linux.go, pkg/kubelet/cm/node_container_manager_linux.go.
Leaves out: CPU (memory alone decides the QoS class), node-critical and system-critical pods (−997), pod-level resources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PAGE = 4096
GUARANTEED_ADJ, BESTEFFORT_ADJ = -997, 1000
BURSTABLE_ADJ_MIN, BURSTABLE_ADJ_MAX = 3, 999
THROTTLING_PERMILLE = 900
"""memoryThrottlingFactor's default, 0.9."""


@dataclass(frozen=True)
class Resources:
    """Memory of one container, bytes; None: not set."""

    requests: int | None = None
    limits: int | None = None

    @property
    def request(self) -> int:
        """With the API server's defaulting: a container with limits and no requests requests its limits."""
        return (self.limits if self.requests is None else self.requests) or 0


def qos_class(containers: Sequence[Resources]) -> str:
    """guaranteed: every container's request is its limit; besteffort: none has either; else burstable."""
    if not any(one.request or one.limits for one in containers):
        return "besteffort"
    return "guaranteed" if all(one.limits and one.request == one.limits for one in containers) else "burstable"


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


def memory_high(one: Resources, allocatable_bytes: int, permille: int = THROTTLING_PERMILLE) -> int | None:
    """MemoryQoS' memory.high: floor((request + factor · (limit or node allocatable − request)) / 4096) · 4096; None: not written.

    Source: kernel-laws §17.2, worked example T-17.2 (the formula from 1.27 on).
    """
    if one.limits is not None and one.limits == one.request:
        return None
    upto = one.limits or allocatable_bytes
    high = (one.request + permille * (upto - one.request) // 1000) // PAGE * PAGE
    return high if high > one.request else None


def swap_limit(qos: str, one: Resources, node_memory_bytes: int, node_swap_bytes: int) -> int:
    """LimitedSwap's memory.swap.max: request / node memory · node swap, for Burstable pods' containers that do not request their limit.

    Source: kernel-laws §17.2, worked example T-17.3; pkg/kubelet/kuberuntime calcSwapForBurstablePods.
    """
    if qos != "burstable" or one.request == 0 or one.request == one.limits:
        return 0
    return one.request * node_swap_bytes // node_memory_bytes


@dataclass(frozen=True)
class Node:
    """A node's memory, bytes. `capacity` is MemTotal."""

    capacity: int
    kube_reserved: int = 0
    system_reserved: int = 0
    eviction_hard: int = 100 << 20

    @property
    def kubepods_max(self) -> int:
        """memory.max of kubepods: what is reserved is kept from pods, the eviction threshold is not."""
        return self.capacity - self.kube_reserved - self.system_reserved

    @property
    def allocatable(self) -> int:
        """What the scheduler may give away."""
        return max(0, self.kubepods_max - self.eviction_hard)
