# SPDX-License-Identifier: Apache-2.0
"""`fleetsim bench tlb`: how many exact accesses a second the TLB simulator does, beside plain C and plain Python in the same run.

The C program (`bench_tlb.c`) is compiled with the machine's `cc -O2`. It keeps each set in order in an array; where a profile has sets
of many ways it also runs with the simulator's own remedy, a hash and a ring. The Python one keeps a dictionary per set. All go
through the same addresses, and the run fails if they do not count the same. Making the addresses is not timed. Figures are the
least processor time of three runs on one core.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fleetsim.errors import ToolFailed
from fleetsim.hardware.tlb import run
from fleetsim.hardware.tlb_index import WAYS_MIN
from fleetsim.hardware.tlb_patterns import Pattern
from fleetsim.hardware.tlb_profiles import PROFILES, REGION_SHIFT, WALK_CACHES, Profile, find
from fleetsim.hardware.tlb_run import Machine, result_of

Progress = Callable[[str, float], None]
Counted = tuple[int, int, int, int]  # hits in level 1 and 2, walks, loads
SOURCE = Path(__file__).with_name("bench_tlb.c")
ACCESSES, PYTHON_ACCESSES, ROUNDS = 8_000_000, 300_000, 3
NO_HASH = 1 << 30
KIB, GIB = 1 << 10, 1 << 30
CASES: tuple[tuple[str, str, Pattern, str], ...] = (
    ("mostly hitting: 64 pages at random", "generic", Pattern("uniform", 256 * KIB), "≥ 60"),
    ("mostly missing: 1 GiB at random", "generic", Pattern("uniform", GIB), "≥ 20"),
    ("mostly hitting", "skylake", Pattern("uniform", 256 * KIB), "≥ 60"),
    ("mostly missing, page-walk caches", "skylake", Pattern("uniform", GIB), "≥ 20"),
    ("sequential, a line at a time", "skylake", Pattern("sequential", GIB), ""),
    ("mostly hitting, 64 ways", "zen3", Pattern("uniform", 256 * KIB), "≥ 60"),
    ("mostly missing, 64 ways", "zen3", Pattern("uniform", GIB), "≥ 20"),
    ("mostly hitting, 72 ways", "zen4", Pattern("uniform", 256 * KIB), "≥ 60"),
    ("mostly missing, 72 ways", "zen4", Pattern("uniform", GIB), "≥ 20"),
    ("some hitting: 64 pages, 48 ways", "neoverse-n1", Pattern("uniform", 256 * KIB), ""),
    ("mostly missing, 48 ways", "neoverse-n1", Pattern("uniform", GIB), "≥ 20"),
)
assert {case[1] for case in CASES} <= {profile.name for profile in PROFILES}


@dataclass(frozen=True)
class Row:
    what: str
    profile: str
    budget: str
    accesses_per_s: float
    c_per_s: float | None  # None: there is no compiler
    c_hashed_per_s: float | None  # None: nor are there sets of many ways
    python_per_s: float
    hit_share: float  # of level 1


@dataclass(frozen=True)
class TlbBenchResult:
    rows: tuple[Row, ...]
    compiler: str

    def as_json(self) -> dict[str, Any]:
        return {"compiler": self.compiler, "rows": [asdict(row) for row in self.rows]}

    def as_text(self) -> str:
        head = f"{'what':34} {'profile':11} {'million/s':>9} {'budget':>7} {'plain C':>8} {'C, hash':>8} {'Python':>7}  hits in L1"
        lines = [f"exact accesses per second on one core; C: {self.compiler}", head]
        for row in self.rows:
            c, hashed = (f"{rate / 1e6:.1f}" if rate else "none" for rate in (row.c_per_s, row.c_hashed_per_s))
            lines.append(
                f"{row.what:34} {row.profile:11} {row.accesses_per_s / 1e6:9.1f} {row.budget:>7} {c:>8} {hashed:>8}"
                f" {row.python_per_s / 1e6:7.2f}  {row.hit_share:.1%}"
            )
        return "\n".join(lines)


def simulate(profile: Profile, addresses: np.ndarray) -> tuple[Counted, float]:
    """(counts, seconds)"""
    kinds = np.zeros(len(addresses), np.int8)
    machine, least = Machine(profile), 1e9
    run(machine.core(), addresses[:1], kinds[:1])  # compiled before it is timed
    for _ in range(ROUNDS):
        core = machine.core()
        began = time.process_time()
        run(core, addresses, kinds)
        least = min(least, time.process_time() - began)
    data = result_of(machine, core).data
    return (data.l1_hits, data.l2_hits, data.walks, data.loads), least


def in_python(profile: Profile, addresses: np.ndarray) -> tuple[Counted, float]:
    """The same in plain Python: a dictionary per set, whose order is the order of use."""
    parts = [(profile.part_of(role), shift) for role, shift in (("d4K", 12), ("D4K", 12), *REGION_SHIFT.items())]
    sets: list[list[dict[int, None]]] = [[{} for _ in range(part.sets)] if part else [] for part, _ in parts]

    def look_up(which: int, address: int) -> bool:
        part, shift = parts[which]
        if part is None:
            return False
        number = address >> shift
        entries = sets[which][number % part.sets]
        if number in entries:
            del entries[number]
            entries[number] = None
            return True
        if len(entries) == part.ways:
            del entries[next(iter(entries))]
        entries[number] = None
        return False

    hits = second = walks = loads = 0
    began = time.process_time()
    for address in addresses.tolist():
        if look_up(0, address):
            hits += 1
        elif look_up(1, address):
            second += 1
        else:
            walks += 1
            loads += 1
            for which in (2, 3, 4):
                if look_up(which, address):
                    break
                loads += 1
    return (hits, second, walks, loads), time.process_time() - began


def compile_c(folder: Path) -> tuple[Path | None, str]:
    """(the program, what compiled it), or (None, why not)."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None, "no compiler is installed (cc)"
    program = folder / "bench_tlb"
    built = subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE)], capture_output=True, text=True, check=False)
    if built.returncode != 0:
        return None, f"cc failed: {' '.join(built.stderr.split())[:200]}"
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout.splitlines()
    return program, f"{version[0] if version else 'cc'}, -O2"


def in_c(program: Path, profile: Profile, addresses: np.ndarray, folder: Path, many: int = NO_HASH) -> tuple[Counted, float]:
    """(counts, seconds); sets of `many` ways or more are found by a hash."""
    file = folder / "addresses"
    addresses.tofile(file)
    shape: list[str] = []
    for role in ("d4K", "D4K", *WALK_CACHES):
        part = profile.part_of(role)
        shape += [str(part.sets), str(part.ways)] if part else ["1", "0"]
    done = subprocess.run([str(program), str(file), str(len(addresses)), str(many), *shape], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolFailed(f"the plain C program failed with exit code {done.returncode}")
    hits, second, walks, loads, seconds = done.stdout.split()
    return (int(hits), int(second), int(walks), int(loads)), float(seconds)


def measure(what: str, name: str, pattern: Pattern, budget: str, program: Path | None, folder: Path, accesses: int = ACCESSES) -> Row:
    profile = find(name)
    addresses = np.empty(accesses, np.int64)
    pattern.maker().fill(addresses, 0)
    counted, took = simulate(profile, addresses)
    few = addresses[:PYTHON_ACCESSES]
    python_counted, python_took = in_python(profile, few)
    _same(what, "Python", python_counted, simulate(profile, few)[0])
    rates: list[float | None] = [None, None]
    wide = any(part.ways >= WAYS_MIN for part in map(profile.part_of, ("d4K", "D4K", *WALK_CACHES)) if part)
    for which, many in enumerate((NO_HASH, WAYS_MIN)[: 1 + wide] if program else ()):
        assert program is not None
        c_counted, c_took = in_c(program, profile, addresses, folder, many)
        _same(what, "C", c_counted, counted)
        rates[which] = accesses / c_took
    return Row(what, name, budget, accesses / took, rates[0], rates[1], len(few) / python_took, counted[0] / accesses)


def _same(what: str, twin: str, theirs: Counted, ours: Counted) -> None:
    if theirs != ours:
        raise ToolFailed(f"bench tlb, {what}: the simulator counts {ours}, the {twin} program {theirs}")


def run_bench_tlb(progress: Progress, accesses: int = ACCESSES) -> TlbBenchResult:
    """Every figure, in less than a minute."""
    with tempfile.TemporaryDirectory(prefix="fleetsim-bench-") as name:
        folder = Path(name)
        progress("compiling", 0.0)
        program, compiler = compile_c(folder)
        rows = []
        for number, case in enumerate(CASES):
            progress(f"{case[1]}: {case[0]}", number / len(CASES))
            rows.append(measure(*case, program, folder, accesses))
    return TlbBenchResult(tuple(rows), compiler)
