# SPDX-License-Identifier: Apache-2.0
"""The control plane's way through virtual time: the plan's commands out, the hosts' events in, look by look.

Rules: hosts run alone for as long as nothing couples them. What couples them is a service with replicas on several (its load balancer
acts every second), and a fault that comes back when its target is
restarted (a leak is in the program): while one is open the epoch is one second, and a restarted target has its fault
again at the end of the epoch. No clock of this machine decides anything. All that is known between two looks is in a `Course`, whose
state is what a checkpoint keeps beside the hosts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fleetsim.fleet import following
from fleetsim.fleet.deployments import endpoints_of
from fleetsim.fleet.engine import EPOCH_NS, Mover
from fleetsim.fleet.history import History
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.services import Balancers
from fleetsim.fleet.whereabouts import Whereabouts
from fleetsim.host.ports import PORT
from fleetsim.host.spec import Command, Event
from fleetsim.rundir.models import HistoryEvent
from fleetsim.units import NS_PER_S

LOOK_NS = 60 * NS_PER_S
"""The longest that hosts run between two looks; short enough for a progress bar."""


KEPT = ("now_ns", "epochs", "waiting", "planes", "balancers", "whereabouts")


class Course:
    """What the control plane knows between two looks."""

    def __init__(self, plan: Plan) -> None:
        self.now_ns = 0
        self.epochs = 0
        self.waiting = plan.commands()
        self.planes = plan.control_planes()
        replicas = sum(len(service.replicas) for service in plan.services)
        self.balancers = Balancers(plan.services, np.zeros(replicas, PORT), plan.start_unix_s * NS_PER_S)
        self.history = History(plan)
        self.whereabouts = Whereabouts()

    def state(self) -> dict[str, Any]:
        """All but the events of the history, which only grow and are kept apart."""
        known = {name: getattr(self, name) for name in KEPT}
        return {**known, "history": self.history.state()}

    def resume(self, state: Mapping[str, Any], events: Iterable[HistoryEvent], engine: Mover) -> None:
        for name in KEPT:
            setattr(self, name, state[name])
        if self.balancers.replicas:
            engine.follow(self.balancers.replicas)
        self.history.resume(state["history"], events)

    def replan(self, before: Plan, plan: Plan) -> None:
        """From now on `plan` holds, which differs from the one `before` only in what is still to come."""
        planned = [command for command in before.commands() if command.t_ns >= self.now_ns]
        found = 0
        others = []  # that the control plane itself has asked for; what was planned waits among them in its own order
        for command in self.waiting:
            if found < len(planned) and command == planned[found]:
                found += 1
            else:
                others.append(command)
        assert found == len(planned), "what was planned still waits"
        self.waiting = sorted([*others, *(c for c in plan.commands() if c.t_ns >= self.now_ns)], key=_when)
        self.balancers.replan(plan.services)
        self.history.replan(plan)


def nobody(course: Course) -> None:
    """Nobody looks."""


def run_timeline(plan: Plan, engine: Mover, course: Course, looked: Callable[[Course], None] = nobody) -> None:
    """Move all hosts from where they are to the end; `looked` is told of every epoch, and may end it all by raising."""
    while course.now_ns < plan.duration_ns:
        until_ns = next_look(plan, course.now_ns)
        if begins_or_ends := following.due(plan, course.planes, course.now_ns, until_ns):
            course.waiting = sorted([*begins_or_ends, *course.waiting], key=_when)
        cut = bisect_left(course.waiting, until_ns, key=_when)
        due, course.waiting = course.waiting[:cut], course.waiting[cut:]
        rates = course.balancers.rates(course.now_ns, until_ns - course.now_ns) if plan.services else None
        events = engine.advance(until_ns, due, rates)
        if plan.services:
            events += course.balancers.look(engine.ports(), until_ns)
        course.history.take(events)
        course.whereabouts.take(events)
        again = _faults_again(plan, events, until_ns)
        for plane in course.planes:
            commands, told = plane.react(events, until_ns)
            again += commands
            course.history.tell(told)
        commands, told = following.come(plan, course.planes, events, until_ns)
        again += commands
        course.history.tell(told)
        again += course.balancers.commands()
        if any(plane.changed for plane in course.planes) and course.balancers.follow(endpoints_of(course.planes), until_ns):
            engine.follow(course.balancers.replicas)
        if again:
            course.waiting = sorted([*again, *course.waiting], key=_when)
        course.now_ns = until_ns
        course.epochs += 1
        looked(course)


def _when(command: Command) -> int:
    return command.t_ns


def next_look(plan: Plan, now_ns: int) -> int:
    """One epoch while somebody has to react (load balancers, Deployments, an open fault that returns), else to where that begins, a
    minute at most."""
    if plan.services or any(group.deployments for group in plan.scenario.groups):
        return min(now_ns + EPOCH_NS, plan.duration_ns)
    returning = [fault for fault in plan.faults if fault.fault.returns_after_restart]
    if any(following.is_open(fault, now_ns) for fault in returning):
        return min(now_ns + EPOCH_NS, plan.duration_ns)
    opens = [fault.start_ns for fault in returning if fault.start_ns > now_ns]
    return min([now_ns + LOOK_NS, plan.duration_ns, *opens])


def _faults_again(plan: Plan, events: list[Event], at_ns: int) -> list[Command]:
    """A restarted process has its leak again."""
    restarts = [event for event in events if event.kind == "restart"]
    if not restarts:
        return []
    return [
        command
        for fault in plan.faults
        if fault.fault.returns_after_restart and not fault.deployment and following.is_open(fault, at_ns)
        for target in fault.targets
        if any(e.host == target.host and e.subject == target.task and e.t_ns >= fault.start_ns for e in restarts)
        for command in fault.fault.inject(target, at_ns)
    ]
