# SPDX-License-Identifier: Apache-2.0
"""What one rule did over the run: per label set and evaluation instant its state, since when, and the value.

An instant at which Prometheus would have refused the evaluation (two results with one label set, more alerts than the
group's limit, an error of the query) is *failed*: as in rules/manager.go nothing is written and no state moves, except
that a limit exceeded forgets all alerts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fleetsim.verdict.order import Placed
from fleetsim.verdict.rules import Rule
from fleetsim.verdict.state import FIRING, INACTIVE, PENDING, AlertState

Key = tuple[tuple[str, str], ...]  # a final label set, sorted
Element = tuple[Key, float]

_DUPLICATE = "vector contains metrics with the same labelset after applying rule labels"


@dataclass
class Series:
    """One label set. `states` of a recording rule: FIRING where it has a value. `values` NaN where it has none."""

    labels: dict[str, str]
    metric: dict[str, str]  # the expression's own labels, which templates see
    states: NDArray[np.int8]
    since_ms: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass
class RuleRun:
    placed: Placed
    series: dict[Key, Series] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)  # (instant in ms, Prometheus' words)
    _states: dict[Key, AlertState] = field(default_factory=dict)
    _metrics: dict[Key, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.instants = self.placed.grid.instants
        self.good = np.ones(len(self.instants), np.bool_)

    @property
    def rule(self) -> Rule:
        return self.placed.rule

    def key(self, metric: dict[str, str], labels: dict[str, str]) -> Key:
        key = tuple(sorted(labels.items()))
        self._metrics.setdefault(key, metric)
        return key

    def fail(self, index: int, words: str) -> None:
        self.good[index] = False
        self.failures.append((self.instants[index], words))

    def observe(self, index: int, elements: list[Element]) -> None:
        """One evaluation, in order of time."""
        present = dict(elements)
        if len(present) != len(elements):
            return self.fail(index, _DUPLICATE)
        if self.rule.kind == "record":
            if self.placed.limit and len(present) > self.placed.limit:
                return self.fail(index, f"exceeded limit of {self.placed.limit} with {len(present)} series")
            for key, value in present.items():
                self._note(key, index, FIRING, self.instants[index], value)
            return None
        return self._observe_alerts(index, present)

    def _observe_alerts(self, index: int, present: dict[Key, float]) -> None:
        now_ms, rule = self.instants[index], self.rule
        for key in present:
            if key not in self._states:
                self._states[key] = AlertState(rule.for_ms, rule.keep_ms)
        active = []
        for key, state in self._states.items():
            if key in present or state.state != INACTIVE:
                if state.step(now_ms, key in present) != INACTIVE:
                    active.append(key)
        if self.placed.limit and len(active) > self.placed.limit:
            self._states.clear()
            return self.fail(index, f"exceeded limit of {self.placed.limit} with {len(active)} alerts")
        for key in active:
            state = self._states[key]
            self._note(key, index, state.state, state.active_since_ms, present.get(key, np.nan))
        return None

    def _note(self, key: Key, index: int, state: int, since_ms: int, value: float) -> None:
        series = self.series.get(key)
        if series is None:
            n = len(self.instants)
            empty = np.zeros(n, np.int8), np.zeros(n, np.int64), np.full(n, np.nan)
            series = self.series[key] = Series(dict(key), self._metrics[key], *empty)
        series.states[index], series.since_ms[index], series.values[index] = state, since_ms, value

    def written(self, series: Series) -> Iterator[tuple[dict[str, str], NDArray[np.bool_], NDArray[np.float64]]]:
        """The series Prometheus writes for it: labels, where there is a sample, and its value."""
        if self.rule.kind == "record":
            yield series.labels, series.states == FIRING, series.values
            return
        ones = np.ones(len(self.instants))
        for state, name in ((PENDING, "pending"), (FIRING, "firing")):
            yield {**series.labels, "__name__": "ALERTS", "alertstate": name}, series.states == state, ones
        since_s = (series.since_ms // 1000).astype(np.float64)
        yield {**series.labels, "__name__": "ALERTS_FOR_STATE"}, series.states != INACTIVE, since_s
