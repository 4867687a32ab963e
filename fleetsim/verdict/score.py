# SPDX-License-Identifier: Apache-2.0
"""Every rule scored for information; none of this touches the exit code.

precision   true firings / firings                   true: an incident justifies it (evidence.justified_by)
recall      incidents it fired for / incidents
lead        first harm of an incident − first firing for it, median over incidents with harm (negative: too late)
flaps       firings of one label set after its first
noise       false firings per host and day, counted over the time in which a host had no incident
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from fleetsim.verdict.evidence import Evidence, Firing, RuleStatus
from fleetsim.verdict.incidents import Incident
from fleetsim.verdict.models import IncidentSummary, RuleScore
from fleetsim.verdict.rules import Rule

NS = 1_000_000_000
NS_PER_DAY = 86_400 * NS

Place = tuple[str, str, int]


def place_of(rule: Rule) -> Place:
    return rule.file, rule.group, rule.line


class Scoreboard:
    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._firings: dict[Place, list[tuple[Firing, list[Incident]]]] = {}
        for firing in evidence.firings:
            entry = (firing, evidence.justified_by(firing))
            self._firings.setdefault(place_of(firing.span.rule), []).append(entry)
        self._healthy_host_days = healthy_ns(evidence) / NS_PER_DAY

    def rules(self) -> list[RuleScore]:
        return [self._score(status) for status in self.evidence.statuses]

    def _score(self, status: RuleStatus) -> RuleScore:
        rule = status.rule
        judged = self._firings.get(place_of(rule), [])
        true = sum(bool(incidents) for _, incidents in judged)
        false = len(judged) - true
        failed = bool(status.failures) and len(status.failures) >= status.instants
        evaluated = rule.kind == "alert" and not status.needs and not failed
        incidents = self.evidence.incidents
        leads = self._leads(judged)
        return RuleScore(
            alert=rule.name,
            kind="alert" if rule.kind == "alert" else "record",
            file=rule.file,
            group=rule.group,
            line=rule.line,
            status="not_evaluable" if status.needs else "failed" if failed else "evaluated",
            needs=list(status.needs),
            note=status.blind or (f"{len(status.failures)} evaluations failed: {status.failures[0]}" if status.failures else ""),
            firings=len(judged),
            true_firings=true,
            false_firings=false,
            precision=true / len(judged) if judged else None,
            recall=len(self._caught(judged)) / len(incidents) if incidents and evaluated else None,
            median_lead_s=median(leads) / NS if leads else None,
            flaps=len(judged) - len({tuple(sorted(firing.span.labels.items())) for firing, _ in judged}),
            noise_per_host_day=round(false / self._healthy_host_days, 3) if self._healthy_host_days else 0.0,
        )

    def _caught(self, judged: Sequence[tuple[Firing, list[Incident]]]) -> set[str]:
        return {incident.id for _, incidents in judged for incident in incidents}

    def _leads(self, judged: Sequence[tuple[Firing, list[Incident]]]) -> list[int]:
        first: dict[str, int] = {}
        for firing, incidents in judged:
            for incident in incidents:
                first[incident.id] = min(firing.at_ns, first.get(incident.id, firing.at_ns))
        harm = {incident.id: incident.first_impact_ns() for incident in self.evidence.incidents}
        return [harm_ns - first[name] for name, harm_ns in harm.items() if name in first and harm_ns is not None]

    def incidents(self) -> list[IncidentSummary]:
        caught_by: dict[str, set[str]] = {}
        for judged in self._firings.values():
            for firing, incidents in judged:
                for incident in incidents:
                    caught_by.setdefault(incident.id, set()).add(firing.span.rule.name)
        summaries = []
        for incident in self.evidence.incidents:
            harm_ns = incident.first_impact_ns()
            summary = IncidentSummary(
                id=incident.id,
                fault=incident.kind,
                hosts=sorted(incident.hosts),
                start_s=incident.start_ns / NS,
                end_s=incident.end_ns / NS,
                impact_at_s=None if harm_ns is None else harm_ns / NS,
                caught_by=sorted(caught_by.get(incident.id, ())),
            )
            summaries.append(summary)
        return summaries

    def coverage(self) -> dict[str, dict[str, str]]:
        """Fault kind × alert: for how many of the incidents of the kind it fired."""
        alerts = sorted({s.rule.name for s in self.evidence.statuses if s.rule.kind == "alert" and not s.needs})
        matrix: dict[str, dict[str, str]] = {}
        summaries = self.incidents()
        for kind in sorted({summary.fault for summary in summaries}):
            of_kind = [summary for summary in summaries if summary.fault == kind]
            matrix[kind] = {name: f"{sum(name in summary.caught_by for summary in of_kind)}/{len(of_kind)}" for name in alerts}
        return matrix


def healthy_ns(evidence: Evidence) -> int:
    """Time without incident, summed over hosts."""
    total = 0
    for host in evidence.hosts:
        total += evidence.end_ns
        covered_until = 0
        for incident in evidence.incidents:  # ordered by start
            if host in incident.hosts:
                start, end = max(incident.start_ns, covered_until), min(incident.end_ns, evidence.end_ns)
                total -= max(0, end - start)
                covered_until = max(covered_until, end)
    return total
