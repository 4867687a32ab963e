# SPDX-License-Identifier: Apache-2.0
"""The scale path: every rule over the whole run, in the private Prometheus, with pending and firing kept by us.

    for each batch of rules (order.py: producers first)
        query_range the expression at the group's instants       (stepped batches: instant by instant)
        alert   → state.py per label set → ALERTS, ALERTS_FOR_STATE
        record  → the recorded series
        write what others read back into the server, staleness markers included

A group is evaluated at its own interval and at its own hash offset inside it, as a live server does; `aligned` puts
all of them on one grid instead, as promtool does. Differences to a live server: see order.py (patterns on names),
state.py (restarts), render.py (`query` inside templates).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.verdict.order import Batch, Grid, Placed, Producers, batches
from fleetsim.verdict.outcome import Element, Key, RuleRun
from fleetsim.verdict.prometheus import PrivatePrometheus, QueryFailed
from fleetsim.verdict.render import Request, is_template, render, uses_value
from fleetsim.verdict.rules import Rule, RuleGroup, RuleSet
from fleetsim.verdict.write_back import WriteBack

POINTS_PER_QUERY = 10_000  # Prometheus allows 11,000 steps per series

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Window:
    """When to evaluate. `aligned`: every group at start, start + interval, … whatever the group says."""

    start_ms: int
    end_ms: int
    interval_ms: int
    aligned: bool = False

    def grid(self, group: RuleGroup) -> Grid:
        if self.aligned:
            return Grid(self.start_ms, self.interval_ms, self.end_ms)
        interval = group.interval_ms or self.interval_ms
        offset = group.offset_ms(interval)
        return Grid(self.start_ms + (offset - self.start_ms) % interval, interval, self.end_ms)


def place(rules: RuleSet, window: Window, skip: Set[int] = frozenset()) -> list[Placed]:
    """Rules in file order; `skip` holds numbers (in `rules.rules`) of those that need not be evaluated."""
    chosen = [
        (rule, group)
        for number, (rule, group) in enumerate((rule, group) for group in rules.groups for rule in group.rules)
        if number not in skip
    ]
    return [Placed(n, rule, window.grid(group), group.limit) for n, (rule, group) in enumerate(chosen)]


@dataclass
class Evaluator:
    server: PrivatePrometheus
    placed: Sequence[Placed]
    progress: Progress
    _runs: dict[int, RuleRun] = field(default_factory=dict)
    _labels: dict[Request, dict[str, str]] = field(default_factory=dict)  # templated labels, rendered

    def run(self) -> list[RuleRun]:
        self._runs = {placed.number: RuleRun(placed) for placed in self.placed}
        producers = Producers(self.placed)
        read = {p.number for c in self.placed for p in (*producers.named(c.rule), *producers.matched(c))}
        self._write_back = WriteBack(self.server, read)
        done = 0
        for batch in batches(self.placed):
            if batch.stepped or not self._whole(batch):
                self._step(batch)
            done += len(batch.members)
            self.progress("evaluating rules", done / len(self.placed))
        return [self._runs[placed.number] for placed in self.placed]

    def _whole(self, batch: Batch) -> bool:
        """Evaluate the only member of a batch over the whole run; False if that must be done instant by instant."""
        (placed,) = batch.members
        if placed.limit or pins_time(placed.rule.expr):
            return False
        try:
            series = self._matrix(placed)
        except QueryFailed:
            return False  # at some instant it fails; a live server would go on with the others
        run, rule = self._runs[placed.number], placed.rule
        self._render_labels(rule, [(metric, value) for metric, _, values in series for value in _relevant(rule, values)])
        elements: list[list[Element]] = [[] for _ in run.instants]
        for metric, indexes, values in series:
            fixed = None if _value_matters(rule) else run.key(metric, self._final_labels(rule, metric, 0.0))
            for index, value in zip(indexes.tolist(), values.tolist(), strict=True):
                key = fixed or run.key(metric, self._final_labels(rule, metric, value))
                elements[index].append((key, value))
        for index, found in enumerate(elements):
            run.observe(index, found)
        self._write_back.everything(run)
        return True

    def _matrix(self, placed: Placed) -> list[tuple[dict[str, str], NDArray[np.int64], NDArray[np.float64]]]:
        instants, out = placed.grid.instants, []
        for first in range(0, len(instants), POINTS_PER_QUERY):
            part = instants[first : first + POINTS_PER_QUERY]
            for series in self.server.query_range(placed.rule.expr, part[0], part[-1], placed.grid.step_ms):
                times = np.array([point[0] for point in series["values"]])
                indexes = np.rint((times * 1000 - instants[0]) / placed.grid.step_ms).astype(np.int64)
                out.append((series["metric"], indexes, np.array([float(point[1]) for point in series["values"]])))
        return out

    def _step(self, batch: Batch) -> None:
        due: dict[int, list[tuple[Placed, int]]] = {}
        for placed in batch.members:  # file order within an instant
            for index, now_ms in enumerate(placed.grid.instants):
                due.setdefault(now_ms, []).append((placed, index))
        for now_ms in sorted(due):
            for placed, index in due[now_ms]:
                run = self._runs[placed.number]
                try:
                    vector = self.server.query(placed.rule.expr, now_ms)
                except QueryFailed as error:
                    run.fail(index, str(error))
                    continue
                run.observe(index, self._elements(placed.rule, run, vector))
                self._write_back.instant(run, index)

    def _elements(self, rule: Rule, run: RuleRun, vector: list[dict[str, Any]]) -> list[Element]:
        values = [float(element["value"][1]) for element in vector]
        self._render_labels(rule, [(element["metric"], value) for element, value in zip(vector, values, strict=True)])
        keys: list[Key] = [
            run.key(element["metric"], self._final_labels(rule, element["metric"], value))
            for element, value in zip(vector, values, strict=True)
        ]
        return list(zip(keys, values, strict=True))

    def _render_labels(self, rule: Rule, elements: list[tuple[dict[str, str], float]]) -> None:
        templates = {name: text for name, text in rule.labels.items() if is_template(text)}
        if templates:
            wanted = {_label_request(rule, templates, metric, value) for metric, value in elements} - self._labels.keys()
            self._labels |= render(sorted(wanted, key=repr))

    def _final_labels(self, rule: Rule, metric: dict[str, str], value: float) -> dict[str, str]:
        """The element's labels under the rule's, as rules/alerting.go and recording.go set them."""
        labels = {name: text for name, text in metric.items() if name != "__name__"} | rule.labels
        templates = {name: text for name, text in rule.labels.items() if is_template(text)}
        if templates:
            labels |= self._labels[_label_request(rule, templates, metric, value)]
        labels["alertname" if rule.kind == "alert" else "__name__"] = rule.name
        return {name: text for name, text in labels.items() if text}


def _value_matters(rule: Rule) -> bool:
    return any(is_template(text) and uses_value(text) for text in rule.labels.values())


def _relevant(rule: Rule, values: NDArray[np.float64]) -> list[float]:
    return values.tolist() if _value_matters(rule) else [0.0]


def _label_request(rule: Rule, templates: dict[str, str], metric: dict[str, str], value: float) -> Request:
    return Request.of(templates, metric, value if _value_matters(rule) else 0.0)


def pins_time(expr: str) -> bool:
    """`@ start()` and `@ end()` mean the query's ends: only an instant query gives them the rule's meaning."""
    return "start()" in expr or "end()" in expr
