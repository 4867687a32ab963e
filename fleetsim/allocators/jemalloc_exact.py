# SPDX-License-Identifier: Apache-2.0
"""jemalloc 5.3, block by block: replays a trace as the library of Debian (libjemalloc2 5.3.0) would, and answers with its stats.

Options are those of MALLOC_CONF. Besides the samples that all allocators give, the answer holds `stats.*` under jemalloc's names.
Limits: no huge pages, no hpa, no profiler, one process (no fork); decay looks come at other calls than in life, as often.
Source: jemalloc 5.3.0 (see jemalloc_*.py); kernel-laws §15.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fleetsim.allocators.jemalloc_arena import LEAF
from fleetsim.allocators.jemalloc_calls import ROOM_EXTENTS, prepare, replay_ops
from fleetsim.allocators.jemalloc_sizes import LARGE_MIN, PAGE, SIZE_OF, TCACHE_CLASSES, size_class
from fleetsim.allocators.jemalloc_tables import DIRTY, MUZZY, RETAINED, JemallocHeap, enlarged, new_tables
from fleetsim.allocators.replay_steps import Steps, replay_steps
from fleetsim.allocators.trace import Progress, Replay, Trace
from fleetsim.errors import BadInput

NAMES = ("allocated", "active", "metadata", "resident", "mapped", "retained")
STATS = np.dtype([(name, "i8") for name in (*NAMES, "dirty", "muzzy", "tcache_bytes")])
"""stats.allocated and so on, bytes; dirty and muzzy are stats.arenas.*.pdirty and pmuzzy as bytes."""

CPP_RESERVE = 80 << 10  # bytes of the C++ library's block: allocated, but not by the program

_BOOLEANS = {"background_thread", "tcache", "retain"}
_NUMBERS = {"narenas": (1, 4094), "dirty_decay_ms": (-1, 1 << 40), "muzzy_decay_ms": (-1, 1 << 40), "lg_tcache_max": (3, 23)} | {
    "oversize_threshold": (0, 1 << 60), "lg_extent_max_active_fit": (0, 62)
}  # fmt: skip
PAGES_MAX = 1 << 26  # 256 GiB of address space


@dataclass(frozen=True)
class JemallocOptions:
    """MALLOC_CONF. `narenas` 0 is four per CPU, one if there is but one CPU."""

    narenas: int = 0
    dirty_decay_ms: int = 10_000
    muzzy_decay_ms: int = 0
    background_thread: bool = False
    tcache: bool = True
    lg_tcache_max: int = 15
    retain: bool = True
    oversize_threshold: int = 8 << 20
    lg_extent_max_active_fit: int = 6


def parse_malloc_conf(text: str) -> JemallocOptions:
    """Of `name:value,…`, as in MALLOC_CONF. jemalloc passes over what it does not know; here it is refused."""
    given: dict[str, int | bool] = {}
    for part in filter(None, text.split(",")):
        name, colon, value = part.partition(":")
        if name in _BOOLEANS and value in ("true", "false"):
            given[name] = value == "true"
        elif name in _BOOLEANS:
            raise BadInput(f"the option {part!r}: it must be true or false, such as {name}:true")
        elif name not in _NUMBERS or not colon:
            raise BadInput(f"unknown option {part!r}: there are {', '.join(sorted(_BOOLEANS | set(_NUMBERS)))} (as name:value,name:value)")
        else:
            least, most = _NUMBERS[name]
            if not value.removeprefix("-").isdecimal() or not least <= int(value) <= most:
                raise BadInput(f"the option {part!r}: it must be a whole number, {least} to {most}")
            given[name] = int(value)
    return JemallocOptions(**given)  # type: ignore[arg-type]


@dataclass(frozen=True)
class JemallocReplay(Replay):
    """The samples, and jemalloc's own stats at the same instants."""

    stats: np.ndarray = field(default_factory=lambda: np.zeros(0, STATS))


class JemallocExact:
    """The exact simulator. `cpus` decides how many arenas there are."""

    name = "jemalloc"

    def __init__(self, options: JemallocOptions | None = None, cpus: int = 2) -> None:
        self.options = options or JemallocOptions()
        self.cpus = cpus

    def start(self, threads: int, blocks: int) -> JemallocHeap:
        """A process that has done nothing yet."""
        o = self.options
        narenas = o.narenas or (4 * self.cpus if self.cpus > 1 else 1)
        heap = new_tables(narenas + 1, threads, blocks, 1 << 15, 4 * ROOM_EXTENTS)
        row = heap.options[0]
        row["narenas"], row["background_thread"], row["tcache"], row["retain"] = narenas, o.background_thread, o.tcache, o.retain
        row["decay_ms"][DIRTY], row["decay_ms"][MUZZY] = o.dirty_decay_ms, o.muzzy_decay_ms
        row["oversize_threshold"] = o.oversize_threshold if o.oversize_threshold >= LARGE_MIN else 1 << 62
        row["max_fit"] = o.lg_extent_max_active_fit
        prepare(heap, min(TCACHE_CLASSES, int(size_class(1 << o.lg_tcache_max)) + 1))
        return heap

    def replay(self, trace: Trace, *, every: int = 0, addresses: bool = False, progress: Progress | None = None) -> JemallocReplay:
        """Replay a trace from a fresh process: see trace.ExactAllocator."""
        heap = self.start(trace.threads, trace.blocks)
        steps = Steps(replay_ops, _room_for, sample, stats_of)
        samples, stats, told, usable = replay_steps(heap, trace, steps, every, addresses, progress)
        table = np.array(stats, STATS)
        facts = {f"stats.{name}": int(table[-1][name]) for name in NAMES}
        return JemallocReplay(self.name, samples, told, usable, facts, table)


def _room_for(heap: JemallocHeap, op: np.void, name: str) -> JemallocHeap:
    return roomier(heap, int(op["size"]), name)


def roomier(heap: JemallocHeap, size: int, op: str) -> JemallocHeap:
    """The same heap with twice the rows where a call of `size` bytes might not find enough. `op` is what messages call it."""
    row = heap.state[0]
    extents, pages = len(heap.extents), len(heap.owner)
    if row["extents_end"] + ROOM_EXTENTS > extents:
        return enlarged(heap, 0, 2 * extents)
    least = int(row["pages_end"]) + 8 * (size // PAGE)
    if least > PAGES_MAX:
        raise BadInput(f"{op} needs more than the 256 GiB of address space simulated here")
    return enlarged(heap, min(PAGES_MAX, max(2 * pages, least)), 0)


def _cached_bytes(heap: JemallocHeap) -> int:
    threads = heap.threads[heap.threads["used"] == 1]
    return int((threads["cached"] * SIZE_OF[:TCACHE_CLASSES]).sum())


def stats_of(heap: JemallocHeap) -> tuple[int, ...]:
    """One row of STATS.

    Source: src/ctl.c ctl_refresh; src/arena.c arena_stats_merge; src/pa_extra.c pa_shard_stats_merge.
    """
    arenas = heap.arenas[heap.arenas["used"] == 1]
    active = int(arenas["active"].sum()) * PAGE
    dirty, muzzy, retained = (int(arenas["pages"][:, state].sum()) * PAGE for state in (DIRTY, MUZZY, RETAINED))
    return (
        int(heap.state[0]["allocated"]),
        active,
        int(arenas["base_allocated"].sum() + arenas["internal"].sum()),
        int(arenas["base_resident"].sum()) + active + dirty,
        int(arenas["base_mapped"].sum() + arenas["mapped"].sum()),
        retained,
        dirty,
        muzzy,
        _cached_bytes(heap),
    )


def sample(heap: JemallocHeap, done: int) -> tuple[int, ...]:
    """One row of SAMPLE. Resident are the populated pages of blocks and metadata, not what jemalloc believes (stats.resident)."""
    allocated, active, _, _, mapped, retained, dirty, muzzy, cached = stats_of(heap)
    row = heap.state[0]
    arenas = heap.arenas[heap.arenas["used"] == 1]
    usable = allocated - cached - int(arenas["internal"].sum()) - CPP_RESERVE
    leaf_pages = int(row["pages_end"]) // (LEAF // PAGE) + 1
    metadata = int(arenas["base_resident"].sum()) - LEAF + leaf_pages * PAGE
    return (
        done,
        int(row["now"]),
        int(row["live"]),
        usable,
        cached,
        active - allocated + dirty + muzzy,
        mapped,
        mapped + retained,
        int(row["touched"]) * PAGE + metadata,
        0,
        0,
        len(arenas),
        metadata,
    )
