# SPDX-License-Identifier: Apache-2.0
"""judge_run(): a run directory and rule files in, verdicts out.

    1 read the run    2 load the rules    3 which of them can be evaluated    4 samples into a private Prometheus
    5 evaluate        6 timeline          7 one verdict per expectation       8 every rule scored    9 write verdict/

Writes verdict/{alerts.jsonl, verdicts.json, report.html} into the run directory, over those of an earlier judging, and
whatever else was asked for. Nothing else of the run directory is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fleetsim.rundir.reader import RunDirectory
from fleetsim.verdict.evaluate import Evaluator, Window, place
from fleetsim.verdict.evidence import Evidence, RuleStatus
from fleetsim.verdict.judge import judge
from fleetsim.verdict.junit import write_junit
from fleetsim.verdict.load import load_run
from fleetsim.verdict.models import Verdicts
from fleetsim.verdict.outcome import RuleRun
from fleetsim.verdict.prometheus import private_prometheus
from fleetsim.verdict.rules import RuleSet, load_rule_files
from fleetsim.verdict.score import Scoreboard
from fleetsim.verdict.statuses import Provision, Statuses, metrics_read
from fleetsim.verdict.timeline import AlertSpan, spans_of, write_alerts

EVALUATION_INTERVAL_S = 15.0
"""For groups that do not say their own; the interval of Prometheus' example configuration."""

Progress = Callable[[str, float], None]  # what is being done, how much of it is done (0..1)


def judge_run(
    run_dir: Path,
    rule_files: Sequence[Path],
    *,
    progress: Progress | None = None,
    html: bool = True,
    junit: Path | None = None,
    unit_tests: Path | None = None,
    evaluation_interval_s: float = EVALUATION_INTERVAL_S,
) -> Verdicts:
    """Judge a finished run. `junit`: a file to write; `unit_tests`: a folder for promtool unit tests of the expected alerts."""
    tell = progress or (lambda what, share: None)
    run = RunDirectory(run_dir)
    expectations = run.expectations  # what is broken is told before a server is started
    tell("checking rules", 0.0)
    rules = load_rule_files(rule_files)
    evidence, spans = gather(run, rules, evaluation_interval_s, tell)
    board = Scoreboard(evidence)
    verdicts = Verdicts(
        scenario=run.manifest.scenario,
        seed=run.manifest.seed,
        version=run.manifest.version,
        history_hash=run.manifest.history_hash or "",
        evaluation_interval_s=evaluation_interval_s,
        hosts=len(evidence.hosts),
        duration_s=run.manifest.duration_ns / 1e9,
        expectations=[judge(evidence, expectation) for expectation in expectations],
        rules=board.rules(),
        incidents=board.incidents(),
        coverage=board.coverage(),
    )
    folder = run.path / "verdict"
    folder.mkdir(exist_ok=True)
    write_alerts(folder / "alerts.jsonl", spans, run.manifest.start_unix_ms)
    (folder / "verdicts.json").write_text(verdicts.model_dump_json(indent=1) + "\n", encoding="utf-8")
    _write_extras(evidence, rules, verdicts, folder, html=html, junit=junit, unit_tests=unit_tests, tell=tell)
    return verdicts


def gather(run: RunDirectory, rules: RuleSet, evaluation_interval_s: float, tell: Progress) -> tuple[Evidence, list[AlertSpan]]:
    """What there is to judge by: every alert that the rules would have raised over this run, beside its history."""
    statuses = Statuses(rules, Provision(run))
    runs = evaluate_run(run, rules, statuses, round(evaluation_interval_s * 1000), tell)
    tell("rendering alerts", 0.0)
    spans = spans_of(list(runs.values()))
    return Evidence(run, statuses.all(lambda number: _failures(runs.get(number))), spans), spans


def evaluate_run(run: RunDirectory, rules: RuleSet, statuses: Statuses, interval_ms: int, tell: Progress) -> dict[int, RuleRun]:
    """What every evaluable rule did, by its number in `rules.rules`."""
    skip = {number for number, needs in enumerate(statuses.needs) if needs}
    chosen = [number for number in range(len(rules.rules)) if number not in skip]
    if not chosen:
        return {}
    window = Window(run.manifest.start_unix_ms, run.manifest.end_unix_ms, interval_ms)
    metrics = metrics_read([rules.rules[number] for number in chosen], sorted({s.get("__name__", "") for s in run.series}))
    with private_prometheus() as server:
        load_run(run, server, metrics, tell)
        runs = Evaluator(server, place(rules, window, skip), tell).run()
    return dict(zip(chosen, runs, strict=True))


def _failures(run: RuleRun | None) -> tuple[tuple[str, ...], int]:
    return ((), 0) if run is None else (tuple(words for _, words in run.failures), len(run.instants))


def _write_extras(
    evidence: Evidence,
    rules: RuleSet,
    verdicts: Verdicts,
    folder: Path,
    *,
    html: bool,
    junit: Path | None,
    unit_tests: Path | None,
    tell: Progress,
) -> None:
    if junit is not None:
        write_junit(junit, [verdicts])
    if html:
        tell("drawing the report", 0.0)
        from fleetsim.verdict.html import write_html  # plotly takes a second to import

        write_html(folder / "report.html", evidence, verdicts)
    if unit_tests is not None:
        from fleetsim.verdict.unit_test import write_unit_tests

        tell("writing unit tests", 0.0)
        write_unit_tests(unit_tests, evidence, rules, [e.name for e in verdicts.expectations if e.kind != "impact"])


__all__ = ["EVALUATION_INTERVAL_S", "RuleStatus", "evaluate_run", "gather", "judge_run"]
