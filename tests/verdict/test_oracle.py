# SPDX-License-Identifier: Apache-2.0
"""The scale path equals promtool at every point of ALERTS, and a scale path that is wrong would be found out.

The world is on promtool's grid (it knows no other): six targets with wandering memory; one goes down and comes back
with staleness markers, and later vanishes altogether. The rules have everything that state can depend on: recording
rules (one of them reading itself), `for`, `keep_firing_for`, templated labels that follow the value, alerts on ALERTS of rules
before and after, absent().
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fleetsim.rundir.samples import STALE, STALE_BITS
from fleetsim.verdict.evaluate import Evaluator, Window, place
from fleetsim.verdict.oracle import GridSeries, Point, alert_points
from fleetsim.verdict.outcome import RuleRun
from fleetsim.verdict.prometheus import private_prometheus
from fleetsim.verdict.remote_write import encode_labels, encode_request
from fleetsim.verdict.rules import load_rule_files
from fleetsim.verdict.state import STATE_NAMES

pytestmark = pytest.mark.usefixtures("prometheus")

STEP_MS = 15_000
START_MS = 1_700_000_010_000
STEPS = 80
END_MS = START_MS + STEP_MS * (STEPS - 1)

RULES = """
groups:
- name: recorded
  rules:
  - record: instance:memory:ratio
    expr: memory_available / memory_total
    labels: {unit: ratio}
  - record: run:length
    expr: (run:length or on(instance) memory_total * 0) + 1
- name: alerts
  rules:
  - {alert: Plain, expr: "instance:memory:ratio < 0.1"}
  - {alert: Waits, expr: "instance:memory:ratio < 0.3", for: 1m, labels: {severity: warn}}
  - {alert: Keeps, expr: "instance:memory:ratio < 0.3", for: 30s, keep_firing_for: 45s}
  - alert: Templated
    expr: instance:memory:ratio < 0.5
    labels: {band: '{{ if lt $value 0.2 }}deep{{ else }}shallow{{ end }}', who: "{{ $labels.instance }}!", unit: ""}
  - {alert: ManyOfThem, expr: 'count(ALERTS{alertname="Waits", alertstate="firing"}) > 1'}
  - {alert: Since, expr: 'time() - ALERTS_FOR_STATE{alertname="Keeps"} > 90'}
  - {alert: Down, expr: up == 0, for: 15s}
  - {alert: Gone, expr: 'absent(up{instance="h1"})'}
  - {alert: SeesALaterRule, expr: 'ALERTS{alertname="Killed"}'}
  - {alert: Killed, expr: "increase(kills[1m]) > 0"}
  - {alert: ReadsItself, expr: "run:length > 10"}
"""


def grid_world(seed: int) -> list[GridSeries]:
    luck = np.random.default_rng(seed)
    world = []
    for host in range(6):
        there = np.ones(STEPS, np.bool_)
        if host == 1:
            there[30:45] = there[60:] = False
        labels = {"job": "node", "instance": f"h{host}"}
        up = np.where((np.arange(STEPS) >= 30) & (np.arange(STEPS) < 45) & (host == 1), 0.0, 1.0)
        world.append(with_markers({**labels, "__name__": "up"}, there | (np.arange(STEPS) < 60), up))
        walk = np.clip(0.4 + np.cumsum(luck.normal(0, 0.06, STEPS)), 0.01, 1)
        world.append(with_markers({**labels, "__name__": "memory_available"}, there, walk * 8e9))
        world.append(with_markers({**labels, "__name__": "memory_total"}, there, np.full(STEPS, 8e9)))
        world.append(with_markers({**labels, "__name__": "kills"}, there, np.cumsum(luck.random(STEPS) < 0.05).astype(float)))
    return world


def with_markers(labels: dict[str, str], there: np.ndarray, values: np.ndarray) -> GridSeries:
    gone = np.concatenate(([False], there[:-1] & ~there[1:]))
    keep = there | gone
    return GridSeries(labels, START_MS + STEP_MS * np.flatnonzero(keep), np.where(gone, STALE, values)[keep])


def scale_points(rules: Path, world: list[GridSeries]) -> dict[Point, str]:
    ruleset = load_rule_files([rules])
    with private_prometheus() as server:
        server.write(encode_request([(encode_labels(one.labels), one.times_ms, one.values) for one in world]))
        runs = Evaluator(server, place(ruleset, Window(START_MS, END_MS, STEP_MS, aligned=True)), lambda what, share: None).run()
    assert not [run.failures for run in runs if run.failures]
    return points_of(runs)


def points_of(runs: list[RuleRun]) -> dict[Point, str]:
    points: dict[Point, str] = {}
    for run in runs:
        for series in run.series.values() if run.rule.kind == "alert" else ():
            labels = tuple(sorted((name, text) for name, text in series.labels.items() if name != "alertstate"))
            for index in np.flatnonzero(series.states).tolist():
                points[labels, run.instants[index] - START_MS] = STATE_NAMES[series.states[index]]
    return points


def differing(ours: dict[Point, str], theirs: dict[Point, str]) -> Counter[str]:
    return Counter(
        dict(labels)["alertname"] for labels, time in ours.keys() | theirs.keys() if ours.get((labels, time)) != theirs.get((labels, time))
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_scale_path_equals_promtool_at_every_point(rule_file: Callable[..., Path], seed: int) -> None:
    rules, world = rule_file(RULES), grid_world(seed)
    theirs = alert_points([rules], world, START_MS, END_MS, STEP_MS, STEP_MS)
    ours = scale_points(rules, world)
    seen = Counter(dict(labels)["alertname"] for labels, _ in theirs)
    assert set(seen) == {rule.name for rule in load_rule_files([rules]).rules if rule.kind == "alert"}
    assert set(theirs.values()) == {"pending", "firing"} and len(theirs) > 1_000
    assert differing(ours, theirs) == Counter()


@pytest.mark.parametrize(
    ("wrong", "found_in"),
    [
        (("keep_firing_for: 45s", "keep_firing_for: 15s"), "Keeps"),
        (("for: 1m", "for: 45s"), "Waits"),
        (("deep", "DEEP"), "Templated"),
        (("/ memory_total", "/ (memory_total + 1e9)"), "Waits"),
    ],
)
def test_another_rule_would_be_told_apart(rule_file: Callable[..., Path], wrong: tuple[str, str], found_in: str) -> None:
    world = grid_world(1)
    theirs = alert_points([rule_file(RULES)], world, START_MS, END_MS, STEP_MS, STEP_MS)
    ours = scale_points(rule_file(RULES.replace(*wrong), "other.yml"), world)
    assert differing(ours, theirs)[found_in] > 0


def test_lost_staleness_markers_would_be_found_out(rule_file: Callable[..., Path]) -> None:
    world = grid_world(1)
    theirs = alert_points([rule_file(RULES)], world, START_MS, END_MS, STEP_MS, STEP_MS)
    unmarked = []
    for one in world:
        real = one.values.view(np.uint64) != STALE_BITS
        unmarked.append(GridSeries(one.labels, one.times_ms[real], one.values[real]))
    assert differing(scale_points(rule_file(RULES), unmarked), theirs)["Gone"] > 0
