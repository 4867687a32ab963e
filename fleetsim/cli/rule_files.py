# SPDX-License-Identifier: Apache-2.0
"""Which rule files judge a scenario, and which metrics they read.

Named on the command line, else by the scenario's own `rules:`, else all of `rules/*.yml` beside the scenario.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleetsim.errors import BadInput
from fleetsim.fleet.scenario import Scenario
from fleetsim.observe.catalog import METRICS
from fleetsim.verdict.rules import load_rule_files


def rule_files_for(scenario: Scenario, named: Sequence[Path]) -> list[Path]:
    if named:
        return list(named)
    if scenario.rule_files:
        return scenario.rule_files
    folder = scenario.source.file.parent / "rules"
    found = sorted(path for path in folder.glob("*.y*ml") if path.suffix in (".yml", ".yaml"))
    if not found:
        raise BadInput(f"no rule file to judge with: give --rules FILE, or put one into {folder}/", file=scenario.source.file)
    return found


def metrics_needed(files: Sequence[Path]) -> list[str]:
    """The exported metrics that these rules may read; all of them if one expression cannot be understood."""
    names: set[str] = set()
    for rule in load_rule_files(files).rules:
        if rule.selectors is None:
            return [metric.name for metric in METRICS]
        for selector in rule.selectors:
            names |= {metric.name for metric in METRICS if selector.accepts_name(metric.name)}
    return sorted(names)
