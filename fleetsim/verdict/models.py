# SPDX-License-Identifier: Apache-2.0
"""What the judge says: the content of verdict/verdicts.json. All times are seconds of virtual time, all leads and delays seconds."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

from fleetsim.errors import EXIT_EXPECTATION, EXIT_OK, EXIT_TOOL_FAILED

Word = Literal["caught", "missed", "quiet", "false_alarm", "unknown"]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExpectationVerdict(Model):
    """One expectation and what became of it. `met` decides the exit code; `explanation` is one sentence."""

    kind: Literal["impact", "alert", "silent", "false_alarm"]
    name: str
    on: str
    verdict: Word
    met: bool
    explanation: str
    reason: str = ""  # the scenario's own `why`
    source_line: int | None = None
    fault: str | None = None
    fault_at_s: float | None = None
    fired_at_s: float | None = None  # of an impact: when it was seen
    impact_at_s: float | None = None
    delay_s: float | None = None  # from the fault to the alert (or the impact)
    lead_s: float | None = None  # from the alert to the impact


class RuleScore(Model):
    """One rule, for information. `not_evaluable`: `needs` names metrics that no exporter of this run has."""

    alert: str  # or the recorded metric
    kind: Literal["alert", "record"]
    file: str
    group: str
    line: int
    status: Literal["evaluated", "not_evaluable", "failed"]
    needs: list[str] = []
    note: str = ""
    firings: int = 0
    true_firings: int = 0
    false_firings: int = 0
    precision: float | None = None  # None: it never fired
    recall: float | None = None  # None: there was no incident
    median_lead_s: float | None = None
    flaps: int = 0
    noise_per_host_day: float = 0.0  # false firings per host and day without incident

    @property
    def status_text(self) -> str:
        return f"not_evaluable: needs {', '.join(self.needs)}" if self.status == "not_evaluable" else self.status


class IncidentSummary(Model):
    """Something that hurt somebody, or was bound to."""

    id: str
    fault: str
    hosts: list[str]
    start_s: float
    end_s: float
    impact_at_s: float | None
    caught_by: list[str]


class Verdicts(Model):
    scenario: str
    seed: int
    version: str
    history_hash: str
    evaluation_interval_s: float
    hosts: int
    duration_s: float
    expectations: list[ExpectationVerdict]
    rules: list[RuleScore]
    incidents: list[IncidentSummary]
    coverage: dict[str, dict[str, str]]  # fault kind → rule → "caught/incidents"

    @property
    def missed_by_all(self) -> list[IncidentSummary]:
        return [incident for incident in self.incidents if not incident.caught_by]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        if any(e.verdict == "unknown" for e in self.expectations):
            return EXIT_TOOL_FAILED
        return EXIT_OK if all(e.met for e in self.expectations) else EXIT_EXPECTATION
