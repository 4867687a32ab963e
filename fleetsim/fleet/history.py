# SPDX-License-Identifier: Apache-2.0
"""What happened, as the judge will read it: the hosts' own events, and the beginnings and ends of the faults.

Rules: nothing is judged; a process of a pod has the pod's name beside it, and in an impact that of its Deployment; the end of an impact
has the id of its beginning, and an end of what never began is left out. The faults' events belong to the whole fleet (host "").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fleetsim.fleet.deployments import deployment_of
from fleetsim.fleet.plan import Plan
from fleetsim.host.programs import CHILD
from fleetsim.host.spec import Event
from fleetsim.rundir.event_log import EventLog
from fleetsim.rundir.models import HistoryEvent

CONTROL_PLANE_SEQ = 1 << 41  # of what the control plane tells: after the hosts and the services at the same instant
IMPACT_KINDS = ("impact_start", "impact_end")
FAULT_KINDS = ("fault_start", "fault_end")


class History:
    def __init__(self, plan: Plan) -> None:
        self.events = EventLog()
        self._pod_of: dict[str, dict[str, str]] = {}  # host → its group's processes → their pods
        for group in plan.scenario.groups:
            of_group = {process.name: pod.name for pod in group.pods for process in pod.processes}
            self._pod_of |= dict.fromkeys(group.host_names, of_group)
        self._deployments = {one.name for group in plan.scenario.groups for one in group.deployments}
        self._begun: Counter[tuple[str, str, str]] = Counter()
        self._open: set[tuple[str, str, str]] = set()
        marks = [(fault.start_ns, "fault_start", fault) for fault in plan.faults]
        marks += [(fault.end_ns, "fault_end", fault) for fault in plan.faults if fault.end_ns is not None]
        self._fleet_seq = CONTROL_PLANE_SEQ
        for seq, (t_ns, kind, fault) in enumerate(sorted(marks, key=lambda mark: mark[0])):
            self.events.tell(t_ns, "", seq, kind, fault.kind, fault.id, fault.history_data())

    def state(self) -> dict[str, Any]:
        """What is known besides the events."""
        return {"begun": self._begun, "open": self._open, "fleet_seq": self._fleet_seq}

    def resume(self, state: Mapping[str, Any], events: Iterable[HistoryEvent]) -> None:
        self.events = events if isinstance(events, EventLog) else EventLog(events)
        self._begun, self._open, self._fleet_seq = state["begun"], state["open"], state["fleet_seq"]

    def replan(self, plan: Plan) -> None:
        """From now on the history of a run of `plan`, which differs from the one before only in what is still to come."""
        told = self.events
        self.events = History(plan).events
        self.events.extend(event for event in told if event.kind not in FAULT_KINDS)

    def tell(self, events: Iterable[Event]) -> None:
        """What the control plane did and saw."""
        for event in events:
            self.take([replace(event, seq=self._fleet_seq)])
            self._fleet_seq += 1

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            key = (event.host, event.subject, str(event.data.get("impact")))
            if event.kind == "impact_start":
                self._begun[key] += 1
                self._open.add(key)
            elif event.kind == "impact_end":
                if key not in self._open:  # a restart ends `killed`, whether or not the kernel had killed
                    continue
                self._open.discard(key)
            data = dict(event.data)
            if (pod := self._pod_of.get(event.host, {}).get(event.subject)) is not None:
                data["pod"] = pod
            if event.kind in IMPACT_KINDS:
                replica = str(data.get("pod") or event.subject.partition(".")[0].removesuffix(CHILD))
                if (deployment := deployment_of(replica)) in self._deployments:
                    data |= {"pod": replica, "deployment": deployment}
            number = f"{event.host}/{event.subject}/{key[2]}-{self._begun[key]}" if event.kind in IMPACT_KINDS else ""
            self.events.tell(event.t_ns, event.host, event.seq, event.kind, event.subject, number, data)
