# SPDX-License-Identifier: Apache-2.0
"""What a person at a terminal reads, whole; and that nothing in it is taken for markup."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console

from fleetsim.verdict.junit import write_junit
from fleetsim.verdict.models import ExpectationVerdict, IncidentSummary, RuleScore, Verdicts
from fleetsim.verdict.report import print_report, print_summary


def expectation(kind: str, name: str, verdict: str, met: bool, explanation: str, **more: object) -> ExpectationVerdict:
    return ExpectationVerdict.model_validate(
        {"kind": kind, "name": name, "on": "the target", "verdict": verdict, "met": met, "explanation": explanation, **more}
    )


def rule(alert: str, **more: object) -> RuleScore:
    return RuleScore.model_validate(
        {"alert": alert, "kind": "alert", "file": "r.yml", "group": "g", "line": 1, "status": "evaluated", **more}
    )


VERDICTS = Verdicts(
    scenario="leak-[one]-container",
    seed=7,
    version="0",
    history_hash="0" * 64,
    evaluation_interval_s=15,
    hosts=4,
    duration_s=2700,
    expectations=[
        expectation("impact", "killed", "caught", True, "db-1 hurt 10m 00s after the fault", fault_at_s=600, fired_at_s=1200, delay_s=600),
        expectation("alert", "AvailableLow", "caught", True, "fired 7m 00s after the fault, 3m 00s before the harm", fault_at_s=600,
                    fired_at_s=1020, lead_s=180, reason="It looks at what can be had, [not] at what lies idle."),
        expectation("alert", "SlowRule", "missed", False, "fired for db-1 1m 00s after the harm it should have announced", fault_at_s=600,
                    fired_at_s=1260, lead_s=-60),
        expectation("silent", "Blind", "unknown", False, "not_evaluable: needs some_metric"),
    ],
    rules=[
        rule("AvailableLow", firings=1, true_firings=1, precision=1.0, recall=0.5, median_lead_s=180),
        rule("Noisy", firings=5, false_firings=5, precision=0.0, recall=0.0, flaps=3, noise_per_host_day=40),
        rule("Blind", status="not_evaluable", needs=["some_metric"]),
        rule("BlindToo", status="not_evaluable", needs=["some_metric"]),
        rule("Elsewhere", note='m{job="x"} matches none of this run\'s jobs (node)'),
    ],
    incidents=[IncidentSummary(id="x", fault="memory_spike", hosts=["db-2"], start_s=1500, end_s=1560, impact_at_s=None, caught_by=[])],
    coverage={},
)  # fmt: skip


def printed(width: int, verdicts: Verdicts = VERDICTS) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    print_report(verdicts, console, report=Path("out/verdict/report.html"))
    print_summary([verdicts], console)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"  # type: ignore[attr-defined]


def test_the_terminal_report_whole(golden: Callable[[str, str], None]) -> None:
    golden("verdict_report.txt", printed(100))


def test_a_narrow_terminal_loses_no_words() -> None:
    text = " ".join(printed(60).replace("│", " ").split())
    for words in ("what can be had, [not] at what", "leak-[one]-container", "not_evaluable: needs some_metric · Blind, BlindToo"):
        assert words in text


def test_harm_that_nobody_planned_and_nobody_noticed_is_told_in_a_sentence() -> None:
    incident = IncidentSummary(id="y", fault="no fault", hosts=["node-0"], start_s=75, end_s=90, impact_at_s=75, caught_by=[])
    told = printed(140, VERDICTS.model_copy(update={"incidents": [incident]}))
    assert "Nobody noticed the harm on node-0 (from 1m 15s, with no fault under way): no rule fired for it." in told


def test_junit_tells_failures_from_errors_and_stays_xml_whatever_a_label_says(tmp_path: Path) -> None:
    broken = expectation("silent", "Odd", "false_alarm", False, "fired for \x00\x1b[31m<host>")
    write_junit(tmp_path / "deep" / "junit.xml", [VERDICTS.model_copy(update={"expectations": [*VERDICTS.expectations, broken]})])
    suite = ElementTree.parse(tmp_path / "deep" / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "2", "1")
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases["alert SlowRule on the target"] == ["failure", "system-out"]
    assert cases["silent Blind on the target"] == ["error", "system-out"]
    assert suite.findall(".//failure")[1].get("message") == "fired for \ufffd\ufffd[31m<host>"
