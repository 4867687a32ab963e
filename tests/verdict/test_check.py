# SPDX-License-Identifier: Apache-2.0
"""From run directory to verdicts, by the real Prometheus: the pair that shows the point, drawn by hand.

a   leaks from minute 5: available memory falls, a kill at minute 15
b   fills its page cache from minute 5: free memory is gone, available memory is fine, nobody is hurt
c   healthy
"""

from __future__ import annotations

import json
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from plotly.offline import get_plotlyjs

from fleetsim.errors import EXIT_EXPECTATION, EXIT_OK, EXIT_TOOL_FAILED
from fleetsim.verdict.check import judge_run
from fleetsim.verdict.models import ExpectationVerdict, Verdicts
from fleetsim.verdict.prometheus import run_promtool

pytestmark = pytest.mark.usefixtures("prometheus")

GIB = float(1 << 30)

RULES = """
groups:
- name: memory
  rules:
  - record: instance:memory_available:ratio
    expr: node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes
  - alert: FreeLow
    expr: node_memory_MemFree_bytes / node_memory_MemTotal_bytes < 0.05
    for: 2m
    labels: {severity: warning}
    annotations: {summary: "{{ $labels.instance }} has {{ $value | humanizePercentage }} free"}
  - alert: AvailableLow
    expr: instance:memory_available:ratio < 0.2
    for: 1m
    labels: {severity: page, instance_kind: host}
    annotations: {summary: "{{ $labels.instance }} has {{ $value | humanizePercentage }} available"}
  - alert: PressureHigh
    expr: rate(node_pressure_nobody_has[5m]) > 0
  - alert: OtherJob
    expr: node_memory_MemAvailable_bytes{job="elsewhere"} < 1
  - alert: FleetLow
    expr: min(instance:memory_available:ratio) < 0.2
"""


def leak(host: str, minute: float) -> float:
    """Available memory in GiB of 16: the leak on `a` begins at 5 and is killed at 15."""
    return max(0.3, 12.0 - 1.2 * (minute - 5)) if host == "a" and 5 <= minute < 15 else 12.0


def free(host: str, minute: float) -> float:
    if host == "b":
        return 6.0 if minute < 5 else 0.2
    return leak(host, minute) - 4.0 if leak(host, minute) > 4.2 else 0.2


@pytest.fixture
def pair(world: Callable[..., object]):
    drawn = world(minutes=30)
    drawn.metric("node_memory_MemTotal_bytes", lambda host, minute: 16 * GIB)
    drawn.metric("node_memory_MemAvailable_bytes", lambda host, minute: leak(host, minute) * GIB)
    drawn.metric("node_memory_MemFree_bytes", lambda host, minute: free(host, minute) * GIB)
    drawn.fault("leaking_allocator", ["a"], start=5, end=15, subjects=["app"])
    drawn.fault("page_cache_flood", ["b"], start=5, end=25, harm=None)
    drawn.impact("killed", "a", start=15, end=15.5)
    return drawn


def judged(pair, rule_file, **more) -> Verdicts:
    return judge_run(pair.write(), [rule_file(RULES)], **{"html": False, **more})


def only(verdicts: Verdicts) -> ExpectationVerdict:
    (verdict,) = verdicts.expectations
    return verdict


def test_an_alert_before_the_harm_is_caught_with_its_delay_and_lead(pair, rule_file):
    pair.expect("alert", "AvailableLow", on="the target", on_hosts=["a"], within_s=600, before="impact", why="it looks at available")
    verdict = only(judged(pair, rule_file))
    assert (verdict.verdict, verdict.met, verdict.reason) == ("caught", True, "it looks at available")
    # 20 % of 16 GiB is 3.2: crossed 7 min 20 s after the fault; `for` adds one, scraping and evaluating at most 30 s
    assert 500 <= verdict.delay_s <= 530
    assert verdict.lead_s == pytest.approx(600 - verdict.delay_s)
    assert verdict.fault_at_s == 300 and verdict.impact_at_s == 900


def test_an_alert_after_its_time_or_after_the_harm_is_missed(pair, rule_file):
    pair.expect("alert", "AvailableLow", on_hosts=["a"], within_s=400)
    verdict = only(judged(pair, rule_file))
    assert (verdict.verdict, verdict.met) == ("missed", False)
    assert "too late" in verdict.explanation


def test_an_alert_that_fires_for_others_only_is_missed(pair, rule_file):
    pair.expect("alert", "FreeLow", on_hosts=["c"], fault=None)
    verdict = only(judged(pair, rule_file))
    assert (verdict.verdict, verdict.explanation) == ("missed", "never fired for c")


def test_a_silent_rule_is_quiet_and_a_loud_one_a_false_alarm(pair, rule_file):
    pair.expect("silent", "AvailableLow", on_hosts=["b", "c"])
    pair.expect("silent", "FreeLow", on_hosts=["b"])
    verdicts = judged(pair, rule_file)
    assert [(v.verdict, v.met) for v in verdicts.expectations] == [("quiet", True), ("false_alarm", False)]
    assert verdicts.exit_code == EXIT_EXPECTATION


def test_an_expected_false_alarm_is_met_only_where_nobody_is_hurt(pair, rule_file):
    pair.expect("false_alarm", "FreeLow", on_hosts=["b"])
    pair.expect("false_alarm", "FreeLow", on_hosts=["a"])
    pair.expect("false_alarm", "FreeLow", on_hosts=["c"])
    verdicts = judged(pair, rule_file)
    assert [(v.verdict, v.met) for v in verdicts.expectations] == [("false_alarm", True), ("caught", False), ("quiet", False)]


def test_harm_is_expected_like_an_alert(pair, rule_file):
    pair.expect("impact", "killed", on_hosts=["a"], on_subjects=["app"], within_s=900)
    pair.expect("impact", "killed", on_hosts=["a"], within_s=60)
    pair.expect("impact", "slow", on_hosts=["a"])
    pair.expect("impact", "killed", on_hosts=["a"], on_subjects=["somebody-else"])
    verdicts = judged(pair, rule_file)
    assert [v.verdict for v in verdicts.expectations] == ["caught", "missed", "missed", "missed"]
    assert verdicts.expectations[0].delay_s == 600


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("silent", "PressureHigh", "not_evaluable: needs node_pressure_nobody_has"),
        ("alert", "PressureHigh", "not_evaluable: needs node_pressure_nobody_has"),
        ("false_alarm", "PressureHigh", "not_evaluable: needs node_pressure_nobody_has"),
        ("silent", "AvailableLo", "no loaded rule file has an alert 'AvailableLo'; known are: AvailableLow"),
        ("silent", "OtherJob", 'it looks at nothing: node_memory_MemAvailable_bytes{job="elsewhere"} matches none of this run'),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_unknown_and_never_passes(pair, rule_file, kind, name, words):
    pair.expect(kind, name, on_hosts=["c"])
    verdicts = judged(pair, rule_file)
    verdict = only(verdicts)
    assert (verdict.verdict, verdict.met) == ("unknown", False)
    assert words in verdict.explanation
    assert verdicts.exit_code == EXIT_TOOL_FAILED


def test_every_rule_is_scored_for_information(pair, rule_file):
    verdicts = judged(pair, rule_file)
    score = {rule.alert: rule for rule in verdicts.rules}
    assert verdicts.exit_code == EXIT_OK  # no expectation, no verdict against anybody
    available, free_low = score["AvailableLow"], score["FreeLow"]
    assert (available.true_firings, available.false_firings, available.precision, available.recall) == (1, 0, 1.0, 1.0)
    assert available.median_lead_s > 60
    assert (free_low.true_firings, free_low.false_firings, free_low.precision) == (1, 1, 0.5)
    assert free_low.noise_per_host_day == pytest.approx(1 / ((3 * 30 - 10.5) / 1440), abs=0.01)
    assert score["PressureHigh"].status_text == "not_evaluable: needs node_pressure_nobody_has"
    assert score["FleetLow"].true_firings == 1  # an aggregate contains the sick host
    assert verdicts.coverage["leaking_allocator"]["AvailableLow"] == "1/1"
    assert [incident.fault for incident in verdicts.incidents] == ["leaking_allocator"]  # the harmless flood is none


def test_an_incident_that_no_rule_saw_is_listed(pair, rule_file):
    pair.impact("slow", "c", start=20, end=22)
    verdicts = judged(pair, rule_file)
    assert [(i.fault, i.hosts) for i in verdicts.missed_by_all] == [("no fault", ["c"])]


def test_the_timeline_tells_pending_firing_and_resolved_with_rendered_annotations(pair, rule_file):
    judged(pair, rule_file)
    lines = [json.loads(line) for line in (pair.folder / "verdict" / "alerts.jsonl").read_text().splitlines()]
    mine = [line for line in lines if line["alert"] == "AvailableLow"]
    assert [line["state"] for line in mine] == ["pending", "firing", "resolved"]
    assert mine[1]["labels"] == {
        "alertname": "AvailableLow", "instance": "a", "instance_kind": "host", "job": "node", "severity": "page",
    }  # fmt: skip
    assert mine[1]["annotations"]["summary"].startswith("a has ") and mine[1]["annotations"]["summary"].endswith("% available")
    assert [line["t_ms"] for line in lines] == sorted(line["t_ms"] for line in lines)


def test_reports_are_written_where_asked_and_open_without_a_network(pair, rule_file, tmp_path):
    pair.expect("alert", "AvailableLow", on_hosts=["a"], why="because <b>it</b> looks")
    pair.expect("silent", "FreeLow", on_hosts=["b"])
    verdicts = judged(pair, rule_file, html=True, junit=tmp_path / "junit.xml", unit_tests=tmp_path / "tests")
    page = (pair.folder / "verdict" / "report.html").read_text()
    assert "AvailableLow" in page and "&lt;b&gt;it&lt;/b&gt;" in page
    page = page.replace(get_plotlyjs(), "")  # plotly's own source mentions its map tiles
    assert 'src="http' not in page and 'href="http' not in page
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    assert Verdicts.model_validate(
        {k: v for k, v in json.loads((pair.folder / "verdict" / "verdicts.json").read_text()).items() if k != "exit_code"}
    ) == verdicts  # fmt: skip


def test_a_kept_unit_test_passes_under_promtool_and_fails_for_another_rule(pair, rule_file, tmp_path):
    pair.expect("alert", "AvailableLow", on_hosts=["a"])
    judged(pair, rule_file, unit_tests=tmp_path / "tests")
    test = tmp_path / "tests" / "AvailableLow.test.yml"
    assert "has" in test.read_text() and str(tmp_path) not in test.read_text()
    assert run_promtool(["test", "rules", str(test)]).returncode == 0
    copied = tmp_path / "tests" / "rules" / "rules.yml"
    copied.write_text(copied.read_text().replace("ratio < 0.2", "ratio < 0.1"))
    assert run_promtool(["test", "rules", str(test)]).returncode == 1


def test_judging_twice_says_the_same(pair, rule_file):
    pair.expect("alert", "AvailableLow", on_hosts=["a"])
    folder = pair.write()
    rules = [rule_file(RULES)]
    assert judge_run(folder, rules, html=False) == judge_run(folder, rules, html=False)
