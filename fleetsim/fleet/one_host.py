# SPDX-License-Identifier: Apache-2.0
"""One host of a plan, run up to an instant and then handed over: what commands that look inside a host begin with.

It meets what it would meet in a whole run: the same boot, the same commands at the same instants, the same luck.
Leaves out: scrapes (they change nothing on a host).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.containers.kubelet import Kubelet
from fleetsim.errors import BadInput
from fleetsim.fleet.engine import in_order
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.progress import Progress, silent
from fleetsim.fleet.timeline import Course, run_timeline
from fleetsim.host.ports import PORT, Ports
from fleetsim.host.programs import CHILD
from fleetsim.host.shard import Shard
from fleetsim.host.spec import Command, Event
from fleetsim.linux.mm_types import TASK_EXITING, TASK_RUNNING
from fleetsim.units import show_duration
from fleetsim.userland.address_space import Labels


class OneHost:
    """What moves a single host of its plan through time; where a service or a Deployment couples hosts, all of them for the one's sake."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shard: Shard | None = None
        self._running: dict[str, Shard] = {}
        self._ports: list[tuple[Ports, NDArray[np.int64]]] = []  # of each host that runs, with their places among all replicas

    def start(self, plan: Plan) -> None:
        names = [spec.name for spec in plan.hosts]
        if self.name not in names:
            known = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise BadInput(f"there is no host {self.name!r} in {plan.scenario.name}; its hosts are: {known}")
        coupled = plan.services or any(self.name in plane.nodes for plane in plan.control_planes())
        for number, spec in enumerate(plan.hosts):
            if coupled or spec.name == self.name:
                self._running[spec.name] = Shard([spec], plan.seed, number, agent=Kubelet())
        self.shard = self._running[self.name]
        self.follow([replica for service in plan.services for replica in service.replicas])

    def follow(self, replicas: Sequence[tuple[str, str]]) -> None:
        self._ports = []
        for name, shard in self._running.items():
            mine = [(place, task) for place, (host, task) in enumerate(replicas) if host == name]
            ports = Ports(shard.records, [shard.names_of(0)], [(0, task) for _, task in mine])
            self._ports.append((ports, np.array([place for place, _ in mine], dtype=np.int64)))

    def advance(self, until_ns: int, commands: Sequence[Command], rates: NDArray[np.int64] | None = None) -> list[Event]:
        for command in commands:
            if command.host in self._running:
                self._running[command.host].command(command)
        for ports, places in self._ports:
            if rates is not None:
                ports.send(rates[places])
        for shard in self._running.values():
            shard.advance(0, until_ns)
        return in_order([event for shard in self._running.values() for event in shard.drain_events()])

    def ports(self) -> NDArray[Any]:
        every = np.zeros(sum(len(places) for _, places in self._ports), PORT)
        for ports, places in self._ports:
            every[places] = ports.read()
        return every


def host_at(plan: Plan, name: str, at_ns: int, progress: Progress = silent) -> Shard:
    """The host as it is at that instant of the scenario; BadInput if there is no such host or instant."""
    if at_ns > plan.duration_ns:
        raise BadInput(f"--at is {show_duration(at_ns)}, but {plan.scenario.name} lasts {show_duration(plan.duration_ns)}")
    engine = OneHost(name)
    engine.start(plan)
    run_timeline(
        replace(plan, duration_ns=at_ns),
        engine,
        Course(plan),
        lambda course: progress("simulating", course.now_ns / at_ns),
    )
    assert engine.shard is not None
    return engine.shard


def find_task(shard: Shard, word: str) -> int:
    """Row of the process that a name or a pid means; BadInput if it is not alive just now."""
    row, names = shard.records[0], shard.names_of(0)
    alive = {name: t for name, t in names.tasks.items() if int(row["tasks"][t]["state"]) in (TASK_RUNNING, TASK_EXITING)}
    if word in alive:
        return alive[word]
    by_pid = {str(int(row["tasks"][t]["pid"])): t for t in alive.values()}
    if word in by_pid:
        return by_pid[word]
    there = ", ".join(f"{name} (pid {int(row['tasks'][t]['pid'])})" for name, t in alive.items()) or "none"
    when = show_duration(int(row["now_ns"]))
    state = "is not running" if word in names.tasks else "is no process"
    raise BadInput(f"{word!r} {state} on {names.host} at {when}; running are: {there}")


def labels_of(shard: Shard, t: int) -> Labels:
    """Names of a process, its areas and the host's files, as the scenario and the allocator call them."""
    row, names = shard.records[0], shard.names_of(0)
    areas = {int(row["handles"][number]): area for (_, area), number in names.handles.items() if int(row["handles"][number]) >= 0}
    for heap in row["heaps"]:
        if heap["used"]:
            areas.update({int(heap["maps"]): "malloc-chunks", int(heap["pointers"]): "pointers"})
    parent = int(row["tasks"][t]["parent"])
    if parent >= 0:  # a fork's child has its parent's areas at the same addresses
        known = {int(row["areas"][a]["start"]): name for a, name in areas.items() if int(row["areas"][a]["task"]) == parent}
        for a, area in enumerate(row["areas"]):
            if int(area["task"]) == t and int(area["start"]) in known:
                areas.setdefault(a, known[int(area["start"])])
    program = names.task_name(t).removesuffix(CHILD).replace("/", "-") or "program"
    return Labels(program, areas, {f: path for path, f in names.files.items()})
