# SPDX-License-Identifier: Apache-2.0
"""Servers seen from outside the host: what a load balancer, a probe or an exporter may know of them, and the load that it sends.

Rules: reading only counts what has come until then; a rate takes effect at the instant it is set. Rows are found once, by name;
then everything is done with arrays, for all servers of a shard at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.host.programs import Names
from fleetsim.law import law
from fleetsim.workloads.requests import answer_ns, observe

COUNTERS = ("arrived", "served", "refused", "timed_out", "broken", "late")
PORT = np.dtype(
    [
        ("ready", "i1"),  # 1: it answers
        ("answer_ns", "i8"),  # how long a request that came now would take
        ("present", "i8"),  # requests that are being served or wait
        *((name, "i8") for name in COUNTERS),  # since the boot of the host
    ]
)


@law
def look_at(records, hosts, works, pods, ports):
    """How some servers stand.

    hosts, works  int64 arrays: which row of the records, which of its works
    pods          int64 array: which of its pods, −1 for none: one that is not ready gets no requests from a service
    ports         array of PORT, filled

    Source: fleetsim's own.
    """
    for k in range(len(hosts)):
        row = records[hosts[k]]
        server = row["works"][works[k]]["server"]
        observe(row, server)
        port = ports[k]
        port["ready"] = server["ready"]
        if pods[k] >= 0 and row["pods"][pods[k]]["serving"] == 0:
            port["ready"] = 0
        port["answer_ns"] = answer_ns(row, server)
        port["present"] = server["present"]
        port["arrived"] = server["arrived"]
        port["served"] = server["served"]
        port["refused"] = server["refused"]
        port["timed_out"] = server["timed_out"]
        port["broken"] = server["broken"]
        port["late"] = server["late"]


def find_server(records: Any, host: int, names: Names, task: str) -> tuple[int, int]:
    """Rows of the task's work and of its pod (−1: it is in none); KeyError if it does not serve."""
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
        self._records = records
        self._hosts = np.array([host for host, _ in wanted], dtype=np.int64)
        found = [find_server(records, host, names[host], task) for host, task in wanted]
        self._works = np.array([work for work, _ in found], dtype=np.int64)
        self._pods = np.array([pod for _, pod in found], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._hosts)

    def read(self) -> NDArray[Any]:
        """How they stand, as rows of PORT."""
        ports = np.zeros(len(self), PORT)
        if len(self):
            look_at(self._records, self._hosts, self._works, self._pods, ports)
        return ports

    def send(self, rates_milli: NDArray[np.int64]) -> None:
        """From now on these many requests per 1000 s come to each."""
        for host, work, rate in zip(self._hosts.tolist(), self._works.tolist(), rates_milli.tolist(), strict=True):
            server = self._records[host]["works"][work]["server"]
            if int(server["rate"]) != rate:
                server["rate"] = rate
                server["swing"] = 0
