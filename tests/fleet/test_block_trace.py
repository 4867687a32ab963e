# SPDX-License-Identifier: Apache-2.0
"""Block traces from files: both formats, and one sentence with file, line and value for what cannot be a trace."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.allocators.trace import CALLOC, EXIT, FREE, MALLOC, MEMALIGN, OP_NAMES, REALLOC, SLEEP, TOUCH, TRIM, Trace
from fleetsim.errors import BadInput
from fleetsim.fleet.block_trace import read_block_trace
from tests.conftest import find_tool

SECOND = 1_000_000_000


def read(tmp_path: Path, text: str, **options: bool) -> Trace:
    file = tmp_path / "a.trace"
    file.write_text(text, encoding="utf-8")
    return read_block_trace(file, **options)


def test_plain_text_op_by_op(tmp_path: Path) -> None:
    text = """\
# a comment
malloc a 100
calloc b 4 4KiB   # sizes may have units
memalign c 64 1000
thread 3
free a
malloc a 7
sleep 1.5
write none
realloc c 3000
write 10
malloc d 64Ki
touch d 20 5
touch d
trim 100
exit
"""
    trace = read(tmp_path, text)
    told = [(int(o["op"]), int(o["thread"]), int(o["block"]), int(o["size"]), int(o["written"]), int(o["argument"])) for o in trace.ops]
    assert told == [
        (MALLOC, 0, 0, 100, 100, 0),
        (CALLOC, 0, 1, 16_384, 16_384, 0),
        (MEMALIGN, 0, 2, 1000, 1000, 64),
        (FREE, 3, 0, 0, 0, 0),
        (MALLOC, 3, 0, 7, 7, 0),
        (SLEEP, 3, -1, 3 * SECOND // 2, 0, 0),
        (REALLOC, 3, 2, 3000, 0, 0),
        (MALLOC, 3, 3, 65_536, 10, 0),
        (TOUCH, 3, 3, 20, 0, 5),
        (TOUCH, 3, 3, 65_536, 0, 0),
        (TRIM, 3, -1, 100, 0, 0),
        (EXIT, 3, -1, 0, 0, 0),
    ]
    assert (trace.blocks, trace.threads) == (4, 4)
    assert list(trace.ops["time_ns"][4:7]) == [0, 3 * SECOND // 2, 3 * SECOND // 2]


def test_a_realloc_to_nothing_frees(tmp_path: Path) -> None:
    trace = read(tmp_path, "malloc a 5\nrealloc a 0\nmalloc a 6\n")
    assert [OP_NAMES[o] for o in trace.ops["op"]] == ["malloc", "free", "malloc"]


BAD = [
    ("", "a.trace: the file is empty"),
    ("# nothing\n", "a.trace: there is no op in it"),
    ("malloc a 10\nfree b\n", "a.trace:2: free of block 'b', which was never allocated"),
    ("malloc a 10\nfree a\n\nfree a\n", "a.trace:4: free of block 'a', which was freed on line 2"),
    ("malloc a 10\nmalloc a 20\n", "a.trace:2: block 'a' is allocated again while it is live"),
    ("malloc a -5\n", "a.trace:1: the size is '-5'"),
    ("malloc a lots\n", "a.trace:1: the size is 'lots'"),
    ("malloc a 5MB\n", "a.trace:1: the size is '5MB'"),
    ("malloc a 65GiB\n", "a.trace:1: the size is '65GiB'"),
    ("malloc a 99999999999999999999\n", "a.trace:1: the size is '99999999999999999999'"),
    ("malloc a\n", "a.trace:1: malloc has 1 words after it: it takes ID SIZE"),
    ("free a b\n", "a.trace:1: free has 2 words after it"),
    ("calloc a 1GiB 1GiB\n", "a.trace:1: calloc of 1GiB × 1GiB"),
    ("memalign a 24 100\n", "a.trace:1: the alignment is '24': it must be a power of two"),
    ("memalign a 0 100\n", "a.trace:1: the alignment is '0'"),
    ("realloc a 5\n", "a.trace:1: realloc of block 'a', which was never allocated"),
    ("malloc a 10\ntouch a 11\n", "a.trace:2: touch of bytes 0 to 11 of block 'a', which has 10"),
    ("mallox a 10\n", "a.trace:1: unknown op 'mallox'"),
    ("sleep -1\n", "a.trace:1: the time to sleep is '-1'"),
    ("sleep 1e9\n", "a.trace:1: the time to sleep is '1e9'"),
    ("thread x\n", "a.trace:1: the thread is 'x'"),
    ("thread 4096\n", "a.trace:1: the thread is '4096'"),
    ("exit\n", "a.trace:1: exit of thread 0"),
    ("thread 1\nexit\nmalloc a 5\n", "a.trace:3: malloc by thread 1, which ended on line 2"),
    ("malloc a 10\nmalloc b 40", "a.trace:2: the last line 'malloc b 40' has no end of line"),
    ("write some\n", "a.trace:1: the number of bytes to write is 'some'"),
    ("= Start\n", "a.trace: there is no call in it"),
    ("= Start\n@ x:[0x1] + 0x10 0x20\n@ x:[0x1] - 0x30\n", "a.trace:3: free of 0x30, which was never allocated in this file"),
    ("= Start\n@ x:[0x1] + 0x10 0x20\n- 0x10\n- 0x10\n", "a.trace:4: free of 0x10, which was freed on line 3"),
    ("= Start\n@ x:[0x1] + 0x10 0x20\n@ x:[0x1] + 0x10 0x20\n", "a.trace:3: 0x10 is allocated again while it is live"),
    ("= Start\n@ x:[0x1] + 0x10\n", "a.trace:2: '@ x:[0x1] + 0x10': a line with '+' has a size after the address"),
    ("= Start\n@ x:[0x1] + 0x10 0x20\n@ x:[0x1] < 0x10\n", "a.trace:3: the realloc of 0x10 has no second line"),
    ("= Start\n@ x:[0x1] + 0x10 0x20\n@ x:[0x1] > 0x10 0x30\n", "a.trace:3: '>' 0x10"),
    ("= Start\n@ x:[0x1] + banana 0x20\n", "a.trace:2: '@ x:[0x1] + banana 0x20' is no line of mtrace"),
    ("= Start\n@ x:[0x1] + 0x10 0xffffffffffff\n", "a.trace:2: the size is 0xffffffffffff"),
    ("= Start\n@ x:[0x1] + 0x10 0x2", "a.trace:2: the last line '@ x:[0x1] + 0x10 0x2' has no end of line"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_what_is_no_trace_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(BadInput) as refused:
        read(tmp_path, text)
    told = str(refused.value).replace(f"{tmp_path}/", "")
    assert told.startswith(sentence) and "\n" not in told


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    whole = gzip.compress(b"malloc a 10\n" * 1)
    cases = {
        "absent.trace": (None, "no such file"),
        "cut.gz": (whole[:-6], "the gzipped file is truncated"),
        "bent.gz": (whole[:12] + bytes([whole[12] ^ 255]) + whole[13:], "the gzipped file is damaged"),
        "binary": (b"malloc a 10\n\xff\xfe\n", "byte 12 is 0xff, not UTF-8 text"),
    }
    for name, (data, sentence) in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput, match=sentence):
            read_block_trace(tmp_path / name)
    with pytest.raises(BadInput, match="it is no file"):
        read_block_trace(tmp_path)
    (tmp_path / "good.gz").write_bytes(whole)
    assert len(read_block_trace(tmp_path / "good.gz").ops) == 1


@given(st.text(alphabet="malocfrethd 0123456789abKiGx\n#-+<>@=", max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.trace"
    file.write_text(text)
    try:
        trace = read_block_trace(file)
    except BadInput as refused:
        assert "\n" not in str(refused)
    else:
        assert len(trace.ops) > 0


def test_blocks_from_before_mtrace_are_passed_over_on_demand(tmp_path: Path) -> None:
    text = "= Start\n- 0x50\n@ x:[0x1] < 0x60\n@ x:[0x1] > 0x70 0x40\n@ x:[0x1] + 0x10 0x20\n"
    text += "! 0x10 0x7fffffffffffffff\n+ (nil) 0x0\n- 0x70\n= End\n"
    trace = read(tmp_path, text, unknown=True)
    assert [OP_NAMES[o] for o in trace.ops["op"]] == ["malloc", "malloc", "free"]
    with pytest.raises(BadInput, match="--skip-unknown"):
        read(tmp_path, text)


def test_what_a_real_mtrace_writes_is_read(tmp_path: Path) -> None:
    program, told = tmp_path / "mtraced", tmp_path / "mtrace.txt"
    source = Path(__file__).parent.parent / "allocators" / "mtraced.c"
    subprocess.run([find_tool("cc"), "-O0", "-o", program, source], check=True)
    hooks = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_TRACE": str(told)}  # since glibc 2.34 mtrace lives there
    subprocess.run([program], check=True, env=os.environ | hooks)
    if not told.exists():
        pytest.skip("this C library has no libc_malloc_debug.so.0 to trace with")
    trace = read_block_trace(told)
    kinds = [OP_NAMES[o] for o in trace.ops["op"]]
    assert (kinds.count("malloc"), kinds.count("realloc"), kinds.count("free")) == (200, 40, 199)
    assert list(trace.ops["size"][:3]) == [100, 110, 120]
