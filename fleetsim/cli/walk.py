# SPDX-License-Identifier: Apache-2.0
"""`fleetsim walk`: how the processor translates one address of one process, entry by entry, and what the kernel does if it cannot."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetsim.cli.look import At, Host, Scenario, host_of
from fleetsim.cli.options import Json, Seed
from fleetsim.cli.output import console, invocation
from fleetsim.errors import EXIT_OK, BadInput


def walk(
    scenario: Scenario,
    host: Host,
    task: Annotated[str, typer.Argument(help="A process there, by name or pid.", metavar="TASK")],
    address: Annotated[str, typer.Argument(help="0x7f0000001000, or an area: heap, stack+0x10, A+3MiB.", metavar="ADDRESS")] = "heap",
    at: At = "1m",
    write: Annotated[bool, typer.Option("--write", help="The access is a write (default: a read).")] = False,
    execute: Annotated[bool, typer.Option("--exec", help="The access is an instruction fetch.")] = False,
    levels: Annotated[int, typer.Option("--levels", min=4, max=5, help="Levels of page tables: 4, or 5 as with LA57.")] = 4,
    maps: Annotated[bool, typer.Option("--maps", help="Print the process's /proc/PID/maps instead.")] = False,
    smaps: Annotated[bool, typer.Option("--smaps", help="Print its /proc/PID/smaps instead.")] = False,
    seed: Seed = None,
    json: Json = False,
) -> int:
    """Run HOST of SCENARIO up to TIME and translate ADDRESS of TASK: every entry, the page or the fault, what the kernel does."""
    from fleetsim.fleet.one_host import find_task, labels_of
    from fleetsim.hardware import mmu
    from fleetsim.userland import procfs_maps
    from fleetsim.userland.page_fault import explain
    from fleetsim.userland.page_table import PageTables
    from fleetsim.userland.walk_text import as_json, parse_address, render

    if write and execute:
        raise BadInput("--write and --exec are two accesses; give one of them")
    shard = host_of(scenario, host, at, seed)
    t = find_task(shard, task)
    tables = PageTables(shard.records[0], t, labels_of(shard, t))
    if maps or smaps:
        text = procfs_maps.smaps(tables) if smaps else procfs_maps.maps(tables)
        if json:
            invocation.print_json({"text": text})
        else:
            print(text, end="")
        return EXIT_OK
    access = mmu.WRITE if write else mmu.EXECUTE if execute else mmu.READ
    found = tables.walk(parse_address(address, tables.vmas), levels)
    outcome = explain(tables, found, access)
    if json:
        invocation.print_json({"host": host, "task": task, "at": at, **as_json(tables, found, outcome, access)})
    else:
        pid = int(shard.records[0]["tasks"][t]["pid"])
        print(render(tables, found, outcome, access, f"{host}, {task} (pid {pid}) at {at}", console().width), end="")
    return EXIT_OK
