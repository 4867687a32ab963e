# SPDX-License-Identifier: Apache-2.0
"""The `redis` workload in a pod: a Redis 7.0 with so many keys, its limits and its save points (its laws: `fleetsim/workloads/redis.py`).

What a key takes follows from jemalloc's size classes: a dictEntry of 24 bytes, the key as an sds, and the value: up to 44 bytes in one
block with its object, above that an object of 16 bytes and an sds.
Leaves out: values of several sizes, types other than strings.
Source: Redis 7.0 dict.h, sds.h, object.c (OBJ_ENCODING_EMBSTR_SIZE_LIMIT), rdb.c; jemalloc 5.3 sc.h.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleetsim.allocators.jemalloc_sizes import REGIONS, SIZE_OF, SLAB_PAGES, SMALL_CLASSES, size_class
from fleetsim.containers.redis_hits import hit_slots
from fleetsim.containers.workload import ANYWHERE, PAGE, WORKLOADS, Process, Room, ServerWorkload
from fleetsim.host.spec import Work
from fleetsim.units import ByteRate, Duration, PositiveSize, Size
from fleetsim.workloads.redis_heap import BASE_PAGES, DESCRIPTION
from fleetsim.workloads.redis_laws import table_bytes
from fleetsim.workloads.redis_log import REWRITE_MIN
from fleetsim.workloads.redis_slots import ALLKEYS, DISABLE_THP, FILL_MISSES, NO_EVICTION, OOM_SCORE_ADJ, STOP_WRITES, VOLATILE

Policy = Literal[
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
]
EVICTS = {"noeviction": NO_EVICTION, "allkeys": ALLKEYS, "volatile": VOLATILE}
ONE_Q = 1 << 20
EMBEDDED_MAX = 44
DICT_ENTRY, OBJECT = 24, 16
SAVE_POINTS_MAX = 3
SAVE_MAX = 1 << 30
SavePoint = Annotated[list[int], Field(min_length=2, max_length=2)]


def class_bytes(request: int) -> int:
    return int(SIZE_OF[size_class(request)])


def sds_bytes(length: int, *, short: bool = False) -> int:
    """Header, characters and the zero at the end; keys may have the shortest header."""
    if short and length < 32:
        return 1 + length + 1
    return (3 if length < 256 else 5 if length < 65_536 else 9) + length + 1


def pages_touched(size: int, block: int, slab_pages: int, regions: int) -> float:
    """Pages that writing the first `size` bytes of a region touches, on average over a slab's regions of `block` bytes."""
    spans = [(k * block + size - 1) // PAGE - k * block // PAGE + 1 for k in range(regions)]
    return sum(spans) / len(spans)


class Deletion(BaseModel):
    """Keys that are deleted all at once, such as those of a tenant who left."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    at: Duration = Field(description="when, counted from the boot of the host, such as 10m")
    share: float = Field(description="percent of the keys, any of them", gt=0, le=100)


@WORKLOADS.register("redis")
class Redis(ServerWorkload):
    """A Redis: keys in memory, commands of one thread, eviction, and saves by a forked child whose writes the parent pays in memory."""

    workers: int = Field(1, description="commands at the same time: Redis has one thread for them", ge=1, le=1)
    queue: int = Field(10_000, description="commands that may wait; more are refused (maxclients)", ge=0, le=1_000_000)
    keys: int = Field(1_000_000, description="keys that its clients ask for", ge=1, le=1 << 32)
    loaded: float = Field(100.0, description="percent of them that are there when it starts", ge=0, le=100)
    value: PositiveSize = Field(1024, description="size of a value", le=128 << 20)
    key_length: int = Field(14, description="characters of a key", ge=1, le=255)
    write_share: float = Field(10.0, description="percent of the commands that set a key; the others get one", ge=0, le=100)
    skew: float = Field(
        0.0, description="popularity of keys: the r-th in proportion to r^-skew (0: all alike, 0.99: as on the web)", ge=0, le=2
    )
    fill_misses: bool = Field(False, description="clients set what they did not find (a cache)")
    commands_per_s: int = Field(100_000, description="commands that one CPU manages in a second", ge=1, le=10_000_000)
    maxmemory: Size = Field(0, description="used_memory above which it evicts or refuses (0: none)")
    maxmemory_policy: Policy = Field("noeviction", description="what it evicts then")
    volatile: float = Field(100.0, description="percent of the keys that have an expiry, for volatile-*", ge=0, le=100)
    save: list[SavePoint] = Field(
        [[3600, 1], [300, 100], [60, 10_000]],
        description="save points: after so many seconds, if so many keys were changed; none: it never saves",
        max_length=SAVE_POINTS_MAX,
    )
    save_rate: ByteRate = Field(160 << 20, description="bytes of a dump that a child makes in a second of processor time")
    appendonly: bool = Field(False, description="every write is appended to a file as well, which a child rewrites when it doubled")
    dir: str = Field("", description="where its dump is written (default: /data/ and the pod's name)")
    stop_writes_on_bgsave_error: bool = Field(True, description="refuse writes while saves fail")
    oom_score_adj: bool = Field(False, description="its child gets 800 points more, so that the kernel kills it and not the server")
    disable_thp: bool = Field(True, description="no transparent huge pages for it, whatever the host says")
    delete: Deletion | None = Field(None, description="a mass deletion, such as {at: 10m, share: 90}")
    full_sync: Duration = Field(0, description="a replica asks for everything every so often, such as 10m (0: never)")
    sync_rate: ByteRate = Field(100 << 20, description="bytes a second that a replica takes, its disk and the network considered")
    replica_buffer: PositiveSize = Field(256 << 20, description="client-output-buffer-limit of a replica: more waiting, and it is dropped")
    latency_monitor_threshold: Duration = Field(0, description="forks that stop it for as long are told in the history (0: never)")

    @model_validator(mode="after")
    def _possible(self) -> Redis:
        for seconds, changes in self.save:
            if not (1 <= seconds <= SAVE_MAX and 0 <= changes <= SAVE_MAX):
                raise ValueError(f"'save' has the point [{seconds}, {changes}]; write [seconds, changes], such as [300, 100]")
        if self.dir and not re.fullmatch(r"(/[^/\s]+)+", self.dir):
            raise ValueError(f"'dir' is {self.dir!r}; write an absolute path, such as /data")
        if 0 < self.maxmemory < 2 << 20:
            raise ValueError("'maxmemory' is less than an empty Redis takes; write 2MiB or more, or 0 for none")
        return self

    @property
    def embedded(self) -> bool:
        return self.value <= EMBEDDED_MAX

    def value_class(self) -> tuple[int, int, int, int]:
        """(bytes asked for, size class, regions of a slab, its pages) of a value."""
        asked = OBJECT + sds_bytes(self.value) if self.embedded else sds_bytes(self.value)
        k = int(size_class(asked))
        if k < SMALL_CLASSES:
            return asked, int(SIZE_OF[k]), int(REGIONS[k]), int(SLAB_PAGES[k])
        return asked, int(SIZE_OF[k]), 1, int(SIZE_OF[k]) // PAGE

    def structures(self) -> tuple[int, int]:
        """Bytes of a key's structures: (where a SET writes, where it only reads)."""
        entry, key = class_bytes(DICT_ENTRY), class_bytes(sds_bytes(self.key_length, short=True))
        if self.embedded:
            return entry, key
        shared = key == class_bytes(OBJECT)
        return entry + class_bytes(OBJECT) + (key if shared else 0), 0 if shared else key

    def values(self, path: str) -> dict[str, int | str]:
        asked, block, regions, slab_pages = self.value_class()
        written, read = self.structures()
        policy, _, way = self.maxmemory_policy.partition("-")
        hits = hit_slots(self.keys, self.skew, way in ("random", "ttl"))
        points = [(seconds << 32) + changes for seconds, changes in self.save] + [0] * SAVE_POINTS_MAX
        flags = EVICTS[policy] | DISABLE_THP * self.disable_thp | STOP_WRITES * self.stop_writes_on_bgsave_error
        looks = round(1024 * pages_touched(asked, block, slab_pages, regions))
        return {
            "keys": self.keys,
            "loaded": int(self.keys * self.loaded / 100),
            "flags": flags | FILL_MISSES * self.fill_misses | OOM_SCORE_ADJ * self.oom_score_adj,
            "written_bytes": written,
            "read_bytes": read,
            "value_bytes": block,
            "slab": (regions << 16) + slab_pages,
            "looks": (looks << 16) + (1 if self.embedded else 2),
            "rdb_bytes": self.value + self.key_length + 4,
            "write_q": round(ONE_Q * self.write_share / 100),
            "cpu_ns": 1_000_000_000 // self.commands_per_s,
            "maxmemory": self.maxmemory,
            "volatile_q": round(ONE_Q * self.volatile / 100),
            "hits_0": hits[0],
            "hits_1": hits[1],
            "hits_2": hits[2],
            "save_0": points[0],
            "save_1": points[1],
            "save_2": points[2],
            "save_rate": self.save_rate,
            "dump": f"{path}/dump.rdb" if self.save or self.appendonly else -1,
            "temp": f"{path}/temp.rdb" if self.save or self.appendonly else -1,
            "delete_ns": 0 if self.delete is None else self.delete.at,
            "delete_q": 0 if self.delete is None else round(ONE_Q * self.delete.share / 100),
            "sync_ns": self.full_sync,
            "latency_ns": self.latency_monitor_threshold,
            "sync_rate": self.sync_rate,
            "buffer_bytes": self.replica_buffer,
            "log": f"{path}/appendonly.aof" if self.appendonly else -1,
        }

    def processes(self, pod: str, room: Room = ANYWHERE) -> tuple[Process, ...]:
        path = self.dir or f"/data/{pod}"
        values = self.values(path)
        _, block, regions, slab_pages = self.value_class()
        written, read = self.structures()
        keys = self.keys if not self.maxmemory else min(self.keys, self.maxmemory // (written + read + block) + 1)
        slabs = math.ceil(keys / regions)
        described = (keys * (written + read) // PAGE + slabs) * DESCRIPTION
        areas = [
            keys * written // PAGE + 1,
            BASE_PAGES + (int(table_bytes(keys)) + keys * read + described) // PAGE + 1,
            slabs * slab_pages,
        ]
        forked = [areas[0], areas[2]]  # what it writes to while its child runs is copied into groups of the same size
        dump = keys * int(values["rdb_bytes"]) // PAGE + 2
        files = [(str(values[name]), dump, 0) for name in ("dump", "temp")] if self.save or self.appendonly else []
        if self.appendonly:
            files.append((str(values["log"]), 2 * dump + REWRITE_MIN // PAGE, 0))
        mapped = [(pages, True) for pages in areas]
        mapped += [(self.replica_buffer // PAGE + 1, False)] if self.full_sync else []
        work = Work(
            "redis",
            values,
            self.requests,
            tuple(mapped),
            files=tuple(files),
            children=1,
            inherits=len(areas),
            on_top=tuple((pages, True) for pages in forked),
        )
        return (Process(pod, start_ns=self.start, work=work),)
