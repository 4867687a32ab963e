# SPDX-License-Identifier: Apache-2.0
"""What a Ray actor does, without Ray: a call happens once, whatever is lost on the way, and an actor that was started anew says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleetsim.fleet.hosts_actor import Answer, Call, Duty, HostsActor
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.shard_run import ShardPlan, series_ids
from fleetsim.host.ports import PORT
from fleetsim.observe.catalog import profile
from fleetsim.rundir.samples import block_files, dataset, read_columns
from fleetsim.units import NS_PER_S
from tests.fleet.coupled import coupled_plan

PROFILE = profile("rules", ["node_memory_MemAvailable_bytes"])
LOOKS = 8


class NoWriter:
    """Series are numbered as they come."""

    def __init__(self) -> None:
        self.count = 0

    def series(self, labels: Any) -> int:
        self.count += 1
        return self.count - 1

    def samples(self, ids: Any, times_ms: Any, values: Any) -> None:
        raise AssertionError("an actor writes its own")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return coupled_plan(tmp_path_factory.mktemp("scenario"))


def duty_of(plan: Plan, folder: Path) -> Duty:
    """The five shops as two shards; the folder is seen by its token."""
    folder.mkdir()
    (folder / ".token").write_text("seen")
    ids = series_ids(plan, PROFILE, NoWriter())
    parts = tuple(ShardPlan.cut(plan, first, count, ids) for first, count in ((0, 1), (1, 4)))
    return Duty(parts, PROFILE, str(folder), "seen", "00000", 25)


def call(plan: Plan, number: int) -> Call:
    """A quarter of a minute, with what the plan does to the five hosts meanwhile."""
    length = 15 * NS_PER_S
    due = [c for c in plan.commands() if (number - 1) * length <= c.t_ns < number * length]
    shards = [{spec.name for spec in plan.hosts[:1]}, {spec.name for spec in plan.hosts[1:5]}]
    return Call(number, number * length, tuple(tuple(c for c in due if c.host in names) for names in shards), None)


def lived(plan: Plan, actor: HostsActor, first: int = 1, last: int = LOOKS) -> list[Answer]:
    answers = [actor.advance(call(plan, number)) for number in range(first, last + 1)]
    assert None not in answers
    return [answer for answer in answers if answer is not None]


def rows(folder: Path) -> list[tuple[int, int, bytes]]:
    ids, times, values = read_columns(dataset(folder), None)
    return [(n, t, value.tobytes()) for n, t, value in zip(ids.tolist(), times.tolist(), values, strict=True)]


def end_of(actor: HostsActor, folder: Path, number: int = LOOKS) -> tuple[Any, Any]:
    assert actor.finish(number) == (None, [])
    return actor.digests(number), rows(folder)


@pytest.fixture(scope="module")
def unbroken(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("unbroken") / "samples"
    actor = HostsActor()
    actor.begin(duty_of(plan, folder), [], [], 0)
    assert any(event.kind == "oom_kill" for answer in lived(plan, actor) for event in answer.events)
    return end_of(actor, folder)


def test_a_call_that_comes_again_gets_its_answer_again_and_is_not_done_again(plan: Plan, unbroken: tuple[Any, Any], tmp_path: Path) -> None:
    actor = HostsActor()
    actor.begin(duty_of(plan, tmp_path / "samples"), [], [], 0)
    for number in range(1, LOOKS + 1):
        assert actor.advance(call(plan, number)) is actor.advance(call(plan, number))
    assert end_of(actor, tmp_path / "samples") == unbroken


def test_a_call_that_does_not_follow_gets_no_answer(plan: Plan, tmp_path: Path) -> None:
    actor = HostsActor()
    assert actor.advance(call(plan, 1)) is None, "it has not begun"
    assert actor.save(0) is actor.finish(0) is actor.digests(0) is actor.records(0, [(0, 0)]) is None
    actor.begin(duty_of(plan, tmp_path / "samples"), [], [], 0)
    assert actor.advance(call(plan, 2)) is None
    lived(plan, actor, last=1)
    assert actor.save(0) is actor.finish(2) is None
    assert actor.advance(replace(call(plan, 1), number=-1)) is None


@pytest.mark.parametrize("died_after", range(5, LOOKS + 1))
def test_started_anew_from_a_checkpoint_it_does_the_calls_since_again(
    plan: Plan, unbroken: tuple[Any, Any], tmp_path: Path, died_after: int
) -> None:
    """The first one leaves blocks behind that come after the checkpoint; nothing of them is there twice."""
    duty = duty_of(plan, tmp_path / "samples")
    first, second = HostsActor(), HostsActor()
    first.begin(duty, [], [], 0)
    lived(plan, first, last=4)
    saved = first.save(4)
    assert saved is not None and saved[1] == []
    before = lived(plan, first, 5, died_after)[-1]
    assert second.advance(call(plan, died_after + 1)) is None
    again = second.begin(duty, saved[0], [call(plan, number) for number in range(5, died_after + 1)], died_after)
    assert again.events == before.events
    lived(plan, second, died_after + 1)
    assert end_of(second, tmp_path / "samples") == unbroken


def test_where_the_run_directory_is_not_seen_the_blocks_are_fetched(plan: Plan, unbroken: tuple[Any, Any], tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    duty = replace(duty_of(plan, folder), token="of another machine")
    actor = HostsActor()
    actor.begin(duty, [], [], 0)
    for number in range(1, LOOKS + 1):
        lived(plan, actor, number, number)
        told = actor.save(number) if number % 2 else actor.finish(number)
        assert told is not None
        for name in told[1]:
            content = actor.fetch(name)
            assert content is not None
            (folder / name).write_bytes(content)
        actor.forget(told[1])
        assert all(actor.fetch(name) is None for name in told[1])
    assert block_files(folder)
    assert (actor.digests(LOOKS), rows(folder)) == unbroken


def test_whom_to_follow_is_a_call_like_others_and_is_said_anew_with_a_state(plan: Plan, tmp_path: Path) -> None:
    """After the second call only the last shop is followed; one that is started anew hears of it by the calls, or with its states."""
    duty = duty_of(plan, tmp_path / "samples")
    only_last = ((), (duty.parts[1].replicas[-1],))
    other = Call(3, None, (), None, only_last)

    def counts(answer: Answer | None) -> list[int]:
        assert answer is not None
        return [len(ports) // PORT.itemsize for ports in answer.ports]

    actor = HostsActor()
    assert counts(actor.begin(duty, [], [], 0)) == [1, 4]
    lived(plan, actor, last=2)
    assert counts(actor.advance(other)) == [0, 1]
    fourth = replace(call(plan, 3), number=4)
    ports = actor.advance(fourth)
    assert counts(ports) == [0, 1]
    saved = actor.save(4)
    assert saved is not None
    by_calls, by_state = HostsActor(), HostsActor()
    again = by_calls.begin(duty, [], [call(plan, 1), call(plan, 2), other, fourth], 4)
    restored = by_state.begin(duty, saved[0], [], 4, only_last)
    assert ports is not None
    assert again.ports[1] == restored.ports[1] == ports.ports[1]
