# SPDX-License-Identifier: Apache-2.0
"""Rolling updates keep their promises: at most so many pods, at least so many that serve."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.containers.deployment import Replica, fenceposts, to_create, to_delete, too_many


@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "pods"),
    [("25%", "25%", 4, (1, 1)), ("25%", "25%", 10, (3, 2)), ("25%", "25%", 1, (1, 0)), ("0", "0", 3, (0, 1)), ("2", "0", 3, (2, 0))],
)
def test_percents_of_surge_round_up_and_of_unavailable_down(surge: str, unavailable: str, replicas: int, pods: tuple[int, int]) -> None:
    """10 replicas, 25 % each: at most 13 pods, at least 8 available (the example of the Kubernetes documentation)."""
    assert fenceposts(surge, unavailable, replicas) == pods


def test_pods_that_do_not_serve_go_first() -> None:
    pods = [Replica("a", True, False), Replica("b", False, False), Replica("c", True, False)]
    assert to_delete(pods, 3, 1) == ["b"]


@given(st.integers(1, 12), st.integers(0, 4), st.integers(0, 4), st.randoms(use_true_random=False))
def test_every_rolling_update_ends_and_keeps_its_promises_on_the_way(replicas: int, surge: int, unavailable: int, luck: object) -> None:
    """Pods become available one by one at random: nothing is ever promised and not kept, and all are replaced in the end."""
    if surge == 0 and unavailable == 0:
        unavailable = 1
    pods = [Replica(f"old{n}", True, False) for n in range(replicas)]
    made = 0
    for _ in range(10 * replicas + 20):
        for name in to_delete(pods, replicas, unavailable):
            pods = [pod for pod in pods if pod.name != name]
        for _ in range(to_create(pods, replicas, surge)):
            made += 1
            pods.append(Replica(f"new{made}", False, True))
        assert len(pods) <= replicas + surge
        assert sum(pod.available for pod in pods) >= min(replicas, max(0, replicas - unavailable))
        waiting = [pod for pod in pods if not pod.available]
        if waiting:
            chosen = luck.choice(waiting)  # type: ignore[attr-defined]
            pods = [Replica(pod.name, True, pod.new) if pod is chosen else pod for pod in pods]
    assert [pod.new and pod.available for pod in pods] == [True] * replicas
    assert too_many(pods, replicas) == []


def test_a_missing_replica_is_made_again() -> None:
    assert to_create([Replica("a", True, True)], 3, 1) == 2
