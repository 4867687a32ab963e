# SPDX-License-Identifier: Apache-2.0
"""malloc of glibc 2.36 block by block: replays a trace and knows every address, and every page that is resident.

    trace → run_ops → glibc_exact_calls → glibc_exact_malloc, glibc_exact_free → glibc_exact_system → glibc_exact_pages

On one thread each call returns the address a real process gets (from the start of its heap on). Threads do their ops in the trace's
order, so none finds another's arena locked. `glibc.py` is the cheap model of the same for fleets.
Leaves out: what does not fit (memory never runs out), other users of sbrk, huge pages, the tunables check, perturb and hugetlb.
Source: malloc/malloc.c, malloc/arena.c of glibc 2.36; kernel-laws §15.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetsim.allocators.glibc_exact_bins import init_bins
from fleetsim.allocators.glibc_exact_calls import (
    end_thread,
    libc_calloc,
    libc_free,
    libc_malloc,
    libc_memalign,
    libc_realloc,
    start_thread,
    usable,
)
from fleetsim.allocators.glibc_exact_free import malloc_trim
from fleetsim.allocators.glibc_exact_pages import touch
from fleetsim.allocators.glibc_exact_tables import (
    BLOCK,
    BRK_BASE,
    CHUNK,
    HEADER,
    HEAP_MAX,
    MMAP_TOP,
    NBINS,
    NR_ARENAS,
    NR_HEAPS,
    PAGE,
    STATE,
)
from fleetsim.allocators.glibc_tunables import Tunables
from fleetsim.allocators.trace import (
    CALLOC,
    EXIT,
    FREE,
    MALLOC,
    MEMALIGN,
    REALLOC,
    SAMPLE,
    SLEEP,
    TOUCH,
    TRIM,
    Progress,
    Replay,
    Trace,
    sampling,
)
from fleetsim.errors import BadInput
from fleetsim.law import law

DONE, MORE_CHUNKS, MORE_PAGES, FULL = range(4)
ROWS_PER_OP = 16  # chunk rows that one op can take at most
PAGES_FIRST, PAGES_MAX = 1 << 16, 1 << 27  # 256 MiB, 512 GiB of address space
BATCH = 1 << 20  # ops between two words of progress


@law
def room_for(row, chunks, pages, op):
    """Whether the tables are surely large enough for one more op: DONE, or what is needed.

    Source: fleetsim's own tables.
    """
    if row["nr_spare"] + len(chunks) - row["chunks"] < ROWS_PER_OP:
        return MORE_CHUNKS
    need = (op["size"] + op["argument"] + row["top_pad"]) // PAGE + 64
    if op["thread"] > 0:
        need += 2 * HEAP_MAX // PAGE
    if (row["brk"] - BRK_BASE) // PAGE + need >= (row["map_low"] - row["map_base"]) // PAGE:
        return MORE_PAGES
    return FULL if row["heaps"] + 2 > NR_HEAPS else DONE


@law
def allocate(row, chunks, pages, blocks, op):
    """One op that returns a block: malloc, calloc, memalign or realloc; the program then writes into it. Returns the chunk.

    Source: malloc/malloc.c.
    """
    block = blocks[op["block"]]
    size, begin = op["size"], 0
    if op["op"] == MALLOC:
        c = libc_malloc(row, chunks, pages, size)
    elif op["op"] == CALLOC:
        c = libc_calloc(row, chunks, pages, size)
    elif op["op"] == MEMALIGN:
        c = libc_memalign(row, chunks, pages, op["argument"], size)
    else:
        c = block["chunk"]
        begin = block["size"]
        row["live"] -= begin
        row["allocated"] -= usable(chunks, c)
        c = libc_realloc(row, chunks, pages, c, size)
    block["chunk"] = c
    block["size"] = size
    row["live"] += size
    row["allocated"] += usable(chunks, c)
    at = chunks[c]["addr"] + HEADER
    touch(row, pages, at + begin, at + op["written"])
    return c


@law
def sample(row, samples, time_ns):
    """Write down where the process stands.

    Source: fleetsim's own table.
    """
    s = samples[row["nr_samples"]]
    row["nr_samples"] += 1
    s["op"] = row["done"]
    s["time_ns"] = time_ns
    s["live"] = row["live"]
    s["allocated"] = row["allocated"]
    s["cached"] = row["cached"]
    s["free"] = row["free"]
    s["brk"] = row["brk"] - BRK_BASE
    s["mmapped"] = row["mmapped"]
    s["mapped"] = row["brk"] - BRK_BASE + row["mmapped"] + row["heap_bytes"]
    s["reserved"] = row["brk"] - BRK_BASE + row["reserved"]
    s["resident"] = row["resident"] * PAGE
    s["arenas"] = row["arenas"]


@law
def run_ops(row, chunks, pages, blocks, ops, samples, addresses, sizes, every, until):
    """Do ops from the one that is next, at most up to number `until`.

    every      int64  ops between two samples
    addresses  int64[] per op, or empty: the address returned
    sizes      int64[] likewise: usable size
    returns    int64  DONE, MORE_CHUNKS, MORE_PAGES (enlarge and come back), FULL

    Source: malloc/malloc.c.
    """
    for i in range(row["done"], until):
        op = ops[i]
        what = room_for(row, chunks, pages, op)
        if what != DONE:
            return what
        kind = op["op"]
        row["thread"] = op["thread"]
        if row["threads"][op["thread"]]["known"] == 0 and kind != SLEEP and kind != TOUCH:
            start_thread(row, chunks, pages, op["thread"])
        if kind <= REALLOC:
            c = allocate(row, chunks, pages, blocks, op)
            if len(addresses) > 0:
                addresses[i] = chunks[c]["addr"] + HEADER
                sizes[i] = usable(chunks, c)
        elif kind == FREE:
            block = blocks[op["block"]]
            row["live"] -= block["size"]
            row["allocated"] -= usable(chunks, block["chunk"])
            libc_free(row, chunks, pages, block["chunk"])
        elif kind == TOUCH:
            at = chunks[blocks[op["block"]]["chunk"]]["addr"] + HEADER + op["argument"]
            touch(row, pages, at, at + op["size"])
        elif kind == TRIM:
            malloc_trim(row, chunks, pages, op["size"])
        elif kind == EXIT:
            end_thread(row, chunks, pages)
        row["done"] = i + 1
        if row["done"] == row["next_sample"] or row["done"] == len(ops):
            sample(row, samples, op["time_ns"])
            row["next_sample"] = row["done"] + every
    return DONE


class GlibcExact:
    """The exact simulator of glibc 2.36, with its tunables, on a machine with `cpus` CPUs (they bound the number of arenas)."""

    name = "glibc"

    def __init__(self, tunables: Tunables | None = None, cpus: int = 2) -> None:
        self.tunables, self.cpus = tunables or Tunables(), cpus

    def fresh_process(self, trace: Trace) -> tuple[Any, np.ndarray, np.ndarray]:
        """(state, chunks, pages) before the first call."""
        t = self.tunables
        row = np.zeros(1, STATE)[0]
        for name in ("mmap_threshold", "trim_threshold", "top_pad", "max_fast", "tcache_count", "tcache_bins", "tcache_unsorted_limit"):
            row[name] = getattr(t, name)
        row["fixed_thresholds"], row["mmaps_max"] = t.fixed, t.mmap_max
        row["arena_max"], row["arena_test"], row["cpus"] = t.arena_max, t.arena_test, self.cpus
        row["brk"], row["map_low"], row["map_base"] = BRK_BASE, MMAP_TOP, MMAP_TOP - PAGES_FIRST * PAGE
        row["heap_spare"] = row["spare"] = row["arena_free"] = -1
        arena = row["arena"][0]
        arena["top"] = arena["heap"] = -1
        arena["fast"][:] = -1
        arena["attached"], row["arenas"] = 1, 1
        row["threads"]["arena"][1:] = -1
        row["threads"]["tcache"] = row["threads"]["heads"] = -1
        row["chunks"] = min(trace.threads + 1, NR_ARENAS) * NBINS
        chunks = np.zeros(int(row["chunks"]) + 4096, CHUNK)
        init_bins(chunks, 0)
        return row, chunks, np.zeros(PAGES_FIRST, np.int8)

    def replay(self, trace: Trace, *, every: int = 0, addresses: bool = False, progress: Progress | None = None) -> Replay:
        """Replay a trace from a fresh process: see trace.ExactAllocator."""
        told, sizes = (np.full(len(trace.ops) if addresses else 0, -1, np.int64) for _ in range(2))
        row, chunks, _, samples = self.run(trace, sampling(trace, every), told, sizes, progress)
        return Replay(self.name, samples, told, sizes, self.facts(row, chunks))

    def run(
        self, trace: Trace, every: int, told: np.ndarray, sizes: np.ndarray, progress: Progress | None = None
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        """(state, chunks, pages, samples) after all ops; `told` and `sizes` are filled if they have room for every op."""
        count = len(trace.ops)
        samples = np.zeros(count // every + 2, SAMPLE)
        row, chunks, pages = self.fresh_process(trace)
        row["next_sample"] = every
        blocks = np.zeros(trace.blocks, BLOCK)
        while row["done"] < count:
            until = min(count, int(row["done"]) // BATCH * BATCH + BATCH)
            status = run_ops(row, chunks, pages, blocks, trace.ops, samples, told, sizes, every, until)
            if status == MORE_CHUNKS:
                chunks = np.concatenate((chunks, np.zeros(len(chunks), CHUNK)))
            elif status == MORE_PAGES and len(pages) < PAGES_MAX:
                pages = self.more_pages(row, pages)
            elif status != DONE:
                raise BadInput(f"{trace.source}: op {int(row['done']) + 1} needs more than the 512 GiB of address space simulated here")
            if progress is not None:
                progress(int(row["done"]) / count)
        return row, chunks, pages, samples[: int(row["nr_samples"])]

    @staticmethod
    def more_pages(row: Any, pages: np.ndarray) -> np.ndarray:
        """Twice the table: what grows up stays at its begin, the mappings at its end."""
        n, used = len(pages), int(row["brk"] - BRK_BASE) // PAGE
        mapped = int(MMAP_TOP - row["map_low"]) // PAGE
        larger = np.zeros(2 * n, np.int8)
        larger[:used] = pages[:used]
        larger[2 * n - mapped :] = pages[n - mapped :]
        row["map_base"] = MMAP_TOP - 2 * n * PAGE
        return larger

    @staticmethod
    def facts(row: Any, chunks: np.ndarray) -> dict[str, int]:
        """The state at the end in glibc's words."""
        arenas = row["arena"][: int(row["arenas"])]
        top = int(arenas[0]["top"])
        return {
            "arenas": int(row["arenas"]),
            "mmapped_chunks": int(row["mmaps"]),
            "top_bytes": int(chunks[top]["size"]) if top >= 0 else 0,
            "other_tops_bytes": sum(int(chunks[int(a["top"])]["size"]) for a in arenas[1:]),
            "other_heaps_bytes": int(row["heap_bytes"]),
            "mmap_threshold_bytes": int(row["mmap_threshold"]),
            "trim_threshold_bytes": int(row["trim_threshold"]),
        }
