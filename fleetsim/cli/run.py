# SPDX-License-Identifier: Apache-2.0
"""`fleetsim run`: simulate one scenario and keep everything an outsider would have seen; or go on with such a run that was stopped.

Rules: whatever happens to this process, `--resume` with its directory brings the run to the end that it would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetsim.cli.engines import HostsPerActor, Ray, engine_for
from fleetsim.cli.ensemble import Keep, Seeds, Wanted, run_seeds
from fleetsim.cli.interrupt import StopRequest
from fleetsim.cli.options import METRIC_PROFILE, Job, Json, Rules, Seed, Threads
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
    profile: Annotated[str | None, METRIC_PROFILE] = None,
    rules: Rules = None,
    job: Job = None,
    threads: Threads = None,
    ray: Ray = None,
    hosts_per_actor: HostsPerActor = "auto",
    seeds: Seeds = None,
    keep: Keep = "all",
    json: Json = False,
) -> int:
    """Simulate SCENARIO: history and samples go to a run directory, which `fleetsim check` and your own tools can read."""
    if (scenario is None) == (resume is None):
        raise BadInput("give either a SCENARIO to simulate or --resume DIR to go on with a run; see fleetsim run --help")
    if seeds is not None:
        if scenario is None or seed is not None or checkpoint_every is not None or hosts_per_actor != "auto":
            raise BadInput("--seeds runs a SCENARIO many times; leave --seed, --resume, --checkpoint-every and --hosts-per-actor out")
        return _seeds(scenario, seeds, keep, out, profile or "full", rules, job, threads, ray, json)
    if keep != "all":
        raise BadInput("--keep goes with --seeds; a single run is always kept")
    how = How(threads, ray, hosts_per_actor, None if checkpoint_every is None else _every(checkpoint_every))
    if scenario is None:
        assert resume is not None
        if out is not None or seed is not None or job is not None or rules or profile is not None:
            raise BadInput("--resume takes all but the engine from the run; leave --out, --seed, --profile, --rules and --job out")
        return _tell(_resumed(resume, how), json)
    return _tell(_begun(scenario, out, seed, profile or "full", rules, job, how), json)


def _seeds(
    scenario: Path,
    seeds: str,
    keep: str,
    out: Path | None,
    profile: str,
    rules: list[Path] | None,
    job: str | None,
    threads: int | None,
    ray: str | None,
    json: bool,
) -> int:
    from fleetsim.cli.rule_files import metrics_needed, rule_files_for
    from fleetsim.fleet.scenario import load_scenario
    from fleetsim.observe.catalog import profile as profile_called

    loaded = load_scenario(scenario)
    chosen = profile_called(profile, metrics_needed(rule_files_for(loaded, rules or [])) if profile == "rules" else ())
    return run_seeds(Wanted(loaded, seeds, out, keep, chosen, job, threads, ray), json)


@dataclass(frozen=True)
class How:
    """What has no say in what comes out."""

    threads: int | None
    ray: str | None
    hosts_per_actor: str
    every: Every | None


def _begun(
    scenario: Path, out: Path | None, seed: int | None, profile: str, rules: list[Path] | None, job: str | None, how: How
) -> RunResult:
    from fleetsim.cli.rule_files import metrics_needed, rule_files_for
    from fleetsim.fleet.checkpoint import NEVER
    from fleetsim.fleet.controller import run_plan
    from fleetsim.fleet.plan import make_plan
    from fleetsim.fleet.scenario import load_scenario
    from fleetsim.observe.catalog import profile as profile_called
    from fleetsim.rundir.writer import claim

    loaded = load_scenario(scenario)
    plan = make_plan(loaded, seed) if job is None else make_plan(loaded, seed, job)
    use_size_class([plan])
    invocation.seeds[loaded.name] = plan.seed
    chosen = profile_called(profile)
    if profile == "rules":
        chosen = profile_called(profile, metrics_needed(rule_files_for(loaded, rules or [])))
    folder = out or Path("runs") / f"{loaded.name}-{plan.seed}"
    say_notes(loaded.name, plan.notes)
    with engine_for(plan, how.ray, how.hosts_per_actor, how.threads) as engine, _watched(loaded.name, claim(folder)) as (show, stop):
        return run_plan(plan, folder, chosen, progress=show, engine=engine, every=how.every or NEVER, stop=stop)


def _resumed(folder: Path, how: How) -> RunResult:
    from fleetsim.fleet.controller import order_of, resume_plan

    order = order_of(folder)
    plan = order.plan
    use_size_class([plan])
    invocation.seeds[plan.scenario.name] = plan.seed
    with engine_for(plan, how.ray, how.hosts_per_actor, how.threads) as engine, _watched(plan.scenario.name, folder) as (show, stop):
        return resume_plan(folder, progress=show, engine=engine, every=how.every, stop=stop)


@contextmanager
def _watched(name: str, folder: Path) -> Iterator[tuple[ProgressCall, Callable[[], bool]]]:
    """What to tell progress to, and whom to ask whether a Ctrl-C has come."""
    from fleetsim.fleet.controller import how_to_go_on

    with progress(name) as show, StopRequest() as stop:
        try:
            yield _until_worthwhile(show, stop), lambda: stop.asked
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
