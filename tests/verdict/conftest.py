# SPDX-License-Identifier: Apache-2.0
"""Small worlds drawn as run directories: no simulator, only what one would have written.

    world = World(folder, hosts=("a", "b"), minutes=30)
    world.metric("node_memory_MemFree_bytes", lambda host, minute: ...)
    world.fault(...); world.impact(...); world.expect(...)
    run_dir = world.write()

Scrapes are every 15 s at an offset of the host's own, so nothing sits on evaluation instants by luck.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetsim.rundir.models import HistoryEvent, Manifest, Placement, Target
from fleetsim.rundir.samples import STALE
from fleetsim.rundir.writer import RunWriter

START_MS = 1_700_000_000_000
GIB = float(1 << 30)
MINUTE_NS = 60 * 1_000_000_000


class World:
    """Times are minutes of virtual time."""

    def __init__(self, folder: Path, hosts: tuple[str, ...] = ("a", "b", "c"), minutes: int = 30, job: str = "node") -> None:
        self.folder, self.hosts, self.minutes, self.job = folder, hosts, minutes, job
        self.metrics: dict[str, Callable[[str, float], float]] = {"up": lambda host, minute: 1.0}
        self.events: list[HistoryEvent] = []
        self.expectations: list[dict[str, Any]] = []
        self.placements: list[Placement] = []
        self.exporters: dict[str, list[str]] = {}
        self.down: dict[str, tuple[float, float]] = {}
        self._seq = 0

    def metric(self, name: str, value: Callable[[str, float], float]) -> None:
        self.metrics[name] = value

    def event(self, minute: float, kind: str, host: str = "", subject: str = "", id: str = "", **data: Any) -> None:
        self._seq += 1
        at_ns = round(minute * MINUTE_NS)
        self.events.append(HistoryEvent(t_ns=at_ns, host=host, seq=self._seq, kind=kind, subject=subject, id=id, data=data))

    def fault(self, kind: str, hosts: list[str], start: float, end: float | None = None, harm: str | None = "killed", **data: Any) -> None:
        name = f"{kind}-{len(self.events) + 1}"
        content = {"fault": kind, "parameters": {}, "hosts": hosts, "subjects": data.pop("subjects", []), "harm": harm, **data}
        self.event(start, "fault_start", subject=kind, id=name, **content)
        if end is not None:
            self.event(end, "fault_end", subject=kind, id=name, **content)

    def impact(self, kind: str, host: str, start: float, end: float | None = None, subject: str = "app", **data: Any) -> None:
        name = f"impact-{len(self.events) + 1}"
        self.event(start, "impact_start", host, subject, name, impact=kind, **data)
        if end is not None:
            self.event(end, "impact_end", host, subject, name, impact=kind, **data)

    def expect(self, kind: str, name: str, **more: Any) -> None:
        self.expectations.append({"kind": kind, "name": name, **more})

    def targets(self) -> list[Target]:
        return [Target(labels={"job": self.job, "instance": host}, exporter="node_exporter", host=host) for host in self.hosts]

    def write(self) -> Path:
        manifest = Manifest(
            version="0", scenario="drawn", seed=7, tick_ns=10**8, cpu_profile="server", metric_profile="full",
            start_unix_ms=START_MS, duration_ns=self.minutes * MINUTE_NS,
        )  # fmt: skip
        scenario = {"summary": "a world drawn by a test", "expect": self.expectations}
        writer = RunWriter(self.folder, manifest, scenario, self.targets, placements=lambda: self.placements, exporters=self.exporters)
        for number, host in enumerate(self.hosts):
            self._scrape(writer, host, offset_ms=(4_700 * number + 1_300) % 15_000)
        writer.events(self.events)
        writer.close([(host, b"record") for host in self.hosts])
        return self.folder

    def _scrape(self, writer: RunWriter, host: str, offset_ms: int) -> None:
        times = np.arange(START_MS + offset_ms, START_MS + self.minutes * 60_000, 15_000)
        minutes = (times - START_MS) / 60_000
        low, high = self.down.get(host, (np.inf, np.inf))
        gone = (low <= minutes) & (minutes < high)
        for name, value in self.metrics.items():
            values = np.array([value(host, float(minute)) for minute in minutes])
            keep = np.ones(len(times), np.bool_)
            if name == "up":
                values[gone] = 0.0
            else:  # a staleness marker at the first failed scrape, then nothing
                first = gone & ~np.concatenate(([False], gone[:-1]))
                values[first], keep = STALE, ~gone | first
            series = writer.series({"__name__": name, "job": self.job, "instance": host})
            writer.samples(np.full(keep.sum(), series), times[keep], values[keep])


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., World]:
    """Makes a world in a folder of its own."""
    return lambda **more: World(tmp_path / "run", **more)


@pytest.fixture
def rule_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a rule file."""

    def write(text: str, name: str = "rules.yml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def prometheus(require_tool: Callable[[str], Path]) -> Path:
    """The test needs the real Prometheus."""
    require_tool("promtool")
    return require_tool("prometheus")
