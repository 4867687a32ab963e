# SPDX-License-Identifier: Apache-2.0
"""The scenario as a run directory keeps it: defaults filled in, targets resolved, the faults' own expectations included.

Fleet and timeline stand as people write them (sizes and durations with units); `expect` is the judge's model.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fleetsim.containers.pod import Container, Pod
from fleetsim.fleet.deployments import Deployment
from fleetsim.fleet.disks import DEFAULT_DISK
from fleetsim.fleet.models import ServiceKeys, SwapKeys
from fleetsim.fleet.plan import Plan, PlannedFault
from fleetsim.fleet.scenario import Group
from fleetsim.units import show_bytes, show_duration


def normalised(plan: Plan) -> dict[str, Any]:
    scenario = plan.scenario
    return {
        "format": scenario.keys.format,
        "name": scenario.name,
        "summary": scenario.keys.summary,
        "seed": plan.seed,
        "duration": show_duration(plan.duration_ns),
        "fleet": [_group(group) for group in scenario.groups],
        **({"services": [_service(keys) for keys in scenario.keys.services]} if scenario.keys.services else {}),
        "timeline": [_fault(fault) for fault in plan.faults],
        "expect": [expectation.model_dump(mode="json") for expectation in plan.expectations],
    }


def _group(group: Group) -> dict[str, Any]:
    keys = group.keys
    return {
        "hosts": keys.hosts,
        "name": keys.name,
        "memory": show_bytes(keys.memory),
        "swap": show_bytes(keys.swap) if keys.swap else 0,
        **({"swaps": [_swap(area) for area in keys.swaps]} if keys.swaps else {}),
        **({} if keys.zswap is None else {"zswap": keys.zswap.model_dump()}),
        "cpus": keys.cpus,
        "cpu_profile": keys.cpu_profile,
        "numa_nodes": keys.numa_nodes,
        "hugepages_1gib": keys.hugepages_1gib,
        "disk": keys.disk or DEFAULT_DISK,
        "sysctl": dict(keys.sysctl),
        "thp": keys.thp,
        "lru_gen": keys.lru_gen,
        "labels": dict(keys.labels),
        "files": {path: show_bytes(size) for path, size in keys.files.items()},
        "runtime": keys.runtime,
        **({} if keys.kubelet is None else {"kubelet": keys.kubelet.model_dump(mode="json")}),
        "pods": [_pod(pod) for pod in group.pods],
        **({"deployments": [_deployment(one) for one in group.deployments]} if group.deployments else {}),
    }


def _service(keys: ServiceKeys) -> dict[str, Any]:
    shown = keys.model_dump(mode="json")
    load, health = keys.load, keys.health
    shown["load"] = {"replay": load.replay}
    if load.replay is None:
        shown["load"] = {"low": f"{load.low / 1000:g}/s", "high": f"{load.high / 1000:g}/s"}
        shown["load"] |= {"peak": show_duration(load.peak), "period": show_duration(load.period)}
    shown["health"] |= {"every": show_duration(health.every), "timeout": show_duration(health.timeout)}
    shown["drain"] = None if keys.drain is None else show_duration(keys.drain)
    shown["connection_age"] = show_duration(keys.connection_age)
    return shown


def _swap(area: SwapKeys) -> dict[str, Any]:
    return area.model_dump(exclude_none=True) | {
        "size": show_bytes(area.size),
        "mem_limit": show_bytes(area.mem_limit) if area.mem_limit else 0,
    }


def _pod(pod: Pod) -> dict[str, Any]:
    return {
        "name": pod.name,
        **({"containers": [_container(one) for one in pod.containers]} if pod.several else _container(pod.containers[0])),
        "qos": pod.qos,
        "restart": pod.restart,
        **({} if pod.numa_node is None else {"numa_node": pod.numa_node}),
        **({"pre_stop": f"{pod.pre_stop_s}s"} if pod.pre_stop_s else {}),
        **({"priority": pod.priority} if pod.priority else {}),
        **({"empty_dirs": {path: show_bytes(size) for path, size in pod.empty_dirs.items()}} if pod.empty_dirs else {}),
    }


def _deployment(one: Deployment) -> dict[str, Any]:
    return {
        **_pod(one.template),
        "replicas": one.replicas,
        "max_unavailable": one.max_unavailable,
        "max_surge": one.max_surge,
        "restarts": [show_duration(at) for at in one.restarts_ns],
    }


def _container(one: Container) -> dict[str, Any]:
    arguments = one.arguments.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "name": one.name,
        "workload": one.workload,
        "requests": show_bytes(one.resources.request) if one.resources.request else None,
        "limits": show_bytes(one.limits) if one.limits else None,
        **({"swap": show_bytes(one.swap)} if one.swap else {}),
        **({"init": True} if one.init else {}),
        **{probe.kind: {k: v for k, v in asdict(probe).items() if k != "kind"} for probe in one.probes},
        "arguments": arguments,
    }


def _fault(fault: PlannedFault) -> dict[str, Any]:
    return {
        "id": fault.id,
        "at": show_duration(fault.start_ns),
        "for": None if fault.end_ns is None else show_duration(fault.end_ns - fault.start_ns),
        "on": fault.on,
        **fault.history_data(),
    }
