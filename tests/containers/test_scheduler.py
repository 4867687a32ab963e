# SPDX-License-Identifier: Apache-2.0
"""kube-scheduler by memory: requests decide, limits and real use do not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetsim.containers.scheduler import NodeInfo, place, place_all, score

GIB = 1 << 30


def test_the_score_is_the_free_share_after_the_pod() -> None:
    """LeastAllocated: (64 − 16 − 16) / 64 → 50; a pod that requests nothing counts 200 MiB."""
    assert score(NodeInfo("a", 64 * GIB, 16 * GIB, 16 * GIB), 16 * GIB) == 50
    assert score(NodeInfo("a", 1000 << 20), 0) == 80


def test_the_emptiest_node_by_requests_wins() -> None:
    nodes = [NodeInfo("full", 64 * GIB, 60 * GIB, 60 * GIB), NodeInfo("empty", 64 * GIB)]
    assert place("p", GIB, "burstable", nodes, 1) == "empty"


def test_a_pod_that_fits_nowhere_stays_pending() -> None:
    assert place("p", 5 * GIB, "burstable", [NodeInfo("a", 64 * GIB, 60 * GIB, 60 * GIB)], 1) is None


def test_small_requests_pack_a_node_however_much_will_be_used() -> None:
    """256 pods of 256 MiB fill 64 GiB, were their limits 2 GiB each; what stops it is maxPods."""
    nodes = [NodeInfo("a", 64 * GIB)]
    placed = place_all([(f"p{n}", GIB // 4, "burstable") for n in range(120)], nodes, 1)
    assert sum(where is not None for where in placed.values()) == 110


def test_the_taint_keeps_besteffort_pods_away() -> None:
    node = NodeInfo("a", 64 * GIB, pressure=True)
    assert place("p", 0, "besteffort", [node], 1) is None
    assert place("p", GIB, "burstable", [node], 1) == "a"


def test_ties_are_drawn_by_the_seed() -> None:
    nodes = [NodeInfo(f"n{i}", 64 * GIB) for i in range(8)]
    chosen = {place("p", GIB, "burstable", nodes, seed) for seed in range(40)}
    assert len(chosen) > 3
    assert place("p", GIB, "burstable", nodes, 7) == place("p", GIB, "burstable", list(reversed(nodes)), 7)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=30), st.integers(0, 5))
def test_no_node_is_ever_given_more_than_it_has(requests: list[int], seed: int) -> None:
    nodes = [NodeInfo(f"n{i}", 8 * GIB) for i in range(3)]
    placed = place_all([(str(n), gib * GIB, "burstable") for n, gib in enumerate(requests)], nodes, seed)
    for node in nodes:
        assert sum(gib * GIB for n, gib in enumerate(requests) if placed[str(n)] == node.name) <= node.allocatable
    pending = [gib for n, gib in enumerate(requests) if placed[str(n)] is None]
    free = [8 - sum(gib for n, gib in enumerate(requests) if placed[str(n)] == node.name) for node in nodes]
    assert all(gib > min(free) for gib in pending), "what is left over did not fit"
