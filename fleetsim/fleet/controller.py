# SPDX-License-Identifier: Apache-2.0
"""Running a scenario: the plan's commands in, the hosts' events out, all of it written into a run directory.

Rules: hosts run alone for as long as nothing couples them. What couples them is a service with replicas on several (its load balancer
acts every second), and a fault that comes back when its target is
restarted (a leak is in the program): while one is open the epoch is one second, and a restarted target has its fault
again at the end of the epoch. No clock of this machine decides anything; `wall_seconds` is only reported.
Leaves out: checkpoints and resuming.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from fleetsim import __version__, law
from fleetsim.fleet.deployments import endpoints_of
from fleetsim.fleet.engine import EPOCH_NS, Engine
from fleetsim.fleet.history import History
from fleetsim.fleet.local import LocalEngine
from fleetsim.fleet.normalise import normalised
from fleetsim.fleet.plan import Plan, PlannedFault, make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.fleet.services import Balancers
from fleetsim.fleet.whereabouts import Whereabouts
from fleetsim.host.content import content_digest
from fleetsim.host.shard import TICK_NS
from fleetsim.host.spec import Command, Event
from fleetsim.observe.catalog import METRICS, Profile, profile
from fleetsim.rundir.models import Manifest, Target
from fleetsim.rundir.writer import RunWriter
from fleetsim.units import NS_PER_S

LOOK_NS = 60 * NS_PER_S
"""The longest that hosts run between two looks; short enough for a progress bar."""


Progress = Callable[[str, float], None]
"""Told what is being done and how much of it is done (0..1)."""


def silent(stage: str, share: float) -> None:
    """Nobody looks."""


@dataclass(frozen=True)
class RunResult:
    out: str
    scenario: str
    seed: int
    hosts: int
    virtual_seconds: float
    history_hash: str
    events: int
    impacts: int
    wall_seconds: float

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def run_scenario(
    path: Path,
    out: Path,
    *,
    seed: int | None = None,
    metric_profile: str = "full",
    needed: Iterable[str] = (),
    threads: int | None = None,
    progress: Progress = silent,
) -> RunResult:
    """Simulate the scenario file into the run directory `out`. `needed`: metric names for the profile `rules`."""
    chosen = profile(metric_profile, needed)
    return run_plan(make_plan(load_scenario(path), seed), out, chosen, threads, progress)


def run_plan(plan: Plan, out: Path, chosen: Profile, threads: int | None = None, progress: Progress = silent) -> RunResult:
    """Simulate a plan. Two calls with the same plan and profile write the same history, whatever `threads` is."""
    began = time.perf_counter()
    writer = RunWriter(
        out,
        _manifest(plan, chosen),
        normalised(plan),
        [
            Target(labels=dict(t.labels), exporter=t.exporter, host=t.host, interval_s=plan.scrape_interval_ms / 1000)
            for t in plan.scrape_targets
        ],
        placements=plan.placements,
        exporters=_exporters(chosen),
    )
    engine = LocalEngine(chosen, writer, threads)
    progress("compiling the laws (first run of this version on this machine)" if law.is_cold() else "booting hosts", 0.0)
    history, whereabouts = History(plan), Whereabouts(plan)
    names = [spec.name for spec in plan.hosts]
    try:
        engine.start(plan)
        run_timeline(plan, engine, history, progress, whereabouts)
        digests = [(name, content_digest(record)) for name, record in zip(names, engine.read(names), strict=True)]
    finally:
        engine.stop()
    writer.events(history.events)
    writer.place(whereabouts.placements())
    wall = time.perf_counter() - began
    history_hash = writer.close(digests, wall_seconds=round(wall, 3))
    impacts = sum(event.kind == "impact_start" for event in history.events)
    return RunResult(
        str(out), plan.scenario.name, plan.seed, len(names), plan.duration_ns / NS_PER_S, history_hash, len(history.events), impacts, wall
    )


def run_timeline(plan: Plan, engine: Engine, history: History, progress: Progress, whereabouts: Whereabouts | None = None) -> None:
    """Move all hosts from boot to the end."""
    waiting = plan.commands()
    planes = plan.control_planes()
    now_ns = 0
    balancers = Balancers(plan.services, engine.ports(), plan.start_unix_s * NS_PER_S)
    while now_ns < plan.duration_ns:
        until_ns = _next_look(plan, now_ns)
        cut = bisect_left(waiting, until_ns, key=_when)
        due, waiting = waiting[:cut], waiting[cut:]
        rates = balancers.rates(now_ns, until_ns - now_ns) if plan.services else None
        events = engine.advance(until_ns, due, rates)
        if plan.services:
            events += balancers.look(engine.ports(), until_ns)
        history.take(events)
        if whereabouts is not None:
            whereabouts.take(events)
        again = _faults_again(plan, events, until_ns)
        for plane in planes:
            commands, told = plane.react(events, until_ns)
            again += commands
            history.tell(told)
        again += balancers.commands()
        if any(plane.changed for plane in planes) and balancers.follow(endpoints_of(planes), until_ns):
            engine.follow(balancers.replicas)
        if again:
            waiting = sorted([*again, *waiting], key=_when)
        now_ns = until_ns
        progress("simulating", now_ns / plan.duration_ns)


def _when(command: Command) -> int:
    return command.t_ns


def _next_look(plan: Plan, now_ns: int) -> int:
    """One epoch while somebody has to react (load balancers, Deployments, an open fault that returns), else to where that begins, a
    minute at most."""
    if plan.services or any(group.deployments for group in plan.scenario.groups):
        return min(now_ns + EPOCH_NS, plan.duration_ns)
    returning = [fault for fault in plan.faults if fault.fault.returns_after_restart]
    if any(_is_open(fault, now_ns) for fault in returning):
        return min(now_ns + EPOCH_NS, plan.duration_ns)
    opens = [fault.start_ns for fault in returning if fault.start_ns > now_ns]
    return min([now_ns + LOOK_NS, plan.duration_ns, *opens])


def _is_open(fault: PlannedFault, t_ns: int) -> bool:
    return fault.start_ns <= t_ns and (fault.end_ns is None or t_ns < fault.end_ns)


def _faults_again(plan: Plan, events: list[Event], at_ns: int) -> list[Command]:
    """A restarted process has its leak again."""
    restarts = [event for event in events if event.kind == "restart"]
    if not restarts:
        return []
    return [
        command
        for fault in plan.faults
        if fault.fault.returns_after_restart and _is_open(fault, at_ns)
        for target in fault.targets
        if any(e.host == target.host and e.subject == target.task and e.t_ns >= fault.start_ns for e in restarts)
        for command in fault.fault.inject(target, at_ns)
    ]


def _manifest(plan: Plan, chosen: Profile) -> Manifest:
    return Manifest(
        version=__version__,
        scenario=plan.scenario.name,
        seed=plan.seed,
        tick_ns=TICK_NS,
        cpu_profile=", ".join(sorted({host.cpu_profile for host in plan.hosts})),
        metric_profile=chosen.name,
        size_class=law.size_class(),
        start_unix_ms=plan.start_unix_s * 1000,
        duration_ns=plan.duration_ns,
    )


def _exporters(chosen: Profile) -> dict[str, list[str]]:
    """What each exporter can show in this profile."""
    names: dict[str, list[str]] = {}
    for metric in METRICS:
        if chosen.keeps(metric):
            names.setdefault(metric.exporter, []).append(metric.name)
    return names
