# SPDX-License-Identifier: Apache-2.0
"""Which metrics a rule cannot do without, and what a run lacks of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fleetsim.rundir.reader import RunDirectory
from fleetsim.verdict.needs import Selector, missing, selectors
from fleetsim.verdict.rules import load_rule_files
from fleetsim.verdict.statuses import Provision, Statuses, metrics_read

HERE = {"up", "free", "total"}


def lacks(selector: Selector) -> list[str]:
    return [] if any(selector.accepts_name(name) for name in HERE) else [str(selector)]


@pytest.mark.parametrize(
    ("expr", "needs"),
    [
        ("free / total < 0.1", []),
        ("free / gone < 0.1", ["gone"]),
        ("gone / lost + gone", ["gone", "lost"]),
        ("free or gone", []),
        ("gone or lost", ["gone", "lost"]),
        ("gone or on() vector(0)", ["gone"]),  # a constant is no evidence
        ("(gone or vector(0)) == 0", ["gone"]),
        ("free unless gone", ["gone"]),  # without what excuses it, it would cry wolf
        ("absent(gone)", ["gone"]),
        ("sum by (x) (rate(gone[5m])) > 1", ["gone"]),
        ("topk(3, gone)", ["gone"]),
        ("quantile(scalar(gone), free)", ["gone"]),
        ("max_over_time(gone[1h:1m]) > 0", ["gone"]),
        ('{__name__=~"fre.", x="y"}', []),
        ('{__name__=~"gon.", x="y"}', ['{__name__=~"gon.",x="y"}']),
        ('{__name__="gone"}', ["gone"]),
        ('{job="node"}', []),
        ("vector(1)", []),
        ("-(gone)", ["gone"]),
    ],
)
def test_needs(expr: str, needs: list[str]) -> None:
    assert missing(expr, lacks) == needs


def test_matchers_are_fully_anchored_as_prometheus_does() -> None:
    (selector,) = selectors('up{job=~"node|exporter",instance!~"a.*",zone!="x"}') or ()
    assert selector.accepts("job", "node") and not selector.accepts("job", "node-exporter")
    assert selector.accepts("instance", "ba") and not selector.accepts("instance", "ab")
    assert selector.accepts("zone", "y") and not selector.accepts("zone", "x")
    assert selector.accepts("other", "anything")


RULES = """
groups:
- name: g
  rules:
  - {record: good:ratio, expr: free / total}
  - {record: bad:ratio, expr: free / gone}
  - {record: own:count, expr: own:count + 1 or up}
  - {alert: OverGood, expr: good:ratio < 1}
  - {alert: OverBad, expr: bad:ratio < 1}
  - {alert: OverBadTwice, expr: 'count(ALERTS{alertname="OverBad"})'}
  - {alert: OverNobody, expr: 'ALERTS{alertname="NoSuchAlert"}'}
  - {alert: OtherJob, expr: 'free{job="elsewhere"} < 1'}
  - {alert: EitherJob, expr: 'free{job="elsewhere"} < 1 or free{job=~"no.*"} < 1'}
  - {alert: Possible, expr: rare > 0}
"""


@pytest.fixture
def statuses(world: Callable[..., object], rule_file: Callable[..., Path], prometheus: Path) -> dict[str, tuple[list[str], list[str]]]:
    drawn = world(minutes=1)
    drawn.metric("free", lambda host, minute: 1.0)
    drawn.metric("total", lambda host, minute: 2.0)
    drawn.exporters = {"node_exporter": ["rare"]}
    rules = load_rule_files([rule_file(RULES)])
    found = Statuses(rules, Provision(RunDirectory(drawn.write())))
    return {rule.name: (needs, blind) for rule, needs, blind in zip(rules.rules, found.needs, found.blind, strict=True)}


@pytest.mark.parametrize(
    ("rule", "needs"),
    [
        ("OverGood", []),
        ("OverBad", ["gone"]),  # named by what is really missing, not by the recorded name
        ("OverBadTwice", ["gone"]),
        ("OverNobody", ["ALERTS"]),
        ("own:count", []),
        ("Possible", []),  # an exporter can show it, though nothing happened that would
        ("OtherJob", []),
    ],
)
def test_needs_follow_recording_rules_and_alerts(statuses, rule: str, needs: list[str]) -> None:
    assert statuses[rule][0] == needs


def test_a_rule_that_selects_another_job_is_blind(statuses) -> None:
    assert statuses["OtherJob"][1] == ['free{job="elsewhere"} matches none of this run\'s jobs (node)']
    assert statuses["EitherJob"][1] == [] and statuses["OverGood"][1] == []


def test_only_metrics_that_rules_read_are_loaded(rule_file: Callable[..., Path], prometheus: Path) -> None:
    text = "groups:\n- name: g\n  rules:\n  - {alert: A, expr: 'free > 1 and {__name__=~\"to.*\"}'}\n"
    rules = load_rule_files([rule_file(text)]).rules
    assert metrics_read(rules, ["free", "total", "up"]) == {"free", "total"}
