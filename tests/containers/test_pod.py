# SPDX-License-Identifier: Apache-2.0
"""Pods as the kubelet sets them up: QoS class, oom_score_adj, cgroups, restart."""

from __future__ import annotations

import pytest

from fleetsim.containers.pod import Pod, cgroups_of, oom_score_adj, tasks_of
from fleetsim.containers.script import Script

GIB = 1 << 30


def pod(name: str = "p", requests: int | None = None, limits: int | None = None, ops: tuple[str, ...] = ("sleep 1",)) -> Pod:
    return Pod(name, "script", Script(ops=ops), requests, limits)


@pytest.mark.parametrize(("request_gib", "adj"), [(4, 938), (0.1, 999), (32, 500), (63.9, 3)])
def test_burstable_score_follows_the_request(request_gib: float, adj: int) -> None:
    """T-17.1: capacity 64 GiB; request 4 GiB → 938, 0.1 → 999, 32 → 500, 63.9 → 3."""
    assert oom_score_adj("burstable", int(request_gib * GIB), 64 * GIB) == adj


def test_guaranteed_is_shielded_and_besteffort_goes_first() -> None:
    assert oom_score_adj("guaranteed", 4 * GIB, 64 * GIB) == -997
    assert oom_score_adj("besteffort", 0, 64 * GIB) == 1000


@pytest.mark.parametrize(
    ("requests", "limits", "qos"),
    [(None, None, "besteffort"), (GIB, None, "burstable"), (GIB, 2 * GIB, "burstable"), (GIB, GIB, "guaranteed"), (None, GIB, "guaranteed")]
    + [(0, GIB, "burstable")],
)
def test_qos_follows_requests_and_limits(requests: int | None, limits: int | None, qos: str) -> None:
    """Limits alone are also requested (the API server's defaulting), so they make a pod Guaranteed."""
    assert pod(requests=requests, limits=limits).qos == qos


def test_the_tree_is_the_kubelets() -> None:
    """
    kubepods → burstable → pod → container with limits; guaranteed pods directly under kubepods; parents come before children
    """
    tree = cgroups_of("web-0", (pod("a", GIB, 2 * GIB), pod("b", None, GIB), pod("c")))
    parent = {cgroup.name: cgroup.parent for cgroup in tree}
    limits = {cgroup.name: cgroup.limits for cgroup in tree}
    containers = [name for name in parent if name.startswith("cri-containerd-")]
    above = [parent[parent[name]] for name in containers]
    assert above == ["kubepods-burstable.slice", "kubepods.slice", "kubepods-besteffort.slice"]
    assert [limits[name].get("memory.max") for name in containers] == [2 * GIB, GIB, None]
    assert all(limits[name]["memory.swap.max"] == 0 and limits[name]["memory.oom.group"] == 1 for name in containers)
    assert all("memory.min" not in limit and "memory.low" not in limit for limit in limits.values())
    seen = {""}
    for cgroup in tree:
        assert cgroup.parent in seen
        seen.add(cgroup.name)


def test_a_container_is_started_again_ten_seconds_after_its_death() -> None:
    (task,) = tasks_of("web-0", pod("a", GIB, 2 * GIB), 64 * GIB)
    assert task.restart_s == 10
    assert task.cgroup in {cgroup.name for cgroup in cgroups_of("web-0", (pod("a", GIB, 2 * GIB),))}


def test_names_of_cgroups_differ_between_hosts_and_not_between_runs() -> None:
    first, again, other = (cgroups_of(host, (pod(),))[-1].name for host in ("web-0", "web-0", "web-1"))
    assert first == again != other
