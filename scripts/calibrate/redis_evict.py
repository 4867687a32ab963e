# SPDX-License-Identifier: Apache-2.0
"""Redis as a cache with a limit: hit rate and evictions by policy, for keys asked for after Zipf's law.

`make measure PROGRAM=redis_evict`. A client asks for a key and, where it misses, sets it, as a cache beside a database is used. The
first half of the requests fills the cache; figures are of the second half. Beside the hit rates is that of a cache which always holds
the most popular keys, the best any policy could do.
"""

from __future__ import annotations

import bisect
import itertools
import random
from typing import Any

from scripts.calibrate.record import Run, record, repeated
from scripts.calibrate.redis_client import Client, command
from scripts.calibrate.redis_server import MIB, key, redis, version

KEYS, SIZE, SKEW = 100_000, 1024, 0.99
LIMIT_MIB = 40
REQUESTS = 300_000
BATCH = 50
POLICIES = ("allkeys-lru", "allkeys-lfu", "allkeys-random")


def zipf(keys: int, skew: float) -> list[float]:
    """Cumulative weights of ranks 1…keys, to be searched: P(rank r) ∝ r^−skew."""
    return list(itertools.accumulate(rank**-skew for rank in range(1, keys + 1)))


def ask(client: Client, requests: int, weights: list[float], draw: random.Random, value: bytes) -> float:
    """So many requests, a batch of GETs at a time and then SETs of what was missed; the share that hit."""
    hits = 0
    for _ in range(requests // BATCH):
        ranks = [bisect.bisect_left(weights, draw.random() * weights[-1]) for _ in range(BATCH)]
        answers = client.batch([command(b"GET", key(rank)) for rank in ranks])
        missed = {rank for rank, answer in zip(ranks, answers, strict=True) if answer is None}
        hits += sum(answer is not None for answer in answers)
        client.checked([command(b"SET", key(rank), value) for rank in sorted(missed)])
    return hits / requests


def evicting(policy: str) -> Run:
    weights = zipf(KEYS, SKEW)
    draw = random.Random(5)
    value = draw.randbytes(SIZE)
    with redis("--maxmemory", f"{LIMIT_MIB}mb", "--maxmemory-policy", policy) as server:
        ask(server.client, REQUESTS // 2, weights, draw, value)
        before = server.client.info("stats")
        ask(server.client, REQUESTS // 2, weights, draw, value)
        stats, memory = server.client.info("stats"), server.memory()
        resident = server.client.ask("DBSIZE")
        hits, misses, evicted = (int(stats[n]) - int(before[n]) for n in ("keyspace_hits", "keyspace_misses", "evicted_keys"))
        return {
            "resident_keys_count": resident,
            "hit_percent": 100 * hits / (hits + misses),
            "best_possible_hit_percent": 100 * weights[resident - 1] / weights[-1],
            "evicted_per_miss_ratio": evicted / misses,
            "used_memory_bytes": memory["used_memory_bytes"],
            "over_the_limit_bytes": memory["used_memory_bytes"] - LIMIT_MIB * MIB,
            "vmrss_bytes": memory["vmrss_bytes"],
        }


def noeviction() -> Run:
    """What a client is told when the limit is reached and nothing may be evicted."""
    with redis("--maxmemory", "5mb", "--maxmemory-policy", "noeviction") as server:
        value = random.Random(6).randbytes(SIZE)
        for number in itertools.count():
            answer = server.client.batch([command(b"SET", key(number), value)])[0]
            if isinstance(answer, Exception):
                used = server.memory()["used_memory_bytes"]
                return {
                    "answer": str(answer),
                    "keys_count": number,
                    "used_memory_bytes": used,
                    "get_still_hits": str(server.client.ask("GET", key(0)) is not None),
                }
    raise AssertionError("a limit of 5 MiB was never reached")


def measure() -> list[dict[str, Any]]:
    parameters = {"keys": KEYS, "value_bytes": SIZE, "zipf_skew": SKEW, "maxmemory_mib": LIMIT_MIB, "requests": REQUESTS}
    records = []
    for policy in POLICIES:
        runs = repeated(f"redis: maxmemory, {policy}", evicting, policy)
        records.append(record("redis", version(), "maxmemory", {**parameters, "policy": policy}, runs))
    runs = repeated("redis: noeviction", noeviction)
    records.append(record("redis", version(), "maxmemory reached", {"policy": "noeviction"}, runs))
    return records
