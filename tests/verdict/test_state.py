# SPDX-License-Identifier: Apache-2.0
"""The alert's life as a script: `x` the expression returns it, `.` it does not; one evaluation each 15 s."""

from __future__ import annotations

import itertools

import pytest

from fleetsim.verdict.state import FIRING, INACTIVE, NEXT, PENDING, AlertState

LETTERS = {INACTIVE: ".", PENDING: "p", FIRING: "F"}


@pytest.mark.parametrize(
    ("for_s", "keep_s", "seen", "state"),
    [
        (0, 0, "..xx..x.", "..FF..F."),  # for: 0 fires at once
        (30, 0, ".xxxx.xx", ".ppFF.pp"),  # 30 s after the first, that is at the third
        (30, 0, ".x.xxx.", ".p.ppF."),  # one absence starts anew
        (31, 0, ".xxxx.", ".pppF."),
        (0, 30, "x...x..", "FFF.FFF"),  # kept while less than 30 s have passed since the first absence
        (0, 45, "x.x....", "FFFFFF."),  # coming back starts the keeping anew
        (30, 60, "xx.....", "pp....."),  # pending is not kept
    ],
)
def test_a_life(for_s: int, keep_s: int, seen: str, state: str) -> None:
    alert = AlertState(for_s * 1000, keep_s * 1000)
    assert "".join(LETTERS[alert.step(15_000 * n, letter == "x")] for n, letter in enumerate(seen)) == state


def test_active_since_is_the_first_evaluation_of_this_life() -> None:
    alert = AlertState(30_000, 60_000)
    since = [(alert.step(15_000 * n, letter == "x"), alert.active_since_ms)[1] for n, letter in enumerate("xxx.x.......x")]
    assert since[:8] == [0] * 8 and since[-1] == 12 * 15_000


def test_the_table_knows_every_case() -> None:
    assert set(NEXT) == set(itertools.product((INACTIVE, PENDING, FIRING), (False, True), (False, True)))
