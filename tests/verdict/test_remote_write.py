# SPDX-License-Identifier: Apache-2.0
"""The hand-laid protobuf says what a real decoder reads, and the real server stores it bit by bit."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import cramjam
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.errors import ToolFailed
from fleetsim.rundir.samples import STALE, STALE_BITS
from fleetsim.verdict.prometheus import QueryFailed, private_prometheus
from fleetsim.verdict.remote_write import encode_labels, encode_request


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Obvious and slow: what the protobuf specification says."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 == 0:
            number, at = read_varint(data, at)
            yield tag >> 3, number
            continue
        length, at = (8, at) if tag & 7 == 1 else read_varint(data, at)
        yield tag >> 3, data[at : at + length]
        at += length


def decode(request: bytes) -> list[tuple[dict[str, str], list[tuple[int, int]]]]:
    """[(labels, [(milliseconds, bits of the value)])]"""
    out = []
    for _, series in fields(bytes(cramjam.snappy.decompress_raw(request))):
        labels, samples = {}, []
        for number, content in fields(series):
            parts = dict(fields(content))
            if number == 1:
                labels[parts[1].decode()] = parts[2].decode()
            else:
                samples.append((parts[2], struct.unpack("<Q", parts[1])[0]))
        out.append((labels, samples))
    return out


SERIES = st.tuples(
    st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(min_size=1, max_size=200), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 2**42 - 1), st.integers(0, 2**64 - 1)), max_size=20),
)


@given(st.lists(SERIES, max_size=5))
def test_whatever_is_encoded_is_decoded(series: list[tuple[dict[str, str], list[tuple[int, int]]]]) -> None:
    chunks = [
        (encode_labels(labels), np.array([t for t, _ in points], np.int64), np.array([b for _, b in points], np.uint64).view(np.float64))
        for labels, points in series
    ]
    assert decode(encode_request(chunks)) == [(dict(sorted(labels.items())), points) for labels, points in series]


def test_labels_are_sorted_and_empty_ones_left_out() -> None:
    assert encode_labels({"b": "2", "a": "1", "c": ""}) == b"\x0a\x06\x0a\x01a\x12\x011\x0a\x06\x0a\x01b\x12\x012"


@pytest.mark.parametrize("time", [-1, 1 << 42])
def test_times_outside_1970_to_2109_are_refused(time: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 2\\^42 ms"):
        encode_request([(b"", np.array([time]), np.array([1.0]))])


@pytest.mark.parametrize("start_ms", [0, 1_000, 1_700_000_000_000, 4_102_444_800_000])
def test_the_real_server_takes_any_time_and_any_order_between_series(prometheus: object, start_ms: int) -> None:
    times = start_ms + 15_000 * np.arange(400)  # 100 minutes, then again from the start: more than Prometheus' usual hour
    with private_prometheus() as server:
        for name in ("first", "second"):
            server.write(encode_request([(encode_labels({"__name__": name}), times, np.arange(400) / 3)]))
        found = server.query_range('{__name__=~"first|second"}', int(times[0]), int(times[-1]), 15_000)
    assert [[float(text) for _, text in series["values"]] for series in found] == [[k / 3 for k in range(400)]] * 2


def test_a_staleness_marker_ends_a_series_at_once_and_a_plain_nan_does_not(prometheus: object) -> None:
    assert STALE.view(np.uint64) == STALE_BITS
    times = np.array([0, 15_000, 30_000])
    with private_prometheus() as server:
        server.write(encode_request([(encode_labels({"__name__": "marked"}), times, np.array([1.0, STALE, STALE]))]))
        server.write(encode_request([(encode_labels({"__name__": "plain"}), times, np.array([1.0, np.nan, np.nan]))]))
        assert [[text for _, text in s["values"]] for s in server.query_range("marked", 0, 30_000, 15_000)] == [["1"]]
        assert [[text for _, text in s["values"]] for s in server.query_range("plain", 0, 30_000, 15_000)] == [["1", "NaN", "NaN"]]


def test_what_the_server_refuses_is_an_error(prometheus: object) -> None:
    with private_prometheus() as server:
        with pytest.raises(ToolFailed, match="refused samples"):
            server.write(b"not snappy")
        server.write(encode_request([(encode_labels({"__name__": "m", "n": str(k)}), np.array([0]), np.array([1.0])) for k in "ab"]))
        with pytest.raises(QueryFailed, match="many-to-many"):
            server.query("m + on() m", 0)
