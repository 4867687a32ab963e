# SPDX-License-Identifier: Apache-2.0
"""`fleetsim bench scale --stand-in`: what the controller itself takes, with any number of actors, none of which simulates anything.

Hosts are those of `scale_fleet.py` with one container (a web server), so that a million of them can be planned on one machine.
Figures are processor time of the controller's thread without that of the stand-ins, and the growth of this process.
Leaves out: Ray's own time per call, samples (`stand_in.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fleetsim.fleet.bench_scale import give_back
from fleetsim.fleet.hosts_actor import resident_bytes
from fleetsim.fleet.scale_fleet import NEEDED, scale_plan
from fleetsim.fleet.scale_meter import WARM_UP_S, measure
from fleetsim.fleet.stand_in import StandInEngine
from fleetsim.observe.catalog import profile

MEASURED_S = 10


@dataclass(frozen=True)
class StandInRow:
    hosts: int
    actors: int
    plan_us: float  # per host
    epoch_ms: float  # the controller's own processor time
    bytes_per_host: float  # of this process: plan, series, events
    start_us: float  # per host: cutting, series, first events
    seal_us: float  # per host

    @property
    def us_per_host(self) -> float:
        return self.epoch_ms * 1000 / self.hosts


@dataclass(frozen=True)
class StandInBench:
    rows: tuple[StandInRow, ...]

    def as_json(self) -> dict[str, Any]:
        return {"sizes": [asdict(row) for row in self.rows]}

    def as_text(self) -> str:
        heads = ("hosts", "actors", "ms/epoch", "µs/host-epoch", "plan µs/host", "start µs/host", "seal µs/host", "bytes/host")
        table = [list(heads)]
        for row in self.rows:
            figures = [f"{row.epoch_ms:.2f}", f"{row.us_per_host:.2f}", f"{row.plan_us:.0f}", f"{row.start_us:.0f}", f"{row.seal_us:.0f}"]
            table.append([f"{row.hosts:,}", f"{row.actors:,}", *figures, f"{row.bytes_per_host:,.0f}"])
        widths = [max(len(line[column]) for line in table) for column in range(len(heads))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
        told = "the controller alone: actors are stand-ins that simulate nothing; hosts have one container; epochs of one second"
        return "\n".join([told, "", *lines, "", *(row_words(row) for row in self.rows)])


def row_words(row: StandInRow) -> str:
    share = row.epoch_ms / 1000
    kept = "keeps up with real time" if share < 1 else "does not keep up with real time"
    return f"{row.hosts:,} hosts in {row.actors:,} actors: the controller needs {share:.1%} of each second and {kept}"


def run_bench_stand_in(
    progress: Callable[[str, float], None], sizes: Sequence[int], actors: Sequence[int], seconds: int | None, metrics: str
) -> StandInBench:
    chosen = profile(metrics, NEEDED if metrics == "rules" else ())
    rows = []
    cases = [(hosts, count) for hosts in sizes for count in actors if count <= hosts]
    for number, (hosts, count) in enumerate(cases):
        progress(f"{hosts:,} hosts in {count:,} stand-ins", number / len(cases))
        give_back()
        rss_before, began = resident_bytes(), time.thread_time()
        plan = scale_plan(hosts, seconds or WARM_UP_S + MEASURED_S, web_only=True)
        planned = time.thread_time() - began

        def make(kept: Any, writer: Any, attempt: int, *, count: int = count) -> Any:
            return StandInEngine(kept, writer, attempt, count)

        measured = measure(plan, chosen, make, count, lambda stage, share, detail="": None, rss_before)
        del plan
        epoch_ms = measured.driver_s / measured.epochs * 1000
        start, seal = measured.start_s / hosts * 1e6, measured.seal_s / hosts * 1e6
        rows.append(StandInRow(hosts, count, planned / hosts * 1e6, epoch_ms, measured.driver_bytes / hosts, start, seal))
    return StandInBench(tuple(rows))
