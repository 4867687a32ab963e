# SPDX-License-Identifier: Apache-2.0
"""The point of no return against its naive twin, which tries every instant with a whole run of the changed plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetsim.errors import BadInput
from fleetsim.fleet.branch import recorded
from fleetsim.fleet.controller import run_plan
from fleetsim.fleet.no_return import STATES, Search, Sought, point_of_no_return, sought
from fleetsim.fleet.plan import Plan, make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.fleet.whatif import Change, what_if
from fleetsim.observe.catalog import profile
from fleetsim.rundir.reader import RunDirectory
from fleetsim.units import NS_PER_S

NOTHING = profile("rules")
SCENARIO = """\
summary: A leak takes the room that the program itself needs later, so that it must be stopped long before the harm is seen.
seed: 11
duration: 1m
fleet:
  - hosts: 2
    name: a
    memory: 512MiB
    pods:
      - name: app
        workload: script
        requests: 16MiB
        limits: 64MiB
        ops: [mmap_anon h 40, touch h 10 10, until 42, touch h 40 20, sleep 99]
timeline:
  - {at: 5s, fault: leaking_allocator, on: a-1/app, rate: 1MiB/s}
"""
DROP = Change(dropped=("leaking_allocator",))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("no-return")
    (folder / "x.yaml").write_text(SCENARIO, encoding="utf-8")
    run_plan(make_plan(load_scenario(folder / "x.yaml")), folder / "run", NOTHING)
    return folder / "run"


def searching(recording: Path, scratch: Path, change: Change, wanted: Sought, **more: int) -> Search:
    _, order = recorded(recording)
    return Search(order, lambda plan, t_ns: what_if(plan, t_ns, change), wanted, scratch / "states", **more)  # type: ignore[arg-type]


def came(plan: Plan, wanted: Sought, out: Path) -> int | None:
    """Naively: the whole changed run."""
    run_plan(plan, out, NOTHING)
    return min((event.t_ns for event in RunDirectory(out).history if wanted.is_it(event)), default=None)


def test_the_bisected_moment_is_the_one_found_by_trying_every_epoch(recording: Path, tmp_path: Path) -> None:
    run, order = recorded(recording)
    wanted, first = sought(run.history, None)
    assert (wanted.impact, wanted.subject, wanted.host, first.host) == ("killed", "app", "a-1", "a-1")
    seconds = range(first.t_ns // NS_PER_S + 1)
    every = {s: came(what_if(order.plan, s * NS_PER_S, DROP), wanted, tmp_path / f"n{s}") for s in seconds}
    prevented = [s for s in seconds if every[s] is None]
    assert prevented == list(range(len(prevented))), "an earlier change is never worse here"
    assert 10 < len(prevented) < len(seconds) - 5, "the point lies well before the impact"

    search = searching(recording, tmp_path, DROP, wanted)
    found = point_of_no_return(search, 0, first.t_ns)
    assert (found.kind, found.latest_ns, found.too_late_ns) == ("point", prevented[-1] * NS_PER_S, (prevented[-1] + 1) * NS_PER_S)
    assert {t.at_ns: t.came_ns for t in found.trials} == {t.at_ns: every[t.at_ns // NS_PER_S] for t in found.trials}
    assert len(found.trials) <= 2 + len(seconds).bit_length()
    assert found.replayed_ns <= first.t_ns * (1 + 2 / STATES), "the common part was not simulated again for every trial"


def test_a_coarser_search_finds_the_same_moment_rounded_down(recording: Path, tmp_path: Path) -> None:
    run, _ = recorded(recording)
    wanted, first = sought(run.history, "killed:app")
    fine = point_of_no_return(searching(recording, tmp_path / "1", DROP, wanted), 0, first.t_ns)
    coarse = point_of_no_return(searching(recording, tmp_path / "7", DROP, wanted), 0, first.t_ns, 7 * NS_PER_S)
    assert fine.latest_ns is not None
    assert coarse.latest_ns == fine.latest_ns // (7 * NS_PER_S) * 7 * NS_PER_S


def test_states_outside_of_the_interval_are_thrown_away(recording: Path, tmp_path: Path) -> None:
    run, _ = recorded(recording)
    wanted, first = sought(run.history, None)
    search = searching(recording, tmp_path, DROP, wanted)
    point_of_no_return(search, 0, first.t_ns)
    assert sorted(path.name for path in (tmp_path / "states").iterdir()) == [f"{t:020d}" for t in sorted(search.trunk.kept)]
    assert len(search.trunk.kept) <= 2


def test_never_and_always_are_said(recording: Path, tmp_path: Path) -> None:
    run, _ = recorded(recording)
    wanted, first = sought(run.history, None)
    no_remedy = Change(sets=("vm.swappiness=1",))
    never = point_of_no_return(searching(recording, tmp_path / "n", no_remedy, wanted), 0, first.t_ns)
    assert (never.kind, never.latest_ns, never.too_late_ns, len(never.trials)) == ("never", None, 0, 1)
    more_room = Change(sets=("pod/app.limits=256MiB",))
    always = point_of_no_return(searching(recording, tmp_path / "a", more_room, wanted), 0, first.t_ns)
    assert (always.kind, always.latest_ns, always.too_late_ns) == ("always", (first.t_ns - 1) // NS_PER_S * NS_PER_S, None)
    with pytest.raises(BadInput, match="no instant to try between"):
        point_of_no_return(searching(recording, tmp_path / "x", DROP, wanted), first.t_ns + 1, first.t_ns)


def test_an_impact_before_the_change_is_no_failure_of_it(recording: Path, tmp_path: Path) -> None:
    wanted, first = sought(recorded(recording)[0].history, None)
    search = searching(recording, tmp_path, Change(sets=("pod/app.limits=256MiB",)), wanted)
    assert search.attempt(first.t_ns + NS_PER_S).came_ns is None, "it was killed before, and never again"


def test_an_impact_after_the_horizon_is_nobodys_concern(recording: Path, tmp_path: Path) -> None:
    run, _ = recorded(recording)
    wanted, first = sought(run.history, None)
    search = searching(recording, tmp_path, DROP, wanted, until_ns=first.t_ns - 1)
    assert search.attempt(first.t_ns // NS_PER_S * NS_PER_S).came_ns is None


def test_what_is_sought_is_said_by_kind_and_subject(recording: Path) -> None:
    history = recorded(recording)[0].history
    _, first = sought(history, None)
    for text in ("killed", "killed:app", "killed:a-1", "killed:a-1/app"):
        assert sought(history, text)[1] is first
    with pytest.raises(BadInput, match="does not come to pass in this run; what does: killed:app"):
        sought(history, "killed:a-0")
    with pytest.raises(BadInput, match="'slow'"):
        sought(history, "slow")
    with pytest.raises(BadInput, match="nobody is hurt in this run after 59s"):
        sought(history, None, 59 * NS_PER_S)
