# SPDX-License-Identifier: Apache-2.0
"""Stories of JVMs, told by their histories: what happened, in which order, and that nothing happens without the first cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from fleetsim.cli.main import execute

CHAIN = ("fault_start", "gc_pause", "impact_start", "oom_kill", "task_exit")
FOLDER = Path(__file__).resolve().parents[2] / "chaos_scenarios"


def told(scenario: Path, out: Path) -> list[dict[str, Any]]:
    """The history of a run."""
    assert execute(["run", "--out", str(out), str(scenario)]) == 0
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [event for event in events if event["kind"] not in ("pod_ready", "pod_unready")]


def began_ns(event: dict[str, Any]) -> int:
    """When it began: a pause is logged when it is over."""
    return int(event["t_ns"]) - int(event["data"].get("pause_ms", 0)) * 1_000_000


def words(events: list[dict[str, Any]]) -> list[str]:
    """Kinds, with the impact or the collection that they are about."""
    return [f"{event['kind']} {event['data'].get('impact') or event['data'].get('collection') or ''}".strip() for event in events]


def test_a_java_application_pauses_for_seconds_because_its_heap_was_swapped_out(tmp_path: Path) -> None:
    """The neighbour comes, minutes pass, one full collection waits for its pages, and users give up: in this order."""
    events = told(FOLDER / "jvm-pauses-because-it-is-swapped.yaml", tmp_path / "run")
    chain = sorted((event for event in events if event["kind"] in CHAIN), key=began_ns)
    assert words(chain)[:4] == ["fault_start", "gc_pause full", "impact_start latency", "impact_start errors"]
    fault, pause, latency = chain[:3]
    assert pause["data"]["pause_ms"] > 8_000
    assert pause["data"]["swap_ms"] > 0.8 * pause["data"]["pause_ms"], "it waited for pages, not for the processor"
    assert began_ns(pause) - fault["t_ns"] > 60e9, "nobody noticed for a minute and more"
    assert began_ns(pause) < latency["t_ns"] <= pause["t_ns"] + 10e9, "it was the pause: told at the next look, every ten seconds"
    assert not {"oom_kill", "task_exit"} & {event["kind"] for event in events}


def test_without_the_neighbour_the_same_application_never_hurts_anybody(tmp_path: Path) -> None:
    text = yaml.safe_load((FOLDER / "jvm-pauses-because-it-is-swapped.yaml").read_text())
    del text["timeline"], text["expect"]
    calm = tmp_path / "calm.yaml"
    calm.write_text(yaml.safe_dump(text))
    events = told(calm, tmp_path / "run")
    assert "impact_start" not in {event["kind"] for event in events}
    assert all(event["data"]["pause_ms"] < 1_500 and event["data"]["swap_ms"] == 0 for event in events if event["kind"] == "gc_pause")


def test_killed_by_the_kernel_or_out_of_heap(tmp_path: Path) -> None:
    """T-16.2, and its opposite: `orders` is killed with 137 and never threw; `search` threw, is never killed and fails its requests."""
    events = told(FOLDER / "jvm-xmx-too-near-the-limit.yaml", tmp_path / "run")
    orders = [event for event in events if event["subject"] == "orders"]
    search = [event for event in events if event["subject"] == "search"]
    ending = [word for word in dict.fromkeys(words(orders)) if word.split()[0] in ("oom_kill", "task_exit", "impact_start", "restart")]
    assert [word for word in ending if word != "impact_start errors"] == ["oom_kill", "impact_start killed", "task_exit", "restart"]
    assert 1 < ending.index("impact_start errors") < ending.index("restart"), "told at the next look, every ten seconds"
    assert next(event["data"]["exit_code"] for event in orders if event["kind"] == "task_exit") == 137
    assert "out_of_memory_error" not in {event["kind"] for event in orders}
    assert [word for word in words(search) if "gc_pause" not in word and "latency" not in word][1:3] == [
        "out_of_memory_error",
        "impact_start errors",
    ]
    assert not {"oom_kill", "task_exit"} & {event["kind"] for event in search}
