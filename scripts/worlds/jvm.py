# SPDX-License-Identifier: Apache-2.0
"""A small host with one JVM in a container, drawn from a scenario's own words, and what the JVM knows of itself.

jvm = a_jvm({"xmx": "256MiB", "live_set": "64MiB", "load": "50/s"}, limit_mib=512)
jvm.at(20.0); jvm["OLD_LIVE"]; jvm.rss_mib()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetsim.containers.jvm import Jvm
from fleetsim.containers.workload import Room
from fleetsim.host.shard import Shard
from fleetsim.host.spec import CgroupSpec, DiskSpec, HostSpec, TaskSpec
from fleetsim.linux import mm_types as mm
from fleetsim.workloads import jvm_state
from scripts.worlds.host import MIB, PAGES, World

FULL_AFTER_S = 4  # of load comes the recordings' System.gc()
SSD = DiskSpec(bytes_per_s=500_000_000, latency_us=100.0)


class JvmWorld(World):
    """A world whose first row of works is a JVM."""

    YOUNG, MIXED, FULL, REMARK = range(4)

    def __getitem__(self, slot: str) -> int:
        return int(self.row["works"][0]["slots"][getattr(jvm_state, slot)])

    @property
    def server(self) -> Any:
        return self.row["works"][0]["server"]

    def count(self, *kinds: int) -> int:
        """Pauses of some kinds (of PAUSES) so far; with none, all."""
        counts = self.row["works"][0]["slots"][jvm_state.COUNT : jvm_state.COUNT + 4]
        return int(sum(counts[k] for k in kinds or range(4)))

    def pause_s(self, *kinds: int) -> float:
        sums = self.row["works"][0]["slots"][jvm_state.SUM_US : jvm_state.SUM_US + 4]
        return float(sum(sums[k] for k in kinds or range(4))) / 1e6

    def rss_mib(self) -> float:
        return float(self.task("java")["rss_anon"]) / PAGES

    def heap_mib(self) -> float:
        """Pages of the heap that were touched."""
        return sum(int(self.row["areas"][self[area] - 1]["touched"]) for area in ("YOUNG", "OLD")) / PAGES


def a_jvm(
    arguments: Mapping[str, object],
    *,
    memory_mib: int = 2048,
    limit_mib: int = 0,
    swap_mib: int = 0,
    cpus: int = 2,
    tasks: tuple[TaskSpec, ...] = (),
    restart_s: float | None = None,
    tick_ms: float = 200.0,
    disk: DiskSpec = SSD,
    **more: Any,
) -> JvmWorld:
    said = Jvm.model_validate({"metaspace": "8MiB", "code_cache": "4MiB", "starting": "100ms", **arguments})
    (process,) = said.processes("java", Room(memory_mib * MIB, cpus, limit_mib * MIB or None))
    limits = {"memory.max": limit_mib * MIB} if limit_mib else {}
    spec = HostSpec(
        name="host",
        memory_bytes=memory_mib * MIB,
        cpus=cpus,
        swap_bytes=swap_mib * MIB,
        thp="never",
        disk=disk,
        cgroups=(CgroupSpec("box", "", limits),),
        tasks=(TaskSpec("java", (), cgroup="box", work=process.work, restart_s=restart_s), *tasks),
        **more,
    )
    return JvmWorld(Shard([spec], seed=1, tick_ns=round(tick_ms * mm.NS_PER_MS)))


def alone(collector: str, live_mib: int, rate: int, percent: float, *, cpu_profile: str = "vm", **more: object) -> JvmWorld:
    """A JVM as the recordings' program is: nothing but an allocating thread. A 64th of their 24 GiB is its heap at first."""
    said = {"collector": collector, "xmx": "1GiB", "xms": "376MiB", "live_set": f"{live_mib * 102 // 100}MiB", "threads": 0}
    load = {"allocation_rate": f"{rate}MiB/s", "tenured_share": float(percent), "metaspace": "0MiB", "code_cache": "0MiB"}
    return a_jvm({**said, **load, **more}, memory_mib=4096, cpu_profile=cpu_profile)


def until_up(world: JvmWorld) -> float:
    """To when it serves; the second."""
    at = 0.0
    while world["STAGE"] < 2:
        at += 0.1
        world.at(at)
    return at


def young_collection(jvm: JvmWorld, percent: float) -> tuple[float, float]:
    """One young collection once it runs steadily: (MiB copied, seconds of pause)."""
    at = until_up(jvm) + 4
    jvm.at(at)
    count, pause, copied = jvm.count(JvmWorld.YOUNG), jvm.pause_s(JvmWorld.YOUNG), 0.0
    while jvm.count(JvmWorld.YOUNG) == count:
        copied = (jvm["EDEN_MAX"] * percent / 100 + jvm["SURVIVORS"]) / MIB
        at += 0.05
        jvm.at(at)
    return copied, jvm.pause_s(JvmWorld.YOUNG) - pause


def full_processor_ms(g1: bool, left_mib: float, garbage_mib: float) -> float:
    """Processor time of a full collection by its law, from what the real one left and what had become garbage among it."""
    moved = jvm_state.COMPACT_HOLES[int(g1)] * min(1.0, 4.5 * garbage_mib / (left_mib + garbage_mib))
    return left_mib * 1024 * (jvm_state.COMPACT_KIB[int(g1)] + moved) / 1e6
