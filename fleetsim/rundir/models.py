# SPDX-License-Identifier: Apache-2.0
"""What the files of a run directory hold. `format` is raised whenever an old reader would misread a new directory.

Two clocks, never mixed: `t_ns` is virtual time (0 = boot), samples carry unix milliseconds as Prometheus does;
`Manifest.unix_ms` is the one place where the first becomes the second.

Leaves out: the samples (see `samples.py`) and everything below `verdict/`, which is the judge's own.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

FORMAT = 1


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Manifest(Model):
    """manifest.json: what was run. `history_hash` is None until the run has finished."""

    format: int = FORMAT
    version: str  # of fleetsim
    scenario: str  # the scenario's name
    seed: int
    tick_ns: int = Field(gt=0)
    cpu_profile: str
    metric_profile: str
    size_class: str = "standard"  # of the hosts' records; not part of the hash, as it changes nothing that is in a history
    start_unix_ms: int = Field(ge=0)  # wall-clock time of virtual time 0, as the samples show it
    duration_ns: int = Field(gt=0)
    wall_seconds: float | None = None  # how long the run took; not part of the hash
    history_hash: str | None = None

    def unix_ms(self, t_ns: int) -> int:
        return self.start_unix_ms + t_ns // 1_000_000

    @property
    def end_unix_ms(self) -> int:
        return self.unix_ms(self.duration_ns)


class Target(Model):
    """One scrape target: every label Prometheus attaches to its samples (`job`, `instance`, any more), and whose it is."""

    labels: dict[str, str]
    exporter: str
    host: str
    interval_s: float = Field(default=15.0, gt=0)


class Placement(Model):
    """A pod or a service stood on a host from `from_ns` until `to_ns` (None: until the end of the run)."""

    kind: Literal["pod", "service"]
    name: str
    host: str
    namespace: str = ""
    from_ns: int = 0
    to_ns: int | None = None


class TargetsFile(Model):
    """targets.json. `exporters`: the metric names each exporter can show, also those that no series has had yet."""

    targets: list[Target]
    placements: list[Placement] = []
    exporters: dict[str, list[str]] = {}


class HistoryEvent(Model):
    """One line of history.jsonl; order is (t_ns, host, seq) and (host, seq) is never used twice.

    `host` is "" for what belongs to the whole fleet. `id` ties a start to its end (a fault's, an impact's).
    A fault's start and end carry in `data`: fault, parameters, hosts, subjects, harm (None: expected to hurt nobody).
    """

    t_ns: int = Field(ge=0)
    host: str
    seq: int
    kind: str
    subject: str = ""
    id: str = ""
    data: dict[str, Any] = {}


class Expectation(Model):
    """One normalised line of the scenario's `expect`, its targets already resolved.

    kind         impact: the simulator must show this harm · alert: this rule must fire · silent: it must not ·
                 false_alarm: it is expected to fire although nobody is hurt
    name         the impact's kind, or the alert's name
    on           the target as the scenario says it; on_hosts and on_subjects (pods, tasks) are what it resolved to.
                 on_hosts None: every host. on_subjects None: whoever it is on those hosts
    anywhere     an impact on any of all hosts is enough: the pods of a Deployment, which move
    within_s     counted from the start of the fault; None: until the end of the run
    before       "impact": the alert must fire before the first harm
    reason       `why:` of the scenario, shown beside the verdict
    fault        id of the fault it belongs to; None: every fault that touches on_hosts
    """

    kind: Literal["impact", "alert", "silent", "false_alarm"]
    name: str
    on: str = "all"
    on_hosts: list[str] | None = None
    on_subjects: list[str] | None = None
    anywhere: bool = False
    within_s: float | None = None
    before: Literal["impact"] | None = None
    reason: str = Field(default="", validation_alias=AliasChoices("reason", "why"))
    fault: str | None = None
    source_line: int | None = None
