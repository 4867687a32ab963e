# SPDX-License-Identifier: Apache-2.0
"""Faults on a simulated host: what they are meant to change changes, and what they must not touch stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fleetsim.fleet.plan import Plan, make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.host.shard import Shard
from fleetsim.host.spec import Event
from fleetsim.linux.vmstat import MEMINFO_FIELDS, meminfo
from fleetsim.units import NS_PER_S

FLEET = """\
summary: x
duration: 10m
fleet:
  - hosts: 1
    name: a
    memory: 1GiB
    pods:
      - {name: app, workload: script, requests: 64MiB, limits: 256MiB, ops: [mmap_anon heap 64, touch heap 64 64, rewrite heap 0 4 random]}
timeline:
  - {at: 10s, on: %s}
"""


def booted(folder: Path, entry: str) -> tuple[Plan, Shard]:
    file = folder / "x.yaml"
    file.write_text(FLEET % entry, encoding="utf-8")
    plan = make_plan(load_scenario(file))
    shard = Shard(plan.hosts, plan.seed)
    for command in plan.commands():
        shard.command(command)
    return plan, shard


def at(shard: Shard, seconds: float) -> dict[str, int]:
    """/proc/meminfo in MiB."""
    shard.advance(0, int(seconds * NS_PER_S))
    values = np.zeros(len(MEMINFO_FIELDS), np.int64)
    meminfo(shard.records[0], values)
    return {name: int(value) // 1024 for name, value in zip(MEMINFO_FIELDS, values, strict=True)}


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


# A container runtime sets memory.oom.group: the kernel kills the victim, then every process of the cgroup, and the victim, which is
# still dying, a second time. Real kernels report it so (tests/ground_truth/h18_oom_group/dmesg.txt: "Killed process 86" twice). The
# history tells each death once, the log and the counters are the kernel's.
def test_a_leak_in_a_container_ends_at_its_limit_with_a_kill_inside(tmp_path: Path) -> None:
    _, shard = booted(tmp_path, "app, fault: leaking_allocator, rate: 10MiB/s")
    before = at(shard, 9)
    assert at(shard, 20)["AnonPages"] - before["AnonPages"] in range(95, 105), "ten seconds of 10 MiB/s"
    at(shard, 40)
    events = shard.drain_events()
    (kill,) = [event for event in events if event.kind == "oom_kill"]
    assert sum("Killed process" in line for line in shard.dmesg[0]) == 2
    assert kill.subject == "app"
    assert kill.data["constraint"] == "memcg"
    assert 28e9 < kill.t_ns < 32e9, "256 MiB − 64 MiB at 10 MiB/s, from second 10"


def test_a_leak_outside_containers_costs_an_innocent_pod_its_life_first(tmp_path: Path) -> None:
    """The pod has oom_score_adj 938 (64 MiB of 1 GiB requested), the leaking daemon 0: the kernel takes the pod although it is small."""
    _, shard = booted(tmp_path, "a, fault: leaking_allocator, rate: 50MiB/s")
    low = min(at(shard, second)["MemAvailable"] for second in range(20, 30))
    at(shard, 60)
    kills = [event for event in shard.drain_events() if event.kind == "oom_kill"]
    assert [kill.subject for kill in kills] == ["app", "leaking_allocator-1"]
    assert sum("Killed process" in line for line in shard.dmesg[0]) == 3, "the daemon has no memory.oom.group"
    assert {kill.data["constraint"] for kill in kills} == {"none"}
    assert low < 100


def test_a_spike_holds_its_memory_and_gives_it_back(tmp_path: Path) -> None:
    _, shard = booted(tmp_path, "app, fault: memory_spike, size: 100MiB, for: 20s")
    base, held, after = at(shard, 9)["AnonPages"], at(shard, 25)["AnonPages"], at(shard, 35)["AnonPages"]
    assert held - base in range(98, 103)
    assert abs(after - base) <= 2
    assert "oom_kill" not in kinds(shard.drain_events())


def test_a_flood_turns_free_memory_into_cache_and_hurts_nobody(tmp_path: Path) -> None:
    _, shard = booted(tmp_path, "a, fault: page_cache_flood, rate: 100MiB/s, for: 1m")
    before, during = at(shard, 9), at(shard, 60)
    assert during["MemFree"] < 120 < before["MemFree"]
    assert during["Cached"] - before["Cached"] > 600
    assert during["MemAvailable"] > 0.9 * before["MemAvailable"]
    at(shard, 90)
    assert not {"oom_kill", "impact_start"} & set(kinds(shard.drain_events()))


def test_swappiness_is_set_and_put_back(tmp_path: Path) -> None:
    _, shard = booted(tmp_path, "a, fault: swappiness, value: 133, for: 10s")
    seen = []
    for second in (9, 15, 25):
        at(shard, second)
        seen.append(int(shard.records[0]["sysctl"]["swappiness"]))
    assert seen == [60, 133, 60]


def test_a_limit_is_changed_and_put_back(tmp_path: Path) -> None:
    _, shard = booted(tmp_path, "app, fault: memory_limit, limit: 100MiB, for: 10s")
    seen = []
    for second in (9, 15, 25):
        at(shard, second)
        cgroups = shard.records[0]["cgroups"]
        seen.append(sorted(int(pages) // 256 for pages in cgroups["max"][cgroups["used"] == 1])[:2])
    assert seen == [[256, 256], [100, 100], [256, 256]], "pod and container, MiB"
