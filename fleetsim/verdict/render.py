# SPDX-License-Identifier: Apache-2.0
"""Templates of labels and annotations, rendered by the real promtool.

Each request becomes one sample of a generated unit test whose alert carries the templates as annotations; promtool
prints what it rendered. `$labels` and `$value` are therefore exactly what a live server would have seen.
Leaves out: `{{ query "…" }}` inside a template finds no data here (promtool's own words then stand in the result);
`$externalLabels` and `$externalURL` are empty.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fleetsim.errors import ToolFailed
from fleetsim.verdict.prometheus import run_promtool
from fleetsim.verdict.promtool_output import Alert, parse

STEP_S = 60


def is_template(text: str) -> bool:
    return "{{" in text


def uses_value(text: str) -> bool:
    """Whether the rendering depends on more than the labels."""
    return re.search(r"\$value|\.Value|\bquery\b|\$\s|\{\{\s*\.\s", text) is not None


@dataclass(frozen=True)
class Request:
    """`templates` by annotation name; `metric`: labels of the result element (may have `__name__`); `value` as text."""

    templates: tuple[tuple[str, str], ...]
    metric: tuple[tuple[str, str], ...]
    value: str

    @staticmethod
    def of(templates: Mapping[str, str], metric: Mapping[str, str], value: float) -> Request:
        return Request(tuple(sorted(templates.items())), tuple(sorted(metric.items())), number(value))


def number(value: float) -> str:
    """A sample value as promtool's series notation reads it back bit by bit."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Inf" if value > 0 else "-Inf"
    return repr(float(value))


def series_text(metric: Mapping[str, str]) -> str:
    """`name{a="b"}` in promtool's notation."""
    pairs = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sorted(metric.items()) if name != "__name__")
    return f"{metric.get('__name__', '')}{{{pairs}}}"


def render(requests: Sequence[Request]) -> dict[Request, dict[str, str]]:
    """What each request's templates say. Equal requests are rendered once."""
    distinct = list(dict.fromkeys(requests))
    static = {request: dict(request.templates) for request in distinct if not any(is_template(text) for _, text in request.templates)}
    wanted = [request for request in distinct if request not in static]
    return {**static, **(_ask_promtool(wanted) if wanted else {})}


def _ask_promtool(wanted: Sequence[Request]) -> dict[Request, dict[str, str]]:
    # One test per kind of request: tests share no data, so metrics of the same name cannot meet.
    kinds: dict[tuple[tuple[tuple[str, str], ...], str], list[Request]] = {}
    for request in wanted:
        kinds.setdefault((request.templates, dict(request.metric).get("__name__", "")), []).append(request)
    rules, tests = [], []
    place: dict[tuple[str, int], Request] = {}
    for n, ((templates, name), members) in enumerate(kinds.items()):
        alert = f"r{n}"
        # `* 1` drops the metric's name: an element without a name must not be given one
        rules.append({"alert": alert, "expr": name or "fleetsim_element * 1", "annotations": dict(templates)})
        tests.append(_test(alert, name or "fleetsim_element", members))
        place |= {(alert, k * STEP_S * 1000): request for k, request in enumerate(members)}
    with tempfile.TemporaryDirectory(prefix="fleetsim-render-") as folder:
        write_yaml(Path(folder, "rules.yml"), {"groups": [{"name": "render", "rules": rules}]})
        write_yaml(Path(folder, "test.yml"), {"rule_files": ["rules.yml"], "evaluation_interval": f"{STEP_S}s", "tests": tests})
        result = run_promtool(["test", "rules", f"{folder}/test.yml"])
    rendered = {
        place[alert.name, alert.time_ms]: alert.annotations
        for alert in parse(result.stdout + "\n" + result.stderr)
        if isinstance(alert, Alert)
    }
    if len(rendered) != len(wanted):
        raise ToolFailed(f"promtool rendered {len(rendered)} of {len(wanted)} alerts: {result.stderr.strip()[:300]}")
    return rendered


def _test(alert: str, metric: str, members: Sequence[Request]) -> dict[str, Any]:
    """Request k is alone at minute k."""
    values: dict[str, list[tuple[int, str]]] = {}
    for k, request in enumerate(members):
        values.setdefault(series_text({**dict(request.metric), "__name__": metric}), []).append((k, request.value))
    return {
        "interval": f"{STEP_S}s",
        "input_series": [{"series": text, "values": values_text(points)} for text, points in values.items()],
        "alert_rule_test": [{"eval_time": f"{k * STEP_S}s", "alertname": alert, "exp_alerts": []} for k in range(len(members))],
    }


def values_text(points: Sequence[tuple[int, str]]) -> str:
    """promtool's series notation of values at these (ascending) steps, each followed by a staleness marker if alone."""
    out: list[str] = []
    filled = 0
    taken = {k for k, _ in points}
    for k, value in points:
        if k > filled:
            out.append(f"_x{k - filled}" if k - filled > 1 else "_")
        out.append(value)
        filled = k + 1
        if k + 1 not in taken:
            out.append("stale")
            filled += 1
    return " ".join(out)


def write_yaml(path: Path, content: object) -> None:
    path.write_text(yaml.dump(content, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=10_000), encoding="utf-8")


_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
