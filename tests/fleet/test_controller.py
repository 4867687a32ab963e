# SPDX-License-Identifier: Apache-2.0
"""The control plane without hosts: which commands go out when, how long hosts run alone, what the history says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetsim.fleet.engine import EPOCH_NS
from fleetsim.fleet.history import History
from fleetsim.fleet.plan import Plan, make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.fleet.timeline import LOOK_NS, Course, run_timeline
from fleetsim.host.ports import PORT
from fleetsim.host.spec import Command, Event
from fleetsim.units import NS_PER_S

SCENARIO = """\
summary: x
duration: 10m
fleet:
  - hosts: 3
    name: web
    memory: 1GiB
    pods: [{name: app, workload: script, requests: 64MiB, limits: 256MiB, ops: [sleep 9]}]
timeline:
"""
LEAK = "  - {at: 2m, fault: leaking_allocator, on: web-1/app, rate: 1MiB/s, for: 5m}\n"
FLOOD = "  - {at: 90s, fault: page_cache_flood, on: web-0, rate: 1MiB/s, for: 30s}\n"


class RecordedEngine:
    """An engine whose hosts do nothing but what the test says happens."""

    def __init__(self, happens: Callable[[int, int], list[Event]] = lambda since, until: []) -> None:
        self.looks: list[int] = [0]
        self.commands: list[Command] = []
        self._happens = happens

    def start(self, plan: Plan, checkpoint: Path | None = None) -> None: ...

    def advance(self, until_ns: int, commands: Sequence[Command], rates: object = None) -> list[Event]:
        assert all(self.looks[-1] <= command.t_ns < until_ns for command in commands), "never late, never early"
        self.commands += commands
        self.looks.append(until_ns)
        return self._happens(self.looks[-2], until_ns)

    def ports(self) -> NDArray[Any]:
        return np.zeros(0, PORT)

    def read(self, hosts: Sequence[str]) -> list[bytes]:
        return [b"" for _ in hosts]

    def checkpoint(self, folder: Path) -> None: ...

    def slowest(self) -> str:
        return ""

    def stop(self) -> None: ...


def planned(folder: Path, timeline: str) -> Plan:
    file = folder / "x.yaml"
    file.write_text(SCENARIO + (timeline or "  []\n"), encoding="utf-8")
    return make_plan(load_scenario(file))


def ran(plan: Plan, engine: RecordedEngine) -> History:
    course = Course(plan)
    run_timeline(plan, engine, course)
    return course.history


def test_without_faults_that_return_hosts_run_alone_for_as_long_as_a_progress_bar_allows(tmp_path: Path) -> None:
    engine = RecordedEngine()
    ran(planned(tmp_path, FLOOD), engine)
    assert engine.looks == [minute * LOOK_NS for minute in range(11)]


def test_while_a_leak_is_open_the_control_plane_looks_every_second(tmp_path: Path) -> None:
    engine = RecordedEngine()
    ran(planned(tmp_path, LEAK), engine)
    lengths = {(since, until - since) for since, until in zip(engine.looks, engine.looks[1:], strict=False)}
    assert all((length == EPOCH_NS) == (120 * NS_PER_S <= since < 420 * NS_PER_S) for since, length in lengths)
    assert engine.looks[-1] == 600 * NS_PER_S


def test_every_command_goes_out_once_at_its_own_time(tmp_path: Path) -> None:
    engine = RecordedEngine()
    ran(planned(tmp_path, FLOOD + LEAK), engine)
    assert [(c.t_ns // NS_PER_S, c.host, c.kind) for c in engine.commands] == [
        (90, "web-0", "start_task"),
        (120, "web-0", "kill"),
        (120, "web-1", "start_thread"),
        (420, "web-1", "stop_thread"),
    ]


def restart_at(*seconds: float, host: str = "web-1") -> Callable[[int, int], list[Event]]:
    def happens(since: int, until: int) -> list[Event]:
        times = [int(second * NS_PER_S) for second in seconds]
        return [Event(t, host, 100 + number, "restart", "app") for number, t in enumerate(times) if since < t <= until]

    return happens


def starts(engine: RecordedEngine) -> list[float]:
    return [command.t_ns / NS_PER_S for command in engine.commands if command.kind == "start_thread"]


def test_a_restarted_target_leaks_again_at_the_end_of_the_epoch(tmp_path: Path) -> None:
    engine = RecordedEngine(restart_at(200.3, 300.7))
    ran(planned(tmp_path, LEAK), engine)
    assert starts(engine) == [120, 201, 301]


def test_a_restart_before_or_after_the_fault_or_on_another_host_brings_nothing(tmp_path: Path) -> None:
    for happens in (restart_at(60.5, 119.9, 500), restart_at(200, host="web-2")):
        engine = RecordedEngine(happens)
        ran(planned(tmp_path, LEAK), engine)
        assert starts(engine) == [120]


def test_the_history_tells_of_faults_with_all_that_the_judge_may_know(tmp_path: Path) -> None:
    history = ran(planned(tmp_path, LEAK + FLOOD), RecordedEngine())
    told = [(event.t_ns // NS_PER_S, event.kind, event.id, event.data["hosts"], event.data["harm"]) for event in history.events]
    assert told == [
        (90, "fault_start", "page_cache_flood-2", ["web-0"], None),
        (120, "fault_start", "leaking_allocator-1", ["web-1"], "killed"),
        (120, "fault_end", "page_cache_flood-2", ["web-0"], None),
        (420, "fault_end", "leaking_allocator-1", ["web-1"], "killed"),
    ]
    assert history.events[1].data["subjects"] == ["app"]
    assert history.events[1].data["parameters"]["rate"] == 1 << 20


def test_a_fault_that_lasts_to_the_end_has_no_end(tmp_path: Path) -> None:
    history = ran(planned(tmp_path, LEAK.replace("for: 5m", "for: 8m")), RecordedEngine())
    assert [event.kind for event in history.events] == ["fault_start"]


def test_the_end_of_an_impact_has_the_id_of_its_beginning(tmp_path: Path) -> None:
    killed, slow = {"impact": "killed"}, {"impact": "slow"}
    history = History(planned(tmp_path, ""))
    history.take(
        [
            Event(1, "web-0", 0, "impact_end", "app", killed),  # a restart after an ordinary exit
            Event(2, "web-0", 1, "impact_start", "app", killed),
            Event(3, "web-0", 2, "impact_start", "app", slow),
            Event(4, "web-0", 3, "impact_end", "app", killed),
            Event(5, "web-0", 4, "impact_start", "app", killed),
            Event(6, "web-1", 0, "impact_start", "app", killed),
        ]
    )
    assert [(event.t_ns, event.id) for event in history.events] == [
        (2, "web-0/app/killed-1"),
        (3, "web-0/app/slow-1"),
        (4, "web-0/app/killed-1"),
        (5, "web-0/app/killed-2"),
        (6, "web-1/app/killed-1"),
    ]
    assert all(event.data["pod"] == "app" for event in history.events)
