# SPDX-License-Identifier: Apache-2.0
"""What tests of the Ray engine share: clusters, engines that are made on them, and ways to kill what is running there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetsim.fleet.controller import EngineMaker
from fleetsim.observe.catalog import profile
from fleetsim.rundir.reader import RunDirectory

PROFILE = profile("standard")
TWO_MINUTES = 120.0


@contextmanager
def ray_engine(address: str, hosts_per_actor: int | None = None, threads: int = 2) -> Iterator[EngineMaker]:
    from fleetsim.fleet.ray_cluster import RayCluster
    from fleetsim.fleet.ray_engine import RayEngine

    cluster = RayCluster(address, threads)
    try:
        yield lambda kept, writer, number: RayEngine(kept, writer, number, cluster, hosts_per_actor)
    finally:
        cluster.leave()


def samples_of(out: str) -> dict[str, list[tuple[int, bytes]]]:
    run = RunDirectory(Path(out))
    ids, times, values = run.columns()
    rows: dict[str, list[tuple[int, bytes]]] = {}
    for number, t, value in zip(ids.tolist(), times.tolist(), values, strict=True):
        rows.setdefault(json.dumps(run.series[number], sort_keys=True), []).append((t, value.tobytes()))
    return rows


@contextmanager
def two_machines() -> Iterator[Any]:
    """Played by two raylets on this one."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def pids_of(cluster: Any) -> set[int]:
    """Ray's own processes."""
    return {info.process.pid for node in cluster.list_all_nodes() for infos in node.all_processes.values() for info in infos}


class Killing:
    """An engine that is asked to kill somebody before some of its epochs."""

    def __init__(self, engine: Any, kill_before: dict[int, Callable[[Any], None]]) -> None:
        self._engine, self._kill_before, self._epoch = engine, kill_before, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def advance(self, until_ns: int, commands: Any, rates: Any = None) -> Any:
        self._epoch += 1
        if kill := self._kill_before.get(self._epoch):
            kill(self._engine)
        return self._engine.advance(until_ns, commands, rates)


def killing(engine: EngineMaker, kill_before: dict[int, Callable[[Any], None]]) -> EngineMaker:
    return lambda kept, writer, number: Killing(engine(kept, writer, number), kill_before)  # type: ignore[return-value]


def pid_of(engine: Any, actor: int) -> int:
    return int(engine._all([engine._actors[actor].who.remote()])[0]["pid"])


def kill_9(actor: int, killed: list[int], in_s: float = 0.0) -> Callable[[Any], None]:
    """Kill an actor's process, at once or in the middle of what comes next."""

    def kill(engine: Any) -> None:
        killed.append(pid_of(engine, actor))
        process = subprocess.Popen(["sh", "-c", f"sleep {in_s}; kill -9 {killed[-1]}"])
        if not in_s:
            process.wait()

    return kill


def started(*arguments: object) -> subprocess.Popen[str]:
    script = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom fleetsim.cli.main import main; main()"
    line = [sys.executable, "-c", script, "run", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def session_of(process: subprocess.Popen[str]) -> list[int]:
    """Processes that it has started, and theirs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == process.pid and fields[0] != "Z":
            found.append(int(folder.name))
    return found
