# SPDX-License-Identifier: Apache-2.0
"""Is a Deployment as many as it should be? The impact `unavailable` of a Deployment: replicas that are not Ready, measured.

Rules: it is open while fewer replicas are available than were asked for; during a rolling update as many as `max_unavailable` may be
away, which is what was promised. A run begins with Deployments that were there already: the first
replicas have two minutes to become Ready.
Source: status.unavailableReplicas of the apps/v1 API; pkg/controller/deployment/rolling.go for what an update may take away.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetsim.containers.deployment import Replica
from fleetsim.host.spec import Event
from fleetsim.units import NS_PER_S

FIRST_READY_NS = 120 * NS_PER_S


@dataclass
class Availability:
    """Of the Deployment called `name`, whose updates may take `unavailable` of its `replicas` away."""

    name: str
    replicas: int
    unavailable: int
    begun: bool = False
    rolling: bool = False  # a rolling update began and has not ended
    is_open: bool = False

    def look(self, pods: list[Replica], hosts: list[str], now_ns: int) -> list[Event]:
        """`pods`: those that are not on their way out. `hosts`: where it stands, or stood until now."""
        available = sum(pod.available for pod in pods)
        self.begun = self.begun or available >= self.replicas or now_ns >= FIRST_READY_NS
        if self.rolling and sum(pod.available and pod.new for pod in pods) >= self.replicas:
            self.rolling = False
        away = self.replicas - available
        is_open = self.begun and away > (self.unavailable if self.rolling else 0)
        if is_open == self.is_open:
            return []
        self.is_open = is_open
        data = {"impact": "unavailable", "deployment": self.name, "unavailable": max(0, away), "replicas": self.replicas, "hosts": hosts}
        return [Event(now_ns, "", 0, "impact_start" if is_open else "impact_end", self.name, data)]
