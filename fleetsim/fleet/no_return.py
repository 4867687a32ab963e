# SPDX-License-Identifier: Apache-2.0
"""The point of no return: the latest instant at which a change still keeps an impact of a recorded run from happening.

    earliest ──── it prevents ────┤ the point ├──── it comes too late ──── the impact
Rules: an impact is prevented if none of its kind and subject comes from the change to the end of the run (`until_ns`): one that only
comes later is not. Instants are whole multiples of the resolution. What is tried between the ends is chosen by bisection, which finds
the point if a change that prevents also prevents when it is made earlier; both ends are tried first, and if they say the same, so does
the answer. Every trial goes on from a state of the run kept before it (`trunk.py`), and ends when the impact comes.
Leaves out: whether it is monotonic in between (trying every instant would tell).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fleetsim.errors import BadInput
from fleetsim.fleet.checkpoint import Order
from fleetsim.fleet.engine import EPOCH_NS
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.progress import Progress, clock, silent
from fleetsim.fleet.timeline import Course, run_timeline
from fleetsim.fleet.trunk import Enough, Nowhere, Trunk, going_on, until_enough
from fleetsim.observe.catalog import profile
from fleetsim.rundir.models import HistoryEvent

STATES = 16
"""States of the run that are kept on the way to the impact: what is simulated twice is less than two of their distances."""
NOUNS = {"killed": "the kill", "unavailable": "unavailability", "unresponsive": "unresponsiveness"}
NO_METRICS = profile("rules")


@dataclass(frozen=True)
class Sought:
    """The impacts that are meant: of a kind, and of a subject (a task, a pod, a service or a host; None: whoever's)."""

    impact: str
    subject: str | None = None
    host: str | None = None

    def is_it(self, event: HistoryEvent) -> bool:
        if event.kind != "impact_start" or event.data.get("impact") != self.impact or self.host not in (None, event.host):
            return False
        pod = event.data.get("pod", event.subject)
        return self.subject in (None, event.subject, pod, event.host, f"{event.host}/{event.subject}", f"{event.host}/{pod}")

    def __str__(self) -> str:
        where = "/".join(part for part in (self.host, self.subject) if part)
        return NOUNS.get(self.impact, self.impact) + (f" of {where}" if where else "")


def sought(history: Iterable[HistoryEvent], text: str | None, from_ns: int = 0) -> tuple[Sought, HistoryEvent]:
    """What KIND[:SUBJECT] means (None: the first impact), and when it came first; BadInput if it never did."""
    starts = [event for event in history if event.kind == "impact_start" and event.t_ns > from_ns]
    if not starts:
        raise BadInput("nobody is hurt in this run" + (f" after {clock(from_ns)}" if from_ns else "") + ", so there is nothing to prevent")
    if text is None:
        first = starts[0]
        return Sought(str(first.data["impact"]), first.subject, first.host), first
    kind, _, subject = text.partition(":")
    wanted = Sought(kind, subject or None)
    if (first_such := next(filter(wanted.is_it, starts), None)) is not None:
        return wanted, first_such
    there = dict.fromkeys(f"{event.data['impact']}:{event.data.get('pod', event.subject)}" for event in starts)
    raise BadInput(f"--impact is {text!r}, which does not come to pass in this run; what does: {', '.join(list(there)[:12])}")


@dataclass(frozen=True)
class Trial:
    """The change made at `at_ns`; `came_ns`: when the impact came all the same, None: it did not."""

    at_ns: int
    came_ns: int | None


@dataclass(frozen=True)
class NoReturn:
    """`kind`: point (prevented at `latest_ns`, not at `too_late_ns`), never (too late at the earliest instant) or always (not even
    the last instant before the impact is too late). `replayed_ns`, `tried_ns`: virtual time simulated for either."""

    kind: str
    latest_ns: int | None
    too_late_ns: int | None
    resolution_ns: int
    trials: tuple[Trial, ...]
    replayed_ns: int
    tried_ns: int
    wall_seconds: float


class Search:
    """`change`: makes the plan in which the change happens at an instant. `folder`: for states, the caller's to remove."""

    def __init__(
        self,
        order: Order,
        change: Callable[[Plan, int], Plan],
        wanted: Sought,
        folder: Path,
        *,
        until_ns: int | None = None,
        threads: int | None = None,
        progress: Progress = silent,
    ) -> None:
        self.order, self._change, self._wanted, self._threads = order, change, wanted, threads
        self._progress = lambda what, share: progress("searching", share, what)
        self._until_ns = min(until_ns or order.plan.duration_ns, order.plan.duration_ns)
        self.trunk = Trunk(
            Order(order.plan, NO_METRICS), folder, threads=threads, progress=lambda stage, share, detail="": self._progress(stage, share)
        )
        self.tried_ns = 0
        self.trials: dict[int, Trial] = {}

    def attempt(self, at_ns: int) -> Trial:
        """Make the change at this instant and see whether the impact comes."""
        if at_ns in self.trials:
            return self.trials[at_ns]
        state = self.trunk.before(at_ns)
        plan = self._change(self.order.plan, at_ns)
        came: list[int] = []

        def looked(course: Course) -> None:
            self._progress(f"trial {len(self.trials) + 1}: the change at {clock(at_ns)}", course.now_ns / plan.duration_ns)
            came.extend(e.t_ns for e in course.history.events.after(at_ns) if self._wanted.is_it(e))
            if came or course.now_ns >= self._until_ns:
                raise Enough

        with going_on(plan, self.order.plan, NO_METRICS, Nowhere(), state, self._threads) as (engine, course):
            begun_ns = course.now_ns
            until_enough(lambda: run_timeline(plan, engine, course, looked))
            self.tried_ns += course.now_ns - begun_ns
        in_time = [t_ns for t_ns in came if t_ns <= self._until_ns]
        self.trials[at_ns] = Trial(at_ns, min(in_time, default=None))
        return self.trials[at_ns]


def point_of_no_return(search: Search, earliest_ns: int, impact_ns: int, resolution_ns: int = EPOCH_NS) -> NoReturn:
    """Search between `earliest_ns` and the impact."""
    began = time.perf_counter()
    low, high = -(-earliest_ns // resolution_ns), (impact_ns - 1) // resolution_ns
    if low > high:
        raise BadInput(f"there is no instant to try between {clock(earliest_ns)} and the impact at {clock(impact_ns)}; search from earlier")

    search.trunk.every_ns = max(1, (high - low) * resolution_ns // STATES)

    def prevents(k: int) -> bool:
        return search.attempt(k * resolution_ns).came_ns is None

    def answer(kind: str, latest: int | None, too_late: int | None) -> NoReturn:
        latest_ns, too_late_ns = (None if k is None else k * resolution_ns for k in (latest, too_late))
        trials = tuple(search.trials[at] for at in sorted(search.trials))
        wall = time.perf_counter() - began
        return NoReturn(kind, latest_ns, too_late_ns, resolution_ns, trials, search.trunk.simulated_ns, search.tried_ns, wall)

    if not prevents(low):
        return answer("never", None, low)
    if prevents(high):
        return answer("always", high, None)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if prevents(middle) else (low, middle)
        search.trunk.forget(low * resolution_ns, high * resolution_ns)
    return answer("point", low, high)
