# SPDX-License-Identifier: Apache-2.0
"""What the exact simulators of libraries have in common: a trace replayed up to each sample, with tables that grow when they must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from fleetsim.allocators.trace import SAMPLE, Progress, Trace, sampling

H = TypeVar("H")


@dataclass(frozen=True)
class Steps(Generic[H]):
    """How one library's heap is replayed and looked at."""

    ops: Callable[[H, np.ndarray, np.ndarray, np.ndarray, int, int], int]  # the law: → the op before which the tables must grow
    roomier: Callable[[H, Any, str], H]  # (heap, the op, what messages call it) → the same heap with more rows
    sample: Callable[[H, int], tuple[int, ...]]  # (heap, ops done) → a row of SAMPLE
    stats: Callable[[H], tuple[int, ...]]  # a row of the library's own numbers


def replay_steps(
    heap: H, trace: Trace, steps: Steps[H], every: int, addresses: bool, progress: Progress | None
) -> tuple[np.ndarray, list[tuple[int, ...]], np.ndarray, np.ndarray]:
    """(samples, the library's numbers at the same instants, addresses, usable bytes): see trace.Replay."""
    ops, step = trace.ops, sampling(trace, every)
    told = np.full(len(ops) if addresses else 0, -1, np.int64)
    usable = np.zeros(len(told), np.int64)
    samples: list[tuple[int, ...]] = []
    stats: list[tuple[int, ...]] = []
    done = 0
    while done < len(ops) or not samples:
        stop = min(len(ops), done + step)
        while done < stop:
            done = int(steps.ops(heap, ops, told, usable, done, stop))
            if done < stop:
                heap = steps.roomier(heap, ops[done], f"{trace.source}: op {done + 1}")
        samples.append(steps.sample(heap, done))
        stats.append(steps.stats(heap))
        if progress:
            progress(done / max(1, len(ops)))
    return np.array(samples, SAMPLE), stats, told, usable
