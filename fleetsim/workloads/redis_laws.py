# SPDX-License-Identifier: Apache-2.0
"""Redis in formulas: what its data takes, which of its keys are there, when it saves.

Leaves out: keys with values of different sizes, types other than strings, expiry by time, the second table of a dict while it grows.
Source: Redis 7.0 dict.c, zmalloc.c, evict.c, server.c; measured in tests/ground_truth/calibration.
"""

from __future__ import annotations

from fleetsim.allocators.jemalloc_decay import SMOOTHSTEP_BITS
from fleetsim.allocators.slab_laws import ONE, decay_share, empty_share
from fleetsim.law import ONE_Q, Q, law

PAGE = 4096
USED_AT_START = 900_000  # used_memory of an empty server (measured)
NS_PER_S = 1_000_000_000
RETRY_NS = 5 * NS_PER_S  # CONFIG_BGSAVE_RETRY_DELAY
DECAY_MS = 10_000  # jemalloc's dirty_decay_ms
HIT_POINTS = 9


@law
def table_bytes(keys):
    """Bytes of the dict's table for so many keys: a pointer for each of the next power of two.

    Source: dict.c _dictExpandIfNeeded, _dictNextExp.
    """
    buckets = 4
    while buckets < keys:
        buckets *= 2
    return 8 * buckets


@law
def used_memory(keys, bytes_per_key):
    """used_memory: what zmalloc has given out.

    Source: zmalloc.c (sums of size classes); 0.9 MB of the server's own (measured).
    """
    return USED_AT_START + keys * bytes_per_key + table_bytes(keys)


@law
def slabs_for(keys, regions):
    """Slabs that hold `keys` values, `regions` each.

    Source: jemalloc's src/arena.c arena_slab_alloc.
    """
    return (keys + regions - 1) // regions


@law
def slabs_left(slabs, regions, live, freed):
    """Slabs that still hold something when `freed` of `live` values are freed at random.

        slabs · (1 − f^regions),   f the share of regions that is free then

    Source: independent chances (allocators/slab_laws.py empty_share). Leaves out: that none was empty before.
    """
    if live <= freed:
        return 0
    free_q = ((slabs * regions - (live - freed)) << 30) // max(1, slabs * regions)
    left = slabs - (slabs * empty_share(min(ONE, free_q), regions) >> 30)
    return max(left, slabs_for(live - freed, regions))


@law
def pool_left(pages, age_ns):
    """Of `pages` pages of slabs freed `age_ns` ago so many are still resident.

    Source: jemalloc's src/decay.c (dirty_decay_ms 10 s; the cron of Redis keeps its ticks going).
    """
    return pages * decay_share(age_ns, DECAY_MS) >> SMOOTHSTEP_BITS


@law
def hit_point(packed, k):
    """The `k`th of three shares that a slot holds, 2^20ths.

    Source: fleetsim's own packing.
    """
    return packed >> 21 * k & ((1 << 21) - 1)


@law
def hit_share(first, second, third, live, keys):
    """Share of commands that ask for a key which is there, when `live` of `keys` keys are, 2^20ths.

        a line between the points at 2^-8, 2^-7 … 1 of the keys, and 0

    first, second, third  int64  the points from 1 downwards, packed (hit_point)

    Source: containers/redis_hits.py computes the points (Che's approximation).
    """
    if live <= 0 or keys <= 0:
        return 0
    if live >= keys:
        return ONE_Q
    k, upper = 0, keys
    while k < HIT_POINTS - 1 and live * 2 <= upper:
        upper = (upper + 1) // 2
        k += 1
    lower = (upper + 1) // 2 if k < HIT_POINTS - 1 else 0
    at = hit_point(first if k < 3 else second if k < 6 else third, k % 3)
    below = 0
    if k < HIT_POINTS - 1:
        below = hit_point(first if k < 2 else second if k < 5 else third, (k + 1) % 3)
    return below + (at - below) * (live - lower) // max(1, upper - lower)


@law
def save_due(point, changes, since_ns):
    """True if a save point asks for a save: more than so many seconds have passed, with at least so many changes.

    point  int64  seconds · 2^32 + changes, 0: none

    Source: server.c serverCron.
    """
    return point > 0 and changes >= (point & 0xFFFFFFFF) and since_ns > (point >> 32) * NS_PER_S


@law
def share_q(count, part_q):
    """`count` · share, rounded down.

    part_q  int64  2^20ths

    Source: arithmetic.
    """
    return count * part_q >> Q
