# SPDX-License-Identifier: Apache-2.0
"""All that is known when judging starts: alerts, faults, impacts, who is named by what, and which rules could be evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleetsim.rundir.reader import RunDirectory
from fleetsim.verdict.incidents import Fault, Impact, Incident, read_faults, read_impacts, read_incidents
from fleetsim.verdict.rules import Rule
from fleetsim.verdict.subjects import Directory, Named
from fleetsim.verdict.timeline import AlertSpan


@dataclass(frozen=True)
class RuleStatus:
    """`needs`: metrics nobody provides. `blind`: it selects nothing of what is provided. `failures`: Prometheus' words."""

    rule: Rule
    needs: tuple[str, ...] = ()
    blind: str = ""
    failures: tuple[str, ...] = ()
    instants: int = 0


@dataclass(frozen=True)
class Firing:
    """One span that fired, in virtual time, with whom it names."""

    span: AlertSpan
    at_ns: int
    end_ns: int
    named: Named

    def names(self, hosts: Iterable[str]) -> bool:
        return not self.named.hosts.isdisjoint(hosts)


class Evidence:
    def __init__(self, run: RunDirectory, statuses: Sequence[RuleStatus], spans: Sequence[AlertSpan]) -> None:
        self.run, self.statuses = run, statuses
        self.end_ns = run.manifest.duration_ns
        self.hosts = run.hosts
        self.faults: list[Fault] = read_faults(run.history, self.end_ns)
        self.impacts: list[Impact] = read_impacts(run.history, self.end_ns)
        self.incidents: list[Incident] = read_incidents(self.faults, self.impacts)
        directory = Directory(self.hosts, run.targets, run.placements)
        self.firings = [self._firing(span, directory) for span in spans if span.firing_ms is not None]

    def _firing(self, span: AlertSpan, directory: Directory) -> Firing:
        assert span.firing_ms is not None
        at_ns = self.t_ns(span.firing_ms)
        end_ns = self.end_ns if span.end_ms is None else self.t_ns(span.end_ms)
        return Firing(span, at_ns, end_ns, directory.named(span.naming_labels, at_ns, end_ns))

    def t_ns(self, unix_ms: int) -> int:
        return (unix_ms - self.run.manifest.start_unix_ms) * 1_000_000

    def of(self, alert: str) -> list[Firing]:
        return [firing for firing in self.firings if firing.span.rule.name == alert]

    def justified_by(self, firing: Firing, hosts: Iterable[str] | None = None) -> list[Incident]:
        """The incidents that make it a true firing: open when it began, or over for no longer than it may lag behind.

        From the fault's start to the harm's end + `for` + two evaluation intervals; `hosts` narrows whom it is about.
        """
        lag_ns = (firing.span.rule.for_ms + 2 * firing.span.interval_ms) * 1_000_000
        about = firing.named.hosts if hosts is None else firing.named.hosts.intersection(hosts)
        return [
            incident
            for incident in self.incidents
            if incident.start_ns <= firing.at_ns <= incident.end_ns + lag_ns and incident.concerns(about, firing.named.subjects)
        ]
