# SPDX-License-Identifier: Apache-2.0
"""Replays a block trace on a real malloc: that of this machine's C library, or one that is preloaded (see `malloc_replay.c`)."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fleetsim.allocators.trace import Trace, sampling
from tests.conftest import find_tool

GLIBC = (2, 36)


@dataclass(frozen=True)
class Real:
    heap: int  # address of the break at the start
    addresses: np.ndarray  # per op, 0: none
    usable: np.ndarray
    op: np.ndarray  # per sample: ops done
    brk: np.ndarray  # bytes
    heap_resident: np.ndarray  # bytes
    resident: np.ndarray  # bytes that no file backs, of the whole process since the start
    reserved: np.ndarray  # bytes of address space since the start


def compiled(folder: Path) -> Path:
    program = folder / "malloc_replay"
    source = Path(__file__).with_name("malloc_replay.c")
    subprocess.run([find_tool("cc"), "-O1", "-fno-builtin", "-pthread", "-o", program, source], check=True)
    return program


def needs_glibc_2_36() -> None:
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) != GLIBC:
        pytest.skip(f"the simulator is of glibc 2.36, the C library of this machine is {name or 'not glibc'} {version}")


def replay_real(program: Path, trace: Trace, folder: Path, *, every: int = 0, sleep: bool = False, **environment: str) -> Real:
    every = sampling(trace, every)
    file = folder / "trace.bin"
    file.write_bytes(trace.ops.tobytes())
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))}
    numbers = [len(trace.ops), trace.blocks, trace.threads, every]
    words = [str(program), str(file), *map(str, numbers), *(["sleep"] if sleep else [])]
    told = np.frombuffer(subprocess.run(words, check=True, capture_output=True, env=clean | environment).stdout, np.int64)
    answers = told[1 : 1 + 2 * len(trace.ops)].reshape(-1, 2)
    samples = told[1 + 2 * len(trace.ops) :].reshape(-1, 5)
    return Real(int(told[0]), answers[:, 0], answers[:, 1], samples[:, 0], samples[:, 1], *(samples[:, k] * 4096 for k in (2, 3, 4)))
