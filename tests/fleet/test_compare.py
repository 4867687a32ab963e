# SPDX-License-Identifier: Apache-2.0
"""Two histories side by side: literal ones, whose differences can be read off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.fleet.compare import Harm, counts, impact_lines, impacts
from fleetsim.fleet.served import COUNTS, Requests, total
from fleetsim.rundir.models import HistoryEvent
from fleetsim.workloads.arrivals import LE_MS, NR_BUCKETS


def harm(subject: str, start: int, end: int | None, impact: str = "killed", host: str = "h") -> list[HistoryEvent]:
    name = f"{host}/{subject}/{impact}-{start}"
    told = [HistoryEvent(t_ns=start, host=host, seq=start, kind="impact_start", subject=subject, id=name, data={"impact": impact})]
    if end is not None:
        told.append(HistoryEvent(t_ns=end, host=host, seq=end, kind="impact_end", subject=subject, id=name, data={"impact": impact}))
    return told


def test_every_kind_of_difference_has_its_word() -> None:
    was = [*harm("gone", 20, 30), *harm("later", 20, 30), *harm("earlier", 40, 45), *harm("longer", 50, 60), *harm("same", 20, 25)]
    now = [*harm("new", 21, None), *harm("later", 22, 23), *harm("earlier", 39, 40), *harm("longer", 50, 61), *harm("same", 20, 25)]
    found = {line.subject: line.change for line in impact_lines(was, now, 10, 100)}
    assert found == {name: name for name in ("gone", "new", "later", "earlier", "longer", "same")}


def test_what_is_over_before_the_branch_does_not_count_and_what_is_on_counts_from_then() -> None:
    told = [*harm("a", 1, 9), *harm("b", 2, 12), *harm("c", 3, None), *harm("d", 11, 13), *harm("d", 15, None)]
    assert impacts(told, 10, 20) == {
        ("killed", "h", "b"): Harm(10, 1, 2),
        ("killed", "h", "c"): Harm(10, 1, 10),
        ("killed", "h", "d"): Harm(11, 2, 2 + 5),
    }


def test_kills_are_counted_from_the_branch_on() -> None:
    kills = [HistoryEvent(t_ns=t, host="h", seq=t, kind="oom_kill", subject="x") for t in (5, 15, 17)]
    again = HistoryEvent(t_ns=15, host="h", seq=16, kind="oom_kill", subject="x")  # by memory.oom.group, of the same task
    found = counts([*kills, again, *harm("x", 15, 17)], 10, 20)
    assert (found.first_oom_ns, found.counted["OOM kills"], found.counted["restarts"], found.harmed_ns) == (15, 2, 0, 2)
    assert counts(kills, 18, 20).first_oom_ns is None


def naive_quantile(buckets: list[int], q: float) -> float:
    """histogram_quantile of Prometheus: the bucket of the rank, linear inside it, the last finite bound above all."""
    rank = q * sum(buckets)
    cumulative = np.cumsum(buckets)
    b = int(np.searchsorted(cumulative, rank))
    if b >= len(LE_MS):
        return float(LE_MS[-1])
    low = 0.0 if b == 0 else float(LE_MS[b - 1])
    below = 0 if b == 0 else int(cumulative[b - 1])
    return low + (LE_MS[b] - low) * (rank - below) / buckets[b]


@given(st.lists(st.integers(0, 1000), min_size=NR_BUCKETS, max_size=NR_BUCKETS), st.floats(0.01, 0.99))
def test_a_percentile_is_that_of_histogram_quantile(buckets: list[int], q: float) -> None:
    found = Requests(buckets=tuple(buckets)).quantile_ms(q)
    assert found is None if not sum(buckets) else found == pytest.approx(naive_quantile(buckets, q))


def test_what_servers_did_in_between_is_a_difference_and_a_server_that_began_anew_counts_from_zero() -> None:
    def requests(served: int) -> Requests:
        return Requests(tuple(served if name == "served" else 0 for name in COUNTS), (served,) + (0,) * (NR_BUCKETS - 1), 5, 10)

    assert requests(9).since(requests(4)) == requests(5)
    assert requests(3).since(requests(4)) == requests(3)
    assert total([requests(3), requests(4)]) == requests(7)
    assert total([]).count("served") == 0 and total([]).quantile_ms(0.5) is None
