# SPDX-License-Identifier: Apache-2.0
"""What counts as an incident, and how long it excuses an alert."""

from __future__ import annotations

from typing import Any

from fleetsim.rundir.models import HistoryEvent
from fleetsim.verdict.incidents import Incident, read_faults, read_impacts, read_incidents

MINUTE = 60 * 10**9
END = 60 * MINUTE


def event(minute: float, kind: str, host: str = "", id: str = "", subject: str = "", **data: Any) -> HistoryEvent:
    return HistoryEvent(t_ns=round(minute * MINUTE), host=host, seq=0, kind=kind, id=id, subject=subject, data=data)


def fault(minute: float, id: str, *hosts: str, harm: str | None = "killed", end: float | None = None) -> list[HistoryEvent]:
    start = event(minute, "fault_start", id=id, fault=id, hosts=list(hosts), subjects=["app"], harm=harm)
    return [start] if end is None else [start, event(end, "fault_end", id=id)]


def impact(minute: float, host: str, end: float | None = None, subject: str = "app", **data: Any) -> list[HistoryEvent]:
    id = f"{host}-{minute}"
    start = event(minute, "impact_start", host, id, subject, impact="killed", **data)
    return [start] if end is None else [start, event(end, "impact_end", host, id, subject, impact="killed")]


def incidents(*events: list[HistoryEvent]) -> list[Incident]:
    history = sorted((one for many in events for one in many), key=lambda one: one.t_ns)
    return read_incidents(read_faults(history, END), read_impacts(history, END))


def minutes(incident: Incident) -> tuple[str, float, float]:
    return incident.kind, incident.start_ns / MINUTE, incident.end_ns / MINUTE


def test_a_fault_is_an_incident_from_its_start_to_the_end_of_its_last_harm() -> None:
    (one,) = incidents(fault(5, "leak", "a", end=10), impact(9, "a", end=14))
    assert minutes(one) == ("leak", 5, 14)
    assert one.first_impact_ns() == 9 * MINUTE


def test_what_never_ends_lasts_to_the_end_of_the_run() -> None:
    assert [minutes(one) for one in incidents(fault(5, "leak", "a"))] == [("leak", 5, 60)]
    assert [minutes(one) for one in incidents(fault(5, "leak", "a", end=6), impact(7, "a"))] == [("leak", 5, 60)]


def test_a_harmless_fault_is_no_incident() -> None:
    assert incidents(fault(5, "flood", "a", harm=None, end=10)) == []


def test_harm_during_a_harmless_fault_is_an_incident_under_its_name() -> None:
    assert [minutes(one) for one in incidents(fault(5, "flood", "a", harm=None, end=10), impact(8, "a", end=9))] == [("flood", 8, 9)]


def test_harm_without_a_fault_is_an_incident_of_its_own_and_repeats_belong_to_it() -> None:
    found = incidents(impact(8, "a", end=9), impact(11, "a", end=12), impact(30, "a", end=31), impact(8.5, "b", end=9))
    assert [(sorted(one.hosts), minutes(one)) for one in found] == [
        (["a"], ("no fault", 8, 12)), (["b"], ("no fault", 8.5, 9)), (["a"], ("no fault", 30, 31)),
    ]  # fmt: skip


def test_harm_elsewhere_or_long_after_is_not_the_faults_doing() -> None:
    found = incidents(fault(5, "leak", "a", end=6), impact(7, "b", end=8), impact(20, "a", end=21))
    assert [minutes(one) for one in found] == [("leak", 5, 6), ("no fault", 7, 8), ("no fault", 20, 21)]


def test_a_pods_alert_is_about_the_pods_hit_or_hurt() -> None:
    (one,) = incidents(fault(5, "leak", "a", end=10), impact(9, "a", end=9.5, subject="worker", pod="victim"))
    assert one.concerns({"a"}, set()) and one.concerns({"a"}, {"app"}) and one.concerns({"a"}, {"victim"})
    assert not one.concerns({"a"}, {"bystander"}) and not one.concerns({"b"}, {"app"})
