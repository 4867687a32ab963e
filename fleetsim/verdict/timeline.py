# SPDX-License-Identifier: Apache-2.0
"""The life of every alert of a run: pending, firing, resolved, with labels and rendered annotations (alerts.jsonl)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fleetsim.verdict.outcome import RuleRun, Series
from fleetsim.verdict.render import Request, render
from fleetsim.verdict.rules import Rule
from fleetsim.verdict.state import FIRING, INACTIVE


@dataclass
class AlertSpan:
    """One alert from its first pending (or firing) evaluation to the one that found it gone (None: still there at the end)."""

    rule: Rule
    interval_ms: int
    labels: dict[str, str]
    metric: dict[str, str]
    start_ms: int
    firing_ms: int | None
    end_ms: int | None
    value: float  # at the first firing evaluation
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def naming_labels(self) -> dict[str, str]:
        """The labels that say whom it is about: those the rule did not attach itself."""
        attached = {name for name, text in self.rule.labels.items() if "{{" not in text}
        return {name: text for name, text in self.labels.items() if name not in attached and name != "alertname"}


def spans_of(runs: Sequence[RuleRun]) -> list[AlertSpan]:
    """All alerts, ordered by start, annotations of those that fired rendered."""
    spans = [span for run in runs if run.rule.kind == "alert" for series in run.series.values() for span in _spans(run, series)]
    fired = [(span, _request(span)) for span in spans if span.firing_ms is not None]
    rendered = render([request for _, request in fired])
    for span, request in fired:
        span.annotations = rendered[request]
    return sorted(spans, key=lambda span: (span.start_ms, span.rule.name, sorted(span.labels.items())))


def _request(span: AlertSpan) -> Request:
    return Request.of(span.rule.annotations, span.metric, span.value)


def _spans(run: RuleRun, series: Series) -> Iterator[AlertSpan]:
    states = _through_failures(series.states, run.good)
    active = np.concatenate(([False], states != INACTIVE, [False])).astype(np.int8)
    starts, ends = np.flatnonzero(np.diff(active) == 1).tolist(), np.flatnonzero(np.diff(active) == -1).tolist()
    for start, end in zip(starts, ends, strict=True):
        firing = [index for index in range(start, end) if states[index] == FIRING]
        yield AlertSpan(
            rule=run.rule,
            interval_ms=run.placed.grid.step_ms,
            labels=series.labels,
            metric=series.metric,
            start_ms=run.instants[start],
            firing_ms=run.instants[firing[0]] if firing else None,
            end_ms=run.instants[end] if end < len(states) else None,
            value=float(series.values[firing[0]]) if firing else float("nan"),
        )


def _through_failures(states: NDArray[np.int8], good: NDArray[np.bool_]) -> NDArray[np.int8]:
    """At an instant whose evaluation failed the alert stays as it was."""
    if good.all():
        return states
    last_good = np.maximum.accumulate(np.where(good, np.arange(len(states)), -1))
    return np.where(last_good >= 0, states[last_good], INACTIVE).astype(np.int8)


def write_alerts(path: Path, spans: Sequence[AlertSpan], start_unix_ms: int) -> None:
    """One line per transition, ordered by time."""
    lines: list[tuple[int, int, str]] = []
    name_of = {file: Path(file).name for file in {span.rule.file for span in spans}}
    for number, span in enumerate(spans):
        moves = [("pending", span.start_ms)] if span.start_ms != span.firing_ms else []
        moves += [("firing", span.firing_ms)] if span.firing_ms is not None else []
        moves += [("resolved", span.end_ms)] if span.end_ms is not None else []
        for state, time_ms in moves:
            content = {
                "t_ms": time_ms,
                "t_s": (time_ms - start_unix_ms) / 1000,
                "alert": span.rule.name,
                "state": state,
                "labels": span.labels,
                "annotations": span.annotations if state == "firing" else {},
                "value": repr(span.value) if state == "firing" else None,  # text: JSON has no NaN
                "file": name_of[span.rule.file],
                "group": span.rule.group,
            }
            lines.append((time_ms, number, json.dumps(content, ensure_ascii=False)))
    path.write_text("".join(line + "\n" for *_, line in sorted(lines)), encoding="utf-8")
