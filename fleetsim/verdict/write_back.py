# SPDX-License-Identifier: Apache-2.0
"""Results of rules written back into the private Prometheus, so that rules which read them see what they would live.

Only what some rule reads is written. A series that was there at the last good evaluation and is gone at this one gets
a staleness marker, as rules/manager.go does. Where two rules write one series at one instant the first one's sample
stands: a live server also refuses the second.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
from numpy.typing import NDArray

from fleetsim.rundir.samples import STALE
from fleetsim.verdict.outcome import RuleRun
from fleetsim.verdict.prometheus import PrivatePrometheus
from fleetsim.verdict.remote_write import Encoded, encode_labels, encode_request

SAMPLES_PER_REQUEST = 40_000


class WriteBack:
    """`read`: numbers of the rules whose output somebody reads."""

    def __init__(self, server: PrivatePrometheus, read: Set[int]) -> None:
        self._server, self._read = server, read
        self._taken: dict[bytes, set[int]] = {}
        self._previous: dict[int, int] = {}  # rule → index of its last good instant (stepped rules)

    def everything(self, run: RuleRun) -> None:
        if run.placed.number not in self._read:
            return
        batch: list[Encoded] = []
        size = 0
        times = np.array(run.instants, np.int64)
        for series in run.series.values():
            for labels, there, values in run.written(series):
                chunk = self._free(encode_labels(labels), *with_staleness(times[run.good], there[run.good], values[run.good]))
                batch.append(chunk)
                size += len(chunk[1])
                if size >= SAMPLES_PER_REQUEST:
                    self._server.write(encode_request(batch))
                    batch, size = [], 0
        if batch:
            self._server.write(encode_request(batch))

    def instant(self, run: RuleRun, index: int) -> None:
        if run.placed.number not in self._read or not run.good[index]:
            return
        before = self._previous.get(run.placed.number)
        self._previous[run.placed.number] = index
        now = np.array([run.instants[index]], np.int64)
        batch = []
        for series in run.series.values():
            for labels, there, values in run.written(series):
                if there[index]:
                    batch.append(self._free(encode_labels(labels), now, values[index : index + 1]))
                elif before is not None and there[before]:
                    batch.append(self._free(encode_labels(labels), now, np.array([STALE])))
        if batch:
            self._server.write(encode_request(batch))

    def _free(self, labels: bytes, times: NDArray[np.int64], values: NDArray[np.float64]) -> Encoded:
        """Without the instants at which another rule has already written this series."""
        taken = self._taken.get(labels)
        if taken is None:
            self._taken[labels] = set(times.tolist())
            return labels, times, values
        free = np.array([time not in taken for time in times.tolist()], np.bool_)
        taken.update(times.tolist())
        return labels, times[free], values[free]


def with_staleness(
    times: NDArray[np.int64], there: NDArray[np.bool_], values: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Samples where `there`, and a marker at the first instant after each stretch of them."""
    gone = np.zeros(len(there), np.bool_)
    gone[1:] = there[:-1] & ~there[1:]
    out = np.where(gone, STALE, values)
    keep = there | gone
    return times[keep], out[keep]
