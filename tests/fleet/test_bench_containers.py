# SPDX-License-Identifier: Apache-2.0
"""The bench of thirty real workloads measures what it says; and a host that passed the check of its size never finds a table full."""

from __future__ import annotations

from typing import Any

import pytest

from fleetsim.containers.kubelet import Kubelet
from fleetsim.fleet import bench_containers
from fleetsim.fleet.bench_containers import host
from fleetsim.fleet.capacity import needs, size_class_for
from fleetsim.host import kubelet_types as kt
from fleetsim.host.shard import Shard


@pytest.mark.parametrize("pressure", [False, True])
def test_thirty_containers_of_all_workloads_fit_into_size_class_standard(pressure: bool) -> None:
    spec = host("h", pressure=pressure)
    assert len(spec.pods) == 30
    assert size_class_for(spec, []) == "standard"


def used(row: Any) -> dict[str, int]:
    """Rows of the tables that fleets run out of first."""
    return {
        "cohorts": int((row["cohorts"]["group"] >= 0).sum()),
        "groups": int(row["groups"]["used"].sum()),
        "areas": int((row["areas"]["kind"] != 0).sum()),
        "mappings": int((row["mappings"]["used"] != 0).sum()),
    }


def test_what_was_counted_is_enough_while_every_redis_saves_at_once() -> None:
    """The worst moment: all forks are alive, both files of each are there, and every backend of the database is."""
    spec = host("h", pressure=True)
    wanted = {need.field: need.rows for need in needs(spec, [])}
    shard = Shard([spec], seed=1, agent=Kubelet())
    most = dict.fromkeys(("cohorts", "groups", "areas", "mappings"), 0)
    for half in range(1, 640):
        shard.advance(0, half * 500_000_000)
        most = {name: max(most[name], rows) for name, rows in used(shard.records[0]).items()}
    events = shard.drain_events()
    containers = shard.records[0]["containers"]
    running = containers[containers["used"] == 1]
    assert len(running) == 30 and all(int(state) == kt.RUNNING for state in running["state"])
    assert sum(event.kind == "save_end" for event in events) == 6
    assert not [event for event in events if event.kind in ("table_full", "refused", "oom_kill", "save_failed", "eviction")]
    assert all(most[name] <= wanted[name] for name in most), (most, wanted)
    assert most["cohorts"] > wanted["cohorts"] * 8 // 10, "the count is not far too high either"


def test_it_prints_five_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WARM_UP_S", 2), ("MEASURED_S", 4), ("PART_S", 2), ("SCRAPE_S", 2)):
        monkeypatch.setattr(bench_containers, name, value)
    result = bench_containers.run_bench_containers(lambda stage, share: None, hosts=2)
    by_scrapes = (result.calm_by_scrapes_us, result.pressure_by_scrapes_us)
    assert min(result.calm_us, result.between_saves_us, result.pressure_us, *by_scrapes) > 0
    assert result.between_saves_us <= result.calm_us
    assert len(result.as_text().splitlines()) == 6 and result.as_json()["hosts"] == 2
