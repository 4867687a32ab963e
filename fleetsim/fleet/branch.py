# SPDX-License-Identifier: Apache-2.0
"""A branch of a recorded run: the run directory that the changed plan would have left behind, of which only the rest is simulated.

Rules: up to the branch everything is the recorded run's: its history, which the replay must repeat, and its samples, which are copied.
The result is a run directory as any other: it can be checked, and branched again; a branch without a change has the run's own hash.
Leaves out: what is otherwise (`whatif.py`), finding the state to go on from (`trunk.py`), comparing (`compare.py`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fleetsim.errors import BadInput, ToolFailed
from fleetsim.fleet.checkpoint import CheckpointFolder, Order
from fleetsim.fleet.controller import run_writer
from fleetsim.fleet.history import FAULT_KINDS
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.progress import Progress, clock, silent
from fleetsim.fleet.served import Served, served_in
from fleetsim.fleet.timeline import Course, run_timeline
from fleetsim.fleet.trunk import Nowhere, Trunk, events_of, going_on, keep_state
from fleetsim.rundir.models import HistoryEvent
from fleetsim.rundir.reader import RunDirectory
from fleetsim.rundir.writer import RunWriter, is_sealed

COPIED_MS = 30 * 60 * 1000
"""So much of the recorded samples is copied at a time."""


@dataclass(frozen=True)
class Branched:
    """`from_ns`: the look from which the branch was simulated; `before`, `original`, `changed`: what servers had done by then, and at
    the end of either (empty: the fleet has none)."""

    run: RunDirectory
    history_hash: str
    from_ns: int
    before: Served
    original: Served
    changed: Served


def recorded(folder: Path) -> tuple[RunDirectory, Order]:
    """A finished run and what was asked for; BadInput if it cannot be branched."""
    order_file = CheckpointFolder(folder)
    if folder.is_dir() and (folder / "manifest.json").is_file() and not is_sealed(folder):
        raise BadInput("is a run that has not finished; finish it first: fleetsim run --resume with this folder", file=folder)
    run = RunDirectory(folder)
    return run, order_file.order()


class Brancher:
    """Branches of one recorded run. `scratch`: a folder for states, the caller's to remove."""

    def __init__(self, folder: Path, scratch: Path, threads: int | None = None, progress: Progress = silent) -> None:
        self.run, self.order = recorded(folder)
        self._scratch, self._threads, self._progress = scratch, threads, progress
        self.trunk = Trunk(self.order, scratch / "trunk", threads=threads, progress=progress)
        self._serves = bool(_servers(self.order.plan))

    def branch(self, plan: Plan, at_ns: int, out: Path) -> Branched:
        """Run the changed plan on from its last look before `at_ns` into the run directory `out`."""
        state = self.trunk.before(at_ns)
        from_ns = self.trunk.time_before(at_ns) if state is not None else 0
        if state is not None:
            self._check_history(events_of(state), from_ns)
        history_hash, changed = self._simulate(plan, state, from_ns, out)
        original = self._original_end(state) if self._serves else {}
        before = served_in(state) if self._serves and state is not None else {}
        return Branched(RunDirectory(out), history_hash, from_ns, before, original, changed)

    def _simulate(self, plan: Plan, state: Path | None, from_ns: int, out: Path) -> tuple[str, Served]:
        began = time.perf_counter()
        order = replace(self.order, plan=plan)
        writer = run_writer(order, out)
        folder = CheckpointFolder(out)
        end = self._scratch / "changed"
        with folder.claimed():
            folder.begin(order)
            with going_on(plan, self.order.plan, order.profile, writer, state, self._threads) as (engine, course):
                if state is not None:
                    copy_samples(self.run, writer, self.run.manifest.unix_ms(from_ns))
                run_timeline(plan, engine, course, self._looked("the branch", from_ns))
                digests = list(zip([spec.name for spec in plan.hosts], engine.digests(), strict=True))
                if self._serves:
                    keep_state(end, engine, course)
            writer.events(course.history.events)
            writer.place(lambda: course.whereabouts.placements(plan))
            history_hash = writer.close(digests, wall_seconds=round(time.perf_counter() - began, 3))
        changed = served_in(end) if self._serves else {}
        shutil.rmtree(end, ignore_errors=True)
        return history_hash, changed

    def _original_end(self, state: Path | None) -> Served:
        """What the servers had done at the end of the run as it was; nothing of that is in its directory, so it is run on again."""
        plan, end = self.order.plan, self._scratch / "original"
        with going_on(plan, plan, self.order.profile, Nowhere(), state, self._threads) as (engine, course):
            run_timeline(plan, engine, course, self._looked("the run as it was", course.now_ns))
            self._check_history(course.history.events, plan.duration_ns + 1)
            keep_state(end, engine, course)
        served = served_in(end)
        shutil.rmtree(end)
        return served

    def _looked(self, what: str, from_ns: int) -> Callable[[Course], None]:
        whole = max(1, self.order.plan.duration_ns - from_ns)
        return lambda course: self._progress(f"simulating {what}", (course.now_ns - from_ns) / whole)

    def _check_history(self, events: Iterable[HistoryEvent], until_ns: int) -> None:
        """What was simulated again is what the run directory says."""

        def told(every: Iterable[HistoryEvent]) -> list[str]:
            some = [e for e in every if e.t_ns < until_ns and e.kind not in FAULT_KINDS]
            return [e.model_dump_json() for e in sorted(some, key=lambda e: (e.t_ns, e.host, e.seq))]

        if told(events) != told(self.run.history):
            raise ToolFailed(f"the replay up to {clock(until_ns)} does not repeat the history of {self.run.path}, which was changed since")


def copy_samples(run: RunDirectory, writer: RunWriter, until_ms: int) -> None:
    """The recorded samples up to and including `until_ms`."""
    ids = np.array([writer.series(labels) for labels in run.series], np.int64)
    for low in range(run.manifest.start_unix_ms, until_ms + 1, COPIED_MS):
        series, times, values = run.columns(None, low, min(low + COPIED_MS, until_ms + 1))
        writer.samples(ids[series], times, values)


def _servers(plan: Plan) -> list[str]:
    """Hosts with a process that serves requests, from the beginning or maybe later."""
    standing = [s.name for s in plan.hosts if any(t.work and t.work.requests for p in s.pods for c in p.containers for t in c.tasks)]
    return standing + [group.keys.name for group in plan.scenario.groups if group.deployments]
