# SPDX-License-Identifier: Apache-2.0
"""What a build of Google's tcmalloc said of a handful of traces: recorded once, since no distribution has the library.

    python -m tests.allocators.google_recordings LIBRARY WORDS     records anew; WORDS say what LIBRARY is

Each trace is replayed RUNS times by `replay_trace.c` and the run that agrees with most others is kept: a preempted process goes other
ways through its per-CPU cache now and then. Per-CPU caches need the kernel's rseq for themselves, so glibc's own use is switched off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fleetsim.allocators.patterns import Luck, draw
from fleetsim.allocators.trace import SLEEP, Trace, TraceBuilder
from tests.allocators.programs import random_program

FILE = Path(__file__).with_name("google_tcmalloc.json")
RUNS, SAMPLES = 7, 8
THREAD_STORAGE = 304  # bytes that pthread_create() of glibc callocs


def without_sleep(trace: Trace) -> Trace:
    return Trace(trace.ops[trace.ops["op"] != SLEEP].copy(), trace.blocks, trace.threads, trace.source)


def huge_blocks() -> Trace:
    """Forty blocks of two huge pages come and go twice: the cache learns."""
    b = TraceBuilder("huge blocks")
    b.written = 8192
    for turn in range(2):
        for k in range(40):
            b.malloc((turn, k), 4 << 20)
        for k in range(40):
            b.free((turn, k))
    return b.build()


def region_blocks() -> Trace:
    """Blocks a little larger than a huge page, freed and taken again, then a release."""
    b, luck = TraceBuilder("region blocks"), Luck(5)
    b.written = 300_000
    live = []
    for k in range(900):
        if k > 300 and luck.below(2):
            b.free(live.pop(luck.below(len(live))))
        else:
            b.malloc(k, (2 << 20) + 8192 * (1 + luck.below(60)))
            live.append(k)
    for k in luck.shuffled(live)[: len(live) // 2]:
        b.free(k)
    b.trim()
    return b.build()


def page_blocks() -> Trace:
    """A quarter of many one-page blocks stays, then a release, and some more."""
    b = TraceBuilder("page blocks")
    for k in range(8000):
        b.malloc(k, 8192)
    for k in range(8000):
        if k % 4 != 0:
            b.free(k)
    b.trim()
    for k in range(1000):
        b.malloc(("later", k), 8192)
    return b.build()


TRACES: dict[str, Callable[[], Trace]] = {
    "growth": lambda: without_sleep(draw("growth", blocks=20_000)),
    "small objects": lambda: without_sleep(draw("random-free", blocks=40_000, least=1, most=64)),
    "random-free": lambda: without_sleep(draw("random-free", blocks=20_000)),
    "sawtooth": lambda: without_sleep(draw("sawtooth", blocks=5000)),
    "big-blocks": lambda: without_sleep(draw("big-blocks")),
    "sessions": lambda: without_sleep(draw("sessions", blocks=20_000, least=1000, most=40_000)),
    "random 1": lambda: random_program(1, 10_000, most=40_000),
    "random 2": lambda: random_program(2, 10_000, most=3_000_000),
    "random 3": lambda: random_program(3, 10_000, most=400_000),
    "malloc_trim": lambda: without_sleep(draw("random-free-trim", blocks=20_000)),
    "release 16 MB": lambda: without_sleep(draw("random-free-trim", blocks=50_000)),
    "release all": lambda: without_sleep(draw("random-free-trim", blocks=20_000)),
    "huge blocks": huge_blocks,
    "region blocks": region_blocks,
    "page blocks": page_blocks,
    "threads": lambda: random_program(7, 12_000, threads=5),
}
RELEASES = {"release 16 MB": 16_000_000, "release all": 1 << 46, "region blocks": 1 << 46, "page blocks": 1 << 46}
"""Bytes that a trim op of the trace asks for."""


def cpus_of(trace: Trace) -> int:
    return 2 if trace.threads > 1 else 1


def every_of(trace: Trace) -> int:
    return max(1, len(trace.ops) // SAMPLES) if trace.threads == 1 else len(trace.ops)


def one_run(program: Path, library: Path, trace: Trace, release: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(samples: ops done, resident, seven properties; addresses)."""
    ops, samples, addresses = folder / "ops.bin", folder / "samples.bin", folder / "addresses.bin"
    ops.write_bytes(trace.ops.tobytes())
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "TCMALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))}
    environment |= {"LD_PRELOAD": str(library), "GLIBC_TUNABLES": "glibc.pthread.rseq=0", "REPLAY_CPUS": str(cpus_of(trace))}
    words = ["taskset", "-c", "0", str(program), str(ops), str(trace.blocks), str(every_of(trace)), str(samples), str(addresses)]
    subprocess.run(words, check=True, env=environment | {"REPLAY_RELEASE": str(release)})
    rows = np.fromfile(samples, np.int64).reshape(-1, 10)
    if len(rows) > 2 and rows[-1, 0] == rows[-2, 0]:
        rows = rows[:-1]  # the last op was a sample's
    return np.delete(rows, 2, axis=1), np.fromfile(addresses, np.int64).reshape(-1, 2)[:, 0]


def recorded(program: Path, library: Path, name: str, folder: Path) -> list[list[int]]:
    """The samples on which most runs agree."""
    runs = [one_run(program, library, TRACES[name](), RELEASES.get(name, 0), folder)[0] for _ in range(RUNS)]
    common, _ = Counter(run[:, 2:].tobytes() for run in runs).most_common(1)[0]
    rows: list[list[int]] = next(run for run in runs if run[:, 2:].tobytes() == common).tolist()
    return rows


def main(library: str, what: str) -> None:
    from tests.allocators.real_library import compiled

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = compiled(folder)
        samples = {trace: recorded(program, Path(library), trace, folder) for trace in TRACES}
    text = json.dumps({"library": what, "samples": samples}).replace("]], ", "]],\n  ").replace('{"growth"', '{\n  "growth"')
    FILE.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
