# SPDX-License-Identifier: Apache-2.0
"""`fleetsim validate`: is every file right? Scenarios and rule files are told apart by what is in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from fleetsim.cli.options import Json
from fleetsim.cli.output import counted, invocation, say, say_notes
from fleetsim.errors import EXIT_BAD_INPUT, EXIT_OK, BadInput

HEAD_BYTES = 1 << 16


def validate(
    files: Annotated[list[Path], typer.Argument(help="Scenario files and rule files.", metavar="FILES...")],
    json: Json = False,
) -> int:
    """Check scenario and rule files without running anything: one sentence for each that is wrong."""
    results = [_checked(file) for file in files]
    bad = [result for result in results if not result["ok"]]
    if json:
        invocation.print_json({"files": results, "exit_code": EXIT_BAD_INPUT if bad else EXIT_OK})
    for result in results:
        if result["ok"] and not json:
            print(f"ok   {result['file']}: {result['what']}")
        elif not result["ok"]:
            say(f"bad  {result['error']}")
    return EXIT_BAD_INPUT if bad else EXIT_OK


def _checked(file: Path) -> dict[str, Any]:
    try:
        kind, what = _looked_at(file)
        return {"file": str(file), "ok": True, "kind": kind, "what": what}
    except BadInput as error:
        return {"file": str(file), "ok": False, "error": str(error), "line": error.line}


def _looks_like_rules(file: Path) -> bool:
    """Rule files have `groups:` at the top level; whatever else is wrong with the file is said by whoever reads it."""
    try:
        with file.open("rb") as opened:
            return re.search(rb"^[\"']?groups[\"']?\s*:", opened.read(HEAD_BYTES), re.MULTILINE) is not None
    except OSError:
        return False


def _looked_at(file: Path) -> tuple[str, str]:
    from fleetsim.fleet.plan import make_plan
    from fleetsim.fleet.scenario import load_scenario

    if _looks_like_rules(file):
        from fleetsim.verdict.rules import load_rule_files

        rules = load_rule_files([file])
        return "rules", f"{counted(rules.rules, 'rule')} in {counted(rules.groups, 'group')}"
    plan = make_plan(load_scenario(file))
    say_notes(plan.scenario.name, plan.notes)
    return "scenario", ", ".join(
        counted(items, word) for items, word in ((plan.hosts, "host"), (plan.faults, "fault"), (plan.expectations, "expectation"))
    )
