# SPDX-License-Identifier: Apache-2.0
"""Long-lived connections through a load balancer: clients that open one and stay on its replica (HTTP/2, gRPC, pools of a driver).

Rules: a balancer chooses a replica when a connection is opened, and every request on it goes there, whatever happens elsewhere. So a
replica that comes back has no requests until somebody opens a connection. One that is taken out has its connections closed after the
requests that are on them (GOAWAY, `Connection: close`); they are opened anew at once. With a greatest age each is closed
and opened again now and then, which evens out what went askew.
Source: the terms are those of gRPC (MAX_CONNECTION_AGE) and Envoy (max_connection_duration; load balancing per connection).
Leaves out: memory of a connection on either side, the time that opening takes, idle connections: all are equally busy.
"""

from __future__ import annotations

from collections.abc import Sequence

MICRO = 1_000_000


class Connections:
    """`count` connections, each open to one of the replicas (by their keys). `age_ns`: 0: they are never closed."""

    def __init__(self, count: int, age_ns: int, least: bool) -> None:
        self.count, self.age_ns, self.least = count, age_ns, least
        self.open: dict[tuple[str, str], int] = {}
        self._aged: int = 0  # parts of a connection that are due to be closed, millionths
        self._turn = 0  # round robin: who gets the next one

    def settle(self, taken_in: Sequence[tuple[str, str]], passed_ns: int) -> dict[tuple[str, str], int]:
        """The connections of every replica after `passed_ns` more, now that the balancer sends requests to those `taken_in`."""
        self.open = {key: self.open.get(key, 0) for key in taken_in}
        if not taken_in:
            return self.open
        self._close_the_oldest(passed_ns)
        for _ in range(self.count - sum(self.open.values())):
            key = min(taken_in, key=lambda one: self.open[one]) if self.least else taken_in[self._turn % len(taken_in)]
            self._turn += 1
            self.open[key] += 1
        return self.open

    def _close_the_oldest(self, passed_ns: int) -> None:
        """Ages are even: in a time of `age_ns` all are closed once, here and there as many as are open."""
        if self.age_ns == 0:
            return
        self._aged += self.count * (passed_ns // 1000) * MICRO // (self.age_ns // 1000)
        for _ in range(self._aged // MICRO):
            busiest = max(self.open, key=lambda key: self.open[key])
            self.open[busiest] -= self.open[busiest] > 0
        self._aged %= MICRO
