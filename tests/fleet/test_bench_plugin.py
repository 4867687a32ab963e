# SPDX-License-Identifier: Apache-2.0
"""`fleetsim bench plugin` measures what it says: hosts whose workload does run, in Python and compiled, and figures that add up."""

from __future__ import annotations

import functools

import pytest

from fleetsim.fleet import bench_plugin
from fleetsim.fleet.bench_plugin import LOAD, Shop, Steps, plugged, run_bench_plugin
from fleetsim.host.shard import Shard
from fleetsim.host.spec import HostSpec, TaskSpec


def test_what_is_measured_runs() -> None:
    work = Shop.Arguments.model_validate(LOAD).processes("p")[0].work
    shop = Shard([HostSpec("h", 1 << 30, tasks=(TaskSpec("p", (), work=work),))], seed=1)
    shop.advance(0, 20 * 10**9)
    assert int(shop.records[0]["works"][0]["server"]["served"]) == pytest.approx(200 * 19, rel=0.05)
    steps = Shard([HostSpec("h", 1 << 30, tasks=(TaskSpec("p", (), work=plugged(functools.partial(Steps, 4))),))], seed=1)
    steps.advance(0, 20 * 10**9)
    assert int(steps.records[0]["tasks"][0]["utime_ns"]) == pytest.approx(20 * 100 * 4 * 1000, rel=0.01), "a hundred steps a second"


def test_its_table_has_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_plugin, "WARM_UP_S", 1)
    monkeypatch.setattr(bench_plugin, "MEASURED_S", 4)
    result = run_bench_plugin(lambda what, share: None)
    assert result.step_us > 0 and result.server_us > 0
    assert set(result.as_json()) == {"step_us", "call_us", "server_us", "web_us"}
    assert len(result.as_text().splitlines()) == 5
