# SPDX-License-Identifier: Apache-2.0
"""The common part of a run and its branches, simulated once: states of the run at looks of the control plane, kept as files.

    trunk = Trunk(order, folder)
    state = trunk.before(at_ns)                       the run as it was at its last look before that instant; None: at its beginning
    with going_on(plan, order.plan, profile, sink, state) as (engine, course):      … from where a plan is run on
        run_timeline(plan, engine, course, looked)

Rules: a plan that differs from the order's only from `at_ns` on does, from that state, what it would do from the beginning: looks
before `at_ns` are the same for both, and no look is added. A stretch is simulated at most once for each state that is kept of it.
Samples are not kept: those of a recorded run are in its directory, and a search needs none.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fleetsim.fleet.checkpoint import Order
from fleetsim.fleet.engine import Engine
from fleetsim.fleet.local import LocalEngine
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.progress import Progress, silent
from fleetsim.fleet.shard_run import SampleSink
from fleetsim.fleet.state_file import read_state, write_state
from fleetsim.fleet.timeline import Course, next_look, run_timeline
from fleetsim.observe.catalog import Profile
from fleetsim.rundir.models import HistoryEvent


class Nowhere:
    """A sink for samples that nobody wants."""

    def __init__(self) -> None:
        self._series = 0

    def series(self, labels: Mapping[str, str]) -> int:
        self._series += 1
        return self._series - 1

    def samples(self, ids: NDArray[np.int64], times_ms: NDArray[np.int64], values: NDArray[np.float64]) -> None: ...


class Enough(Exception):
    """What was to be found out is known: a look raises it to end a stretch."""


@contextmanager
def going_on(
    plan: Plan, original: Plan, profile: Profile, sink: SampleSink, state: Path | None, threads: int | None = None
) -> Iterator[tuple[Engine, Course]]:
    """An engine and a course that stand where `original` stood in `state` (None: at the beginning), from where `plan` holds."""
    engine = LocalEngine(profile, sink, threads)
    try:
        engine.start(plan, state)
        course = Course(plan)
        if state is not None:
            course.resume(read_state(state / "controller.state"), read_state(state / "history.state"), engine)
            course.replan(original, plan)
        yield engine, course
    finally:
        engine.stop()


def keep_state(folder: Path, engine: Engine, course: Course) -> None:
    """Everything as it is at a look, into `folder`."""
    folder.mkdir(parents=True)
    engine.checkpoint(folder)
    write_state(folder / "controller.state", course.state())
    write_state(folder / "history.state", course.history.events)


def events_of(state: Path) -> list[HistoryEvent]:
    """The history of the run up to a state, with all marks of its faults."""
    return list(read_state(state / "history.state"))  # an EventLog


class Trunk:
    """`every_ns`: states are kept on the way, at least so far apart; 0: only those that are asked for."""

    def __init__(self, order: Order, folder: Path, *, every_ns: int = 0, threads: int | None = None, progress: Progress = silent) -> None:
        self.order, self._folder, self._threads, self._progress = order, folder, threads, progress
        self.every_ns = every_ns
        self.kept: dict[int, Path] = {}
        self.simulated_ns = 0  # virtual time that was simulated, all told

    def before(self, at_ns: int) -> Path | None:
        """The run at its last look before `at_ns`; None: that is its beginning."""
        plan = self.order.plan
        since = max((t_ns for t_ns in self.kept if t_ns < at_ns), default=0)
        if next_look(plan, since) < at_ns:
            since = self._simulate(since, at_ns)
        return self.kept.get(since)

    def time_before(self, at_ns: int) -> int:
        """When that look is; after `before`."""
        return max((t_ns for t_ns in self.kept if t_ns < at_ns), default=0)

    def forget(self, from_ns: int, to_ns: int) -> None:
        """Only what is between the two will be asked for from now on."""
        since = self.time_before(from_ns)
        for t_ns in [t_ns for t_ns in self.kept if not since <= t_ns < to_ns]:
            shutil.rmtree(self.kept.pop(t_ns))

    def _simulate(self, since: int, at_ns: int) -> int:
        plan = self.order.plan
        last = since

        def looked(course: Course) -> None:
            nonlocal last
            self._progress("replaying", course.now_ns / at_ns)
            enough = next_look(plan, course.now_ns) >= at_ns
            if enough or (self.every_ns and course.now_ns - last >= self.every_ns):
                last = course.now_ns
                self._keep(engine, course)
            if enough:
                raise Enough

        with going_on(plan, plan, self.order.profile, Nowhere(), self.kept.get(since), self._threads) as (engine, course):
            until_enough(lambda: run_timeline(plan, engine, course, looked))
        self.simulated_ns += last - since
        return last

    def _keep(self, engine: Engine, course: Course) -> None:
        folder = self._folder / f"{course.now_ns:020d}"
        keep_state(folder, engine, course)
        self.kept[course.now_ns] = folder


def until_enough(run: Callable[[], None]) -> bool:
    """Whether a look said that it was enough, before the end came."""
    try:
        run()
    except Enough:
        return True
    return False
