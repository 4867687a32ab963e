# SPDX-License-Identifier: Apache-2.0
"""Who is meant by a target: by words, by the seed, and by nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.fleet.targets import Roster, Subject, resolve

#   web: web-0 … web-9, each with the pods checkout and cache          db: db-0 … db-3, each with the pod cache
ROSTER = Roster(
    hosts={"web": [f"web-{n}" for n in range(10)], "db": [f"db-{n}" for n in range(4)]},
    pods={"web": ["checkout", "cache"], "db": ["cache"]},
)


def names(text: str, roster: Roster = ROSTER, seed: int = 7, purpose: str = "timeline/0", before: tuple[Subject, ...] = ()) -> list[str]:
    return [subject.name for subject in resolve(text, roster, seed, purpose, before).subjects]


def test_a_name_without_a_number_means_everybody_of_that_name() -> None:
    assert names("db") == ["db-0", "db-1", "db-2", "db-3"]
    assert names("cache") == [f"web-{n}/cache" for n in range(10)] + [f"db-{n}/cache" for n in range(4)]
    assert names("db/cache") == [f"db-{n}/cache" for n in range(4)]
    assert names("web-3") == ["web-3"]
    assert names("web-3/checkout") == ["web-3/checkout"]
    assert len(names("all")) == 14


@pytest.mark.parametrize(
    ("text", "count"),
    [("one web", 1), ("3 web", 3), ("10 web", 10), ("a third of web", 3), ("a third of db", 1), ("10% of web", 1), ("25% of web", 3)]
    + [("1% of web", 1), ("100% of web", 10), ("50% of web/cache", 5), ("14 cache", 14), ("0.5% of web", 1), ("one  web", 1)],
)
def test_shares_are_rounded_to_the_nearest_and_are_at_least_one(text: str, count: int) -> None:
    assert len(names(text)) == count


def test_the_target_is_who_was_hit_before_and_everyone_else_is_not() -> None:
    before = (Subject("web-1", "checkout"), Subject("web-1", "checkout"), Subject("db-0"))
    assert names("the target", before=before) == ["web-1/checkout", "db-0"]
    others = names("everyone else", before=before)
    assert len(others) == 12
    assert not {"web-1", "db-0"} & set(others)


@pytest.mark.parametrize(
    "text", ["", "one", "two web", "0 web", "11 web", "nobody", "one nobody", "db/checkout", "0% of web", "101% of web"]
)
def test_what_means_nobody_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match=r"known are|the forms are|only|at least|share"):
        names(text)


CHOICES = st.sampled_from(["one web", "3 web", "a third of web", "40% of web/cache"])


@given(CHOICES, st.integers(0, 2**63 - 1))
def test_the_same_seed_chooses_the_same_and_nobody_twice(text: str, seed: int) -> None:
    chosen = names(text, seed=seed)
    assert chosen == names(text, seed=seed)
    assert len(set(chosen)) == len(chosen)


@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 2**63 - 1))
def test_a_host_that_joins_changes_a_choice_only_by_being_chosen(hosts: int, wished: int, seed: int) -> None:
    """Of a fixed number, at most one of the chosen gives way, and only to the newcomer."""
    count = min(wished, hosts)
    before = names(f"{count} g", Roster(hosts={"g": [f"g-{n}" for n in range(hosts)]}), seed)
    after = names(f"{count} g", Roster(hosts={"g": [f"g-{n}" for n in range(hosts + 1)]}), seed)
    assert set(after) - set(before) <= {f"g-{hosts}"}
    assert len(set(before) - set(after)) <= 1


def test_every_host_has_its_share_of_luck() -> None:
    """2000 seeds choose one of 10: each host some 200 times (6 standard deviations are 80)."""
    counts = {f"web-{n}": 0 for n in range(10)}
    for seed in range(2000):
        counts[names("one web", seed=seed)[0]] += 1
    assert all(120 < count < 280 for count in counts.values()), counts


def test_two_entries_of_a_timeline_do_not_always_hit_the_same_host() -> None:
    same = sum(
        names("one web", seed=seed, purpose="timeline/0") == names("one web", seed=seed, purpose="timeline/1") for seed in range(300)
    )
    assert 5 < same < 70  # 30 expected by luck
