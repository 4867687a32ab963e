# SPDX-License-Identifier: Apache-2.0
"""Two runs' alerts side by side: literal firings, whose differences can be read off. (Real ones: tests/cli/test_whatif.py.)"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleetsim.verdict import compare
from fleetsim.verdict.compare import AlertLine, Fired, alert_lines
from fleetsim.verdict.subjects import Named


def firing(alert: str, host: str, at_ns: int, end_ns: int, pod: str = "") -> Any:
    labels = {"alertname": alert, "instance": host, "pod": pod}
    span = SimpleNamespace(rule=SimpleNamespace(name=alert), labels=labels)
    return SimpleNamespace(span=span, at_ns=at_ns, end_ns=end_ns, named=Named(frozenset({host}), frozenset({pod} - {""})))


def lines(monkeypatch: pytest.MonkeyPatch, was: list[Any], now: list[Any], from_ns: int) -> list[AlertLine]:
    found = {"was": was, "now": now}
    monkeypatch.setattr(compare, "load_rule_files", lambda files: None)
    monkeypatch.setattr(compare, "gather", lambda run, *_: (SimpleNamespace(firings=found[run], hosts=["a", "b", "c"]), []))
    return alert_lines("was", "now", [Path("x")], from_ns, lambda what, share: None)  # type: ignore[arg-type]


def test_firings_of_one_rule_and_label_set_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    was = [firing("A", "a", 50, 60), firing("A", "a", 20, 30), firing("A", "b", 15, 16, "shop"), firing("B", "a", 12, 13)]
    assert lines(monkeypatch, was, [firing("B", "a", 14, 15)], 10) == [
        AlertLine("B", "a", Fired(12, 1, 1), Fired(14, 1, 1)),
        AlertLine("A", "b/shop", Fired(15, 1, 1), None),
        AlertLine("A", "a", Fired(20, 2, 20), None),
    ]


def test_what_was_over_before_the_branch_does_not_count_and_what_was_on_counts_from_then(monkeypatch: pytest.MonkeyPatch) -> None:
    was = [firing("A", "a", 1, 10), firing("B", "a", 2, 25)]
    assert lines(monkeypatch, was, [firing("B", "a", 2, 20)], 10) == [AlertLine("B", "a", Fired(10, 1, 15), Fired(10, 1, 10))]
