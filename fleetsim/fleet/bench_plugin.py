# SPDX-License-Identifier: Apache-2.0
"""What a workload written in Python costs: a step of it, each call of the kernel, and a server beside the compiled `web` that does the
same.

Figures are processor time of this process; hosts are calm and have this one process. What they cost without it is taken off.
Leaves out: what the kernel's own work costs (reclaim, faults), which is the same whoever asks for it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from fleetsim.containers.plugin import Kernel, Server
from fleetsim.containers.web import Web
from fleetsim.host.shard import Shard
from fleetsim.host.spec import HostSpec, PlugIn, TaskSpec, Work

GIB, MIB, NS_PER_S = 1 << 30, 1 << 20, 10**9
WARM_UP_S, MEASURED_S = 30, 300
STEP_S = 0.01
CALLS = 4
LOAD = {"load": "200/s", "workers": 8}
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class PluginBench:
    step_us: float  # a step that only sleeps
    call_us: float  # each call of the kernel in it
    server_us: float  # per host-second, a server that looks for requests once a second
    web_us: float  # the compiled one

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        rows = (
            ("a step that only sleeps", f"{self.step_us:8.2f} µs"),
            ("each call of the kernel in a step", f"{self.call_us:8.2f} µs"),
            ("a server of 200 requests/s, one step a second", f"{self.server_us:8.2f} µs per host-second"),
            ("the compiled web, the same", f"{self.web_us:8.2f} µs per host-second"),
        )
        return "\n".join(["workloads in Python, processor time", *(f"{what:46} {figure}" for what, figure in rows)])


@dataclass
class Steps:
    """A program of so many calls a step."""

    calls: int

    def step(self, kernel: Kernel) -> None:
        for _ in range(self.calls):
            kernel.compute(1e-6)
        kernel.sleep(STEP_S)


class Shop(Server):
    """What the compiled `web` does while all is calm: a batch a second that computes and looks at its working set."""

    base = None

    def step(self, kernel: Kernel) -> None:
        if self.base is None:
            self.base = kernel.mmap(16 * MIB, at_random=True)
        if not self.base.is_full:
            kernel.touch(self.base)
            if self.base.is_full:
                kernel.come_up()
            return
        requests = kernel.take(10_000)
        if requests:
            kernel.compute(requests * 1e-3)
            kernel.access(self.base, requests * 20 * 4096)
            kernel.finish()
        kernel.rest(1)


def plugged(begin: Callable[[], Any]) -> Work:
    return Work("plugin", plugin=PlugIn("bench", begin))


def measure(work: Work | None) -> float:
    """µs of processor time per host-second."""
    tasks = () if work is None else (TaskSpec("p", (), work=work),)
    shard = Shard([HostSpec("h", GIB, tasks=tasks)], seed=1)
    shard.advance(0, WARM_UP_S * NS_PER_S)
    began = time.process_time()
    for second in range(WARM_UP_S + 1, WARM_UP_S + MEASURED_S + 1):
        shard.advance(0, second * NS_PER_S)
    return (time.process_time() - began) / MEASURED_S * 1e6


def run_bench_plugin(progress: Progress) -> PluginBench:
    progress("stepping an empty host", 0.0)
    empty = measure(None)
    progress("steps that only sleep", 0.1)
    step = (measure(plugged(functools.partial(Steps, 0))) - empty) * STEP_S
    progress("steps with calls", 0.4)
    calls = (measure(plugged(functools.partial(Steps, CALLS))) - empty) * STEP_S
    progress("servers", 0.7)
    keys = Shop.Arguments.model_validate(LOAD)
    web = Web.model_validate({**LOAD, "working_set": "16MiB"})
    server, compiled = (measure(one.processes("p")[0].work) - empty for one in (keys, web))
    return PluginBench(step, (calls - step) / CALLS, server, compiled)
