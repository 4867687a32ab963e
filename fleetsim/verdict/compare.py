# SPDX-License-Identifier: Apache-2.0
"""The alerts of two runs side by side, from an instant on: what fired in one of them only, and what fired earlier or for longer.

Rules: firings of one rule with the same labels are one line; one that began before the instant and is still on counts from then.
Nothing is written into either run directory.
Leaves out: alerts that were only pending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetsim.rundir.reader import RunDirectory
from fleetsim.verdict.check import EVALUATION_INTERVAL_S, Progress, gather
from fleetsim.verdict.evidence import Evidence, Firing
from fleetsim.verdict.rules import load_rule_files

HOSTS_NAMED = 2


@dataclass(frozen=True)
class Fired:
    """`first_ns`: when it fired first, or the instant of the branch if it was on by then."""

    first_ns: int
    times: int
    total_ns: int


@dataclass(frozen=True)
class AlertLine:
    alert: str
    who: str
    was: Fired | None
    now: Fired | None


def alert_lines(was: RunDirectory, now: RunDirectory, rule_files: Sequence[Path], from_ns: int, tell: Progress) -> list[AlertLine]:
    """Both runs judged by the same rules, by the real Prometheus; in the order of their first firing."""
    rules = load_rule_files(rule_files)
    left, right = (_fired(gather(run, rules, EVALUATION_INTERVAL_S, tell)[0], from_ns) for run in (was, now))
    names = {**_names(left), **_names(right)}
    lines = [AlertLine(*names[key], _of(left, key), _of(right, key)) for key in names]
    return sorted(lines, key=lambda line: (min(f.first_ns for f in (line.was, line.now) if f is not None), line.alert, line.who))


_Key = tuple[str, tuple[tuple[str, str], ...]]
_Found = dict[_Key, tuple[str, Fired]]


def _fired(evidence: Evidence, from_ns: int) -> _Found:
    found: _Found = {}
    for firing in sorted(evidence.firings, key=lambda one: one.at_ns):
        if firing.end_ns <= from_ns:
            continue
        key = (firing.span.rule.name, tuple(sorted(firing.span.labels.items())))
        began = max(firing.at_ns, from_ns)
        who, before = found.get(key, (_who(evidence, firing), None))
        first, times, so_far = (began, 0, 0) if before is None else (before.first_ns, before.times, before.total_ns)
        found[key] = who, Fired(first, times + 1, so_far + firing.end_ns - began)
    return found


def _names(found: _Found) -> dict[_Key, tuple[str, str]]:
    return {key: (key[0], who) for key, (who, _) in found.items()}


def _of(found: _Found, key: _Key) -> Fired | None:
    return found[key][1] if key in found else None


def _who(evidence: Evidence, firing: Firing) -> str:
    hosts = sorted(firing.named.hosts)
    where = ", ".join(hosts) if len(hosts) <= HOSTS_NAMED else "everybody" if len(hosts) == len(evidence.hosts) else f"{len(hosts)} hosts"
    return "/".join([where, *sorted(firing.named.subjects)])
