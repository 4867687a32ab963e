# SPDX-License-Identifier: Apache-2.0
"""A branch of a recorded run is the run that the changed plan would have been from its beginning, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fleetsim.errors import BadInput, ToolFailed
from fleetsim.fleet.branch import Brancher, recorded
from fleetsim.fleet.controller import resume_plan, run_plan
from fleetsim.fleet.plan import Plan, make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.fleet.trunk import Trunk
from fleetsim.fleet.whatif import Change, what_if
from fleetsim.observe.catalog import profile
from fleetsim.rundir.reader import RunDirectory
from fleetsim.units import NS_PER_S
from tests.fleet.coupled import coupled_plan

FULL = profile("full")
CHANGES = (
    Change(),
    Change(sets=("vm.swappiness=1",)),
    Change(sets=("vm.min_free_kbytes=65536", "pod/app.limits=200MiB"), on="shop-1"),
    Change(sets=("pod/checkout.memory.high=80MiB", "service/checkout.load=300/s")),
    Change(dropped=("leaking_allocator",)),
    Change(dropped=("memory_spike-2", "leaking_allocator-1")),
    Change(sets=("service/checkout.load=20/s", "pod/app.limits=max"), dropped=("memory_spike",)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded run in which everything couples hosts that can, and states of it."""
    folder = tmp_path_factory.mktemp("branch")
    run_plan(coupled_plan(folder), folder / "run", FULL)
    return folder


def lines(run: Path) -> list[str]:
    return (run / "history.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("at_s", [0, 1, 30, 45, 119])
def test_a_branch_without_a_change_has_the_runs_own_hash(at_s: int, folder: Path, tmp_path: Path) -> None:
    brancher = Brancher(folder / "run", tmp_path / "scratch")
    branched = brancher.branch(brancher.order.plan, at_s * NS_PER_S, tmp_path / "b")
    assert branched.history_hash == brancher.run.manifest.history_hash
    assert (tmp_path / "b" / "scenario.yaml").read_text() == (folder / "run" / "scenario.yaml").read_text()
    assert branched.from_ns <= at_s * NS_PER_S and (at_s == 0 or branched.from_ns >= (at_s - 1) * NS_PER_S)
    assert branched.original == branched.changed and branched.changed, "and its servers did the same"


@settings(
    max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at_ms=st.integers(0, 119_999), change=st.sampled_from(CHANGES))
def test_a_branch_is_what_the_changed_plan_does_from_the_beginning(at_ms: int, change: Change, folder: Path, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    """The strongest statement: state, samples and history of the common part are exactly those that the changed run would have had."""
    here = tmp_path_factory.mktemp("b")
    at_ns = at_ms * 1_000_000
    brancher = Brancher(folder / "run", here / "scratch")
    plan = what_if(brancher.order.plan, at_ns, change)
    branched = brancher.branch(plan, at_ns, here / "branch")
    whole = run_plan(plan, here / "whole", FULL)
    assert lines(here / "branch") == lines(here / "whole")
    assert branched.history_hash == whole.history_hash
    before = [line for line in lines(folder / "run") if json.loads(line)["t_ns"] < at_ns and json.loads(line)["host"]]
    assert before == [line for line in lines(here / "branch") if json.loads(line)["t_ns"] < at_ns and json.loads(line)["host"]]


def test_a_change_takes_effect_at_its_very_instant(folder: Path, tmp_path: Path) -> None:
    at_ns = 45_678_000_000
    brancher = Brancher(folder / "run", tmp_path / "scratch")
    plan = what_if(brancher.order.plan, at_ns, Change(sets=("vm.swappiness=1",), on="node-0"))
    branched = brancher.branch(plan, at_ns, tmp_path / "b")
    (told,) = [e for e in branched.run.history if e.kind == "command" and e.data["author"] == "whatif"]
    assert (told.t_ns, told.host, told.subject, told.data["name"], told.data["value"]) == (at_ns, "node-0", "sysctl", "vm.swappiness", 1)


def test_a_fault_that_is_dropped_while_it_is_on_ends_then(folder: Path, tmp_path: Path) -> None:
    brancher = Brancher(folder / "run", tmp_path / "scratch")
    plan = what_if(brancher.order.plan, 40 * NS_PER_S, Change(dropped=("leaking_allocator",)))
    branched = brancher.branch(plan, 40 * NS_PER_S, tmp_path / "b")
    ends = [e.t_ns for e in branched.run.history if e.kind == "fault_end" and e.id == "leaking_allocator-1"]
    assert ends == [40 * NS_PER_S]
    restarts = [e for e in branched.run.history if e.kind == "restart" and e.data.get("pod") == "app" and e.t_ns > 40 * NS_PER_S]
    assert len(restarts) < len([e for e in brancher.run.history if e.kind == "restart" and e.data.get("pod") == "app"])


def test_a_fault_that_is_dropped_before_it_begins_never_was(folder: Path, tmp_path: Path) -> None:
    brancher = Brancher(folder / "run", tmp_path / "scratch")
    plan = what_if(brancher.order.plan, 10 * NS_PER_S, Change(dropped=("leaking_allocator", "memory_spike")))
    branched = brancher.branch(plan, 10 * NS_PER_S, tmp_path / "b")
    assert [e for e in branched.run.history if e.kind in ("fault_start", "fault_end")] == []
    assert branched.run.scenario["timeline"] == []


def test_a_branch_can_be_branched_again(folder: Path, tmp_path: Path) -> None:
    first = Brancher(folder / "run", tmp_path / "s1")
    plan = what_if(first.order.plan, 40 * NS_PER_S, Change(sets=("vm.swappiness=1", "service/checkout.load=300/s")))
    branched = first.branch(plan, 40 * NS_PER_S, tmp_path / "b")
    second = Brancher(tmp_path / "b", tmp_path / "s2")
    assert second.branch(second.order.plan, 80 * NS_PER_S, tmp_path / "c").history_hash == branched.history_hash


def test_a_branch_that_was_killed_half_way_can_be_gone_on_with(folder: Path, tmp_path: Path) -> None:
    """What lies in its directory from the first moment is the order: the changed plan."""
    brancher = Brancher(folder / "run", tmp_path / "scratch")
    plan = what_if(brancher.order.plan, 40 * NS_PER_S, CHANGES[-1])

    class Killed(BaseException):
        pass

    def die(stage: str, share: float, detail: str = "") -> None:
        if stage == "simulating the branch" and share > 0.5:
            raise Killed

    with pytest.raises(Killed):
        Brancher(folder / "run", tmp_path / "s1", progress=die).branch(plan, 40 * NS_PER_S, tmp_path / "b")
    whole = brancher.branch(plan, 40 * NS_PER_S, tmp_path / "whole")
    assert resume_plan(tmp_path / "b").history_hash == whole.history_hash


def test_the_common_part_is_simulated_once(folder: Path, tmp_path: Path) -> None:
    _, order = recorded(folder / "run")
    trunk = Trunk(order, tmp_path / "trunk")
    assert trunk.before(60 * NS_PER_S) is not None and trunk.simulated_ns == 59 * NS_PER_S
    assert trunk.before(60 * NS_PER_S) is not None and trunk.simulated_ns == 59 * NS_PER_S, "it was kept"
    trunk.before(80 * NS_PER_S)
    assert trunk.simulated_ns == 79 * NS_PER_S, "and gone on from"
    trunk.forget(70 * NS_PER_S, 100 * NS_PER_S)
    assert sorted(trunk.kept) == [59 * NS_PER_S, 79 * NS_PER_S]
    assert trunk.before(1) is None and trunk.simulated_ns == 79 * NS_PER_S


def test_a_history_that_the_replay_does_not_repeat_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (folder / "run").rglob("*"):
        if file.is_file():
            (copy / file.relative_to(folder / "run")).parent.mkdir(parents=True, exist_ok=True)
            (copy / file.relative_to(folder / "run")).write_bytes(file.read_bytes())
    text = (copy / "history.jsonl").read_text(encoding="utf-8")
    (copy / "history.jsonl").write_text(text.replace('"memory_pages":', '"memory_pages":1', 1), encoding="utf-8")
    brancher = Brancher(copy, tmp_path / "scratch")
    with pytest.raises(ToolFailed, match="does not repeat the history"):
        brancher.branch(brancher.order.plan, 30 * NS_PER_S, tmp_path / "b")


def test_what_is_no_finished_run_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a run directory"):
        recorded(tmp_path)
    (tmp_path / "run").mkdir()
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({**manifest, "history_hash": None}))
    with pytest.raises(BadInput, match=r"has not finished.*--resume"):
        recorded(tmp_path / "run")


RECORDED_LOAD = """\
summary: A recorded load, which a what-if ends.
seed: 1
duration: 40s
fleet:
  - hosts: 1
    name: a
    memory: 512MiB
    pods: [{name: site, workload: web, limits: 128MiB, working_set: 16MiB, load: {replay: load.csv}}]
"""


def arrived(run: RunDirectory, plan: Plan, scratch: Path) -> int:
    brancher = Brancher(run.path, scratch)
    served = brancher.branch(plan, 10 * NS_PER_S, scratch / "again").changed
    return served["a-0", "site"].count("arrived")


def test_a_load_that_is_set_replaces_the_recorded_one_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "load.csv").write_text("0,10\n5,20\n30,100\n", encoding="utf-8")
    (tmp_path / "x.yaml").write_text(RECORDED_LOAD, encoding="utf-8")
    plan = make_plan(load_scenario(tmp_path / "x.yaml"))
    run_plan(plan, tmp_path / "run", profile("rules"))
    run = RunDirectory(tmp_path / "run")
    changed = what_if(plan, 20 * NS_PER_S, Change(sets=("pod/site.load=40/s",)))
    more = arrived(run, changed, tmp_path / "s2") - arrived(run, plan, tmp_path / "s1")
    assert more == pytest.approx(10 * (40 - 20) + 10 * (40 - 100), abs=130), "what came in the last second or so is not counted yet"
