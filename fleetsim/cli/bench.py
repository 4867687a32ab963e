# SPDX-License-Identifier: Apache-2.0
"""`fleetsim bench`: how fast it is on this machine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from fleetsim.cli.options import Json
from fleetsim.cli.output import invocation, progress
from fleetsim.errors import EXIT_OK


class Subject(StrEnum):
    hosts = "hosts"
    tlb = "tlb"
    malloc = "malloc"
    kubelet = "kubelet"
    containers = "containers"
    plugin = "plugin"


WHAT = (
    "hosts: simulated hosts. containers: hosts with thirty containers of all workloads. tlb: the exact TLB simulator. "
    "malloc: the exact allocator. kubelet: looking after thirty containers. plugin: workloads in Python."
)


def bench(subject: Annotated[Subject, typer.Argument(help=WHAT)] = Subject.hosts, json: Json = False) -> int:
    """Measure speed on this machine: µs per host-second, memory and start; or exact accesses, or calls of malloc, per second."""
    result: Any
    with progress() as show:
        if subject is Subject.tlb:
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
