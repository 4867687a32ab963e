# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML file: the verdicts, every rule, and per expectation what the rule saw, zoomable.

A plot shows the metrics a rule reads on the hosts concerned (through recording rules), with the fault, the harm and
the alert as bands over time. Plotly's own script is inlined once, so the file needs no network.
Leaves out: the value of the rule's expression (only where it is true would it be known).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from fleetsim.rundir.samples import STALE_BITS, runs
from fleetsim.verdict.evidence import Evidence
from fleetsim.verdict.judge import span
from fleetsim.verdict.models import ExpectationVerdict, RuleScore, Verdicts
from fleetsim.verdict.report import KIND_TEXT, clock
from fleetsim.verdict.statuses import metrics_read

HOSTS_MAX = 4
LINES_MAX = 16
NS = 1_000_000_000
BANDS = {
    "fault": "rgba(214,120,40,.14)",
    "harm": "rgba(200,30,30,.30)",
    "pending": "rgba(230,200,40,.25)",
    "firing": "rgba(120,60,180,.22)",
}

GIB = 1 << 30
LABELS = {"fault": "bottom left", "harm": "bottom right", "pending": "top left", "firing": "top left"}  # beside, not upon each other
STYLE = """
:root { color-scheme: light dark; --line: #8885; --good: #1a7f37; --bad: #cf222e; --odd: #9a6700; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 500; opacity: .65; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; } .odd { color: var(--odd); font-weight: 600; }
.why { opacity: .7; font-style: italic; } .key span { padding: .1rem .5rem; margin-right: .5rem; border-radius: .2rem; }
"""


def write_html(path: Path, evidence: Evidence, verdicts: Verdicts) -> None:
    facts = (
        f"{verdicts.hosts} hosts · {clock(verdicts.duration_s)} simulated · seed {verdicts.seed} · "
        f"fleetsim {verdicts.version} · history {verdicts.history_hash[:16]}"
    )
    key = "".join(f'<span style="background:{colour}">{name}</span>' for name, colour in BANDS.items())
    plots = "".join(_plot(evidence, expectations) for expectations in _by_rule(verdicts.expectations))
    body = f"""<h1>{escape(verdicts.scenario)}</h1><p>{escape(str(evidence.run.scenario.get("summary", "")))}</p><p>{escape(facts)}</p>
<h2>Expectations</h2>{_expectations(verdicts.expectations)}
<h2>What the rules saw</h2><p class="key">{key}</p>{plots}
<h2>Incidents</h2>{_incidents(verdicts)}
<h2>Every rule</h2>{_rules(verdicts.rules)}"""
    head = f'<meta charset="utf-8"><title>{escape(verdicts.scenario)}: verdicts</title><style>{STYLE}</style>'
    script = f"<script>{get_plotlyjs()}</script>"
    path.write_text(f'<!doctype html><html lang="en"><head>{head}{script}</head><body>{body}</body></html>\n', encoding="utf-8")


def _by_rule(expectations: Sequence[ExpectationVerdict]) -> list[list[ExpectationVerdict]]:
    """One plot per rule, whatever is expected of it and where."""
    rules = dict.fromkeys(e.name for e in expectations if e.kind != "impact")
    return [[e for e in expectations if e.kind != "impact" and e.name == name] for name in rules]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>{body}</table>"


def _expectations(expectations: Sequence[ExpectationVerdict]) -> str:
    def row(e: ExpectationVerdict) -> list[str]:
        style = "odd" if e.verdict == "unknown" else "good" if e.met else "bad"
        why = f'<br><span class="why">{escape(e.reason)}</span>' if e.reason else ""
        expected = f"<b>{escape(e.name)}</b> {KIND_TEXT[e.kind]} · {escape(e.on)}"
        times = [clock(e.fault_at_s), clock(e.fired_at_s), clock(e.impact_at_s), clock(e.lead_s)]
        return [f'<span class="{style}">{e.verdict}</span>', expected, *times, escape(e.explanation) + why]

    return _table(("verdict", "expected", "fault", "fired", "harm", "lead", "what happened"), map(row, expectations))


def _incidents(verdicts: Verdicts) -> str:
    rows = [
        [escape(i.fault), escape(", ".join(i.hosts[:6])), clock(i.start_s), clock(i.impact_at_s), clock(i.end_s),
         escape(", ".join(i.caught_by)) or '<span class="bad">nobody</span>']
        for i in verdicts.incidents
    ]  # fmt: skip
    return _table(("fault", "hosts", "from", "first harm", "until", "noticed by"), rows) if rows else "<p>None: nobody was hurt.</p>"


def _rules(rules: Sequence[RuleScore]) -> str:
    def row(r: RuleScore) -> list[str]:
        shares = ["" if share is None else f"{share:.0%}" for share in (r.precision, r.recall)]
        told = r.status_text + (f": {r.note}" if r.note else "")
        where = f"{Path(r.file).name}:{r.line}"
        return [escape(r.alert), escape(where), escape(told), str(r.true_firings), str(r.false_firings), *shares, clock(r.median_lead_s),
                str(r.flaps), f"{r.noise_per_host_day:.2g}"]  # fmt: skip

    head = ("rule", "where", "status", "true", "false", "precision", "recall", "median lead", "flaps", "false per host and day")
    return _table(head, map(row, sorted(rules, key=lambda r: (-r.firings, r.status != "evaluated", r.alert))))


def _plot(evidence: Evidence, expectations: Sequence[ExpectationVerdict]) -> str:
    name = expectations[0].name
    hosts = _hosts(evidence, expectations[0])
    lines = _lines(evidence, name, hosts)
    in_gib = bool(lines) and all(line.name.split()[0].endswith("_bytes") for line in lines)
    for line in lines if in_gib else []:
        line.y = [value / GIB for value in line.y]
    figure = go.Figure(data=lines)
    for kind, label, start_ns, end_ns in _bands(evidence, name, hosts):
        figure.add_vrect(
            x0=start_ns / NS / 60, x1=end_ns / NS / 60, fillcolor=BANDS[kind], line_width=0, layer="below",
            annotation_text=label, annotation_position=LABELS[kind], annotation_font_size=10,
        )  # fmt: skip
    verdicts = ", ".join(dict.fromkeys(e.verdict for e in expectations))
    figure.update_layout(
        title=f"{name}: {verdicts}", template="plotly_white", height=420, hovermode="x unified",
        xaxis_title="minutes of virtual time", yaxis_title="GiB" if in_gib else "", yaxis_rangemode="tozero", legend={"font": {"size": 10}},
        margin={"t": 60, "b": 50},
    )  # fmt: skip
    return str(figure.to_html(full_html=False, include_plotlyjs=False))


def _hosts(evidence: Evidence, expectation: ExpectationVerdict) -> list[str]:
    hit = [host for fault in evidence.faults for host in sorted(fault.hosts)]
    fired = [host for firing in evidence.of(expectation.name) for host in sorted(firing.named.hosts)]
    return list(dict.fromkeys([*hit[: HOSTS_MAX - 1], *fired, *hit, *evidence.hosts]))[:HOSTS_MAX]


def _lines(evidence: Evidence, alert: str, hosts: Sequence[str]) -> list[Any]:
    run = evidence.run
    wanted = [status.rule for status in evidence.statuses if status.rule.name == alert]
    for rule in wanted:  # down through recording rules
        read = {selector.name for selector in rule.selectors or ()}
        wanted += [s.rule for s in evidence.statuses if s.rule.kind == "record" and s.rule.name in read and s.rule not in wanted]
    names = metrics_read(wanted, sorted({labels.get("__name__", "") for labels in run.series})) or set()
    host_of = {number: host for host in hosts for number in _series_of(evidence, host, names)}
    lines = []
    ids, times, values = run.columns(list(host_of)[:LINES_MAX])
    for number, first, last in runs(ids):
        minutes = (times[first:last] - run.manifest.start_unix_ms) / 60_000
        shown = np.where(values[first:last].view(np.uint64) == STALE_BITS, np.nan, values[first:last])
        own = {k: v for k, v in run.series[number].items() if k not in ("__name__", "job", "instance")}
        name = f"{run.series[number]['__name__']} {host_of[number]}" + (f" {own}" if own else "")
        lines.append(go.Scatter(x=minutes.tolist(), y=shown.tolist(), name=name, mode="lines", line={"width": 1.4}))
    return lines


def _series_of(evidence: Evidence, host: str, names: set[str]) -> list[int]:
    targets = [target.labels.items() for target in evidence.run.targets if target.host == host]
    series = enumerate(evidence.run.series)
    return [n for n, labels in series if labels.get("__name__") in names and any(mine <= labels.items() for mine in targets)]


def _bands(evidence: Evidence, alert: str, hosts: Sequence[str]) -> list[tuple[str, str, int, int]]:
    shown = set(hosts)
    bands = [("fault", f.kind, f.start_ns, f.end_ns) for f in evidence.faults if f.hosts & shown]
    # a kill is over at once: at least half a minute wide, to be seen
    bands += [("harm", f"{i.kind} {i.host}", i.start_ns, max(i.end_ns, i.start_ns + 30 * NS)) for i in evidence.impacts if i.host in shown]
    for firing in evidence.of(alert):
        if firing.names(shown):
            start_ns = evidence.t_ns(firing.span.start_ms)
            bands += [("pending", "", start_ns, firing.at_ns)] if start_ns < firing.at_ns else []
            bands.append(("firing", f"fires ({span(firing.end_ns - firing.at_ns)})", firing.at_ns, firing.end_ns))
    return _merged(bands)[:60]


def _merged(bands: list[tuple[str, str, int, int]]) -> list[tuple[str, str, int, int]]:
    """Bands of one kind that overlap (the same thing on several hosts) are one band, or their colours would add up."""
    merged: list[tuple[str, str, int, int]] = []
    for kind, label, start_ns, end_ns in sorted(bands, key=lambda band: (band[0], band[2])):
        last = merged[-1] if merged else None
        if last and last[0] == kind and start_ns <= last[3]:
            merged[-1] = (kind, last[1], last[2], max(last[3], end_ns))
        else:
            merged.append((kind, label, start_ns, end_ns))
    return merged
