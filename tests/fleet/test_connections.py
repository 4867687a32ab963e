# SPDX-License-Identifier: Apache-2.0
"""Long-lived connections: whose they are after replicas came and went."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from fleetsim.fleet.connections import Connections

S = 10**9
A, B, C = keys = (("a", "x"), ("b", "x"), ("c", "x"))
crowds = st.lists(st.sets(st.sampled_from(keys)).map(sorted), max_size=20)


@given(st.integers(1, 50), crowds, st.booleans())
def test_without_an_age_only_those_move_whose_replica_went(count: int, crowd: list[list[tuple[str, str]]], least: bool) -> None:
    connections = Connections(count, 0, least)
    before: dict[tuple[str, str], int] = {}
    for taken_in in crowd:
        now = dict(connections.settle(taken_in, S))
        assert set(now) <= set(taken_in) and sum(now.values()) == (count if taken_in else 0)
        assert all(now.get(key, 0) >= before.get(key, 0) for key in taken_in), "nobody loses any while it is there"
        before = now


@given(st.integers(1, 50), st.integers(1, 3))
def test_new_connections_are_shared_out_evenly(count: int, replicas: int) -> None:
    for least in (False, True):
        shares = Connections(count, 0, least).settle(keys[:replicas], S).values()
        assert max(shares) - min(shares) <= 1


def test_the_least_busy_replica_gets_the_next_connection_and_round_robin_does_not_look() -> None:
    for least, wanted in ((True, {A: 5, B: 4, C: 3}), (False, {A: 6, B: 5, C: 1})):
        connections = Connections(12, 0, least)
        connections.settle([A, B], S)
        assert connections.settle([A, B, C], S) == {A: 6, B: 6}, "who comes later has none"
        connections.owners = deque([A, B] * 4 + [A])  # three clients leave, three others come
        assert dict(connections.settle([A, B, C], S)) == wanted


def test_with_an_age_what_went_askew_is_even_again_after_it() -> None:
    connections = Connections(12, 60 * S, False)
    connections.settle([A, B], S)
    for _ in range(120):
        shares = dict(connections.settle([A, B, C], S))
    assert shares == {A: 4, B: 4, C: 4}


def test_an_age_closes_as_many_as_that_in_that_time() -> None:
    connections = Connections(100, 50 * S, False)
    connections.settle([A], S)
    opened = connections._turn
    for _ in range(50):
        connections.settle([A], S)
    assert connections._turn - opened == 100
