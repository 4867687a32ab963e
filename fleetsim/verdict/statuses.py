# SPDX-License-Identifier: Apache-2.0
"""Before anything is evaluated: which rules this run can say something about.

    not evaluable   a metric it needs is exported by nobody here and recorded by no evaluable rule
    blind           the metric is there, but the rule selects jobs that this run does not have (`job="node"`)

Both follow recording rules down to what exporters show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from fleetsim.rundir.reader import RunDirectory
from fleetsim.verdict.evidence import RuleStatus
from fleetsim.verdict.needs import Selector, missing
from fleetsim.verdict.order import ALERT_METRICS
from fleetsim.verdict.rules import Rule, RuleSet


class Provision:
    """What the run's exporters show: metric names, and under which jobs."""

    def __init__(self, run: RunDirectory) -> None:
        self.jobs: dict[str, set[str]] = {}
        for labels in run.series:
            self.jobs.setdefault(labels.get("__name__", ""), set()).add(labels.get("job", ""))
        for exporter, metrics in run.exporters.items():  # an exporter may show a metric later than this run lasted
            for metric in metrics:
                mine = {target.labels.get("job", "") for target in run.targets if target.exporter == exporter}
                if mine:
                    self.jobs.setdefault(metric, set()).update(mine)

    def names(self, selector: Selector) -> list[str]:
        return [selector.name] if selector.name in self.jobs else [name for name in self.jobs if selector.accepts_name(name)]


class Statuses:
    """Statuses of all rules of a set, in its order."""

    def __init__(self, rules: RuleSet, provision: Provision) -> None:
        self._rules, self._provision = rules.rules, provision
        self._writers: dict[str, list[int]] = {}
        for number, rule in enumerate(self._rules):
            for name in (rule.name,) if rule.kind == "record" else ALERT_METRICS:
                self._writers.setdefault(name, []).append(number)

    @cached_property
    def needs(self) -> list[list[str]]:
        def lacks(selector: Selector) -> list[str]:
            return [] if self._provision.names(selector) else [str(selector)]

        return self._follow(lacks)

    @cached_property
    def blind(self) -> list[list[str]]:
        def lacks(selector: Selector) -> list[str]:
            jobs = {job for name in self._provision.names(selector) for job in self._provision.jobs[name]}
            if not jobs or any(selector.accepts("job", job) for job in jobs):
                return []
            wanted = ",".join(f'job{op}"{value}"' for label, op, value in selector.matchers if label == "job")
            return [f"{selector}{{{wanted}}} matches none of this run's jobs ({', '.join(sorted(jobs))})"]

        return self._follow(lacks)

    def all(self, failures: Callable[[int], tuple[tuple[str, ...], int]]) -> Sequence[RuleStatus]:
        return [
            RuleStatus(rule, tuple(self.needs[n]), "; ".join(self.blind[n]) if not self.needs[n] else "", *failures(n))
            for n, rule in enumerate(self._rules)
        ]

    def _follow(self, lacks: Callable[[Selector], list[str]]) -> list[list[str]]:
        """What each rule lacks, a metric recorded by a rule that lacks nothing being as good as an exported one."""
        known: dict[int, list[str]] = {}

        def of_rule(number: int) -> list[str]:
            if number not in known:
                known[number] = []  # a rule that reads itself lacks nothing on that account
                known[number] = missing(self._rules[number].expr, of_selector)
            return known[number]

        def of_selector(selector: Selector) -> list[str]:
            writers = [n for name in self._writer_names(selector) for n in self._writers[name] if _may_write(self._rules[n], selector)]
            if not writers:
                return lacks(selector)
            found = [of_rule(number) for number in writers]
            if any(not names for names in found):
                return []
            return [name for names in found for name in names] if lacks(selector) or not self._provision.names(selector) else []

        return [of_rule(number) for number in range(len(self._rules))]

    def _writer_names(self, selector: Selector) -> list[str]:
        if selector.name:
            return [selector.name] if selector.name in self._writers else []
        return [name for name in self._writers if selector.accepts_name(name)]


def _may_write(rule: Rule, selector: Selector) -> bool:
    return rule.kind == "record" or selector.accepts("alertname", rule.name)


def metrics_read(rules: Sequence[Rule], available: Sequence[str]) -> set[str] | None:
    """Which of the available metrics these rules read; None if that cannot be told."""
    found: set[str] = set()
    for rule in rules:
        if rule.selectors is None:
            return None
        for selector in rule.selectors:
            found.update([selector.name] if selector.name else [name for name in available if selector.accepts_name(name)])
    return found & set(available)
