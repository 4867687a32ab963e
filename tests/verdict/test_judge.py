# SPDX-License-Identifier: Apache-2.0
"""One verdict per expectation, on alerts drawn by hand: no Prometheus, only the joining of timeline and history."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fleetsim.rundir.reader import RunDirectory
from fleetsim.verdict.evidence import Evidence, RuleStatus
from fleetsim.verdict.judge import judge
from fleetsim.verdict.models import ExpectationVerdict
from fleetsim.verdict.rules import Rule
from fleetsim.verdict.score import Scoreboard
from fleetsim.verdict.timeline import AlertSpan

START_MS = 1_700_000_000_000
LOW = Rule("alert", "Low", "m > 0", "r.yml", "g", 1, for_ms=60_000)


def alert(minute: float, until: float | None, labels: dict[str, str], rule: Rule = LOW) -> AlertSpan:
    """Pending one minute, firing from `minute`."""
    ms = START_MS + round(minute * 60_000)
    end = None if until is None else START_MS + round(until * 60_000)
    return AlertSpan(rule, 15_000, {"alertname": rule.name, **labels}, {}, ms - 60_000, ms, end, 1.0)


def on(host: str) -> dict[str, str]:
    return {"instance": host, "job": "node"}


@pytest.fixture
def judged(world: Callable[..., object]) -> Callable[..., list[ExpectationVerdict]]:
    def judge_all(draw: Callable[[object], None], *alerts: AlertSpan, status: RuleStatus | None = None) -> list[ExpectationVerdict]:
        drawn = world(minutes=60, hosts=("a", "b", "c"))
        draw(drawn)
        run = RunDirectory(drawn.write())
        evidence = Evidence(run, [status or RuleStatus(LOW)], alerts)
        return [judge(evidence, expectation) for expectation in run.expectations]

    return judge_all


def words(verdicts: list[ExpectationVerdict]) -> list[tuple[str, bool]]:
    return [(verdict.verdict, verdict.met) for verdict in verdicts]


def test_every_host_that_the_fault_hit_must_be_named(judged) -> None:
    def draw(world) -> None:
        world.fault("leak", ["a", "b"], start=10)
        world.expect("alert", "Low", on_hosts=["a", "b"])

    assert words(judged(draw, alert(12, None, on("a")), alert(14, None, on("b")))) == [("caught", True)]


def test_one_of_two_hosts_is_not_enough(judged) -> None:
    def draw(world) -> None:
        world.fault("leak", ["a", "b"], start=10)
        world.expect("alert", "Low", on_hosts=["a", "b"])

    (verdict,) = judged(draw, alert(12, None, on("a")))
    assert (verdict.verdict, verdict.explanation) == ("missed", "never fired for b")


def test_of_a_deployment_one_pod_that_is_hurt_is_enough_wherever_it_has_come_to(judged) -> None:
    def draw(world) -> None:
        world.fault("leak", ["a", "b"], start=10)
        world.impact("killed", "c", start=20, end=21)
        world.expect("impact", "killed", on_hosts=["a", "b"], anywhere=True)
        world.expect("impact", "killed", on_hosts=["a", "b"])
        world.expect("impact", "killed", on_hosts=["a", "b"], anywhere=True, within_s=300)

    anywhere, everywhere, in_time = judged(draw)
    assert (anywhere.met, anywhere.explanation) == (True, "c hurt 10m 00s after the fault")
    assert (everywhere.met, in_time.met) == (False, False) and "too late" in in_time.explanation


def test_only_the_hosts_hit_are_meant_by_a_whole_group(judged) -> None:
    def draw(world) -> None:
        world.fault("leak", ["b"], start=10)
        world.expect("alert", "Low", on="all", on_hosts=["a", "b", "c"])

    assert words(judged(draw, alert(12, None, on("b")))) == [("caught", True)]


def test_an_aggregate_over_the_fleet_names_everybody(judged) -> None:
    def draw(world) -> None:
        world.fault("leak", ["b"], start=10)
        world.expect("alert", "Low", on_hosts=["b"])

    assert words(judged(draw, alert(12, None, {}))) == [("caught", True)]


def test_what_fired_before_the_fault_did_not_notice_it(judged) -> None:
    def draw(world) -> None:
        world.fault("leak", ["a"], start=10)
        world.expect("alert", "Low", on_hosts=["a"])

    (verdict,) = judged(draw, alert(5, 20, on("a")))
    assert verdict.explanation == "never fired for a; it was firing already before the fault"


def test_with_several_faults_it_must_fire_for_each(judged) -> None:
    def draw(world) -> None:
        world.fault("leak", ["a"], start=10, end=15)
        world.fault("leak", ["a"], start=40, end=45)
        world.fault("flood", ["a"], start=20, end=25, harm=None)
        world.expect("alert", "Low", on_hosts=["a"], within_s=300)

    assert words(judged(draw, alert(12, 16, on("a")), alert(42, 46, on("a")))) == [("caught", True)]


def test_the_second_fault_unnoticed_is_a_miss(judged) -> None:
    def draw(world) -> None:
        world.fault("leak", ["a"], start=10, end=15)
        world.fault("leak", ["a"], start=40, end=45)
        world.expect("alert", "Low", on_hosts=["a"], within_s=300)
        world.expect("alert", "Low", on_hosts=["a"], fault="leak-1")

    assert words(judged(draw, alert(12, 16, on("a")))) == [("missed", False), ("caught", True)]


def test_before_the_impact_means_before_the_first_harm_on_that_host(judged) -> None:
    def draw(world) -> None:
        world.fault("leak", ["a"], start=10)
        world.impact("killed", "a", start=20)
        world.impact("killed", "b", start=11)
        world.expect("alert", "Low", on_hosts=["a"], before="impact")

    (verdict,) = judged(draw, alert(18, None, on("a")))
    assert (verdict.met, verdict.lead_s, verdict.delay_s) == (True, 120.0, 480.0)
    assert verdict.explanation == "fired 8m 00s after the fault, 2m 00s before the harm"


def test_after_the_harm_is_too_late_to_announce_it(judged) -> None:
    def draw(world) -> None:
        world.fault("leak", ["a"], start=10)
        world.impact("killed", "a", start=20)
        world.expect("alert", "Low", on_hosts=["a"], before="impact")
        world.expect("alert", "Low", on_hosts=["a"])

    verdicts = judged(draw, alert(21, None, on("a")))
    assert words(verdicts) == [("missed", False), ("caught", True)]
    assert verdicts[0].explanation == "fired for a 1m 00s after the harm it should have announced"
    assert verdicts[1].lead_s == -60.0


def test_silence_may_be_asked_for_a_time_only(judged) -> None:
    def draw(world) -> None:
        world.fault("leak", ["a"], start=10)
        world.expect("silent", "Low", on_hosts=["a"], within_s=300)
        world.expect("silent", "Low", on_hosts=["a"])
        world.expect("silent", "Low", on_hosts=["b"])
        world.expect("silent", "Low")

    verdicts = judged(draw, alert(30, None, on("a")))
    assert words(verdicts) == [("quiet", True), ("false_alarm", False), ("quiet", True), ("false_alarm", False)]


def test_soon_after_the_harm_is_justified_and_later_is_false(judged) -> None:
    """Justified until the harm's end + `for` (1 min) + two evaluations (30 s)."""

    def draw(world) -> None:
        world.impact("slow", "a", start=10, end=20)
        world.expect("false_alarm", "Low", on_hosts=["a"])

    assert words(judged(draw, alert(21.4, 22, on("a")))) == [("caught", False)]


def test_later_than_that_is_a_false_alarm(judged) -> None:
    def draw(world) -> None:
        world.impact("slow", "a", start=10, end=20)
        world.expect("false_alarm", "Low", on_hosts=["a"])

    assert words(judged(draw, alert(21.6, 22, on("a")))) == [("false_alarm", True)]


def test_a_harmless_fault_justifies_nothing(judged) -> None:
    def draw(world) -> None:
        world.fault("flood", ["a"], start=10, harm=None)
        world.expect("false_alarm", "Low", on_hosts=["a"])

    (verdict,) = judged(draw, alert(12, None, on("a")))
    assert (verdict.verdict, verdict.met, verdict.fault_at_s) == ("false_alarm", True, 600.0)
    assert verdict.explanation == "fired for a at 12m 00s though nobody was hurt"


def test_without_any_fault_time_counts_from_the_start(judged) -> None:
    def draw(world) -> None:
        world.expect("alert", "Low", on_hosts=["a"], within_s=300)
        world.expect("impact", "killed", on_hosts=["a"])

    verdicts = judged(draw, alert(4, None, on("a")))
    assert words(verdicts) == [("caught", True), ("missed", False)] and verdicts[0].delay_s == 240.0


def test_a_fault_that_the_history_does_not_know_is_unknown(judged) -> None:
    (verdict,) = judged(lambda world: world.expect("alert", "Low", on_hosts=["a"], fault="leak-99"))
    assert (verdict.verdict, verdict.met, verdict.explanation) == ("unknown", False, "the history has no fault 'leak-99'")


def test_evaluations_that_failed_are_no_silence(judged) -> None:
    status = RuleStatus(LOW, failures=("found duplicate series",), instants=10)
    (verdict,) = judged(lambda world: world.expect("silent", "Low"), status=status)
    assert (verdict.verdict, verdict.met) == ("unknown", False) and "found duplicate series" in verdict.explanation


def test_a_judge_that_breaks_says_unknown(judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evidence, "of", lambda self, name: 1 / 0)
    (verdict,) = judged(lambda world: world.expect("silent", "Low"))
    assert (verdict.verdict, verdict.met) == ("unknown", False)
    assert verdict.explanation == "the judge failed: ZeroDivisionError: division by zero"


def test_scores_count_flaps_noise_and_lead(world) -> None:
    drawn = world(minutes=60, hosts=("a", "b", "c", "d"))
    drawn.fault("leak", ["a"], start=10, end=20)
    drawn.fault("leak", ["b"], start=10, end=20)
    drawn.impact("killed", "a", start=18, end=19)
    drawn.impact("killed", "b", start=19, end=20)
    firings = [alert(12, 13, on("a")), alert(15, 16, on("a")), alert(15, 16, on("b")), alert(40, 41, on("c")), alert(50, 51, on("c"))]
    evidence = Evidence(RunDirectory(drawn.write()), [RuleStatus(LOW)], firings)
    (score,) = Scoreboard(evidence).rules()
    assert (score.firings, score.true_firings, score.false_firings, score.flaps) == (5, 3, 2, 2)
    assert (score.precision, score.recall) == (0.6, 1.0)
    assert score.median_lead_s == 300.0  # 6 and 4 minutes
    assert score.noise_per_host_day == pytest.approx(2 / ((4 * 60 - 20) / 1440), abs=1e-3)
