# SPDX-License-Identifier: Apache-2.0
"""Seeds fanned out over a Ray cluster: an actor for each free CPU, each with one run after the other.

Rules: an actor that dies begins anew and its seed is run again from the beginning, in an empty folder; which actor has which seed changes
nothing. Run directories are written by the actors, so that a cluster of several machines needs a folder that all of them see.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import ray

from fleetsim.errors import ToolFailed
from fleetsim.fleet.ensemble import SeedResult, SeedRun
from fleetsim.fleet.ray_cluster import RayCluster, one_line


class Runner:
    """What an actor does."""

    def run(self, job: SeedRun) -> SeedResult:
        shutil.rmtree(job.out, ignore_errors=True)  # left over by one that died
        return job()


def fan_out_on(cluster: RayCluster, jobs: Sequence[SeedRun], at_once: int | None = None) -> Iterator[SeedResult]:
    """All jobs, as they are done; no more than `at_once` beside each other, for the sake of memory."""
    count = min(cluster.actors_for(len(jobs), None), at_once or len(jobs))
    remote: Any = ray.remote(num_cpus=1)(Runner)
    actors = [remote.options(**cluster.actor_options(f"seeds-{number}")).remote() for number in range(count)]
    waiting, free, running = list(jobs), list(actors), dict[Any, Any]()
    try:
        while waiting or running:
            while waiting and free:
                actor = free.pop()
                running[actor.run.remote(waiting.pop(0))] = actor
            (done,), _ = ray.wait(list(running), num_returns=1)
            free.append(running.pop(done))
            yield ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(getattr(error, "cause", None), Exception) else ToolFailed(one_line(error)) from None
    except ray.exceptions.RayActorError as error:
        raise ToolFailed(f"an actor that runs seeds is lost: {one_line(error)}") from None
    finally:
        for actor in actors:
            ray.kill(actor)
