# SPDX-License-Identifier: Apache-2.0
"""The scale path where it must do as a live server does and promtool's grid cannot tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fleetsim.verdict import evaluate
from fleetsim.verdict.evaluate import Evaluator, Window, place
from fleetsim.verdict.outcome import RuleRun
from fleetsim.verdict.prometheus import private_prometheus
from fleetsim.verdict.remote_write import encode_labels, encode_request
from fleetsim.verdict.rules import load_rule_files
from fleetsim.verdict.state import FIRING, INACTIVE

pytestmark = pytest.mark.usefixtures("prometheus")

START_MS = 1_700_000_040_000  # on a whole minute
Samples = dict[str, tuple[dict[str, str], list[int], list[float]]]


def minutes(values: list[float], shift_ms: int = 0) -> tuple[list[int], list[float]]:
    return [START_MS + 60_000 * k + shift_ms for k in range(len(values))], values


def run_rules(
    rules: Path, series: list[tuple[str, tuple[list[int], list[float]]]], minutes_long: int = 10, **window: object
) -> dict[str, RuleRun]:
    """`series`: 'name' or 'name{label=value,…}' with times and values."""
    ruleset = load_rule_files([rules])
    grid = Window(START_MS, START_MS + 60_000 * minutes_long, **{"interval_ms": 60_000, "aligned": True, **window})
    with private_prometheus() as server:
        for text, (times, values) in series:
            name, _, rest = text.partition("{")
            labels = dict(pair.split("=") for pair in rest.rstrip("}").split(",") if pair)
            server.write(encode_request([(encode_labels({"__name__": name, **labels}), np.array(times), np.array(values))]))
        runs = Evaluator(server, place(ruleset, grid), lambda what, share: None).run()
    return {run.rule.name: run for run in runs}


def fired(run: RuleRun) -> list[int]:
    """Minutes at which anything fires."""
    return sorted(
        {(run.instants[i] - START_MS) // 60_000 for s in run.series.values() for i in np.flatnonzero(s.states == FIRING).tolist()}
    )


def group(*rules: str, head: str = "") -> str:
    return f"groups:\n- name: g\n  {head}\n  rules:\n" + "".join(f"  - {rule}\n" for rule in rules)


KILLS = [0.0] * 4 + [1.0] * 7
OOM = group("{alert: OomKill, expr: 'increase(node_vmstat_oom_kill[1m]) > 0'}")


def test_a_published_rule_fires_on_the_grid_and_never_beside_it(rule_file: Callable[..., Path]) -> None:
    """`[1m]` holds two samples of a 60 s scrape only if one of them sits exactly on its edge. A judge on the grid lies."""
    assert fired(run_rules(rule_file(OOM), [("node_vmstat_oom_kill", minutes(KILLS))])["OomKill"]) == [4]
    assert fired(run_rules(rule_file(OOM), [("node_vmstat_oom_kill", minutes(KILLS, shift_ms=7_000))])["OomKill"]) == []


def test_groups_are_evaluated_at_their_own_interval_and_offset(rule_file: Callable[..., Path]) -> None:
    text = group("{alert: A, expr: up == 1}", head="interval: 2m") + "- name: h\n  rules:\n  - {alert: B, expr: up == 1}\n"
    runs = run_rules(rule_file(text), [("up", minutes([1.0] * 11))], aligned=False)
    steps = {name: {b - a for a, b in zip(run.instants, run.instants[1:], strict=False)} for name, run in runs.items()}
    assert steps == {"A": {120_000}, "B": {60_000}}
    assert runs["A"].instants[0] % 120_000 == runs["A"].instants[-1] % 120_000 != 0
    assert runs["B"].instants[0] % 60_000 != runs["A"].instants[0] % 60_000  # each group at its own offset


def test_an_evaluation_that_prometheus_refuses_changes_nothing_and_is_told(rule_file: Callable[..., Path]) -> None:
    """At minutes 3 to 5 a second `b` makes the match many-to-many; `for` goes on counting across the gap."""
    text = group("{alert: Join, expr: 'a + on(job) b > 0', for: 4m}")
    second = ([START_MS + 60_000 * k for k in (3, 4, 5)] + [START_MS + 60_000 * 6], [1.0, 1.0, 1.0])
    series = [("a{job=x}", minutes([1.0] * 11)), ("b{job=x,n=1}", minutes([1.0] * 11))]
    stale = np.array([0x7FF0000000000002], np.uint64).view(np.float64)[0]
    run = run_rules(rule_file(text), [*series, ("b{job=x,n=2}", (second[0], [*second[1], stale]))])["Join"]
    assert [(at - START_MS) // 60_000 for at, _ in run.failures] == [3, 4, 5]
    assert "many-to-many" in run.failures[0][1] or "duplicate series" in run.failures[0][1]
    assert fired(run) == [6, 7, 8, 9, 10]


def test_two_results_with_one_label_set_fail_the_evaluation(rule_file: Callable[..., Path]) -> None:
    text = group("{alert: Same, expr: 'm > 0', labels: {n: ''}}", "{record: same:m, expr: m, labels: {n: x}}")
    runs = run_rules(rule_file(text), [("m{n=1}", minutes([1.0] * 11)), ("m{n=2}", minutes([0.0] * 5 + [1.0] * 6))])
    assert fired(runs["Same"]) == [0, 1, 2, 3, 4]
    assert [(at - START_MS) // 60_000 for at, _ in runs["Same"].failures] == list(range(5, 11))
    assert len(runs["same:m"].failures) == 11 and "same labelset" in runs["same:m"].failures[0][1]


def test_a_groups_limit_fails_the_evaluation_and_forgets_its_alerts(rule_file: Callable[..., Path]) -> None:
    text = group("{alert: Few, expr: 'm > 0', for: 2m}", head="limit: 1")
    run = run_rules(rule_file(text), [("m{n=1}", minutes([1.0] * 11)), ("m{n=2}", minutes([0.0] * 5 + [1.0] + [0.0] * 5))])["Few"]
    assert [((at - START_MS) // 60_000, words) for at, words in run.failures] == [(5, "exceeded limit of 1 with 2 alerts")]
    assert fired(run) == [2, 3, 4, 8, 9, 10]


def test_two_rules_may_record_one_series(rule_file: Callable[..., Path]) -> None:
    both = group("{record: m:twice, expr: m}", "{record: m:twice, expr: m + 1}", "{alert: A, expr: 'm:twice == 1'}")
    assert fired(run_rules(rule_file(both), [("m", minutes([1.0] * 11))])["A"]) == list(range(11))  # the first one stands
    apart = both.replace(
        "  - {record: m:twice, expr: m + 1}", "- name: h\n  rules:\n  - {record: m:twice, expr: m + 1}\n- name: i\n  rules:"
    )
    runs = run_rules(rule_file(apart), [("m", minutes([1.0] * 11))], aligned=False)
    assert not runs["A"].failures


def test_a_long_run_is_asked_in_parts(rule_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    series = [("m", minutes([float(k % 3) for k in range(11)]))]
    text = group("{alert: A, expr: m > 1, for: 1m, keep_firing_for: 2m}", "{alert: B, expr: m > 0}")
    whole = run_rules(rule_file(text), series)
    monkeypatch.setattr(evaluate, "POINTS_PER_QUERY", 3)
    parts = run_rules(rule_file(text), series)
    assert [fired(run) for run in parts.values()] == [fired(run) for run in whole.values()]
    assert fired(parts["B"]) == [1, 2, 4, 5, 7, 8, 10]


def test_step_by_step_says_what_all_at_once_says(rule_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    text = group(
        "{record: r:m, expr: m * 2}",
        "{alert: A, expr: 'r:m > 1', for: 2m, keep_firing_for: 1m, labels: {v: '{{ $value }}', who: '{{ $labels.n }}'}}",
        "{alert: M, expr: 'count(ALERTS) > 1'}",
    )
    luck = np.random.default_rng(5)
    series = [(f"m{{n={n}}}", minutes([float(value) for value in luck.integers(0, 3, 11)])) for n in range(5)]
    fast = run_rules(rule_file(text), series)
    monkeypatch.setattr(Evaluator, "_whole", lambda self, batch: False)
    slow = run_rules(rule_file(text), series)
    for name, run in fast.items():
        assert run.series.keys() == slow[name].series.keys()
        for key, one in run.series.items():
            assert one.states.tolist() == slow[name].series[key].states.tolist()
            assert one.since_ms.tolist() == slow[name].series[key].since_ms.tolist()
    assert any((one.states != INACTIVE).any() for one in fast["A"].series.values())


def test_at_end_means_the_evaluation_and_not_the_query(rule_file: Callable[..., Path]) -> None:
    text = group("{alert: A, expr: 'm @ end() == 1'}")
    assert fired(run_rules(rule_file(text), [("m", minutes([0.0, 1.0, 0.0, 1.0] + [0.0] * 7))])["A"]) == [1, 3]
