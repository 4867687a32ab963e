# SPDX-License-Identifier: Apache-2.0
"""In which order rules must be evaluated when each is evaluated over the whole run at once.

A live server steps through time: at each instant every rule sees what rules before it in its group wrote at the same
instant, and what all others wrote earlier. Evaluating one rule over the whole run is the same if whatever it reads
was written before: producers first. That fails only where a rule reads what it, or a rule after it on the same
instants, writes ("the value of the previous evaluation"). Such rules are put in one batch and stepped through time.

    edge  producer → consumer        producer must come first
    edge  consumer → producer too    if consumer stands before producer (or is it) and they share instants

Batches are the strongly connected components, producers first (Tarjan 1972), file order within.
Leaves out: a selector that matches metric names by a pattern (`{__name__=~".+"}`) sees raw samples and the output of
rules before it in file order only; taken literally it would put every rule of every file in one batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

from fleetsim.verdict.rules import Rule

ALERT_METRICS = ("ALERTS", "ALERTS_FOR_STATE")


@dataclass(frozen=True)
class Grid:
    """Evaluation instants first_ms, first_ms + step_ms, … ≤ last_ms."""

    first_ms: int
    step_ms: int
    last_ms: int

    @property
    def instants(self) -> range:
        return range(self.first_ms, self.last_ms + 1, self.step_ms)

    def meets(self, other: Grid) -> bool:
        """Whether two grids share instants: their first instants agree modulo the greatest common step."""
        return (self.first_ms - other.first_ms) % math.gcd(self.step_ms, other.step_ms) == 0


@dataclass(frozen=True)
class Placed:
    """A rule, its place in file order, when it is evaluated, and the limit of its group."""

    number: int
    rule: Rule
    grid: Grid
    limit: int


@dataclass(frozen=True)
class Batch:
    """`stepped`: the members must be walked through time together."""

    members: tuple[Placed, ...]
    stepped: bool


class Producers:
    """Finds the rules that write what a selector may match, without asking every rule about every selector."""

    def __init__(self, rules: Sequence[Placed]) -> None:
        self._by_name: dict[str, list[Placed]] = {}
        for placed in rules:
            for name in (placed.rule.name,) if placed.rule.kind == "record" else ALERT_METRICS:
                self._by_name.setdefault(name, []).append(placed)

    def named(self, consumer: Rule) -> list[Placed]:
        """Whose output `consumer` reads by name."""
        found: dict[int, Placed] = {}
        for selector in consumer.selectors or ():
            for placed in self._by_name.get(selector.name or "", ()):
                if placed.rule.kind == "record" or selector.accepts("alertname", placed.rule.name):
                    found[placed.number] = placed
        return list(found.values())

    def matched(self, consumer: Placed) -> list[Placed]:
        """Whose output it reads by a pattern on the name; of those only the ones before it."""
        patterns = [selector for selector in consumer.rule.selectors or () if selector.name is None]
        names = {name for name in self._by_name for selector in patterns if selector.accepts_name(name)}
        return [placed for name in sorted(names) for placed in self._by_name[name] if placed.number < consumer.number]


def batches(rules: Sequence[Placed]) -> list[Batch]:
    """`rules` in file order, numbered from 0."""
    edges: list[set[int]] = [set() for _ in rules]  # edges[a]: what must not come before a
    together: set[int] = set()
    producers = Producers(rules)
    for consumer in rules:
        for producer in producers.matched(consumer):
            edges[producer.number].add(consumer.number)
        for producer in producers.named(consumer.rule):
            edges[producer.number].add(consumer.number)
            if consumer.number <= producer.number and consumer.grid.meets(producer.grid):
                edges[consumer.number].add(producer.number)
                together.add(consumer.number)
    found = []
    for component in _components(edges):
        members = tuple(rules[number] for number in sorted(component))
        found.append(Batch(members, stepped=len(members) > 1 or members[0].number in together))
    return found


def _components(edges: Sequence[Set[int]]) -> list[list[int]]:
    """Strongly connected components in topological order; among free choices the smaller number comes first."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    done: list[list[int]] = []

    def visit(node: int) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges[node], reverse=True):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[-len(component) :]
            done.append(component)

    for node in reversed(range(len(edges))):
        if node not in index:
            visit(node)
    return done[::-1]
