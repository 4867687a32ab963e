# SPDX-License-Identifier: Apache-2.0
"""`fleetsim check`: simulate scenarios and let the real Prometheus say what the rules would have done. The main job.

Rules: everything that can be wrong with the files is told before anything is started. Without --out the runs go to a temporary
folder that is removed at the end. The exit code is the worst of all scenarios.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetsim.cli.engines import HostsPerActor, Ray, engine_for
from fleetsim.cli.options import Job, Json, MetricProfile, Rules, Seed, Threads
from fleetsim.cli.output import console, invocation, progress, say_notes
from fleetsim.cli.size_class import use_size_class

if TYPE_CHECKING:
    from fleetsim.fleet.plan import Plan
    from fleetsim.verdict.models import Verdicts


def check(
    scenarios: Annotated[list[Path], typer.Argument(help="Scenario files.", metavar="SCENARIO...")],
    rules: Rules = None,
    seed: Seed = None,
    job: Job = None,
    profile: MetricProfile = "full",
    threads: Threads = None,
    ray: Ray = None,
    hosts_per_actor: HostsPerActor = "auto",
    out: Annotated[Path | None, typer.Option("--out", help="Keep runs and HTML reports in DIR/NAME.", metavar="DIR")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write the verdicts as JUnit XML, for a CI server.", metavar="FILE")] = None,
    unit_tests: Annotated[
        Path | None, typer.Option("--unit-tests", help="Write plain promtool unit tests of the expected alerts to DIR/NAME.", metavar="DIR")
    ] = None,
    json: Json = False,
) -> int:
    """Simulate every SCENARIO and judge the alert rules: caught, missed, quiet or false alarm. Exit code 0: all as expected."""
    from fleetsim.cli.rule_files import job_asked_for, metrics_needed, rule_files_for
    from fleetsim.fleet.controller import run_plan
    from fleetsim.fleet.plan import make_plan
    from fleetsim.fleet.scenario import load_scenario
    from fleetsim.observe.catalog import profile as profile_called
    from fleetsim.observe.targets import TargetTemplate
    from fleetsim.rundir.writer import claim
    from fleetsim.verdict.check import judge_run
    from fleetsim.verdict.junit import write_junit

    profile_called(profile)
    loaded = [load_scenario(path) for path in scenarios]
    files = [rule_files_for(scenario, rules or []) for scenario in loaded]
    asked = [job_asked_for(chosen) for chosen in files]  # reads them all: a bad rule file is told now
    plans = [make_plan(scenario, seed, job or name or TargetTemplate.job) for scenario, name in zip(loaded, asked, strict=True)]
    use_size_class(plans)
    folders = _folder_names(plans)
    results: list[Verdicts] = []
    with ExitStack() as stack:
        root = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleetsim-check-")))
        for name in folders:
            claim(root / name)
        for plan, name, rule_files in zip(plans, folders, files, strict=True):
            invocation.seeds[plan.scenario.name] = plan.seed
            metrics = profile_called(profile, metrics_needed(rule_files) if profile == "rules" else ())
            say_notes(plan.scenario.name, plan.notes)
            with progress(plan.scenario.name) as show:
                with engine_for(plan, ray, hosts_per_actor, threads) as engine:
                    run_plan(plan, root / name, metrics, progress=show, engine=engine)
                tests = unit_tests / name if unit_tests is not None else None
                verdicts = judge_run(root / name, rule_files, progress=show, html=out is not None, unit_tests=tests)
            results.append(verdicts)
            if not json:
                _show(plan, verdicts, None if out is None else root / name / "verdict" / "report.html")
        if junit is not None:
            write_junit(junit, results)
    code = max(verdicts.exit_code for verdicts in results)
    if json:
        invocation.print_json({"exit_code": code, "scenarios": [verdicts.model_dump(mode="json") for verdicts in results]})
    else:
        _sum_up(results)
    return code


def _folder_names(plans: list[Plan]) -> list[str]:
    """One folder per scenario; two files of one name (in different folders) are told apart by a number."""
    names: list[str] = []
    for plan in plans:
        name, number = plan.scenario.name, 2
        while name in names:
            name, number = f"{plan.scenario.name}-{number}", number + 1
        names.append(name)
    return names


def _show(plan: Plan, verdicts: Verdicts, report: Path | None) -> None:
    """The scenario's own words, then what the judge says."""
    from rich.text import Text

    from fleetsim.verdict.report import print_report

    page = console()
    page.print(Text(plan.scenario.keys.summary))
    print_report(verdicts, page, report=report)
    page.print()


def _sum_up(results: list[Verdicts]) -> None:
    from fleetsim.verdict.report import print_summary

    print_summary(results, console())
