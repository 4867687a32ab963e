# SPDX-License-Identifier: Apache-2.0
"""`fleetsim cat`: what a file of /proc or /sys says on a simulated host, at some instant of a scenario."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetsim.cli.look import At, Host, Scenario, host_of
from fleetsim.cli.options import Json, Seed
from fleetsim.cli.output import invocation
from fleetsim.errors import EXIT_OK, BadInput


def cat(
    scenario: Scenario,
    host: Host,
    paths: Annotated[list[str] | None, typer.Argument(help="/proc/meminfo, /proc/84/smaps, …", metavar="PATH...")] = None,
    at: At = "1m",
    names: Annotated[bool, typer.Option("--list", help="Print the paths of all files there are instead.")] = False,
    seed: Seed = None,
    json: Json = False,
) -> int:
    """Run HOST of SCENARIO up to TIME and print its files, byte for byte as a kernel would; any tool that reads /proc can read them."""
    from fleetsim.fleet.one_host import labels_of
    from fleetsim.userland.host_files import host_files, read_file

    if bool(paths) == names:
        raise BadInput("say which files to print, as /proc/meminfo, or --list for all there are")
    shard = host_of(scenario, host, at, seed)
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
