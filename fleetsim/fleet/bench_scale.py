# SPDX-License-Identifier: Apache-2.0
"""`fleetsim bench scale`: fleets of growing size on whatever there is, and what would be the first thing to run out.

For each size the real controller runs the fleet of `scale_fleet.py`; before that one worker alone (the local engine with one thread) runs
as many hosts as each worker will have, at most ALONE_HOSTS. Efficiency is the speed of all workers by their number, over that one's.

How many hosts each resource keeps in real time, in proportion to what was measured, and the least of them is the first bottleneck:

    cores    workers × simulated time / wall time for which a worker is busy, blocks of samples not counted
    disk     … / wall time for which a worker writes blocks of samples
    driver   simulated time / processor time of the controller's thread
    memory   what is free / what a host takes (in this process too, where that is the same machine)

Rules: a size that does not fit is said and skipped, before anything of it is made. Whatever ends this, no process and no file is left.
Limits: proportion is a model; docs/scaling.md says where it was checked with stand-ins for the actors.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from fleetsim.errors import BadInput
from fleetsim.fleet.hosts_actor import resident_bytes
from fleetsim.fleet.local import LocalEngine
from fleetsim.fleet.room import available_here, check_fits
from fleetsim.fleet.scale_fleet import NAME, NEEDED, containers, scale_plan
from fleetsim.fleet.scale_meter import WARM_UP_S, Measured, measure
from fleetsim.fleet.scale_report import Resources, Row, ScaleBench, Skipped
from fleetsim.observe.catalog import Profile, profile

if TYPE_CHECKING:
    from fleetsim.fleet.ray_cluster import RayCluster

HOSTS = (100, 1000, 10_000)
ALONE_HOSTS = 1000
HOST_SECONDS = 60_000
"""Simulated in the window, where that is no less than MEASURED_S and no more than MEASURED_MOST_S of each host."""
MEASURED_S, MEASURED_MOST_S = 60, 600
Progress = Callable[[str, float], None]


def run_bench_scale(
    progress: Progress, sizes: Sequence[int] = HOSTS, ray: str | None = None, seconds: int | None = None, metrics: str = "rules"
) -> ScaleBench:
    """`ray`: as `fleetsim run --ray`; None: this process, all cores. `seconds`: simulated time of each run."""
    chosen = profile(metrics, NEEDED if metrics == "rules" else ())
    rows: list[Row | Skipped] = []
    where = "this process"
    for number, hosts in enumerate(sizes):

        def show(stage: str, share: float, detail: str = "", *, number: int = number, hosts: int = hosts) -> None:
            progress(f"{hosts:,} hosts: {stage}", (number + share) / len(sizes))

        duration_s = seconds or WARM_UP_S + max(MEASURED_S, min(MEASURED_MOST_S, HOST_SECONDS // hosts))
        try:
            row, where = _on_ray(hosts, duration_s, chosen, ray, show) if ray is not None else _here(hosts, duration_s, chosen, show)
            rows.append(row)
        except DoesNotFit as error:
            rows.append(Skipped(hosts, str(error)))
    if all(isinstance(row, Skipped) for row in rows):
        raise BadInput("; ".join(row.why for row in rows if isinstance(row, Skipped)))
    return ScaleBench(where, containers(), chosen.name, tuple(rows))


class DoesNotFit(Exception):
    """What `room.py` says of a size."""


def _here(hosts: int, duration_s: int, chosen: Profile, show: Callable[..., None]) -> tuple[Row, str]:
    threads = len(os.sched_getaffinity(0))
    memory = available_here()
    _fits(lambda: check_fits(NAME, hosts, 1, memory, "this machine"))
    alone = _alone(hosts, threads, duration_s, chosen, show)
    rss_before = resident_bytes()
    measured = measure(
        scale_plan(hosts, duration_s), chosen, lambda kept, writer, number: LocalEngine(kept, writer, threads), threads, show, rss_before
    )
    return Row(measured, alone, Resources(memory, own_memory=True)), f"this process, {threads} threads"


def _on_ray(hosts: int, duration_s: int, chosen: Profile, address: str, show: Callable[..., None]) -> tuple[Row, str]:
    from fleetsim.fleet.ray_cluster import RayCluster
    from fleetsim.fleet.ray_engine import RayEngine

    cluster: RayCluster = RayCluster(address)
    try:
        _fits(lambda: cluster.check_fits(NAME, hosts, None))
        where, memory, ours = cluster.describe(), cluster.memory() or None, cluster.is_own
        actors = cluster.actors_for(hosts, None)
        alone = _alone(hosts, actors, duration_s, chosen, show)
        rss_before = resident_bytes()
        plan = scale_plan(hosts, duration_s)
        measured = measure(
            plan, chosen, lambda kept, writer, number: RayEngine(kept, writer, number, cluster, None), actors, show, rss_before
        )
        return Row(measured, alone, Resources(memory, own_memory=ours)), f"Ray, {where}, {actors} actors"
    finally:
        cluster.leave()


def _fits(check: Callable[[], None]) -> None:
    try:
        check()
    except BadInput as error:
        raise DoesNotFit(error.sentence) from None


def _alone(hosts: int, workers: int, duration_s: int, chosen: Profile, show: Callable[..., None]) -> Measured:
    """One thread of the local engine, with as many hosts as each of the workers will have."""
    warm(chosen)
    plan = scale_plan(max(1, min(ALONE_HOSTS, hosts // workers)), duration_s)
    try:
        return measure(
            plan,
            chosen,
            lambda kept, writer, number: LocalEngine(kept, writer, 1),
            1,
            lambda stage, share, detail="": show(f"one worker alone, {stage}", share / 10),
            0,
        )
    finally:
        give_back()


def warm(chosen: Profile) -> None:
    """Whatever is compiled or loaded at first use is there before anything is measured."""
    plan = scale_plan(2, 2 * WARM_UP_S)
    measure(plan, chosen, lambda kept, writer, number: LocalEngine(kept, writer, 1), 1, lambda stage, share, detail="": None, 0)


def give_back() -> None:
    """What was freed goes back to the machine, so that the next one's growth is its own."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
