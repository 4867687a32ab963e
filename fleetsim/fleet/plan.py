# SPDX-License-Identifier: Apache-2.0
"""Scenario + seed → plan: every host, every fault with the very targets it hits, every expectation with the hosts it means.

Rules: a plan holds no state and no luck is left to draw: two engines that are given the same plan do the same. Whatever can be
wrong with a target is told here, before anything is started.
Leaves out: doing it (`controller.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from fleetsim.containers.load import Slo
from fleetsim.containers.pod import Pod, pod_cgroup
from fleetsim.containers.pod_spec import PodSpecs, cgroup_of
from fleetsim.containers.workload import ServerWorkload
from fleetsim.errors import BadInput
from fleetsim.faults.base import Fault, Target
from fleetsim.fleet.capacity import TooMuch, size_class_for, without_effect
from fleetsim.fleet.deployments import ControlPlane, deployment_of, may_come
from fleetsim.fleet.expectations import expectations_of
from fleetsim.fleet.hosts import START_UNIX_S, control_planes, host_specs, pod_names, pods_by_host, roster_of
from fleetsim.fleet.pods import node_options
from fleetsim.fleet.scenario import Group, Scenario, TimelineEntry
from fleetsim.fleet.services import HealthCheck, Service
from fleetsim.fleet.targets import Chosen, Roster, Subject, resolve
from fleetsim.host.spec import Command, HostSpec
from fleetsim.law import SIZE_CLASSES, size_class_asked_for
from fleetsim.linux import sysctl
from fleetsim.observe.targets import ScrapeTarget, TargetTemplate, make_target
from fleetsim.rundir.models import Expectation, Placement

PodsByHost = dict[str, tuple[Pod, ...]]
SCRAPE_INTERVAL_MS = 15_000
"""kube-prometheus' interval for node-exporter."""


@dataclass(frozen=True)
class PlannedFault:
    """One timeline entry, resolved. `end_ns` None: it lasts to the end of the run."""

    id: str
    kind: str
    fault: Fault
    parameters: dict[str, Any]
    chosen: Chosen
    on: str
    start_ns: int
    end_ns: int | None
    targets: tuple[Target, ...]
    line: int
    deployment: str = ""  # the one that is aimed at as a whole: its pods have the fault, whichever they are by then (following.py)

    def inject(self) -> list[Command]:
        return [command for target in self.targets for command in self.fault.inject(target, self.start_ns)]

    def clear(self) -> list[Command]:
        return [] if self.end_ns is None else [c for target in self.targets for c in self.fault.clear(target, self.end_ns)]

    def history_data(self) -> dict[str, Any]:
        """What the history says at its start and end: all that the judge will know of it."""
        subjects = [name for target in self.targets for name in dict.fromkeys((target.pod or self.id, *target.tasks))]
        subjects += [self.deployment] if self.deployment else []
        return {
            "fault": self.kind,
            "parameters": self.parameters,
            "hosts": self.chosen.hosts,
            "subjects": list(dict.fromkeys(subjects)),
            "harm": self.fault.harm,
        }


@dataclass(frozen=True)
class Plan:
    scenario: Scenario
    seed: int
    duration_ns: int
    start_unix_s: int
    hosts: tuple[HostSpec, ...]
    scrape_targets: tuple[ScrapeTarget, ...]  # one exporter per host, in the order of the hosts
    scrape_interval_ms: int
    faults: tuple[PlannedFault, ...]
    expectations: tuple[Expectation, ...]
    services: tuple[Service, ...]
    loads: tuple[Command, ...]  # recorded loads of single pods
    size_class: str  # the one that its largest host needs (linux/capacity_classes.py), or that the environment names
    notes: tuple[str, ...]  # what the user should know before trusting the result
    changes: tuple[Command, ...] = ()  # what a what-if does besides (fleet/whatif.py)

    def pod_placements(self) -> Iterator[Placement]:
        """Where pods stand when the run begins. (Made when asked for: a large fleet has many.)"""
        return (Placement(kind="pod", name=name, host=spec.name) for spec in self.hosts for name in pod_names(spec))

    def service_placements(self) -> Iterator[Placement]:
        for service in self.services:
            yield from (Placement(kind="service", name=service.name, host=host) for host in dict.fromkeys(h for h, _ in service.replicas))

    def placements(self) -> Iterator[Placement]:
        return chain(self.pod_placements(), self.service_placements())

    def control_planes(self) -> list[ControlPlane]:
        """Those who look after Deployments, as they are before the first event."""
        return control_planes(self.scenario, self.seed)

    def commands(self) -> list[Command]:
        """Everything that the timeline does to hosts, in order of time; but for what is aimed at Deployments, whose pods come and go."""
        every = [command for fault in self.faults if not fault.deployment for command in (*fault.inject(), *fault.clear())]
        every += (*self.loads, *self.changes)
        return sorted(every, key=lambda command: command.t_ns)  # stable: one instant keeps the order of the file


def make_plan(scenario: Scenario, seed: int | None = None, job: str = TargetTemplate.job) -> Plan:
    """The plan of `scenario`; `seed` overrides the scenario's own. `job`: of the scrape targets whose group names none."""
    seed = scenario.keys.seed if seed is None else seed
    planes = control_planes(scenario, seed)
    pods = pods_by_host(scenario, planes)
    roster = roster_of(scenario, planes)
    chosen = _choose(scenario, roster, seed)
    groups = {host: group for group in scenario.groups for host in group.host_names}
    faults = tuple(
        _planned(scenario, number, entry, picked, groups, pods, roster)
        for number, (entry, picked) in enumerate(zip(scenario.timeline, chosen, strict=True), 1)
    )
    files: dict[str, dict[str, int]] = {}
    for fault in faults:
        for host in _hosts_of(fault, scenario):
            files.setdefault(host, {}).update(fault.fault.files())
    hosts = tuple(spec for group in scenario.groups for spec in host_specs(group, pods, files))
    return Plan(
        scenario=scenario,
        seed=seed,
        duration_ns=scenario.keys.duration,
        start_unix_s=START_UNIX_S,
        hosts=hosts,
        scrape_targets=tuple(_scrape_target(scenario, host, group, job) for host, group in groups.items()),
        scrape_interval_ms=SCRAPE_INTERVAL_MS,
        faults=faults,
        expectations=tuple(expectations_of(scenario, roster, faults)),
        services=tuple(_service(scenario, number, roster, pods) for number in range(len(scenario.keys.services))),
        loads=tuple(_loads(groups, scenario.keys.duration)),
        size_class=_size_class(scenario, groups, hosts, faults, pods),
        notes=(
            *without_effect(hosts, [command for fault in faults for command in fault.inject()]),
            *(note for plane in planes for note in plane.pending_at_first()),
            *_some_of_a_deployment(faults, roster),
        ),
    )


def _hosts_of(fault: PlannedFault, scenario: Scenario) -> list[str]:
    """Hosts that the fault may hit."""
    groups = [group for group in scenario.groups if fault.deployment in {one.name for one in group.deployments}]
    return [host for group in groups for host in group.host_names] or fault.chosen.hosts


def _some_of_a_deployment(faults: tuple[PlannedFault, ...], roster: Roster) -> list[str]:
    """One sentence for each fault that is aimed at a part of a Deployment's pods."""
    placed = {subject: name for name, subjects in roster.placed.items() for subject in subjects}
    return [
        f"{fault.id} hits the pods of {name} that 'on: {fault.on}' chose when the run began, and not those that replace them; "
        f"'on: {name}' means all of them, whichever they are"
        for fault in faults
        if not fault.deployment
        for name in dict.fromkeys(placed[subject] for subject in fault.chosen.subjects if subject in placed)
    ]


def _size_class(
    scenario: Scenario, groups: dict[str, Group], hosts: tuple[HostSpec, ...], faults: tuple[PlannedFault, ...], pods: PodsByHost
) -> str:
    """The size class that every host fits into, with the replicas that may come to it later if there is one for that; BadInput names
    the group that fits into none."""
    chosen = size_class_asked_for()
    wanted = chosen or "standard"
    commands: dict[str, list[Command]] = {}
    for fault in faults:
        for command in (*fault.inject(), *fault.clear()):
            commands.setdefault(command.host, []).append(command)
    checked: set[tuple[int, tuple[str, ...]]] = set()
    for spec in hosts:
        group = groups[spec.name]
        placed = tuple(sorted(deployment_of(pod.name) or "" for pod in pods[spec.name][len(group.pods) :]))
        if spec.name in commands or (id(group), placed) not in checked:  # hosts of a group differ by their faults and replicas only
            told = commands.get(spec.name, ())
            found = size_class_for(spec, told, chosen)
            if isinstance(found, TooMuch):
                raise scenario.source.refuse(group.place, found.sentence)
            wanted = max(wanted, found, key=SIZE_CLASSES.index)
            if chosen is None and (more := may_come(group.deployments, pods[spec.name], node_options(group.keys))):
                full = replace(spec, pods=PodSpecs(spec.name, (*pods[spec.name], *more), node_options(group.keys)))
                fuller = size_class_for(full, told)
                wanted = SIZE_CLASSES[-1] if isinstance(fuller, TooMuch) else max(wanted, fuller, key=SIZE_CLASSES.index)
            checked.add((id(group), placed))
    return wanted


def _choose(scenario: Scenario, roster: Roster, seed: int) -> list[Chosen]:
    """Whom each timeline entry hits. `the target` and `everyone else` look back at the entries before."""
    hit: list[Subject] = []
    result: list[Chosen] = []
    for index, entry in enumerate(scenario.timeline):
        try:
            chosen = resolve(entry.keys.on, roster, seed, f"timeline/{index}", hit)
        except ValueError as error:
            raise scenario.source.refuse((*entry.place, "on"), f"'on' is {entry.keys.on!r}; {error}") from None
        if not chosen.subjects:
            raise scenario.source.refuse(
                (*entry.place, "on"), f"'on' is {entry.keys.on!r}, which is nobody here; name a group, a pod or a host"
            )
        hit += chosen.subjects
        result.append(chosen)
    return result


def _planned(
    scenario: Scenario, number: int, entry: TimelineEntry, chosen: Chosen, groups: dict[str, Group], pods: PodsByHost, roster: Roster
) -> PlannedFault:
    keys = entry.keys
    fault_id = f"{keys.fault}-{number}"

    def aimed_at(subject: Subject) -> Target:
        pod = next((pod for pod in pods[subject.host] if pod.name == subject.pod), None)
        return target_of(fault_id, subject.host, groups[subject.host], pod)

    targets = tuple(aimed_at(subject) for subject in chosen.subjects)
    for target in targets:
        if (reason := entry.fault.refuse(target)) is not None:
            raise scenario.source.refuse((*entry.place, "on"), f"'on' is {keys.on!r}; {reason}")
    end_ns = None if keys.for_ is None or keys.at + keys.for_ >= scenario.keys.duration else keys.at + keys.for_
    return PlannedFault(
        id=fault_id,
        kind=keys.fault,
        fault=entry.fault,
        parameters=entry.fault.model_dump(mode="json"),
        chosen=chosen,
        on=keys.on,
        start_ns=keys.at,
        end_ns=end_ns,
        targets=targets,
        line=scenario.source.line(entry.place),
        deployment=keys.on.strip() if keys.on.strip() in roster.placed else "",
    )


def target_of(fault_id: str, host: str, group: Group, pod: Pod | None) -> Target:
    """What a fault may know of the one it hits: a pod, or (None) the host."""
    keys = group.keys
    settings = {**sysctl.defaults(), **keys.sysctl}
    if pod is None:
        return Target(fault_id, host, keys.memory, keys.swap_bytes, settings=settings)
    first = pod.main
    tasks = tuple(process.name for process in pod.processes_of(first))
    beside = [one.limits for one in pod.containers if not one.init and one is not first]
    return Target(
        fault_id,
        host,
        keys.memory,
        keys.swap_bytes,
        pod=pod.name,
        task=tasks[0],
        tasks=tasks,
        cgroup=cgroup_of(host, pod, first, node_options(keys)),
        pod_cgroup=pod_cgroup(host, pod) if keys.runtime == "kubernetes" else "",
        limit_bytes=first.limits,
        beside_bytes=sum(limit or 0 for limit in beside) if all(beside) else None,
        settings=settings,
    )


def _loads(groups: dict[str, Group], duration_ns: int) -> Iterator[Command]:
    for host, group in groups.items():
        for task, steps in (step for pod in group.pods for step in _recorded(pod)):
            for t_ns, rate in steps:
                if t_ns < duration_ns:
                    yield Command(t_ns, host, "load", {"task": task, "rate_milli": rate}, author="load")


def _recorded(pod: Pod) -> Iterator[tuple[str, tuple[tuple[int, int], ...]]]:
    """The processes of a pod with a recorded load, and its steps."""
    for container in pod.containers:
        if isinstance(container.arguments, ServerWorkload) and container.arguments.load is not None:
            yield pod.processes_of(container)[0].name, container.arguments.load.steps


def _service(scenario: Scenario, number: int, roster: Roster, pods: PodsByHost) -> Service:
    keys = scenario.keys.services[number]
    slos: list[Slo | None] = []
    placed = [(s.host, pod) for s in roster.services[keys.name] for pod in pods[s.host] if pod.name == s.pod]
    templates = [one.template for group in scenario.groups for one in group.deployments if one.name == keys.pods]
    for pod in templates or [pod for _, pod in placed]:
        if not isinstance(pod.arguments, ServerWorkload) or pod.arguments.load is not None:
            wrong = "has a load of its own; take that out" if isinstance(pod.arguments, ServerWorkload) else "does not serve requests"
            raise scenario.source.refuse(("services", number, "pods"), f"pod {pod.name!r} of service {keys.name!r} {wrong}")
        slos.append(pod.arguments.slo)
    slo = slos[0]
    return Service(
        name=keys.name,
        replicas=tuple((host, pod.serving_task) for host, pod in placed),
        load=keys.load,
        balance=keys.balance,
        check=HealthCheck(keys.health.every, keys.health.timeout, keys.health.unhealthy, keys.health.healthy),
        retries=keys.retries,
        retry_budget_permille=round(10 * keys.retry_budget),
        panic=keys.panic,
        has_slo=slo is not None,
        slo_permille=10 if slo is None else round(1000 - 10 * slo.share),
        deployment=keys.pods if templates else "",
        drain_ns=keys.drain,
        connections=keys.connections,
        connection_age_ns=keys.connection_age,
    )


def _scrape_target(scenario: Scenario, host: str, group: Group, job: str) -> ScrapeTarget:
    labels = {"job": job, "instance": TargetTemplate.instance, **group.keys.labels}
    further = {name: text for name, text in labels.items() if name not in ("job", "instance")}
    try:
        return make_target(host, group.keys.name, TargetTemplate(job=labels["job"], instance=labels["instance"], labels=further))
    except BadInput as error:
        raise scenario.source.refuse((*group.place, "labels"), error.sentence) from None
