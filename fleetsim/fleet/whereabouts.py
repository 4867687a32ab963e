# SPDX-License-Identifier: Apache-2.0
"""Where pods and services stood, and when: what `targets.json` says to whoever reads an alert that names one of them.

Rules: a pod stands on a host from when it is bound to it (`schedule`) until its last process is gone (`pod_gone`); a service stands
wherever it has a replica.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fleetsim.fleet.deployments import deployment_of
from fleetsim.fleet.plan import Plan
from fleetsim.host.spec import Event
from fleetsim.rundir.models import Placement


class Whereabouts:
    """What has changed since the beginning, which the plan says."""

    def __init__(self) -> None:
        self._left: dict[tuple[str, str], int] = {}  # (pod, host) → when it had first gone
        self._came: list[Placement] = []

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.kind == "schedule":
                self._came.append(Placement(kind="pod", name=event.subject, host=event.host, from_ns=event.t_ns))
            elif event.kind == "pod_gone":
                if (event.subject, event.host) not in self._left:
                    self._left[event.subject, event.host] = event.t_ns
                for k, one in enumerate(self._came):
                    if (one.name, one.host, one.to_ns) == (event.subject, event.host, None):
                        self._came[k] = one.model_copy(update={"to_ns": event.t_ns})

    def placements(self, plan: Plan) -> Iterator[Placement]:
        """All of them up to now."""
        of_deployment = {service.name: service.deployment for service in plan.services if service.deployment}
        yield from self._pods(plan)
        yield from (one for one in plan.service_placements() if one.name not in of_deployment)
        for name, deployment in of_deployment.items():
            yield from self._of(name, [one for one in self._pods(plan) if deployment_of(one.name) == deployment])

    def _pods(self, plan: Plan) -> Iterator[Placement]:
        for one in plan.pod_placements():
            to_ns = self._left.get((one.name, one.host))
            yield one if to_ns is None else one.model_copy(update={"to_ns": to_ns})
        yield from self._came

    @staticmethod
    def _of(service: str, pods: Sequence[Placement]) -> Iterator[Placement]:
        """Each host on which the service had a replica, for as long as it had one without a break."""
        for host in dict.fromkeys(one.host for one in pods):
            for from_ns, to_ns in joined([(one.from_ns, one.to_ns) for one in pods if one.host == host]):
                yield Placement(kind="service", name=service, host=host, from_ns=from_ns, to_ns=to_ns)


def joined(spans: Sequence[tuple[int, int | None]]) -> list[tuple[int, int | None]]:
    """Spans of time that touch or overlap, as one; None is the end of the run."""
    found: list[tuple[int, int | None]] = []
    for from_ns, to_ns in sorted(spans, key=lambda span: span[0]):
        if found and (found[-1][1] is None or from_ns <= found[-1][1]):
            last = found[-1][1]
            found[-1] = (found[-1][0], None if last is None or to_ns is None else max(last, to_ns))
        else:
            found.append((from_ns, to_ns))
    return found
