# SPDX-License-Identifier: Apache-2.0
"""The command line: one verb per file, and the one place where errors become a sentence and an exit code.

    0  all expectations met      1  some were not      2  bad input, nothing was started
    3  fleetsim or a program it needs failed, or a verdict is unknown      130  interrupted

Rules: a verb returns its exit code and imports what is heavy inside its function (`fleetsim --help` must be quick). Every failure
ends with the seed, the version and the command that does it again. No traceback reaches a user who did not ask for one
(`--debug` or FLEETSIM_DEBUG=1). With --json exactly one value goes to stdout, whatever happens.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from fleetsim import __version__
from fleetsim.cli import bench, cat, check, doctor, fidelity, listing, malloc, pods, run, schema, tlb, validate, walk, whatif
from fleetsim.cli.interrupt import deliver_interrupts
from fleetsim.cli.output import invocation
from fleetsim.cli.size_class import StartAnew, start_anew
from fleetsim.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_OK, EXIT_TOOL_FAILED, FleetsimError

app = typer.Typer(
    name="fleetsim",
    help="Simulate fleets of Linux hosts, break their memory on purpose, and see whether any alert noticed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("check")(check.check)
app.command("whatif")(whatif.whatif)
app.command("validate")(validate.validate)
app.command("fidelity")(fidelity.fidelity)
app.command("cat")(cat.cat)
app.command("walk")(walk.walk)
app.command("pods")(pods.pods)
app.command("tlb")(tlb.tlb)
app.command("malloc")(malloc.malloc)
app.command("list")(listing.list_)
app.command("schema")(schema.schema)
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fleetsim {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an internal error.")] = False,
) -> None:
    invocation.debug = debug or os.environ.get("FLEETSIM_DEBUG", "0") not in ("", "0")


def execute(arguments: list[str]) -> int:
    """Run one command line; returns the exit code, raises nothing."""
    invocation.begin(arguments)
    try:
        code = typer.main.get_command(app).main(args=list(arguments), prog_name="fleetsim", standalone_mode=False)
        code = code if isinstance(code, int) else EXIT_OK
        if code == EXIT_INTERRUPTED:  # the parser's library has taken the Ctrl-C
            raise KeyboardInterrupt
        if code != EXIT_OK:
            invocation.say_how_to_repeat()
        return code
    except FleetsimError as error:
        if invocation.debug and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return invocation.fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return invocation.fail("interrupted; nothing was left running", EXIT_INTERRUPTED)
    except BrokenPipeError:  # `fleetsim list metrics | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:
        return _other(error)


def _other(error: Exception) -> int:
    """A usage error of the command line's parser, or a mistake of ours."""
    if callable(words := getattr(error, "format_message", None)):
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "fleetsim"
        given = _value_given(getattr(getattr(error, "param", None), "opts", []))
        return invocation.fail(f"{str(words()).rstrip('.')}{given}; see {where} --help", EXIT_BAD_INPUT)
    if invocation.debug:
        traceback.print_exc()
    kind = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return invocation.fail(f"internal error: {kind} (--debug shows where)", EXIT_TOOL_FAILED)


def _value_given(options: list[str]) -> str:
    """What the user wrote for an option; the parser's own sentence does not always say it."""
    words = invocation.arguments
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in options and name.startswith("-"):
            return f" (it is {value if equals else words[number + 1]!r})" if equals or number + 1 < len(words) else ""
    return ""


def main() -> None:
    deliver_interrupts()
    try:
        code = execute(sys.argv[1:])
    except StartAnew as wanted:
        start_anew(wanted.size_class)
    except KeyboardInterrupt:  # one more, while something was being cleared away
        code = invocation.fail("interrupted", EXIT_INTERRUPTED)
    if code == EXIT_INTERRUPTED:  # at once: a thread may be compiling for a minute yet, and has nothing to lose
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
