# SPDX-License-Identifier: Apache-2.0
"""`fleetsim whatif`: what a recorded run would have come to, had something been otherwise from an instant on; or until when that helps.

Rules: the recorded run is only read. Without --out the branch goes to a temporary folder that is removed at the end.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetsim.cli.options import Json, Rules, Threads
from fleetsim.cli.output import invocation, progress, say
from fleetsim.cli.size_class import use_size_class
from fleetsim.errors import EXIT_OK, BadInput

if TYPE_CHECKING:
    from fleetsim.cli.output import ProgressCall
    from fleetsim.fleet.checkpoint import Order
    from fleetsim.fleet.whatif import Change
    from fleetsim.rundir.reader import RunDirectory

Tell = Callable[[float, bool], None]
"""Says what was found; told how long it took, and whether as JSON."""


def whatif(
    run_dir: Annotated[Path, typer.Argument(help="The directory of a finished run.", metavar="RUN_DIR")],
    at: Annotated[str | None, typer.Option("--at", help="When it is otherwise, such as 20m.", metavar="TIME")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="vm.swappiness=1, pod/NAME.limits=2GiB, pod/NAME.memory.high=1GiB, pod/NAME.load=40/s, service/NAME.load=40/s.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    drop_fault: Annotated[
        list[str] | None, typer.Option("--drop-fault", help="A fault that does not begin, or ends then; may be repeated.", metavar="NAME")
    ] = None,
    on: Annotated[str | None, typer.Option("--on", help="A host or host group (default: all whom it fits).", metavar="HOST|GROUP")] = None,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Find the latest moment at which the change still prevents an impact; --at: not before TIME.")
    ] = False,
    impact: Annotated[
        str | None, typer.Option("--impact", help="With --bisect: which (default: the first of the run).", metavar="KIND[:SUBJECT]")
    ] = None,
    resolution: Annotated[str, typer.Option("--resolution", help="With --bisect: how exactly.", metavar="TIME")] = "1s",
    rules: Rules = None,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the branch as a run directory of its own.", metavar="DIR")] = None,
    threads: Threads = None,
    json: Json = False,
) -> int:
    """Branch a recorded run: replay it up to TIME, change something, run it on, and show side by side what changed."""
    from fleetsim.fleet.branch import recorded
    from fleetsim.fleet.whatif import CAN_BE_SET, Change, what_if

    began = time.perf_counter()
    change = Change(tuple(sets or ()), tuple(drop_fault or ()), on)
    if not change.sets and not change.dropped:
        raise BadInput(f"nothing is changed: give --set or --drop-fault; what can be set: {CAN_BE_SET}")
    if on is not None and not change.sets:
        raise BadInput("--on says where something is set, and nothing is: give --set, or leave it out")
    if at is None and not bisect:
        raise BadInput("when is it otherwise? give --at TIME, such as --at 20m, or --bisect to find the latest moment")
    if impact is not None and not bisect:
        raise BadInput("--impact says what --bisect is to prevent; give both")
    if bisect and (out is not None or rules):
        raise BadInput("--bisect leaves no branch behind and judges no rules; leave --out and --rules out")
    at_ns = 0 if at is None else _time(at, "--at")
    resolution_ns = _time(resolution, "--resolution")
    run, order = recorded(run_dir)
    use_size_class([order.plan])
    invocation.seeds[run.manifest.scenario] = run.manifest.seed
    what_if(order.plan, at_ns, change)  # whatever is wrong with it is told before anything is simulated
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleetsim-whatif-")))
        show = stack.enter_context(progress(run.manifest.scenario))
        if bisect:
            tell = _bisect(run, order, change, at_ns, impact, resolution_ns, scratch, threads, show)
        else:
            tell = _branch(run, order, change, at_ns, out, rules or [], scratch, threads, show)
    tell(time.perf_counter() - began, json)
    return EXIT_OK


def _time(text: str, option: str) -> int:
    from fleetsim.units import duration_ns

    try:
        value = duration_ns(text)
    except ValueError as error:
        raise BadInput(f"{option} is {text!r}; {error}") from None
    if option == "--resolution" and value <= 0:
        raise BadInput(f"{option} is {text!r}; write a duration above zero, such as 1s")
    return value


def _branch(
    run: RunDirectory,
    order: Order,
    change: Change,
    at_ns: int,
    out: Path | None,
    rules: list[Path],
    scratch: Path,
    threads: int | None,
    show: ProgressCall,
) -> Tell:
    from fleetsim.cli.whatif_report import Comparison
    from fleetsim.fleet.branch import Brancher
    from fleetsim.fleet.whatif import check_in_time, what_if
    from fleetsim.rundir.writer import claim
    from fleetsim.verdict.compare import alert_lines
    from fleetsim.verdict.rules import load_rule_files

    check_in_time(order.plan, at_ns, change)
    files = judged_by(run, order, rules)
    if files:
        load_rule_files(files)
    plan = what_if(order.plan, at_ns, change)
    if out is not None:
        claim(out)
    branched = Brancher(run.path, scratch, threads, show).branch(plan, at_ns, out or scratch / "branch")
    alerts = alert_lines(run, branched.run, files, at_ns, show) if files else None
    comparison = Comparison.of(run, order.plan, branched, alerts, change.words(), at_ns, out)
    return comparison.tell


def _bisect(
    run: RunDirectory,
    order: Order,
    change: Change,
    at_ns: int,
    impact: str | None,
    resolution_ns: int,
    scratch: Path,
    threads: int | None,
    show: ProgressCall,
) -> Tell:
    from fleetsim.cli.whatif_report import tell_no_return
    from fleetsim.fleet.no_return import Search, point_of_no_return, sought
    from fleetsim.fleet.whatif import what_if

    wanted, first = sought(run.history, impact, at_ns)
    search = Search(
        order,
        lambda plan, t_ns: what_if(plan, t_ns, change),
        wanted,
        scratch / "states",
        threads=threads,
        progress=show,
    )
    found = point_of_no_return(search, at_ns, first.t_ns, resolution_ns)
    return lambda wall, json: tell_no_return(run, wanted, first, change.words(), found, wall, json)


def judged_by(run: RunDirectory, order: Order, named: list[Path]) -> list[Path]:
    """The rule files: the scenario's own and those named; else those that the run was checked with; none: alerts are not compared."""
    import json

    own = order.plan.scenario.rule_files
    missing = [path for path in own if not path.is_file()]
    if missing:
        say(
            f"note: {missing[0]}: the scenario's rule file is not there any more"
            + ("" if named else "; give --rules FILE to judge by another")
        )
    files = [path for path in own if path.is_file()] + list(named)
    verdicts = run.path / "verdict" / "verdicts.json"
    if not named and verdicts.is_file():
        try:
            checked = dict.fromkeys(Path(rule["file"]) for rule in json.loads(verdicts.read_text(encoding="utf-8"))["rules"])
        except (ValueError, KeyError, TypeError, OSError):
            raise BadInput("is damaged; check the run again, or give --rules", file=verdicts) from None
        gone = [path for path in checked if not path.is_file()]
        if gone:
            say(f"note: {gone[0]}: the rule file that the run was checked with is not there (any more, or from here); give --rules FILE")
        files += [path for path in checked if path.is_file()]
    return list({path.resolve(): path for path in files}.values())
