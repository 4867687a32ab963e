# SPDX-License-Identifier: Apache-2.0
"""What an exact allocator answered, for people and programs: text with small graphs, JSON, CSV, an HTML page."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from fleetsim.allocators.trace import EXIT, FREE, OP, OP_NAMES, SAMPLE, SLEEP, TRIM, ExactAllocator, Progress, Replay, Trace, fragmentation
from fleetsim.errors import BadInput
from fleetsim.fleet.malloc_plot import page

MIB = 1 << 20
ROWS, COLUMNS = 16, 60
WIDE = 103  # columns of the table at its widest
HEADS = (("ops",), ("time",), ("live",), ("allocated",), ("resident",), ("mapped",), ("heap", "(brk)"), ("address", "space"), ("unused",))
UNUSED = "unused: the share of resident that is in no live block"
BARS = " ▁▂▃▄▅▆▇█"
SHOWN = ("live", "allocated", "resident", "mapped")


@dataclass(frozen=True)
class Account:
    """One allocator's answer, and what malloc_trim(0) at the end would have given back."""

    trace: Trace
    settings: str
    replay: Replay
    trim_returns: int  # bytes


def account(trace: Trace, allocator: ExactAllocator, settings: str, *, every: int = 0, progress: Progress | None = None) -> Account:
    short = len(trace.ops) <= ROWS
    replay = allocator.replay(trace, every=1 if short else every, addresses=short, progress=progress)
    after = np.zeros(1, OP)
    after["op"], after["block"], after["time_ns"] = TRIM, -1, trace.ops[-1]["time_ns"]
    longer = Trace(np.concatenate((trace.ops, after)), trace.blocks, trace.threads, trace.source)
    trimmed = allocator.replay(longer, every=len(longer.ops))
    return Account(trace, settings, replay, int(replay.last["resident"] - trimmed.last["resident"]))


def size(count: float) -> str:
    """`12.3 MiB`, `640 KiB`, `100 B`: for reading, not for reading back."""
    if abs(count) >= 1024 * MIB:
        return f"{count / 1024 / MIB:.2f} GiB"
    if abs(count) >= MIB:
        return f"{count / MIB:.1f} MiB"
    return f"{count / 1024:.0f} KiB" if abs(count) >= 1024 or count == 0 else f"{count} B"


def as_text(accounts: Sequence[Account], width: int = WIDE) -> str:
    """For a terminal so many columns wide; 80 are enough for all but extreme figures."""
    return "\n\n".join(_one(a, width) for a in accounts) + (f"\n\n{_comparison(accounts)}" if len(accounts) > 1 else "")


def _one(a: Account, width: int) -> str:
    r, last = a.replay, a.replay.last
    threads = f"{a.trace.threads} thread{'s' if a.trace.threads > 1 else ''}"
    ops = f"{len(a.trace.ops):,} op{'s' if len(a.trace.ops) > 1 else ''}"
    head = f"{a.trace.source}: {ops}, {threads}, {r.allocator} {f'({a.settings})' if a.settings else 'as it comes'}"
    shares = fragmentation(r.samples)
    rows, done = [], []
    for k in _spread(len(r.samples), ROWS):
        s = r.samples[k]
        cells = [f"{s['op']:,}", f"{s['time_ns'] / 1e9:.1f} s", *(size(s[n]) for n in (*SHOWN, "brk", "reserved")), f"{shares[k]:.0%}"]
        rows.append(cells)
        done.append(_op(a, k) if len(r.addresses) > 0 else "")
    lines = [head, "", *_table(rows, done, width), UNUSED]
    most = max(1, *(int(r.samples[n].max()) for n in SHOWN))
    lines.append("")
    for name in SHOWN:
        ends = f"{size(last[name])} at the end, {size(r.samples[name].max())} at most"
        bars = _bars(
            r.samples[name], most, COLUMNS if width >= WIDE else min(COLUMNS, max(10, width - 14 - 2 * len("1023.9 MiB at the end")))
        )
        lines.append(f"  {name:10}{bars}  {ends}")
    return "\n".join([*lines, "", *(line for text in _where(a) for line in _folded(text, width))])


def _table(rows: list[list[str]], done: list[str], width: int) -> list[str]:
    """The samples; in a terminal too narrow for it the heads have two lines, and an op has a line of its own."""
    widths = [max(11, len(" ".join(h)) + 2) for h in HEADS]
    if width >= WIDE:
        lines = ["".join(f"{' '.join(h):>{w}}" for h, w in zip(HEADS, widths))]
        return lines + ["".join(f"{c:>{w}}" for c, w in zip(row, widths)) + (f"  {op}" if op else "") for row, op in zip(rows, done)]
    widths = [max(len(text) for text in (*h, *column)) + 1 for h, column in zip(HEADS, zip(*rows))]
    lines = ["".join(f"{h[k] if k < len(h) else '':>{w}}" for h, w in zip(HEADS, widths)).rstrip() for k in range(2)]
    for row, op in zip(rows, done):
        lines.append("".join(f"{c:>{w}}" for c, w in zip(row, widths)))
        lines += [f"{'':{widths[0]}}  {op}"] if op else []
    return lines


def _folded(text: str, width: int) -> list[str]:
    return [text] if len(text) <= width or width >= WIDE else wrap(text, max(40, width), subsequent_indent="    ")


def _op(a: Account, k: int) -> str:
    """What op number k was, and the address it returned."""
    op = a.trace.ops[k]
    what = OP_NAMES[op["op"]] + (f" {size(int(op['size']))}" if op["op"] not in (FREE, SLEEP, EXIT) else "")
    return what + (f" → {a.replay.addresses[k]:#x}" if a.replay.addresses[k] > 0 else "")


def _where(a: Account) -> list[str]:
    last = a.replay.last
    resident = int(last["resident"])
    parts = [
        ("in live blocks", int(last["allocated"]), "what the program has not freed"),
        ("in caches", int(last["cached"]), "freed, ready for the next request of the same size"),
        ("in free chunks", int(last["free"]), "freed, between live blocks or behind them"),
    ]
    if last["metadata"]:
        parts.append(("in its tables", int(last["metadata"]), "what the allocator keeps account in (metadata)"))
    lines = [f"where {size(resident)} resident are:"]
    lines += [f"  {name:16}{size(count):>10}  {words}" for name, count, words in parts]
    excess = sum(count for _, count, _ in parts) - resident
    if excess > 0:
        lines.append(f"  at least {size(excess)} of these are not resident: never written, or given back")
    lines.append(f"malloc_trim(0) now would give back {size(a.trim_returns)}; {size(a.replay.peak['resident'])} were resident at the peak")
    return [*lines, ", ".join(_fact(name, count) for name, count in a.replay.facts.items())]


def _fact(name: str, count: int) -> str:
    words = name.replace("_", " ")
    if words.endswith((" bytes", "heap size")) or words.startswith(("stats.", "generic.", "tcmalloc.")):  # libraries count bytes
        return f"{words.removesuffix(' bytes')} {size(count)}"
    return f"{words} {count:,}"


def _comparison(accounts: Sequence[Account]) -> str:
    lines = [f"{'allocator':24}{'peak':>12}{'at the end':>12}{'live then':>12}{'unused':>9}"]
    for a in accounts:
        name = f"{a.replay.allocator}{f' ({a.settings})' if a.settings else ''}"
        last = a.replay.last
        share = float(fragmentation(a.replay.samples)[-1])
        lines.append(f"{name:24}{size(a.replay.peak['resident']):>12}{size(last['resident']):>12}{size(last['live']):>12}{share:>9.0%}")
    return "\n".join(lines)


def _spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` row numbers, evenly spread, the last included."""
    if count <= wanted:
        return list(range(count))
    return sorted({round(k * (count - 1) / (wanted - 1)) for k in range(wanted)})


def _bars(values: np.ndarray, most: int, columns: int) -> str:
    picked = values[np.linspace(0, len(values) - 1, min(columns, len(values))).round().astype(int)]
    return "".join(BARS[min(8, -(-int(v) * 8 // most))] for v in picked).ljust(columns)


def as_json(accounts: Sequence[Account]) -> dict[str, Any]:
    first = accounts[0].trace
    return {
        "trace": {"source": first.source, "ops": len(first.ops), "threads": first.threads, "blocks_at_once": first.blocks},
        "allocators": [
            {
                "allocator": a.replay.allocator,
                "settings": a.settings,
                "facts": a.replay.facts,
                "malloc_trim_would_return": a.trim_returns,
                "peak_resident": int(a.replay.peak["resident"]),
                "samples": [dict(zip(SAMPLE.names or (), map(int, s))) for s in a.replay.samples],
                "fragmentation": [round(float(x), 6) for x in fragmentation(a.replay.samples)],
            }
            for a in accounts
        ],
    }


def check_plot(path: Path) -> None:
    """BadInput if `write_plot` could not write there."""
    if path.suffix not in (".csv", ".html"):
        raise BadInput(f"the plot is to be {path.name!r}: its name must end in .html (a page) or .csv (a table)")
    if not path.parent.is_dir():
        raise BadInput(f"the plot is to be in {str(path.parent)!r}: there is no such folder", file=path)


def write_plot(path: Path, accounts: Sequence[Account]) -> None:
    """A table (.csv) or a page with a graph (.html) of every sample."""
    check_plot(path)
    try:
        if path.suffix == ".csv":
            _write_csv(path, accounts)
        else:
            path.write_text(page(accounts), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror}", file=path) from None


def _write_csv(path: Path, accounts: Sequence[Account]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["allocator", *(SAMPLE.names or ()), "fragmentation"])
        for a in accounts:
            for s, share in zip(a.replay.samples, fragmentation(a.replay.samples)):
                table.writerow([a.replay.allocator, *map(int, s), f"{share:.6f}"])
