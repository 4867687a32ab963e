# SPDX-License-Identifier: Apache-2.0
"""`fleetsim list`: what there is. Tables for people, JSON lists for programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fleetsim.cli.options import Json, Seed
from fleetsim.cli.output import console, invocation
from fleetsim.errors import EXIT_OK, BadInput

SCENARIOS_FOLDER = Path("chaos_scenarios")


class What(StrEnum):
    scenarios = "scenarios"
    faults = "faults"
    workloads = "workloads"
    metrics = "metrics"
    hosts = "hosts"


def list_(
    what: Annotated[What, typer.Argument(help="What to list.")],
    of: Annotated[
        Path | None, typer.Argument(help="hosts: the scenario file. scenarios: the folder (default chaos_scenarios).", metavar="[SCENARIO]")
    ] = None,
    seed: Seed = None,
    json: Json = False,
) -> int:
    """List scenarios, faults, workloads, metrics, or the hosts of a SCENARIO and what will hit them."""
    if of is not None and what not in (What.hosts, What.scenarios):
        raise BadInput(f"'fleetsim list {what.value}' takes no file; leave out {str(of)!r}")
    if what is What.hosts:
        if of is None:
            raise BadInput("'fleetsim list hosts' needs a scenario file, such as chaos_scenarios/leak-one-container.yaml")
        rows = _hosts(of, seed)
    elif what is What.scenarios:
        rows = _scenarios(of or SCENARIOS_FOLDER)
    elif what is What.metrics:
        rows = _metrics()
    else:
        rows = _plugins(what)
    if json:
        invocation.print_json(rows)
    else:
        _table(what.value, rows)
    return EXIT_OK


def _metrics() -> list[dict[str, Any]]:
    from fleetsim.observe.catalog import describe

    return describe()


def _plugins(what: What) -> list[dict[str, Any]]:
    from fleetsim.containers.plugin import origin_of
    from fleetsim.containers.workload import WORKLOADS
    from fleetsim.faults.base import FAULTS
    from fleetsim.fleet.scenario import load_plugins

    load_plugins()
    if what is What.faults:
        return [{"name": name, "help": _first(FAULTS[name]), "harm": FAULTS[name].harm, "keys": _keys(FAULTS[name])} for name in FAULTS]
    return [
        {"name": name, "from": origin_of(WORKLOADS[name]), "help": _first(WORKLOADS[name]), "keys": _keys(WORKLOADS[name])}
        for name in WORKLOADS
    ]


def _first(model: type) -> str:
    return " ".join((model.__doc__ or "").split())


def _keys(model: Any) -> dict[str, str]:
    return {
        field.alias or name: (field.description or "") + (" (required)" if field.is_required() else "")
        for name, field in model.model_fields.items()
    }


def _scenarios(folder: Path) -> list[dict[str, Any]]:
    from fleetsim.fleet.scenario import load_scenario
    from fleetsim.units import show_duration

    if not folder.is_dir():
        raise BadInput("there is no such folder of scenarios; name one", file=folder)
    rows = []
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        scenario = load_scenario(file)
        rows.append(
            {
                "name": scenario.name,
                "summary": scenario.keys.summary,
                "hosts": sum(group.keys.hosts for group in scenario.groups),
                "duration": show_duration(scenario.keys.duration),
                "file": str(file),
            }
        )
    return rows


def _hosts(file: Path, seed: int | None) -> list[dict[str, Any]]:
    from fleetsim.fleet.hosts import pod_names
    from fleetsim.fleet.plan import make_plan
    from fleetsim.fleet.scenario import load_scenario
    from fleetsim.units import show_bytes

    plan = make_plan(load_scenario(file), seed)
    invocation.seeds[plan.scenario.name] = plan.seed
    hit: dict[str, list[str]] = {}
    for fault in plan.faults:
        for target in fault.targets:
            hit.setdefault(target.host, []).append(f"{fault.kind}@{target.pod}" if target.pod else fault.kind)
    group_of = {host: group for group in plan.scenario.groups for host in group.host_names}
    return [
        {
            "name": spec.name,
            "group": group_of[spec.name].keys.name,
            "memory": show_bytes(spec.memory_bytes),
            "swap": show_bytes(spec.swap_bytes),
            "cpus": spec.cpus,
            "pods": pod_names(spec),
            "faults": hit.get(spec.name, []),
        }
        for spec in plan.hosts
    ]


def _table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    page = console()
    if not rows:
        page.print(f"no {title}")
        return
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    page.print(table)


def _cell(value: Any) -> str:
    from rich.markup import escape

    if isinstance(value, dict):
        return escape("\n".join(f"{key}: {text}" for key, text in value.items()))
    if isinstance(value, list):
        return escape(", ".join(map(str, value)))
    return "" if value is None else escape(str(value))
