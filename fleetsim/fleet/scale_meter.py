# SPDX-License-Identifier: Apache-2.0
"""A run of the real controller with a meter around its engine: where wall time, processor time and memory went.

    start        everything until the hosts are at the beginning        window   from WARM_UP_S of virtual time to the end
    seal         the last samples, digests, the history hash

Rules: the controller's own time is the processor time of the thread that runs it, the engine's side in this process included (commands
out, answers in); the workers' time is what their processes say. In the local engine the workers are the other threads of this process.
Limits: a worker's wall time for an epoch includes what other programs took from it; shares of a busy machine are those of that machine.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.fleet.controller import EngineMaker, run_plan
from fleetsim.fleet.engine import Engine
from fleetsim.fleet.hosts_actor import Used, resident_bytes
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.progress import Progress
from fleetsim.host.spec import Command, Event
from fleetsim.observe.catalog import Profile
from fleetsim.rundir.samples import block_files, dataset
from fleetsim.rundir.writer import RunWriter
from fleetsim.units import NS_PER_S

WARM_UP_S = 30
"""Until then containers start and services have no users yet."""


@dataclass(frozen=True)
class Measured:
    """Of the window, unless said."""

    hosts: int
    workers: int
    epochs: int
    simulated_s: float
    wall_s: float
    cpu_s: float  # of all workers
    slowest_s: float  # of each epoch the slowest worker's wall time, together
    busy_s: float  # wall time of all workers; what they wait for is not in it
    writing_s: float  # … of it: blocks of samples, whole run
    driver_s: float  # processor time of the controller's thread
    start_s: float
    seal_s: float
    run_s: float  # virtual time of the whole run
    worker_bytes: int  # growth of all workers by their hosts
    driver_bytes: int  # growth of this process by the plan and all that followed; with a local engine that of the hosts too
    samples: int  # whole run
    sample_file_bytes: int
    events: int
    history_hash: str


class Metered:
    """An engine as the controller sees it, which notes what its calls take."""

    def __init__(self, engine: Any, writer: RunWriter) -> None:
        self.engine, self.writer = engine, writer
        self._now_ns = 0
        self._began: tuple[float, float, float, list[Used]] | None = None
        self._ended: tuple[float, float, float, list[Used]] | None = None
        self.from_ns = 0
        self.epochs = 0
        self.slowest_s = self.busy_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def advance(self, until_ns: int, commands: Sequence[Command], rates: NDArray[np.int64] | None = None) -> list[Event]:
        if self._began is None and self._now_ns >= WARM_UP_S * NS_PER_S:
            self._began, self.from_ns = self._mark(), self._now_ns
        events: list[Event] = self.engine.advance(until_ns, commands, rates)
        self._now_ns = until_ns
        if self._began is not None:
            self.epochs += 1
            if (busy := getattr(self.engine, "busy_s", None)) is not None:
                took = busy()
                self.slowest_s += max(took)
                self.busy_s += sum(took)
        return events

    def digests(self) -> list[bytes]:
        self._ended, self.rss = self._mark(), resident_bytes()
        digests: list[bytes] = self.engine.digests()
        self.used_at_end = self._used()
        return digests

    def _mark(self) -> tuple[float, float, float, list[Used]]:
        used = self._used()
        return time.perf_counter(), time.thread_time(), self._apart_s(), used

    def _apart_s(self) -> float:
        """Time of this thread that is not the controller's own: that of stand-ins."""
        return float(getattr(self.engine, "apart_s", 0.0))

    def _used(self) -> list[Used]:
        if (used := getattr(self.engine, "used", None)) is not None:
            return list(used())
        return [Used(time.process_time() - time.thread_time(), 0.0, 0, 0)]

    def window(self) -> tuple[float, float, float, float]:
        """(wall, the controller's own processor time, the workers', when it ended)."""
        assert self._began is not None and self._ended is not None, "the run is longer than the warm-up, and has come to its end"
        began, ended = self._began, self._ended
        cpu = sum(one.cpu_s for one in ended[3]) - sum(one.cpu_s for one in began[3])
        return ended[0] - began[0], ended[1] - began[1] - (ended[2] - began[2]), cpu, ended[0]


def measure(plan: Plan, chosen: Profile, make: EngineMaker, workers: int, progress: Progress, rss_before: int) -> Measured:
    """One run into a folder that is gone afterwards. `rss_before`: of this process before there was a plan."""
    metered: list[Metered] = []

    def metering(profile: Profile, writer: RunWriter, number: int) -> Engine:
        metered.append(Metered(make(profile, writer, number), writer))
        return metered[0]

    with tempfile.TemporaryDirectory(prefix="fleetsim-scale-") as folder:
        out = Path(folder) / "run"
        began = time.perf_counter()
        result = run_plan(plan, out, chosen, progress=progress, engine=metering)
        ended = time.perf_counter()
        rows = dataset(out / "samples").count_rows()
        size = sum(file.stat().st_size for file in block_files(out / "samples"))
    meter = metered[0]
    wall, driver, cpu, window_ended = meter.window()
    run_s = plan.duration_ns / NS_PER_S
    simulated_s = run_s - meter.from_ns / NS_PER_S
    local = meter.busy_s == 0.0
    return Measured(
        hosts=len(plan.hosts),
        workers=workers,
        epochs=meter.epochs,
        simulated_s=simulated_s,
        wall_s=wall,
        cpu_s=cpu,
        slowest_s=cpu / workers if local else meter.slowest_s,
        busy_s=cpu if local else meter.busy_s,
        writing_s=meter.writer.writing_s + sum(one.writing_s for one in meter.used_at_end),
        driver_s=driver,
        start_s=ended - began - wall - (ended - window_ended),
        seal_s=ended - window_ended,
        run_s=run_s,
        worker_bytes=sum(one.rss - one.rss_before for one in meter.used_at_end),
        driver_bytes=max(0, meter.rss - rss_before),
        samples=rows,
        sample_file_bytes=size,
        events=result.events,
        history_hash=result.history_hash,
    )
