# SPDX-License-Identifier: Apache-2.0
"""`--seeds` of `fleetsim run` and `fleetsim check`: one scenario with many seeds, and how what came of them is distributed.

Rules: each seed has the run directory that it would have alone; `--keep none` leaves only the summary. The exit code of `check --seeds` is
the worst of all seeds.
"""

from __future__ import annotations

import json as json_module
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetsim.cli.output import console, counted, invocation, progress, say_notes
from fleetsim.cli.size_class import use_size_class
from fleetsim.errors import EXIT_OK, BadInput

if TYPE_CHECKING:
    from fleetsim.fleet.ensemble import SeedResult, SeedRun, Spread
    from fleetsim.fleet.plan import Plan
    from fleetsim.fleet.scenario import Scenario
    from fleetsim.observe.catalog import Profile
    from fleetsim.verdict.models import Verdicts

SEEDS_MAX = 100_000
WIDTH_MAX = 110
SEED_LIMIT = 1 << 63
_RANGE = re.compile(r"(?:(?P<first>[0-9]{1,19})\.\.(?P<last>[0-9]{1,19}))|(?P<count>[0-9]{1,9})")

Seeds = Annotated[
    str | None,
    typer.Option("--seeds", help="So many seeds from the scenario's own on, or these: distributions instead of one run.", metavar="N|A..B"),
]
Keep = Annotated[str, typer.Option("--keep", help="With --seeds: run directories to keep.", metavar="all|none")]


@dataclass(frozen=True)
class Wanted:
    """What `--seeds` is to do. `rule_files`: judge every run by them; none: do not judge."""

    scenario: Scenario
    seeds: str
    out: Path | None
    keep: str
    profile: Profile
    job: str | None = None
    threads: int | None = None
    ray: str | None = None
    rule_files: tuple[Path, ...] = ()


def seed_numbers(text: str, first: int) -> range:
    """`100`: so many from `first` on; `3..10`: these."""
    match = _RANGE.fullmatch(text)
    numbers = range(0)
    if match is not None and match["count"]:
        numbers = range(first, first + int(match["count"]))
    elif match is not None:
        numbers = range(int(match["first"]), int(match["last"]) + 1)
    if not numbers or numbers[-1] >= SEED_LIMIT:
        raise BadInput(f"--seeds is {text!r}; write how many, such as 100, or the first and the last, such as 3..10")
    if len(numbers) > SEEDS_MAX:
        raise BadInput(f"--seeds is {text!r}; at most {SEEDS_MAX:,} at a time")
    return numbers


def judge_seed(rule_files: Sequence[Path], run: Path) -> Verdicts:
    """What a seed's run is followed by; importable by name, so that it can be sent about."""
    from fleetsim.verdict.check import judge_run

    return judge_run(run, rule_files, html=False)


def run_seeds(wanted: Wanted, json: bool) -> int:
    """Run them all, say how what came of them is distributed; the exit code."""
    from functools import partial

    from fleetsim.fleet.ensemble import SeedRun
    from fleetsim.fleet.plan import make_plan

    if wanted.keep not in ("all", "none"):
        raise BadInput(f"--keep is {wanted.keep!r}; write all or none")
    loaded = wanted.scenario
    numbers = seed_numbers(wanted.seeds, loaded.keys.seed)
    plan = make_plan(loaded, numbers[0])
    use_size_class(make_plan(loaded, number) for number in numbers)
    invocation.seeds[loaded.name] = numbers[0]
    say_notes(loaded.name, plan.notes)
    began = time.perf_counter()
    with ExitStack() as stack:
        root = _root(wanted, stack)
        after = partial(judge_seed, wanted.rule_files) if wanted.rule_files else None
        jobs = [SeedRun(loaded, n, root / f"{loaded.name}-{n}", wanted.profile, wanted.job, wanted.keep == "all", after) for n in numbers]
        fan = stack.enter_context(_fan(wanted, plan))
        show = stack.enter_context(progress(loaded.name))
        results: list[SeedResult] = []
        show("simulating", 0.0, f"{len(jobs)} seeds")
        for result in fan(jobs):
            results.append(result)
            show("simulating", len(results) / len(jobs), f"{len(results)} of {len(jobs)} seeds")
        results.sort(key=lambda result: result.seed)
        summary = as_json(plan, results, time.perf_counter() - began)
        if wanted.out is not None or wanted.keep == "all":
            (root / "ensemble.json").write_text(json_module.dumps(summary, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if json:
        invocation.print_json(summary)
    else:
        _print(plan, results, summary, root if wanted.keep == "all" else None)
    return exit_code(results)


def exit_code(results: Sequence[SeedResult]) -> int:
    """The worst of all seeds; of runs that were not judged nothing is bad."""
    return max((result.judged.exit_code for result in results if result.judged is not None), default=EXIT_OK)


def _root(wanted: Wanted, stack: ExitStack) -> Path:
    from fleetsim.rundir.writer import claim

    if wanted.out is None and wanted.keep == "none":
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleetsim-seeds-", ignore_cleanup_errors=True)))
    return claim(wanted.out or Path("runs") / f"{wanted.scenario.name}-seeds")


@dataclass
class _fan:
    """Who runs them: this process, or a Ray cluster, of which nothing is left afterwards."""

    wanted: Wanted
    plan: Plan
    cluster: Any = None

    def __enter__(self) -> Callable[[Sequence[SeedRun]], Iterator[SeedResult]]:
        from fleetsim.cli.engines import needs_ray
        from fleetsim.fleet.ensemble import fan_out
        from fleetsim.fleet.room import actors_that_fit, available_here, check_room, runs_that_fit

        if self.wanted.ray is None:
            available = available_here()
            check_room(self.plan, 1, available, "this machine")
            fitting = runs_that_fit(self.plan, available)
            return lambda jobs: fan_out(jobs, self.wanted.threads, fitting)
        needs_ray("--ray")
        from fleetsim.fleet.ray_cluster import RayCluster
        from fleetsim.fleet.ray_seeds import fan_out_on

        self.cluster = RayCluster(self.wanted.ray, self.wanted.threads)
        try:
            available = self.cluster.memory() or None
            check_room(self.plan, 1, available, "the Ray cluster")
            fitting = actors_that_fit(self.plan, available)
        except BaseException:
            self.cluster.leave()
            raise
        return lambda jobs: fan_out_on(self.cluster, jobs, fitting)

    def __exit__(self, *error: object) -> None:
        if self.cluster is not None:
            self.cluster.leave()


# --- what is said ------------------------------------------------------------------------------------------------------------


def as_json(plan: Plan, results: Sequence[SeedResult], wall_seconds: float) -> dict[str, Any]:
    from fleetsim.fleet.ensemble import how_much_luck, spread

    kinds = sorted({kind for result in results for kind in result.impacts})
    return {
        "scenario": plan.scenario.name,
        "hosts": len(plan.hosts),
        "duration_s": plan.duration_ns / 1e9,
        "seeds": len(results),
        "first_impact": _spread_json(spread(results, lambda r: r.first_impact_ns)),
        "first_oom": _spread_json(spread(results, lambda r: r.first_oom_ns)),
        "impacts": {kind: sum(kind in result.impacts for result in results) for kind in kinds},
        "expectations": _expectations(results),
        "luck": how_much_luck(results),
        "exit_code": exit_code(results),
        "runs": [
            {
                "seed": result.seed,
                "history_hash": result.history_hash,
                "first_impact_s": _seconds(result.first_impact_ns),
                "first_oom_s": _seconds(result.first_oom_ns),
                "impacts": result.impacts,
                "wall_seconds": round(result.wall_seconds, 3),
                "out": result.out,
                **({} if result.judged is None else {"exit_code": result.judged.exit_code}),
            }
            for result in results
        ],
        "wall_seconds": round(wall_seconds, 3),
    }


def _expectations(results: Sequence[SeedResult]) -> list[dict[str, Any]] | None:
    """For each expectation of the scenario, in how many runs it was met; None: nothing was judged."""
    judged = [result.judged for result in results if result.judged is not None]
    if not judged:
        return None
    told = []
    for place, first in enumerate(judged[0].expectations):
        mine = [verdicts.expectations[place] for verdicts in judged]
        words = sorted({one.verdict for one in mine})
        leads = sorted(one.lead_s for one in mine if one.lead_s is not None)
        told.append(
            {
                "kind": first.kind,
                "name": first.name,
                "on": first.on,
                "met": sum(one.met for one in mine),
                "runs": len(mine),
                "verdicts": {word: sum(one.verdict == word for one in mine) for word in words},
                "median_lead_s": leads[len(leads) // 2] if leads else None,
            }
        )
    return told


def _spread_json(one: Spread) -> dict[str, Any]:
    times = {name: _seconds(getattr(one, f"{name}_ns")) for name in ("p10", "p50", "p90", "least", "most")}
    return {"runs": one.runs, "came": one.came, "never": one.runs - one.came, **{f"{name}_s": value for name, value in times.items()}}


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / 1e9


def _print(plan: Plan, results: Sequence[SeedResult], summary: dict[str, Any], root: Path | None) -> None:
    from rich.console import Group, RenderableType
    from rich.markup import escape
    from rich.panel import Panel
    from rich.text import Text

    from fleetsim.verdict.report import clock

    page = console()
    page.width = min(page.width, WIDTH_MAX)
    parts: list[RenderableType] = [_times(summary)]
    if summary["impacts"]:
        shares = ", ".join(f"{kind} in {n} of {len(results)}" for kind, n in summary["impacts"].items())
        parts += ["", Text(f"Impacts: {shares}")]
    if summary["expectations"]:
        parts += ["", _shares(summary["expectations"])]
    if summary["luck"]:
        parts += ["", Text(summary["luck"], style="yellow")]
    never = summary["first_impact"]["never"]
    if 0 < never < len(results):
        parts += [
            "",
            Text(
                f"{counted(range(never), 'run')} had no impact until the end: later than {clock(summary['duration_s'])} in the percentiles."
            ),
        ]
    kept = "run directories are not kept" if root is None else f"run directories and ensemble.json in {root}"
    simulated = len(results) * summary["duration_s"]
    parts += ["", Text(f"{clock(simulated)} simulated in {summary['wall_seconds']:.1f} s; {kept}", style="dim")]
    numbers = f"seeds {results[0].seed} to {results[-1].seed}"
    about = f"{counted(plan.hosts, 'host')} · {clock(summary['duration_s'])} each · {numbers}"
    page.print(Panel(Group(*parts), title=f"[bold]{escape(plan.scenario.name)}[/]  [dim]{about}[/]", title_align="left", padding=(1, 2)))


def _times(summary: dict[str, Any]) -> Any:
    from rich.table import Table

    from fleetsim.verdict.report import clock

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("time from the beginning to", "came in", "p10", "p50", "p90", "earliest", "latest"):
        table.add_column(name, justify="left" if name.startswith("time") else "right")
    for title, key in (("the first impact", "first_impact"), ("the first OOM kill", "first_oom")):
        one = summary[key]
        cells = ["never" if one[f"{p}_s"] is None else clock(one[f"{p}_s"]) for p in ("p10", "p50", "p90")]
        ends = ["" if one[f"{p}_s"] is None else clock(one[f"{p}_s"]) for p in ("least", "most")]
        table.add_row(title, f"{one['came']} of {one['runs']}", *cells, *ends)
    return table


def _shares(expectations: Sequence[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    from fleetsim.verdict.report import KIND_TEXT, clock

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), expand=True)
    for name in ("expected", "as expected", "verdicts", "median lead"):
        table.add_column(name, ratio=1 if name == "expected" else None, no_wrap=name != "expected")
    for one in expectations:
        share = Text(f"{one['met']} of {one['runs']}", style="green" if one["met"] == one["runs"] else "red")
        words = ", ".join(f"{word} {count}" for word, count in one["verdicts"].items())
        lead = "" if one["median_lead_s"] is None else clock(one["median_lead_s"])
        table.add_row(f"{one['name']} {KIND_TEXT[one['kind']]} · {one['on']}", share, words, lead)
    return table
