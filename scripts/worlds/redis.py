# SPDX-License-Identifier: Apache-2.0
"""A small host with a Redis drawn from a scenario's keys, and what its INFO would say.

r = redis_world(Redis(keys=2_000, load="100/s"), memory_mib=256).at(5)
r.info("used_memory")       a line of INFO, as redis-server names it
r.slot(LIVE)                a slot of the process
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleetsim.containers.redis import Redis
from fleetsim.host.shard import Shard
from fleetsim.host.spec import CgroupSpec, DiskSpec, HostSpec, TaskSpec
from fleetsim.linux import mm_types as mm
from fleetsim.workloads import redis_heap as heap
from fleetsim.workloads import redis_slots as slot
from scripts.worlds.host import MIB, World, in_bytes

NEVER: dict[str, list[list[int]]] = {"save": []}
"""It never saves."""
DISK = DiskSpec(bytes_per_s=500_000_000, latency_us=80.0)


@dataclass
class RedisWorld(World):
    """A world whose first task is `redis`, in the cgroup `box`."""

    @property
    def slots(self) -> Any:
        return self.row["works"][0]["slots"]

    @property
    def server(self) -> Any:
        return self.row["works"][0]["server"]

    def slot(self, number: int) -> int:
        return int(self.slots[number])

    def rss(self) -> int:
        """Bytes."""
        task = self.task("redis")
        return 4096 * int(task["rss_anon"] + task["rss_file"])

    def info(self, name: str) -> float:
        """A line of INFO (sections memory, persistence, stats)."""
        used, status = int(heap.used(self.slots)) + self.slot(slot.BUFFERED), self.slot(slot.STATUS)
        lines = {
            "used_memory": used,
            "used_memory_rss": self.rss(),
            "mem_fragmentation_ratio": self.rss() / used,
            "evicted_keys": self.slot(slot.EVICTED),
            "keyspace_hits": self.slot(slot.HIT_KEYS),
            "keyspace_misses": self.slot(slot.MISSED_KEYS),
            "latest_fork_usec": self.slot(slot.FORK_US),
            "rdb_last_cow_size": 4096 * self.slot(slot.COW_PAGES),
            "rdb_bgsave_in_progress": int(self.slot(slot.CHILD) > 0),
            "rdb_changes_since_last_save": self.slot(slot.CHANGES),
            "rdb_last_bgsave_ok": int(not status & 1),
        }
        return lines[name]


def redis_spec(
    redis: Redis, memory_mib: int = 256, limits: dict[str, int] | None = None, *, restart_s: float | None = None, **more: Any
) -> HostSpec:
    (process,) = redis.processes("redis")
    task = TaskSpec("redis", (), process.start_ns / mm.NS_PER_S, "box", restart_s=restart_s, work=process.work)
    box = CgroupSpec("box", "", {file: in_bytes(file, value) for file, value in (limits or {}).items()})
    more = {"cpus": 2, "thp": "never", "disk": DISK, **more}
    return HostSpec("host", memory_mib * MIB, cgroups=(box,), tasks=(task, *more.pop("tasks", ())), **more)


def redis_world(redis: Redis, memory_mib: int = 256, limits: dict[str, int] | None = None, **more: Any) -> RedisWorld:
    return RedisWorld(Shard([redis_spec(redis, memory_mib, limits, **more)], seed=1, tick_ns=200 * mm.NS_PER_MS))


def kinds(r: RedisWorld) -> list[str]:
    told = ("save_start", "save_end", "save_failed", "enomem", "oom_kill", "restart", "impact_start", "impact_end")
    return [f"{e.kind} {e.data['impact']}" if "impact" in e.data else e.kind for e in r.events(*told)]
