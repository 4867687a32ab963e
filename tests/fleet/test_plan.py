# SPDX-License-Identifier: Apache-2.0
"""From a scenario to the plan: whom commands name on each runtime, and which size class a fleet whose pods move is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetsim.containers.pod import container_cgroup, pod_cgroup
from fleetsim.fleet.controller import run_plan
from fleetsim.fleet.plan import Plan, make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.host.spec import Command
from fleetsim.linux.capacity_classes import CLASSES
from fleetsim.observe.catalog import profile
from fleetsim.rundir.reader import RunDirectory

MIB, S = 1 << 20, 10**9
HEAD = "summary: x\nduration: 8s\n"


def plan_of(folder: Path, text: str) -> Plan:
    file = folder / "x.yaml"
    file.write_text(HEAD + text, encoding="utf-8")
    return make_plan(load_scenario(file))


LIMITED = """\
fleet:
  - hosts: 1
    name: box
    memory: 512MiB
    {runtime}
    pods:
      - {pod}
timeline:
  - {{at: 2s, fault: memory_limit, on: a, limit: 32MiB, for: 3s}}
"""
ONE = "{name: a, workload: idle, memory: 4MiB, limits: 64MiB}"
TWO = (
    "{name: a, containers: [{name: app, workload: idle, memory: 4MiB, limits: 64MiB}, "
    "{name: side, workload: idle, memory: 40MiB, limits: 64MiB}]}"
)


@pytest.mark.parametrize("runtime", ["docker", "systemd"])
def test_a_limit_is_written_to_the_cgroups_that_the_runtime_has_made(runtime: str, tmp_path: Path) -> None:
    """Docker and systemd have none around the container; a fault that names one would be the end of the run."""
    plan = plan_of(tmp_path, LIMITED.format(runtime=f"runtime: {runtime}", pod=ONE))
    made = {cgroup.name for pod in plan.hosts[0].pods for cgroup in pod.cgroups}
    named = {str(command.args["cgroup"]) for command in plan.commands()}
    assert len(named) == 1 and named <= made
    assert run_plan(plan, tmp_path / "run", profile("rules")).impacts == 0


def test_a_limit_of_one_container_leaves_the_others_theirs(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, LIMITED.format(runtime="", pod=TWO))
    (pod,) = load_scenario(tmp_path / "x.yaml").groups[0].pods
    around, inside = pod_cgroup("box-0", pod), container_cgroup("box-0", "a", "app")
    said = [(command.t_ns // S, command.args["cgroup"], int(str(command.args["bytes"])) // MIB) for command in plan.commands()]
    assert said == [(2, around, 96), (2, inside, 32), (5, around, 128), (5, inside, 64)]
    assert run_plan(plan, tmp_path / "run", profile("rules")).impacts == 0, "its neighbour has 40 MiB of its 64"


LOADED = """\
fleet:
  - hosts: 2
    name: box
    memory: 512MiB
    pods:
      - name: a
        containers:
          - {name: log, workload: idle, memory: 4MiB}
          - {name: app, workload: web, working_set: 4MiB, load: {replay: load.csv}}
"""


def test_a_recorded_load_reaches_the_container_that_has_it(tmp_path: Path) -> None:
    (tmp_path / "load.csv").write_text("0,10\n3,50\n9,70\n", encoding="utf-8")
    plan = plan_of(tmp_path, LOADED)
    tasks = {task.name for pod in plan.hosts[0].pods for container in pod.containers for task in container.tasks}
    assert plan.loads == tuple(
        Command(t_s * S, host, "load", {"task": "a.app", "rate_milli": rate}, "load")
        for host in ("box-0", "box-1")
        for t_s, rate in ((0, 10_000), (3, 50_000))
    )
    assert "a.app" in tasks
    run = tmp_path / "run"
    run_plan(plan, run, profile("rules"))
    assert not [event for event in RunDirectory(run).history if event.kind == "command"], "loads are no news"


FULL = """\
fleet:
  - hosts: {hosts}
    name: node
    memory: 64GiB
    deployments:
      - {{name: web, replicas: {replicas}, workload: idle, memory: 1MiB, max_surge: "{surge}", max_unavailable: "1"}}
"""


def test_a_size_class_has_room_for_the_pods_of_a_rolling_update(tmp_path: Path) -> None:
    """Two pods short of what a record of class standard holds, and an update that makes two more, or four."""
    holds = CLASSES["standard"].works
    assert plan_of(tmp_path, FULL.format(hosts=1, replicas=holds - 2, surge=2)).size_class == "standard"
    assert plan_of(tmp_path, FULL.format(hosts=1, replicas=holds - 2, surge=4)).size_class == "large"
    assert plan_of(tmp_path, FULL.format(hosts=1, replicas=CLASSES["large"].works, surge=4)).size_class == "large", "what fits, fits"


def test_every_host_of_a_group_is_looked_at_as_replicas_are_not_spread_evenly(tmp_path: Path) -> None:
    """One of two hosts has a replica more than the other, and by the seed it is the first or the second."""
    file = tmp_path / "x.yaml"
    file.write_text(HEAD + FULL.format(hosts=2, replicas=2 * CLASSES["standard"].works - 1, surge=0), encoding="utf-8")
    scenario = load_scenario(file)
    plans = [make_plan(scenario, seed) for seed in range(8)]
    assert {plan.size_class for plan in plans} == {"large"}
    assert min(len(plan.hosts[0].pods) for plan in plans) < CLASSES["standard"].works <= max(len(plan.hosts[0].pods) for plan in plans)
