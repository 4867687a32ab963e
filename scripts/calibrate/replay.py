# SPDX-License-Identifier: Apache-2.0
"""The measured situations again, on simulated hosts (profile `vm`): the models' figures, under the records' names.

Leaves out: SETRANGE (the model's writes are SETs), saves without LZF, the churn of sizes (its keys have one size), latencies (the real ones
are those of a busy machine), heaps of 2 GiB.
Nothing here is random and no clock is read: a second run gives the same figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fleetsim.containers.redis import Redis
from fleetsim.workloads.redis_slots import CHILD, FORK_US, LIVE
from scripts.calibrate import replay_postgres as postgres
from scripts.calibrate.record import short
from scripts.worlds.jvm import FULL_AFTER_S, JvmWorld, alone, full_processor_ms, until_up, young_collection
from scripts.worlds.redis import RedisWorld, redis_world

Figures = dict[str, float]
Parameters = Mapping[str, Any]
MIB, GIB = 1 << 20, 1 << 30
SAVE_AT_S, FORK_AT_S = 15, 40
CALM_PER_S = 10  # commands in a save with no writers: GETs of one client
NEAR = 0.01  # so near the writes during a save come to the measured number
GC_THREADS = {"G1": 2, "Serial": 1}
COPIED_PERCENT = (10.0, 30.0)  # of eden that lives, for the line through young pauses


# ----------------------------------------------------------------------------------------------------------------- redis


def drawn(**keys: object) -> Redis:
    """As a scenario's words would draw it."""
    return Redis.model_validate(keys)


def a_redis(redis: Redis, memory_mib: int, thp: str = "never") -> RedisWorld:
    """The measured machine is a virtual one."""
    return redis_world(redis, memory_mib, thp=thp, cpu_profile="vm")


def dataset(parameters: Parameters) -> Figures:
    keys, size = int(parameters["keys"]), int(parameters["value_bytes"])
    empty, full = (
        a_redis(drawn(keys=keys, loaded=loaded, value=f"{size}B", save=[]), 1024).at(20)  # loaded by then
        for loaded in (0.0, 100.0)
    )
    rss = full.rss()
    return {
        "used_memory_bytes": full.info("used_memory"),
        "vmrss_bytes": rss,
        "rss_per_key_bytes": (rss - empty.rss()) / keys,
    }


def deletion(parameters: Parameters) -> Figures:
    size, share = int(parameters["value_bytes"]), float(parameters["deleted_percent"])
    redis = drawn(keys=parameters["keys"], value=f"{size}B", delete={"at": "20s", "share": share}, save=[])
    world = a_redis(redis, 512).at(19.9)
    full = world.rss()
    world.at(20 + 12)
    return {
        "full_vmrss_bytes": full,
        "at_12s_vmrss_bytes": world.rss(),
        "at_12s_fragmentation_ratio": world.info("mem_fragmentation_ratio"),
    }


def fork(parameters: Parameters) -> Figures:
    """A fork's time, which is processor time."""
    keys = int(parameters["data_mib"]) * MIB // (4096 + 100)
    huge = bool(parameters["huge_pages"])
    redis = drawn(keys=keys, value="4KiB", save=[[FORK_AT_S, 0]], disable_thp=not huge)
    world = a_redis(redis, 8192, thp="always" if huge else "never").at(FORK_AT_S - 1)
    rss = world.rss()
    at = float(FORK_AT_S)
    while world.slot(FORK_US) == 0:
        at += 0.25
        world.at(at)
    fork_us = world.info("latest_fork_usec")
    return {"vmrss_bytes": rss, "command_processor_per_gib_us": fork_us * GIB / rss, "fork_us": fork_us}


def save_at(rate: int, parameters: Parameters) -> tuple[Figures, float]:
    """One save under so many commands a second, and how many SETs came meanwhile."""
    size, writing = int(parameters["value_bytes"]), parameters["writes_per_s"] > 0
    redis = drawn(
        keys=parameters["keys"],
        value=f"{size}B",
        load=f"{rate}/s",
        write_share=100.0 if writing else 0.0,
        save=[[SAVE_AT_S, 0]],
        commands_per_s=1_000_000,
        disable_thp=not parameters["huge_pages"],
    )
    world = a_redis(redis, 4096, thp="always" if parameters["huge_pages"] else "never").at(SAVE_AT_S - 0.5)
    rss, used, at = world.rss(), world.info("used_memory"), SAVE_AT_S - 0.5
    child = None
    while not (ends := world.events("save_end")):
        at += 0.25
        world.at(at)
        if child is None and world.slot(CHILD):
            child = world.task("redis-child")
    assert child is not None
    told: Mapping[str, Any] = ends[0].data
    cow, processor = float(told["cow_bytes"]), (int(child["utime_ns"]) + int(child["stime_ns"])) / 1e9
    figures = {
        "save_per_gib_s": float(told["seconds"]) * GIB / used,
        "save_processor_per_gib_s": processor * GIB / used,
        "cow_bytes": cow,
        "cow_of_rss_percent": 100 * cow / rss,
    }
    return figures, world.info("rdb_changes_since_last_save")


def save(parameters: Parameters, measured: Mapping[str, Any]) -> Figures:
    """COW follows from how many SETs came during the save: the pace is chosen so that as many come as came in the real one's."""
    goal = float(measured["writes_count"]["median"])
    figures, during = save_at(CALM_PER_S, parameters)
    rate = goal / (figures["save_per_gib_s"] / 2)
    for _ in range(8 if goal else 0):
        figures, during = save_at(round(rate), parameters)
        if abs(during - goal) <= NEAR * goal:
            break
        rate *= goal / during
    return {**figures, "writes_count": during}


def maxmemory(parameters: Parameters) -> Figures:
    world = a_redis(
        drawn(
            keys=parameters["keys"],
            value=f"{int(parameters['value_bytes'])}B",
            skew=parameters["zipf_skew"],
            maxmemory=f"{int(parameters['maxmemory_mib'])}MiB",
            maxmemory_policy=parameters["policy"],
            fill_misses=True,
            write_share=0.0,
            loaded=0.0,
            load="5000/s",
            save=[],
        ),
        512,
    )
    half = int(parameters["requests"]) / 2 / 5000
    counts = [[world.at(s).info(f"keyspace_{kind}") for kind in ("hits", "misses")] for s in (half, 2 * half)]
    hits, misses = (later - earlier for earlier, later in zip(*counts, strict=True))
    return {
        "hit_percent": 100 * hits / (hits + misses),
        "resident_keys_count": world.slot(LIVE),
        "used_memory_bytes": world.info("used_memory"),
        "vmrss_bytes": world.rss(),
    }


# ------------------------------------------------------------------------------------------------------------------- jvm


def load(parameters: Parameters, measured: Mapping[str, Any]) -> Figures:
    jvm = alone(parameters["collector"].lower(), parameters["live_mib"], parameters["alloc_mib_per_s"], parameters["survive_percent"])
    at = until_up(jvm)
    young_ones = (JvmWorld.YOUNG, JvmWorld.MIXED)  # as the measurement counts them
    filled, before, paused = jvm.rss_mib(), jvm.count(*young_ones), jvm.pause_s(*young_ones)
    jvm.at(at + FULL_AFTER_S)
    young = jvm.count(*young_ones) - before
    processor = 1000 * GC_THREADS[parameters["collector"]] * (jvm.pause_s(*young_ones) - paused)
    return {
        "young_per_s": young / FULL_AFTER_S,
        "young_processor_mean_ms": processor / max(1, young),
        "filled_rss_kib": 1024 * filled,
        "done_rss_kib": 1024 * jvm.rss_mib(),
        "last_full_processor_ms": full_processor_ms(
            parameters["collector"] == "G1",
            float(measured["last_full_left_mib"]["median"]),
            FULL_AFTER_S * parameters["alloc_mib_per_s"] * parameters["survive_percent"] / 100,
        ),
    }


def pause_fit(parameters: Parameters) -> Figures:
    """The line through two young collections of large edens, whatever G1 made of its eden on the busy machine."""
    kind = parameters["collector"]
    points = []
    for percent in COPIED_PERCENT:
        copied, pause_s = young_collection(alone(kind.lower(), 100, 100, percent, xms="1GiB"), percent)
        points.append((copied, 1000 * GC_THREADS[kind] * pause_s))
    (few, short_ms), (many, long_ms) = points
    slope = (long_ms - short_ms) / (many - few)
    ends = {"few_copied_mib": few, "few_processor_ms": short_ms, "many_copied_mib": many, "many_processor_ms": long_ms}
    return {"young_processor_per_copied_mib_ms": slope, **ends}


def at_start(parameters: Parameters) -> Figures:
    jvm = alone(parameters["collector"].lower(), 1, 1, 0.0, workers=1, threads=parameters["threads"])
    until_up(jvm)
    return {"rss_kib": 1024 * jvm.rss_mib()}


# ----------------------------------------------------------------------------------------------------------------- all of it

SITUATIONS: dict[tuple[str, str], Callable[[Parameters, Mapping[str, Any]], Figures]] = {
    ("redis", "dataset"): lambda parameters, _: dataset(parameters),
    ("redis", "mass deletion"): lambda parameters, _: deletion(parameters),
    ("redis", "fork"): lambda parameters, _: fork(parameters),
    ("redis", "save under writes"): save,
    ("redis", "maxmemory"): lambda parameters, _: maxmemory(parameters),
    ("jvm", "load"): load,
    ("jvm", "pause fit"): lambda parameters, _: pause_fit(parameters),
    ("jvm", "at start"): lambda parameters, _: at_start(parameters),
    ("postgres", "backends"): postgres.backends,
    ("postgres", "sort"): lambda parameters, _: postgres.sort(parameters),
    ("postgres", "page cache"): postgres.page_cache,
    ("postgres", "writes"): lambda parameters, _: postgres.writes(parameters),
}


def modelled(parameters: Parameters) -> bool:
    """Whether the model can be put into the situation (see what this file leaves out)."""
    default = parameters.get("command", "SET") == "SET" and parameters.get("rdbcompression", True)
    fits = parameters.get("connections", 0) <= postgres.CONNECTIONS_MAX
    return bool(default) and fits and (parameters.get("heap_mib", 1024) == 1024)


def replay(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """The model's record of what an entry measured; None where there is no model of it."""
    situation = SITUATIONS.get((entry["program"], entry["measurement"]))
    if situation is None or not modelled(entry["parameters"]):
        return None
    found = situation(entry["parameters"], entry["figures"])
    figures = {name: short(float(value)) for name, value in found.items()}
    return {**{key: entry[key] for key in ("program", "measurement", "parameters")}, "figures": figures}
