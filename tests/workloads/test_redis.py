# SPDX-License-Identifier: Apache-2.0
"""A Redis on a host: what its data takes, what deletion leaves behind, what it evicts, commands that wait.

Figures called measured are of redis-server 7.0.15 with jemalloc 5.3.0 (medians of tests/ground_truth/calibration, redis_*.json).
"""

from __future__ import annotations

import pytest

from fleetsim.containers.redis import Redis
from fleetsim.host.spec import DiskSpec
from fleetsim.workloads.redis_slots import CHANGES, FAILING, FIXED, LIVE, POOL, SLABS
from scripts.worlds.redis import NEVER, RedisWorld, kinds, redis_world
from tests.host.worlds import MIB

# ------------------------------------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize(
    ("keys", "value", "used", "rss"),
    [
        (0, 16, 899_510, 12_423_000),
        (500_000, 16, 53_144_000, 68_915_000),
        (1_000_000, 100, 185_340_000, 204_090_000),
        (200_000, 1024, 271_850_000, 285_920_000),
        (60_000, 4096, 312_510_000, 326_690_000),
        (10_000, 32_768, 411_320_000, 424_230_000),
    ],
)
def test_keys_take_as_much_memory_as_they_do_in_the_real_redis(keys: int, value: int, used: int, rss: int) -> None:
    r = redis_world(Redis(keys=max(1, keys), loaded=100 if keys else 0, value=f"{value}B", **NEVER), 1024).at(20)
    assert r.info("used_memory") == pytest.approx(used, rel=0.005)
    assert r.rss() == pytest.approx(rss, rel=0.06)


@pytest.mark.parametrize(
    ("keys", "value", "percent", "full", "later", "ratio"),
    [
        (100_000, 1024, 90, 149_160_000, 127_160_000, 8.74),
        (400_000, 100, 90, 90_276_000, 84_529_000, 9.90),
        (400_000, 100, 50, 90_321_000, 88_244_000, 2.19),
    ],
)
def test_a_mass_deletion_leaves_rss_behind_as_in_the_real_redis(
    keys: int, value: int, percent: int, full: int, later: int, ratio: float
) -> None:
    r = redis_world(Redis(keys=keys, value=f"{value}B", delete={"at": "20s", "share": float(percent)}, **NEVER)).at(19.9)
    before = r.rss()
    assert before == pytest.approx(full, rel=0.06)
    assert r.at(21.2).rss() == pytest.approx(before, rel=0.01), "at first all of it stays"
    assert r.info("used_memory") < 0.6 * before
    r.at(32)
    assert r.rss() == pytest.approx(later, rel=0.06)
    assert r.info("mem_fragmentation_ratio") == pytest.approx(ratio, rel=0.15)


def test_freed_slabs_leave_over_ten_seconds_and_new_keys_use_what_is_free() -> None:
    r = redis_world(
        Redis(keys=20_000, value="4KiB", delete={"at": "20s", "share": 90.0}, write_share=100.0, load="100/s", **NEVER), 512
    ).at(19)
    full = r.rss()
    r.at(21)
    pool = r.slot(POOL)
    assert pool > 0.5 * full / 4096, "slabs of four regions: two thirds are empty after nine of ten keys are gone"
    r.at(25)
    assert 0 < r.slot(POOL) < 0.7 * pool
    r.at(31)
    lowest, slabs = r.rss(), r.slot(SLABS)
    assert slabs * 4 > 2 * r.slot(LIVE), "those that are left are full of holes"
    assert r.at(33).slot(SLABS) == slabs, "new keys go there"
    assert r.slot(POOL) == 0 and lowest < 0.55 * full
    r.at(600)
    assert r.slot(LIVE) > 18_000
    assert lowest < r.rss() <= full


# ---------------------------------------------------------------------------------------------------------------- eviction


def cache(policy: str, **more: object) -> RedisWorld:
    """The measured one: GETs of 100,000 keys of 1 KiB, the r-th in proportion to r^-0.99; what is missed is set."""
    drawn = {"keys": 100_000, "skew": 0.99, "fill_misses": True, "write_share": 0.0, "loaded": 0.0, "load": "5000/s", "save": []}
    return redis_world(Redis(**{**drawn, "maxmemory": "40MiB", "maxmemory_policy": policy, **more}), 512)


@pytest.mark.parametrize(("policy", "hit_percent"), [("allkeys-lru", 84.96), ("allkeys-lfu", 85.59), ("allkeys-random", 82.77)])
def test_maxmemory_holds_and_the_hit_rate_is_the_real_one(policy: str, hit_percent: float) -> None:
    r = cache(policy).at(60)
    hits, misses = r.info("keyspace_hits"), r.info("keyspace_misses")
    r.at(120)
    hits, misses = r.info("keyspace_hits") - hits, r.info("keyspace_misses") - misses
    assert 100 * hits / (hits + misses) == pytest.approx(hit_percent, abs=1.5)
    assert r.slot(LIVE) == pytest.approx(30_252, rel=0.02)
    assert r.info("used_memory") == pytest.approx(41_910_000, rel=0.01)
    assert r.rss() == pytest.approx(53_907_000, rel=0.06)
    assert r.info("evicted_keys") == pytest.approx(r.info("keyspace_misses") - r.slot(LIVE), abs=2), "a key for a key"


def test_without_eviction_writes_fail_and_reads_go_on() -> None:
    """Measured: 3,188 keys of 1 KiB fit into 5 MiB, then `OOM command not allowed`, and GET still hits."""
    redis = Redis(keys=100_000, loaded=0.0, load="200/s", write_share=50.0, maxmemory="5MiB", slo={"latency": "100ms"}, **NEVER)
    r = redis_world(redis).at(120)
    assert r.slot(LIVE) == pytest.approx(3188, rel=0.01)
    assert r.info("used_memory") == pytest.approx(5 * MIB, rel=0.01)
    assert r.info("evicted_keys") == 0
    assert kinds(r) == ["impact_start errors"]
    broken, hits = int(r.server["broken"]), r.info("keyspace_hits")
    r.at(130)
    assert int(r.server["broken"]) - broken == pytest.approx(1000, rel=0.05)
    assert r.info("keyspace_hits") > hits


def test_above_its_limit_a_set_of_a_key_that_is_there_is_refused_too() -> None:
    redis = Redis(keys=4000, loaded=0.0, load="200/s", write_share=50.0, maxmemory="5MiB", **NEVER)
    r = redis_world(redis).at(200)
    broken = int(r.server["broken"])
    assert int(r.at(210).server["broken"]) - broken == pytest.approx(1000, rel=0.01)


def test_volatile_policies_evict_only_what_has_an_expiry() -> None:
    none = cache("volatile-lru", volatile=0.0, write_share=50.0).at(60)
    assert none.info("evicted_keys") == 0 and int(none.server["broken"]) > 0, "nothing may go: as noeviction"
    fifth = cache("volatile-lru", volatile=80.0, skew=0.0).at(30)
    fixed = fifth.slot(FIXED)
    fifth.at(90)
    assert fifth.info("evicted_keys") > 0 and int(fifth.server["broken"]) == 0
    assert fixed < fifth.slot(FIXED) <= 20_000, "those without one stay, until all of them are there"
    assert fifth.slot(FIXED) > 19_000
    assert fifth.info("used_memory") == pytest.approx(40 * MIB, rel=0.01)
    hits = fifth.info("keyspace_hits"), fifth.info("keyspace_misses")
    fifth.at(120)
    share = (fifth.info("keyspace_hits") - hits[0]) / (sum(fifth.info(f"keyspace_{k}") for k in ("hits", "misses")) - sum(hits))
    assert share == pytest.approx(0.2 + 0.8 * (fifth.slot(LIVE) - 20_000) / 80_000, abs=0.01)


# -------------------------------------------------------------------------------------------------------------- the thread


def test_commands_wait_for_one_thread() -> None:
    calm = redis_world(Redis(keys=1000, load="5000/s", commands_per_s=10_000, **NEVER)).at(30)
    assert int(calm.server["served"]) == pytest.approx(5000 * 30, rel=0.1)
    busy = redis_world(Redis(keys=1000, load="20000/s", commands_per_s=10_000, queue=1000, slo={"latency": "50ms"}, **NEVER)).at(30)
    assert int(busy.server["served"]) == pytest.approx(10_000 * 30, rel=0.12)
    assert int(busy.server["refused"]) > 0
    assert "impact_start latency" in kinds(busy)


def test_a_redis_that_is_swapped_out_is_slow() -> None:
    """kernel-laws §16.2: mem_fragmentation_ratio below 1."""
    redis = Redis(keys=100_000, load="300/s", slo={"latency": "5ms"}, **NEVER)
    hdd = DiskSpec(bytes_per_s=150_000_000, latency_us=8_000.0)
    roomy = redis_world(redis, 512, disk=hdd, swap_bytes=512 * MIB).at(60)
    tight = redis_world(redis, 512, {"memory.max": 80}, disk=hdd, swap_bytes=512 * MIB).at(60)
    assert roomy.info("mem_fragmentation_ratio") > 1 > tight.info("mem_fragmentation_ratio")
    mean = [int(w.server["latency_sum_us"]) / int(w.server["served"]) for w in (roomy, tight)]
    assert mean[1] > 5 * mean[0]
    assert "impact_start latency" in kinds(tight) and kinds(roomy) == []


def test_nothing_is_left_over_of_a_batch_that_failed() -> None:
    r = redis_world(Redis(keys=1000, load="100/s", write_share=100.0, maxmemory="2MiB", **NEVER)).at(30)
    assert r.slot(FAILING) >= 0 and r.slot(CHANGES) >= 0
    server = r.server
    assert int(server["arrived"]) == sum(int(server[k]) for k in ("served", "refused", "timed_out", "broken", "backlog"))


def test_a_redis_that_cannot_map_its_memory_ends() -> None:
    r = redis_world(Redis(keys=10_000_000, **NEVER), 512, restart_s=5.0).at(12)
    exits = r.events("task_exit")
    assert [e.data["exit_code"] for e in exits] == [1, 1, 1]
