# SPDX-License-Identifier: Apache-2.0
"""Lifecycles are tables: what is in them happens, what is not raises and changes nothing."""

from __future__ import annotations

import pytest

from fleetsim.containers import lifecycle
from fleetsim.containers.lifecycle import CONTAINER, POD, PROBE, UNIT, IllegalMove, move

TABLES = {"pod": POD, "container": CONTAINER, "probe": PROBE, "unit": UNIT}
LEGAL = [(name, state, event) for name, table in TABLES.items() for state, event in table]
ILLEGAL = [
    (name, state, event)
    for name, table in TABLES.items()
    for state in sorted({s for s, _ in table} | set(table.values()))
    for event in sorted({e for _, e in table} | {"nonsense"})
    if (state, event) not in table
]


def test_the_pod_lifecycle_is_the_documented_one() -> None:
    """Pending → Running → Succeeded | Failed; nothing leads out of the last two, nor back."""
    assert {(s, to) for (s, _), to in POD.items()} == {
        ("Pending", "Running"),
        ("Pending", "Failed"),
        ("Running", "Failed"),
        ("Running", "Succeeded"),
    }


def test_a_container_waits_runs_ends_and_waits_again() -> None:
    state = "waiting"
    for event, then in (("started", "running"), ("exited", "terminated"), ("backed_off", "waiting"), ("started", "running")):
        state = move(CONTAINER, state, event)
        assert state == then


@pytest.mark.parametrize(("name", "state", "event"), LEGAL)
def test_every_state_that_a_move_leads_to_is_known(name: str, state: str, event: str) -> None:
    assert move(TABLES[name], state, event) in {s for s, _ in TABLES[name]} | {"Succeeded", "Failed", "failed"}


@pytest.mark.parametrize(("name", "state", "event"), ILLEGAL)
def test_an_illegal_move_raises_and_says_what_can_happen(name: str, state: str, event: str) -> None:
    before = dict(TABLES[name])
    with pytest.raises(IllegalMove, match=event):
        lifecycle.move(TABLES[name], state, event)
    assert TABLES[name] == before
