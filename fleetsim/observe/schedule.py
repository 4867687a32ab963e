# SPDX-License-Identifier: Apache-2.0
"""When a target is scraped: its own offset inside the interval, and now and then a little late.

Rules, as in Prometheus: the offset is a hash of the target's labels and a seed (there: of the server), pinned to absolute
time, so that no target moves when another comes or goes; a tick that comes at most 2 ms late is written down at its due
time (`scrape.ScrapeTimestampTolerance`), a later one at the time it came.
And one rule of our own: no sample ever lies on a whole second. Rules are judged on whole seconds, and samples on the
grid of the evaluation make rules fire that never fire in production (measured: `increase(oom_kill[1m])` at 60 s scrapes).
Times are int64 milliseconds of whatever clock the caller uses; nothing here reads one.
Leaves out: a Prometheus so overloaded that it skips a tick.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fleetsim.errors import BadInput

LATENESS_MS = 16  # a tick is 0..15 ms late, evenly spread
TOLERANCE_MS = 2  # … and not seen to be if at most this late
_MS = 1000

_WEYL = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def target_hash(target_key: str, seed: int) -> int:
    """64 bits of luck that belong to this target alone."""
    return int.from_bytes(hashlib.blake2b(f"scrape {seed} {target_key}".encode(), digest_size=8).digest(), "big")


def offset_ms(target_key: str, seed: int, interval_ms: int) -> int:
    """The target's place inside the interval: never so near a whole second that lateness could reach it."""
    luck = target_hash(target_key, seed)
    seconds, luck = luck % (interval_ms // _MS), luck >> 24
    return seconds * _MS + 1 + luck % (_MS - LATENESS_MS)


def schedule(target_key: str, seed: int, start_ms: int, until_ms: int, interval_ms: int) -> NDArray[np.int64]:
    """The target's scrape times in [start_ms, until_ms), rising. Two windows that touch give what one window would.

    scrape k is due at k · interval + offset; lateness is a hash of (seed, target, k).
    """
    if interval_ms <= 0 or interval_ms % _MS:
        raise BadInput(f"a scrape interval of {interval_ms} ms cannot be used; whole seconds from 1 s on can")
    offset = offset_ms(target_key, seed, interval_ms)
    first = (start_ms - offset - LATENESS_MS) // interval_ms
    number = np.arange(first, (until_ms - offset) // interval_ms + 1, dtype=np.int64)
    late = (_splitmix64(number.astype(np.uint64), target_hash(target_key, seed)) % np.uint64(LATENESS_MS)).astype(np.int64)
    late[late <= TOLERANCE_MS] = 0
    times = number * interval_ms + offset + late
    return times[(times >= start_ms) & (times < until_ms)]


def _splitmix64(counter: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """Counter-based random bits (Steele, Lea & Flood 2014): the k-th draw without the ones before it."""
    z = (counter + np.uint64(1)) * np.uint64(_WEYL) + np.uint64(key & _MASK)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
