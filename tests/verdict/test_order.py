# SPDX-License-Identifier: Apache-2.0
"""Producers first; what reads its own future is walked through time together."""

from __future__ import annotations

import pytest

from fleetsim.verdict.order import Grid, Placed, batches
from fleetsim.verdict.rules import Rule

SAME = Grid(0, 15_000, 60_000)
OTHER = Grid(7_000, 15_000, 60_000)


def placed(*rules: tuple[str, str] | tuple[str, str, Grid]) -> list[Placed]:
    """(name, expression): a name with a colon is a recording rule."""
    out = []
    for number, (name, expr, *grid) in enumerate(rules):
        kind = "record" if ":" in name else "alert"
        out.append(Placed(number, Rule(kind, name, expr, "file.yml", "group", number), grid[0] if grid else SAME, 0))
    return out


def drawn(rules: list[Placed]) -> list[str]:
    """Batches as text; stepped ones in brackets."""
    names = [(" ".join(member.rule.name for member in batch.members), batch.stepped) for batch in batches(rules)]
    return [f"[{text}]" if stepped else text for text, stepped in names]


@pytest.mark.parametrize(
    ("rules", "order"),
    [
        (placed(("a:x", "up"), ("B", "a:x > 1")), ["a:x", "B"]),
        (placed(("B", "up"), ("C", "up")), ["B", "C"]),
        (placed(("a:x", "a:x + 1")), ["[a:x]"]),  # reads its own last value
        (placed(("B", "a:x > 1"), ("a:x", "up")), ["[B a:x]"]),  # the one after it, on the same instants
        (placed(("B", "a:x > 1"), ("a:x", "up", OTHER)), ["a:x", "B"]),  # on other instants: simply first
        (placed(("M", 'ALERTS{alertname="B"}'), ("B", "up"), ("C", "up")), ["[M B]", "C"]),
        (placed(("B", "up"), ("M", "count(ALERTS)")), ["B", "[M]"]),  # an alert on all alerts sees itself
        (placed(("B", "up"), ("M", 'ALERTS_FOR_STATE{alertname!="M"}')), ["B", "M"]),
        (placed(("a:x", "b:y", SAME), ("b:y", "a:x", OTHER)), ["[a:x b:y]"]),  # a circle over two grids
        (placed(("B", '{__name__=~".+"}'), ("a:x", "up")), ["B", "a:x"]),  # patterns see what is before them only
        (placed(("a:x", "up"), ("B", '{__name__=~"a:.+"}')), ["a:x", "B"]),
        (placed(("c:z", "b:y"), ("b:y", "a:x", OTHER), ("a:x", "up")), ["a:x", "b:y", "c:z"]),
    ],
)
def test_order(rules: list[Placed], order: list[str]) -> None:
    assert drawn(rules) == order


def test_grids_meet_where_their_residues_agree() -> None:
    assert SAME.meets(SAME) and not SAME.meets(OTHER)
    assert Grid(5_000, 10_000, 60_000).meets(Grid(0, 15_000, 60_000))  # at 15 s
    assert not Grid(1_000, 10_000, 60_000).meets(Grid(0, 15_000, 60_000))
