# SPDX-License-Identifier: Apache-2.0
"""Which rule files judge a scenario, and which metrics they read.

A scenario's own `rules:` belong to it and are always loaded; files named on the command line come in addition. If neither names
any, all of `rules/*.yml` beside the scenario are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleetsim.errors import BadInput
from fleetsim.fleet.scenario import Scenario
from fleetsim.observe.catalog import METRICS, NODE_EXPORTER
from fleetsim.verdict.rules import load_rule_files


def rule_files_for(scenario: Scenario, named: Sequence[Path]) -> list[Path]:
    files = {path.resolve(): path for path in (*scenario.rule_files, *named)}  # the same file twice would fire twice
    if files:
        return list(files.values())
    folder = scenario.source.file.parent / "rules"
    found = sorted(path for path in folder.glob("*.y*ml") if path.suffix in (".yml", ".yaml"))
    if not found:
        raise BadInput(f"no rule file to judge with: give --rules FILE, or put one into {folder}/", file=scenario.source.file)
    return found


def job_asked_for(files: Sequence[Path]) -> str | None:
    """The one job whose node_exporter these rules select (`job="node"`); None if they name none, or several.

    Published rules disagree about the name; a site's targets have the one that its rules ask for.
    """
    exported = {metric.name for metric in METRICS if metric.exporter == NODE_EXPORTER and metric.name.startswith("node_")}
    asked: set[str] = set()
    for rule in load_rule_files(files).rules:
        for selector in rule.selectors or ():
            if any(selector.accepts_name(name) for name in exported):
                asked |= {value for label, op, value in selector.matchers if label == "job" and op == "="}
    return asked.pop() if len(asked) == 1 else None


def metrics_needed(files: Sequence[Path]) -> list[str]:
    """The exported metrics that these rules may read; all of them if one expression cannot be understood."""
    names: set[str] = set()
    for rule in load_rule_files(files).rules:
        if rule.selectors is None:
            return [metric.name for metric in METRICS]
        for selector in rule.selectors:
            names |= {metric.name for metric in METRICS if selector.accepts_name(metric.name)}
    return sorted(names)
