# SPDX-License-Identifier: Apache-2.0
"""A run's verdicts as plain promtool unit tests that anyone can keep without fleetsim.

    DIR/<alert>.test.yml     input series of the hosts concerned, and what fires when
    DIR/rules/<file>         the rule files as they were, beside it
    promtool test rules DIR/<alert>.test.yml

A unit test has its samples on a grid, so the run's samples are moved to the next grid point (a scrape interval at
most): it keeps what the rule does, not to the second when. What is expected is what promtool itself says on these
samples, read back and then checked by running the finished file.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fleetsim.errors import ToolFailed
from fleetsim.rundir.reader import RunDirectory
from fleetsim.rundir.samples import runs
from fleetsim.verdict.evidence import Evidence
from fleetsim.verdict.oracle import GridSeries, alert_points, duration_text, firing_alerts, group_order, input_series
from fleetsim.verdict.prometheus import run_promtool
from fleetsim.verdict.promtool_output import Alert
from fleetsim.verdict.render import write_yaml
from fleetsim.verdict.rules import Rule, RuleSet
from fleetsim.verdict.statuses import metrics_read

HOSTS_MAX = 5  # a test that people read; promtool is slow with many
INSTANTS_MAX = 8


def write_unit_tests(folder: Path, evidence: Evidence, rules: RuleSet, alerts: Sequence[str]) -> list[Path]:
    """One file per alert of `alerts` that can be evaluated."""
    evaluable = {status.rule.name for status in evidence.statuses if not status.needs}
    (folder / "rules").mkdir(parents=True, exist_ok=True)
    return [_write(folder, evidence, rules, name) for name in dict.fromkeys(alerts) if name in evaluable & set(rules.alerts)]


def _write(folder: Path, evidence: Evidence, rules: RuleSet, alert: str) -> Path:
    run = evidence.run
    sources = [Path(file) for file in dict.fromkeys(rule.file for rule in _with_recorded(rules, alert))]
    copies = [_copy(source, folder / "rules", rules) for source in sources]
    step_ms = round(min((target.interval_s for target in run.targets), default=15.0) * 1000)
    series = _grid_series(run, _with_recorded(rules, alert), _hosts(evidence, alert), step_ms)
    end_ms = run.manifest.end_unix_ms
    expected = _expected(copies, alert, series, run.manifest.start_unix_ms, end_ms, step_ms)
    test = {"interval": duration_text(step_ms), "input_series": input_series(series, run.manifest.start_unix_ms, step_ms)}
    content = {
        "rule_files": [f"rules/{copy.name}" for copy in copies],
        "evaluation_interval": duration_text(step_ms),
        "group_eval_order": group_order(copies),
        "tests": [{**test, "alert_rule_test": expected}],
    }
    file = folder / f"{alert}.test.yml"
    write_yaml(file, content)
    head = f"# What {alert} did in the scenario {run.manifest.scenario}, seed {run.manifest.seed}. Run: promtool test rules {file.name}\n"
    file.write_text(head + file.read_text(encoding="utf-8"), encoding="utf-8")
    result = run_promtool(["test", "rules", str(file)])
    if result.returncode:
        raise ToolFailed(f"the unit test {file} does not pass under promtool: {(result.stdout + result.stderr).strip()[-400:]}")
    return file


def _copy(source: Path, folder: Path, rules: RuleSet) -> Path:
    """Files of one name from several folders get the folder's name in front."""
    alone = sum(file.name == source.name for file in rules.files) == 1
    return Path(shutil.copyfile(source, folder / (source.name if alone else f"{source.resolve().parent.name}-{source.name}")))


def _with_recorded(rules: RuleSet, alert: str) -> list[Rule]:
    """The alert's rules and every recording rule (or alert) they read, however far down."""
    wanted = [rule for rule in rules.rules if rule.kind == "alert" and rule.name == alert]
    for rule in wanted:
        for selector in rule.selectors or ():
            for other in rules.rules:
                records = other.kind == "record" and selector.accepts_name(other.name)
                alerts = other.kind == "alert" and selector.accepts_name("ALERTS") and selector.accepts("alertname", other.name)
                if (records or alerts) and other not in wanted:
                    wanted.append(other)
    return wanted


def _hosts(evidence: Evidence, alert: str) -> list[str]:
    """Whom it fired for and whom something was done to; a healthy host beside them, as the control."""
    fired = [host for firing in evidence.of(alert) for host in sorted(firing.named.hosts)]
    hit = [host for fault in evidence.faults for host in sorted(fault.hosts)]
    concerned = list(dict.fromkeys([*fired[:2], *hit, *fired]))[: HOSTS_MAX - 1]
    healthy = [host for host in evidence.hosts if host not in fired and host not in hit]
    return concerned + healthy[:1]


def _grid_series(run: RunDirectory, rules: Sequence[Rule], hosts: Sequence[str], step_ms: int) -> list[GridSeries]:
    names = metrics_read(rules, sorted({labels.get("__name__", "") for labels in run.series}))
    labels_of = [target.labels.items() for target in run.targets if target.host in hosts]
    chosen = [
        number
        for number, labels in enumerate(run.series)
        if (names is None or labels.get("__name__") in names) and any(mine <= labels.items() for mine in labels_of)
    ]
    found = []
    ids, times, values = run.columns(chosen)
    for number, first, last in runs(ids):
        start_ms = run.manifest.start_unix_ms
        steps = -((start_ms - times[first:last]) // step_ms)  # the next grid point
        newest = np.append(steps[1:] != steps[:-1], True)  # of two samples before one grid point the newer
        found.append(GridSeries(run.series[number], start_ms + steps[newest] * step_ms, values[first:last][newest]))
    return found


def _expected(
    files: Sequence[Path], alert: str, series: list[GridSeries], start_ms: int, end_ms: int, step_ms: int
) -> list[dict[str, Any]]:
    """`alert_rule_test`: just before, at, and after what promtool says changed."""
    points = alert_points(files, series, start_ms, end_ms, step_ms, step_ms)
    firing: dict[int, set[object]] = {}
    for (labels, time_ms), state in points.items():
        if state == "firing" and dict(labels)["alertname"] == alert:
            firing.setdefault(time_ms, set()).add(labels)
    instants = range(0, end_ms - start_ms + 1, step_ms)
    changes = [now for before, now in itertools.pairwise(instants) if firing.get(before, set()) != firing.get(now, set())]
    asked = sorted({0, instants[-1], *(time_ms for now in changes[:INSTANTS_MAX] for time_ms in (now - step_ms, now))})
    got = firing_alerts(files, input_series(series, start_ms, step_ms), step_ms, step_ms, [(alert, time_ms) for time_ms in asked])
    return [
        {"eval_time": duration_text(time_ms), "alertname": alert, "exp_alerts": [_alert(one) for one in got if one.time_ms == time_ms]}
        for time_ms in asked
    ]


def _alert(got: Alert) -> dict[str, Any]:
    labels = {name: text for name, text in got.labels.items() if name != "alertname"}
    return {"exp_labels": labels, "exp_annotations": got.annotations}
