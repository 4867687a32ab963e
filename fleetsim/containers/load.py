# SPDX-License-Identifier: Apache-2.0
"""What users ask of a service: how many requests come, day and night, and what they put up with.

    load: 200/s                                              always as many
    load: {low: 50/s, high: 400/s, peak: 14h}                diurnal: a sine over 24 h, highest at 14:00 UTC (`period` for another)

Requests come to a process that serves them: its `workers` answer as many at a time, `queue` more may wait, clients go away after
`timeout`, and `slo` says within what time which share of the answers should come: `{latency: 200ms, share: 99}`.
Leaves out: what a request wants (that is the workload's).
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from fleetsim.host.spec import Requests
from fleetsim.units import NS_PER_S, Duration, PositiveDuration

DAY_NS = 86_400 * NS_PER_S
RATE_MAX = 1_000_000
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
    """Requests that come: constant, or rising and falling with the time of the day."""

    low: RequestRate = Field(description="at the quietest time, such as 50/s")
    high: RequestRate = Field(description="at the busiest time, such as 400/s")
    peak: Duration = Field(14 * 3600 * NS_PER_S, description="the busiest time, counted from midnight UTC")
    period: PositiveDuration = Field(DAY_NS, description="how long a day is")

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """A constant rate is written as text."""
        return {
            "anyOf": [{"type": "string", "pattern": _RATE_PATTERN, "examples": ["200/s"]}, handler.resolve_ref_schema(handler(core_schema))]
        }

    @model_validator(mode="before")
    @classmethod
    def _constant(cls, value: Any) -> Any:
        return {"low": value, "high": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _in_order(self) -> Load:
        if self.low > self.high:
            raise ValueError("'low' is above 'high'; write the quietest rate as 'low'")
        return self


class Slo(Strict):
    """How fast answers should be: `share` percent of them within `latency`."""

    latency: PositiveDuration = Field(description="such as 200ms")
    share: float = Field(99.0, description="percent of the requests, to a tenth", gt=0, lt=100)


def requests_of(load: Load | None, workers: int, queue: int, timeout_ns: int, slo: Slo | None) -> Requests | None:
    """What the host is told of a server's users; None: there are none."""
    if load is None:
        return None
    return Requests(
        workers=workers,
        queue_max=queue,
        rate_milli=(load.low + load.high) // 2,
        swing_milli=(load.high - load.low) // 2,
        period_ns=load.period,
        peak_ns=load.peak,
        timeout_ns=timeout_ns,
        slo_ns=0 if slo is None else slo.latency,
        late_permille=10 if slo is None else round(1000 - 10 * slo.share),
    )
