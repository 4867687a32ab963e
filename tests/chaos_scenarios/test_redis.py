# SPDX-License-Identifier: Apache-2.0
"""The stories of a Redis that saves, each as the chain of events that its history tells: in order, and with what stays away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetsim.cli.main import execute
from fleetsim.rundir.reader import RunDirectory

FOLDER = Path(__file__).resolve().parents[2] / "chaos_scenarios"
MIB = 1 << 20
Story = tuple[RunDirectory, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Story]:
    kept: dict[str, Story] = {}

    def told(name: str) -> Story:
        if name not in kept:
            out = tmp_path_factory.mktemp("run") / name
            assert execute(["run", "--out", str(out), str(FOLDER / f"{name}.yaml")]) == 0
            kept[name] = RunDirectory(out), [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
        return kept[name]

    return told


def chain(events: list[dict[str, Any]], host: str, until_s: float) -> list[str]:
    """Kinds of what happened on a host, one after the other; impacts with their name; the same thing told twice once."""
    words: list[str] = []
    for event in events:
        if event["host"] == host and 0 < event["t_ns"] < until_s * 1e9 and event["kind"] not in ("task_start", "pod_ready", "pod_unready"):
            word = " ".join([event["kind"], event["data"].get("impact", ""), event["subject"].removeprefix("sessions").strip("-")]).strip()
            word = " ".join(word.split())
            words += [word] if not words or words[-1] != word else []
    return words


def anon_bytes(run: RunDirectory, host: str) -> list[tuple[int, float]]:
    (i,) = [
        i for i, labels in enumerate(run.series) if labels.get("instance") == host and labels["__name__"] == "node_memory_AnonPages_bytes"
    ]
    _, times, values = run.columns([i])
    return [(int(t), float(v)) for t, v in zip(times, values, strict=True)]


def at(events: list[dict[str, Any]], kind: str, host: str) -> float:
    return next(event["t_ns"] / 1e9 for event in events if event["kind"] == kind and event["host"] == host)


def test_a_save_under_heavy_writes_fills_the_container_and_the_kernel_kills_all_in_it(story: Callable[[str], Story]) -> None:
    _, events = story("redis-save-doubles-its-memory")
    told = chain(events, "busy-0", 400)
    told[5:7] = sorted(told[5:7])  # both die at once: who has more to give back is gone last
    assert told == [
        "save_start",
        "oom_kill",
        "impact_start killed",
        "oom_kill child",
        "impact_start killed child",
        "task_exit",
        "task_exit child",
        "container_exit",
        "back_off",
        "impact_start errors",
        "restart",
        "impact_end killed",
        "impact_end killed child",
        "impact_end errors",
    ]
    kills = [event for event in events if event["kind"] == "oom_kill"]
    assert {event["data"]["constraint"] for event in kills} == {"memcg"}
    saves = [event["t_ns"] / 1e9 for event in events if event["kind"] == "save_start" and event["host"] == "busy-0"]
    assert len(saves) == 2, "the next save does the same"
    assert len({event["t_ns"] for event in kills}) == 2


def test_between_fork_and_kill_memory_grows_and_rss_does_not_say_so(story: Callable[[str], Story]) -> None:
    run, events = story("redis-save-doubles-its-memory")
    begun, killed = at(events, "save_start", "busy-0"), at(events, "oom_kill", "busy-0")
    start_ms = min(t for t, _ in anon_bytes(run, "busy-0"))
    since = [(t - start_ms // 15_000 * 15_000) / 1000 for t, _ in anon_bytes(run, "busy-0")]
    anon = [value for _, value in anon_bytes(run, "busy-0")]
    before = max(value for t, value in zip(since, anon, strict=True) if begun - 60 < t < begun)
    during = max(value for t, value in zip(since, anon, strict=True) if begun < t < killed)
    assert during - before > 300 * MIB
    (kill, *_) = [event for event in events if event["kind"] == "oom_kill"]
    assert kill["data"]["anon_rss_bytes"] == pytest.approx(before, rel=0.05)


def test_the_same_redis_with_few_writes_saves_and_nobody_notices(story: Callable[[str], Story]) -> None:
    _, events = story("redis-save-doubles-its-memory")
    assert chain(events, "calm-0", 720) == ["save_start calm", "task_exit calm-child", "save_end calm"] * 2
    cow = [event["data"]["cow_bytes"] for event in events if event["kind"] == "save_end"]
    assert all(0 < copied < 300 * MIB for copied in cow)


def test_without_a_promise_of_as_much_again_redis_cannot_save_and_refuses_writes_and_nobody_is_killed(
    story: Callable[[str], Story],
) -> None:
    _, events = story("redis-cannot-save")
    words = chain(events, "strict-0", 600)
    assert [word for word in words if word != "enomem"] == ["save_failed", "impact_start errors"]
    assert words[0] == "enomem"
    failed = next(event for event in events if event["kind"] == "save_failed")
    assert failed["data"]["reason"] == "Can't save in background: fork: Cannot allocate memory"
    assert failed["t_ns"] / 1e9 == pytest.approx(120, abs=3)
