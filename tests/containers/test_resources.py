# SPDX-License-Identifier: Apache-2.0
"""QoS class, oom_score_adj, MemoryQoS and swap: the worked examples of kernel-laws §17."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.containers.resources import Resources, memory_high, oom_score_adj, qos_class, swap_limit

GIB, MIB = 1 << 30, 1 << 20


@pytest.mark.parametrize(("request_gib", "adj"), [(4, 938), (0.1, 999), (32, 500), (63.9, 3)])
def test_burstable_score_follows_the_request(request_gib: float, adj: int) -> None:
    """T-17.1: capacity 64 GiB; request 4 GiB → 938, 0.1 → 999, 32 → 500, 63.9 → 3."""
    assert oom_score_adj("burstable", int(request_gib * GIB), 64 * GIB) == adj


def test_guaranteed_is_shielded_and_besteffort_goes_first() -> None:
    assert oom_score_adj("guaranteed", 4 * GIB, 64 * GIB) == -997
    assert oom_score_adj("besteffort", 0, 64 * GIB) == 1000


@pytest.mark.parametrize(
    ("containers", "qos"),
    [
        ([(None, None)], "besteffort"),
        ([(GIB, None)], "burstable"),
        ([(GIB, 2 * GIB)], "burstable"),
        ([(GIB, GIB)], "guaranteed"),
        ([(None, GIB)], "guaranteed"),
        ([(0, GIB)], "burstable"),
        ([(GIB, GIB), (None, None)], "burstable"),
        ([(GIB, GIB), (None, GIB)], "guaranteed"),
        ([(None, None), (None, None)], "besteffort"),
    ],
)
def test_qos_follows_requests_and_limits_of_every_container(containers: list[tuple[int | None, int | None]], qos: str) -> None:
    """Limits alone are also requested (the API server's defaulting), so they make a pod Guaranteed."""
    assert qos_class([Resources(*one) for one in containers]) == qos


@pytest.mark.parametrize(
    ("requests", "limits", "high"),
    [
        (256 * MIB, 512 * MIB, 510_025_728),
        (GIB, GIB, None),
        (GIB, None, (GIB + 900 * (63 * GIB) // 1000) // 4096 * 4096),
        (4096, 4097, None),
    ],
)
def test_memory_high_is_a_point_between_request_and_limit(requests: int, limits: int | None, high: int | None) -> None:
    """T-17.2: 256 and 512 MiB → 510,025,728 bytes; not written where the request is the limit, or where it would not be above it."""
    assert memory_high(Resources(requests, limits), 64 * GIB) == high


@given(st.integers(0, 1 << 38), st.integers(1, 1 << 38))
def test_memory_high_is_whole_pages_above_the_request_and_not_above_the_limit(requests: int, more: int) -> None:
    high = memory_high(Resources(requests, requests + more), 64 * GIB)
    assert high is None or (requests < high <= requests + more and high % 4096 == 0)


def test_limited_swap_is_the_requests_share_of_the_nodes_swap() -> None:
    """T-17.3: 4 GiB of 64, swap 16 GiB → 1 GiB; none for Guaranteed and BestEffort, nor for who requests its limit or nothing."""
    assert swap_limit("burstable", Resources(4 * GIB, 8 * GIB), 64 * GIB, 16 * GIB) == GIB
    assert swap_limit("burstable", Resources(4 * GIB, None), 64 * GIB, 16 * GIB) == GIB
    assert swap_limit("burstable", Resources(4 * GIB, 4 * GIB), 64 * GIB, 16 * GIB) == 0
    assert swap_limit("burstable", Resources(0, 4 * GIB), 64 * GIB, 16 * GIB) == 0
    assert swap_limit("guaranteed", Resources(4 * GIB, 8 * GIB), 64 * GIB, 16 * GIB) == 0
