# SPDX-License-Identifier: Apache-2.0
"""Two histories of one fleet side by side, from an instant on: whom it hurt, when and for how long, who was killed, how users fared.

Rules: an impact counts from that instant on if it was open then or later; one that never ends lasts to the end of the run. Two of the
same kind and subject are one line: the first one's begin, how many, and their whole time. A task is killed once, though the kernel tells
of it twice where memory.oom.group makes it kill the whole cgroup after its victim.
Leaves out: alerts (the judge knows of those).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fleetsim.fleet.plan import Plan
from fleetsim.fleet.served import Requests, Served, total
from fleetsim.rundir.models import HistoryEvent

Key = tuple[str, str, str]
"""(impact, host, subject); host is "" for a service."""
COUNTED = (("OOM kills", "oom_kill"), ("restarts", "restart"), ("evictions", "eviction"))


@dataclass(frozen=True)
class Harm:
    """What one subject suffered of one kind. `first_ns`: when it began, or the instant of the branch if it was on by then."""

    first_ns: int
    times: int
    total_ns: int


@dataclass(frozen=True)
class ImpactLine:
    """`change`: gone, new, earlier, later, shorter, longer, same."""

    impact: str
    host: str
    subject: str
    was: Harm | None
    now: Harm | None

    @property
    def change(self) -> str:
        return change_of(self.was, self.now)


def change_of(was: Harm | None, now: Harm | None) -> str:
    if was is None or now is None:
        return "gone" if now is None else "new"
    if was.first_ns != now.first_ns:
        return "earlier" if now.first_ns < was.first_ns else "later"
    if was.total_ns != now.total_ns:
        return "shorter" if now.total_ns < was.total_ns else "longer"
    return "same"


def impacts(history: Iterable[HistoryEvent], from_ns: int, end_ns: int) -> dict[Key, Harm]:
    """Everything that hurt somebody from `from_ns` on."""
    spans: dict[str, tuple[Key, int]] = {}
    closed: dict[str, int] = {}
    for event in history:
        if event.kind == "impact_start":
            spans[event.id] = ((str(event.data["impact"]), event.host, event.subject), event.t_ns)
        elif event.kind == "impact_end":
            closed[event.id] = event.t_ns
    found: dict[Key, Harm] = {}
    for name, (key, began) in sorted(spans.items(), key=lambda item: item[1][1]):
        ended = closed.get(name, end_ns)
        if ended <= from_ns and began < from_ns:
            continue
        before = found.get(key)
        first = max(began, from_ns) if before is None else before.first_ns
        times, so_far = (0, 0) if before is None else (before.times, before.total_ns)
        found[key] = Harm(first, times + 1, so_far + ended - max(began, from_ns))
    return found


def impact_lines(was: Sequence[HistoryEvent], now: Sequence[HistoryEvent], from_ns: int, end_ns: int) -> list[ImpactLine]:
    """All impacts of either history, in the order of their first begin."""
    left, right = impacts(was, from_ns, end_ns), impacts(now, from_ns, end_ns)

    def first(key: Key) -> tuple[int, Key]:
        return min(harm.first_ns for harm in (left.get(key), right.get(key)) if harm is not None), key

    return [ImpactLine(*key, left.get(key), right.get(key)) for key in sorted({**left, **right}, key=first)]


@dataclass(frozen=True)
class Counts:
    """`first_oom_ns`: when the first task was killed from the instant of the branch on; None: nobody was."""

    first_oom_ns: int | None
    counted: Mapping[str, int]
    harmed_ns: int


def counts(history: Sequence[HistoryEvent], from_ns: int, end_ns: int) -> Counts:
    later = [event for event in history if event.t_ns >= from_ns]
    kills = [event.t_ns for event in later if event.kind == "oom_kill"]
    harmed = sum(harm.total_ns for harm in impacts(history, from_ns, end_ns).values())
    counted = {name: len({(e.t_ns, e.host, e.subject) for e in later if e.kind == kind}) for name, kind in COUNTED}
    return Counts(min(kills, default=None), counted, harmed)


@dataclass(frozen=True)
class UsersLine:
    """How the users of a service, or of the pods of one name, fared."""

    name: str
    replicas: int
    was: Requests
    now: Requests


def users_lines(plan: Plan, before: Served, was: Served, now: Served) -> list[UsersLine]:
    """One line for each service, and for each name of the pods that are in none."""
    task_pod = {(s.name, task.name): pod.name for s in plan.hosts for pod in s.pods for c in pod.containers for task in c.tasks}
    service_of = {
        (host, task_pod.get((host, task), task)): f"service/{service.name}" for service in plan.services for host, task in service.replicas
    }
    members: dict[str, list[tuple[str, str]]] = {}
    for key in sorted({**was, **now}):
        members.setdefault(service_of.get(key, key[1]), []).append(key)

    def together(keys: list[tuple[str, str]], served: Served) -> Requests:
        return total(served[key].since(before.get(key, Requests())) for key in keys if key in served)

    lines = [UsersLine(name, len(keys), together(keys, was), together(keys, now)) for name, keys in sorted(members.items())]
    return [line for line in lines if line.was.count("arrived") or line.now.count("arrived")]
