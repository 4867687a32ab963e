# SPDX-License-Identifier: Apache-2.0
"""`fleetsim bench malloc`: what it measures is there and positive; how fast it is, is no test."""

from __future__ import annotations

import shutil

import pytest

from fleetsim.fleet import bench_malloc


def test_each_case_is_measured_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_malloc, "CASES", (("small blocks", "leak", {"blocks": 900, "most": 128}),))
    monkeypatch.setattr(bench_malloc, "PLAIN_BLOCKS", 60)
    stages: list[str] = []
    result = bench_malloc.run_bench_malloc(lambda stage, share: stages.append(stage))
    (row,) = result.as_json()["rows"]
    assert row["ops"] > 1000 and row["simulated_per_s"] > row["python_per_s"] > 0
    assert (row["real_per_s"] is None) == (shutil.which("cc") is None)
    assert "small blocks" in result.as_text() and stages
