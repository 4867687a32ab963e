# SPDX-License-Identifier: Apache-2.0
"""What a hundred hosts cost that run thirty containers of what runs in a shop: servers with users, not scripts.

    14 web (50 requests/s each), 6 JVMs (30/s), 6 Redis (200/s, 500,000 keys, default save points), PostgreSQL (100/s on 8 GiB of
    data), 3 idle; 64 GiB, 16 CPUs, 8 GiB of swap, a kubelet that may evict

*Calm*: all fits, measured over five minutes, so that each Redis saves once; and the same between two saves. *Pressure*: one of the idle
ones is a job instead that streams a file at 500 MiB/s, so kswapd works all the time.
Hosts are stepped in turn, so that their records do not stay in the processor's caches: a second at a time, as a fleet with services is,
and from scrape to scrape, as others are. Figures are processor time of this process per simulated host and second.
Leaves out: probes (`bench_kubelet.py`), scrapes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from fleetsim.containers.kubelet import Kubelet
from fleetsim.containers.pod import Pod
from fleetsim.containers.pod_spec import NodeOptions, PodSpecs
from fleetsim.containers.resources import Node
from fleetsim.containers.workload import WORKLOADS
from fleetsim.fleet.disks import DISKS
from fleetsim.host.boot import mem_total_pages
from fleetsim.host.shard import Shard
from fleetsim.host.spec import HostSpec, KubeletSpec
from fleetsim.host.state import HOST
from fleetsim.linux.mm_types import VM
from fleetsim.registry import import_all

GIB, MIB, NS_PER_S = 1 << 30, 1 << 20, 10**9
MEMORY, SWAP, CPUS = 64 * GIB, 8 * GIB, 16
WARM_UP_S, MEASURED_S, PART_S = 330, 300, 30  # a Redis saves every 300 s if 100 keys changed: once while it is measured
SCRAPE_S = 15
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class ContainersBench:
    hosts: int
    calm_us: float  # per host-second, saves included
    between_saves_us: float  # … least of the parts of 30 s
    pressure_us: float
    calm_by_scrapes_us: float  # … stepped from scrape to scrape
    pressure_by_scrapes_us: float
    reclaimed_mib_s: float  # per host
    bytes_per_host: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        rows = (
            ("calm, saves of Redis included", f"{self.calm_us:6.1f}", "≤ 50"),
            ("… between two saves", f"{self.between_saves_us:6.1f}", ""),
            ("under pressure", f"{self.pressure_us:6.1f}", f"≤ 50   {self.reclaimed_mib_s:.0f} MiB/s reclaimed"),
            ("calm, from scrape to scrape", f"{self.calm_by_scrapes_us:6.1f}", "≤ 50"),
            ("under pressure, from scrape to scrape", f"{self.pressure_by_scrapes_us:6.1f}", "≤ 50"),
        )
        head = f"{self.hosts} hosts × 30 containers of real workloads, {self.bytes_per_host >> 10} KiB each, µs per host-second"
        return "\n".join([head, *(f"{what:38} {us}   {more}" for what, us, more in rows)])


def pods(*, pressure: bool) -> tuple[Pod, ...]:
    import_all("fleetsim.containers")

    def pod(name: str, workload: str, requests_mib: int | None = None, **arguments: Any) -> Pod:
        requests = None if requests_mib is None else requests_mib * MIB
        return Pod(name, workload, WORKLOADS[workload].model_validate(arguments), requests, requests and 2 * requests)

    def served(latency: str, start: int) -> dict[str, Any]:
        return {"slo": {"latency": latency}, "start": f"{start}s"}

    web = [pod(f"web{n}", "web", 512, load="50/s", **served("200ms", n)) for n in range(14)]
    jvm = [pod(f"jvm{n}", "jvm", 1024, load="30/s", **served("500ms", n)) for n in range(6)]
    redis = [pod(f"redis{n}", "redis", 512, keys=500_000, load="200/s", **served("50ms", n)) for n in range(6)]
    database = pod("pg", "postgres", 4096, data="/data/pg", load="100/s", **served("200ms", 0))
    idle = [pod(f"idle{n}", "idle", memory="200MiB") for n in range(2 if pressure else 3)]
    stream = [pod("stream", "batch", input="/data/stream", rate="500MiB/s")] if pressure else []
    return (*web, *jvm, *redis, database, *idle, *stream)


def host(name: str, *, pressure: bool) -> HostSpec:
    """One of the hosts (see the module)."""
    kubelet = KubeletSpec(eviction_hard_bytes=100 * MIB)
    options = NodeOptions(Node(mem_total_pages(MEMORY) * 4096), SWAP, CPUS, kubelet=kubelet)
    return HostSpec(
        name,
        MEMORY,
        cpus=CPUS,
        swap_bytes=SWAP,
        disk=DISKS["nvme"],
        files={"/data/pg": 8 * GIB} | ({"/data/stream": 500 * GIB} if pressure else {}),
        pods=PodSpecs(name, pods(pressure=pressure), options),
        kubelet=kubelet,
    )


def measure(hosts: int, *, pressure: bool, step_s: int = 1, progress: Progress) -> tuple[float, float, float]:
    """(µs per host-second, the least of its parts, MiB/s that kswapd reclaimed per host) once the load has settled; `step_s` at a time."""
    shard = Shard([host(f"h{n}", pressure=pressure) for n in range(hosts)], seed=1, agent=Kubelet())
    what, before = "stepping hosts under pressure" if pressure else "stepping calm hosts", 0
    parts: list[float] = []
    began = 0.0
    for second in range(step_s, WARM_UP_S + MEASURED_S + 1, step_s):
        if second > WARM_UP_S and (second - WARM_UP_S - step_s) % PART_S == 0:
            began = time.process_time()
            before = before or reclaimed(shard)
        for n in range(hosts):
            shard.advance(n, second * NS_PER_S)
        if second > WARM_UP_S and (second - WARM_UP_S) % PART_S == 0:
            parts.append((time.process_time() - began) / (hosts * PART_S) * 1e6)
        progress(what, (0.5 if pressure else 0.0) + 0.5 * second / (WARM_UP_S + MEASURED_S))
    stolen = (reclaimed(shard) - before) / 256 / (hosts * MEASURED_S)
    return sum(parts) / len(parts), min(parts), stolen


def reclaimed(shard: Shard) -> int:
    return int(shard.records["vm"][:, VM["pgsteal_anon"]].sum() + shard.records["vm"][:, VM["pgsteal_file"]].sum())


def run_bench_containers(progress: Progress, hosts: int = 100) -> ContainersBench:
    calm, between, _ = measure(hosts, pressure=False, progress=progress)
    pressure, _, stolen = measure(hosts, pressure=True, progress=progress)
    calm_by_scrapes, _, _ = measure(hosts, pressure=False, step_s=SCRAPE_S, progress=progress)
    pressure_by_scrapes, _, _ = measure(hosts, pressure=True, step_s=SCRAPE_S, progress=progress)
    return ContainersBench(hosts, calm, between, pressure, calm_by_scrapes, pressure_by_scrapes, stolen, HOST.itemsize)
