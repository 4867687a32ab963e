# SPDX-License-Identifier: Apache-2.0
"""Which rules judge a scenario, and how its targets are labelled so that published rules find them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fleetsim.cli.rule_files import job_asked_for, metrics_needed, rule_files_for
from fleetsim.errors import BadInput
from fleetsim.fleet.plan import make_plan
from fleetsim.fleet.scenario import Scenario, load_scenario

FLEET = "summary: x\nduration: 1m\nfleet: [{hosts: 1, name: a, memory: 1GiB%s}]\n"


def rules(folder: Path, name: str, *expressions: str) -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    entries = ", ".join(f"{{alert: A{number}, expr: '{expr}'}}" for number, expr in enumerate(expressions))
    file.write_text(f"groups: [{{name: g, rules: [{entries}]}}]\n", encoding="utf-8")
    return file


def scenario(folder: Path, head: str = "", host: str = "") -> Scenario:
    file = folder / "x.yaml"
    file.write_text(head + FLEET % host, encoding="utf-8")
    return load_scenario(file)


@pytest.fixture(autouse=True)
def promtool(require_tool: Callable[[str], Path]) -> None:
    require_tool("promtool")


def test_the_scenarios_own_rules_come_first_and_named_ones_in_addition(tmp_path: Path) -> None:
    own, beside = rules(tmp_path, "own.yml", "up"), rules(tmp_path, "rules/b.yml", "up")
    assert rule_files_for(scenario(tmp_path, "rules: [own.yml]\n"), []) == [own]
    assert rule_files_for(scenario(tmp_path, "rules: [own.yml]\n"), [beside]) == [own, beside]
    assert rule_files_for(scenario(tmp_path), [beside]) == [beside]
    assert rule_files_for(scenario(tmp_path), []) == [beside]


def test_a_file_named_twice_is_judged_once(tmp_path: Path) -> None:
    own = rules(tmp_path, "own.yml", "up")
    again = tmp_path / "rules" / ".." / "own.yml"
    (tmp_path / "rules").mkdir()
    assert len(rule_files_for(scenario(tmp_path, "rules: [own.yml]\n"), [own, again])) == 1


def test_without_any_rule_file_it_is_said_where_one_could_be(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--rules FILE"):
        rule_files_for(scenario(tmp_path), [])


@pytest.mark.parametrize(
    ("expressions", "job"),
    [
        (['node_load1{job="node"} > 1', "node_load5 > 1"], "node"),
        (['node_load1{job="node"} > 1', 'node_load5{job="machines"} > 1'], None),
        (['node_load1{job=~"node.*"} > 1'], None),
        (['up{job="prometheus"} == 0', 'process_start_time_seconds{job="prometheus"} > 0', 'mine{job="app"} > 1'], None),
    ],
)
def test_the_job_is_the_one_that_the_rules_select_if_it_is_one(expressions: list[str], job: str | None, tmp_path: Path) -> None:
    assert job_asked_for([rules(tmp_path, "r.yml", *expressions)]) == job


def test_what_a_host_group_says_of_its_labels_wins(tmp_path: Path) -> None:
    plain = make_plan(scenario(tmp_path), job="node").scrape_targets[0].labels
    assert plain == {"instance": "a-0", "job": "node"}
    own = make_plan(scenario(tmp_path, host=", labels: {job: mine, instance: '{host}:9100', site: '{group}'}"), job="node")
    assert own.scrape_targets[0].labels == {"instance": "a-0:9100", "job": "mine", "site": "a"}


def test_an_unknown_placeholder_in_a_label_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"x\.yaml:3: .*\{group\}, \{host\}"):
        make_plan(scenario(tmp_path, host=", labels: {site: '{town}'}"))


def test_the_metrics_that_rules_may_read_are_found_also_by_pattern(tmp_path: Path) -> None:
    file = rules(tmp_path, "r.yml", "node_load1 > 1", '{__name__=~"node_memory_Mem.*"} > 1', "nobody_has_this > 1")
    needed = metrics_needed([file])
    assert "node_load1" in needed and "node_memory_MemFree_bytes" in needed
    assert "node_load5" not in needed and "nobody_has_this" not in needed
