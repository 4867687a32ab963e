# SPDX-License-Identifier: Apache-2.0
"""`fleetsim bench malloc`: calls per second of the exact allocator, beside the real one and the same laws in plain Python.

Figures are processor time, the least of several runs. The real allocator runs in a C program compiled here with cc; it does not
keep account of pages, and the simulator does not move a byte: the two are beside each other for scale, not as rivals.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleetsim.allocators.glibc_exact import GlibcExact
from fleetsim.allocators.patterns import draw
from fleetsim.allocators.trace import Trace
from fleetsim.errors import ToolFailed

RUNS = 5
PLAIN_BLOCKS = 3000
CASES: tuple[tuple[str, str, dict[str, int]], ...] = (
    ("small blocks come and go", "leak", {"blocks": 600_000, "most": 128}),
    ("blocks of 64 to 4096 bytes come and go", "leak", {"blocks": 600_000}),
    ("freed at random, taken again", "sawtooth", {"blocks": 50_000}),
    ("large blocks", "big-blocks", {"blocks": 500}),
)
PLAIN = (
    "import time; from fleetsim.allocators.glibc_exact import GlibcExact; from fleetsim.allocators.patterns import draw\n"
    "t = draw({name!r}, **{changed!r}); began = time.process_time(); GlibcExact().replay(t)\n"
    "print((time.process_time() - began) / len(t.ops))\n"
)
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Row:
    what: str
    ops: int
    simulated_per_s: float
    real_per_s: float | None  # None: no C compiler
    python_per_s: float


@dataclass(frozen=True)
class MallocBench:
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        lines = [f"{'calls of malloc and free':42}{'simulated':>18}{'the real one':>18}{'in plain Python':>18}"]
        for row in self.rows:
            real = "no C compiler" if row.real_per_s is None else f"{row.real_per_s / 1e6:.1f} million/s"
            lines.append(f"{row.what:42}{row.simulated_per_s / 1e6:>8.1f} million/s{real:>18}{row.python_per_s / 1e3:>8.0f} thousand/s")
        return "\n".join(lines)


def simulated(trace: Trace) -> float:
    """Calls per second."""
    allocator, times = GlibcExact(), []
    allocator.replay(trace)  # compiled by now
    for _ in range(RUNS):
        began = time.process_time()
        allocator.replay(trace)
        times.append(time.process_time() - began)
    return len(trace.ops) / min(times)


def real(trace: Trace, program: Path) -> float:
    file = program.with_name("trace.bin")
    file.write_bytes(trace.ops.tobytes())
    words = [str(program), str(file), str(len(trace.ops)), str(trace.blocks)]
    times = [int(subprocess.run(words, check=True, capture_output=True, text=True).stdout) for _ in range(RUNS)]
    return len(trace.ops) / (min(times) / 1e9)


def compiled(folder: Path) -> Path | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = folder / "bench_malloc"
    source = Path(__file__).with_name("bench_malloc.c")
    done = subprocess.run([compiler, "-O2", "-fno-builtin", "-o", str(program), str(source)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolFailed(f"cc does not compile {source.name}: {done.stderr.strip().splitlines()[:1]}")
    return program


def in_plain_python(name: str, changed: dict[str, int]) -> float:
    """Calls per second of the same laws without Numba, on a shorter trace."""
    fewer = changed | {"blocks": min(changed["blocks"], PLAIN_BLOCKS if name != "sawtooth" else PLAIN_BLOCKS // 10)}
    words = [sys.executable, "-c", PLAIN.format(name=name, changed=fewer)]
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    return 1 / float(subprocess.run(words, check=True, capture_output=True, text=True, env=environment).stdout)


def run_bench_malloc(progress: Progress) -> MallocBench:
    """Every figure, in about half a minute."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="fleetsim-bench-") as folder:
        program = compiled(Path(folder))
        for k, (what, name, changed) in enumerate(CASES):
            progress(f"replaying: {what}", k / len(CASES))
            trace = draw(name, **changed)
            asked = None if program is None else real(trace, program)
            rows.append(Row(what, len(trace.ops), simulated(trace), asked, in_plain_python(name, changed)))
    return MallocBench(tuple(rows))
