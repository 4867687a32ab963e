# SPDX-License-Identifier: Apache-2.0
"""What HotSpot 17 makes of its flags and of the machine or container that it finds itself in (its "ergonomics").

    heap     MaxRAMPercentage (25) of the memory, MinRAMPercentage (50) if that is less than 250 MiB; initially 1/64
    GC       G1 on a "server class machine": 2 CPUs and 2 GiB less 256 MiB; else Serial
    regions  heap / 2048, rounded up to a power of two, 1 to 32 MiB

The memory is that of the host, or the container's limit if there is one (UseContainerSupport).
Source: arguments.cpp Arguments::set_heap_size, gcConfig.cpp select_gc_ergonomically, os.cpp is_server_class_machine, heapRegion.cpp
setup_heap_region_size, workerPolicy.cpp; compared with the real java by tests/containers/test_jvm_flags.py.
Leaves out: the limit of compressed pointers (a default heap above 32 GiB) and of the address space (ulimit -v), large pages.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
HEAP_DEFAULT = 96 * MIB * 13 // 10  # MaxHeapSize as compiled in, scaled for 64 bits
HEAP_LEAST = 8 * MIB  # OldSize + NewSize
GRAIN = 2 * MIB  # heap alignment: what one page of the card table covers
MAX_RAM = 128 * GIB
SERVER_MEMORY, SERVER_CPUS = 2 * GIB - 256 * MIB, 2


@dataclass(frozen=True)
class Flags:
    """The flags that size a heap, as they were given; None: not given."""

    xmx: int | None = None
    xms: int | None = None
    max_ram_percentage: float = 25.0
    min_ram_percentage: float = 50.0
    initial_ram_percentage: float = 1.5625
    region_size: int | None = None
    collector: str | None = None  # g1 | serial


@dataclass(frozen=True)
class Ergonomics:
    """What HotSpot chose."""

    collector: str
    heap_max: int
    heap_initial: int
    region: int  # 0: no regions
    gc_threads: int
    concurrent_threads: int


def align_up(value: int, grain: int) -> int:
    return -(-value // grain) * grain


def max_heap(flags: Flags, memory: int) -> int:
    """MaxHeapSize before alignment."""
    if flags.xmx is not None:
        return flags.xmx
    least = int(memory * flags.min_ram_percentage / 100)
    heap = least if least < HEAP_DEFAULT else max(int(memory * flags.max_ram_percentage / 100), HEAP_DEFAULT)
    return max(heap, flags.xms or 0)


def region_size(heap: int) -> int:
    """G1HeapRegionSize of a heap: heap / 2048, up to a power of two."""
    least = max(heap // 2048, MIB)
    return min(1 << (least - 1).bit_length(), 32 * MIB)


def parallel_gc_threads(cpus: int) -> int:
    """ParallelGCThreads: all of the first 8 CPUs, 5/8 of the others."""
    return cpus if cpus <= 8 else 8 + (cpus - 8) * 5 // 8


def ergonomics(flags: Flags, memory_bytes: int, cpus: int) -> Ergonomics:
    """Choose collector, heap, regions and threads for `memory_bytes` of memory and `cpus` CPUs."""
    memory = min(memory_bytes, MAX_RAM)
    is_server = cpus >= SERVER_CPUS and memory_bytes >= SERVER_MEMORY
    collector = flags.collector or ("g1" if is_server else "serial")
    heap = max_heap(flags, memory)
    g1 = collector == "g1"
    region = flags.region_size or (region_size(heap) if g1 else 0)
    grain = max(GRAIN, region)
    heap = align_up(max(heap, GRAIN), grain)
    initial = flags.xms if flags.xms is not None else max(int(memory * flags.initial_ram_percentage / 100), min(HEAP_LEAST, heap))
    threads = parallel_gc_threads(cpus) if g1 else 1
    return Ergonomics(collector, heap, min(heap, align_up(initial, grain)), region, threads, max(1, (threads + 2) // 4) if g1 else 0)
