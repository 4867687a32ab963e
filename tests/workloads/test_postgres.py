# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL: what its shared buffers keep, what its processes take, what a query waits for, held against a real server where it can be."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fleetsim.containers.postgres import Postgres
from fleetsim.fleet.disks import DISKS
from fleetsim.linux import mm_types as mm
from fleetsim.workloads import postgres_types as pg
from fleetsim.workloads.postgres_buffers import change, first_changes, full_after, miss, present_pages, push_out
from scripts.worlds.pods import mean_ms, mib, work_of, world_of
from tests.host.worlds import World

REAL = Path(__file__).resolve().parents[1] / "ground_truth" / "calibration" / "postgres.json"
MIB_PAGES = 256


def real(measurement: str, **parameters: Any) -> dict[str, Any]:
    """Medians of a measurement of PostgreSQL 15."""
    for record in json.loads(REAL.read_text()):
        if record["measurement"] == measurement and parameters.items() <= record["parameters"].items():
            return {name: value["median"] for name, value in record["figures"].items() if isinstance(value, dict)}
    raise LookupError(measurement)


def slots(buffers: int, hot_pages: int, looks: int, hot_permille: int) -> Any:
    values = np.zeros(pg.NR_USED, np.int64)
    values[pg.BUFFER_PAGES], values[pg.HOT_PAGES] = buffers, hot_pages
    values[pg.LOOKS], values[pg.HOT_LOOKS_PERMILLE] = looks, hot_permille
    return values


PGBENCH_TABLE, PGBENCH_INDEX = 641 * MIB_PAGES, 107 * MIB_PAGES  # scale 50: 5 million rows of 134 bytes, and their primary key
PGBENCH = PGBENCH_TABLE + PGBENCH_INDEX


def pgbench(buffers_mib: int = 256) -> Any:
    """A point read looks at one leaf of the index and one block of the table; the root and one inner block are always there."""
    values = slots(buffers_mib * MIB_PAGES, PGBENCH_INDEX, 2, 500)
    values[pg.FULL_AFTER] = full_after(values, PGBENCH)
    return values


def hits_percent(values: Any, queries: int) -> float:
    misses = 0
    for _ in range(queries // 50):
        miss(values, PGBENCH, 50)
        misses += int(values[pg.LEFT_HOT] + values[pg.LEFT_COLD]) // pg.BLOCK
    return 100 * (1 - misses / (4 * queries))


def test_the_share_of_hits_is_the_real_servers_cold_warming_and_warm() -> None:
    """pgbench -S on an empty server, after as many queries as it answered then, and when its buffers are full."""
    measured = real("page cache")
    values = pgbench()
    cold = hits_percent(values, int(4 * measured["cold_transactions_per_s"]))
    warming = hits_percent(values, int(4 * measured["warming_transactions_per_s"]))
    values[pg.LOOKED] = values[pg.FULL_AFTER]
    warm = hits_percent(values, 20_000)
    assert cold == pytest.approx(measured["cold_shared_buffers_hit_percent"], abs=1.5)
    assert warming == pytest.approx(measured["warming_shared_buffers_hit_percent"], abs=1.5)
    assert warm == pytest.approx(measured["warm_shared_buffers_hit_percent"], abs=1.5)


@pytest.mark.parametrize(("hot", "cold", "buffers", "hot_permille"), [(200, 1800, 500, 500), (100, 1900, 300, 900), (0, 1000, 400, 0)])
def test_what_the_buffers_keep_is_what_a_cache_of_the_last_used_keeps(hot: int, cold: int, buffers: int, hot_permille: int) -> None:
    """The naive twin keeps every block in a list, in the order of its last use."""
    values = slots(buffers * pg.BLOCK, hot * pg.BLOCK, 1, hot_permille)
    data = (hot + cold) * pg.BLOCK
    values[pg.FULL_AFTER] = values[pg.LOOKED] = full_after(values, data)
    assert int(present_pages(values, data, values[pg.FULL_AFTER])) == pytest.approx(buffers * pg.BLOCK, rel=0.02)
    missed = 0
    for _ in range(200):
        miss(values, data, 100)
        missed += int(values[pg.LEFT_HOT] + values[pg.LEFT_COLD]) // pg.BLOCK
    luck = np.random.default_rng(1)
    kept: OrderedDict[int, None] = OrderedDict()
    twin = 0
    for k in range(30_000):
        block = int(luck.integers(hot)) if luck.random() < hot_permille / 1000 else hot + int(luck.integers(cold))
        twin += block not in kept and k >= 10_000
        kept[block] = None
        kept.move_to_end(block)
        if len(kept) > buffers:
            kept.popitem(last=False)
    assert missed / 20_000 == pytest.approx(twin / 20_000, abs=0.02)


@pytest.mark.parametrize("commits", [800, 3000])
def test_what_commits_change_is_what_a_cache_block_by_block_says(commits: int) -> None:
    """The naive twin: a cache of the last used with a mark on each block that was changed, and a list of blocks the log has whole."""
    hot, cold, buffers = 200, 1800, 700
    values = slots(buffers * pg.BLOCK, hot * pg.BLOCK, 2, 500)
    data = (hot + cold) * pg.BLOCK
    values[pg.FULL_AFTER] = values[pg.LOOKED] = full_after(values, data)
    values[pg.FILLED], values[pg.CHANGES], values[pg.WRITE_PERMILLE] = values[pg.BUFFER_PAGES], 2, 1000
    logged = 0
    for _ in range(commits // 10):
        miss(values, data, 10)
        logged += int(change(values, data, 10))
        push_out(values, int(values[pg.LEFT_HOT] + values[pg.LEFT_COLD]) // pg.BLOCK, 10)
    luck = np.random.default_rng(1)
    kept: OrderedDict[int, bool] = OrderedDict()
    whole: set[int] = set()
    written = 0
    for k in range(5000 + commits):
        for block in (int(luck.integers(hot)), hot + int(luck.integers(cold))):
            kept[block] = k >= 5000
            kept.move_to_end(block)
            whole |= {block} if k >= 5000 else set()
            if len(kept) > buffers:
                written += kept.popitem(last=False)[1]
    assert logged == pytest.approx(len(whole), rel=0.05)
    assert int(values[pg.DIRTY]) == pytest.approx(sum(kept.values()), rel=0.05)
    assert int(values[pg.EVICTED]) == pytest.approx(written, rel=0.1, abs=0.05 * buffers)


@pytest.mark.parametrize("changed", [10, 100, 400])
def test_many_changes_at_once_are_of_fewer_blocks(changed: int) -> None:
    """Of 1000 blocks so many different ones, as drawn."""
    values = slots(1, 0, 1, 0)
    luck = np.random.default_rng(1)
    drawn = float(np.mean([len(set(luck.integers(1000, size=changed).tolist())) for _ in range(200)]))
    assert int(first_changes(values, pg.WHOLE_COLD, pg.CARRY_COLD_WHOLE, 1000, changed)) == pytest.approx(drawn, rel=0.04, abs=1)


def test_data_that_fits_is_read_once() -> None:
    values = slots(1000, 0, 4, 0)
    values[pg.FULL_AFTER] = full_after(values, 800)
    read = 0
    for _ in range(100):
        miss(values, 800, 20)
        read += int(values[pg.LEFT_COLD])
    assert read == pytest.approx(800, rel=0.1)
    miss(values, 800, 1000)
    assert int(values[pg.LEFT_COLD]) <= pg.BLOCK


def database(**more: Any) -> dict[str, Any]:
    return {"workload": "postgres", "data": "/data/pg", "shared_buffers": "64MiB", "load": "200/s", "workers": 8, **more}


def processes(world: World) -> list[Any]:
    """Tasks of the backends."""
    rows = [b for b in world.row["backends"] if b["owner"] and b["role"] == pg.CLIENT]
    return [world.row["tasks"][int(world.row["threads"][int(b["th"])]["task"])] for b in rows]


def state(world: World, slot: int) -> int:
    return int(work_of(world, "db")["slots"][slot])


def test_every_backend_counts_the_shared_buffers_in_its_rss_and_has_page_tables_of_its_own() -> None:
    """16 backends: their RSS is many times what is there; the page tables really are 16 (kernel-laws §14, §16.3)."""
    world = world_of(1024, files={"/data/pg": 256}, db=database(shared_buffers="128MiB", workers=16, idle_connections=16, load="2000/s"))
    world.at(25)
    backends = processes(world)
    assert len(backends) == 16
    shared = sum(mib(int(task["rss_shmem"])) for task in backends)
    assert world.meminfo("Shmem") == pytest.approx(128, rel=0.02)
    assert shared > 6 * 128, "RSS counts it again and again"
    assert all(mib(int(task["rss_anon"])) > 6 for task in backends)
    assert world.meminfo("PageTables") > 16 * 128 / 512
    assert world.meminfo("AnonPages") < 16 * 7 + 30, "the shared buffers are not anonymous memory"


def test_a_backends_page_tables_are_the_real_ones() -> None:
    """The leaf tables of 256 MiB are 512 KiB; the rest are the tables of program, libraries and stack."""
    world = world_of(
        2048, files={"/data/pg": 748}, db=database(shared_buffers="256MiB", load="400/s", idle_connections=4, backend_memory="1200KiB")
    )
    world.at(6)
    mine = float(np.median([int(task["pgtables"]) * 4 for task in processes(world)]))
    assert mine == pytest.approx(real("backends", connections=4)["page_tables_per_backend_kib"], rel=0.2)


def test_a_cold_server_waits_for_the_disk_and_a_warm_one_does_not() -> None:
    """The data fits into the page cache: once it is there only processor time is left, though three quarters miss the shared buffers."""
    world = world_of(1024, files={"/data/pg": 128}, disk=DISKS["ssd"], db=database(shared_buffers="32MiB", load="1000/s", looks=8))
    world.at(4)
    server = work_of(world, "db")["server"]
    cold_ms, cold_served = mean_ms(server), int(server["served"])
    world.at(40)
    reads = int(world.row["disk"][0]["pages"][0])
    before, served = int(server["latency_sum_us"]), int(server["served"])
    world.at(60)
    warm_ms = (int(server["latency_sum_us"]) - before) / 1000 / (int(server["served"]) - served)
    assert cold_served > 1000
    assert cold_ms > 2 * warm_ms
    assert int(world.row["disk"][0]["pages"][0]) - reads < 0.02 * 128 * MIB_PAGES
    assert warm_ms < 1


def test_a_sort_takes_work_mem_for_its_time_and_gives_it_back() -> None:
    """As the real one: its peak RSS rises by work_mem when the rows do not fit (66 MiB of 64)."""
    assert real("sort", work_mem="64MB")["spike_kib"] / 1024 == pytest.approx(64, rel=0.03)
    quiet = world_of(1024, files={"/data/pg": 64}, db=database()).at(20)
    world = world_of(1024, files={"/data/pg": 64}, db=database(work_mem="16MiB", sorts=2.0)).at(10)
    peaks = []
    for tenth in range(101, 140):
        world.at(tenth / 10)
        peaks.append(world.meminfo("AnonPages"))
    spike = max(peaks) - quiet.meminfo("AnonPages")
    assert spike > 15
    assert spike == pytest.approx(16 * round(spike / 16), abs=12), "whole sorts"
    world.command(14, "load", task="db", rate_milli=0)
    world.at(18)
    world.command(18, "load", task="db", rate_milli=1000)
    world.at(21)
    assert world.meminfo("AnonPages") < quiet.meminfo("AnonPages") + 8


def test_commits_write_and_flush_the_log_and_a_checkpoint_writes_the_blocks() -> None:
    world = world_of(512, files={"/data/pg": 64}, db=database(writes=50.0, checkpoint="20s"))
    world.at(10)
    written = int(world.row["disk"][0]["pages"][1])
    log = 10 * 100 * 1024 + 900 * 8192
    assert written > log // 4096, "100 commits of 1 KiB a second, and each block that they change once as a whole"
    dirty = state(world, pg.DIRTY)
    assert 500 < dirty <= 1000, "blocks changed, some of them twice"
    world.at(55)
    after = int(world.row["disk"][0]["pages"][1])
    assert after - written > dirty * pg.BLOCK, "the checkpoint's pages came on top of the log"


def test_a_slow_flush_is_felt_by_who_commits_and_by_nobody_else() -> None:
    def tail(writes: float) -> tuple[int, int]:
        world = world_of(512, files={"/data/pg": 32}, disk=DISKS["hdd"], db=database(writes=writes, shared_buffers="64MiB", looks=0))
        buckets = work_of(world.at(30), "db")["server"]["buckets"]
        return int(buckets[:1].sum()), int(buckets[1:].sum())

    assert tail(0.0)[1] == 0
    fast, slow = tail(10.0)
    assert slow == pytest.approx(0.1 * (fast + slow), rel=0.35)


def test_huge_pages_are_in_nobodys_rss_and_need_no_tables() -> None:
    pool = {"vm.nr_hugepages": 40}
    world = world_of(1024, files={"/data/pg": 128}, sysctl=pool, db=database(huge_pages="on", load="1000/s")).at(20)
    assert work_of(world, "db")["slots"][pg.IS_HUGE] == 1
    assert world.meminfo("Shmem") == 0
    assert all(int(task["rss_shmem"]) == 0 for task in processes(world))
    assert all(int(task["pgtables"]) * 4 < 100 for task in processes(world))
    assert world.meminfo("HugePages_Free") < 40


@pytest.mark.parametrize(("huge", "alive"), [("try", True), ("on", False)])
def test_without_a_pool_try_takes_small_pages_and_on_does_not_start(huge: str, alive: bool) -> None:
    world = world_of(512, files={"/data/pg": 64}, restart_s=None, db=database(huge_pages=huge)).at(5)
    exits = [event.data["exit_code"] for event in world.events("task_exit")]
    assert exits == ([] if alive else [1])
    assert (int(work_of(world, "db")["server"]["served"]) > 0) == alive


def test_a_protected_postmaster_has_minus_a_thousand_and_its_children_have_not() -> None:
    world = world_of(512, files={"/data/pg": 64}, db=database(protect_postmaster=True)).at(5)
    assert int(world.task("db")["oom_score_adj"]) == -1000
    assert {int(task["oom_score_adj"]) for task in processes(world)} == {0}


def test_when_a_backend_is_killed_all_connections_break_and_the_server_recovers() -> None:
    world = world_of(512, files={"/data/pg": 64}, db=database()).at(8)
    before = len(processes(world))
    world.command(8, "kill", task="db-child")
    world.at(8.5)
    assert world.events("task_exit"), "the others are ended as well"
    assert int(work_of(world, "db")["server"]["ready"]) == 0
    world.at(12)
    server = work_of(world, "db")["server"]
    assert int(server["ready"]) == 1
    assert int(server["broken"]) + int(server["refused"]) > 50
    assert len(processes(world)) >= min(4, before)
    assert int(world.task("db")["state"]) == mm.TASK_RUNNING
    served = int(server["served"])
    world.at(15)
    assert int(server["served"]) - served == pytest.approx(600, rel=0.1)


def test_a_postmaster_that_is_killed_takes_its_children_with_it_and_starts_again() -> None:
    world = world_of(512, files={"/data/pg": 64}, db=database()).at(8)
    world.command(8, "kill", task="db")
    world.at(15)
    assert not any(b["owner"] and int(world.row["threads"][int(b["th"])]["used"]) for b in world.row["backends"])
    world.at(25)
    assert int(work_of(world, "db")["server"]["ready"]) == 1
    assert world.meminfo("Shmem") < 65, "the old shared memory is gone"


def test_more_connections_than_a_host_has_processes_for_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValidationError, match="'workers' is 100 connections, each a process; a simulated host holds 39 of them"):
        Postgres.model_validate({"data": "/data/pg", "workers": 100})
    with pytest.raises(ValidationError, match="'idle_connections' is 9, more than the 8 'workers'"):
        Postgres.model_validate({"data": "/data/pg", "workers": 8, "idle_connections": 9})
