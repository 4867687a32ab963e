# SPDX-License-Identifier: Apache-2.0
"""The measured situations of PostgreSQL again: its processes on a simulated host, its shared buffers and its log by their laws.

Hits, dirty blocks and whole blocks in the log are what the laws say of as many queries as the real server answered; processes,
their memory and their page tables are those of a host (profile `vm`), whose server is as the real one was when it was looked at: all
shared buffers filled, connections new. Leaves out: what the real machine's load decides (queries per second, latencies; the rate is
taken over), 48 connections (a host of size class standard holds 39 processes), sorts that spill.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np

from fleetsim.workloads import postgres_types as pg
from fleetsim.workloads.postgres_buffers import change, full_after, miss, push_out
from scripts.worlds.host import PAGES, World
from scripts.worlds.pods import work_of, world_of

Figures = dict[str, float]
Parameters = Mapping[str, Any]
TABLE, INDEX = 641 * PAGES, 107 * PAGES  # pgbench's scale 50: 5 million rows of 134 bytes, and their primary key
DATA = TABLE + INDEX
BLOCKS_OF_A_READ = 4  # the index's root, an inner block and a leaf, and a block of the table; the first two are always there
WAL_RECORD = 417  # bytes of a commit besides whole blocks: what is common to both measurements of the log
CONNECTIONS_MAX = 39
MEASURED_S = 4
BATCH = 50
TICK_MS = 10  # so that all backends have their turn in some seconds


def mib(setting: str) -> int:
    """PostgreSQL's MB are MiB."""
    return int(setting.removesuffix("MB"))


def slots_of(shared_buffers: str) -> Any:
    """The slots of a server whose queries look at one leaf of the index and one block of the table."""
    slots = np.zeros(pg.NR_USED, np.int64)
    slots[pg.BUFFER_PAGES], slots[pg.HOT_PAGES] = mib(shared_buffers) * PAGES, INDEX
    slots[pg.LOOKS], slots[pg.HOT_LOOKS_PERMILLE], slots[pg.CHANGES] = 2, 500, 2
    slots[pg.WRITE_PERMILLE] = 1000
    slots[pg.FULL_AFTER] = full_after(slots, DATA)
    return slots


def hit_percent(slots: Any, queries: float) -> float:
    missed = 0
    for _ in range(int(queries) // BATCH):
        miss(slots, DATA, BATCH)
        missed += int(slots[pg.LEFT_HOT] + slots[pg.LEFT_COLD]) // pg.BLOCK
    return 100 * (1 - missed / (BLOCKS_OF_A_READ * (int(queries) // BATCH * BATCH)))


def page_cache(parameters: Parameters, measured: Mapping[str, Any]) -> Figures:
    """Point reads on an empty server, after that, and when the whole table was read: as many as the real one answered in its seconds."""
    slots = slots_of(parameters["shared_buffers"])
    queries = {name: MEASURED_S * float(measured[f"{name}_transactions_per_s"]["median"]) for name in ("cold", "warming", "warm")}
    return {f"{name}_shared_buffers_hit_percent": hit_percent(slots, number) for name, number in queries.items()}


def writes(parameters: Parameters) -> Figures:
    """Commits from one checkpoint to the next, in shared buffers that were full before."""
    slots = slots_of(parameters["shared_buffers"])
    slots[pg.LOOKED], slots[pg.FILLED] = slots[pg.FULL_AFTER], slots[pg.BUFFER_PAGES]
    commits, whole = int(parameters["commits"]), 0
    for _ in range(commits // BATCH):
        miss(slots, DATA, BATCH)
        whole += int(change(slots, DATA, BATCH))
        push_out(slots, int(slots[pg.LEFT_HOT] + slots[pg.LEFT_COLD]) // pg.BLOCK, BATCH)
    by_checkpoint, before = int(slots[pg.DIRTY]), int(slots[pg.EVICTED])
    return {
        "wal_per_commit_bytes": WAL_RECORD + 8192 * whole / commits,
        "full_pages_per_commit": whole / commits,
        "blocks_by_checkpoint_count": by_checkpoint,
        "blocks_before_count": before,
        "blocks_count": by_checkpoint + before,
    }


def clients(world: World) -> list[Any]:
    """Tasks of the backends."""
    rows = [b for b in world.row["backends"] if b["owner"] and b["role"] == pg.CLIENT]
    return [world.row["tasks"][int(world.row["threads"][int(b["th"])]["task"])] for b in rows]


def database(parameters: Parameters, **more: object) -> dict[str, Any]:
    size = f"{mib(parameters['shared_buffers'])}MiB"
    said = {"data": "/data/pg", "shared_buffers": size, "hot": 14, "hot_looks": 50, "looks": 2, "cpu_us": 50}
    return {"workload": "postgres", **said, "backend_memory": "1200KiB", "starting": "0s", **more}


def queried(parameters: Parameters, number: int, rate: int) -> World:
    """A server with full shared buffers whose connections are new: a backend had crashed, all came again, and were asked for a while."""
    db = database(parameters, workers=number, idle_connections=number, load=f"{rate}/s")
    world = world_of(2048, files={"/data/pg": DATA // PAGES}, cpu_profile="vm", tick_ms=TICK_MS, db=db)
    at = 0.0
    while int(work_of(world, "db")["slots"][pg.FILLED]) < int(work_of(world, "db")["slots"][pg.BUFFER_PAGES]):
        at += 0.5
        world.at(at)
    world.command(at, "load", task="db", rate_milli=0)
    world.command(at, "kill", task="db-child")
    world.at(at + 0.5)
    at += 0.5
    while len(clients(world)) < number:
        at += 0.1
        world.at(at)
    world.command(at, "load", task="db", rate_milli=1000 * rate)
    return world.at(at + MEASURED_S)


def backends(parameters: Parameters, measured: Mapping[str, Any]) -> Figures:
    world = queried(parameters, int(parameters["connections"]), round(float(measured["transactions_per_s"]["median"])))
    tasks = clients(world)
    kib = {name: [4 * int(task[name]) for task in tasks] for name in ("rss_anon", "rss_file", "rss_shmem", "pgtables")}
    rss = [sum(parts) for parts in zip(kib["rss_anon"], kib["rss_file"], kib["rss_shmem"], strict=True)]
    shared = 4 * int(world.row["shmem"]) + max(kib["rss_file"])  # once for all
    return {
        "shmem_per_backend_kib": median(kib["rss_shmem"]),
        "rss_per_backend_kib": median(rss),
        "rss_sum_kib": sum(rss),
        "pss_sum_kib": sum(kib["rss_anon"]) + shared,
        "page_tables_per_backend_kib": median(kib["pgtables"]),
        "page_tables_sum_kib": sum(kib["pgtables"]),
    }


def sort(parameters: Parameters) -> Figures:
    """How much a backend's resident memory rises while it sorts."""
    db = database(parameters, workers=1, idle_connections=1, load="1/s", work_mem=f"{mib(parameters['work_mem'])}MiB", sorts=100.0)
    world = world_of(2048, files={"/data/pg": 64}, cpu_profile="vm", db=db)
    least, most = 1 << 60, 0
    for tenth in range(30, 80):
        world.at(tenth / 10)
        for task in clients(world):
            least, most = min(least, int(task["rss_anon"])), max(most, int(task["hwm"]))
            rest = int(task["rss_file"]) + int(task["rss_shmem"])
    return {"spike_kib": 4 * (most - least - rest)}
