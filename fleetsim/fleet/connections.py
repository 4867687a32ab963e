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

from collections import Counter, deque
from collections.abc import Sequence

MICRO = 1_000_000
Key = tuple[str, str]


class Connections:
    """`count` connections, each open to one of the replicas (by their keys). `age_ns`: 0: they are never closed."""

    def __init__(self, count: int, age_ns: int, least: bool) -> None:
        self.count, self.age_ns, self.least = count, age_ns, least
        self.owners: deque[Key] = deque()  # of each connection, the one that was opened first in front
        self._aged = 0  # parts of a connection that are due to be closed, millionths
        self._turn = 0  # round robin: who gets the next one

    def settle(self, taken_in: Sequence[Key], passed_ns: int) -> Counter[Key]:
        """The connections of every replica after `passed_ns` more, now that the balancer sends requests to those `taken_in`."""
        there = set(taken_in)
        if not there.issuperset(self.owners):
            self.owners = deque(key for key in self.owners if key in there)
        self._close_the_oldest(passed_ns)
        shares = Counter(self.owners)
        while taken_in and len(self.owners) < self.count:
            key = min(taken_in, key=lambda one: shares[one]) if self.least else taken_in[self._turn % len(taken_in)]
            self._turn += 1
            self.owners.append(key)
            shares[key] += 1
        return shares

    def _close_the_oldest(self, passed_ns: int) -> None:
        """In a time of `age_ns` all are closed once, one after the other."""
        if self.age_ns == 0:
            return
        self._aged += self.count * (passed_ns // 1000) * MICRO // (self.age_ns // 1000)
        for _ in range(min(self._aged // MICRO, len(self.owners))):
            self.owners.popleft()
        self._aged %= MICRO
