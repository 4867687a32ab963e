# SPDX-License-Identifier: Apache-2.0
"""What servers had done for their users by an instant: counters and latencies, read from a kept state of their hosts.

Rules: counters run from the boot of a host, so what happened in between is the difference of two readings; a server that has begun anew
meanwhile (its counters are lower) counts from zero. A percentile is interpolated inside its bucket, as histogram_quantile() does, and is
the last bound if it lies above that.
Leaves out: single requests (hosts count them by bucket).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fleetsim.fleet.checkpoint import cut_of, shard_file
from fleetsim.fleet.state_file import read_state
from fleetsim.host.state import HOST
from fleetsim.workloads.arrivals import LE_MS, NR_BUCKETS

COUNTS = ("arrived", "served", "late", "refused", "timed_out", "broken")


@dataclass(frozen=True)
class Requests:
    """`buckets`: requests served, by the bound of LE_MS that they kept; `slo_ns` 0: no objective."""

    counts: tuple[int, ...] = (0,) * len(COUNTS)
    buckets: tuple[int, ...] = (0,) * NR_BUCKETS
    slo_ns: int = 0
    late_permille: int = 0

    def count(self, name: str) -> int:
        return self.counts[COUNTS.index(name)]

    @property
    def failed(self) -> int:
        return self.count("refused") + self.count("timed_out") + self.count("broken")

    def since(self, before: Requests) -> Requests:
        """What came after `before` was read."""
        if any(now < then for now, then in zip((*self.counts, *self.buckets), (*before.counts, *before.buckets), strict=True)):
            return self
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        buckets = tuple(now - then for now, then in zip(self.buckets, before.buckets, strict=True))
        return Requests(counts, buckets, self.slo_ns, self.late_permille)

    def quantile_ms(self, q: float) -> float | None:
        """Milliseconds that the share `q` of the answers did not exceed; None: there was no answer."""
        total = sum(self.buckets)
        if not total:
            return None
        rank, below = q * total, 0
        for k, bound in enumerate(LE_MS):
            if below + self.buckets[k] >= rank and self.buckets[k]:
                low = LE_MS[k - 1] if k else 0
                return low + (bound - low) * (rank - below) / self.buckets[k]
            below += self.buckets[k]
        return float(LE_MS[-1])


Served = Mapping[tuple[str, str], Requests]
"""By (host, pod; the task of a server that is in none)."""


def total(parts: Iterable[Requests]) -> Requests:
    """All of them together; the objective is that of the first which has one."""
    every = [*parts, Requests()]
    objective = next((one for one in every if one.slo_ns), Requests())
    return Requests(
        tuple(sum(column) for column in zip(*(one.counts for one in every), strict=True)),
        tuple(sum(column) for column in zip(*(one.buckets for one in every), strict=True)),
        objective.slo_ns,
        objective.late_permille,
    )


def served_in(state: Path) -> dict[tuple[str, str], Requests]:
    """What every server of the hosts in a kept state has done."""
    found: dict[tuple[str, str], list[Requests]] = {}
    for first, count in cut_of(state):
        shard = read_state(state / shard_file(first, count))["run"]["shard"]
        records = np.frombuffer(shard["records"], HOST)
        for host, row, names in zip(shard["hosts"], records, shard["names"], strict=True):
            for work in row["works"]:
                server = work["server"]
                if work["kind"] > 0 and server["used"]:
                    task = names.task_name(int(work["task"]))
                    found.setdefault((host, names.pod_of.get(task, task)), []).append(_requests(server))
    return {key: total(parts) for key, parts in found.items()}


def _requests(server: np.void) -> Requests:
    counts = tuple(int(server[name]) for name in COUNTS)
    return Requests(counts, tuple(int(n) for n in server["buckets"]), int(server["slo_ns"]), int(server["late_permille"]))
