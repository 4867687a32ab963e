# SPDX-License-Identifier: Apache-2.0
"""`fleetsim bench tlb`: what it compares must be the same thing. Speed itself is not tested."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fleetsim.errors import ToolFailed
from fleetsim.fleet import bench_tlb
from fleetsim.hardware.tlb_patterns import Pattern
from fleetsim.hardware.tlb_profiles import find


def quiet(stage: str, share: float) -> None:
    """Progress that nobody watches."""


def test_the_simulator_plain_c_and_python_count_the_same(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    program, compiler = bench_tlb.compile_c(tmp_path)
    assert program is not None and "-O2" in compiler
    for name in ("generic", "skylake", "zen3", "zen4", "neoverse-n1"):
        for working_set in (1 << 18, 1 << 23, 1 << 34):
            addresses = np.empty(20_000, np.int64)
            Pattern("zipf", working_set).maker().fill(addresses, 0)
            ours = bench_tlb.simulate(find(name), addresses)[0]
            assert bench_tlb.in_c(program, find(name), addresses, tmp_path)[0] == ours
            assert bench_tlb.in_c(program, find(name), addresses, tmp_path, many=24)[0] == ours
            assert bench_tlb.in_python(find(name), addresses)[0] == ours
            assert sum(ours[:3]) == 20_000


def test_without_a_compiler_the_column_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    result = bench_tlb.run_bench_tlb(quiet, accesses=5000)
    assert "no compiler is installed" in result.as_text() and len(result.rows) == len(bench_tlb.CASES)
    assert all(row.c_per_s is None and row.accesses_per_s > 0 for row in result.rows)


def test_twins_that_differ_are_no_result() -> None:
    with pytest.raises(ToolFailed, match="the C program"):
        bench_tlb._same("x", "C", (1, 2, 3, 4), (1, 2, 3, 5))
