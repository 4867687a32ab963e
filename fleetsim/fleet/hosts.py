# SPDX-License-Identifier: Apache-2.0
"""From the fleet part of a scenario to what every host is told at boot, and to the roster of who can be meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from fleetsim.containers.pod import Pod
from fleetsim.containers.pod_spec import PodSpecs
from fleetsim.fleet.deployments import ControlPlane
from fleetsim.fleet.disks import DEFAULT_DISK, DISKS
from fleetsim.fleet.models import SwapKeys
from fleetsim.fleet.pods import node_options
from fleetsim.fleet.scenario import Group, Scenario
from fleetsim.fleet.targets import Roster, Subject
from fleetsim.host.spec import HostSpec, PodSpec, SwapSpec, ZswapSpec

START_UNIX_S = 1_704_067_200
"""Wall-clock time of virtual time 0: 2024-01-01T00:00:00Z, in every run, so that the same run has the same samples."""


def control_planes(scenario: Scenario, seed: int) -> list[ControlPlane]:
    """One for each host group with Deployments, as it is before the first event: the same whenever it is asked for."""
    return [
        ControlPlane(group.deployments, group.host_names, group.pods, node_options(group.keys), seed)
        for group in scenario.groups
        if group.deployments
    ]


def pods_by_host(scenario: Scenario, planes: Sequence[ControlPlane]) -> dict[str, tuple[Pod, ...]]:
    """What stands on each host when the run begins."""
    return {
        host: (*group.pods, *(pod for plane in planes if host in plane.nodes for pod in plane.pods_on(host)))
        for group in scenario.groups
        for host in group.host_names
    }


def roster_of(scenario: Scenario, planes: Sequence[ControlPlane] = ()) -> Roster:
    roster = Roster()
    for group in scenario.groups:
        roster.hosts[group.keys.name] = group.host_names
        roster.pods[group.keys.name] = [pod.name for pod in group.pods]
    for plane in planes:
        for rollout in plane.rollouts:
            subjects = [Subject(one.host, one.pod.name) for one in rollout.pods.values() if one.host is not None]
            roster.placed.setdefault(rollout.deployment.name, []).extend(subjects)
    for number, service in enumerate(scenario.keys.services):
        try:
            replicas = roster.named(service.pods)
        except ValueError as error:
            raise scenario.source.refuse(("services", number, "pods"), str(error)) from None
        if not all(replica.pod for replica in replicas):
            raise scenario.source.refuse(("services", number, "pods"), f"{service.pods!r} is not a pod; name one, such as checkout")
        if service.name in roster.services:
            raise scenario.source.refuse(("services", number, "name"), f"two services are called {service.name!r}; give each its own name")
        roster.services[service.name] = replicas
    return roster


def swap_spec(area: SwapKeys) -> SwapSpec:
    disk = None if area.disk is None else DISKS[area.disk]
    priority = -1 if area.priority is None else area.priority
    return SwapSpec(area.path, area.size, priority, area.type, disk, area.swapon, area.mem_limit)


def host_specs(group: Group, pods: Mapping[str, tuple[Pod, ...]], further_files: Mapping[str, Mapping[str, int]]) -> Iterator[HostSpec]:
    """The hosts of a group with their pods; what they have in common is there once. `further_files`: those that faults will read there."""
    keys, options = group.keys, node_options(group.keys)
    common = HostSpec(
        name="",
        memory_bytes=keys.memory,
        cpus=keys.cpus,
        cpu_profile=keys.cpu_profile,
        numa_nodes=keys.numa_nodes,
        swap_bytes=keys.swap,
        swaps=tuple(swap_spec(area) for area in keys.swaps),
        zswap=None if keys.zswap is None else ZswapSpec(**keys.zswap.model_dump()),
        sysctl=dict(keys.sysctl),
        hugepages_1gib=keys.hugepages_1gib,
        thp=keys.thp,
        lru_gen="y" if keys.lru_gen else "n",
        disk=DISKS[keys.disk or DEFAULT_DISK],
        files=dict(keys.files),
        kubelet=options.kubelet,
        boot_unix_s=START_UNIX_S,
    )
    for name in group.host_names:
        more = further_files.get(name)
        files = {**common.files, **more} if more else common.files
        yield replace(common, name=name, pods=PodSpecs(name, pods[name], options), files=files)


def pod_names(spec: HostSpec) -> list[str]:
    """Of the pods that stand on a host when the run begins; quicker than to ask for their specifications."""
    pods: Sequence[Pod | PodSpec] = spec.pods.pods if isinstance(spec.pods, PodSpecs) else spec.pods
    return [pod.name for pod in pods]
