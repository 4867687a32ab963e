# SPDX-License-Identifier: Apache-2.0
"""The `jvm` workload in a pod: a service on a HotSpot JVM (its laws: `fleetsim/workloads/jvm.py`).

    {name: shop, workload: jvm, limits: 2GiB, max_ram_percentage: 75, live_set: 600MiB, allocation: 1MiB, load: 200/s}

Flags have the names of HotSpot's, and what is not said is chosen as HotSpot 17 chooses it from the container's limit, or from the host's
memory if it has none (`jvm_flags.py`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fleetsim.containers.jvm_flags import Ergonomics, Flags, ergonomics
from fleetsim.containers.workload import ANYWHERE, PAGE, WORKLOADS, Process, Room, ServerWorkload
from fleetsim.host.spec import Work
from fleetsim.units import NS_PER_S, ByteRate, Duration, PositiveSize, Size, show_bytes

MIB = 1 << 20
JVM_BYTES = 40 * MIB  # libjvm, class data sharing, the VM's own heap: VmRSS of a JVM that does nothing (measured, jdk 17)
SERIAL_GRAIN = 64 << 10
CARDS, BITMAP = 512, 64  # a byte of card table for so many of heap, a bit of mark bitmap for 8 bytes

Percent = Annotated[float, Field(gt=0, le=100, strict=False)]


def table_bytes(jvm: Ergonomics) -> int:
    """Cards and block offsets, and with G1 card counts and two mark bitmaps: as its NativeMemoryTracking accounts for them."""
    if jvm.collector != "g1":
        return 2 * jvm.heap_max // CARDS
    return 3 * jvm.heap_max // CARDS + 2 * jvm.heap_max // BITMAP


@WORKLOADS.register("jvm")
class Jvm(ServerWorkload):
    """A service on a JVM: it allocates, collects garbage and stands still meanwhile; memory of its own beside the heap."""

    collector: Literal["g1", "serial"] | None = Field(None, description="which collector (default: as HotSpot chooses)")
    xmx: PositiveSize | None = Field(None, description="-Xmx: the largest heap (default: max_ram_percentage of the limit)")
    xms: PositiveSize | None = Field(None, description="-Xms: the heap at the start (default: initial_ram_percentage)")
    max_ram_percentage: Percent = Field(25.0, description="-XX:MaxRAMPercentage")
    min_ram_percentage: Percent = Field(50.0, description="-XX:MinRAMPercentage, for less than 250 MiB of memory")
    initial_ram_percentage: Percent = Field(1.5625, description="-XX:InitialRAMPercentage")
    region_size: PositiveSize | None = Field(None, description="-XX:G1HeapRegionSize, a power of two from 1MiB to 32MiB")
    min_heap_free: int = Field(40, description="-XX:MinHeapFreeRatio, percent", ge=0, le=99)
    max_heap_free: int = Field(70, description="-XX:MaxHeapFreeRatio, percent; 100: the heap never shrinks", ge=0, le=100)
    ihop: int = Field(45, description="-XX:InitiatingHeapOccupancyPercent", ge=0, le=100)
    g1_periodic_gc: Duration = Field(0, description="-XX:G1PeriodicGCInterval: an idle heap is collected and given back (0: never)")
    exit_on_oom: bool = Field(False, description="-XX:+ExitOnOutOfMemoryError: the process ends with exit code 3")
    cpus: int | None = Field(None, description="-XX:ActiveProcessorCount (default: the host's CPUs)", ge=1, le=1024)
    live_set: PositiveSize = Field(128 * MIB, description="data on the heap that stay, read when it starts")
    hot_share: Percent = Field(100.0, description="percent of the live set that requests look at")
    allocation: Size = Field(1 * MIB, description="what a request allocates")
    tenured_share: float = Field(0.5, description="percent of what is allocated that lives long and replaces older data", ge=0, le=100)
    allocation_rate: ByteRate | None = Field(None, description="what is allocated without requests, such as 5MiB/s (default: nothing)")
    leak: Size = Field(0, description="what a request leaves reachable for ever, such as 2KiB")
    metaspace: Size = Field(64 * MIB, description="metadata of classes")
    code_cache: Size = Field(32 * MIB, description="compiled code")
    direct_buffers: Size = Field(0, description="direct byte buffers, outside the heap")
    threads: int = Field(20, description="threads beside the workers", ge=0, le=100_000)
    thread_stack: Size = Field(100 << 10, description="how much of its stack a thread has touched")
    cpu: Duration = Field(2_000_000, description="processor time of a request")
    looks: int = Field(50, description="pages of the hot data that a request looks at", ge=0, le=100_000)
    starting: Duration = Field(3 * NS_PER_S, description="processor time that starting takes, besides reading the live set")

    @model_validator(mode="after")
    def _flags_agree(self) -> Jvm:
        if self.xmx is not None and self.xms is not None and self.xms > self.xmx:
            raise ValueError(f"'xms' {show_bytes(self.xms)} is above 'xmx' {show_bytes(self.xmx)}, which java refuses: write one up to it")
        if self.region_size is not None and (self.region_size.bit_count() != 1 or not MIB <= self.region_size <= 32 * MIB):
            raise ValueError(f"'region_size' {show_bytes(self.region_size)} is not a power of two from 1MiB to 32MiB")
        if self.min_heap_free > self.max_heap_free:
            raise ValueError(
                f"'min_heap_free' {self.min_heap_free} is above 'max_heap_free' {self.max_heap_free}; write it the other way round"
            )
        return self

    def chosen(self, room: Room) -> Ergonomics:
        """What HotSpot makes of the flags in this container."""
        flags = Flags(
            self.xmx,
            self.xms,
            self.max_ram_percentage,
            self.min_ram_percentage,
            self.initial_ram_percentage,
            self.region_size,
            self.collector,
        )
        return ergonomics(flags, room.visible_bytes, self.cpus or room.cpus)

    def native_bytes(self, jvm: Ergonomics) -> int:
        """Memory outside the heap: the VM, metaspace, code, stacks, direct buffers, the collector's tables."""
        stacks = (self.threads + self.workers) * self.thread_stack
        return JVM_BYTES + self.metaspace + self.code_cache + self.direct_buffers + stacks + table_bytes(jvm)

    def processes(self, pod: str, room: Room = ANYWHERE) -> tuple[Process, ...]:
        jvm = self.chosen(room)
        native = self.native_bytes(jvm)
        hot = min(int(self.live_set * self.hot_share / 100), jvm.heap_max - MIB)
        values = {
            "collector": int(jvm.collector == "g1"),
            "heap_max": jvm.heap_max,
            "heap_initial": jvm.heap_initial,
            "region": jvm.region or SERIAL_GRAIN,
            "gc_threads": jvm.gc_threads,
            "concurrent_threads": jvm.concurrent_threads,
            "live": self.live_set,
            "hot": hot,
            "native": native,
            "request_bytes": self.allocation,
            "leak_bytes": self.leak,
            "tenured_permille": round(10 * self.tenured_share),
            "background": self.allocation_rate or 0,
            "cpu_ns": self.cpu,
            "looks": self.looks,
            "start_ns": self.starting,
            "exit_on_oom": int(self.exit_on_oom),
            "periodic_ns": self.g1_periodic_gc,
            "free_min": self.min_heap_free,
            "free_max": self.max_heap_free,
            "ihop": self.ihop,
            "tables": table_bytes(jvm),
        }
        heap = jvm.heap_max // PAGE
        parts = [(heap - hot // PAGE, True), (hot // PAGE, True)] if hot else [(heap, True)]
        areas = ((heap * 6 // 10, False), *parts, (native // PAGE, False))
        return (Process(pod, start_ns=self.start, work=Work("jvm", values, self.requests, areas)),)
