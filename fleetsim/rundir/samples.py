# SPDX-License-Identifier: Apache-2.0
"""Samples as Parquet that anybody's duckdb, polars or pandas opens.

    samples/series.parquet        id int64 · labels map<string, string> (sorted, `__name__` among them)
    samples/block-….parquet       id int64 · t int64 (unix ms) · value float64, sorted by (id, t)

Rules kept: memory is bounded by one block whatever the length of the run; a staleness marker is the NaN with exactly
the bits 0x7ff0000000000002 and survives (dictionary encoding would merge NaNs, so it is off for values); the digest
depends on what was sampled, not on the order of appending, on ids or on where blocks end.
Leaves out: compaction. A block is written once and never touched again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

STALE_BITS = 0x7FF0000000000002
STALE = np.array([STALE_BITS], np.uint64).view(np.float64)[0]  # as NumPy float64: a Python float might lose the bits

BLOCK_ROWS = 2_000_000
ROW_GROUP_ROWS = 262_144  # small enough that reading a few series or minutes skips most of a block
ROWS_PER_DIGEST_PASS = 4_000_000
SERIES_AT_ONCE = 8_192  # of the table of series, whose labels are large while they are Python's

BLOCK_SCHEMA = pa.schema([("id", pa.int64()), ("t", pa.int64()), ("value", pa.float64())])
SERIES_SCHEMA = pa.schema([("id", pa.int64()), ("labels", pa.map_(pa.string(), pa.string()))])

Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def label_key(labels: Mapping[str, str]) -> str:
    """The one spelling of a label set: JSON with sorted names."""
    return json.dumps(dict(sorted(labels.items())), ensure_ascii=False, separators=(",", ":"))


class BlockWriter:
    """Appends samples to `folder` as blocks called `block-PREFIXnumber`. Several may write into one folder, each with its own prefix."""

    def __init__(self, folder: Path, prefix: str = "", block_rows: int = BLOCK_ROWS) -> None:
        self._folder, self._prefix, self._block_rows = folder, prefix, block_rows
        self._pending: list[Columns] = []
        self._pending_rows = 0
        self._blocks = 0
        self.rows = 0
        self.writing_s = 0.0  # wall time spent on blocks so far, for those who measure

    def samples(self, ids: NDArray[np.int64], times_ms: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Append arrays of equal length."""
        if not len(ids) == len(times_ms) == len(values):
            raise ValueError(f"samples need arrays of one length, got {len(ids)}, {len(times_ms)}, {len(values)}")
        # copies: the caller may fill the same buffers again for its next scrape
        self._pending.append((np.array(ids, np.int64), np.array(times_ms, np.int64), np.array(values, np.float64)))
        self._pending_rows += len(ids)
        self.rows += len(ids)
        if self._pending_rows >= self._block_rows:
            self.flush()

    def flush(self) -> None:
        """Everything appended so far is in a block."""
        if not self._pending_rows:
            return
        began = time.perf_counter()
        ids, times, values = self._waiting()
        table = pa.table(list(sort_columns(ids, times, values)), schema=BLOCK_SCHEMA)
        file = self._folder / f"block-{self._prefix}{self._blocks:05d}.parquet"
        beside = file.with_name(f".{file.name}.new")
        pq.write_table(
            table,
            beside,
            compression="zstd",
            row_group_size=ROW_GROUP_ROWS,
            use_dictionary=False,
            column_encoding={"id": "DELTA_BINARY_PACKED", "t": "DELTA_BINARY_PACKED", "value": "BYTE_STREAM_SPLIT"},
        )
        beside.replace(file)  # half a block is never seen under a block's name
        self._blocks += 1
        self._pending, self._pending_rows = [], 0
        self.writing_s += time.perf_counter() - began

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: how many blocks there are, and the few samples that are in none yet."""
        if self._pending_rows >= ROW_GROUP_ROWS:
            self.flush()
        return {"prefix": self._prefix, "blocks": self._blocks, "rows": self.rows, "waiting": self._waiting()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; with another prefix than then, the blocks of that time stay whose they are."""
        self._pending, self._pending_rows, self.rows = [], 0, 0
        self._blocks = 0
        if state["prefix"] == self._prefix:
            self._blocks = int(state["blocks"])
        self.samples(*state["waiting"])
        self.rows = int(state["rows"])

    def _waiting(self) -> Columns:
        if not self._pending:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64)
        ids, times, values = (np.concatenate(column) for column in zip(*self._pending, strict=True))
        return ids, times, values


class SampleWriter(BlockWriter):
    """A block writer with the table of the series. `series` gives an id per label set; `append` takes arrays of equal length."""

    def __init__(self, folder: Path, block_rows: int = BLOCK_ROWS) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder, block_rows=block_rows)
        self._ids: dict[str, int] = {}

    def series(self, labels: Mapping[str, str]) -> int:
        return self._ids.setdefault(label_key(labels), len(self._ids))

    def append(self, ids: NDArray[np.int64], times_ms: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(self._ids):
            raise ValueError(f"a sample names series {int(ids.max())}, but only {len(self._ids)} were announced")
        self.samples(ids, times_ms, values)

    def close(self) -> bytes:
        """Write what is left and return the digest of all samples."""
        self.flush()
        if not block_files(self._folder):  # a run without samples is still readable
            pq.write_table(BLOCK_SCHEMA.empty_table(), self._folder / "block-00000.parquet")
        keys = list(self._ids)
        with pq.ParquetWriter(self._folder / "series.parquet", SERIES_SCHEMA, compression="zstd") as writer:
            for first in range(0, max(1, len(keys)), SERIES_AT_ONCE):
                labels = [list(json.loads(key).items()) for key in keys[first : first + SERIES_AT_ONCE]]
                ids = pa.array(range(first, first + len(labels)), pa.int64())
                writer.write_table(pa.table([ids, pa.array(labels, SERIES_SCHEMA.field(1).type)], schema=SERIES_SCHEMA))
        return samples_digest(self._folder, keys)


def block_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("block-*.parquet"))


def dataset(folder: Path) -> ds.Dataset:
    return ds.dataset([str(path) for path in block_files(folder)], format="parquet", schema=BLOCK_SCHEMA)


def read_columns(data: ds.Dataset, where: pc.Expression | None) -> Columns:
    """The matching rows sorted by (id, t)."""
    table = data.to_table(filter=where)
    ids, times, values = (table.column(name).to_numpy() for name in ("id", "t", "value"))
    return sort_columns(ids, times, values)


def sort_columns(ids: NDArray[np.int64], times: NDArray[np.int64], values: NDArray[np.float64]) -> Columns:
    """Rows by (id, t). Samples usually come in order of time, which a stable sort by id alone keeps (and does faster)."""
    order = np.argsort(ids, kind="stable")
    if ((np.diff(ids[order]) == 0) & (np.diff(times[order]) < 0)).any():
        order = np.lexsort((times, ids))
    return ids[order], times[order], values[order]


def runs(ids: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """(id, first row, row after the last) of every stretch of equal ids."""
    if not len(ids):
        return
    cuts = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    for first, last in zip([0, *cuts.tolist()], [*cuts.tolist(), len(ids)], strict=True):
        yield int(ids[first]), first, last


def samples_digest(folder: Path, keys: list[str]) -> bytes:
    """SHA-256 over (labels, times, value bits) of every series, series ordered by their labels, samples by time."""
    data = dataset(folder)
    series: list[tuple[str, bytes]] = []
    passes = 1 + data.count_rows() // ROWS_PER_DIGEST_PASS
    at_once = 1 + len(keys) // passes
    for low in range(0, len(keys), at_once):
        inside = (pc.field("id") >= low) & (pc.field("id") < low + at_once)
        ids, times, values = read_columns(data, inside)
        for number, first, last in runs(ids):
            if (np.diff(times[first:last]) <= 0).any():
                raise ValueError(f"series {keys[number]} has two samples at one instant")
            content = times[first:last].astype("<i8").tobytes() + values[first:last].astype("<f8").tobytes()
            series.append((keys[number], hashlib.sha256(content).digest()))
    digest = hashlib.sha256()
    for key, content_digest in sorted(series):
        digest.update(key.encode() + b"\0" + content_digest)
    return digest.digest()
