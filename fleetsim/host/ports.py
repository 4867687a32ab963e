# SPDX-License-Identifier: Apache-2.0
"""Servers seen from outside the host: what a load balancer, a probe or an exporter may know of them, and the load that it sends.

Rules: reading only counts what has come until then; a rate takes effect at the instant it is set. Rows are found once, by name, as
soon as they are there; then everything is done with arrays, for all servers of a shard at once. A server whose pod has left has its last
counts for ever; one that is still to come has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.host.kubelet_types import KUBERNETES
from fleetsim.host.programs import Names
from fleetsim.law import law
from fleetsim.workloads.arrivals import COUNTERS, FAILED
from fleetsim.workloads.requests import answer_ns, observe

PORT = np.dtype(
    [
        ("ready", "i1"),  # 1: it answers
        ("endpoint", "i1"),  # 1: its pod is Ready, as far as somebody tells the balancer of it: a kubelet does
        ("answer_ns", "i8"),  # how long a request that came now would take
        ("present", "i8"),  # requests that are being served or wait
        *((name, "i8") for name in COUNTERS),  # since the boot of the host
    ]
)


@law
def look_at(records, hosts, works, pods, ports):
    """How some servers stand.

    hosts, works  int64 arrays: which row of the records, which of its works; −1: it is not there
    pods          int64 array: which of its pods, −1 for none: one that is not Ready is no endpoint of a service
    ports         array of PORT, filled

    Source: fleetsim's own; endpoints as pkg/controller/endpointslice has them (Ready and not terminating).
    """
    for k in range(len(hosts)):
        if works[k] < 0:
            continue
        row = records[hosts[k]]
        server = row["works"][works[k]]["server"]
        observe(row, server)
        port = ports[k]
        port["ready"] = 1 if server["ready"] > 0 and server["closing"] == 0 else 0
        port["endpoint"] = 1
        if pods[k] >= 0 and row["kubelet"]["runtime"] == KUBERNETES:
            port["endpoint"] = row["pods"][pods[k]]["serving"]
        port["answer_ns"] = answer_ns(row, server)
        port["present"] = server["present"]
        port["arrived"] = server["arrived"]
        port["served"] = server["served"]
        port["refused"] = server["refused"]
        port["timed_out"] = server["timed_out"]
        port["broken"] = server["broken"]
        port["late"] = server["late"]


def cut(server: Any) -> None:
    """Connections to a server that runs on are reset: the requests that are there have failed."""
    server["broken"] += server["backlog"]
    server["window"][FAILED] += server["backlog"]
    server["backlog"] = server["batch"] = 0


def find_server(records: Any, host: int, names: Names, task: str) -> tuple[int, int]:
    """Rows of the task's work and of its pod (−1: it is in none); (−1, −1): it is not there. KeyError if it does not serve."""
    if task not in names.tasks:
        return -1, -1
    t = names.tasks[task]
    row = records[host]
    pods = [int(c["pod"]) for c in row["containers"] if c["used"] and int(c["first"]) <= t < int(c["first"]) + int(c["tasks"])]
    for w, work in enumerate(row["works"]):
        if work["kind"] > 0 and work["task"] == t and work["server"]["used"]:
            return w, pods[0] if pods else -1
    raise KeyError(task)


class Ports:
    """Some servers of a shard, in the order in which they were asked for."""

    def __init__(self, records: Any, names: Sequence[Names], wanted: Sequence[tuple[int, str]]) -> None:
        """`wanted`: (host's index in the shard, task)."""
        self._records, self._names, self._wanted = records, names, tuple(wanted)
        self._hosts = np.array([host for host, _ in wanted], dtype=np.int64)
        self._works = np.full(len(wanted), -1, dtype=np.int64)
        self._pods = np.full(len(wanted), -1, dtype=np.int64)
        self._seen: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._hosts)

    def _find(self) -> None:
        """Those that came since the last time, and those that are gone; nobody comes or goes without a name that does."""
        seen = [(len(names.tasks), len(names.gone)) for names in self._names]
        if seen == self._seen:
            return
        self._seen = seen
        for k, (host, task) in enumerate(self._wanted):
            if (self._works[k] < 0) == (task in self._names[host].tasks):
                self._works[k], self._pods[k] = find_server(self._records, host, self._names[host], task)

    def read(self) -> NDArray[Any]:
        """How they stand, as rows of PORT."""
        self._find()
        ports = np.zeros(len(self), PORT)
        if len(self):
            look_at(self._records, self._hosts, self._works, self._pods, ports)
        for k in np.flatnonzero(self._works < 0).tolist():
            host, task = self._wanted[k]
            for name, count in self._names[host].ended.get(task, {}).items():
                ports[k][name] = count
        return ports

    def send(self, rates_milli: NDArray[np.int64]) -> None:
        """From now on these many requests per 1000 s come to each."""
        self._find()
        for host, work, rate in zip(self._hosts.tolist(), self._works.tolist(), rates_milli.tolist(), strict=True):
            if work < 0:
                continue
            server = self._records[host]["works"][work]["server"]
            if int(server["rate"]) != rate:
                server["rate"] = rate
                server["swing"] = 0
