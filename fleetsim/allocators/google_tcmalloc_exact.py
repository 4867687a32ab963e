# SPDX-License-Identifier: Apache-2.0
"""Google's tcmalloc, block by block: replays a trace as a build of github.com/google/tcmalloc would, and answers with its properties.

Settings are those a program makes through MallocExtension. Besides the samples that all allocators give, the answer holds
properties of MallocExtension under their names.
Limits: pages of 8 KiB, default build; no sampling, so a library that is compared must have it switched off; small pages of the
kernel (transparent huge pages would fill what is touched, huge page by huge page); no background actions but the release.
Source: google/tcmalloc at fce3f55 (see google_tcmalloc_*.py); kernel-laws §15.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fleetsim.allocators.google_tcmalloc_calls import ROOM_SPANS, replay_ops
from fleetsim.allocators.google_tcmalloc_huge import REGION
from fleetsim.allocators.google_tcmalloc_sizes import HUGE_PAGES, HUGE_SHIFT, OBJECTS, PAGE, SIZE_OF, SPAN_PAGES
from fleetsim.allocators.google_tcmalloc_start import METADATA, METADATA_PER_SPAN, prepare
from fleetsim.allocators.google_tcmalloc_tables import REGIONS_MAX, GoogleHeap, enlarged, new_tables
from fleetsim.allocators.replay_steps import Steps, replay_steps
from fleetsim.allocators.trace import MEMALIGN, Progress, Replay, Trace
from fleetsim.errors import BadInput

NAMES = ("generic.current_allocated_bytes", "generic.heap_size", "tcmalloc.pageheap_free_bytes", "tcmalloc.pageheap_unmapped_bytes") + (
    "tcmalloc.cpu_free", "tcmalloc.central_cache_free", "tcmalloc.transfer_cache_free"
)  # fmt: skip
STATS = np.dtype(
    [(name, "i8") for name in (*NAMES, "huge_cache_bytes", "huge_cache_limit_bytes", "filler_huge_pages", "underflows", "overflows")]
)
"""Properties of MallocExtension, bytes; and of what its GetStats() tells: huge pages kept backed, misses of the per-CPU caches."""

HUGE_MAX = 1 << 16  # 128 GiB of address space
EVERYTHING = 1 << 46
_SWITCHES = {"t": 1, "f": 0, "true": 1, "false": 0, "1": 1, "0": 0}
_SETTINGS = {
    "max_per_cpu_cache_size": (0, 1 << 40),
    "background_release_rate": (0, 1 << 40),
    "release_on_trim": (0, EVERYTHING),
    "skip_subrelease_short_interval": (0, 86_400),
    "skip_subrelease_long_interval": (0, 86_400),
}  # least and most


@dataclass(frozen=True)
class GoogleOptions:
    """What a program may set. Rate in bytes per second; release_on_trim: bytes a trim op asks for (malloc_trim() asks for none)."""

    max_per_cpu_cache_size: int = 3 << 19
    background_release_rate: int = 0
    release_on_trim: int = 0
    skip_subrelease_short_interval: int = 60  # s
    skip_subrelease_long_interval: int = 300
    hpaa_subrelease: int = 1


def parse_google_tcmalloc(text: str) -> GoogleOptions:
    """Of `name=value:…`."""
    given: dict[str, int] = {}
    for part in filter(None, text.split(":")):
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if name == "hpaa_subrelease" and equals:
            if value.lower() not in _SWITCHES:
                raise BadInput(f"the setting {part!r}: it must be t or f")
            given[name] = _SWITCHES[value.lower()]
            continue
        if name not in _SETTINGS or not equals:
            names = ", ".join((*_SETTINGS, "hpaa_subrelease"))
            raise BadInput(f"unknown setting {part!r}: there are {names} (as name=value)")
        if name == "release_on_trim" and value == "all":
            value = str(EVERYTHING)
        least, most = _SETTINGS[name]
        if not value.isdecimal() or not least <= int(value) <= most:
            raise BadInput(f"the setting {part!r}: it must be a whole number, {least} to {most}")
        given[name] = int(value)
    return GoogleOptions(**given)


@dataclass(frozen=True)
class GoogleReplay(Replay):
    """The samples, and tcmalloc's own properties at the same instants."""

    stats: np.ndarray = field(default_factory=lambda: np.zeros(0, STATS))


class GoogleTcmallocExact:
    """The exact simulator: thread i of a trace runs on CPU i modulo `cpus`."""

    name = "google-tcmalloc"

    def __init__(self, options: GoogleOptions | None = None, cpus: int = 2) -> None:
        self.options = options or GoogleOptions()
        self.cpus = cpus

    def start(self, blocks: int) -> GoogleHeap:
        """A process that has done nothing yet."""
        heap = enlarged(new_tables(self.cpus, blocks, 4 * REGION, 1024), 0, 0, 0, 2)
        row, o = heap.options[0], self.options
        row["cpus"], row["max_per_cpu_cache"], row["release_rate"] = self.cpus, o.max_per_cpu_cache_size, o.background_release_rate
        row["trim_releases"], row["subrelease"] = o.release_on_trim, o.hpaa_subrelease
        row["skip_short_ns"] = o.skip_subrelease_short_interval * 1_000_000_000
        row["skip_long_ns"] = o.skip_subrelease_long_interval * 1_000_000_000
        heap.cpus["available"] = o.max_per_cpu_cache_size
        prepare(heap)
        return heap

    def replay(self, trace: Trace, *, every: int = 0, addresses: bool = False, progress: Progress | None = None) -> GoogleReplay:
        """Replay a trace from a fresh process: see trace.ExactAllocator."""
        wide = (trace.ops["op"] == MEMALIGN) & (trace.ops["argument"] > 1 << HUGE_SHIFT)
        if wide.any():
            raise BadInput(f"{trace.source}: op {int(wide.argmax()) + 1} wants an alignment above 2 MiB, at which this tcmalloc aborts")
        steps = Steps(replay_ops, roomier, sample, stats_of)
        samples, stats, told, usable = replay_steps(self.start(trace.blocks), trace, steps, every, addresses, progress)
        table = np.array(stats, STATS)
        facts = {name: int(table[-1][name]) for name in STATS.names or ()}
        return GoogleReplay(self.name, samples, told, usable, facts, table)


def roomier(heap: GoogleHeap, op: np.void, name: str) -> GoogleHeap:
    """The same heap with twice the rows where this op might not find enough. `name` is what messages call it."""
    row = heap.state[0]
    huge, spans, stacks, regions = len(heap.huge), len(heap.spans), len(heap.stacks), len(heap.regions)
    if row["spans_end"] + ROOM_SPANS > spans:
        spans *= 2
    if row["stacks_end"] + ROOM_SPANS > stacks:
        stacks *= 2
    if row["regions"] == regions:
        if regions == REGIONS_MAX:
            raise BadInput(f"{name} needs more than the {REGIONS_MAX} GiB of regions simulated here")
        regions *= 2
    least = int(row["end"]) + 2 * (REGION + 1) + 2 * int(op["size"] >> HUGE_SHIFT) + 4
    if least > huge:
        if least > HUGE_MAX:
            raise BadInput(f"{name} needs more than the 128 GiB of address space simulated here")
        huge = min(HUGE_MAX, max(2 * huge, least))
    return enlarged(heap, huge, spans, stacks, regions)


def stats_of(heap: GoogleHeap) -> tuple[int, ...]:
    """One row of STATS.

    Source: global_stats.cc ExtractStats, InUseByApp, HeapSizeBytes; huge_page_aware_allocator.h stats.
    """
    row, used = heap.state[0], heap.regions[: int(heap.state[0]["regions"])]
    in_filler = int(row["trackers"]) * HUGE_PAGES - int(row["used"].sum()) - int(row["unmapped"])
    backed = int(used["backed"].sum()) * HUGE_PAGES
    free = (int(row["cached"]) * HUGE_PAGES + in_filler + backed - int(used["in_use"].sum())) * PAGE
    unmapped = ((int(row["unbacked"]) + len(used) * REGION) * HUGE_PAGES - backed + int(row["unmapped"])) * PAGE
    system = int(row["system"]) << HUGE_SHIFT
    lost = SPAN_PAGES * PAGE - OBJECTS * SIZE_OF  # behind the last object of a span
    cached = int((heap.cpus["length"].sum(0) * SIZE_OF).sum())
    central = int((heap.central["free"] * SIZE_OF + heap.central["spans"] * lost).sum())
    transfer = int((heap.central["used"] * SIZE_OF).sum())
    return (
        system - free - unmapped - cached - central - transfer,
        system - unmapped,
        free,
        unmapped,
        cached,
        central,
        transfer,
        int(row["cached"]) << HUGE_SHIFT,
        int(row["limit"]) << HUGE_SHIFT,
        int(row["trackers"]),
        int(heap.cpus["underflows"].sum()),
        int(heap.cpus["overflows"].sum()),
    )


def sample(heap: GoogleHeap, done: int) -> tuple[int, ...]:
    """One row of SAMPLE."""
    row = heap.state[0]
    _, mapped, free, _, cached, central, transfer, *_ = stats_of(heap)
    metadata = (METADATA + int(row["most_spans"]) * METADATA_PER_SPAN) // 4096 * 4096
    return (
        done,
        int(row["now"]),
        int(row["live"]),
        int(row["usable"]),
        cached + transfer,
        central + free,
        mapped + metadata,
        int(row["reserved"]) << HUGE_SHIFT,
        int(row["touched"]) * 4096 + metadata,
        0,
        0,
        1,
        metadata,
    )
