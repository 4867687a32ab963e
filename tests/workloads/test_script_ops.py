# SPDX-License-Identifier: Apache-2.0
"""Reading the op language: every op of the recordings is known, and what is wrong is said with the op."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleetsim.errors import BadInput
from fleetsim.law import ONE_Q
from fleetsim.linux.syscalls import ORDERED, UNIFORM
from fleetsim.workloads import script_types as vm
from fleetsim.workloads.script_ops import UNSUPPORTED, hot_q, parse_op, parse_script, quantum_ns

TRUTH = Path(__file__).resolve().parent.parent / "ground_truth"


@pytest.mark.parametrize(
    ("text", "code", "pages", "rate", "time_s"),
    [
        ("mmap_anon A 300", vm.OP_MMAP_ANON, 76_800, 0, 0),
        ("touch A 20 5", vm.OP_TOUCH, 5120, 5, 0),
        ("rewrite A 0 40 seq for=2.5", vm.OP_ACCESS, 0, 40, 2.5),
        ("read A 10 40 random", vm.OP_ACCESS, 2560, 40, 0),
        ("read_file /f 600 40", vm.OP_READ_FILE, 153_600, 40, 0),
        ("mmap_file M /f", vm.OP_MMAP_FILE, 0, 0, 0),
        ("free A munmap", vm.OP_MUNMAP, 0, 0, 0),
        ("free A dontneed all", vm.OP_DONTNEED, 0, 0, 0),
        ("overcommit_probe 64 60000", vm.OP_PROBE, 60_000 * 256, 0, 0),
        ("overcommit_probe", vm.OP_PROBE, 100_000 * 256, 0, 0),
        ("sleep 1.5", vm.OP_SLEEP, 0, 0, 1.5),
        ("until 30", vm.OP_UNTIL, 0, 0, 30),
    ],
)
def test_an_op_is_read(text: str, code: int, pages: int, rate: float, time_s: float) -> None:
    op = parse_op(text)
    assert (op.code, op.pages, op.rate, op.time_ns, op.supported) == (code, pages, rate, int(time_s * 1e9), True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must not be empty"),
        ("dance", "unknown op 'dance'.*known are: .*mmap_anon"),
        ("touch A", "touch takes at least 3 arguments"),
        ("touch A many 5", "the size in MiB must be a number, not 'many'"),
        ("touch A -3 5", "must not be negative"),
        ("rewrite A 0 5 zigzag", "unknown access pattern 'zigzag'; known are seq, random, hot:F:P"),
        ("rewrite A 0 5 hot:2:0.5", "fractions from 0 to 1"),
        ("rewrite A 0 5 seq for=soon", "for= must be a number"),
    ],
)
def test_a_wrong_op_is_said_with_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_op(text)


@pytest.mark.parametrize("text", ["touch A nan 5", "touch A inf 5", "sleep inf"])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_op(text)


def test_an_op_without_a_law_is_kept_as_nothing_and_named() -> None:
    assert not UNSUPPORTED, "every op of the recordings runs; what a write to a file does may still have no law"
    script = parse_script(["sysw /sys/kernel/mm/ksm/run 1", "sleep 1"])
    assert script.unsupported == ["sysw /sys/kernel/mm/ksm/run 1"]
    assert [op.supported for op in script.ops] == [False, True]


def test_how_an_area_is_used_is_known_when_it_is_mapped() -> None:
    script = parse_script(["mmap_anon A 10", "mmap_anon B 10", "touch A 10 5", "rewrite A 0 5 hot:0.1:0.9 for=3", "rewrite B 0 5 seq"])
    a, b = script.ops[:2]
    assert (a.pattern, a.hot_share, b.pattern) == (UNIFORM, 0.1, ORDERED)


def test_the_hot_part_gets_its_share_and_that_of_chance() -> None:
    """hot:F:P: probability P of the first fraction F, else anywhere: P + (1 − P)·F."""
    assert hot_q(parse_op("rewrite A 0 5 hot:0.2:0.5")) == pytest.approx(0.6 * ONE_Q, abs=1)


def test_quanta_are_256_kib() -> None:
    assert quantum_ns(1.0) == 250_000_000
    assert quantum_ns(100.0) == 2_500_000
    assert quantum_ns(0) == 0


def test_every_op_of_the_recordings_is_understood() -> None:
    for path in TRUTH.glob("*/experiment.json"):
        for process in json.loads(path.read_text())["processes"]:
            assert parse_script(process["ops"]).unsupported == [], path.parent.name


@pytest.mark.parametrize("ops", [["malloc 1 10", "allocator jemalloc"], ["allocator glibc", "allocator tcmalloc"]])
def test_an_allocator_is_chosen_once_and_before_its_first_call(ops: list[str]) -> None:
    with pytest.raises(BadInput, match="said once, before its first malloc"):
        parse_script(ops)
