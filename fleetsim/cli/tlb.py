# SPDX-License-Identifier: Apache-2.0
"""`fleetsim tlb`: an exact simulation of a processor's TLBs over a trace, or over a pattern made on the spot."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetsim.cli.options import Json
from fleetsim.cli.output import console, invocation, progress
from fleetsim.errors import EXIT_OK, BadInput

if TYPE_CHECKING:
    from fleetsim.hardware.tlb_patterns import Pattern
    from fleetsim.hardware.tlb_profiles import Profile
    from fleetsim.hardware.tlb_run import Machine, TlbResult

READ_BYTES = 1 << 20
GZIP = b"\x1f\x8b"
UNBROKEN = "\u00a0"


def tlb(
    what: Annotated[
        str,
        typer.Argument(
            help="sequential, stride, uniform, zipf or chase; or a file (- for stdin; gzipped or not) of Valgrind's lackey or of "
            "hexadecimal addresses; or `profiles`: what there is.",
            metavar="PATTERN|TRACE|profiles",
        ),
    ],
    profile: Annotated[str, typer.Option("--profile", help="Which processor (`fleetsim tlb profiles`).", metavar="NAME")] = "generic",
    pages: Annotated[str, typer.Option("--pages", help="Page size, or several to compare.", metavar="4K[,2M[,1G]]")] = "4K",
    working_set: Annotated[str | None, typer.Option("--working-set", help="Memory of a pattern (64MiB).", metavar="SIZE")] = None,
    accesses: Annotated[int | None, typer.Option("--accesses", min=1, max=10**11, help="Accesses of a pattern (2000000).")] = None,
    warm_up: Annotated[int | None, typer.Option("--warm-up", min=0, max=10**11, help="Accesses made before counting begins (0).")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=(1 << 62) - 1, help="Of a pattern's luck (1).")] = None,
    step: Annotated[
        str | None,
        typer.Option("--step", help="stride: bytes between two accesses (4KiB). chase: between two nodes (64B).", metavar="SIZE"),
    ] = None,
    skew: Annotated[float | None, typer.Option("--skew", min=0, max=4, help="zipf: how unequal pages are (0.99).")] = None,
    huge: Annotated[int, typer.Option("--huge", min=0, max=100, help="Percent of 2 MiB regions that are huge, where pages are 4K.")] = 0,
    levels: Annotated[int, typer.Option("--levels", min=4, max=5, help="Levels of the page table.")] = 4,
    vm: Annotated[bool, typer.Option("--vm", help="In a virtual machine: nested walks.")] = False,
    host_pages: Annotated[str, typer.Option("--host-pages", help="By which pages the host backs the machine.", metavar="4K|2M|1G")] = "4K",
    no_pcid: Annotated[bool, typer.Option("--no-pcid", help="Entries are not tagged: each switch empties the TLB.")] = False,
    processes: Annotated[int | None, typer.Option("--processes", min=1, max=10_000, help="Processes that do the pattern in turn.")] = None,
    switch_every: Annotated[int | None, typer.Option("--switch-every", min=1, help="Accesses between two switches (10000).")] = None,
    shootdown_every: Annotated[
        int | None, typer.Option("--shootdown-every", min=1, help="Accesses between two unmappings by another CPU (never).")
    ] = None,
    shootdown_pages: Annotated[int, typer.Option("--shootdown-pages", min=1, max=1 << 30, help="4 KiB pages unmapped each time.")] = 1,
    json: Json = False,
) -> int:
    """Hits per level, page walks and cycles per access of a PATTERN, or of a TRACE."""
    from fleetsim.hardware.tlb_patterns import PATTERNS
    from fleetsim.hardware.tlb_profiles import find
    from fleetsim.hardware.tlb_run import Machine, run_machines

    if what == "profiles":
        _show_profiles(json)
        return EXIT_OK
    _refuse_half("--host-pages", host_pages != "4K", "--vm", vm)
    _refuse_half("--switch-every", switch_every is not None, "--processes 2 or more", (processes or 1) > 1)
    _refuse_half("--shootdown-pages", shootdown_pages != 1, "--shootdown-every", shootdown_every is not None)
    _refuse_half("--huge", huge > 0, "--pages 4K", "4K" in pages.split(","))
    host, cpu = _page(host_pages, "--host-pages"), find(profile)
    sizes = [_page(size, "--pages") for size in dict.fromkeys(pages.split(","))]
    machines = [Machine(cpu, size, huge * 10, levels, vm, host, not no_pcid) for size in sizes]
    given = {
        **dict(zip(("--working-set", "--accesses", "--warm-up", "--seed"), (working_set, accesses, warm_up, seed))),
        **dict(zip(("--step", "--skew", "--processes", "--switch-every"), (step, skew, processes, switch_every))),
        "--shootdown-every": shootdown_every,
    }
    if what in PATTERNS:
        results = _run_pattern(what, machines, given, shootdown_pages)
    else:
        _refuse_for_a_trace(what, given)
        results = run_machines(machines, _read(what, levels))
    said = _model(what, machines, given)
    _tell(what, results, said, json)
    return EXIT_OK


def _tell(what: str, results: list[TlbResult], said: list[float | None], json: bool) -> None:
    if json:
        invocation.print_json([{**_as_json(result), "model_cycles_per_access": model} for result, model in zip(results, said)])
    else:
        _print(what, results, said)


def _model(what: str, machines: list[Machine], given: dict[str, Any]) -> list[float | None]:
    """What the miss-rate model of simulated hosts says, which knows nothing of traces, switches, shootdowns and virtual machines."""
    from fleetsim.hardware.tlb_classes import estimate_pattern
    from fleetsim.hardware.tlb_patterns import PATTERNS

    if what not in PATTERNS or machines[0].vm or (given["--processes"] or 1) > 1 or given["--shootdown-every"]:
        return [None] * len(machines)
    pattern = _pattern(what, given)
    return [estimate_pattern(machine, pattern).cycles_per_access for machine in machines]


def _option(given: dict[str, Any], name: str, default: Any) -> Any:
    return default if given[name] is None else given[name]


def _pattern(what: str, given: dict[str, Any]) -> Pattern:
    from fleetsim.hardware.tlb_patterns import Pattern

    working_set, step = _bytes(_option(given, "--working-set", "64MiB"), "--working-set"), _step(what, given["--step"])
    if given["--skew"] is not None and what != "zipf":
        raise BadInput(f"--skew {given['--skew']} is for the pattern zipf; {what!r} has none")
    return Pattern(what, working_set, _option(given, "--seed", 1), step, round(100 * _option(given, "--skew", 0.99)))


def _run_pattern(what: str, machines: list[Machine], given: dict[str, Any], shootdown_pages: int) -> list[TlbResult]:
    """A pattern on each machine; `given` holds the options as they were given, None for those that were not."""
    from fleetsim.hardware.tlb_run import Sharing, run_pattern

    invocation.seeds[what] = _option(given, "--seed", 1)
    pattern = _pattern(what, given)
    processes = _option(given, "--processes", 1)
    switching = _option(given, "--switch-every", 10_000) if processes > 1 else 0
    sharing = Sharing(processes, switching, _option(given, "--shootdown-every", 0), shootdown_pages)
    results = []
    with progress() as show:
        for number, machine in enumerate(machines):
            show(f"{what} with {machine.page} pages", number / len(machines))
            counted, before = _option(given, "--accesses", 2_000_000), _option(given, "--warm-up", 0)
            results.append(run_pattern(machine, pattern, counted, warm_up=before, sharing=sharing))
    return results


def _page(size: str, option: str) -> str:
    from fleetsim.hardware.tlb_profiles import PAGE_SIZES

    if size not in PAGE_SIZES:
        raise BadInput(f"{option}: a page is {', '.join(PAGE_SIZES[:-1])} or {PAGE_SIZES[-1]}; {size!r} is not")
    return size


def _bytes(text: str, option: str) -> int:
    from fleetsim.units import size_bytes

    try:
        return size_bytes(text)
    except ValueError as error:
        raise BadInput(f"{option} {text!r}: {error}") from None


def _step(pattern: str, given: str | None) -> int:
    if given is not None and pattern not in ("stride", "chase"):
        raise BadInput(f"--step {given!r} is for the patterns stride and chase; {pattern!r} has none")
    return _bytes(given or ("4KiB" if pattern == "stride" else "64B"), "--step")


def _refuse_half(option: str, given: bool, needs: str, has: bool) -> None:
    """BadInput for an option that was given without the one it belongs to."""
    if given and not has:
        raise BadInput(f"{option} means something only with {needs}: add that, or leave it out")


def _refuse_for_a_trace(what: str, given: dict[str, Any]) -> None:
    from fleetsim.hardware.tlb_patterns import PATTERNS

    if what != "-" and not Path(what).exists():
        raise BadInput(f"{what!r} is neither a file nor a pattern; patterns are {', '.join(PATTERNS)}")
    for option, value in given.items():
        if value is not None:
            raise BadInput(f"{option} {value!r} is for patterns; the trace {what!r} says itself what is accessed")


def _read(what: str, levels: int) -> Iterator[tuple[Any, Any]]:
    """The pieces of a trace, in a file or from stdin, gzipped or not."""
    import gzip
    import zlib

    from fleetsim.hardware.tlb_trace import read_trace

    name = "stdin" if what == "-" else what
    try:
        with contextlib.ExitStack() as stack:
            raw: Any = sys.stdin.buffer if what == "-" else stack.enter_context(open(what, "rb"))
            file: Any = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == GZIP else raw
            yield from read_trace(iter(lambda: file.read(READ_BYTES), b""), name, levels=levels)
    except EOFError:
        raise BadInput("the gzipped trace is truncated: its end is missing", file=name) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"the gzipped trace is damaged ({error})", file=name) from None
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", file=name) from None


# ------------------------------------------------------------------------------------------------------------ what is shown


def _as_json(result: TlbResult) -> dict[str, Any]:
    from dataclasses import asdict

    machine, profile = result.machine, result.machine.profile
    return {
        "profile": profile.name,
        "pages": machine.page,
        "huge_percent": machine.huge_permille / 10,
        "levels": machine.levels,
        "vm": machine.vm,
        "host_pages": machine.host_page if machine.vm else None,
        "pcid": machine.pcid,
        "accesses": result.accesses,
        "data": asdict(result.data),
        "code": asdict(result.code),
        "walks": result.walks,
        "loads_per_walk": result.loads_per_walk,
        "switches": result.switches,
        "flushes": result.flushes,
        "shootdowns": result.shootdowns,
        "entries_dropped": result.dropped,
        "cycles": result.cycles,
        "cycles_per_access": result.cycles_per_access,
        "ns_per_access": result.cycles_per_access * 1000 / profile.mhz,
        "reach_bytes": {"l1d": profile.reach_bytes("d", machine.page), "l2": profile.reach_bytes("D", machine.page)},
    }


def _rows(result: TlbResult) -> dict[str, str]:
    """What a column of the table says."""
    from fleetsim.units import show_bytes

    machine, profile = result.machine, result.machine.profile

    def share(part: int, whole: int) -> str:
        return f"{part:,} ({part / whole:.2%})" if whole else "0"

    rows = {"accesses": f"{result.accesses:,}"}
    for name, stream in (("data", result.data), ("code", result.code)):
        if stream.accesses:
            rows[f"{name}: hits in L1"] = share(stream.l1_hits, stream.accesses)
            rows[f"{name}: hits in L2"] = share(stream.l2_hits, stream.accesses)
            rows[f"{name}: page walks"] = share(stream.walks, stream.accesses)
    for name in ("pde", "pdpte", "pml4e"):
        hits = getattr(result.data, f"{name}_hits") + getattr(result.code, f"{name}_hits")
        if profile.part_of(name.upper()):
            rows[f"walks that began at a cached {name.upper()}"] = share(hits, result.walks)
    rows["loads per walk"] = f"{result.loads_per_walk:.2f} (most {max(result.data.most_loads, result.code.most_loads)})"
    if machine.vm:
        rows["… of them in the host's tables"] = share(result.data.nested_loads + result.code.nested_loads, result.loads)
    if result.switches or result.flushes or result.shootdowns:
        rows["switches, flushes, shootdowns"] = f"{result.switches:,}, {result.flushes:,}, {result.shootdowns:,}"
        rows["entries they dropped"] = f"{result.dropped:,}"
    rows["cycles per access"] = f"{result.cycles_per_access:.2f} ({result.cycles_per_access * 1000 / profile.mhz:.2f} ns)"
    rows["reach of L1, of L2"] = ", ".join(show_bytes(profile.reach_bytes(level, machine.page)) for level in "dD")
    return rows


def _print(what: str, results: list[TlbResult], said: list[float | None]) -> None:
    from rich.table import Table

    machine = results[0].machine
    notes = [f"{machine.levels} levels", "PCID" if machine.pcid else "no PCID"]
    notes += [f"in a VM on {machine.host_page} pages"] if machine.vm else []
    notes += [f"{machine.huge_permille // 10} % huge"] if machine.huge_permille else []
    table = Table(title=f"{what} on {machine.profile.name} ({machine.profile.cpu}); {', '.join(notes)}", title_justify="left")
    table.add_column("")
    columns = [_rows(result) for result in results]
    for column, model in zip(columns, said):
        if model is not None:
            column["… by the hosts' model, all warm"] = f"{model:.2f}"
    for result in results:
        table.add_column(f"{result.machine.page} pages", justify="right")
    for name in columns[0]:
        table.add_row(name, *(column.get(name, "") for column in columns))
    console().print(table)


def _show_profiles(json: bool) -> None:
    from textwrap import wrap

    from fleetsim.hardware.tlb_profiles import PROFILES

    if json:
        invocation.print_json([_profile_as_json(profile) for profile in PROFILES])
        return
    width = max(60, console().width)

    def show(text: str, indent: str = "") -> None:
        print("\n".join(wrap(text, width, initial_indent=indent, subsequent_indent="    ")).replace(UNBROKEN, " "))

    show("TLB profiles. Cycles: of a miss of L1, of a miss of L2, of a load of the page walker. Reach: with pages of 4K, 2M, 1G.")
    for profile in PROFILES:
        head, parts = _profile_facts(profile)
        show(head)
        show(parts, "    ")


def _profile_facts(profile: Profile) -> tuple[str, str]:
    """A profile in two sentences; what belongs together is held by spaces that do not break."""
    from fleetsim.hardware.tlb_profiles import PAGE_SIZES, WALK_CACHES
    from fleetsim.units import show_bytes

    parts = [part for part in profile.parts if part.roles[0] in "diDI"]
    ways = {part.name: "fully associative" if part.ways == part.entries else f"{part.ways} ways" for part in parts}
    shown = [f"{part.name}: {part.entries}, {ways[part.name]}".replace(" ", UNBROKEN) for part in parts]
    walk = [f"{name}{UNBROKEN}{part.entries}" for name in WALK_CACHES if (part := profile.part_of(name))]
    shown += [f"page-walk caches {', '.join(walk)}" if walk else "no page-walk caches"]
    reach = ", ".join(show_bytes(profile.reach_bytes("D", size)) for size in PAGE_SIZES).replace(" ", UNBROKEN)
    cycles = f"cycles {profile.l1d_miss}, {profile.l2_miss}, {profile.load}".replace(" ", UNBROKEN)
    return f"{profile.name}: {profile.cpu}; {cycles}; L2 reaches {reach}", "; ".join(shown)


def _profile_as_json(profile: Profile) -> dict[str, Any]:
    from dataclasses import asdict

    from fleetsim.hardware.tlb_profiles import PAGE_SIZES

    return {**asdict(profile), "reach_bytes": {size: profile.reach_bytes("D", size) for size in PAGE_SIZES}}
