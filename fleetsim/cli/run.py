# SPDX-License-Identifier: Apache-2.0
"""`fleetsim run`: simulate one scenario and keep everything an outsider would have seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetsim.cli.options import Job, Json, MetricProfile, Rules, Seed, Threads
from fleetsim.cli.output import invocation, progress, say, say_notes
from fleetsim.cli.size_class import use_size_class
from fleetsim.errors import EXIT_OK


def run(
    scenario: Annotated[Path, typer.Argument(help="A scenario file.", metavar="SCENARIO")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the run, new or empty (default: runs/NAME-SEED).", metavar="DIR")
    ] = None,
    seed: Seed = None,
    profile: MetricProfile = "full",
    rules: Rules = None,
    job: Job = None,
    threads: Threads = None,
    json: Json = False,
) -> int:
    """Simulate SCENARIO: history and samples go to a run directory, which `fleetsim check` and your own tools can read."""
    from fleetsim.cli.rule_files import metrics_needed, rule_files_for
    from fleetsim.fleet.controller import run_plan
    from fleetsim.fleet.plan import make_plan
    from fleetsim.fleet.scenario import load_scenario
    from fleetsim.observe.catalog import profile as profile_called

    loaded = load_scenario(scenario)
    plan = make_plan(loaded, seed) if job is None else make_plan(loaded, seed, job)
    use_size_class([plan])
    invocation.seeds[loaded.name] = plan.seed
    chosen = profile_called(profile)
    if profile == "rules":
        chosen = profile_called(profile, metrics_needed(rule_files_for(loaded, rules or [])))
    folder = out or Path("runs") / f"{loaded.name}-{plan.seed}"
    say_notes(loaded.name, plan.notes)
    with progress(loaded.name) as show:
        result = run_plan(plan, folder, chosen, threads, show)
    if json:
        invocation.print_json(result.as_json())
    else:
        say(f"{loaded.name}: {result.hosts} hosts, {result.virtual_seconds / 60:g} minutes simulated in {result.wall_seconds:.1f} s")
        say(f"  seed {result.seed}, {result.events} events, {result.impacts} impacts, in {folder}")
        print(f"history_hash {result.history_hash}")
    return EXIT_OK
