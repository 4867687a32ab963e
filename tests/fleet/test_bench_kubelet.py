# SPDX-License-Identifier: Apache-2.0
"""The bench of the kubelet measures what it says: the same hosts, looked after and not, with everything up."""

from __future__ import annotations

import pytest

from fleetsim.containers.kubelet import Kubelet
from fleetsim.fleet import bench_kubelet
from fleetsim.host import kubelet_types as kt
from fleetsim.host.shard import Shard


def test_the_hosts_have_thirty_containers_that_all_run_and_answer_their_probes() -> None:
    shard = Shard([bench_kubelet.host("h", probes=True)], seed=1, agent=Kubelet())
    shard.advance(0, bench_kubelet.WARM_UP_S * 10**9)
    containers = shard.records[0]["containers"]
    running = containers[containers["used"] == 1]
    assert len(running) == bench_kubelet.CONTAINERS
    assert all(int(state) == kt.RUNNING for state in running["state"]) and all(running["ready"])
    assert not [e for e in shard.drain_events() if e.kind in ("probe_fail", "restart", "eviction", "table_full")]


def test_it_prints_three_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_kubelet, "WARM_UP_S", 1)
    monkeypatch.setattr(bench_kubelet, "MEASURED_S", 2)
    stages: list[str] = []
    result = bench_kubelet.run_bench_kubelet(lambda stage, share: stages.append(stage), hosts=2)
    assert min(result.alone_us, result.kubelet_us, result.probes_us) > 0 and len(stages) == 3
    assert len(result.as_text().splitlines()) == 4 and result.as_json()["hosts"] == 2
