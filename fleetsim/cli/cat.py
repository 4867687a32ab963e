# SPDX-License-Identifier: Apache-2.0
"""`fleetsim cat`: what a file of /proc or /sys says on a simulated host, at some instant of a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetsim.cli.options import Json, Seed
from fleetsim.cli.output import invocation, progress
from fleetsim.errors import EXIT_OK, BadInput


def cat(
    scenario: Annotated[Path, typer.Argument(help="A scenario file.", metavar="SCENARIO")],
    host: Annotated[str, typer.Argument(help="One of its hosts.", metavar="HOST")],
    paths: Annotated[list[str] | None, typer.Argument(help="/proc/meminfo, /proc/84/smaps, …", metavar="PATH...")] = None,
    at: Annotated[str, typer.Option("--at", help="When, since the scenario's beginning: 90s, 5m.", metavar="TIME")] = "1m",
    names: Annotated[bool, typer.Option("--list", help="Print the paths of all files there are instead.")] = False,
    seed: Seed = None,
    json: Json = False,
) -> int:
    """Run HOST of SCENARIO up to TIME and print its files, byte for byte as a kernel would; any tool that reads /proc can read them."""
    from fleetsim.fleet.one_host import host_at, labels_of
    from fleetsim.fleet.plan import make_plan
    from fleetsim.fleet.scenario import load_scenario
    from fleetsim.units import duration_ns
    from fleetsim.userland.host_files import host_files, read_file

    if bool(paths) == names:
        raise BadInput("say which files to print, as /proc/meminfo, or --list for all there are")
    try:
        at_ns = duration_ns(at)
    except ValueError as error:
        raise BadInput(f"--at is {at!r}; {error}") from None
    loaded = load_scenario(scenario)
    plan = make_plan(loaded, seed)
    invocation.seeds[loaded.name] = plan.seed
    with progress(loaded.name) as show:
        shard = host_at(plan, host, at_ns, show)
    files = host_files(shard.records[0], lambda t: labels_of(shard, t))
    if names:
        texts = dict.fromkeys(files, "")
        shown = "".join(f"{path}\n" for path in files)
    else:
        texts = {path: read_file(files, path, host) for path in paths or []}
        shown = "".join(texts.values())
    if json:
        invocation.print_json({"host": host, "at": at, "files": list(texts) if names else texts})
    else:
        print(shown, end="")
    return EXIT_OK
