# SPDX-License-Identifier: Apache-2.0
"""What `fleetsim whatif` says: two runs side by side, or the point of no return; for people and as JSON.

Rules: what did not change is counted, not listed. Times are those of the run, from its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fleetsim.cli.output import console, invocation
from fleetsim.fleet.compare import Counts, Harm, ImpactLine, UsersLine, change_of, counts, impact_lines, users_lines
from fleetsim.fleet.served import Requests
from fleetsim.units import NS_PER_S
from fleetsim.verdict.report import clock

if TYPE_CHECKING:
    from fleetsim.fleet.branch import Branched
    from fleetsim.fleet.no_return import NoReturn, Sought
    from fleetsim.fleet.plan import Plan
    from fleetsim.rundir.models import HistoryEvent
    from fleetsim.rundir.reader import RunDirectory
    from fleetsim.verdict.compare import AlertLine, Fired

WIDTH_MAX = 110
LINES_MAX = 15
STYLES = {"gone": "green", "new": "red", "later": "green", "earlier": "red", "shorter": "green", "longer": "red"}
MARKED = 12
"""Trials that are listed."""


@dataclass(frozen=True)
class Comparison:
    run: RunDirectory
    branched: Branched
    words: Sequence[str]
    at_ns: int
    out: Path | None
    impacts: Sequence[ImpactLine]
    was: Counts
    now: Counts
    users: Sequence[UsersLine]
    alerts: Sequence[AlertLine] | None

    @staticmethod
    def of(
        run: RunDirectory,
        plan: Plan,
        branched: Branched,
        alerts: Sequence[AlertLine] | None,
        words: Sequence[str],
        at_ns: int,
        out: Path | None,
    ) -> Comparison:
        end_ns = run.manifest.duration_ns
        was, now = run.history, branched.run.history
        return Comparison(
            run,
            branched,
            words,
            at_ns,
            out,
            impact_lines(was, now, at_ns, end_ns),
            counts(was, at_ns, end_ns),
            counts(now, at_ns, end_ns),
            users_lines(plan, branched.before, branched.original, branched.changed),
            alerts,
        )

    def tell(self, wall_seconds: float, json: bool) -> None:
        if json:
            invocation.print_json(self.as_json(wall_seconds))
        else:
            self._print(wall_seconds)

    # --- JSON ------------------------------------------------------------------------------------------------------------

    def as_json(self, wall_seconds: float) -> dict[str, Any]:
        manifest = self.run.manifest
        return {
            "scenario": manifest.scenario,
            "seed": manifest.seed,
            "at_s": self.at_ns / NS_PER_S,
            "simulated_from_s": self.branched.from_ns / NS_PER_S,
            "duration_s": manifest.duration_ns / NS_PER_S,
            "change": list(self.words),
            "history_hash": {"was": manifest.history_hash, "now": self.branched.history_hash},
            "same": manifest.history_hash == self.branched.history_hash,
            "out": None if self.out is None else str(self.out),
            "impacts": [
                {
                    "impact": i.impact,
                    "host": i.host,
                    "subject": i.subject,
                    "change": i.change,
                    "was": _as_json(i.was),
                    "now": _as_json(i.now),
                }
                for i in self.impacts
            ],
            "counts": {"was": _counts_json(self.was), "now": _counts_json(self.now)},
            "users": [{"name": u.name, "replicas": u.replicas, "was": _users_json(u.was), "now": _users_json(u.now)} for u in self.users],
            "alerts": None
            if self.alerts is None
            else [
                {"alert": a.alert, "who": a.who, "change": _alert_change(a), "was": _as_json(a.was), "now": _as_json(a.now)}
                for a in self.alerts
            ],
            "wall_seconds": round(wall_seconds, 3),
        }

    # --- for people ------------------------------------------------------------------------------------------------------

    def _print(self, wall_seconds: float) -> None:
        page = console()
        page.width = min(page.width, WIDTH_MAX)
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), expand=True)
        for name, ratio in ((f"from {_clock(self.at_ns)} on", 1), ("as it was", None), ("what if", None), ("", None)):
            table.add_column(name, ratio=ratio, no_wrap=ratio is None, overflow="fold")
        self._impact_rows(table)
        self._count_rows(table)
        self._user_rows(table)
        self._alert_rows(table)
        parts: list[RenderableType] = [Text("what if " + ", ".join(self.words), style="bold"), "", table]
        parts += ["", *self._footnotes(wall_seconds)]
        manifest = self.run.manifest
        about = f"branched at {_clock(self.at_ns)} of {_clock(manifest.duration_ns)} · seed {manifest.seed}"
        page.print(Panel(Group(*parts), title=f"[bold]{escape(manifest.scenario)}[/]  [dim]{about}[/]", title_align="left", padding=(1, 2)))

    def _impact_rows(self, table: Table) -> None:
        _section(table, "Impacts", first=True)
        changed = [line for line in self.impacts if line.change != "same"]
        for line in changed[:LINES_MAX]:
            name = f"{line.impact} · {'/'.join(part for part in (line.host, line.subject) if part)}"
            table.add_row(name, _harm(line.was), _harm(line.now), _styled(line.change))
        _remainder(table, len(self.impacts), len(changed), "impact")

    def _count_rows(self, table: Table) -> None:
        _section(table, "Kills")
        was, now = self.was, self.now
        table.add_row(
            "time to the first OOM kill", _to(was.first_oom_ns, self.at_ns), _to(now.first_oom_ns, self.at_ns), _oom_change(was, now)
        )
        for name in was.counted:
            table.add_row(name, str(was.counted[name]), str(now.counted[name]), _difference(was.counted[name], now.counted[name]))
        longer = now.harmed_ns - was.harmed_ns
        change = _styled("same" if not longer else "longer" if longer > 0 else "shorter")
        table.add_row("time in harm, all together", _clock(was.harmed_ns), _clock(now.harmed_ns), change)

    def _user_rows(self, table: Table) -> None:
        if not self.users:
            return
        _section(table, f"Users (answers from {_clock(self.branched.from_ns)} on)")
        for line in self.users[:LINES_MAX]:
            replicas = f" × {line.replicas}" if line.replicas > 1 else ""
            table.add_row(f"{line.name}{replicas}: p50 / p99", _latency(line.was), _latency(line.now), "")
            if line.was.slo_ns:
                allowed = f"{line.was.late_permille / 10:g} % may take over {line.was.slo_ns // 1_000_000} ms"
                table.add_row(f"  late ({allowed})", _late(line.was), _late(line.now), _slo_change(line))
            table.add_row("  answered / failed", _answered(line.was), _answered(line.now), "")
        _more(table, len(self.users))

    def _alert_rows(self, table: Table) -> None:
        if self.alerts is None:
            return
        _section(table, "Alerts")
        changed = [line for line in self.alerts if _alert_change(line) != "same"]
        for line in changed[:LINES_MAX]:
            table.add_row(f"{line.alert} · {line.who}", _harm(line.was), _harm(line.now), _plain(_alert_change(line)))
        _remainder(table, len(self.alerts), len(changed), "alert")

    def _footnotes(self, wall_seconds: float) -> list[RenderableType]:
        same = self.branched.history_hash == self.run.manifest.history_hash
        notes = ["The two runs are the same to the last bit: the change did nothing."] if same else []
        kept = "the branch is not kept (--out DIR keeps it)" if self.out is None else f"the branch is in {self.out}"
        judged = "" if self.alerts is not None else "; no rules to judge by, so no alerts (--rules FILE)"
        return [Text(line, style="dim") for line in (*notes, f"{wall_seconds:.1f} s; {kept}{judged}")]


def tell_no_return(
    run: RunDirectory, wanted: Sought, first: HistoryEvent, words: Sequence[str], found: NoReturn, wall_seconds: float, json: bool
) -> None:
    """The point of no return and the trials that found it."""
    if json:
        invocation.print_json(
            {
                "scenario": run.manifest.scenario,
                "seed": run.manifest.seed,
                "change": list(words),
                "impact": {"impact": first.data["impact"], "host": first.host, "subject": first.subject, "at_s": first.t_ns / NS_PER_S},
                "prevents": found.kind,
                "latest_s": _seconds(found.latest_ns),
                "too_late_s": _seconds(found.too_late_ns),
                "resolution_s": found.resolution_ns / NS_PER_S,
                "trials": [{"at_s": t.at_ns / NS_PER_S, "came_s": _seconds(t.came_ns)} for t in found.trials],
                "replayed_s": found.replayed_ns / NS_PER_S,
                "tried_s": found.tried_ns / NS_PER_S,
                "wall_seconds": round(wall_seconds, 3),
            }
        )
        return
    page = console()
    page.width = min(page.width, WIDTH_MAX)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    for name in ("changed at", "the impact"):
        table.add_column(name)
    listed = sorted(found.trials, key=lambda t: abs(t.at_ns - (found.latest_ns or found.too_late_ns or 0)))[:MARKED]
    for trial in sorted(listed, key=lambda t: t.at_ns):
        came = Text("does not come", style="green") if trial.came_ns is None else Text(f"comes at {_clock(trial.came_ns)}", style="red")
        table.add_row(_clock(trial.at_ns), came)
    trials = f"{len(found.trials)} trial{'' if len(found.trials) == 1 else 's'}"
    simulated = f"{_clock(found.replayed_ns)} of the run replayed, {_clock(found.tried_ns)} tried in {trials}"
    parts: list[RenderableType] = [
        Text(f"{wanted} comes at {_clock(first.t_ns)}; what if {', '.join(words)}?"),
        Text(_sentence(found), style="bold"),
        "",
        table,
        "",
        Text(f"{simulated}: {wall_seconds:.1f} s", style="dim"),
    ]
    title = f"[bold]{escape(run.manifest.scenario)}[/]  [dim]point of no return · seed {run.manifest.seed}[/]"
    page.print(Panel(Group(*parts), title=title, title_align="left", padding=(1, 2)))


def _sentence(found: NoReturn) -> str:
    if found.latest_ns is None:
        return f"It never prevents it: even at {_clock(found.trials[0].at_ns)} the change comes too late, or is no remedy."
    if found.too_late_ns is None:
        return (
            f"It always prevents it: even at {_clock(found.latest_ns)}, the last instant to try before the impact, the change is in time."
        )
    return f"The point of no return is {_clock(found.latest_ns)}: a change at {_clock(found.too_late_ns)} comes too late."


# --- cells -------------------------------------------------------------------------------------------------------------------


def _clock(ns: int) -> str:
    return clock(ns / NS_PER_S)


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / NS_PER_S


def _section(table: Table, title: str, first: bool = False) -> None:
    if not first:
        table.add_row("", "", "", "")
    table.add_row(Text(title, style="bold"), "", "", "")


def _styled(change: str) -> Text:
    return Text(change, style=STYLES.get(change, "dim"))


def _plain(change: str) -> Text:
    return Text(change, style="dim" if change == "same" else "yellow")  # whether an alert more is good is not known here


def _harm(harm: Harm | Fired | None) -> str:
    if harm is None:
        return "–"
    times = f"{harm.times} ×, " if harm.times > 1 else ""
    return f"{_clock(harm.first_ns)} ({times}{_clock(harm.total_ns)})"


def _alert_change(line: AlertLine) -> str:
    was, now = (None if f is None else Harm(f.first_ns, f.times, f.total_ns) for f in (line.was, line.now))
    return change_of(was, now)


def _remainder(table: Table, every: int, changed: int, word: str) -> None:
    same = every - changed
    if not every:
        table.add_row(Text(f"no {word} in either", style="dim"))
    if changed > LINES_MAX:
        table.add_row(Text(f"and {changed - LINES_MAX} more that changed (--json lists all)", style="dim"))
    if same:
        table.add_row(Text(f"{same} {word}{'' if same == 1 else 's'} the same in both", style="dim"))


def _more(table: Table, every: int) -> None:
    if every > LINES_MAX:
        table.add_row(Text(f"and {every - LINES_MAX} more (--json lists all)", style="dim"))


def _to(t_ns: int | None, at_ns: int) -> str:
    return "none to the end" if t_ns is None else _clock(t_ns - at_ns)


def _oom_change(was: Counts, now: Counts) -> Text:
    harm = [None if c.first_oom_ns is None else Harm(c.first_oom_ns, 1, 0) for c in (was, now)]
    return Text("") if harm == [None, None] else _styled(change_of(*harm))


def _difference(was: int, now: int) -> Text:
    return _styled("same") if was == now else Text(f"{now - was:+d}", style="red" if now > was else "green")


def _latency(requests: Requests) -> str:
    values = [requests.quantile_ms(q) for q in (0.5, 0.99)]
    return " / ".join("–" if value is None else f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms" for value in values)


def _late(requests: Requests) -> str:
    served = requests.count("served")
    return "–" if not served else f"{100 * requests.count('late') / served:.2g} %"


def _missed(requests: Requests) -> bool:
    return 1000 * requests.count("late") > requests.late_permille * requests.count("served")


def _slo_change(line: UsersLine) -> Text:
    was, now = _missed(line.was), _missed(line.now)
    if was == now:
        return Text("missed in both" if now else "kept in both", style="dim")
    return Text("missed", style="red") if now else Text("kept", style="green")


def _answered(requests: Requests) -> str:
    return f"{requests.count('served'):,} / {requests.failed:,}"


# --- JSON --------------------------------------------------------------------------------------------------------------------


def _as_json(harm: Harm | Fired | None) -> dict[str, Any] | None:
    return None if harm is None else {"first_s": harm.first_ns / NS_PER_S, "times": harm.times, "total_s": harm.total_ns / NS_PER_S}


def _counts_json(c: Counts) -> dict[str, Any]:
    return {"first_oom_s": _seconds(c.first_oom_ns), **{name: c.counted[name] for name in c.counted}, "harmed_s": c.harmed_ns / NS_PER_S}


def _users_json(requests: Requests) -> dict[str, Any]:
    return {
        "p50_ms": requests.quantile_ms(0.5),
        "p99_ms": requests.quantile_ms(0.99),
        "slo_ms": requests.slo_ns / 1e6 or None,
        "late_permille_allowed": requests.late_permille,
        **{name: requests.count(name) for name in ("arrived", "served", "late", "refused", "timed_out", "broken")},
    }
