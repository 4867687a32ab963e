# SPDX-License-Identifier: Apache-2.0
"""A Deployment's arithmetic: how many replicas to make and which to delete, so that a rolling update keeps its promises.

    at most   replicas + max_surge        pods exist
    at least  replicas − max_unavailable  are available

Source: pkg/controller/deployment/rolling.go, util/deployment_util.go (NewRSNewReplicas, ResolveFenceposts).
Leaves out: minReadySeconds, proportional scaling of several old ReplicaSets, progressDeadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Replica:
    """A pod of a Deployment. `available`: it serves; `new`: it is of the latest template."""

    name: str
    available: bool
    new: bool


def fenceposts(max_surge: str, max_unavailable: str, replicas: int) -> tuple[int, int]:
    """(surge, unavailable) as whole pods: percents of replicas, surge rounded up, unavailable down; never both zero."""
    surge, unavailable = whole(max_surge, replicas, up=True), whole(max_unavailable, replicas, up=False)
    return (surge, 1) if surge == 0 and unavailable == 0 else (surge, unavailable)


def whole(text: str, replicas: int, *, up: bool) -> int:
    """`25%` or `2` → pods."""
    if not text.endswith("%"):
        return int(text)
    share = int(text[:-1]) * replicas
    return -(-share // 100) if up else share // 100


def to_create(pods: Sequence[Replica], replicas: int, surge: int) -> int:
    """How many pods of the latest template to make now.

    Source: NewRSNewReplicas.
    """
    return max(0, min(replicas + surge - len(pods), replicas - sum(pod.new for pod in pods)))


def to_delete(pods: Sequence[Replica], replicas: int, unavailable: int) -> list[str]:
    """Which pods of older templates to delete now: those that do not serve first.

    Source: rolling.go reconcileOldReplicaSets (cleanupUnhealthyReplicas, scaleDownOldReplicaSetsForRollingUpdate).
    """
    old, least = [pod for pod in pods if not pod.new], replicas - unavailable
    new_unavailable = sum(pod.new and not pod.available for pod in pods)
    budget = len(pods) - least - new_unavailable
    idle = [pod.name for pod in old if not pod.available][: max(0, budget)]
    spare = sum(pod.available for pod in pods) - least
    serving = [pod.name for pod in old if pod.available][: max(0, spare)]
    return idle + serving


def too_many(pods: Sequence[Replica], replicas: int) -> list[str]:
    """Pods of the latest template above the wanted number: those that do not serve first."""
    new = sorted((pod for pod in pods if pod.new), key=lambda pod: pod.available)
    return [pod.name for pod in new[: max(0, len(new) - replicas)]]
