# SPDX-License-Identifier: Apache-2.0
"""Replays a block trace under a preloaded malloc, and asks both the process and the library what they hold (`replay_trace.c`)."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fleetsim.allocators.trace import CALLOC, OP, Trace

AT_SLEEPS = 0  # instead of every so many ops: a sample before and one after each sleep

PACKAGE_OF = {"libjemalloc.so.2": "libjemalloc2", "libtcmalloc_minimal.so.4": "libtcmalloc-minimal4"}
FOLDERS = (*Path("/usr/lib").glob("*-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib"), Path("/usr/local/lib"))


@dataclass(frozen=True)
class Real:
    op: np.ndarray  # per sample: ops done; the first sample is before the first op
    resident: np.ndarray  # anonymous bytes of the process
    told: np.ndarray  # [sample, 6]: the library's own numbers, in the order of replay_trace.c
    addresses: np.ndarray  # per op, 0: none
    usable: np.ndarray


def library(name: str) -> Path:
    for folder in FOLDERS:
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"needs {name} (Debian: {PACKAGE_OF[name]})")


def compiled(folder: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (cc)")
    program, source = folder / "replay_trace", Path(__file__).with_name("replay_trace.c")
    words = [compiler, "-O1", "-fno-builtin", "-pthread", "-Wl,-z,dynamic-undefined-weak", "-o", str(program), str(source)]
    subprocess.run(words, check=True)
    return program


def replayed(program: Path, preload: Path, trace: Trace, folder: Path, *, every: int, **environment: str) -> Real:
    ops, samples, addresses = folder / "ops.bin", folder / "samples.bin", folder / "addresses.bin"
    ops.write_bytes(trace.ops.tobytes())
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "TCMALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))}
    words = [str(program), str(ops), str(trace.blocks), str(every), str(samples), str(addresses)]
    subprocess.run(words, check=True, env=clean | {"LD_PRELOAD": str(preload)} | environment)
    rows = np.fromfile(samples, np.int64).reshape(-1, 10)
    if len(rows) > 2 and rows[-1, 0] == rows[-2, 0]:
        rows = rows[:-1]  # the last op was a sample's
    answers = np.fromfile(addresses, np.int64).reshape(-1, 2)
    return Real(rows[:, 0], rows[:, 1], rows[:, 3:9], answers[:, 0], answers[:, 1])


def with_thread_starts(trace: Trace, size: int) -> tuple[Trace, np.ndarray]:
    """The trace and what pthread_create() adds to it: whoever starts a thread callocs `size` bytes for its thread-local storage.

    returns also where each of the trace's own ops now stands
    """
    rows: list[tuple[int, ...]] = []
    at, seen, before, blocks = [], {0}, 0, trace.blocks
    for op in trace.ops:
        thread = int(op["thread"])
        if thread not in seen:
            seen.add(thread)
            rows.append((CALLOC, before, blocks, size, 0, 0, int(op["time_ns"])))
            blocks += 1
        at.append(len(rows))
        rows.append(tuple(op.tolist()))
        before = thread
    return Trace(np.array(rows, OP), blocks, trace.threads, trace.source), np.array(at)


def mappings_that_moved(ours: np.ndarray, theirs: np.ndarray) -> int:
    """How often the distance between our page and theirs changes as one goes up the addresses: once per mapping if all is alike."""
    page, other = ours[ours >= 0] >> 12, theirs[ours >= 0] >> 12
    order = np.argsort(page, kind="stable")
    return int((np.diff((other - page)[order]) != 0).sum())
