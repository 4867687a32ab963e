# SPDX-License-Identifier: Apache-2.0
"""Pod entries of a scenario: read, checked against their host, and what is wrong with them said in one sentence.

    {name: web, workload: script, ops: […], limits: 512MiB}                              one container
    {name: web, containers: [{name: app, workload: …}, {name: sidecar, workload: …}]}    several

Leaves out: whether they all fit into a host's record (`capacity.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fleetsim.containers.pod import Container, Pod
from fleetsim.containers.pod_spec import NodeOptions
from fleetsim.containers.resources import Node
from fleetsim.containers.workload import WORKLOADS, PodWorkload
from fleetsim.fleet.deployments import Deployment
from fleetsim.fleet.pod_models import ContainerKeys, DeploymentKeys, KubeletKeys, OfPod, PodKeys, PodOfContainersKeys
from fleetsim.fleet.refusal import build, unknown_key, unknown_name
from fleetsim.fleet.yaml_source import Place, Source
from fleetsim.host.boot import mem_total_pages
from fleetsim.units import NS_PER_S, show_bytes

if TYPE_CHECKING:
    from fleetsim.fleet.models import HostKeys

PAGE = 4096
POD_KEYS = frozenset(name for model in (PodKeys, PodOfContainersKeys, DeploymentKeys) for name in model.model_fields)
"""What stands beside a workload's arguments: none of those can have such a name."""


def node_options(host: HostKeys) -> NodeOptions:
    """The host as its kubelet, Docker or systemd sees it."""
    keys = host.kubelet or KubeletKeys.model_validate({})
    spec = keys.spec(host.runtime)
    node = Node(mem_total_pages(host.memory) * PAGE, keys.kube_reserved, keys.system_reserved, spec.eviction_hard_bytes)
    return NodeOptions(
        node,
        host.swap_bytes,
        host.cpus,
        host.runtime,
        keys.memory_qos,
        keys.memory_throttling_percent * 10,
        keys.swap_behavior == "LimitedSwap",
        keys.single_process_oom_kill,
        spec,
    )


def read_pod(entry: Mapping[str, Any], source: Source, place: Place) -> Pod:
    """One pod entry, in the short or the long form."""
    if "containers" not in entry:
        keys, arguments = _with_workload(PodKeys, entry, source, place, "a pod")
        rest = _of_pod(keys)
        if "restart" not in keys.model_fields_set and not all(process.restarts for process in arguments.processes(keys.name)):
            rest["restart"] = "OnFailure"  # it ends by itself: a Job
        return Pod(keys.name, keys.workload, arguments, keys.requests, keys.limits, probes=keys.probes, swap=keys.swap, **rest)
    if "workload" in entry:
        raise source.refuse(
            (*place, "workload"), "a pod has either 'workload' or 'containers'; put the workload into an entry of 'containers'"
        )
    pod = build(PodOfContainersKeys, entry, source, place, "a pod with containers")
    containers = tuple(read_container(one, source, (*place, "containers", number)) for number, one in enumerate(pod.containers))
    names = [one.name for one in containers]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise source.refuse(
                (*place, "containers", number, "name"), f"two containers of pod {pod.name!r} are called {name!r}; rename one"
            )
    main = [one for one in containers if not one.init]
    if not main:
        raise source.refuse((*place, "containers"), f"pod {pod.name!r} has init containers only; add one that is not")
    first = main[0]
    return Pod(pod.name, first.workload, first.arguments, first.requests, first.limits, several=containers, **_of_pod(pod))


def read_deployment(entry: Mapping[str, Any], source: Source, place: Place) -> Deployment:
    own = set(DeploymentKeys.model_fields)
    keys = build(DeploymentKeys, {key: value for key, value in entry.items() if key in own}, source, place, "a deployment")
    template = read_pod({key: value for key, value in entry.items() if key not in own or key == "name"}, source, place)
    if template.restart != "Always":
        raise source.refuse((*place, "restart"), "pods of a deployment are always restarted; take 'restart' out")
    return Deployment(keys.name, template, keys.replicas, keys.max_unavailable, keys.max_surge, tuple(sorted(keys.restarts)))


def _of_pod(keys: OfPod) -> dict[str, Any]:
    return {
        "numa_node": keys.numa_node,
        "restart": keys.restart_policy,
        "max_retries": keys.max_retries,
        "oom_policy": keys.oom_policy,
        "priority": keys.priority,
        "grace_s": keys.grace // NS_PER_S,
        "pre_stop_s": keys.pre_stop // NS_PER_S,
        "empty_dirs": keys.empty_dirs,
    }


def read_container(entry: Mapping[str, Any], source: Source, place: Place) -> Container:
    keys, arguments = _with_workload(ContainerKeys, entry, source, place, "a container")
    return Container(keys.name, keys.workload, arguments, keys.requests, keys.limits, keys.probes, keys.init, keys.swap)


def _with_workload(model: type[Any], entry: Mapping[str, Any], source: Source, place: Place, what: str) -> tuple[Any, PodWorkload]:
    """The keys of an entry come from two models: its own, and its workload's arguments."""
    own = set(model.model_fields)
    workload = entry.get("workload")
    keys = build(model, {key: value for key, value in entry.items() if key in own}, source, place, what)
    if workload not in WORKLOADS:
        raise source.refuse((*place, "workload"), unknown_name("workload", keys.workload, WORKLOADS))
    arguments = WORKLOADS[keys.workload]
    rest = {key: value for key, value in entry.items() if key not in own}
    what = f"{what} with workload {keys.workload}"
    refuse_unknown(rest, arguments, [*own, *field_names(arguments)], source, place, what)
    return keys, build(arguments, rest, source, place, what)


def field_names(model: Any) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def refuse_unknown(rest: Mapping[str, Any], model: Any, known: list[str], source: Source, place: Place, what: str) -> None:
    """The keys of an entry come from two models; a sentence about an unknown one lists both."""
    for key in rest:
        if key not in field_names(model):
            raise source.refuse((*place, key), unknown_key(key, what, sorted(known)))


def check_pod(pod: Pod, host: HostKeys, source: Source, place: Place) -> None:
    if pod.numa_node is not None and pod.numa_node >= host.numa_nodes:
        raise source.refuse((*place, "numa_node"), f"'numa_node' is {pod.numa_node}, but its host has one NUMA node; add numa_nodes: 2")
    for number, container in enumerate(pod.containers):
        where: Place = (*place, "containers", number) if pod.several else place
        _check_container(pod, container, host, source, where)
    for path in pod.files:
        if path not in host.files:
            files = ", ".join(host.files) or "none"
            raise source.refuse(
                place,
                f"pod {pod.name!r} reads {path!r}, which is not among the host's files ({files}); "
                f"add files: {{{path}: 1GiB}} to the host group",
            )
    if host.runtime != "kubernetes":
        _check_without_kubernetes(pod, host.runtime, source, place)


def _check_without_kubernetes(pod: Pod, runtime: str, source: Source, place: Place) -> None:
    if pod.several:
        raise source.refuse((*place, "containers"), f"{runtime} knows no pods; write each container as an entry of its own")
    if pod.probes:
        raise source.refuse((*place, pod.probes[0].kind), f"{runtime} has no {pod.probes[0].kind} probes; take it out")
    if pod.pre_stop_s:
        raise source.refuse((*place, "pre_stop"), f"{runtime} has no preStop hook; take it out, or give a server 'finish'")
    if pod.priority:
        raise source.refuse((*place, "priority"), f"{runtime} evicts nobody, so nothing has a 'priority'; take it out")


def _check_container(pod: Pod, one: Container, host: HostKeys, source: Source, place: Place) -> None:
    whose = f"pod {pod.name!r}" if not pod.several else f"container {one.name!r} of pod {pod.name!r}"
    for name, value in (("limits", one.limits), ("requests", one.requests)):
        if value is not None and value > host.memory:
            raise source.refuse(
                (*place, name),
                f"{name!r} of {whose} is {show_bytes(value)}, above the host's memory of {show_bytes(host.memory)}; "
                f"write at most {show_bytes(host.memory)}",
            )
    if one.requests is not None and one.limits is not None and one.requests > one.limits:
        raise source.refuse(
            (*place, "requests"),
            f"'requests' of {whose} is {show_bytes(one.requests)}, above its limits of {show_bytes(one.limits)}; "
            f"write at most {show_bytes(one.limits)}",
        )


def check_pods(pods: tuple[Pod, ...], host: HostKeys, source: Source, place: Place) -> None:
    """What one pod cannot know of the others: names, and whether a scheduler would place them all."""
    names: set[str] = set()
    tasks: dict[str, str] = {}
    for index, pod in enumerate(pods):
        where = (*place, "pods", index)
        if pod.name in names:
            raise source.refuse((*where, "name"), f"two pods of this host group are called {pod.name!r}; give each its own name")
        names.add(pod.name)
        for process in pod.processes:
            if process.name in tasks:
                raise source.refuse(
                    where, f"pods {tasks[process.name]!r} and {pod.name!r} both have a process {process.name!r}; names are unique on a host"
                )
            tasks[process.name] = pod.name
    requested = sum(pod.request_bytes or 0 for pod in pods)
    allocatable = node_options(host).node.allocatable
    if host.runtime == "kubernetes" and requested > allocatable:
        raise source.refuse(
            (*place, "pods"),
            f"the pods of a {host.name!r} host request {show_bytes(requested)} together, more than it can give: of its "
            f"{show_bytes(host.memory)} {allocatable >> 20}MiB are allocatable; no scheduler would place them",
        )
