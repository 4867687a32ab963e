# SPDX-License-Identifier: Apache-2.0
"""Redis in formulas: the dict's table, slabs after deletions, hit rates between their points, save points."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.containers.redis_hits import hit_rate, hit_slots
from fleetsim.workloads import redis_laws as laws

MILLION = 1_000_000


@given(st.integers(1, 1 << 34))
def test_the_table_is_the_next_power_of_two(keys: int) -> None:
    buckets = int(laws.table_bytes(keys)) // 8
    assert buckets >= keys and buckets.bit_count() == 1
    assert buckets == 4 or buckets // 2 < keys


def test_used_memory_is_the_measured_one() -> None:
    """redis-server 7.0.15: a million keys of 100 bytes: dictEntry 32, key 16, object 16, sds 112, and 2^20 pointers."""
    assert int(laws.used_memory(MILLION, 32 + 16 + 16 + 112)) == pytest.approx(185_340_000, rel=0.001)


@pytest.mark.parametrize(("regions", "freed"), [(4, 0.9), (16, 0.9), (16, 0.5), (1, 0.3), (256, 0.9)])
def test_slabs_left_equal_those_of_a_heap_with_single_regions(regions: int, freed: float) -> None:
    draw = random.Random(1)
    slabs = 4000
    live = slabs * regions
    gone = round(live * freed)
    survivors = draw.sample(range(live), live - gone)
    expected = len({region // regions for region in survivors})
    assert int(laws.slabs_left(slabs, regions, live, gone)) == pytest.approx(expected, rel=0.03)


@given(st.integers(1, 1 << 20), st.integers(1, 256), st.data())
def test_what_is_left_has_room_for_who_is_left(slabs: int, regions: int, data: st.DataObject) -> None:
    live = data.draw(st.integers(1, slabs * regions))
    freed = data.draw(st.integers(0, live))
    left = int(laws.slabs_left(slabs, regions, live, freed))
    assert left * regions >= live - freed
    assert left <= slabs


def test_the_pool_is_given_back_over_ten_seconds_slowly_at_both_ends() -> None:
    kept = [int(laws.pool_left(1000, age * 1_000_000_000)) for age in range(12)]
    assert kept[0] > 990 and kept[10] == kept[11] == 0
    assert kept == sorted(kept, reverse=True)
    assert kept[5] == pytest.approx(500, abs=20)
    assert kept[0] - kept[1] < kept[4] - kept[5]


@pytest.mark.parametrize("skew", [0.0, 0.6, 0.99, 1.2])
@pytest.mark.parametrize("at_random", [False, True])
def test_hit_rates_between_the_points_are_those_of_the_formula(skew: float, at_random: bool) -> None:
    keys = 50_000
    slots = hit_slots(keys, skew, at_random)
    for live in (400, 3_000, 12_499, 12_500, 30_000, 49_999, 50_000, 70_000):
        share = int(laws.hit_share(*slots, live, keys)) / 2**20
        assert share == pytest.approx(hit_rate(keys, live, skew, at_random), abs=0.012)
    assert int(laws.hit_share(*slots, 0, keys)) == 0
    assert 0 < int(laws.hit_share(*slots, 60, keys)) / 2**20 < hit_rate(keys, 60, skew, at_random) + 0.001
    shares = [int(laws.hit_share(*slots, live, keys)) for live in range(0, 50_001, 500)]
    assert shares == sorted(shares)


def test_hit_rates_equal_those_of_caches_that_are_simulated_key_by_key() -> None:
    draw = random.Random(7)
    keys, room, skew = 2000, 400, 0.99
    weights = [(rank + 1) ** -skew for rank in range(keys)]
    asked = draw.choices(range(keys), weights, k=60_000)
    for at_random in (False, True):
        cache: dict[int, None] = {}
        order: list[int] = []
        hits = 0
        for n, key in enumerate(asked):
            hits += key in cache and n >= 20_000
            if at_random:
                if key not in cache:
                    if len(order) == room:
                        k = draw.randrange(room)
                        del cache[order[k]]
                        order[k] = key
                    else:
                        order.append(key)
                    cache[key] = None
            else:
                cache.pop(key, None)
                cache[key] = None
                if len(cache) > room:
                    del cache[next(iter(cache))]
        assert hits / 40_000 == pytest.approx(hit_rate(keys, room, skew, at_random), abs=0.01)


def test_a_save_point_is_due_after_more_than_its_seconds_and_with_its_changes() -> None:
    point = (300 << 32) + 100
    second = 1_000_000_000
    assert laws.save_due(point, 100, 301 * second)
    assert not laws.save_due(point, 99, 301 * second)
    assert not laws.save_due(point, 100, 300 * second)
    assert not laws.save_due(0, 10**9, 10**9 * second)
