# SPDX-License-Identifier: Apache-2.0
"""The slow path that the fast one must equal: `promtool test rules` on a generated unit test.

promtool places samples only on the grid of a test's `interval` and evaluates every group at every
`evaluation_interval` from time 0, so the oracle serves samples that lie on such a grid (`Evaluator` with an aligned
window then has nothing to differ in). It says what it got only when an expectation fails, so each instant expects
ALERTS to be nothing. Time 0 of the test is the first instant; values are written so that they are read back exactly.
Leaves out: more than about a hundred hosts (promtool's time grows with series × instants).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.errors import ToolFailed
from fleetsim.rundir.samples import STALE_BITS
from fleetsim.verdict.prometheus import run_promtool
from fleetsim.verdict.promtool_output import Alert, Sample, parse
from fleetsim.verdict.render import number, series_text, write_yaml
from fleetsim.verdict.rules import load_rule_files

Point = tuple[tuple[tuple[str, str], ...], int]  # labels of ALERTS without its name, milliseconds from the start


@dataclass(frozen=True)
class GridSeries:
    """Samples of one series on a grid: times are start + k · step."""

    labels: dict[str, str]
    times_ms: NDArray[np.int64]
    values: NDArray[np.float64]


def input_series(series: Iterable[GridSeries], start_ms: int, step_ms: int) -> list[dict[str, str]]:
    """`input_series` of a promtool unit test."""
    out = []
    for one in series:
        steps, rest = np.divmod(one.times_ms - start_ms, step_ms)
        if rest.any():
            raise ValueError(f"{one.labels} has samples off the grid of {step_ms} ms")
        stale = one.values.view(np.uint64) == STALE_BITS
        texts = ["stale" if gone else number(value) for value, gone in zip(one.values.tolist(), stale.tolist(), strict=True)]
        out.append({"series": series_text(one.labels), "values": grid_text(steps.tolist(), texts)})
    return out


def grid_text(steps: Sequence[int], texts: Sequence[str]) -> str:
    """promtool's series notation: each text at its step, `_` where there is none."""
    out: list[str] = []
    filled = 0
    for step, text in zip(steps, texts, strict=True):
        if step > filled:
            out.append("_" if step - filled == 1 else f"_x{step - filled}")
        out.append(text)
        filled = step + 1
    return " ".join(out)


def duration_text(time_ms: int) -> str:
    """`1h2m3s4ms` without the parts that are zero, as people write durations in rule files."""
    parts, rest = [], time_ms
    for unit, ms in (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, rest = divmod(rest, ms)
        parts.append(f"{count}{unit}" if count else "")
    return "".join(parts) or "0s"


def alert_points(
    rule_files: Sequence[Path], series: Iterable[GridSeries], start_ms: int, end_ms: int, step_ms: int, interval_ms: int
) -> dict[Point, str]:
    """Every point of ALERTS promtool sees: {(labels, milliseconds from start): "pending" | "firing"}."""
    instants = range(0, end_ms - start_ms + 1, interval_ms)
    asked = [{"expr": "ALERTS", "eval_time": duration_text(now), "exp_samples": []} for now in instants]
    test = {"interval": duration_text(step_ms), "input_series": input_series(series, start_ms, step_ms), "promql_expr_test": asked}
    points: dict[Point, str] = {}
    for got in _run(rule_files, interval_ms, test):
        if isinstance(got, Sample):
            labels = {name: text for name, text in got.labels.items() if name not in ("__name__", "alertstate")}
            points[tuple(sorted(labels.items())), got.time_ms] = got.labels["alertstate"]
    return points


def firing_alerts(
    rule_files: Sequence[Path], series: list[dict[str, str]], step_ms: int, interval_ms: int, asked: Sequence[tuple[str, int]]
) -> list[Alert]:
    """The alerts firing at each (name, milliseconds), labels and annotations rendered."""
    tests = [{"eval_time": duration_text(time_ms), "alertname": name, "exp_alerts": []} for name, time_ms in asked]
    test = {"interval": duration_text(step_ms), "input_series": series, "alert_rule_test": tests}
    return [got for got in _run(rule_files, interval_ms, test) if isinstance(got, Alert)]


def group_order(rule_files: Sequence[Path]) -> list[str]:
    """Group names in file order. Without it promtool takes the groups in another order each time (a Go map's)."""
    return list(dict.fromkeys(group.name for group in load_rule_files(rule_files).groups))


def _run(rule_files: Sequence[Path], interval_ms: int, test: dict[str, Any]) -> Iterable[Alert | Sample]:
    content = {
        "rule_files": [str(file.resolve()) for file in rule_files],
        "evaluation_interval": duration_text(interval_ms),
        "group_eval_order": group_order(rule_files),
        "tests": [test],
    }
    with tempfile.TemporaryDirectory(prefix="fleetsim-oracle-") as folder:
        file = Path(folder, "test.yml")
        write_yaml(file, content)
        result = run_promtool(["test", "rules", str(file)])
    output = result.stdout + "\n" + result.stderr
    got = list(parse(output))
    if result.returncode and not got:
        raise ToolFailed(f"promtool test rules failed: {' '.join(output.split())[:400]}")
    return got
