# SPDX-License-Identifier: Apache-2.0
"""A naive twin of one small host, page by page, in plain Python: what `fleetsim bench` compares a simulated host with.

256 MiB, one service whose 64 MiB heap is used at random, one reader of a 512 MiB file at 40 MiB/s. The twin keeps each page
in an ordered dictionary (active and inactive, anonymous and file) as a straightforward model of reclaim would, and touches
every page that the programs touch. It leaves out nearly all that the simulated kernel does (cgroups, swap, pressure, watermarks
by zone, costs, faults in counters), so the ratio is a lower bound of what doing without single pages gains.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from fleetsim.host.shard import Shard
from fleetsim.host.spec import HostSpec, TaskSpec

MIB, PAGES_PER_MIB = 1 << 20, 256
MEMORY_MIB, HEAP_MIB, FILE_MIB = 256, 64, 512
HEAP_RATE, FILE_RATE = 50, 40  # MiB/s
LOW_PAGES = 2048  # free pages at which reclaim begins
SECONDS = 20
NS_PER_S = 1_000_000_000


class Twin:
    """Every page an entry; the oldest first."""

    def __init__(self) -> None:
        self.free = MEMORY_MIB * PAGES_PER_MIB
        self.active: OrderedDict[tuple[str, int], bool] = OrderedDict()
        self.inactive: OrderedDict[tuple[str, int], bool] = OrderedDict()
        self.luck = 88172645463325252
        self.cursor = 0
        self.faults = self.evicted = 0

    def draw(self, below: int) -> int:
        x = self.luck
        x ^= (x << 13) & 0xFFFFFFFFFFFFFFFF
        x ^= x >> 7
        x ^= (x << 17) & 0xFFFFFFFFFFFFFFFF
        self.luck = x
        return x % below

    def reclaim(self) -> None:
        while self.free < 2 * LOW_PAGES and (self.inactive or self.active):
            if not self.inactive:
                page, _ = self.active.popitem(last=False)
                self.inactive[page] = False
                continue
            page, accessed = self.inactive.popitem(last=False)
            if accessed or page[0] == "heap":
                self.active[page] = False
            else:
                self.free += 1
                self.evicted += 1

    def access(self, page: tuple[str, int]) -> None:
        if page in self.active:
            self.active[page] = True
        elif page in self.inactive:
            self.inactive[page] = True
        else:
            self.faults += 1
            if self.free < LOW_PAGES:
                self.reclaim()
            self.free -= 1
            self.inactive[page] = False

    def second(self) -> None:
        for _ in range(HEAP_RATE * PAGES_PER_MIB):
            self.access(("heap", self.draw(HEAP_MIB * PAGES_PER_MIB)))
        for _ in range(FILE_RATE * PAGES_PER_MIB):
            self.access(("file", self.cursor))
            self.cursor = (self.cursor + 1) % (FILE_MIB * PAGES_PER_MIB)


def small_host() -> HostSpec:
    """The same host for the simulator."""
    heap = (f"mmap_anon heap {HEAP_MIB}", f"touch heap {HEAP_MIB} 0", f"rewrite heap 0 {HEAP_RATE} random")
    tasks = (TaskSpec("service", heap), TaskSpec("reader", (f"read_file /data 0 {FILE_RATE}",)))
    return HostSpec("small", MEMORY_MIB * MIB, cpus=2, files={"/data": FILE_MIB * MIB}, tasks=tasks)


def twin_us() -> float:
    """Processor time of the twin, µs per simulated second, once its memory is full."""
    twin = Twin()
    for _ in range(2 * MEMORY_MIB // FILE_RATE):
        twin.second()
    began = time.process_time()
    for _ in range(SECONDS):
        twin.second()
    return (time.process_time() - began) / SECONDS * 1e6


def simulated_us() -> float:
    """Processor time of a simulated host of the same load, µs per simulated second."""
    hosts = 16
    shard = Shard([small_host()] * hosts, seed=1)
    warm = 2 * MEMORY_MIB // FILE_RATE
    for i in range(hosts):
        shard.advance(i, warm * NS_PER_S)
    began = time.process_time()
    for second in range(warm + 1, warm + SECONDS + 1):
        for i in range(hosts):
            shard.advance(i, second * NS_PER_S)
    return (time.process_time() - began) / (SECONDS * hosts) * 1e6
