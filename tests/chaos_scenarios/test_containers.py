# SPDX-License-Identifier: Apache-2.0
"""Stories of containers, each asserted as a chain of events in its order, from the history that the run wrote."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetsim.cli.main import execute

FOLDER = Path(__file__).resolve().parents[2] / "chaos_scenarios"
Event = dict[str, Any]
History = Callable[[str], list[Event]]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    kept: dict[str, list[Event]] = {}

    def of(name: str) -> list[Event]:
        if name not in kept:
            out = tmp_path_factory.mktemp("run") / name
            assert execute(["run", "--profile", "rules", "--out", str(out), str(FOLDER / f"{name}.yaml")]) == 0
            kept[name] = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
        return kept[name]

    return of


def chain(events: list[Event], *wanted: tuple[str, str]) -> list[Event]:
    """The first events that are (kind, subject) in this order, each after the one before; fails at the first that is missing."""
    found, at = [], 0
    for kind, subject in wanted:
        later = [n for n in range(at, len(events)) if (events[n]["kind"], events[n]["subject"]) == (kind, subject)]
        assert later, f"no {kind} of {subject} after {[e['kind'] for e in found]}"
        found.append(events[later[0]])
        at = later[0] + 1
    return found


def of_kind(events: list[Event], kind: str, subject: str | None = None) -> list[Event]:
    return [e for e in events if e["kind"] == kind and subject in (None, e["subject"])]


# --- your container gets OOM-killed at 3 AM ---------------------------------------------------------------------------


def test_the_container_is_killed_comes_back_and_dies_again(history: History) -> None:
    events = history("oom-killed-at-3-am")
    once = [("oom_kill", "checkout"), ("container_exit", "checkout"), ("back_off", "checkout"), ("restart", "checkout")]
    found = chain(events, ("fault_start", "leaking_allocator"), *once, ("container_ready", "checkout"), *once, *once, *once)
    exits = [e for e in found if e["kind"] == "container_exit"]
    assert all((e["data"]["reason"], e["data"]["exit_code"]) == ("OOMKilled", 137) for e in exits)
    assert [e["data"]["seconds"] for e in found if e["kind"] == "back_off"] == [10, 20, 40, 80]
    assert {e["subject"] for e in of_kind(events, "oom_kill")} == {"checkout"}, "its neighbour on the node never notices"


def test_each_time_it_waits_longer(history: History) -> None:
    events = history("oom-killed-at-3-am")
    ends = [e["t_ns"] for e in of_kind(events, "task_exit", "checkout")]
    starts = [e["t_ns"] for e in of_kind(events, "restart", "checkout")]
    assert [round((start - end) / 1e9) for end, start in zip(ends, starts, strict=False)][:5] == [10, 20, 40, 80, 160]


def test_its_users_see_errors_while_it_is_away_and_readiness_takes_it_out(history: History) -> None:
    events = history("oom-killed-at-3-am")
    impacts = [e["data"]["impact"] for e in of_kind(events, "impact_start", "checkout")]
    assert "killed" in impacts and "errors" in impacts
    assert of_kind(events, "impact_start", "catalogue") == []


# --- requests far below limits ------------------------------------------------------------------------------------------


def test_an_overpacked_node_kills_by_qos_class(history: History) -> None:
    """BestEffort first; then the Burstable with the most badness, which is the smaller one with the small request; the rest lives."""
    events = history("overpacked-node")
    kills = of_kind(events, "oom_kill")
    assert all(e["data"]["constraint"] == "none" for e in kills), "no container reached its own limit: the node did"
    order = list(dict.fromkeys(e["subject"] for e in kills))
    assert order[:2] == ["report", "sessions"] and "database" not in order
    first = of_kind(events, "oom_kill", "sessions")[0]
    chain(events, ("oom_kill", "report"), ("container_exit", "report"), ("back_off", "report"), ("oom_kill", "sessions"))
    assert first["data"]["anon_rss_bytes"] < 1_000 << 20, "smaller than api by then, with a larger score by its small request"


# --- the kubelet or the kernel --------------------------------------------------------------------------------------------


def test_eaten_slowly_the_kubelet_evicts_before_the_kernel_kills(history: History) -> None:
    events = [e for e in history("eviction-or-oom") if e["host"] == "slow-0"]
    found = chain(
        events,
        ("eviction", "eater"),
        ("pod_phase", "eater"),
        ("container_stop", "eater"),
        ("container_exit", "eater"),
        ("pod_gone", "eater"),
        ("node_condition", "slow-0"),
    )
    assert found[0]["data"]["threshold"] == "hard" and found[1]["data"]["reason"] == "Evicted"
    assert found[5]["data"] == {"condition": "MemoryPressure", "status": "True", "taint": "node.kubernetes.io/memory-pressure:NoSchedule"}
    assert of_kind(events, "oom_kill") == [] and of_kind(events, "eviction", "steady") == []
    assert of_kind(events, "restart") == [], "a pod that was evicted is not started again on its node"


def test_eaten_fast_the_kernel_kills_before_the_kubelet_looks(history: History) -> None:
    events = [e for e in history("eviction-or-oom") if e["host"] == "fast-0"]
    chain(events, ("oom_kill", "glutton"), ("container_exit", "glutton"), ("pod_phase", "glutton"))
    assert of_kind(events, "eviction") == []


# --- the common misconception ---------------------------------------------------------------------------------------------


def test_the_killed_one_is_not_the_last_allocator(history: History) -> None:
    events = [e for e in history("the-killed-one-is-not-the-last-allocator") if e["host"] == "bare-0"]
    (kill, *_), invoker = of_kind(events, "oom_kill"), "batch"
    assert (kill["subject"], kill["data"]["invoker"]) == ("database", invoker)
    assert kill["data"]["constraint"] == "none"
    chain(events, ("oom_kill", "database"), ("container_exit", "database"), ("restart", "database"))


def test_a_limit_keeps_the_kill_in_the_batch_jobs_own_container(history: History) -> None:
    events = [e for e in history("the-killed-one-is-not-the-last-allocator") if e["host"] == "limited-0"]
    (kill,) = of_kind(events, "oom_kill")
    assert (kill["subject"], kill["data"]["invoker"], kill["data"]["constraint"]) == ("import", "import", "memcg")


# --- a Deployment takes its leak along ------------------------------------------------------------------------------------


def test_an_evicted_pod_comes_back_on_another_node_and_brings_that_under_pressure_too(history: History) -> None:
    events = history("evicted-and-taken-along")
    evictions = of_kind(events, "eviction")
    assert len({e["host"] for e in evictions}) >= 2, "one node after the other"
    first, second = evictions[:2]
    assert first["host"] != second["host"] and first["subject"] != second["subject"]
    chain(
        events,
        ("eviction", first["subject"]),
        ("pod_phase", first["subject"]),
        ("schedule", second["subject"]),
        ("pod_ready", second["subject"]),
        ("eviction", second["subject"]),
    )
    assert all(e["subject"].startswith("indexer-") for e in evictions), "whoever stays within its request stays"
    assert of_kind(events, "oom_kill") == []


def test_a_node_under_pressure_is_tainted_and_gets_no_besteffort_pod(history: History) -> None:
    events = history("evicted-and-taken-along")
    pressed: set[str] = set()
    for event in events:
        if event["kind"] == "node_condition":
            (pressed.add if event["data"]["status"] == "True" else pressed.discard)(event["host"])
        if event["kind"] == "schedule" and event["subject"].startswith("indexer-"):
            assert event["host"] not in pressed


def test_a_rolling_restart_never_leaves_fewer_than_three_of_four_nor_more_than_five(history: History) -> None:
    events = history("evicted-and-taken-along")
    begun = next(n for n, e in enumerate(events) if e["kind"] == "rollout")
    ready = {e["subject"] for e in events[:begun] if e["kind"] == "pod_ready" and e["subject"].startswith("web-")}
    there, before = set(ready), set(ready)
    assert len(ready) == 4
    for _, instant in itertools.groupby(events[begun:], key=lambda e: e["t_ns"]):
        for event in instant:
            name = event["data"].get("pod", event["subject"])
            if name.startswith("web-"):
                kind = event["subject"] if event["kind"] == "command" else event["kind"]
                there = there | {name} if kind == "schedule" else there - {name} if kind == "delete_pod" else there
                ready = ready | {name} if kind == "pod_ready" else ready - {name} if kind == "pod_unready" else ready
        assert len(ready) >= 3 and len(there) <= 5, "pods that are being deleted are not counted, as in Kubernetes"
    assert len(ready) == 4 and not ready & before, "all of them are new"


def test_threads_make_no_difference_to_kubelets_and_deployments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hashes = []
    for threads in ("1", "2"):
        scenario = str(FOLDER / "evicted-and-taken-along.yaml")
        assert execute(["run", "--profile", "rules", "--threads", threads, "--json", "--out", str(tmp_path / threads), scenario]) == 0
        hashes.append(json.loads(capsys.readouterr().out)["history_hash"])
    assert hashes[0] == hashes[1]


def test_an_evicted_replica_is_a_harm_until_its_successor_is_ready_and_a_rolling_restart_is_none(history: History) -> None:
    events = history("evicted-and-taken-along")
    away = [(e["kind"], e["subject"], e["t_ns"]) for e in events if e["data"].get("impact") == "unavailable"]
    evictions = [e["t_ns"] for e in of_kind(events, "eviction")]
    assert [(kind, name) for kind, name, _ in away] == [("impact_start", "indexer"), ("impact_end", "indexer")] * len(evictions)
    assert [t_ns for kind, _, t_ns in away if kind == "impact_start"] == evictions
    assert all(0 < end - start <= 5 * 10**9 for (*_, start), (*_, end) in zip(away[::2], away[1::2], strict=True))
