# SPDX-License-Identifier: Apache-2.0
"""A host that is copied from an equal one is the host that booting it gives, bit for bit, and knows its own names.

The naive twin boots every host by itself (`host/boot.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetsim.containers.pod import Pod
from fleetsim.containers.pod_spec import NodeOptions, PodSpecs
from fleetsim.containers.resources import Node
from fleetsim.containers.workload import WORKLOADS
from fleetsim.fleet.plan import make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.host import alike
from fleetsim.host.boot import boot, mem_total_pages
from fleetsim.host.programs import Names
from fleetsim.host.shard import TICK_NS, Shard
from fleetsim.host.spec import CgroupSpec, HostSpec, KubeletSpec, PlugIn, ProbeSpec, SwapSpec, TaskSpec, Work
from fleetsim.host.state import HOST
from fleetsim.registry import import_all
from tests.host.worlds import world

MIB, GIB = 1 << 20, 1 << 30
SCENARIOS = sorted((Path(__file__).parents[2] / "chaos_scenarios").glob("*.yaml"))
import_all("fleetsim.containers")


def pod(name: str, workload: str, limits_mib: int | None = None, more: dict[str, Any] | None = None, **arguments: Any) -> Pod:
    size = None if limits_mib is None else limits_mib * MIB
    return Pod(name, workload, WORKLOADS[workload].model_validate(arguments), size, size, **(more or {}))


MENU = (
    pod("web", "web", 512, load="50/s", slo={"latency": "200ms"}, start="2s"),
    pod("jvm", "jvm", 1024, load="30/s"),
    pod("redis", "redis", None, keys=50_000, load="200/s"),
    pod("pg", "postgres", 4096, data="/data/pg", load="100/s"),
    pod("idle", "idle", None, memory="200MiB"),
    pod("job", "batch", None, input="/data/stream", rate="50MiB/s"),
    pod("heap", "script", 256, ops=["allocator jemalloc", "malloc 20000 100-3000 0", "sleep 9"]),
    pod("files", "script", 256, ops=["write_file /new 3 10", "read_file /new 3 10", "stat_missing /var/none 50 10"]),
    pod("shm", "script", 256, {"empty_dirs": {"/cache": 0}}, ops=["write_file /cache/x 3 10", "write_file /dev/shm/y 1 1"]),
    pod("probed", "script", 64, {"probes": (ProbeSpec("liveness"), ProbeSpec("readiness"))}, ops=["mmap_anon a 9", "touch a 9 3"]),
)


@st.composite
def groups(draw: st.DrawFn) -> list[HostSpec]:
    """Hosts of which some are equal, in any order."""
    runtime = draw(st.sampled_from(["kubernetes", "docker", "systemd"]))
    memory_qos = runtime == "kubernetes" and draw(st.booleans())
    options = NodeOptions(Node(mem_total_pages(16 * GIB) * 4096), 1 * GIB, 8, runtime, memory_qos, kubelet=KubeletSpec(runtime))
    common = HostSpec(
        "",
        16 * GIB,
        cpus=8,
        numa_nodes=draw(st.sampled_from([1, 2])),
        sysctl=draw(st.sampled_from([{}, {"vm.swappiness": 10}, {"vm.nr_hugepages": 20}])),
        swaps=draw(st.sampled_from([(), (SwapSpec("/dev/vdb", GIB),), (SwapSpec("/dev/zram0", GIB, kind="zram"),)])),
        files={"/data/pg": 2 * GIB, "/data/stream": GIB},
        kubelet=options.kubelet,
        boot_unix_s=draw(st.sampled_from([0, 1_704_067_200])),
    )
    menus = draw(st.lists(st.lists(st.sampled_from(MENU), unique_by=lambda one: one.name, max_size=6), min_size=1, max_size=3))
    further = draw(st.lists(st.sampled_from([{}, {}, {"/big": GIB}]), min_size=2, max_size=9))
    specs = []
    for n, more in enumerate(further):
        pods = PodSpecs(f"h{n}", tuple(menus[n % len(menus)]), options)
        specs.append(replace(common, name=f"h{n}", pods=pods, files={**common.files, **more}))
    return specs


def booted_each(specs: Sequence[HostSpec], first_key: int) -> tuple[np.ndarray, list[Names]]:
    records = np.zeros(len(specs), HOST)
    return records, [boot(spec, records[i], first_key + i, TICK_NS) for i, spec in enumerate(specs)]


def same(specs: Sequence[HostSpec], first_key: int = 0) -> int:
    """Boot them, compare with the twin; how many hosts were not copied."""
    records = np.zeros(len(specs), HOST)
    boots = alike.Boots(records, TICK_NS)
    names = [boots.boot(i, spec, first_key + i) for i, spec in enumerate(specs)]
    twin, twin_names = booted_each(specs, first_key)
    for i, spec in enumerate(specs):
        assert records[i].tobytes() == twin[i].tobytes(), f"the record of {spec.name}"
        assert names[i] == twin_names[i]
        assert list(names[i].cgroups) == list(twin_names[i].cgroups)
    return len(boots._models)


@given(groups(), st.integers(0, 1 << 40))
@settings(max_examples=30)
def test_copied_is_booted_whatever_runs_there(specs: list[HostSpec], first_key: int) -> None:
    unlike = same(specs, first_key)
    assert unlike <= len({(tuple(p.name for p in s.pods), "/big" in s.files) for s in specs})


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_copied_is_booted_on_every_host_of_the_library(path: Path) -> None:
    plan = make_plan(load_scenario(path))
    if plan.size_class != "standard":
        pytest.skip(f"its hosts are of size class {plan.size_class}")
    same(plan.hosts[:40], 7)


def test_hosts_without_pods_are_copied_too_and_go_their_own_ways() -> None:
    spec = HostSpec(
        "a",
        GIB,
        cgroups=(CgroupSpec("box", "", {"memory.max": 64 * MIB}),),
        tasks=(TaskSpec("t", ("mmap_anon a 20", "touch a 20 100", "sleep 9"), cgroup="box"),),
    )
    specs = [spec, replace(spec, name="b"), replace(spec, name="c")]
    assert same(specs) == 1
    shard = Shard(specs, seed=3)
    shard.advance(1, 2_000_000_000)
    assert shard.records["now_ns"].tolist() == [0, 2_000_000_000, 0]
    assert shard.records["cgroups"]["usage"][:, 1].tolist()[::2] == [0, 0] and int(shard.records["cgroups"]["usage"][1, 1]) >= 5120
    shard.names_of(1).tasks["more"] = 5
    assert "more" not in shard.names_of(0).tasks and "more" not in shard.names_of(2).tasks


def test_only_so_many_hosts_are_remembered() -> None:
    many = [HostSpec(f"h{n}", GIB, files={f"/{n % 20}": MIB}) for n in range(40)]
    assert same(many) == alike.MODELS_MAX


class Idler:
    def step(self, kernel: Any) -> None:
        kernel.sleep(1)


def test_processes_of_plug_ins_are_each_host_s_own() -> None:
    work = Work("plugin", plugin=PlugIn("idler", Idler))
    specs = [HostSpec(name, GIB, tasks=(TaskSpec("p", (), work=work),)) for name in "ab"]
    shard = Shard(specs, seed=1)
    processes = [shard.names_of(i).plugins for i in range(2)]
    assert processes[0] and processes[0][0] is not processes[1][0]


def test_what_booting_has_not_written_is_not_touched() -> None:
    w = world(1024)
    content = np.frombuffer(w.row.tobytes(), np.uint8)
    parts = alike.written(content)
    again = np.zeros_like(content)
    for part in parts:
        again[part] = content[part]
    assert (again == content).all()
    assert sum(part.stop - part.start for part in parts) < len(content) // 2
    assert alike.written(np.zeros(5000, np.uint8)) == (slice(4608, 5000),)
