# SPDX-License-Identifier: Apache-2.0
"""A host that is run alone up to an instant is the host of the whole run at that instant."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from fleetsim.errors import BadInput
from fleetsim.fleet.local import LocalEngine
from fleetsim.fleet.one_host import find_task, host_at, labels_of
from fleetsim.fleet.plan import Plan, make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.fleet.timeline import Course, run_timeline
from fleetsim.observe.catalog import profile
from fleetsim.units import NS_PER_S

SCENARIO = """\
summary: One container leaks.
seed: 7
duration: 1m
fleet:
  - hosts: 2
    name: web
    memory: 1GiB
    files: {/data/f: 16MiB}
    pods:
      - {name: app, workload: script, requests: 64MiB, limits: 128MiB, ops: [mmap_anon A 32, touch A 32 8, fork_hold 500, sleep 500]}
      - {name: db, workload: script, requests: 64MiB, ops: [malloc 1000 100-3000 0, exit 3]}
timeline:
  - {at: 10s, fault: leaking_allocator, on: one app, rate: 1MiB/s}
"""


class NoSink:
    """Samples are of no interest here."""

    def series(self, labels: Mapping[str, str]) -> int:
        return 0

    def samples(self, ids: NDArray[np.int64], times_ms: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        pass


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    file = tmp_path_factory.mktemp("scenario") / "incident.yaml"
    file.write_text(SCENARIO, encoding="utf-8")
    return make_plan(load_scenario(file))


def test_alone_it_is_what_it_is_in_the_whole_fleet(plan: Plan) -> None:
    engine = LocalEngine(profile("full"), NoSink(), threads=1)
    engine.start(plan)
    try:
        run_timeline(plan, engine, Course(plan))
        whole = dict(zip(("web-0", "web-1"), engine.read([spec.name for spec in plan.hosts]), strict=True))
    finally:
        engine.stop()
    for name, record in zip([spec.name for spec in plan.hosts], whole.values(), strict=True):
        assert host_at(plan, name, plan.duration_ns).records[0].tobytes() == record


def test_an_earlier_instant_is_earlier(plan: Plan) -> None:
    name = plan.hosts[0].name
    early, late = host_at(plan, name, 2 * NS_PER_S), host_at(plan, name, 50 * NS_PER_S)
    assert int(early.records[0]["now_ns"]) == 2 * NS_PER_S < int(late.records[0]["now_ns"]) == 50 * NS_PER_S


def test_processes_by_name_or_pid_and_areas_by_the_scenarios_names(plan: Plan) -> None:
    shard = host_at(plan, plan.hosts[0].name, 20 * NS_PER_S)
    t = find_task(shard, "app")
    assert find_task(shard, str(int(shard.records[0]["tasks"][t]["pid"]))) == t
    child = find_task(shard, "app-child")
    labels = labels_of(shard, child)
    assert labels.program == "app" and "A" in labels.areas.values() and "/data/f" in labels.files.values()


@pytest.mark.parametrize(
    ("host", "at_s", "task", "sentence"),
    [
        ("mars", 1, "app", r"there is no host 'mars' in incident; its hosts are: web-\d, web-\d"),
        ("web-1", 61, "app", "--at is 61s, but incident lasts 1m"),
        ("web-1", 20, "nobody", r"'nobody' is no process on web-1 at 20s; running are: app \(pid 8\d\)"),
        ("web-1", 20, "db", "'db' is not running on web-1 at 20s"),
        ("web-1", 0, "app", "'app' is not running on web-1 at 0"),
    ],
)
def test_who_is_not_there_is_said_with_who_is(plan: Plan, host: str, at_s: int, task: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        find_task(host_at(plan, host, at_s * NS_PER_S), task)
