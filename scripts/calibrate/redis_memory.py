# SPDX-License-Identifier: Apache-2.0
"""Redis in memory: bytes per key by size of value, what stays resident after mass deletion, and fragmentation by churn.

`make measure PROGRAM=redis_memory`. Nothing is saved, so no fork disturbs. After a deletion jemalloc gives freed pages back over
dirty_decay_ms (10 s), which the watch is long enough to see.
"""

from __future__ import annotations

import random
import time
from typing import Any

from scripts.calibrate.record import Run, record, repeated
from scripts.calibrate.redis_client import command
from scripts.calibrate.redis_server import key, load, redis, version

DATASETS = ((500_000, 16), (1_000_000, 100), (200_000, 1024), (60_000, 4096), (10_000, 32_768))
DELETIONS = ((400_000, 100, 50), (400_000, 100, 90), (100_000, 1024, 90))
CHURNS = ((200, 20, 600), (600, 20, 100))  # bytes at first; then uniform between two
WATCH_S = (0, 1, 2, 5, 8, 12)


def empty() -> Run:
    with redis() as server:
        return server.memory()


def dataset(keys: int, size: int) -> Run:
    """What N keys of S bytes take: beyond key and value, per key, as Redis counts it and as the kernel does."""
    with redis() as server:
        before = server.memory()
        load(server.client, keys, size)
        after = server.memory()
        payload = len(key(0)) + size
        figures = {name: after[name] for name in after}
        figures["used_per_key_bytes"] = (after["used_memory_bytes"] - before["used_memory_bytes"]) / keys
        figures["overhead_per_key_bytes"] = figures["used_per_key_bytes"] - payload
        figures["rss_per_key_bytes"] = (after["vmrss_bytes"] - before["vmrss_bytes"]) / keys
        figures["memory_usage_command_bytes"] = float(server.client.ask("MEMORY", "USAGE", key(keys // 2)))
        return figures


def deletion(keys: int, size: int, percent: int) -> Run:
    """RSS against used memory from the moment of a mass deletion at random on."""
    with redis() as server:
        load(server.client, keys, size)
        full = server.memory()
        gone = random.Random(2).sample(range(keys), keys * percent // 100)
        server.client.pipeline(command(b"DEL", key(number)) for number in gone)
        figures: dict[str, float] = {"full_used_memory_bytes": full["used_memory_bytes"], "full_vmrss_bytes": full["vmrss_bytes"]}
        began = time.monotonic()
        for second in WATCH_S:
            time.sleep(max(0.0, began + second - time.monotonic()))
            now = server.memory()
            figures[f"at_{second}s_vmrss_bytes"] = now["vmrss_bytes"]
            figures[f"at_{second}s_fragmentation_ratio"] = now["vmrss_bytes"] / now["used_memory_bytes"]
        figures["end_used_memory_bytes"] = now["used_memory_bytes"]
        figures["end_allocator_frag_ratio"] = now["allocator_active_bytes"] / now["allocator_allocated_bytes"]
        return figures


def churn(keys: int, size: int, low: int, high: int, rounds: int) -> Run:
    """Random keys get values of other sizes, uniform in [low, high]; after each round of `keys` updates: the ratios."""
    with redis() as server:
        load(server.client, keys, size)
        draw = random.Random(3)
        pool = draw.randbytes(high)
        figures: dict[str, float] = {}
        for round_number in range(rounds + 1):
            if round_number:
                server.client.pipeline(command(b"SET", key(draw.randrange(keys)), pool[: draw.randint(low, high)]) for _ in range(keys))
                time.sleep(2)
            now = server.memory()
            figures[f"round_{round_number}_used_memory_bytes"] = now["used_memory_bytes"]
            figures[f"round_{round_number}_fragmentation_ratio"] = now["vmrss_bytes"] / now["used_memory_bytes"]
            figures[f"round_{round_number}_allocator_frag_ratio"] = now["allocator_active_bytes"] / now["allocator_allocated_bytes"]
        return figures


def measure() -> list[dict[str, Any]]:
    records = [record("redis", version(), "empty server", {}, repeated("redis: empty", empty))]
    for keys, size in DATASETS:
        runs = repeated(f"redis: {keys} keys of {size} bytes", dataset, keys, size)
        records.append(record("redis", version(), "dataset", {"keys": keys, "value_bytes": size}, runs))
    for keys, size, percent in DELETIONS:
        runs = repeated(f"redis: {percent} % of {keys} keys of {size} bytes deleted", deletion, keys, size, percent)
        records.append(record("redis", version(), "mass deletion", {"keys": keys, "value_bytes": size, "deleted_percent": percent}, runs))
    for size, low, high in CHURNS:
        parameters = {"keys": 200_000, "value_bytes": size, "new_bytes_min": low, "new_bytes_max": high, "rounds": 3}
        runs = repeated(f"redis: churn from {size} bytes", churn, 200_000, size, low, high, 3)
        records.append(record("redis", version(), "churn", parameters, runs))
    return records
