# SPDX-License-Identifier: Apache-2.0
"""What the verbs say, and where: results on stdout, everything else (progress, failures) on stderr.

Rules: with --json exactly one value is printed to stdout, also when the command fails. Progress appears after two seconds: a bar
on a terminal, a line now and then elsewhere.
Leaves out: tables (the verbs make their own).
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from fleetsim import __version__
from fleetsim.cli.step_watch import StepWatch

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 150
PROGRESS_AFTER_S = 2.0
LINE_EVERY_S = 10.0
BAR_WIDTH, LABEL_MAX = 10, 16
"""On a terminal of 80 columns the text keeps some fifty of them."""


class ProgressCall(Protocol):
    """Told a stage, the share of it that is done (0..1), and more where there is more to say."""

    def __call__(self, stage: str, share: float, detail: str = "") -> None: ...


@dataclass
class Invocation:
    """The command line being executed; one per process."""

    arguments: list[str] = field(default_factory=list)
    seeds: dict[str, int] = field(default_factory=dict)  # scenario → seed in use
    debug: bool = False
    printed: bool = False  # the one value of --json is out
    spoken: bool = False

    def begin(self, arguments: list[str]) -> None:
        self.arguments, self.seeds, self.printed, self.spoken = list(arguments), {}, False, False

    @property
    def wants_json(self) -> bool:
        return "--json" in self.arguments

    @property
    def command(self) -> str:
        """The command that does it again, with the seed said."""
        words = list(self.arguments)
        if len(self.seeds) == 1 and words[:1] and words[0] in ("run", "check") and not any(w.startswith("--seed") for w in words):
            words[1:1] = ["--seed", str(next(iter(self.seeds.values())))]
        return shlex.join(["fleetsim", *words])

    def fail(self, sentence: str, code: int) -> int:
        """One sentence, then how to repeat it; returns `code`."""
        say(f"fleetsim: {sentence}")
        if self.wants_json and not self.printed:
            failure = {"error": sentence, "exit_code": code, "version": __version__, "seeds": self.seeds, "reproduce": self.command}
            self.print_json(failure)
        self.say_how_to_repeat()
        return code

    def say_how_to_repeat(self) -> None:
        if not self.spoken:
            self.spoken = True
            seeds = ", ".join(f"seed {seed} ({name})" for name, seed in self.seeds.items()) or "no seed was in use yet"
            say(f"          fleetsim {__version__}, {seeds}; again with: {self.command}")

    def print_json(self, value: Any) -> None:
        self.printed = True
        print(json.dumps(value, ensure_ascii=False, indent=1), flush=True)


invocation = Invocation()


def counted(items: Sized, word: str) -> str:
    """`1 host`, `2 hosts`."""
    return f"{len(items)} {word}{'' if len(items) == 1 else 's'}"


def console() -> Console:
    """Where tables go; wide when nobody's terminal limits it."""
    from rich.console import Console as RichConsole

    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or PIPE_WIDTH)
    return RichConsole(width=width, highlight=False)


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def say_notes(name: str, notes: Sequence[str]) -> None:
    for note in notes:
        say(f"note: {name}: {note}")


@contextmanager
def progress(label: str = "") -> Iterator[ProgressCall]:
    """Gives a function to be told (stage, share done 0..1); shows it once it has taken two seconds."""
    if sys.stderr.isatty():
        with _bar(label) as show:
            yield show
    else:
        with StepWatch(say):
            yield _lines(f"{label}: " if label else "")


def _lines(prefix: str) -> ProgressCall:
    began = time.monotonic()
    last: tuple[str, float] = ("", 0.0)

    def show(stage: str, share: float, detail: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        slow = stage.startswith("compiling")  # says so at once: nothing can be said while it lasts
        if slow or (now - began >= PROGRESS_AFTER_S and (stage != last[0] or now - last[1] >= LINE_EVERY_S)):
            say(f"{prefix}{stage}" + (f" {share:.0%}" if share > 0 else " …") + (f" ({detail})" if detail else ""))
            last = (stage, now)

    return show


@contextmanager
def _bar(label: str) -> Iterator[ProgressCall]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    told = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    columns = (SpinnerColumn(), BarColumn(BAR_WIDTH), TaskProgressColumn(), TimeElapsedColumn(), told)
    name = label if len(label) <= LABEL_MAX else label[: LABEL_MAX - 1] + "…"
    with (
        Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bars,
        StepWatch(lambda text: bars.console.print(text, markup=False)),
    ):
        task = bars.add_task("…", total=None)

        def show(stage: str, share: float, detail: str = "") -> None:
            what = detail if detail and stage == "simulating" else f"{stage} ({detail})" if detail else stage
            text = f"{name}: {what}" if name else what
            bars.update(task, description=text, total=1.0 if share > 0 else None, completed=share)

        yield show
