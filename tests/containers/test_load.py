# SPDX-License-Identifier: Apache-2.0
"""Loads as people write them: rates with their unit, days with a peak, recordings; what is wrong is told with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetsim.containers.load import Load, rate_milli, read_steps
from fleetsim.errors import BadInput
from fleetsim.fleet.plan import make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.fleet.services import load_at
from fleetsim.units import NS_PER_S

H = 3600 * NS_PER_S
SCENARIO = """
summary: s
duration: 10m
fleet:
  - hosts: 2
    name: shop
    memory: 4GiB
    pods:
      - {{name: checkout, workload: web, {pod}}}
services: [{service}]
"""


def scenario(folder: Path, pod: str = "queue: 10", service: str = "") -> Path:
    path = folder / "s.yaml"
    path.write_text(SCENARIO.format(pod=pod, service=service))
    return path


@pytest.mark.parametrize(("text", "milli"), [("200/s", 200_000), ("0.5/s", 500), ("90/m", 1500), ("0/s", 0)])
def test_a_rate_has_its_unit(text: str, milli: int) -> None:
    assert rate_milli(text) == milli


@pytest.mark.parametrize("wrong", ["200", 200, "200/h", "-1/s", "1e3/s", "2000000/s", None])
def test_what_is_no_rate_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"requests per second or minute|at most"):
        rate_milli(wrong)


def test_a_day_has_its_peak_at_the_hour_that_it_says() -> None:
    load = Load.model_validate({"low": "50/s", "high": "150/s", "peak": "14h"})
    assert load_at(load, 14 * H, 0) == pytest.approx(150_000, rel=0.01)
    assert load_at(load, 2 * H, 0) == pytest.approx(50_000, rel=0.01)
    assert load_at(load, 0, 14 * H) == pytest.approx(150_000, rel=0.01), "counted from the clock on the wall"


def test_a_recording_holds_until_its_next_line(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("seconds,rate\n# Friday\n0,100\n60,250.5\n300, 10\n")
    assert read_steps(tmp_path / "f.csv") == ((0, 100_000), (60 * NS_PER_S, 250_500), (300 * NS_PER_S, 10_000))
    plan = make_plan(load_scenario(scenario(tmp_path, "load: {replay: f.csv}")))
    assert [(c.t_ns // NS_PER_S, c.args["rate_milli"]) for c in plan.commands() if c.host == "shop-0"] == [
        (0, 100_000),
        (60, 250_500),
        (300, 10_000),
    ]
    served = make_plan(load_scenario(scenario(tmp_path, service="{name: c, pods: checkout, load: {replay: f.csv}}"))).services[0]
    assert [load_at(served.load, t * NS_PER_S, 0) for t in (59, 60, 1000)] == [100_000, 250_500, 10_000]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("0,100\n60,much\n", "f.csv:2 is '60,much'; write seconds and requests per second, such as 600,120.5"),
        ("0,100\n0,200\n", "f.csv:2 is not later than the line before it; sort the lines by time"),
        ("seconds,rate\n", "f.csv has no line; write seconds and requests per second, such as 0,100"),
        (None, "name a CSV file beside the scenario"),
    ],
)
def test_a_recording_that_is_none_is_told_with_file_and_line(tmp_path: Path, lines: str | None, told: str) -> None:
    if lines is not None:
        (tmp_path / "f.csv").write_text(lines)
    with pytest.raises(BadInput) as error:
        load_scenario(scenario(tmp_path, "load: {replay: f.csv}"))
    assert told in str(error.value)
    assert "s.yaml:9" in str(error.value)


@pytest.mark.parametrize(
    ("pod", "service", "told"),
    [
        ("load: 10/s", "{name: c, pods: checkout, load: 5/s}", "pod 'checkout' of service 'c' has a load of its own; take that out"),
        ("queue: 1", "{name: c, pods: shop, load: 5/s}", "'shop' is not a pod; name one, such as checkout"),
        ("queue: 1", "{name: c, pods: chekout, load: 5/s}", "did you mean 'checkout'"),
        ("load: {low: 5/s, high: 4/s}", "", "'low' is above 'high'"),
        ("load: {replay: f.csv, low: 5/s}", "", "'replay' says it all; take 'low' out"),
    ],
)
def test_a_service_that_cannot_be_is_refused(tmp_path: Path, pod: str, service: str, told: str) -> None:
    with pytest.raises(BadInput) as error:
        make_plan(load_scenario(scenario(tmp_path, pod, service)))
    assert told in str(error.value)
