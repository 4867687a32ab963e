# SPDX-License-Identifier: Apache-2.0
"""Running a scenario: a plan through an engine into a run directory, in one go or in several.

Rules: whatever becomes of this process, what it leaves behind is a whole run, or one that `resume_plan` goes on with and that is no
different in the end. No clock of this machine decides anything; `wall_seconds` (of the last stretch) is only reported.
Leaves out: what happens between two looks (`timeline.py`), what a checkpoint looks like (`checkpoint.py`).
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fleetsim import __version__, law
from fleetsim.errors import BadInput, Interrupted, ToolFailed
from fleetsim.fleet.checkpoint import NEVER, CheckpointFolder, Every, Latest, Order, cut_of, shard_file
from fleetsim.fleet.engine import Engine
from fleetsim.fleet.local import LocalEngine
from fleetsim.fleet.normalise import normalised
from fleetsim.fleet.plan import Plan, make_plan
from fleetsim.fleet.progress import Progress, Speedometer, clock, silent
from fleetsim.fleet.scenario import load_scenario
from fleetsim.fleet.state_file import read_state, write_state
from fleetsim.fleet.timeline import Course, run_timeline
from fleetsim.host.shard import TICK_NS
from fleetsim.observe.catalog import METRICS, Profile, profile
from fleetsim.rundir.models import Manifest, Target
from fleetsim.rundir.samples import block_files
from fleetsim.rundir.writer import RunWriter, is_sealed
from fleetsim.units import NS_PER_S

EngineMaker = Callable[[Profile, RunWriter, int], Engine]
"""Makes the engine: metrics to keep, where samples go, number of the checkpoint that it begins from (0: the beginning)."""


def never() -> bool:
    """Nobody asks the run to stop."""
    return False


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


def run_plan(
    plan: Plan,
    out: Path,
    chosen: Profile,
    threads: int | None = None,
    progress: Progress = silent,
    *,
    engine: EngineMaker | None = None,
    every: Every = NEVER,
    stop: Callable[[], bool] = never,
) -> RunResult:
    """Simulate a plan. Two calls with the same plan and profile write the same history, whatever `threads` or `engine` is.

    `every`: how often a checkpoint is written. `stop`: asked after each look; True writes one more and raises Interrupted.
    """
    order = Order(plan, chosen, every)
    writer = run_writer(order, out)
    folder = CheckpointFolder(out)
    with folder.claimed():
        folder.begin(order)
        return _Run(order, out, writer, folder, engine or _local(threads), progress, stop).to_the_end(None)


def resume_plan(
    out: Path,
    threads: int | None = None,
    progress: Progress = silent,
    *,
    engine: EngineMaker | None = None,
    every: Every | None = None,
    stop: Callable[[], bool] = never,
) -> RunResult:
    """Go on with the run in `out` from its last checkpoint (from its beginning, if it has none): the same history as if unbroken."""
    folder = CheckpointFolder(out)
    order = order_of(out)
    with folder.claimed():
        latest = folder.latest()
        writer = run_writer(order, out, () if latest is None else latest.blocks)
        if every is not None:
            order = replace(order, every=every)
        return _Run(order, out, writer, folder, engine or _local(threads), progress, stop).to_the_end(latest)


def order_of(out: Path) -> Order:
    """What was asked for when the run in `out` was begun; BadInput if there is no such run, or nothing left to do."""
    order = CheckpointFolder(out).order()
    if is_sealed(out):
        raise BadInput("is a run that has finished: there is nothing to go on with", file=out)
    return order


class _Run:
    """One stretch of a run: from a checkpoint or the beginning to the end, to a Ctrl-C, or to the death of this process."""

    def __init__(
        self,
        order: Order,
        out: Path,
        writer: RunWriter,
        folder: CheckpointFolder,
        make: EngineMaker,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> None:
        self.plan, self.every, self.out = order.plan, order.every, out
        self.writer, self.folder, self.progress, self.stop = writer, folder, progress, stop
        self.engine = make(order.profile, writer, folder.number)
        self.saved = (0, 0)  # epochs and virtual time of the last checkpoint

    def to_the_end(self, latest: Latest | None) -> RunResult:
        began = time.perf_counter()
        plan, names = self.plan, [spec.name for spec in self.plan.hosts]
        self.progress("compiling the laws (first run of this version on this machine)" if law.is_cold() else "booting hosts", 0.0)
        try:
            if latest is not None:  # first, as the engine may add samples that wait in its own part of the checkpoint
                self.writer.resume(read_state(self.folder.files(latest) / "samples.state"))
            self.engine.start(plan, None if latest is None else self.folder.files(latest))
            course = Course(plan)
            if latest is not None:
                self._resume(course, latest)
            self.speed = Speedometer(plan, course.now_ns)
            run_timeline(plan, self.engine, course, self._looked)
            digests = list(zip(names, self.engine.digests(), strict=True))
        finally:
            self.engine.stop()
        events = course.history.events
        self.writer.events(events)
        self.writer.place(lambda: course.whereabouts.placements(plan))
        wall = time.perf_counter() - began
        history_hash = self.writer.close(digests, wall_seconds=round(wall, 3))
        self.folder.finish()
        impacts = events.kinds["impact_start"]
        return RunResult(
            str(self.out), plan.scenario.name, plan.seed, len(names), plan.duration_ns / NS_PER_S, history_hash, len(events), impacts, wall
        )

    def _looked(self, course: Course) -> None:
        share = course.now_ns / self.plan.duration_ns
        self.progress("simulating", share, self.speed.says(course.now_ns, course.epochs, self.engine.slowest()))
        asked = self.stop() and share < 1
        if asked or (share < 1 and self.every.is_due(course.epochs - self.saved[0], course.now_ns - self.saved[1])):
            self._save(course)
        if asked:
            raise Interrupted(f"interrupted at {clock(course.now_ns)} of {clock(self.plan.duration_ns)}; {how_to_go_on(self.out)}")

    def _save(self, course: Course) -> None:
        files = self.folder.next_folder()
        self.engine.checkpoint(files)
        if self.saved == (0, 0) and self._has_plug_ins():
            _read_back(files)
        write_state(files / "controller.state", course.state())
        write_state(files / "samples.state", self.writer.state())
        blocks = [file.name for file in block_files(self.writer.samples_folder)]
        self.folder.commit(course.now_ns, course.history.events, blocks)
        self.saved = (course.epochs, course.now_ns)

    def _has_plug_ins(self) -> bool:
        tasks = (task for spec in self.plan.hosts for pod in spec.pods for container in pod.containers for task in container.tasks)
        return any(task.work is not None and task.work.plugin is not None for task in tasks)

    def _resume(self, course: Course, latest: Latest) -> None:
        files = self.folder.files(latest)
        course.resume(read_state(files / "controller.state"), self.folder.events(latest), self.engine)
        self.saved = (course.epochs, course.now_ns)


def _read_back(files: Path) -> None:
    """The first checkpoint of a run with programs in Python: better told now than when somebody wants to go on with it."""
    for first, count in cut_of(files):
        try:
            read_state(files / shard_file(first, count))
        except BadInput as error:
            raise ToolFailed(
                f"a workload in Python keeps what cannot be read back: {error.sentence}; "
                "let it keep numbers, texts, containers of them and objects of its own package"
            ) from None


def how_to_go_on(out: Path) -> str:
    return f"go on with: fleetsim run --resume {shlex.quote(str(out))}"


def _local(threads: int | None) -> EngineMaker:
    return lambda profile, writer, number: LocalEngine(profile, writer, threads)


def run_writer(order: Order, out: Path, blocks: Sequence[str] | None = None) -> RunWriter:
    plan = order.plan
    return RunWriter(
        out,
        _manifest(plan, order.profile),
        normalised(plan),
        lambda: (
            Target(labels=dict(t.labels), exporter=t.exporter, host=t.host, interval_s=plan.scrape_interval_ms / 1000)
            for t in plan.scrape_targets
        ),
        placements=plan.placements,
        exporters=_exporters(order.profile),
        blocks=blocks,
    )


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
