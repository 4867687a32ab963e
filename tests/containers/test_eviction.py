# SPDX-License-Identifier: Apache-2.0
"""Node-pressure eviction: who goes first, when a threshold counts, when the condition ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetsim.containers.eviction import Usage, admits, grace_is_over, message, rank, under_pressure

GIB, MIB, S = 1 << 30, 1 << 20, 10**9


def order(*pods: Usage) -> list[str]:
    return [pod.pod for pod in rank(pods)]


def test_who_is_above_its_request_goes_before_who_is_not_however_large() -> None:
    assert order(Usage("large", 8 * GIB, 9 * GIB), Usage("small", 2 * MIB, MIB)) == ["small", "large"]


def test_of_those_above_the_lowest_priority_goes_first_then_the_furthest_above() -> None:
    important = Usage("important", 8 * GIB, 0, priority=1000)
    assert order(important, Usage("near", 2 * GIB, GIB), Usage("far", 3 * GIB, GIB)) == ["far", "near", "important"]


def test_a_besteffort_pod_is_above_its_request_as_soon_as_it_uses_anything() -> None:
    assert order(Usage("burstable", GIB, GIB), Usage("besteffort", 1, 0)) == ["besteffort", "burstable"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(-2, 2)), max_size=8))
def test_ranking_equals_its_naive_twin(drawn: list[tuple[int, int, int]]) -> None:
    """One after the other: whoever nobody precedes."""
    pods = [Usage(str(n), *values) for n, values in enumerate(drawn)]

    def precedes(a: Usage, b: Usage) -> bool:
        if a.exceeds != b.exceeds:
            return a.exceeds
        if a.priority != b.priority:
            return a.priority < b.priority
        return a.working_set - a.request > b.working_set - b.request

    left, expected = list(pods), []
    while left:
        first = next(a for a in left if not any(precedes(b, a) for b in left))
        left.remove(first)
        expected.append(first.pod)
    assert order(*pods) == expected


def test_memory_pressure_stays_for_the_transition_period() -> None:
    assert not under_pressure(-1, 100 * S, 300 * S)
    assert under_pressure(100 * S, 399 * S, 300 * S)
    assert not under_pressure(100 * S, 400 * S, 300 * S)


def test_a_soft_threshold_waits_for_its_grace_period() -> None:
    assert not grace_is_over(-1, 1000 * S, 90 * S)
    assert not grace_is_over(10 * S, 99 * S, 90 * S)
    assert grace_is_over(10 * S, 100 * S, 90 * S)


def test_a_node_under_pressure_takes_no_besteffort_pod() -> None:
    assert [admits(qos, True) for qos in ("guaranteed", "burstable", "besteffort")] == [True, True, False]
    assert admits("besteffort", False)


def test_the_message_is_the_kubelets() -> None:
    assert message(100 * MIB, 52_424 * 1024, [("app", 2 * GIB, 256 * MIB)]) == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52424Ki. "
        "Container app was using 2Gi, request is 256Mi, has larger consumption of memory. "
    )
