# SPDX-License-Identifier: Apache-2.0
"""A small finished run directory, and the pieces to write others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fleetsim.rundir.models import HistoryEvent, Manifest, Target
from fleetsim.rundir.samples import STALE
from fleetsim.rundir.writer import RunWriter

START_MS = 1_700_000_000_000
MANIFEST = Manifest(
    version="0", scenario="small", seed=1, tick_ns=10**8, cpu_profile="server", metric_profile="full",
    start_unix_ms=START_MS, duration_ns=600 * 10**9,
)  # fmt: skip
TARGETS = [Target(labels={"job": "node", "instance": name}, exporter="node_exporter", host=name) for name in ("a", "b")]
EVENTS = [
    HistoryEvent(t_ns=0, host="a", seq=0, kind="boot"),
    HistoryEvent(t_ns=0, host="b", seq=0, kind="boot"),
    HistoryEvent(t_ns=5 * 10**9, host="a", seq=1, kind="oom_kill", subject="app", data={"pages": 12, "note": "line\u2028separator"}),
]


@pytest.fixture
def open_writer(tmp_path: Path) -> Callable[..., RunWriter]:
    return lambda name="run", **more: RunWriter(tmp_path / name, MANIFEST, {"name": "small", "expect": []}, lambda: TARGETS, **more)


@pytest.fixture
def finished(open_writer: Callable[..., RunWriter], tmp_path: Path) -> Path:
    writer = open_writer()
    first = writer.series({"__name__": "up", "job": "node", "instance": "a"})
    second = writer.series({"__name__": "node_load1", "job": "node", "instance": "a"})
    times = START_MS + 15_000 * np.arange(4)
    writer.samples(np.full(4, first), times, np.array([1.0, 1.0, 0.0, 1.0]))
    writer.samples(np.full(4, second), times, np.array([0.5, 0.25, STALE, 0.125]))
    writer.events(EVENTS)
    writer.close([("a", b"record a"), ("b", b"record b")])
    return tmp_path / "run"
