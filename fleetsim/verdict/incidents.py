# SPDX-License-Identifier: Apache-2.0
"""Incidents: the faults that hurt or were bound to, and harm nobody planned, read from the history.

A fault whose own truth expects no harm (`harm: null`) is no incident: it justifies no alert. If somebody is hurt while
it is open all the same, that harm is an incident of its own, named after the fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fleetsim.rundir.models import HistoryEvent

AFTERMATH_NS = 300 * 1_000_000_000  # harm this long after a fault's end is still its doing


@dataclass(frozen=True)
class Impact:
    """Somebody was hurt. `subjects`: the task or cgroup, and its pod where the history says it."""

    kind: str
    host: str
    subjects: frozenset[str]
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Fault:
    id: str
    kind: str
    hosts: frozenset[str]
    subjects: frozenset[str]
    harmful: bool
    start_ns: int
    end_ns: int


@dataclass
class Incident:
    id: str
    kind: str
    hosts: frozenset[str]
    subjects: frozenset[str]
    start_ns: int
    end_ns: int
    impacts: list[Impact] = field(default_factory=list)

    def first_impact_ns(self, hosts: Iterable[str] | None = None) -> int | None:
        chosen = self.hosts if hosts is None else set(hosts)
        return min((impact.start_ns for impact in self.impacts if impact.host in chosen), default=None)

    def concerns(self, hosts: Iterable[str], subjects: Iterable[str]) -> bool:
        """Whether an alert naming these is about it. Naming a pod means that pod, or one that was hurt."""
        if not self.hosts & set(hosts):
            return False
        theirs = set(subjects)
        mine = self.subjects.union(*(impact.subjects for impact in self.impacts)) if self.impacts else self.subjects
        return not theirs or not mine or bool(theirs & mine)


def read_impacts(history: Sequence[HistoryEvent], run_end_ns: int) -> list[Impact]:
    """Every impact_start with its impact_end: the same id, or else the same host, subject and kind."""
    open_: dict[tuple[str, ...], HistoryEvent] = {}
    found: list[Impact] = []

    def close(start: HistoryEvent, end_ns: int) -> None:
        beside = {str(start.data.get(name) or "") for name in ("pod", "service", "deployment")}
        subjects = {start.subject, *beside} - {""}
        kind = str(start.data.get("impact") or "harm")
        for host in start.data.get("hosts") or [start.host]:  # a service is hurt wherever it has a replica
            found.append(Impact(kind, host, frozenset(subjects), start.t_ns, end_ns))

    for event in history:
        if event.kind in ("impact_start", "impact_end"):
            key = (event.id,) if event.id else (event.host, event.subject, str(event.data.get("impact")))
            if key in open_:
                close(open_.pop(key), event.t_ns)
            if event.kind == "impact_start":
                open_[key] = event
    for start in open_.values():
        close(start, run_end_ns)
    return sorted(found, key=lambda impact: (impact.start_ns, impact.host, sorted(impact.subjects)))


def read_faults(history: Sequence[HistoryEvent], run_end_ns: int) -> list[Fault]:
    ends = {event.id: event.t_ns for event in history if event.kind == "fault_end"}
    reached: dict[str, list[HistoryEvent]] = {}  # a fault of a Deployment goes where its pods go
    for event in history:
        if event.kind == "fault_reach":
            reached.setdefault(str(event.data.get("fault")), []).append(event)

    def all_of(event: HistoryEvent, name: str) -> frozenset[str]:
        every = [event, *reached.get(event.id, ())]
        return frozenset(one for told in every for one in told.data.get(name) or [])

    return [
        Fault(
            id=event.id,
            kind=str(event.data.get("fault") or event.subject),
            hosts=all_of(event, "hosts") or frozenset({event.host}),
            subjects=all_of(event, "subjects"),
            harmful="harm" not in event.data or event.data["harm"] is not None,
            start_ns=event.t_ns,
            end_ns=ends.get(event.id, run_end_ns),
        )
        for event in history
        if event.kind == "fault_start"
    ]


def read_incidents(faults: Sequence[Fault], impacts: Sequence[Impact]) -> list[Incident]:
    incidents = [Incident(f.id, f.kind, f.hosts, f.subjects, f.start_ns, f.end_ns) for f in faults if f.harmful]
    harmful = {fault.id: fault for fault in faults if fault.harmful}
    strays: list[Impact] = []
    for impact in impacts:
        causes = [incident for incident in incidents if _may_have_caused(harmful[incident.id], impact)]
        for incident in causes:
            incident.impacts.append(impact)
            incident.end_ns = max(incident.end_ns, impact.end_ns)
        if not causes:
            strays.append(impact)
    return sorted(incidents + _unplanned(strays, faults), key=lambda incident: (incident.start_ns, incident.id))


def _may_have_caused(fault: Fault, impact: Impact) -> bool:
    return impact.host in fault.hosts and fault.start_ns <= impact.start_ns <= fault.end_ns + AFTERMATH_NS


def _unplanned(strays: Sequence[Impact], faults: Sequence[Fault]) -> list[Incident]:
    """Harm without a harmful fault: one incident per host, as long as the harm keeps coming."""
    last: dict[str, Incident] = {}
    found: list[Incident] = []
    for impact in strays:
        incident = last.get(impact.host)
        if incident is None or impact.start_ns > incident.end_ns + AFTERMATH_NS:
            meanwhile = [fault.kind for fault in faults if _may_have_caused(fault, impact)]
            kind = meanwhile[0] if meanwhile else "no fault"
            number = sum(other.hosts == {impact.host} for other in found) + 1
            incident = Incident(
                f"harm-on-{impact.host}-{number}", kind, frozenset({impact.host}), frozenset(), impact.start_ns, impact.end_ns
            )
            found.append(incident)
            last[impact.host] = incident
        incident.impacts.append(impact)
        incident.end_ns = max(incident.end_ns, impact.end_ns)
    return found
