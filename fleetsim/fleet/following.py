# SPDX-License-Identifier: Apache-2.0
"""Faults that are aimed at a whole Deployment: what is wrong is its template, so every pod of it has the fault while it is on.

    begins, ends       commands for the pods that are on hosts by then (`due`)
    in between         commands for a pod that has come, and for a process that has started again with its leak (`come`)

Rules: pods are those that the control plane knows at a look; one that comes later is hit at the look that sees it. Whom the fault has
reached besides those that were there at first is told to the history (`fault_reach`), as whoever judges cannot know it otherwise.
Leaves out: faults aimed at some of a Deployment's pods: they are chosen when the plan is made, and end with them (the plan says so).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fleetsim.faults.base import Target
from fleetsim.fleet.deployments import ControlPlane
from fleetsim.fleet.plan import Plan, PlannedFault, target_of
from fleetsim.host.spec import Command, Event


def is_open(fault: PlannedFault, t_ns: int) -> bool:
    return fault.start_ns <= t_ns and (fault.end_ns is None or t_ns < fault.end_ns)


def targets(plan: Plan, fault: PlannedFault, planes: Sequence[ControlPlane]) -> Iterator[Target]:
    """The pods of the fault's Deployment that hosts have now."""
    groups = {group.host_names[0]: group for group in plan.scenario.groups}
    for plane in planes:
        group = groups[next(iter(plane.nodes))]
        for rollout in plane.rollouts:
            if rollout.deployment.name == fault.deployment:
                for placed in rollout.pods.values():
                    if placed.host is not None and placed.arrived:
                        yield target_of(fault.id, placed.host, group, placed.pod)


def due(plan: Plan, planes: Sequence[ControlPlane], now_ns: int, until_ns: int) -> list[Command]:
    """What begins or ends before `until_ns`."""
    commands: list[Command] = []
    for fault in plan.faults:
        if fault.deployment and now_ns <= fault.start_ns < until_ns:
            commands += [c for target in targets(plan, fault, planes) for c in fault.fault.inject(target, fault.start_ns)]
        if fault.deployment and fault.end_ns is not None and now_ns <= fault.end_ns < until_ns:
            commands += [c for target in targets(plan, fault, planes) for c in fault.fault.clear(target, fault.end_ns)]
    return commands


def come(plan: Plan, planes: Sequence[ControlPlane], events: Sequence[Event], at_ns: int) -> tuple[list[Command], list[Event]]:
    """For the pods that have come, and the processes that have started again, by `at_ns`: commands, and what the history is told."""
    commands: list[Command] = []
    told: list[Event] = []
    arrived = {(event.host, event.subject) for event in events if event.kind == "schedule"}
    for fault in plan.faults:
        if not fault.deployment or not is_open(fault, at_ns):
            continue
        again = {(e.host, e.subject) for e in events if e.kind == "restart" and e.t_ns >= fault.start_ns}
        for target in targets(plan, fault, planes):
            if (target.host, target.pod) in arrived:
                commands += fault.fault.inject(target, at_ns)
                reached = {"fault": fault.id, "hosts": [target.host], "subjects": list(dict.fromkeys((target.pod, *target.tasks)))}
                told.append(Event(at_ns, "", 0, "fault_reach", fault.kind, reached))
            elif fault.fault.returns_after_restart and (target.host, target.task) in again:
                commands += fault.fault.inject(target, at_ns)
    return commands, told
