# SPDX-License-Identifier: Apache-2.0
"""The incidents that show the point, judged by the real Prometheus: free memory is not available memory, nor is that of another node."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetsim.cli.main import execute
from fleetsim.rundir.reader import RunDirectory

FOLDER = Path(__file__).resolve().parents[2] / "chaos_scenarios"
RULES = ["--rules", str(FOLDER / "rules" / "free-memory.yml"), "--rules", str(FOLDER / "rules" / "available-memory.yml")]


@pytest.fixture(scope="module")
def pair(require_tool: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    require_tool("prometheus")
    require_tool("promtool")
    kept: dict[str, dict[str, Any]] = {}

    def verdicts(name: str) -> dict[str, Any]:
        if name not in kept:
            out = tmp_path_factory.mktemp("check")
            assert execute(["check", *RULES, "--out", str(out), str(FOLDER / f"{name}.yaml")]) == 0
            kept[name] = json.loads((out / name / "verdict" / "verdicts.json").read_text())
            kept[name]["folder"] = str(out / name)
        return kept[name]

    return verdicts


def lowest_share_available(run: RunDirectory, host: str) -> float:
    """The least that MemAvailable was of MemTotal in any scrape of a host."""
    ids = {
        labels["__name__"]: i
        for i, labels in enumerate(run.series)
        if labels.get("instance") == host and labels["__name__"] in ("node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes")
    }
    available, total = (run.columns([i])[2] for _, i in sorted(ids.items()))
    return float(min(available) / max(total))


def words(verdicts: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(e["kind"], e["name"], e["verdict"]) for e in verdicts["expectations"]]


def test_the_leak_is_caught_by_available_memory_before_the_kill(pair: Callable[[str], dict[str, Any]]) -> None:
    verdicts = pair("leak-one-container")
    assert words(verdicts) == [
        ("impact", "killed", "caught"),
        ("alert", "HostMemoryAvailableLow", "caught"),
        ("silent", "HostMemoryAvailableLow", "quiet"),
    ]
    assert verdicts["expectations"][1]["lead_s"] > 30


def test_the_backup_is_a_false_alarm_of_free_memory_and_available_memory_stays_quiet(pair: Callable[[str], dict[str, Any]]) -> None:
    verdicts = pair("page-cache-fills-memory")
    assert words(verdicts) == [("false_alarm", "HostMemoryFreeLow", "false_alarm"), ("silent", "HostMemoryAvailableLow", "quiet")]
    free = next(rule for rule in verdicts["rules"] if rule["alert"] == "HostMemoryFreeLow")
    assert (free["firings"], free["false_firings"]) == (4, 4), "one for every healthy host"
    assert verdicts["expectations"][0]["reason"], "the scenario says why"


def test_nobody_is_hurt_while_the_page_cache_fills_the_memory(pair: Callable[[str], dict[str, Any]]) -> None:
    history = Path(pair("page-cache-fills-memory")["folder"]) / "history.jsonl"
    kinds = {json.loads(line)["kind"] for line in history.read_text().splitlines()}
    assert "fault_start" in kinds
    assert not kinds & {"impact_start", "oom_kill", "table_full"}


def test_the_leaking_container_is_the_one_that_dies(pair: Callable[[str], dict[str, Any]]) -> None:
    history = Path(pair("leak-one-container")["folder"]) / "history.jsonl"
    events = [json.loads(line) for line in history.read_text().splitlines()]
    (target,) = next(event for event in events if event["kind"] == "fault_start")["data"]["hosts"]
    kills = [(event["host"], event["subject"]) for event in events if event["kind"] == "oom_kill"]
    assert kills and set(kills) == {(target, "recommender")}


def test_a_numa_node_runs_out_while_the_host_has_memory_and_no_alert_on_available_memory_sees_it(
    pair: Callable[[str], dict[str, Any]],
) -> None:
    verdicts = pair("numa-node-runs-out")
    assert words(verdicts) == [("impact", "killed", "caught"), ("silent", "HostMemoryAvailableLow", "quiet")]
    assert lowest_share_available(RunDirectory(Path(verdicts["folder"])), "db-0") > 0.4
