# SPDX-License-Identifier: Apache-2.0
"""A story is a chain of events in order. `told(run)` is the history as short lines, `chain` checks that lines follow one another.

story = Story.of("lost-replica-cascades", tmp_path)          simulated, not judged
story.chain("fault_start", "killed shop-0/checkout", ...)    each is found after the one before it
story.first("errors service checkout").seconds
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fleetsim.fleet.controller import run_scenario

FOLDER = Path(__file__).resolve().parents[2] / "chaos_scenarios"


@dataclass(frozen=True)
class Line:
    """One event: what it is called here, when it was, and all of it."""

    text: str
    seconds: float
    event: dict[str, Any]


def line(event: dict[str, Any]) -> Line:
    """`KIND WHO`, an impact as `KIND start WHO`; WHO is `host/subject`, or `service NAME`."""
    data = event["data"]
    who = (
        f"{event['host']}/{event['subject']}" if event["host"] else f"service {event['subject']}" if "service" in data else event["subject"]
    )
    kind = event["kind"]
    if kind in ("impact_start", "impact_end"):
        kind = f"{data['impact']} {kind.removeprefix('impact_')}"
    return Line(f"{kind} {who}", event["t_ns"] / 1e9, event)


@dataclass(frozen=True)
class Story:
    lines: tuple[Line, ...]

    @classmethod
    def of(cls, name: str, folder: Path, *, without_faults: bool = False, **changes: Any) -> Story:
        """Simulate a scenario of the project; `changes` replace keys of the file."""
        source = FOLDER / f"{name}.yaml"
        if without_faults or changes:
            data = yaml.safe_load(source.read_text()) | changes
            if without_faults:
                data |= {"timeline": [], "expect": []}
            source = folder / f"{name}-changed.yaml"
            data.pop("rules", None)
            source.write_text(yaml.safe_dump(data))
        out = folder / source.stem
        run_scenario(source, out, metric_profile="rules")
        events = [json.loads(text) for text in (out / "history.jsonl").read_text().splitlines()]
        return cls(tuple(line(event) for event in events if event["kind"] not in ("boot", "command", "pod_ready", "pod_unready")))

    def chain(self, *patterns: str) -> list[Line]:
        """Each pattern (a regular expression) matches a line after the one before it; AssertionError says which did not."""
        found: list[Line] = []
        rest = list(self.lines)
        for pattern in patterns:
            at = next((k for k, one in enumerate(rest) if re.search(pattern, one.text)), None)
            assert at is not None, f"no {pattern!r} after {[one.text for one in found]}; then came {[one.text for one in rest[:30]]}"
            found.append(rest[at])
            rest = rest[at + 1 :]
        return found

    def first(self, pattern: str) -> Line:
        return self.chain(pattern)[0]

    def all(self, pattern: str) -> list[Line]:
        return [one for one in self.lines if re.search(pattern, one.text)]
