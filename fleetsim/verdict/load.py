# SPDX-License-Identifier: Apache-2.0
"""Puts a run's samples into the private Prometheus, oldest first, two requests at a time.

Only series that some rule may read are loaded (design §6: Prometheus is the wall, not the simulator).
Order matters within a series only: the requests of one window of time may overtake each other, windows may not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor

from fleetsim.rundir.reader import RunDirectory
from fleetsim.rundir.samples import Columns, runs
from fleetsim.verdict.prometheus import PrivatePrometheus
from fleetsim.verdict.remote_write import Encoded, encode_labels, encode_request

WINDOW_MS = 30 * 60 * 1000
SAMPLES_PER_REQUEST = 40_000
CONNECTIONS = 2

Progress = Callable[[str, float], None]  # what is being done, how much of it is done (0..1)


def load_run(run: RunDirectory, server: PrivatePrometheus, metrics: Set[str] | None, progress: Progress) -> int:
    """Load the samples of these metrics (None: all); returns how many."""
    chosen = [number for number, labels in enumerate(run.series) if metrics is None or labels.get("__name__") in metrics]
    labels = {number: encode_labels(run.series[number]) for number in chosen}
    everything = len(chosen) == len(run.series)
    span_ms = max(1, run.manifest.end_unix_ms - run.manifest.start_unix_ms)
    loaded = 0
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for number, columns in enumerate(run.windows(WINDOW_MS, None if everything else chosen)):
            for _ in pool.map(lambda batch: server.write(encode_request(batch)), _batches(columns, labels)):
                pass
            loaded += len(columns[0])
            progress("loading samples", min(1.0, (number + 1) * WINDOW_MS / span_ms))
    return loaded


def _batches(columns: Columns, labels: dict[int, bytes]) -> Iterator[list[Encoded]]:
    ids, times, values = columns
    batch: list[Encoded] = []
    size = 0
    for number, first, last in runs(ids):
        batch.append((labels[number], times[first:last], values[first:last]))
        size += last - first
        if size >= SAMPLES_PER_REQUEST:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
