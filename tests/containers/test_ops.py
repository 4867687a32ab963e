# SPDX-License-Identifier: Apache-2.0
"""The check of ops before a run and the reader of ops at boot are of one mind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleetsim.containers.ops import MADVICE, OPS, areas_mapped, check_op, files_read
from fleetsim.linux import madvise
from fleetsim.workloads.script_ops import KNOWN, UNSUPPORTED, parse_op

EXAMPLES = (
    "mmap_anon a 64",
    "mmap_anon a 0.5 noreserve",
    "touch a 64 8",
    "touch a 64 0.25",
    "rewrite a 0 5 random",
    "read a 0 8 hot:0.25:0.95 for=30",
    "read_file /data/big.bin 0 60 for=45",
    "read_file /data/big.bin 10 0 rand",
    "mmap_file m /data/mid.bin shared",
    "free a munmap",
    "free a dontneed all",
    "free a munmap first:16",
    "free a dontneed last:0.5",
    "free a dontneed keep_every:8",
    "madvise a cold",
    "mmap_anon a 5 thp noise=1024",
    "mmap_anon a 5 noise=0",
    "swapon /dev/zram0 100",
    "swapoff /dev/zram0",
    "pin 3",
    "mempolicy bind:1",
    "mempolicy preferred:0",
    "mempolicy interleave:0-1",
    "mempolicy default",
    "mlock a",
    "mlock a onfault",
    "allocator jemalloc dirty_decay_ms=-1 background_thread",
    "allocator tcmalloc release_rate=0.5",
    "allocator glibc mmap_threshold=65536 trim_threshold=1048576",
    "malloc 1000 64-160 20",
    "malloc 10 300000",
    "mfree keep_every:4",
    "mfree first:0.5",
    "mfree all",
    "mtrim",
    "stat_missing /data/w 400 100",
    "stat_files /data/many 30000",
    "mkfiles /data/w 10 0",
    "pipes 100 10",
    "hugetlb h 100",
    "sysw /proc/sys/vm/drop_caches 3",
    "sleep 1.5",
    "until 30",
    "exit 1",
)


def test_the_table_has_every_op_that_the_simulated_kernel_runs() -> None:
    assert set(OPS) == set(KNOWN)
    assert not set(OPS) & set(UNSUPPORTED)


def test_the_advice_that_passes_is_the_advice_that_the_simulated_kernel_takes() -> None:
    assert set(MADVICE) == set(madvise.MADVICE)


@pytest.mark.parametrize("op", EXAMPLES)
def test_what_passes_the_check_boots(op: str) -> None:
    check_op(op)
    assert parse_op(op).supported


@pytest.mark.parametrize(
    "op",
    [
        "",
        "touch",
        "touch a",
        "touch a x 1",
        "touch a 1 nan",
        "touch a 1 inf",
        "touch a -1 1",
        "touch a 1e9 1",
        "sleep 5 6",
        "exit -1",
        "free a",
    ]
    + [
        "read a 0 8 hot:2:0.5",
        "read a 0 8 sideways",
        "read_file big.bin 0 1",
        "fork_hold",
        "madvise a colder",
        "mlock a later",
        "pin first",
        "mempolicy bind",
        "allocator",
        "allocator mimalloc",
        "allocator jemalloc release_rate=1",
        "allocator jemalloc dirty_decay_ms=soon",
        "allocator tcmalloc release_rate=nan",
        "allocator glibc mmap_threshold=99999999999",
        "allocator tcmalloc background_thread",
        "mempolicy preferred:0-1",
        "free a munmap half",
        "free a munmap keep_every:0",
        "mmap_anon 1a 5",
        "sleep 9999999999",
    ],
)
def test_what_is_no_op_is_refused_in_one_sentence(op: str) -> None:
    with pytest.raises(ValueError, match=r"known ops are|the form is"):
        check_op(op)


def test_the_recordings_ops_pass_unless_the_kernel_cannot_run_them_yet(shared_dir: Path) -> None:
    ops = {
        op
        for file in sorted((shared_dir / "recordings").glob("e*/experiment.json"))
        for process in json.loads(file.read_text())["processes"]
        for op in process["ops"]
    }
    assert len(ops) > 50
    refused = []
    for op in sorted(ops):
        try:
            check_op(op)
        except ValueError:
            refused.append(op)
    assert {op.split()[0] for op in refused} <= set(UNSUPPORTED) | {"sleep"}, refused


def test_files_and_areas_are_found_in_ops() -> None:
    ops = ("mmap_anon a 1", "mmap_file m /x shared", "read_file /y 0 1", "read_file /x 0 1")
    assert files_read(list(ops)) == ("/x", "/y")
    assert areas_mapped(ops) == 2
