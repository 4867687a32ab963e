# SPDX-License-Identifier: Apache-2.0
"""Where pods and services stood, and when: what `targets.json` says to whoever reads an alert that names one of them.

Rules: a pod stands on a host from when it is bound to it (`schedule`) until its last process is gone (`pod_gone`); a service stands
wherever it has a replica.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleetsim.fleet.deployments import deployment_of
from fleetsim.fleet.plan import Plan
from fleetsim.host.spec import Event
from fleetsim.rundir.models import Placement


class Whereabouts:
    def __init__(self, plan: Plan) -> None:
        self._pods = [one for one in plan.placements if one.kind == "pod"]
        self._services = [one for one in plan.placements if one.kind == "service"]
        self._of_deployment = {service.name: service.deployment for service in plan.services if service.deployment}

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.kind == "schedule":
                self._pods.append(Placement(kind="pod", name=event.subject, host=event.host, from_ns=event.t_ns))
            elif event.kind == "pod_gone":
                for k, one in enumerate(self._pods):
                    if (one.name, one.host, one.to_ns) == (event.subject, event.host, None):
                        self._pods[k] = one.model_copy(update={"to_ns": event.t_ns})

    def placements(self) -> list[Placement]:
        """All of them up to now."""
        fixed = [one for one in self._services if one.name not in self._of_deployment]
        moving = [one for name, deployment in self._of_deployment.items() for one in self._of(name, deployment)]
        return [*self._pods, *fixed, *moving]

    def _of(self, service: str, deployment: str) -> list[Placement]:
        """Each host on which the service had a replica, for as long as it had one without a break."""
        pods = [one for one in self._pods if deployment_of(one.name) == deployment]
        hosts = dict.fromkeys(one.host for one in pods)
        return [
            Placement(kind="service", name=service, host=host, from_ns=from_ns, to_ns=to_ns)
            for host in hosts
            for from_ns, to_ns in joined([(one.from_ns, one.to_ns) for one in pods if one.host == host])
        ]


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
