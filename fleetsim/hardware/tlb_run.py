# SPDX-License-Identifier: Apache-2.0
"""Running a trace or a pattern through a simulated CPU, and what came of it.

Rules: traces come in pieces of any length and are never held as a whole. Cycles follow from counts alone:

    cycles = L1 misses · penalty of the first level + walks · penalty of the second + loads · cycles of a load + shootdowns · cost
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fleetsim.hardware.tlb import context_switch, run, shootdown
from fleetsim.hardware.tlb_patterns import BASE, PAGE, Pattern
from fleetsim.hardware.tlb_profiles import Profile
from fleetsim.hardware.tlb_types import (
    ACCESSES,
    DATA,
    DROPPED,
    FLUSHES,
    L1_HITS,
    L2_HITS,
    LOADS,
    MOST_LOADS,
    NESTED_LOADS,
    PDE_HITS,
    PDPTE_HITS,
    PML4E_HITS,
    SHOOTDOWNS,
    SWITCHES,
    WALKS,
    make_core,
)

CHUNK = 1 << 16
Trace = Iterable[tuple[np.ndarray, np.ndarray]]  # pieces of (addresses, kinds)


@dataclass(frozen=True)
class Machine:
    """How translations are made and kept."""

    profile: Profile
    page: str = "4K"
    huge_permille: int = 0  # of 2 MiB regions, when pages are 4K
    levels: int = 4
    vm: bool = False
    host_page: str = "4K"
    pcid: bool = True

    def core(self) -> Any:
        return make_core(
            self.profile,
            self.page,
            huge_permille=self.huge_permille,
            levels=self.levels,
            vm=self.vm,
            host_page=self.host_page,
            pcid=self.pcid,
        )


@dataclass(frozen=True)
class Sharing:
    """What others do to the CPU's entries while a pattern runs: 0 for never."""

    processes: int = 1
    switch_every: int = 0  # accesses between two switches
    shootdown_every: int = 0  # accesses between two shootdowns by another CPU
    shootdown_pages: int = 1


@dataclass(frozen=True)
class StreamCounts:
    """Of data or of code."""

    accesses: int
    l1_hits: int
    l2_hits: int
    walks: int
    loads: int
    most_loads: int
    pde_hits: int
    pdpte_hits: int
    pml4e_hits: int
    nested_loads: int

    @property
    def l1_misses(self) -> int:
        return self.accesses - self.l1_hits


@dataclass(frozen=True)
class TlbResult:
    machine: Machine
    data: StreamCounts
    code: StreamCounts
    switches: int
    flushes: int
    shootdowns: int
    dropped: int
    cycles: int = field(init=False)

    def __post_init__(self) -> None:
        profile = self.machine.profile
        total = self.shootdowns * profile.shootdown
        for stream, penalty in ((self.data, profile.l1d_miss), (self.code, profile.l1i_miss)):
            total += stream.l1_misses * penalty + stream.walks * profile.l2_miss + stream.loads * profile.load
        object.__setattr__(self, "cycles", total)

    @property
    def accesses(self) -> int:
        return self.data.accesses + self.code.accesses

    @property
    def walks(self) -> int:
        return self.data.walks + self.code.walks

    @property
    def loads(self) -> int:
        return self.data.loads + self.code.loads

    @property
    def cycles_per_access(self) -> float:
        return self.cycles / self.accesses if self.accesses else 0.0

    @property
    def loads_per_walk(self) -> float:
        return self.loads / self.walks if self.walks else 0.0


def _counts(core: Any, stream: int) -> StreamCounts:
    order = (ACCESSES, L1_HITS, L2_HITS, WALKS, LOADS, MOST_LOADS, PDE_HITS, PDPTE_HITS, PML4E_HITS, NESTED_LOADS)
    return StreamCounts(*(int(core["counts"][stream, which]) for which in order))


def result_of(machine: Machine, core: Any) -> TlbResult:
    events = (int(core["events"][which]) for which in (SWITCHES, FLUSHES, SHOOTDOWNS, DROPPED))
    return TlbResult(machine, _counts(core, DATA), _counts(core, 1), *events)


def run_trace(machine: Machine, trace: Trace) -> TlbResult:
    """All of a trace on one CPU that begins with nothing cached."""
    core = machine.core()
    for addresses, kinds in trace:
        run(core, addresses, kinds)
    return result_of(machine, core)


def run_machines(machines: list[Machine], trace: Trace) -> list[TlbResult]:
    """The same trace on several CPUs, read once."""
    cores = [machine.core() for machine in machines]
    for addresses, kinds in trace:
        for core in cores:
            run(core, addresses, kinds)
    return [result_of(machine, core) for machine, core in zip(machines, cores)]


def pieces(pattern: Pattern, accesses: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A pattern as a trace."""
    maker = pattern.maker()
    out, kinds = np.empty(min(CHUNK, max(1, accesses)), np.int64), np.zeros(CHUNK, np.int8)
    at = start
    while at < start + accesses:
        n = min(len(out), start + accesses - at)
        maker.fill(out[:n], at)
        yield out[:n], kinds[:n]
        at += n


def run_pattern(machine: Machine, pattern: Pattern, accesses: int, *, warm_up: int = 0, sharing: Sharing | None = None) -> TlbResult:
    """`accesses` accesses of a pattern, after `warm_up` that are not counted; each process does the pattern in its own address space."""
    core = machine.core()
    sharing = sharing or Sharing()
    makers = [replace(pattern, seed=pattern.seed + number).maker() for number in range(sharing.processes)]
    progress = [0] * sharing.processes
    kinds = np.zeros(CHUNK, np.int8)
    out = np.empty(CHUNK, np.int64)
    done, process, gone = 0, 0, 0
    counted = warm_up == 0
    while done < warm_up + accesses:
        if sharing.switch_every and sharing.processes > 1 and done and done % sharing.switch_every == 0:
            process = (process + 1) % sharing.processes
            context_switch(core, process)
        if sharing.shootdown_every and done and done % sharing.shootdown_every == 0:
            shootdown(core, BASE + gone, sharing.shootdown_pages)
            gone = (gone + sharing.shootdown_pages * PAGE) % pattern.working_set
        end = warm_up + accesses if counted else warm_up
        for every in (sharing.switch_every, sharing.shootdown_every):
            end = min(end, (done // every + 1) * every) if every else end
        n = min(CHUNK, end - done)
        makers[process].fill(out[:n], progress[process])
        run(core, out[:n], kinds[:n])
        progress[process] += n
        done += n
        if done == warm_up and not counted:
            counted = True
            core["counts"][:] = 0
            core["events"][:] = 0
    return result_of(machine, core)
