# SPDX-License-Identifier: Apache-2.0
"""What happened, as the judge will read it: the hosts' own events, and the beginnings and ends of the faults.

Rules: nothing is left out and nothing is judged; a process of a pod has the pod's name beside it. The faults' events belong to the
whole fleet (host "").
"""

from __future__ import annotations

from collections.abc import Iterable

from fleetsim.fleet.plan import Plan
from fleetsim.host.spec import Event
from fleetsim.rundir.models import HistoryEvent


class History:
    def __init__(self, plan: Plan) -> None:
        self.events: list[HistoryEvent] = []
        self._pod_of = {
            (host, process.name): pod.name
            for group in plan.scenario.groups
            for host in group.host_names
            for pod in group.pods
            for process in pod.arguments.processes(pod.name)
        }
        self._impacts: dict[tuple[str, str, str], int] = {}
        marks = [(fault.start_ns, "fault_start", fault) for fault in plan.faults]
        marks += [(fault.end_ns, "fault_end", fault) for fault in plan.faults if fault.end_ns is not None]
        for seq, (t_ns, kind, fault) in enumerate(sorted(marks, key=lambda mark: mark[0])):
            self.events.append(
                HistoryEvent(t_ns=t_ns, host="", seq=seq, kind=kind, subject=fault.kind, id=fault.id, data=fault.history_data())
            )

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            data = dict(event.data)
            if (pod := self._pod_of.get((event.host, event.subject))) is not None:
                data["pod"] = pod
            self.events.append(
                HistoryEvent(
                    t_ns=event.t_ns,
                    host=event.host,
                    seq=event.seq,
                    kind=event.kind,
                    subject=event.subject,
                    id=self._id(event),
                    data=data,
                )
            )

    def _id(self, event: Event) -> str:
        """Ties the end of an impact to its beginning; empty for what has no end."""
        if event.kind not in ("impact_start", "impact_end"):
            return ""
        key = (event.host, event.subject, str(event.data.get("impact")))
        if event.kind == "impact_start":
            self._impacts[key] = self._impacts.get(key, 0) + 1
        return f"{event.host}/{event.subject}/{key[2]}-{self._impacts.get(key, 0)}"
