# SPDX-License-Identifier: Apache-2.0
"""`fleetsim bench`: how fast simulated hosts are on this machine, beside a per-page twin and an empty process of SimPy.

The reference host has 64 GiB, 16 CPUs and 30 containers with a mixed load: ten services with a hot set, ten readers of
files, ten sweepers. *Calm*: everything fits. *Pressure*: one more container streams a file at 500 MiB/s, so kswapd
reclaims all the time. Hosts are stepped in turn, so that their records do not stay in the processor's caches.
Figures are processor time of this process, per simulated host and second, at the fleet's default tick.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from fleetsim.fleet.bench_twin import simulated_us, twin_us
from fleetsim.host.shard import TICK_NS, Shard
from fleetsim.host.spec import CgroupSpec, DiskSpec, HostSpec, TaskSpec
from fleetsim.host.state import HOST

GIB = 1 << 30
NS_PER_S = 1_000_000_000
HOSTS = 16
WARM_UP_S, MEASURED_S = 300, 60
Progress = Callable[[str, float], None]
COMPILE = "from fleetsim.host.shard import Shard; from fleetsim.host.spec import HostSpec; Shard([HostSpec('h', 1 << 30)], 1).advance(0, 1)"


@dataclass(frozen=True)
class BenchResult:
    calm_us: float  # per host-second
    pressure_us: float
    reclaimed_mib_s: float  # what kswapd reclaimed per host and second under pressure
    bytes_per_host: int
    cold_s: float  # first run on a machine: interpreter, imports, compiling every law
    warm_s: float  # the same again
    help_s: float  # `fleetsim --help`, warm
    small_us: float  # a host of 256 MiB with two programs, per host-second
    twin_us: float  # its naive per-page twin in plain Python
    simpy_step_us: float | None  # one empty SimPy process per host, one step; None if SimPy is not installed
    tick_ms: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        peer = "SimPy is not installed"
        if self.simpy_step_us is not None:
            peer = f"{self.calm_us / self.simpy_step_us:.0f} times one empty SimPy step ({self.simpy_step_us:.1f} µs)"
        twin = f"{self.twin_us / self.small_us:.0f} times faster than its per-page twin in plain Python ({self.twin_us / 1000:.0f} ms)"
        rows = [
            ("calm reference host", f"{self.calm_us:.1f} µs per host-second", "≤ 10 µs", peer),
            ("under pressure", f"{self.pressure_us:.1f} µs per host-second ({self.reclaimed_mib_s:.0f} MiB/s reclaimed)", "≤ 50 µs", ""),
            ("small host, two programs", f"{self.small_us:.1f} µs per host-second", "", twin),
            ("one host's record", f"{self.bytes_per_host / 1024:.0f} KiB, 30 containers", "≤ 256 KiB", ""),
            ("cold start", f"{self.cold_s:.1f} s, compiling every law", "≤ 90 s", ""),
            ("warm start", f"{self.warm_s:.1f} s to the first simulated instant", "≤ 3 s", ""),
            ("fleetsim --help, warm", f"{self.help_s:.2f} s", "≤ 0.5 s", ""),
        ]
        head = f"tick {self.tick_ms} ms, one core, {HOSTS} hosts in turn"
        lines = [head, f"{'what':24} {'measured':58} {'budget':12} peer in the same run"]
        return "\n".join(lines + [f"{a:24} {b:58} {c:12} {d}" for a, b, c, d in rows])


def reference_host(name: str, *, pressure: bool) -> HostSpec:
    """The host of the speed budget (see the module)."""
    cgroups, tasks, files = [], [], {}
    for i in range(10):
        for kind, limit_mib in (("svc", 2048), ("read", 4096), ("sweep", 512)):
            cgroups.append(CgroupSpec(f"{kind}{i}", "", {"memory.max": limit_mib << 20}))
        files[f"/data/{i}"] = 2 * GIB
        service = ("mmap_anon heap 1024", "touch heap 1024 200", "rewrite heap 0 50 hot:0.1:0.9")
        tasks.append(TaskSpec(f"svc{i}", service, 1 + i / 10, f"svc{i}"))
        tasks.append(TaskSpec(f"read{i}", (f"read_file /data/{i} 0 20",), 2 + i / 10, f"read{i}"))
        tasks.append(TaskSpec(f"sweep{i}", ("mmap_anon buf 256", "touch buf 256 100", "rewrite buf 0 20 seq"), 3 + i / 10, f"sweep{i}"))
    if pressure:
        files["/data/stream"] = 500 * GIB
        tasks.append(TaskSpec("stream", ("read_file /data/stream 0 500",), 5))
    return HostSpec(
        name,
        64 * GIB,
        cpus=16,
        swap_bytes=8 * GIB,
        disk=DiskSpec(3_000_000_000, 80.0),
        files=files,
        cgroups=tuple(cgroups),
        tasks=tuple(tasks),
    )


def measure_hosts(*, pressure: bool, progress: Progress, part: float) -> tuple[float, float]:
    """(µs per host-second, MiB/s reclaimed per host), after the load has settled."""
    shard = Shard([reference_host(f"h{i}", pressure=pressure) for i in range(HOSTS)], seed=1)
    steal = [0, 0]
    began = 0.0
    for second in range(1, WARM_UP_S + MEASURED_S + 1):
        if second == WARM_UP_S + 1:
            steal[0] = reclaimed(shard)
            began = time.process_time()
        for i in range(HOSTS):
            shard.advance(i, second * NS_PER_S)
        progress("stepping hosts under pressure" if pressure else "stepping calm hosts", part + 0.4 * second / (WARM_UP_S + MEASURED_S))
    spent = time.process_time() - began
    steal[1] = reclaimed(shard)
    host_seconds = HOSTS * MEASURED_S
    return spent / host_seconds * 1e6, (steal[1] - steal[0]) / 256 / host_seconds


def reclaimed(shard: Shard) -> int:
    from fleetsim.linux.mm_types import VM

    return int(shard.records["vm"][:, VM["pgsteal_anon"]].sum() + shard.records["vm"][:, VM["pgsteal_file"]].sum())


def run_python(arguments: list[str], cache: str | None) -> float:
    """Wall seconds of one Python process."""
    environment = dict(os.environ)
    if cache is not None:
        environment["FLEETSIM_CACHE_DIR"] = cache
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def simpy_step_us() -> float | None:
    """One step of an empty SimPy process per host, µs."""
    try:
        import simpy
    except ImportError:
        return None
    world = simpy.Environment()

    def host() -> Any:
        while True:
            yield world.timeout(1)

    for _ in range(1000):
        world.process(host())
    began = time.process_time()
    world.run(until=100)
    return (time.process_time() - began) / (1000 * 100) * 1e6


def run_bench(progress: Progress) -> BenchResult:
    """Every figure, in about two minutes (most of it one cold compilation)."""
    with tempfile.TemporaryDirectory(prefix="fleetsim-bench-") as cache:
        progress("compiling every law from cold", 0.0)
        cold = run_python(["-c", COMPILE], cache)
        warm = run_python(["-c", COMPILE], cache)
    shown = run_python(["-m", "fleetsim", "--help"], None)
    calm, _ = measure_hosts(pressure=False, progress=progress, part=0.1)
    pressure, stolen = measure_hosts(pressure=True, progress=progress, part=0.5)
    progress("stepping a small host and its per-page twin", 0.9)
    small, twin = simulated_us(), twin_us()
    return BenchResult(calm, pressure, stolen, HOST.itemsize, cold, warm, shown, small, twin, simpy_step_us(), TICK_NS // 1_000_000)
