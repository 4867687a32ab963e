# SPDX-License-Identifier: Apache-2.0
"""One scenario with many seeds: every run for itself, and how what came of them is distributed.

    jobs = [SeedRun(scenario, seed, folder, …) for seed in seeds]
    results = list(fan_out(jobs))                     here on all cores; `ray_seeds.fan_out_on` does the same on a Ray cluster
    spread(results, lambda r: r.first_impact_ns)      p10, p50, p90, and in how many it never came

Rules: a seed's run is the one that it would have been alone, with the same history hash, wherever and beside whomever it runs. A run in
which something never came counts as later than the end (it is censored there, not left out), so a percentile may lie beyond the end.
Percentiles are those of the runs themselves (nearest rank), nothing is interpolated.
Leaves out: seeds as a model of the world's luck. They decide whom `one X` means, the order of scrapes and the kernel's own luck; where a
scenario leaves nothing to it, all seeds tell the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetsim.fleet.controller import never, run_plan
from fleetsim.fleet.plan import make_plan
from fleetsim.fleet.scenario import Scenario
from fleetsim.observe.catalog import Profile
from fleetsim.rundir.models import HistoryEvent
from fleetsim.rundir.reader import RunDirectory
from fleetsim.units import NS_PER_S

ENDLESS_NS = 1 << 62  # later than any end
LITTLE_NS = NS_PER_S
"""Runs whose first impacts are no further apart than this do not really differ: the report says so."""


@dataclass(frozen=True)
class SeedResult:
    """One seed's run. `story`: a digest of all that happened on hosts, without scrapes; `judged`: what `SeedRun.after` returned."""

    seed: int
    history_hash: str
    first_impact_ns: int | None
    first_oom_ns: int | None
    impacts: dict[str, int]  # kind → how many
    story: str
    wall_seconds: float
    out: str | None
    judged: Any = None


@dataclass(frozen=True)
class SeedRun:
    """A run to be done, by anybody: it can be sent about. `after`: called with the folder of the finished run."""

    scenario: Scenario
    seed: int
    out: Path
    profile: Profile
    job: str | None = None
    keep: bool = True
    after: Callable[[Path], Any] | None = None

    def __call__(self, threads: int = 1, stop: Callable[[], bool] = never) -> SeedResult:
        plan = make_plan(self.scenario, self.seed) if self.job is None else make_plan(self.scenario, self.seed, self.job)
        done = run_plan(plan, self.out, self.profile, threads, stop=stop)
        history = RunDirectory(self.out).history
        judged = None if self.after is None else self.after(self.out)
        if not self.keep:
            shutil.rmtree(self.out)
        kinds: dict[str, int] = {}
        for event in history:
            if event.kind == "impact_start":
                kinds[str(event.data["impact"])] = kinds.get(str(event.data["impact"]), 0) + 1
        return SeedResult(
            seed=self.seed,
            history_hash=done.history_hash,
            first_impact_ns=_first(history, "impact_start"),
            first_oom_ns=_first(history, "oom_kill"),
            impacts=kinds,
            story=_story(history),
            wall_seconds=done.wall_seconds,
            out=str(self.out) if self.keep else None,
            judged=judged,
        )


def _first(history: Sequence[HistoryEvent], kind: str) -> int | None:
    return next((event.t_ns for event in history if event.kind == kind), None)


def _story(history: Sequence[HistoryEvent]) -> str:
    told = [(event.t_ns, event.host, event.kind, event.subject) for event in history]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def fan_out(jobs: Sequence[SeedRun], threads: int | None = None, at_once: int | None = None) -> Iterator[SeedResult]:
    """All jobs in this process, a thread for each core, as they are done. Laws release the GIL, so threads are enough.

    `at_once`: no more runs than this beside each other, for the sake of memory.
    """
    if not jobs:
        return
    threads = threads or len(os.sched_getaffinity(0))
    yield jobs[0](threads)  # alone: it compiles the laws, or finds them in the cache, and the others then only use them
    stopped = threading.Event()
    pool = ThreadPoolExecutor(min(threads, at_once or threads), thread_name_prefix="seed")
    try:
        for done in as_completed([pool.submit(job, 1, stopped.is_set) for job in jobs[1:]]):
            yield done.result()
    except BaseException:
        stopped.set()  # those under way end after their epoch
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


# --- what came of them -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Of `runs` runs it came in `came`; a percentile is None if that run is one in which it never came."""

    runs: int
    came: int
    p10_ns: int | None
    p50_ns: int | None
    p90_ns: int | None
    least_ns: int | None
    most_ns: int | None  # of those in which it came


def spread(results: Sequence[SeedResult], of: Callable[[SeedResult], int | None]) -> Spread:
    values = [of(result) for result in results]
    came = [value for value in values if value is not None]
    every = sorted(ENDLESS_NS if value is None else value for value in values)

    def percentile(percent: int) -> int | None:
        value = every[-(-percent * len(every) // 100) - 1]
        return None if value == ENDLESS_NS else value

    p10, p50, p90 = (percentile(p) for p in (10, 50, 90)) if every else (None, None, None)
    return Spread(len(values), len(came), p10, p50, p90, min(came, default=None), max(came, default=None))


def how_much_luck(results: Sequence[SeedResult]) -> str:
    """What the seed decides in this scenario, as far as these runs tell; empty: they differ."""
    if len(results) < 2:
        return ""
    if len({result.history_hash for result in results}) == 1:
        return "All seeds give the same run, to the last bit."
    if len({result.story for result in results}) == 1:
        return "The same happened with every seed, at the same instants: here luck only moves the scrapes."
    impact = spread(results, lambda r: r.first_impact_ns)
    if impact.least_ns is None or impact.most_ns is None or impact.came < impact.runs:
        return ""
    apart_ns = impact.most_ns - impact.least_ns
    if apart_ns >= LITTLE_NS:
        return ""
    return f"With every seed the first impact comes at the same time, to {apart_ns / 1e6:.0f} ms: luck hardly decides here when it hurts."
