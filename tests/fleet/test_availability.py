# SPDX-License-Identifier: Apache-2.0
"""Unavailable replicas of a Deployment: when it is a harm, and when an update takes away what it may."""

from __future__ import annotations

import pytest

from fleetsim.containers.deployment import Replica
from fleetsim.fleet.availability import FIRST_READY_NS, Availability

S = 10**9


def looks(one: Availability, *seen: tuple[int, str]) -> list[tuple[int, str, int]]:
    """`seen`: (second, pods): `N` is new and available, `n` new and not, `O` and `o` of an older template."""
    told = []
    for second, text in seen:
        pods = [Replica(str(k), c.isupper(), c in "Nn") for k, c in enumerate(text)]
        told += [(second, e.kind, int(str(e.data["unavailable"]))) for e in one.look(pods, ["h"], second * S)]
    return told


def test_it_opens_when_one_is_away_and_ends_when_all_are_back() -> None:
    told = looks(Availability("web", 3, 0), (1, "nnn"), (5, "NNN"), (9, "NnN"), (10, "nnN"), (20, "NNN"), (21, "NNN"))
    assert told == [(9, "impact_start", 1), (20, "impact_end", 0)]


def test_a_pod_that_is_gone_and_not_placed_again_is_away_too() -> None:
    assert looks(Availability("web", 3, 0), (1, "NNN"), (2, "NN"), (3, "NNn")) == [(2, "impact_start", 1)]


def test_the_first_replicas_have_two_minutes() -> None:
    first = FIRST_READY_NS // S
    assert looks(Availability("web", 2, 0), (1, "nn"), (first - 1, "Nn"), (first, "Nn")) == [(first, "impact_start", 1)]


@pytest.mark.parametrize(("may", "told"), [(1, []), (0, [(2, "impact_start", 1), (4, "impact_end", 0)])])
def test_an_update_may_take_away_what_was_promised(may: int, told: list[tuple[int, str, int]]) -> None:
    one = Availability("web", 3, may)
    looks(one, (1, "OOO"))
    one.rolling = True
    assert looks(one, (2, "OOn"), (3, "OOn"), (4, "OON"), (5, "NNN")) == told


def test_after_the_update_nobody_may_be_away_any_more() -> None:
    one = Availability("web", 3, 1)
    looks(one, (1, "OOO"))
    one.rolling = True
    assert looks(one, (2, "OOn"), (3, "NNN"), (4, "NNn")) == [(4, "impact_start", 1)]
