# SPDX-License-Identifier: Apache-2.0
"""`fleetsim run`: simulate one scenario and keep everything an outsider would have seen; or go on with such a run that was stopped.

Rules: whatever happens to this process, `--resume` with its directory brings the run to the end that it would have had.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetsim.cli.interrupt import StopRequest
from fleetsim.cli.options import Job, Json, MetricProfile, Rules, Seed, Threads
from fleetsim.cli.output import ProgressCall, invocation, progress, say, say_notes
from fleetsim.cli.size_class import use_size_class
from fleetsim.errors import EXIT_OK, BadInput, Interrupted

if TYPE_CHECKING:
    from fleetsim.fleet.checkpoint import Every
    from fleetsim.fleet.controller import RunResult


def run(
    scenario: Annotated[Path | None, typer.Argument(help="A scenario file.", metavar="SCENARIO")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the run, new or empty (default: runs/NAME-SEED).", metavar="DIR")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with the run in DIR that was stopped, instead of SCENARIO.", metavar="DIR")
    ] = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            "--checkpoint-every",
            help="Keep what --resume needs so often: a number of epochs, or simulated time such as 10m (default: at Ctrl-C only).",
            metavar="N|TIME",
        ),
    ] = None,
    seed: Seed = None,
    profile: MetricProfile = "full",
    rules: Rules = None,
    job: Job = None,
    threads: Threads = None,
    json: Json = False,
) -> int:
    """Simulate SCENARIO: history and samples go to a run directory, which `fleetsim check` and your own tools can read."""
    if (scenario is None) == (resume is None):
        raise BadInput("give either a SCENARIO to simulate or --resume DIR to go on with a run; see fleetsim run --help")
    every = None if checkpoint_every is None else _every(checkpoint_every)
    if scenario is None:
        assert resume is not None
        if out is not None or seed is not None or job is not None or rules:
            raise BadInput("--resume takes scenario, seed, rules, job and folder from the run; leave --out, --seed, --rules and --job out")
        return _tell(_resumed(resume, threads, every), json)
    return _tell(_begun(scenario, out, seed, profile, rules, job, threads, every), json)


def _begun(
    scenario: Path,
    out: Path | None,
    seed: int | None,
    profile: str,
    rules: list[Path] | None,
    job: str | None,
    threads: int | None,
    every: Every | None,
) -> RunResult:
    from fleetsim.cli.rule_files import metrics_needed, rule_files_for
    from fleetsim.fleet.checkpoint import NEVER
    from fleetsim.fleet.controller import how_to_go_on, run_plan
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
    with progress(loaded.name) as show, StopRequest() as stop:
        try:
            return run_plan(plan, folder, chosen, threads, _until_worthwhile(show, stop), every=every or NEVER, stop=lambda: stop.asked)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; {how_to_go_on(folder)}") from None


def _resumed(folder: Path, threads: int | None, every: Every | None) -> RunResult:
    from fleetsim.fleet.controller import how_to_go_on, order_of, resume_plan

    order = order_of(folder)
    use_size_class([order.plan])
    name = order.plan.scenario.name
    invocation.seeds[name] = order.plan.seed
    with progress(name) as show, StopRequest() as stop:
        try:
            return resume_plan(folder, threads, _until_worthwhile(show, stop), every=every, stop=lambda: stop.asked)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; {how_to_go_on(folder)}") from None


def _until_worthwhile(show: ProgressCall, stop: StopRequest) -> ProgressCall:
    """`show`, which also notes when there is something that a Ctrl-C should not lose."""

    def told(stage: str, share: float, detail: str = "") -> None:
        stop.worthwhile = stop.worthwhile or share > 0
        show(stage, share, detail)

    return told


def _every(text: str) -> Every:
    from fleetsim.fleet.checkpoint import Every
    from fleetsim.units import duration_ns

    if text.isdecimal() and 0 < int(text) < 1 << 31:
        return Every(epochs=int(text))
    try:
        if (virtual_ns := duration_ns(text)) > 0:
            return Every(virtual_ns=virtual_ns)
    except ValueError:
        pass
    raise BadInput(f"--checkpoint-every is {text!r}; write a number of epochs, such as 60, or a simulated time, such as 10m")


def _tell(result: RunResult, json: bool) -> int:
    if json:
        invocation.print_json(result.as_json())
    else:
        hosts = f"{result.hosts} host{'' if result.hosts == 1 else 's'}"
        say(f"{result.scenario}: {hosts}, {result.virtual_seconds / 60:g} minutes simulated in {result.wall_seconds:.1f} s")
        say(f"  seed {result.seed}, {result.events} events, {result.impacts} impacts, in {result.out}")
        print(f"history_hash {result.history_hash}")
    return EXIT_OK
