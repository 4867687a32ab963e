# SPDX-License-Identifier: Apache-2.0
"""`fleetsim pods`: the containers of a simulated host at some instant, as kubectl, docker inspect or systemctl would show them."""

from __future__ import annotations

import json as json_text
from typing import Annotated, Any

import typer

from fleetsim.cli.look import At, Host, Scenario, host_of
from fleetsim.cli.options import Json, Seed
from fleetsim.cli.output import invocation
from fleetsim.errors import EXIT_OK, BadInput


def pods(
    scenario: Scenario,
    host: Host,
    names: Annotated[list[str] | None, typer.Argument(help="Only these, in full.", metavar="NAME...")] = None,
    at: At = "1m",
    seed: Seed = None,
    json: Json = False,
) -> int:
    """Run HOST of SCENARIO up to TIME and show its pods; with NAMEs what `kubectl describe`, `docker inspect` or `systemctl show` tell."""
    from fleetsim.containers.inspect import pods_table
    from fleetsim.host.kubelet_types import RUNTIMES

    shard = host_of(scenario, host, at, seed)
    row, known = shard.records[0], shard.names_of(0)
    unknown = [name for name in names or [] if name not in known.pods]
    if unknown:
        raise BadInput(f"{host} has no pod {unknown[0]!r} at {at}; it has: {', '.join(sorted(known.pods)) or 'none'}")
    runtime = RUNTIMES[int(row["kubelet"]["runtime"])]
    table = pods_table(row, known)
    full = [_in_full(row, known, name, runtime, table) for name in names or []]
    if json:
        invocation.print_json({"host": host, "at": at, "runtime": runtime, "pods": full or table})
    elif full:
        print(_properties(full) if runtime == "systemd" else json_text.dumps(full, indent=4))
    else:
        print(_columns(table))
    return EXIT_OK


def _in_full(row: Any, known: Any, name: str, runtime: str, table: list[dict[str, Any]]) -> dict[str, Any]:
    from fleetsim.containers.inspect import docker_inspect, seconds, systemctl_show

    if runtime == "docker":
        return docker_inspect(row, known, name, seconds)
    if runtime == "systemd":
        return dict(systemctl_show(row, known, name))
    return next(entry for entry in table if entry["name"] == name)


def _properties(units: list[dict[str, Any]]) -> str:
    return "\n\n".join("\n".join(f"{key}={value}" for key, value in unit.items()) for unit in units)


def _columns(table: list[dict[str, Any]]) -> str:
    head = ("NAME", "READY", "STATUS", "RESTARTS", "QOS", "MEMORY", "REQUEST")
    rows = [head]
    for entry in table:
        memory, request = (f"{entry[key] >> 20}Mi" for key in ("memory_bytes", "request_bytes"))
        rows.append((entry["name"], entry["ready"], entry["status"], str(entry["restarts"]), entry["qos"].capitalize(), memory, request))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
