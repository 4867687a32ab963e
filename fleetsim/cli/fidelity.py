# SPDX-License-Identifier: Apache-2.0
"""`fleetsim fidelity`: replay recordings of a real kernel on a simulated host, and say how far it is from them."""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetsim.cli.options import Json
from fleetsim.cli.output import invocation, progress
from fleetsim.errors import EXIT_OK

if TYPE_CHECKING:
    from fleetsim.fleet.fidelity import Fidelity
    from fleetsim.fleet.fidelity_score import Kill, Score

WORST_SHOWN = 5


def fidelity(
    experiments: Annotated[list[Path], typer.Argument(help="Folders with experiment.json and start.json.", metavar="EXPERIMENT_DIR...")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Keep DIR/NAME/{trace.csv.gz,dmesg.txt}, in the recordings' format.", metavar="DIR")
    ] = None,
    tick: Annotated[int, typer.Option("--tick-ms", min=0, max=1000, help="Tick in ms (default 0: the recordings' own quantum).")] = 0,
    every: Annotated[bool, typer.Option("--all", help=f"Show every series, not the {WORST_SHOWN} worst.")] = False,
    json: Json = False,
) -> int:
    """Replay each EXPERIMENT_DIR and print the error of its series, the victims and the times of the kills."""
    from fleetsim.fleet.fidelity import run_fidelity

    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleetsim-fidelity-")))
        with progress() as show:
            result = run_fidelity(experiments, folder, tick_ns=tick * 1_000_000, progress=show)
    if json:
        invocation.print_json(_as_json(result))
    else:
        _print(result, every)
    return EXIT_OK


def _print(result: Fidelity, every: bool) -> None:
    for score in result.scores:
        victims = "right" if score.victims_right else "WRONG"
        print(
            f"{score.experiment:26} series {len(score.series):4}  median {score.median:6.1%}  within 15%: {score.within_15:4.0%}  "
            f"victims {victims}: recorded {_kills(score.recorded_kills)}, simulated {_kills(score.simulated_kills)}"
        )
        worst = sorted(score.series, key=lambda series: (-series.err, series.name))
        for series in worst if every else worst[:WORST_SHOWN]:
            print(f"    {series.err:6.1%}  {series.name}{'  (missing)' if series.missing else ''}")
        for op in result.unsupported.get(score.experiment, []):
            print(f"    skipped, not simulated yet: {op}")
    for name in result.unscored:
        print(f"{name:26} replayed; there is no recording beside it to compare with")
    if result.scores:
        summary = _summary(result)
        print(
            f"{'all':26} series {summary['series']:4}  median {summary['median']:6.1%}  within 15%: {summary['within_15']:4.0%}  "
            f"victims right in {summary['victims_right']} of {len(result.scores)}"
        )


def _kills(kills: tuple[Kill, ...]) -> str:
    return ", ".join(f"{name} at {t:.2f} s" for t, name in kills) or "none"


def _summary(result: Fidelity) -> dict[str, Any]:
    errors = [series.err for score in result.scores for series in score.series]
    return {
        "series": len(errors),
        "median": statistics.median(errors) if errors else 0.0,
        "within_15": sum(error <= 0.15 for error in errors) / len(errors) if errors else 1.0,
        "victims_right": sum(score.victims_right for score in result.scores),
    }


def _as_json(result: Fidelity) -> dict[str, Any]:
    return {
        "tick_ns": result.tick_ns,
        "summary": _summary(result),
        "experiments": [_score_json(score, result.unsupported.get(score.experiment, [])) for score in result.scores],
        "unscored": result.unscored,
    }


def _score_json(score: Score, skipped: list[str]) -> dict[str, Any]:
    return {
        "experiment": score.experiment,
        "median": score.median,
        "within_15": score.within_15,
        "victims_right": score.victims_right,
        "kills": {"recorded": score.recorded_kills, "simulated": score.simulated_kills, "time_err_s": score.kill_errors_s},
        "series": {series.name: {"err": series.err, "family": series.family, "missing": series.missing} for series in score.series},
        "skipped_ops": skipped,
    }
