# SPDX-License-Identifier: Apache-2.0
"""The kubelet's eviction manager at work on one host: thresholds, one pod at a time, the MemoryPressure condition and its taint.

Rules: the signal was measured by `host/relist.py`; whom to evict says `eviction.py`; what is done is stopping the pod's containers.
Source: pkg/kubelet/eviction/eviction_manager.go synchronize; kernel-laws §17.3.
Leaves out: kubelets are never short of anything but memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleetsim.containers.eviction import Usage, grace_is_over, message, rank, under_pressure
from fleetsim.host import kubelet_types as kt
from fleetsim.host.pods import containers_of
from fleetsim.linux.mm_types import LRU_INACTIVE_FILE, NS_PER_S

if TYPE_CHECKING:
    from fleetsim.containers.kubelet import Sync

PAGE = 4096
CLEANUP_NS = 30 * NS_PER_S
"""podCleanupTimeout: for so long the manager waits for who it evicted to be gone."""
TAINT = "node.kubernetes.io/memory-pressure:NoSchedule"


def working_set(row: Any, cg: int) -> int:
    """Bytes of a cgroup: usage − inactive_file."""
    group = row["cgroups"][cg]
    return max(0, int(group["usage"]) - int(group["tree"][LRU_INACTIVE_FILE])) * PAGE


def synchronize(sync: Sync) -> None:
    """One round of the eviction manager, or of the node's status."""
    kubelet, now = sync.row["kubelet"], sync.now
    if int(kubelet["monitor_ns"]) == now + int(kubelet["monitor_period_ns"]):  # the signal was measured just now
        observe(kubelet, now)
        if due := threshold_due(kubelet, now):
            evict(sync, due)
    pressure = under_pressure(int(kubelet["low_ns"]), now, int(kubelet["transition_ns"]))
    if not pressure:
        kubelet["low_ns"] = -1
    if int(kubelet["status_ns"]) > now + 9 * NS_PER_S and pressure != bool(kubelet["pressure"]):
        kubelet["pressure"] = int(pressure)
        host = sync.names.host
        sync.tell("node_condition", host, condition="MemoryPressure", status=str(pressure), taint=TAINT if pressure else "")


def observe(kubelet: Any, now: int) -> None:
    over = int(kubelet["over"])
    if over > 0:
        kubelet["low_ns"] = now
    below_soft = 0 < int(kubelet["soft_pages"]) > int(kubelet["available_pages"])
    if not below_soft:
        kubelet["soft_since_ns"] = -1
    elif int(kubelet["soft_since_ns"]) < 0:
        kubelet["soft_since_ns"] = now


def threshold_due(kubelet: Any, now: int) -> str:
    """`hard`, `soft` (its grace period is over), or nothing to do."""
    if int(kubelet["over"]) == 2:
        return "hard"
    return "soft" if grace_is_over(int(kubelet["soft_since_ns"]), now, int(kubelet["soft_grace_ns"])) else ""


def evict(sync: Sync, due: str) -> None:
    """The first in rank goes; the signal is looked at again when it is gone, or after thirty seconds."""
    row, kubelet = sync.row, sync.row["kubelet"]
    alive = [p for p in sync.pods() if int(row["pods"][p]["phase"]) in (kt.PENDING, kt.POD_RUNNING) and not row["pods"][p]["leaving"]]
    usages = {sync.names.pod_name(p): usage_of(sync, p) for p in alive}
    if not usages:
        return
    first = rank(usages.values())[0]
    p = sync.names.pods[first.pod]
    pod = row["pods"][p]
    pages = int(kubelet["hard_pages"] if due == "hard" else kubelet["soft_pages"])
    above = []
    for c in containers_of(row, p):
        name, used = sync.names.container_name(c)[1], working_set(row, int(row["containers"][c]["cg"]))
        if used > int(row["containers"][c]["request"]):
            above.append((name, used, int(row["containers"][c]["request"])))
    text = message(pages * PAGE, int(kubelet["available_pages"]) * PAGE, above)
    pod["reason"] = kt.EVICTED
    sync.tell(
        "eviction",
        first.pod,
        pod=first.pod,
        threshold=due,
        message=text.strip(),
        usage_bytes=first.working_set,
        request_bytes=first.request,
        qos=kt.QOS_CLASSES[int(pod["qos"])],
    )
    sync.move_pod(p, "evicted")
    grace = 0 if due == "hard" else min(int(kubelet["pod_grace_ns"]), int(pod["grace_ns"]))
    pod["leaving"] = kubelet["busy"] = 1
    sync.stop_pod(p, grace)
    kubelet["evicting"] = p + 1
    kubelet["monitor_ns"] = sync.now + CLEANUP_NS


def usage_of(sync: Sync, p: int) -> Usage:
    pod = sync.row["pods"][p]
    return Usage(sync.names.pod_name(p), working_set(sync.row, int(pod["cg"])), int(pod["memory_request"]), int(pod["priority"]))
