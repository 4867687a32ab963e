# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of scenario files, put together from the models that read them.

A pod entry is one of the workloads (its `workload` is a constant, its arguments stand beside it), a timeline entry one of the
faults: so an editor completes the right keys.
Leaves out: what needs more than one entry to judge (limits above the host, targets).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from fleetsim.containers.workload import WORKLOADS
from fleetsim.faults.base import FAULTS
from fleetsim.fleet.models import ExpectKeys, HostKeys, ScenarioKeys, TimelineKeys
from fleetsim.fleet.pod_models import ContainerKeys, DeploymentKeys, PodKeys, PodOfContainersKeys
from fleetsim.fleet.scenario import load_plugins
from fleetsim.fleet.targets import FORMS


def scenario_schema() -> dict[str, Any]:
    load_plugins()
    definitions: dict[str, Any] = {}
    pods = [_joined(PodKeys, WORKLOADS[name], "workload", name, definitions) for name in WORKLOADS]
    several = _schema(PodOfContainersKeys, definitions)
    several["properties"]["containers"]["items"] = {
        "oneOf": [_joined(ContainerKeys, WORKLOADS[name], "workload", name, definitions) for name in WORKLOADS]
    }
    faults = [_joined(TimelineKeys, FAULTS[name], "fault", name, definitions) for name in FAULTS]
    host = _schema(HostKeys, definitions)
    host["properties"]["pods"]["items"] = {"oneOf": [*pods, several]}
    deployment = _schema(DeploymentKeys, definitions)["properties"]
    host["properties"]["deployments"]["items"] = {
        "oneOf": [
            {**pod, "properties": {**pod["properties"], **deployment}, "required": [*pod["required"], "replicas"]}
            for pod in (*pods, several)
        ]
    }
    expect = _schema(ExpectKeys, definitions)
    expect["properties"]["on"]["description"] += f"; {FORMS}"
    expect["oneOf"] = [{"required": [kind]} for kind in ("impact", "alert", "silent", "false_alarm")]
    scenario = _schema(ScenarioKeys, definitions)
    for key, items in (("fleet", host), ("timeline", {"oneOf": faults}), ("expect", expect)):
        scenario["properties"][key]["items"] = items
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "fleetsim scenario, format 1"}
    return {**head, **scenario, "$defs": definitions}


def _joined(own: type[BaseModel], further: type[BaseModel], key: str, name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """An entry whose keys come from two models; the second one is chosen by `key: name`."""
    first, second = _schema(own, definitions), _schema(further, definitions)
    properties: Mapping[str, Any] = {**first["properties"], key: {"const": name}, **second.get("properties", {})}
    return {
        "title": f"{key}: {name}",
        "description": second.get("description", ""),
        "type": "object",
        "properties": properties,
        "required": [*first.get("required", []), *second.get("required", [])],
        "additionalProperties": False,
    }


def _schema(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True)
    definitions.update(schema.pop("$defs", {}))
    return schema
