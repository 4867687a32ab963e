# SPDX-License-Identifier: Apache-2.0
"""Prometheus' remote-write 1.0 messages, encoded fast: protobuf laid out by NumPy, snappy by cramjam.

    WriteRequest { repeated TimeSeries timeseries = 1 }
    TimeSeries   { repeated Label labels = 1 { string name = 1; string value = 2 }; repeated Sample samples = 2 }
    Sample       { double value = 1; int64 timestamp = 2 }

Every sample is given the same 18 bytes by spelling its timestamp as a six-byte varint (protobuf allows leading
zero groups), so that any number of samples is one array operation. Values are copied bit by bit: a staleness marker
stays one. Source: prometheus/prompb/remote.proto and types.proto.
Leaves out: metadata, exemplars, histograms; timestamps before 1970 or after 2109 (six varint bytes hold 42 bits).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import cramjam
import numpy as np
from numpy.typing import NDArray

TIMESTAMP_BYTES = 6
SAMPLE_BYTES = 18  # tag, length, tag + 8 of the value, tag + 6 of the timestamp

Encoded = tuple[bytes, NDArray[np.int64], NDArray[np.float64]]  # labels (encoded), times in ms, values


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def encode_labels(labels: Mapping[str, str]) -> bytes:
    """Labels as remote write wants them: sorted by name, none empty."""
    return b"".join(field(1, field(1, name.encode()) + field(2, value.encode())) for name, value in sorted(labels.items()) if value)


def encode_samples(times_ms: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """One row of 18 bytes per sample."""
    if len(times_ms) and not 0 <= int(times_ms.min()) <= int(times_ms.max()) < 1 << 7 * TIMESTAMP_BYTES:
        raise ValueError(f"timestamps must lie between 0 and 2^42 ms, got {int(times_ms.min())} … {int(times_ms.max())}")
    rows = np.empty((len(times_ms), SAMPLE_BYTES), np.uint8)
    rows[:, 0], rows[:, 1] = 2 << 3 | 2, SAMPLE_BYTES - 2
    rows[:, 2] = 1 << 3 | 1
    rows[:, 3:11] = np.ascontiguousarray(values, "<f8").view(np.uint8).reshape(-1, 8)
    rows[:, 11] = 2 << 3 | 0
    for n in range(TIMESTAMP_BYTES):
        more = 0x80 if n < TIMESTAMP_BYTES - 1 else 0
        rows[:, 12 + n] = (times_ms >> (7 * n)) & 0x7F | more
    return rows


def encode_request(series: Iterable[Encoded]) -> bytes:
    """A compressed WriteRequest. Samples of one series must be in order of time."""
    chunks = list(series)
    if not chunks:
        return bytes(cramjam.snappy.compress_raw(b""))
    rows = encode_samples(np.concatenate([times for _, times, _ in chunks]), np.concatenate([values for _, _, values in chunks]))
    blob = rows.tobytes()
    out, start = [], 0
    for labels, times, _ in chunks:
        end = start + len(times) * SAMPLE_BYTES
        out += [b"\x0a", varint(len(labels) + end - start), labels, blob[start:end]]
        start = end
    return bytes(cramjam.snappy.compress_raw(b"".join(out)))
