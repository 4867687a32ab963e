# SPDX-License-Identifier: Apache-2.0
"""Reads what `promtool test rules` (2.42) prints when an expectation fails: the only way it tells what it got.

    alertname: NAME, time: 4m,                          expr: "ALERTS", time: 1m,
        exp:[],                                             exp: nil
        got:[                                               got: {alertname="NAME", alertstate="firing"} 1E+00, {…} …
            0:
              Labels:{alertname="NAME", instance="a"}
              Annotations:{summary="a is \\"sick\\""}
            ]

Strings are Go-quoted. Anything that does not read as expected raises: a silent misreading would be a wrong verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fleetsim.errors import ToolFailed

Labels = dict[str, str]

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PAIR = re.compile(rf"([A-Za-z_][A-Za-z0-9_]*)=({_QUOTED})(?:, )?")
_ALERT_HEAD = re.compile(r"alertname: (.*), time: ([^,\s]+),\s*")
_EXPR_HEAD = re.compile(rf"expr: ({_QUOTED}), time: ([^,\s]+),\s*")
_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?")
_DURATION_MS = (31_536_000_000, 604_800_000, 86_400_000, 3_600_000, 60_000, 1_000, 1)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|([0-7]{3})|(.))", re.DOTALL)


@dataclass(frozen=True)
class Alert:
    name: str
    time_ms: int
    labels: Labels
    annotations: Labels


@dataclass(frozen=True)
class Sample:
    expr: str
    time_ms: int
    labels: Labels
    value: float


def unquote(text: str) -> str:
    """A Go string literal in double quotes."""

    def plain(match: re.Match[str]) -> str:
        byte, short, long, octal, simple = match.groups()
        if byte or octal:  # a byte that is not UTF-8 by itself; Prometheus' own strings are, so this is a control code
            return chr(int(byte, 16) if byte else int(octal, 8))
        return chr(int(short or long, 16)) if short or long else _SIMPLE[simple]

    return _ESCAPE.sub(plain, text[1:-1])


def duration_ms(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ToolFailed(f"promtool printed a duration that cannot be read: {text!r}")
    return sum(int(part or 0) * unit for part, unit in zip(match.groups(), _DURATION_MS, strict=True))


def parse_labels(text: str) -> Labels:
    """`{a="b", c="d"}`, as Prometheus prints a label set; a leading metric name becomes `__name__`."""
    name, _, inner = text.partition("{")
    found: Labels = {"__name__": name} if name else {}
    position = 0
    inner = inner.removesuffix("}")
    while position < len(inner):
        match = _PAIR.match(inner, position)
        if match is None:
            raise ToolFailed(f"promtool printed labels that cannot be read: {text[:300]!r}")
        found[match.group(1)] = unquote(match.group(2))
        position = match.end()
    return found


_SAMPLE = re.compile(rf"([A-Za-z_:][A-Za-z0-9_:]*)?(\{{(?:[^{{}}\"]|{_QUOTED})*\}}) ([^\s,]+)(?:, |$)")


def parse(output: str) -> Iterator[Alert | Sample]:
    """Everything promtool says it got, in the order printed."""
    head: re.Match[str] | None = None
    kind = ""
    labels: Labels = {}
    for raw in output.split("\n"):
        line = raw.strip()
        if (found := _ALERT_HEAD.fullmatch(line)) or (found := _EXPR_HEAD.fullmatch(line)):
            head, kind = found, "alert" if line.startswith("alertname") else "expr"
        elif head is None:
            continue
        elif kind == "alert" and line.startswith("Labels:"):
            labels = parse_labels(line.removeprefix("Labels:"))
        elif kind == "alert" and line.startswith("Annotations:"):
            annotations = parse_labels(line.removeprefix("Annotations:").removesuffix(","))
            yield Alert(head.group(1), duration_ms(head.group(2)), labels, annotations)
        elif kind == "expr" and line.startswith("got: ") and line != "got: nil":
            yield from _samples(line.removeprefix("got: "), unquote(head.group(1)), duration_ms(head.group(2)))


def _samples(text: str, expr: str, time_ms: int) -> Iterator[Sample]:
    position = 0
    while position < len(text):
        match = _SAMPLE.match(text, position)
        if match is None:
            raise ToolFailed(f"promtool printed samples that cannot be read: {text[position : position + 300]!r}")
        name = {"__name__": match.group(1)} if match.group(1) else {}
        yield Sample(expr, time_ms, {**name, **parse_labels(match.group(2))}, float(match.group(3)))
        position = match.end()
