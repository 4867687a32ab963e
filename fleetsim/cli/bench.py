# SPDX-License-Identifier: Apache-2.0
"""`fleetsim bench`: how fast it is on this machine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from fleetsim.cli.engines import Ray, needs_ray
from fleetsim.cli.options import METRIC_PROFILE, Json
from fleetsim.cli.output import ProgressCall, invocation, progress
from fleetsim.errors import EXIT_OK, BadInput


class Subject(StrEnum):
    hosts = "hosts"
    tlb = "tlb"
    malloc = "malloc"
    kubelet = "kubelet"
    containers = "containers"
    plugin = "plugin"
    scale = "scale"


WHAT = (
    "hosts: simulated hosts. containers: hosts with thirty containers of all workloads. tlb: the exact TLB simulator. "
    "malloc: the exact allocator. kubelet: looking after thirty containers. plugin: workloads in Python. "
    "scale: fleets of growing size, in this process or on a Ray cluster, and what runs out first."
)
HOSTS_MOST = 10_000_000


def bench(
    subject: Annotated[Subject, typer.Argument(help=WHAT)] = Subject.hosts,
    hosts: Annotated[str | None, typer.Option("--hosts", help="Of scale: the sizes (default: 100,1000,10000).", metavar="N[,N…]")] = None,
    ray: Ray = None,
    duration: Annotated[
        str | None, typer.Option("--duration", help="Of scale: simulated time of each run (default: by its size).", metavar="TIME")
    ] = None,
    profile: Annotated[str | None, METRIC_PROFILE] = None,
    stand_in: Annotated[
        str | None,
        typer.Option(
            "--stand-in", help="Of scale: no hosts, but so many stand-ins for actors: what the controller takes.", metavar="N[,N…]"
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Measure speed on this machine: µs per host-second, memory and start; or exact accesses, or calls of malloc, per second."""
    of_scale = {"--hosts": hosts, "--ray": ray, "--duration": duration, "--profile": profile, "--stand-in": stand_in}
    if subject is not Subject.scale and (given := [name for name, value in of_scale.items() if value is not None]):
        raise BadInput(f"{given[0]} goes with fleetsim bench scale, not with fleetsim bench {subject}")
    result: Any
    with progress() as show:
        if subject is Subject.scale:
            result = _scale(show, hosts, ray, duration, profile or "rules", stand_in)
        elif subject is Subject.tlb:
            from fleetsim.fleet.bench_tlb import run_bench_tlb

            result = run_bench_tlb(progress=show)
        elif subject is Subject.malloc:
            from fleetsim.fleet.bench_malloc import run_bench_malloc

            result = run_bench_malloc(progress=show)
        elif subject is Subject.kubelet:
            from fleetsim.fleet.bench_kubelet import run_bench_kubelet

            result = run_bench_kubelet(progress=show)
        elif subject is Subject.plugin:
            from fleetsim.fleet.bench_plugin import run_bench_plugin

            result = run_bench_plugin(progress=show)
        elif subject is Subject.containers:
            from fleetsim.fleet.bench_containers import run_bench_containers

            result = run_bench_containers(progress=show)
        else:
            from fleetsim.fleet.bench import run_bench

            result = run_bench(progress=show)
    if json:
        invocation.print_json(result.as_json())
    else:
        print(result.as_text())
    return EXIT_OK


def _scale(show: ProgressCall, hosts: str | None, ray: str | None, duration: str | None, profile: str, stand_in: str | None) -> Any:
    from fleetsim.fleet.bench_scale import HOSTS, run_bench_scale
    from fleetsim.fleet.scale_meter import WARM_UP_S

    sizes = HOSTS if hosts is None else _numbers("--hosts", hosts)
    seconds = None if duration is None else _seconds(duration, WARM_UP_S)
    if stand_in is None:
        if ray is not None:
            needs_ray("--ray")
        return run_bench_scale(show, sizes, ray, seconds, profile)
    if ray is not None:
        raise BadInput("--stand-in needs no cluster; leave --ray out")
    needs_ray("--stand-in")
    from fleetsim.fleet.bench_stand_in import run_bench_stand_in

    return run_bench_stand_in(show, sizes, _numbers("--stand-in", stand_in), seconds, profile)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    numbers = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= HOSTS_MOST for part in numbers):
        raise BadInput(f"{option} is {text!r}; write whole numbers from 1 to {HOSTS_MOST:,}, such as 100,1000")
    return tuple(int(part) for part in numbers)


def _seconds(text: str, warm_up_s: int) -> int:
    from fleetsim.units import NS_PER_S, duration_ns

    least = warm_up_s + 1
    try:
        if (seconds := duration_ns(text) // NS_PER_S) >= least:
            return seconds
    except ValueError:
        pass
    raise BadInput(f"--duration is {text!r}; write {least}s or more, such as 2m: the first {warm_up_s} s are not measured")
