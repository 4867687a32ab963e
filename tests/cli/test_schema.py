# SPDX-License-Identifier: Apache-2.0
"""The published JSON Schema and the reader agree on what a scenario is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleetsim.cli.main import execute
from fleetsim.fleet.yaml_source import read_yaml

jsonschema = pytest.importorskip("jsonschema")
SCENARIOS = sorted((Path(__file__).resolve().parents[2] / "chaos_scenarios").glob("*.yaml"))
LEAK = next(path for path in SCENARIOS if path.stem == "leak-one-container")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    from fleetsim.fleet.schema import scenario_schema

    found = scenario_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def test_the_verb_prints_it(capsys: pytest.CaptureFixture[str], schema: dict[str, Any]) -> None:
    assert execute(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_every_scenario_here_obeys_it(file: Path, schema: dict[str, Any]) -> None:
    jsonschema.validate(read_yaml(file).data, schema)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("sead",), 7),
        (("duration",), 30),
        (("fleet", 0, "memory"), "4GB"),
        (("fleet", 0, "pods", 0, "workload"), "skript"),
        (("fleet", 0, "pods", 0, "limit"), "1GiB"),
        (("timeline", 0, "fault"), "sadness"),
        (("timeline", 0, "rate"), "4MiB"),
        (("timeline", 0, "speed"), "4MiB/s"),
        (("expect", 0, "impact"), "sad"),
        (("expect", 0, "silent"), "X"),
    ],
)
def test_what_the_reader_refuses_the_editor_marks(place: tuple[str | int, ...], value: object, schema: dict[str, Any]) -> None:
    data = read_yaml(LEAK).data
    *way, last = place
    inner: Any = data
    for step in way:
        inner = inner[step]
    inner[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema)
