# SPDX-License-Identifier: Apache-2.0
"""What must be seen: the scenario's expectations with the hosts they mean, and those that the faults bring themselves.

Rules: in an expectation a choice (`one db`) means the choice that the timeline made with the same words; it never draws luck of its
own, since nobody could say what it chose. A fault whose harm is certain within the run brings the expectation of that harm,
unless the scenario expects an impact of it itself.
Leaves out: judging (that is `verdict/`, which sees only what is written here).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

from fleetsim.fleet.scenario import ExpectEntry, Scenario
from fleetsim.fleet.targets import SERVICE, Chosen, Roster, Subject, resolve
from fleetsim.rundir.models import Expectation
from fleetsim.units import NS_PER_S

if TYPE_CHECKING:
    from fleetsim.fleet.plan import PlannedFault

Kind = Literal["impact", "alert", "silent", "false_alarm"]


def expectations_of(scenario: Scenario, roster: Roster, faults: Sequence[PlannedFault]) -> list[Expectation]:
    written = [_written(scenario, entry, roster, faults) for entry in scenario.expect]
    return written + [_of_fault(fault) for fault in faults if _brings_harm(fault, scenario, written)]


def _written(scenario: Scenario, entry: ExpectEntry, roster: Roster, faults: Sequence[PlannedFault]) -> Expectation:
    keys = entry.keys
    follows = entry.kind in ("impact", "alert")
    on = keys.on or ("the target" if follows and faults else "all")
    chosen = _chosen(scenario, entry, on, roster, faults)
    return Expectation(
        kind=cast(Kind, entry.kind),
        name=entry.name,
        on=on,
        on_hosts=None if on == "all" else chosen.hosts,
        on_subjects=_on_subjects(on, chosen, roster, faults) if entry.kind == "impact" else None,
        anywhere=entry.kind == "impact" and on in roster.placed,
        within_s=None if keys.within is None else keys.within / NS_PER_S,
        before=keys.before,
        reason=keys.why,
        fault=_fault_meant(on, faults) if follows else None,
        source_line=scenario.source.line(entry.place),
    )


def _chosen(scenario: Scenario, entry: ExpectEntry, on: str, roster: Roster, faults: Sequence[PlannedFault]) -> Chosen:
    place = (*entry.place, "on")
    words = " ".join(on.split())
    earlier: dict[str, list[Subject]] = {}
    for fault in faults:
        earlier.setdefault(" ".join(fault.on.split()), []).extend(fault.chosen.subjects)
    if words in earlier:
        return Chosen(tuple(dict.fromkeys(earlier[words])))
    try:
        chosen = resolve(on, roster, 0, "expect", [subject for fault in faults for subject in fault.chosen.subjects])
    except ValueError as error:
        raise scenario.source.refuse(place, f"'on' is {on!r}; {error}") from None
    if chosen.at_random:
        raise scenario.source.refuse(
            place, f"'on' is {on!r}, which no entry of the timeline says; write 'the target' or the words of a timeline entry"
        )
    if not chosen.subjects:
        raise scenario.source.refuse(place, f"'on' is {on!r}, which is nobody here; name a group, a pod or a host")
    return chosen


def _on_subjects(on: str, chosen: Chosen, roster: Roster, faults: Sequence[PlannedFault]) -> list[str] | None:
    """Whom an impact must hurt; of a service it is the service itself, of a Deployment it or one of its pods."""
    kind, _, name = on.partition("/")
    if kind == SERVICE and name in roster.services:
        return [name]
    return [*(_subjects(chosen, faults) or ()), on] if on in roster.placed else _subjects(chosen, faults)


def _subjects(chosen: Chosen, faults: Sequence[PlannedFault]) -> list[str] | None:
    """Pods and their processes, if pods are meant; None: whoever it is on the hosts."""
    if not all(subject.pod for subject in chosen.subjects):
        return None
    processes = {(target.host, target.pod): target.tasks for fault in faults for target in fault.targets}
    names = [name for subject in chosen.subjects for name in (subject.pod, *processes.get((subject.host, subject.pod), ()))]
    return list(dict.fromkeys(names))


def _fault_meant(on: str, faults: Sequence[PlannedFault]) -> str | None:
    """The one fault whose start `within` counts from; None if several could be meant."""
    words = " ".join(on.split())
    meant = [fault for fault in faults if " ".join(fault.on.split()) == words] or list(faults)
    return meant[0].id if len(meant) == 1 else None


def _brings_harm(fault: PlannedFault, scenario: Scenario, written: Sequence[Expectation]) -> bool:
    lasting_ns = (fault.end_ns or scenario.keys.duration) - fault.start_ns
    if fault.fault.harm is None or not all(fault.fault.is_certain(target, lasting_ns) for target in fault.targets):
        return False
    restarts = [
        at_ns for group in scenario.groups for one in group.deployments if one.name == fault.deployment for at_ns in one.restarts_ns
    ]
    if any(fault.start_ns < at_ns < fault.start_ns + lasting_ns for at_ns in restarts):  # new pods begin with nothing
        return False
    hosts = set(fault.chosen.hosts)
    return not any(e.kind == "impact" and (e.on_hosts is None or hosts & set(e.on_hosts)) for e in written)


def _of_fault(fault: PlannedFault) -> Expectation:
    assert fault.fault.harm is not None
    limited = all(target.limit_bytes for target in fault.targets)  # at a host's own end the kernel picks the victim
    return Expectation(
        kind="impact",
        name=fault.fault.harm,
        on=fault.on,
        on_hosts=fault.chosen.hosts,
        on_subjects=[*(_subjects(fault.chosen, [fault]) or ()), *([fault.deployment] if fault.deployment else [])] if limited else None,
        anywhere=bool(fault.deployment) and limited,
        reason=f"the fault {fault.kind} brings this expectation itself: what it asks for cannot be held",
        fault=fault.id,
        source_line=fault.line,
    )
