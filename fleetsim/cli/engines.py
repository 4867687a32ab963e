# SPDX-License-Identifier: Apache-2.0
"""Which engine a run uses, as the command line says it: this process, or the machines of a Ray cluster.

Rules: whether the fleet fits is worked out before anything is written. Ray is imported only if it is asked for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from fleetsim.errors import BadInput

if TYPE_CHECKING:
    from fleetsim.fleet.controller import EngineMaker
    from fleetsim.fleet.plan import Plan

Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        help="Simulate on a Ray cluster: HOST:PORT of its head, auto (the one that is there, else as local), or local (one for this run).",
        metavar="auto|local|ADDRESS",
    ),
]
HostsPerActor = Annotated[
    str, typer.Option("--hosts-per-actor", help="With --ray: hosts in each actor (default: an actor for each free CPU).", metavar="N|auto")
]


@contextmanager
def engine_for(plan: Plan, ray: str | None, hosts_per_actor: str, threads: int | None) -> Iterator[EngineMaker]:
    """Makes the engine of a run; afterwards nothing is left of what was started for it."""
    each = _number(hosts_per_actor)
    if ray is None:
        if each is not None:
            raise BadInput("--hosts-per-actor goes with --ray; without it all hosts are in this process")
        from fleetsim.fleet.local import LocalEngine
        from fleetsim.fleet.room import available_here, check_room

        check_room(plan, 1, available_here(), "this machine")
        yield lambda profile, writer, number: LocalEngine(profile, writer, threads)
        return
    needs_ray("--ray")
    from fleetsim.fleet.ray_cluster import RayCluster
    from fleetsim.fleet.ray_engine import RayEngine

    cluster = RayCluster(ray, threads)
    try:
        cluster.check_room(plan, each)
        yield lambda profile, writer, number: RayEngine(profile, writer, number, cluster, each)
    finally:
        cluster.leave()


def needs_ray(option: str) -> None:
    if importlib.util.find_spec("ray") is None:
        raise BadInput(f"{option} needs Ray, which is not installed here: pip install 'ray[default]'")


def _number(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or not 0 < int(text) < 1 << 31:
        raise BadInput(f"--hosts-per-actor is {text!r}; write a number of hosts, such as 100, or auto")
    return int(text)
