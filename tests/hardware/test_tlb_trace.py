# SPDX-License-Identifier: Apache-2.0
"""Reading traces: lackey's lines as Valgrind 3.19 wrote them, plain addresses, and everything that is neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.errors import BadInput
from fleetsim.hardware.tlb_trace import read_trace
from fleetsim.hardware.tlb_types import FETCH, FLUSH, INVLPG, LOAD, MODIFY, STORE, STRADDLE, SWITCH

# the first lines of `valgrind --tool=lackey --trace-mem=yes ./a.out`, and one of each kind
LACKEY = b"""\
==10312== Lackey, an example Valgrind tool
==10312== Copyright (C) 2002-2017, and GNU GPL'd, by Nicholas Nethercote.
--10312-- warning: something
==10312==\x20
I  0401ab70,3
I  0401ab73,5
 S 1fff000768,8
 L 0403acb0,8
 M 0403b020,4
"""


def records(text: bytes, *, levels: int = 4, cut: int = 1 << 20) -> list[tuple[int, int]]:
    chunks = (text[i : i + cut] for i in range(0, len(text), cut))
    return [(int(k), int(a)) for piece, kinds in read_trace(chunks, "trace.txt", levels=levels) for a, k in zip(piece, kinds)]


def test_lackeys_lines() -> None:
    assert records(LACKEY) == [(FETCH, 0x401AB70), (FETCH, 0x401AB73), (STORE, 0x1FFF000768), (LOAD, 0x403ACB0), (MODIFY, 0x403B020)]


def test_plain_addresses_comments_and_events() -> None:
    text = b"# mine\n7f2a10c04000\n0x1000\r\n\n  ffffffff81000000 \nswitch 2\ninvlpg 1000\nflush\n0\n"
    assert records(text) == [
        (LOAD, 0x7F2A10C04000),
        (LOAD, 0x1000),
        (LOAD, -0x7F000000),
        (SWITCH, 2),
        (INVLPG, 0x1000),
        (FLUSH, 0),
        (LOAD, 0),
    ]


def test_an_access_across_pages_is_two() -> None:
    assert records(b" L 0ffc,8\nI  1ffe,2\n") == [(LOAD, 0xFFC), (LOAD + STRADDLE, 0x1003), (FETCH, 0x1FFE)]
    assert records(b"I  0fff,2\n") == [(FETCH, 0xFFF), (FETCH + STRADDLE, 0x1000)], "by one byte"


@given(st.integers(1, 40))
def test_pieces_may_end_anywhere(cut: int) -> None:
    assert records(LACKEY, cut=cut) == records(LACKEY)


@given(st.lists(st.tuples(st.sampled_from("LSM"), st.integers(-(1 << 47), (1 << 47) - 64), st.integers(1, 64)), min_size=1, max_size=30))
def test_every_canonical_address_is_read_as_written(accesses: list[tuple[str, int, int]]) -> None:
    accesses = [access for access in accesses if access[1] >= 0 or access[1] + access[2] <= 0]
    text = "".join(f" {letter} {address % (1 << 64):x},{size}\n" for letter, address, size in accesses)
    whole = [address for kind, address in records(text.encode() + b"0\n") if kind < STRADDLE]
    assert whole == [address for _, address, _ in accesses] + [0]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (b"1000\n L 04222", 2, "is the file cut off"),
        (b"1000\n S ", 2, "is the file cut off"),
        (b" L 04222c4,", 1, "is the file cut off"),
        (b"0x\n", 1, "ends too early"),
        (b"invlpg\n", 1, "ends too early"),
        (b"hello\n", 1, "'hello' is no access"),
        (b"1000 2000\n", 1, "'1000 2000' is no access"),
        (b" L 1000,8,8\n", 1, "is no access"),
        (b" L 1000;8\n", 1, "is no access"),
        (b"\x7fELF\x02\n", 1, "is no access"),
        (b"#\n\n800000000000\n", 3, "'800000000000' is not a canonical address of 48 bits: it must be below 0x800000000000"),
        (b"ffff7fffffffffff\n", 1, "or at least 0xffff800000000000"),
        (b" L 7ffffffffffc,8\n", 1, "not a canonical"),
        (b"12345678123456789\n", 1, "more than 16"),
        (b" L 1000,0\n", 1, "size of 1 to 4096"),
        (b" L 1000,5000\n", 1, "size of 1 to 4096"),
        (b"switch two\n", 1, "names no task"),
        (b"switch 1048576\n", 1, "names no task"),
        (b"1" * 70_000, 1, "more than"),
    ],
)
def test_what_is_no_trace_is_said_with_file_line_and_value(text: bytes, line: int, words: str) -> None:
    with pytest.raises(BadInput) as refusal:
        records(text)
    assert str(refusal.value).startswith(f"trace.txt:{line}: ") and words in str(refusal.value)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("text", [b"", b"# nothing\n==1== Lackey\n", b"switch 2\n"])
def test_a_trace_without_access_is_refused(text: bytes) -> None:
    with pytest.raises(BadInput, match=r"trace\.txt: there is no access in it"):
        records(text)


def test_five_levels_have_more_canonical_addresses() -> None:
    assert records(b"800000000000\n", levels=5) == [(LOAD, 1 << 47)]
    with pytest.raises(BadInput, match="57 bits"):
        records(b"100000000000000\n", levels=5)
