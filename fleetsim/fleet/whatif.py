# SPDX-License-Identifier: Apache-2.0
"""A plan in which something is otherwise from an instant on: the words of `--set` and `--drop-fault`, and what they make of a plan.

    vm.swappiness=1                 a kernel setting of the hosts (any that a scenario can set)
    pod/NAME.limits=2GiB            memory.max of the pod's container, and of the pod as the kubelet adds it up; max: none
    pod/NAME.memory.high=1GiB       another file of the container's cgroup: memory.high, .low, .min, .swap.max, .swap.high, .zswap.max
    pod/NAME.load=40/s              requests that come to it
    service/NAME.load=200/s         … to a service, from the balancer's next second on

NAME is what a target may be: a pod, group/pod, host/pod; pod/NAME/CONTAINER names one of several containers.
Rules: nothing is different before that instant, and `what_if` of a plan is a plan: run from the beginning, it does what the branch does.
Leaves out: arguments of a workload (a program reads them when it starts), pods of Deployments (who stands where is decided in the run);
what the kubelet and a JVM have made of a limit when they started (eviction order, heap size) stays as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from fleetsim.containers.load import Load, rate_milli
from fleetsim.containers.pod_spec import SYSTEM
from fleetsim.errors import BadInput
from fleetsim.fleet.hosts import control_planes, roster_of
from fleetsim.fleet.plan import Plan, PlannedFault
from fleetsim.fleet.refusal import did_you_mean
from fleetsim.fleet.services import Service
from fleetsim.fleet.targets import Roster, Subject
from fleetsim.host.spec import Command, ContainerSpec, HostSpec, PodSpec
from fleetsim.linux import sysctl
from fleetsim.units import show_duration, size_bytes

NO_LIMIT = -1  # "max" in the interface file
FILES = ("memory.max", "memory.high", "memory.low", "memory.min", "memory.swap.max", "memory.swap.high", "memory.zswap.max")
CAN_BE_SET = (
    "a kernel setting (vm.swappiness=1), pod/NAME.limits=2GiB, a file of its cgroup (pod/NAME.memory.high=1GiB), "
    "pod/NAME.load=40/s or service/NAME.load=40/s"
)
_OF_SOMEBODY = re.compile(r"(?P<kind>pod|service)/(?P<name>[^.]+)\.(?P<key>\S+)")
AUTHOR = "whatif"


@dataclass(frozen=True)
class Change:
    """What is otherwise, as it was asked for. `on`: a host or a host group, None: all whom it fits."""

    sets: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    on: str | None = None

    def words(self) -> list[str]:
        """For people."""
        where = "" if self.on is None else f" on {self.on}"
        return [f"{one}{where}" for one in self.sets] + [f"without {name}" for name in self.dropped]


def what_if(plan: Plan, at_ns: int, change: Change) -> Plan:
    """`plan`, but from `at_ns` on with the change; BadInput says what of it cannot be."""
    if at_ns >= plan.duration_ns:
        raise BadInput(
            f"--at is {show_duration(at_ns)}, but the run ends at {show_duration(plan.duration_ns)}; name an instant before that"
        )
    changed = _Changed(plan, at_ns, change.on)
    for text in change.sets:
        changed.set(text)
    for name in change.dropped:
        changed.drop(name)
    return changed.plan


class _Changed:
    def __init__(self, plan: Plan, at_ns: int, on: str | None) -> None:
        self.plan, self.original, self.at_ns = plan, plan, at_ns
        self.roster: Roster = roster_of(plan.scenario, control_planes(plan.scenario, plan.seed))
        self.on = on
        self.limits: dict[str, int] = {}  # memory.max of containers that was set, by cgroup
        self.hosts = [spec.name for spec in plan.hosts]
        if on is not None:
            try:
                self.hosts = list(dict.fromkeys(subject.host for subject in self.roster.named(on)))
            except ValueError as error:
                raise BadInput(f"--on is {on!r}; {error}") from None

    # --- --set -----------------------------------------------------------------------------------------------------------

    def set(self, text: str) -> None:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise BadInput(f"--set is {text!r}; write NAME=VALUE; what can be set: {CAN_BE_SET}")
        match = _OF_SOMEBODY.fullmatch(name)
        try:
            if match is None:
                self._sysctl(name, value)
            elif match["kind"] == "service":
                self._service(match["name"], match["key"], value)
            else:
                self._pod(match["name"], match["key"], value)
        except ValueError as error:
            raise BadInput(f"--set is {text!r}; {error}") from None

    def _sysctl(self, name: str, value: str) -> None:
        if name not in sysctl.SYSCTLS:
            raise ValueError(f"{name!r} cannot be set{did_you_mean(name, sysctl.SYSCTLS)}; what can be set: {CAN_BE_SET}")
        number = int(value) if re.fullmatch(r"-?[0-9]{1,18}", value) else value
        try:
            sysctl.validate(name, number)
        except BadInput as error:
            raise ValueError(error.sentence) from None
        self._do(Command(self.at_ns, host, "sysctl", {"name": name, "value": number}, AUTHOR) for host in self.hosts)

    def _service(self, name: str, key: str, value: str) -> None:
        services = {service.name: service for service in self.plan.services}
        if name not in services:
            raise ValueError(f"no service is called {name!r}; " + (f"known are {', '.join(services)}" if services else "there is none"))
        if key != "load":
            raise ValueError(f"of a service only its load can be set: service/{name}.load=40/s")
        if self.on is not None:
            raise ValueError("a service is not on one host; take --on out")
        load = Load.model_validate({"low": value, "high": value} if rate_milli(value) >= 0 else {})
        service = services[name]
        changed: Service = replace(service, later=(*service.later, (self.at_ns, load)))
        self.plan = replace(self.plan, services=tuple(changed if one is service else one for one in self.plan.services))

    def _pod(self, name: str, key: str, value: str) -> None:
        wanted, container = self._subjects(name)
        if key == "load":
            return self._pod_load(name, wanted, rate_milli(value))
        file = "memory.max" if key == "limits" else key
        if file not in FILES:
            raise ValueError(f"{key!r} of a pod cannot be set; what can: limits, load, {', '.join(FILES)}")
        limit = NO_LIMIT if value == "max" else size_bytes(0 if value == "0" else value)
        if limit == 0 and file == "memory.max":
            raise ValueError("a limit of 0 kills everybody; write a size such as 512MiB, or max")
        for subject in wanted:
            spec = next(pod for pod in self._host(subject.host).pods if pod.name == subject.pod)
            one = _container(spec, container)
            self._do([self._limit(subject.host, one.cgroup, file, limit)])
            if file == "memory.max" and spec.cgroup != SYSTEM:  # only in Kubernetes there is a cgroup around the pod's containers
                self.limits[one.cgroup] = limit
                limits = [self.limits.get(c.cgroup, c.limit_bytes or NO_LIMIT) for c in spec.containers if not c.init]
                whole = NO_LIMIT if NO_LIMIT in limits else sum(limits)
                self._do([self._limit(subject.host, spec.cgroup, file, whole)])
        return None

    def _pod_load(self, name: str, wanted: list[Subject], rate: int) -> None:
        served = {replica: service.name for service in self.plan.services for replica in service.replicas}
        silenced = set()
        for subject in wanted:
            spec = next(pod for pod in self._host(subject.host).pods if pod.name == subject.pod)
            tasks = [task.name for c in spec.containers for task in c.tasks if task.work is not None and task.work.requests is not None]
            if not tasks:
                raise ValueError(f"pod {name!r} does not serve requests, so it has no load")
            if (subject.host, tasks[0]) in served:
                service = served[subject.host, tasks[0]]
                raise ValueError(f"pod {name!r} gets its load from service {service!r}; set service/{service}.load")
            silenced.add((subject.host, tasks[0]))
            self._do([Command(self.at_ns, subject.host, "load", {"task": tasks[0], "rate_milli": rate}, AUTHOR)])
        kept = tuple(c for c in self.plan.loads if c.t_ns < self.at_ns or (c.host, c.args["task"]) not in silenced)
        self.plan = replace(self.plan, loads=kept)  # a recorded load ends here

    def _subjects(self, name: str) -> tuple[list[Subject], str | None]:
        """The pods called `name`, and the container that it names of each, if it does."""
        container = None
        if name in self.roster.placed:
            raise ValueError(f"{name!r} is a Deployment, whose pods come and go; set a kernel setting of its hosts, or name another pod")
        try:
            found = self.roster.named(name)
        except ValueError as error:
            short, slash, container = name.rpartition("/")
            if not slash:
                raise
            try:
                found = self.roster.named(short)
            except ValueError:
                raise error from None
        if not all(subject.pod for subject in found):
            raise ValueError(f"{name!r} is not a pod")
        chosen = [subject for subject in found if subject.host in self.hosts]
        if not chosen:
            raise ValueError(f"pod {name!r} is not on {self.on}")
        return chosen, container

    def _host(self, name: str) -> HostSpec:
        return next(spec for spec in self.plan.hosts if spec.name == name)

    def _limit(self, host: str, cgroup: str, file: str, limit: int) -> Command:
        return Command(self.at_ns, host, "limit", {"cgroup": cgroup, "file": file, "bytes": limit}, AUTHOR)

    def _do(self, commands: Iterable[Command]) -> None:
        self.plan = replace(self.plan, changes=(*self.plan.changes, *commands))

    # --- --drop-fault ----------------------------------------------------------------------------------------------------

    def drop(self, name: str) -> None:
        """A fault that has not begun never does; one that is on ends."""
        fault = find_fault(self.original, name)  # among all: it may be named twice
        if fault.end_ns is not None and fault.end_ns <= self.at_ns:
            return
        kept: list[PlannedFault] = []
        for one in self.plan.faults:
            if one.id != fault.id:
                kept.append(one)
            elif one.start_ns < self.at_ns:
                kept.append(replace(one, end_ns=self.at_ns))
        gone = fault.id if fault.start_ns >= self.at_ns else None
        expectations = tuple(e for e in self.plan.expectations if gone is None or e.fault != gone)
        self.plan = replace(self.plan, faults=tuple(kept), expectations=expectations)


def find_fault(plan: Plan, name: str) -> PlannedFault:
    """The fault with this id, or the only one of this kind; BadInput names those that there are."""
    found = [fault for fault in plan.faults if name == fault.id] or [fault for fault in plan.faults if name == fault.kind]
    if len(found) == 1:
        return found[0]
    ids = [fault.id for fault in plan.faults]
    if found:
        raise BadInput(f"--drop-fault is {name!r}, of which there are several; name one of {', '.join(fault.id for fault in found)}")
    known = f"known are {', '.join(ids)}{did_you_mean(name, ids)}" if ids else "the run has none"
    raise BadInput(f"--drop-fault is {name!r}, which is no fault of this run; {known}")


def check_in_time(plan: Plan, at_ns: int, change: Change) -> None:
    """BadInput if a fault to be dropped is over by then."""
    for name in change.dropped:
        fault = find_fault(plan, name)
        if fault.end_ns is not None and fault.end_ns <= at_ns:
            over = show_duration(fault.end_ns)
            raise BadInput(f"--drop-fault is {name!r}, which is over at {over}; branch before that: --at is {show_duration(at_ns)}")


def _container(spec: PodSpec, name: str | None) -> ContainerSpec:
    main = [one for one in spec.containers if not one.init]
    found = main if name is None else [one for one in main if one.name == name]
    if len(found) != 1:
        names = ", ".join(f"pod/{spec.name}/{one.name}" for one in main)
        raise ValueError(f"pod {spec.name!r} has several containers; write one of {names}" if name is None else f"write one of {names}")
    return found[0]
