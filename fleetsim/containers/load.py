# SPDX-License-Identifier: Apache-2.0
"""What users ask of a service: how many requests come, day and night, and what they put up with.

    load: 200/s                                              always as many
    load: {low: 50/s, high: 400/s, peak: 14h}                diurnal: a sine over 24 h, highest at 14:00 UTC (`period` for another)
    load: {replay: friday.csv}                               recorded: lines `seconds,requests per second`, each holds until the next

Requests come to a process that serves them: its `workers` answer as many at a time, `queue` more may wait, clients go away after
`timeout`, and `slo` says within what time which share of the answers should come: `{latency: 200ms, share: 99}`.
Leaves out: what a request wants (that is the workload's).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationInfo, WithJsonSchema, model_validator

from fleetsim.host.spec import Requests
from fleetsim.units import NS_PER_S, Duration, PositiveDuration

DAY_NS = 86_400 * NS_PER_S
RATE_MAX = 1_000_000
_STEP = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*,\s*([0-9]{1,9}(?:\.[0-9]{1,6})?)")
_RATE_PATTERN = r"^[0-9]+(\.[0-9]{1,3})?/(s|m)$"
_RATE = re.compile(r"([0-9]{1,7})(\.[0-9]{1,3})?/(s|m)")


def rate_milli(value: object) -> int:
    """Requests per 1000 s of `200/s`, `0.5/s`, `90/m`."""
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write requests per second or minute, such as 200/s, 0.5/s or 90/m")
    milli = int(match.group(1)) * 1000 + int(((match.group(2) or ".0")[1:] + "000")[:3])
    milli = milli if match.group(3) == "s" else milli // 60
    if milli > RATE_MAX * 1000:
        raise ValueError(f"a load is at most {RATE_MAX}/s for each process")
    return milli


RequestRate = Annotated[
    int,
    BeforeValidator(rate_milli),
    WithJsonSchema({"type": "string", "pattern": _RATE_PATTERN, "examples": ["200/s"]}),
]
"""Requests per 1000 s."""


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Load(Strict):
    """Requests that come: constant, rising and falling with the time of the day, or as recorded."""

    low: RequestRate = Field(description="at the quietest time, such as 50/s")
    high: RequestRate = Field(description="at the busiest time, such as 400/s")
    peak: Duration = Field(14 * 3600 * NS_PER_S, description="the busiest time, counted from midnight UTC")
    period: PositiveDuration = Field(DAY_NS, description="how long a day is")
    replay: str | None = Field(
        None, description="a CSV file beside the scenario with lines such as 600,120.5 (seconds, requests per second)"
    )
    _steps: tuple[tuple[int, int], ...] = PrivateAttr(())  # (ns since the start, requests per 1000 s)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """A constant rate is written as text."""
        return {
            "anyOf": [{"type": "string", "pattern": _RATE_PATTERN, "examples": ["200/s"]}, handler.resolve_ref_schema(handler(core_schema))]
        }

    @model_validator(mode="before")
    @classmethod
    def _constant(cls, value: Any) -> Any:
        if isinstance(value, dict) and "replay" in value:
            if more := [key for key in value if key != "replay"]:
                raise ValueError(f"'replay' says it all; take {', '.join(map(repr, more))} out")
            return {**value, "low": "0/s", "high": "0/s"}
        return {"low": value, "high": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _in_order(self, info: ValidationInfo) -> Load:
        if self.replay is not None:
            self._steps = read_steps(Path((info.context or {}).get("folder", ".")) / self.replay)
        if self.low > self.high:
            raise ValueError("'low' is above 'high'; write the quietest rate as 'low'")
        return self

    @property
    def steps(self) -> tuple[tuple[int, int], ...]:
        """Recorded loads: (ns since the start, requests per 1000 s from then on); none for the others."""
        return self._steps


def read_steps(path: Path) -> tuple[tuple[int, int], ...]:
    """The lines of a recorded load; ValueError says which is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); name a CSV file beside the scenario") from None
    steps: list[tuple[int, int]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#") or (number == 1 and not line[0].isdigit()):
            continue
        match = _STEP.fullmatch(line.strip())
        if match is None or float(match.group(2)) > RATE_MAX:
            raise ValueError(f"{path.name}:{number} is {line!r}; write seconds and requests per second, such as 600,120.5")
        at_ns, rate = int(float(match.group(1)) * 1000) * 1_000_000, int(float(match.group(2)) * 1000)
        if steps and at_ns <= steps[-1][0]:
            raise ValueError(f"{path.name}:{number} is not later than the line before it; sort the lines by time")
        steps.append((at_ns, rate))
    if not steps:
        raise ValueError(f"{path.name} has no line; write seconds and requests per second, such as 0,100")
    return tuple(steps)


class Slo(Strict):
    """How fast answers should be: `share` percent of them within `latency`."""

    latency: PositiveDuration = Field(description="such as 200ms")
    share: float = Field(99.0, description="percent of the requests, to a tenth", gt=0, lt=100)


def requests_of(
    load: Load | None, workers: int, queue: int, timeout_ns: int, cancels: bool, slo: Slo | None, finish_ns: int = 0
) -> Requests:
    """What the host is told of a server's users; with no load of its own nobody comes but those that a service sends."""
    load = load or Load.model_validate("0/s")
    return Requests(
        workers=workers,
        queue_max=queue,
        rate_milli=(load.low + load.high) // 2,
        swing_milli=(load.high - load.low) // 2,
        period_ns=load.period,
        peak_ns=load.peak,
        timeout_ns=timeout_ns,
        cancels=cancels,
        slo_ns=0 if slo is None else slo.latency,
        late_permille=10 if slo is None else round(1000 - 10 * slo.share),
        finish_ns=finish_ns,
    )
