# SPDX-License-Identifier: Apache-2.0
"""tcmalloc of gperftools 2.10, block by block: replays a trace as the library of Debian (libtcmalloc-minimal4) would.

Settings are those of its environment: TCMALLOC_RELEASE_RATE, TCMALLOC_MAX_TOTAL_THREAD_CACHE_BYTES, TCMALLOC_AGGRESSIVE_DECOMMIT.
Google's own tcmalloc, which shares the name and little of this, is google_tcmalloc_exact.py.
Source: gperftools 2.10 (see tcmalloc_*.py); kernel-laws §15.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fleetsim.allocators.replay_steps import Steps, replay_steps
from fleetsim.allocators.tcmalloc_calls import ROOM_PAGES, ROOM_SPANS, prepare, replay_ops
from fleetsim.allocators.tcmalloc_sizes import MOVED, PAGE, SIZE_OF, SPAN_PAGES
from fleetsim.allocators.tcmalloc_tables import NORMAL, RETURNED, TcmallocHeap, enlarged, new_tables
from fleetsim.allocators.trace import Progress, Replay, Trace
from fleetsim.errors import BadInput

NAMES = ("generic.current_allocated_bytes", "generic.heap_size", "tcmalloc.pageheap_free_bytes") + (
    "tcmalloc.pageheap_unmapped_bytes", "tcmalloc.current_total_thread_cache_bytes", "tcmalloc.central_cache_free_bytes"
)  # fmt: skip
STATS = np.dtype([(name, "i8") for name in (*NAMES, "tcmalloc.transfer_cache_free_bytes")])
"""Properties of MallocExtension, bytes."""

METADATA, METADATA_PER_SPAN = 450_560, 48  # bytes resident at the start (measured with 2.10-1), and of each span's description
PREFIX = "TCMALLOC_"
PAGES_MAX = 1 << 19  # 4 GiB of address space


@dataclass(frozen=True)
class TcmallocOptions:
    """The environment. `release_rate` 0 returns nothing; 1 one page for 1000 that are freed."""

    release_rate: float = 1.0
    max_total_thread_cache_bytes: int = 32 << 20
    aggressive_decommit: bool = False


def parse_tcmalloc(text: str) -> TcmallocOptions:
    """Of `TCMALLOC_NAME=VALUE:…`; the prefix may be left out, and case does not matter."""
    given: dict[str, float | int | bool] = {}
    for part in filter(None, text.split(":")):
        name, equals, value = part.partition("=")
        name = name.strip().upper().removeprefix(PREFIX).lower()
        if name not in TcmallocOptions.__dataclass_fields__ or not equals:
            names = ", ".join(PREFIX + n.upper() for n in TcmallocOptions.__dataclass_fields__)
            raise BadInput(f"unknown setting {part!r}: there are {names} (as NAME=VALUE)")
        if name == "aggressive_decommit":
            if value.lower() not in ("t", "f", "y", "n", "0", "1", "true", "false"):
                raise BadInput(f"the setting {part!r}: it must be t or f")
            given[name] = value.lower() in ("t", "y", "1", "true")
            continue
        try:
            number = float(value) if name == "release_rate" else int(value)
        except ValueError:
            raise BadInput(f"the setting {part!r}: it must be a number, such as {PREFIX}RELEASE_RATE=10") from None
        least, most = (0, 1000) if name == "release_rate" else (1, 1 << 30)
        if not least <= number <= most:
            raise BadInput(f"the setting {part!r}: it must be {least} to {most}")
        given[name] = number
    return TcmallocOptions(**given)  # type: ignore[arg-type]


@dataclass(frozen=True)
class TcmallocReplay(Replay):
    """The samples, and tcmalloc's own properties at the same instants."""

    stats: np.ndarray = field(default_factory=lambda: np.zeros(0, STATS))


class TcmallocExact:
    """The exact simulator."""

    name = "tcmalloc"

    def __init__(self, options: TcmallocOptions | None = None) -> None:
        self.options = options or TcmallocOptions()

    def start(self, threads: int, blocks: int) -> TcmallocHeap:
        """A process that has done nothing yet."""
        heap = new_tables(threads + 1, blocks, 4 * ROOM_PAGES, 4 * ROOM_SPANS)
        row = heap.options[0]
        row["release_rate_q"] = round(self.options.release_rate * 1024)
        row["aggressive_decommit"] = self.options.aggressive_decommit
        row["total_cache"] = max(512 << 10, self.options.max_total_thread_cache_bytes)
        prepare(heap)
        return heap

    def replay(self, trace: Trace, *, every: int = 0, addresses: bool = False, progress: Progress | None = None) -> TcmallocReplay:
        """Replay a trace from a fresh process: see trace.ExactAllocator."""
        heap = self.start(trace.threads, trace.blocks)
        steps = Steps(replay_ops, _room_for, sample, stats_of)
        samples, stats, told, usable = replay_steps(heap, trace, steps, every, addresses, progress)
        table = np.array(stats, STATS)
        facts = {name: int(table[-1][name]) for name in STATS.names or ()}
        return TcmallocReplay(self.name, samples, told, usable, facts, table)


def _room_for(heap: TcmallocHeap, op: np.void, name: str) -> TcmallocHeap:
    return roomier(heap, int(op["size"] + op["argument"]), name)


def roomier(heap: TcmallocHeap, size: int, op: str) -> TcmallocHeap:
    """The same heap with twice the rows where a call of `size` bytes might not find enough. `op` is what messages call it."""
    row = heap.state[0]
    if row["spans_end"] + ROOM_SPANS > len(heap.spans):
        return enlarged(heap, 0, 2 * len(heap.spans))
    least = int(row["end"]) + 4 * (size // PAGE) + ROOM_PAGES
    if least > PAGES_MAX:
        raise BadInput(f"{op} needs more than the 4 GiB of address space simulated here")
    return enlarged(heap, min(PAGES_MAX, max(2 * len(heap.owner), least)), 0)


def stats_of(heap: TcmallocHeap) -> tuple[int, ...]:
    """One row of STATS.

    Source: src/tcmalloc.cc ExtractStats, GetNumericProperty.
    """
    row = heap.state[0]
    system, free, unmapped = (int(n) * PAGE for n in (row["system"], row["free"][NORMAL], row["free"][RETURNED]))
    lost = np.concatenate([[0], SPAN_PAGES[1:] * PAGE % SIZE_OF[1:]])  # behind the last object of a span
    central = int((heap.central["objects"] * SIZE_OF + heap.central["spans"] * lost).sum())
    transfer = int((heap.central["used"] * MOVED * SIZE_OF).sum())
    threads = int(heap.threads["size"][heap.threads["used"] == 1].sum())
    return system - threads - central - transfer - free - unmapped, system, free, unmapped, threads, central, transfer


def sample(heap: TcmallocHeap, done: int) -> tuple[int, ...]:
    """One row of SAMPLE. Metadata is mapped beside the heap that tcmalloc's own numbers count."""
    row = heap.state[0]
    _, system, free, unmapped, threads, central, transfer = stats_of(heap)
    metadata = (METADATA + int(row["spans_end"]) * METADATA_PER_SPAN) // 4096 * 4096
    return (
        done,
        int(row["now"]),
        int(row["live"]),
        int(row["usable"]),
        threads + transfer,
        central + free,
        system - unmapped + metadata,
        system + metadata,
        int(row["touched"]) * 4096 + metadata,
        system,
        0,
        1,
        metadata,
    )
