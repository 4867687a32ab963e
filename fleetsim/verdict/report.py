# SPDX-License-Identifier: Apache-2.0
"""The verdicts for people at a terminal: what was expected, what became of it and why; then every other rule in short."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fleetsim.errors import EXIT_OK, EXIT_TOOL_FAILED
from fleetsim.verdict.judge import count, span
from fleetsim.verdict.models import ExpectationVerdict, RuleScore, Verdicts

MARKS = {True: ("✔", "bold green"), False: ("✘", "bold red"), None: ("?", "bold yellow")}
KIND_TEXT = {"impact": "must happen", "alert": "must fire", "silent": "must stay silent", "false_alarm": "is expected to cry wolf"}
RULES_SHOWN = 15


def print_report(verdicts: Verdicts, console: Console, *, report: Path | None = None) -> None:
    """One run. `report`: where the HTML report is, if one was written."""
    parts: list[RenderableType] = [_expectations(verdicts)]
    if loud := [rule for rule in verdicts.rules if rule.firings]:
        parts += ["", _rules(loud)]
    parts += ["", *_footnotes(verdicts)]
    if report is not None:
        parts.append(Text(f"Plots and every rule: {report}", style="dim"))
    style = {EXIT_OK: "green", EXIT_TOOL_FAILED: "yellow"}.get(verdicts.exit_code, "red")
    about = f"{count(verdicts.hosts, 'host')} · {clock(verdicts.duration_s)} simulated · seed {verdicts.seed}"
    title = f"[bold]{escape(verdicts.scenario)}[/]  [dim]{about}[/]"
    console.print(Panel(Group(*parts), title=title, title_align="left", border_style=style, padding=(1, 2)))


def print_summary(runs: Sequence[Verdicts], console: Console) -> None:
    """The last lines, after all runs."""
    expectations = [e for run in runs for e in run.expectations]
    met = sum(e.met for e in expectations)
    unknown = sum(e.verdict == "unknown" for e in expectations)
    worst = max((run.exit_code for run in runs), default=EXIT_OK)
    style = {EXIT_OK: "bold green", EXIT_TOOL_FAILED: "bold yellow"}.get(worst, "bold red")
    told = f"{met} of {count(len(expectations), 'expectation')} met in {count(len(runs), 'scenario')}"
    told += f", {unknown} could not be judged" if unknown else ""
    console.print(Text(told + ".", style=style))


def _expectations(verdicts: Verdicts) -> RenderableType:
    if not verdicts.expectations:
        return Text("The scenario expects nothing; the rules below are scored for information.", style="dim")
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), expand=True)
    for name in ("", "verdict", "expected, and what happened", "fault", "fired", "lead"):
        wide = name.startswith("expected")
        table.add_column(
            name, no_wrap=not wide, ratio=1 if wide else None, justify="right" if name in ("fault", "fired", "lead") else "left"
        )
    for expectation in verdicts.expectations:
        table.add_row(*_row(expectation))
    return table


def _row(e: ExpectationVerdict) -> list[RenderableType]:
    mark, style = MARKS[None if e.verdict == "unknown" else e.met]
    lines = [Text.assemble((e.name, "bold"), f" {KIND_TEXT[e.kind]}", (f" · {e.on}", "dim")), Text(e.explanation)]
    if e.reason:
        lines.append(Text(e.reason, style="dim italic"))
    lead = Text(clock(e.lead_s), style="green" if (e.lead_s or 0) > 0 else "red")
    fired = "" if e.kind == "impact" else clock(e.fired_at_s)
    return [Text(mark, style=style), Text(e.verdict, style=style), Group(*lines, ""), clock(e.fault_at_s), fired, lead]


def _rules(rules: Sequence[RuleScore]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), title="Every rule that spoke", title_justify="left")
    for name in ("rule", "firings", "true", "false", "precision", "recall", "lead", "flaps", "false/host/day"):
        table.add_column(name, justify="left" if name == "rule" else "right", overflow="fold")
    ordered = sorted(rules, key=lambda rule: (-rule.false_firings, -rule.firings, rule.alert))
    for rule in ordered[:RULES_SHOWN]:
        table.add_row(
            Text(rule.alert, style="bold"),
            str(rule.firings),
            Text(str(rule.true_firings), style="green" if rule.true_firings else "dim"),
            Text(str(rule.false_firings), style="red" if rule.false_firings else "dim"),
            "" if rule.precision is None else f"{rule.precision:.0%}",
            "" if rule.recall is None else f"{rule.recall:.0%}",
            clock(rule.median_lead_s),
            str(rule.flaps or ""),
            f"{rule.noise_per_host_day:.2g}" if rule.false_firings else "",
        )
    if len(ordered) > RULES_SHOWN:
        table.caption = f"and {len(ordered) - RULES_SHOWN} more, in verdicts.json"
    return table


def _footnotes(verdicts: Verdicts) -> list[RenderableType]:
    notes: list[RenderableType] = []
    for incident in verdicts.missed_by_all:
        hosts = ", ".join(incident.hosts[:3]) + (" …" if len(incident.hosts) > 3 else "")
        what = "the harm" if incident.fault == "no fault" else incident.fault
        since = f"from {clock(incident.start_s)}" + (", with no fault under way" if incident.fault == "no fault" else "")
        notes.append(Text(f"Nobody noticed {what} on {hosts} ({since}): no rule fired for it.", style="red"))
    alerts = [rule for rule in verdicts.rules if rule.kind == "alert"]
    fired, lacking = sum(rule.firings > 0 for rule in alerts), sum(rule.status == "not_evaluable" for rule in alerts)
    silent = sum(rule.status == "evaluated" and not rule.firings for rule in alerts)
    told = f"{count(len(alerts), 'alerting rule')} loaded: {fired} fired, {silent} stayed silent, {lacking} could not be evaluated."
    notes.append(Text(told, style="dim"))
    for reason, names in _reasons(verdicts.rules).items():
        notes.append(Text.assemble(("  " + reason, "yellow"), (" · " + ", ".join(names), "dim")))
    return notes


def _reasons(rules: Sequence[RuleScore]) -> dict[str, list[str]]:
    """Why rules say nothing here → the rules, each once however often it is defined."""
    found: dict[str, list[str]] = {}
    for rule in rules:
        reason = rule.status_text if rule.status == "not_evaluable" else rule.note
        if reason and rule.alert not in found.setdefault(reason, []):
            found[reason].append(rule.alert)
    return found


def clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return ("−" if seconds < 0 else "") + span(round(abs(seconds) * 1_000_000_000))
