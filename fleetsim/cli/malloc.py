# SPDX-License-Identifier: Apache-2.0
"""`fleetsim malloc`: replay a block trace on an exact allocator, and see what is live, mapped, resident, and lost between."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetsim.cli.options import Json
from fleetsim.cli.output import console, invocation, progress, say
from fleetsim.errors import EXIT_OK, BadInput

if TYPE_CHECKING:
    from fleetsim.allocators.trace import Trace

SIZES_MAX = 8 << 30
TRACES = (
    "A trace file (plain text, or mtrace's; - for stdin), a built-in pattern, or loops: 'malloc 9000 64-4096 | free random 90% | wait 12'."
)
SETTINGS = "Its settings: as GLIBC_TUNABLES (name=value:…), MALLOC_CONF (name:value,…), TCMALLOC_NAME=VALUE:…, or name=value:… of Google's."


def malloc(
    trace: Annotated[
        str,
        typer.Argument(help=TRACES, metavar="TRACE|PATTERN|LOOPS"),
    ] = "",
    allocator: Annotated[
        list[str] | None,
        typer.Option("--allocator", help="glibc (default), jemalloc, tcmalloc or google-tcmalloc; may be repeated.", metavar="NAME"),
    ] = None,
    tunables: Annotated[str, typer.Option(help=SETTINGS)] = "",
    cpus: Annotated[
        int, typer.Option(help="CPUs of the machine: they bound the number of arenas, or have a cache each.", min=1, max=127)
    ] = 2,
    every: Annotated[int, typer.Option(help="Ops between two samples (default: a thousand samples in all).", min=0)] = 0,
    blocks: Annotated[int | None, typer.Option(help="Of a pattern: how many blocks.", min=1, max=200_000)] = None,
    sizes: Annotated[str, typer.Option(help="Of a pattern: least and most bytes of a block.", metavar="LEAST-MOST")] = "",
    threads: Annotated[int | None, typer.Option(help="Of the pattern 'threads': how many.", min=1, max=4000)] = None,
    seed: Annotated[int | None, typer.Option(help="Of a pattern: all luck follows from it (default 1).", min=0)] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write every sample as a page (.html) or a table (.csv).")] = None,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Of mtrace's files: pass over blocks from before it was switched on.")
    ] = False,
    json: Json = False,
) -> int:
    """Replay TRACE block by block on the malloc of glibc, of jemalloc or of either tcmalloc and print memory over time, and where it is.

    live: what the program asked for and has not freed; allocated: what it may use of that; resident: what is in memory (RSS);
    mapped: what the allocator has from the kernel; unused: the share of resident that is in no live block.
    Without TRACE the built-in patterns are listed.
    """
    if not trace:
        _list(json)
        return EXIT_OK
    if trace.lstrip().startswith("malloc "):
        options = ("--every", "--blocks", "--sizes", "--threads", "--plot", "--skip-unknown")
        for option, value in zip(options, (every, blocks, sizes, threads, plot, skip_unknown), strict=True):
            if value:
                raise BadInput(f"{option} is not for loops of calls: leave it out, or write the calls to a file")
        return _loops(trace, allocator or ["glibc"], tunables, cpus, 1 if seed is None else seed, json)
    from fleetsim.allocators.exact import exact_allocator
    from fleetsim.fleet.malloc_report import account, as_json, as_text, check_plot, write_plot
    from fleetsim.law import is_cold

    if plot is not None:
        check_plot(plot)
    names = allocator or ["glibc"]
    if tunables and len(names) > 1:
        raise BadInput(f"the settings {tunables!r} are one allocator's, and {' and '.join(names)} are asked: give one of them")
    simulators = [exact_allocator(name, tunables, cpus) for name in names]
    drawn = {"blocks": blocks, "threads": threads, "seed": seed}
    what = _trace(trace, {k: v for k, v in drawn.items() if v is not None} | _sizes(sizes), skip_unknown)
    accounts = []
    with progress() as show:
        for simulator in simulators:
            show("compiling" if is_cold("*") else f"replaying on {simulator.name}", 0.0)
            accounts.append(
                account(what, simulator, tunables, every=every, progress=lambda share, s=simulator: show(f"replaying on {s.name}", share))  # type: ignore[misc]
            )
    if plot is not None:
        write_plot(plot, accounts)
        say(f"every sample is in {plot}")
    if json:
        invocation.print_json(as_json(accounts))
    else:
        print(as_text(accounts, console().width))
    return EXIT_OK


def _loops(text: str, names: list[str], tunables: str, cpus: int, seed: int, json: bool) -> int:
    from fleetsim.fleet.malloc_loops import account_of_loops

    with progress() as show:
        show("replaying the loops", 0.0)
        loops = account_of_loops(text, names, tunables, cpus, seed)
    if json:
        invocation.print_json(loops.as_json())
    else:
        print(loops.as_text())
    return EXIT_OK


def _sizes(text: str) -> dict[str, int]:
    import re

    from fleetsim.fleet.malloc_loops import SIZE, bytes_of

    least, dash, most = text.partition("-")
    if not text:
        return {}
    if not (dash and re.fullmatch(SIZE, least) and re.fullmatch(SIZE, most)):
        raise BadInput(f"the sizes are {text!r}: they must be least and most bytes, such as 64-4096 or 4KiB-1MiB")
    try:
        low, high = bytes_of(least), bytes_of(most)
    except ValueError as error:
        raise BadInput(f"the sizes are {text!r}: {error}") from None
    if not 1 <= low <= high <= SIZES_MAX:
        raise BadInput(f"the sizes are {text!r}: blocks of a pattern have 1 byte to {SIZES_MAX >> 30} GiB, the least first")
    return {"least": low, "most": high}


def _trace(name: str, drawn: dict[str, int], skip_unknown: bool) -> Trace:
    from fleetsim.allocators.patterns import PATTERNS, draw
    from fleetsim.fleet.block_trace import STDIN, read_block_trace

    if name in PATTERNS:
        return draw(name, **drawn)
    file = STDIN if name == "-" else Path(".", name) if name == str(STDIN) else Path(name)
    if name != "-" and not file.exists() and "/" not in name and "." not in name:
        raise BadInput(f"{name!r} is neither a file nor a built-in pattern: there are {', '.join(PATTERNS)}")
    if drawn:
        words = ", ".join("--" + ("sizes" if k in ("least", "most") else k) for k in dict.fromkeys(drawn))
        raise BadInput(f"{words} draws a pattern: {name} is a file, which has its own")
    return read_block_trace(file, unknown=skip_unknown)


def _list(json: bool) -> None:
    from fleetsim.allocators.patterns import PATTERNS

    if json:
        invocation.print_json({name: pattern.shows for name, pattern in PATTERNS.items()})
        return
    print("built-in patterns (or give a trace file):")
    for name, pattern in PATTERNS.items():
        print(f"  {name:18}{pattern.shows}")
