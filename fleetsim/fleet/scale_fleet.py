# SPDX-License-Identifier: Apache-2.0
"""The fleet that `fleetsim bench scale` measures with: any number of alike hosts, coupled by a service with a replica on each.

    standard   64 GiB, 16 CPUs, 30 containers: one web server, nine heaps that are used, ten readers of files, ten that hold memory
    small      64 GiB, 3 small containers: one web server, one heap that is used, one that holds memory (a record of 32 KiB)

Rules: epochs last one second, as the service's load balancer acts in each; one host in a hundred has a leak that returns after a
restart, so that the control plane has something to do. Nothing but the number of hosts changes from one size to the next.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from fleetsim.fleet.plan import Plan, make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.law import size_class

NAME = "scale"
NEEDED = (
    "node_memory_MemAvailable_bytes",
    "node_memory_MemTotal_bytes",
    "node_vmstat_oom_kill",
    "node_vmstat_pgmajfault",
    "node_pressure_memory_waiting_seconds_total",
)
"""What the usual rules about memory read: the metrics of profile `rules`."""
REQUESTS_PER_HOST = 20
REQUESTS_MOST = 1_000_000  # per second, of one service
WEB = "{name: web, workload: web, limits: 1GiB, working_set: 64MiB, request_memory: 256KiB, cpu: 2ms, workers: 8, queue: 200, timeout: 2s}"
SMALL_WEB = "{name: web, workload: web, limits: 200MiB, working_set: 16MiB, request_memory: 64KiB, cpu: 2ms, workers: 4, timeout: 2s}"


def small() -> bool:
    return size_class() == "small"


def containers() -> int:
    return 3 if small() else 30


def scenario_text(hosts: int, seconds: int, *, web_only: bool = False) -> str:
    """The scenario, as YAML. `web_only`: one container per host, for fleets that are only planned."""
    host = _host("64GiB", 4, "", [WEB]) if web_only else _small_host() if small() else _standard_host()
    rate = min(REQUESTS_MOST, hosts * REQUESTS_PER_HOST)
    return f"""\
summary: So many alike hosts behind one load balancer, one in a hundred with a leak.
seed: 1
duration: {seconds}s
fleet:
  - hosts: {hosts}
    name: node
{host}
services:
  - {{name: front, pods: web, load: {{low: {rate}/s, high: {rate}/s}}, retries: 1}}
timeline:
  - {{at: 20s, fault: leaking_allocator, on: 1% of {"web" if web_only else "heap0"}, rate: 1MiB/s}}
"""


def scale_plan(hosts: int, seconds: int, *, web_only: bool = False) -> Plan:
    with tempfile.TemporaryDirectory(prefix="fleetsim-scale-") as folder:
        file = Path(folder) / f"{NAME}.yaml"
        file.write_text(scenario_text(hosts, seconds, web_only=web_only), encoding="utf-8")
        return make_plan(load_scenario(file))


def _standard_host() -> str:
    files = ", ".join(f"/data/{n}: 1GiB" for n in range(10))
    heap = "mmap_anon heap 512, touch heap 512 200, 'rewrite heap 0 50 hot:0.1:0.9'"
    pods = [WEB]
    pods += [f"{{name: heap{n}, workload: script, requests: 256MiB, limits: 1GiB, ops: [{heap}]}}" for n in range(9)]
    pods += [f"{{name: read{n}, workload: script, requests: 256MiB, limits: 2GiB, ops: [read_file /data/{n} 0 20]}}" for n in range(10)]
    pods += [f"{{name: idle{n}, workload: idle, memory: 100MiB, requests: 100MiB, limits: 512MiB}}" for n in range(10)]
    return _host("64GiB", 16, f"    files: {{{files}}}\n    kubelet: {{}}\n", pods)


def _small_host() -> str:
    heap = "mmap_anon heap 64, touch heap 64 50, rewrite heap 0 5 seq"
    pods = [
        SMALL_WEB,
        f"{{name: heap0, workload: script, limits: 100MiB, ops: [{heap}]}}",
        "{name: idle0, workload: idle, memory: 20MiB, limits: 50MiB}",
    ]
    return _host("64GiB", 4, "", pods)


def _host(memory: str, cpus: int, more: str, pods: list[str]) -> str:
    lines = "\n".join(f"      - {pod}" for pod in pods)
    return f"    memory: {memory}\n    cpus: {cpus}\n{more}    pods:\n{lines}"
