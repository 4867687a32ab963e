# SPDX-License-Identifier: Apache-2.0
"""A batch job evicts the database's page cache: queries are slow from when it begins until its memory is back and the cache is warm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fleetsim.cli.main import execute
from tests.chaos_scenarios.stories import FOLDER, Story

NAME = "batch-evicts-the-database-cache"


def test_queries_are_slow_while_the_report_runs_and_well_again_afterwards(tmp_path: Path) -> None:
    story = Story.of(NAME, tmp_path, without_faults=True)
    begin, slow, end, over = story.chain(
        "op_start db-0/report", "latency start db-0/postgres", "op_end db-0/report", "latency end db-0/postgres"
    )
    assert begin.seconds == pytest.approx(360, abs=0.1)
    assert slow.seconds - begin.seconds <= 120
    assert 0 < over.seconds - end.seconds <= 120, "the cache is warm again"
    assert not [one for one in story.lines if one.seconds > over.seconds]
    assert not [one for one in story.all("(latency|errors) start") if one.seconds < begin.seconds]
    assert not story.all("killed|oom_kill|restart"), "nobody is killed"


def test_without_the_report_nothing_happens(tmp_path: Path) -> None:
    fleet = yaml.safe_load((FOLDER / f"{NAME}.yaml").read_text())["fleet"]
    fleet[0]["pods"] = [pod for pod in fleet[0]["pods"] if pod["name"] != "report"]
    story = Story.of(NAME, tmp_path, without_faults=True, fleet=fleet)
    assert {one.text.split()[0] for one in story.lines} == {"task_start"}


def test_the_rule_on_available_memory_sees_nothing(require_tool: Callable[[str], Path], tmp_path: Path) -> None:
    require_tool("prometheus")
    require_tool("promtool")
    assert execute(["check", "--out", str(tmp_path), str(FOLDER / f"{NAME}.yaml")]) == 0
    verdicts = json.loads((tmp_path / NAME / "verdict" / "verdicts.json").read_text())
    assert [(e["kind"], e["verdict"]) for e in verdicts["expectations"]] == [("silent", "quiet")]
