# SPDX-License-Identifier: Apache-2.0
"""The ops malloc, mfree and mtrim: a program that asks its allocator for blocks and frees them, by number, in patterns.

`malloc N a-b rate` asks for N blocks of a to b bytes, writes to every page of each, and keeps the pointers in a table of its
own; it paces itself by the bytes asked for. `mfree` frees by the blocks' numbers, `mtrim` calls malloc_trim(0), or what jemalloc
and tcmalloc have for it. `allocator` says whose malloc this thread's is (glibc's, if it says nothing).
"""

from __future__ import annotations

from fleetsim.allocators.glibc_heap import new_pointers
from fleetsim.allocators.glibc_laws import PAGE, chunk_size, mapped_pages, mean_chunk_q
from fleetsim.allocators.slab_laws import ONE
from fleetsim.allocators.tables import GLIBC
from fleetsim.law import law
from fleetsim.linux.syscalls import touch
from fleetsim.workloads.heap_calls import (
    heap_free_all_but,
    heap_free_random,
    heap_free_range,
    heap_malloc,
    heap_of,
    heap_open,
    heap_settle,
    heap_trim,
)

CHUNK = 256 << 10  # bytes between two looks at the clock
LAG_NS = 100_000_000
POINTERS = 8_000_000  # entries of the program's table; it maps it once, in one piece
POINTER_BYTES = 8
SIZE_MAX = 1 << 30  # bytes of a block
BILLION = 1_000_000_000
FREE_ALL, FREE_KEEP_EVERY, FREE_FIRST, FREE_LAST, FREE_RANDOM = range(5)


@law
def sizes_of(op):
    """(int64 least, int64 most) bytes that a malloc op asks for; both are kept in one field.

    Source: fleetsim's own table.
    """
    return op["hot_q"] & (SIZE_MAX - 1), op["hot_q"] // SIZE_MAX


@law
def capacities(row, program, malloc_code):
    """Pages that the program's malloc ops may need, all blocks at once: of the heap, of mapped chunks, of the table.

    returns  (int64 heap, int64 mapped, int64 table)

    Source: fleetsim's own representation: an area that grows gets its cohorts at the start.
    """
    heap, mapped, blocks = 64, 1, 0
    for k in range(program["first"], program["first"] + program["ops"]):
        op = row["ops"][k]
        if op["code"] == malloc_code:
            least, most = sizes_of(op)
            heap += op["time_ns"] * mean_chunk_q(least, most) // (1024 * PAGE) + 1
            mapped += op["time_ns"] * mapped_pages(chunk_size(most))
            blocks += op["time_ns"]
    host = row["totalram"] + row["swap_total"]
    return min(heap, host), min(mapped, host), min(blocks, POINTERS) * POINTER_BYTES // PAGE + 1


@law
def begin_quantum(row, h, program, op, quanta):
    """Ask for the blocks of one quantum of the pace.

    returns  bool  False: not one could be had, or there is no more to ask for

    Source: the recordings' driver.
    """
    heap = row["heaps"][h]
    least, most = sizes_of(op)
    left = min(op["time_ns"] - program["done"], POINTERS - heap["blocks"])
    wanted = min(left, (2 * CHUNK * quanta + least + most - 1) // max(1, least + most))
    if wanted <= 0:
        return False
    got = heap_malloc(row, h, wanted, least, most)
    program["fresh"] = 1 if got < wanted else 0  # ENOMEM ends the op
    program["quantum"] = got
    return got > 0


@law
def malloc_step(row, th, program, op, malloc_code, quanta):
    """One quantum of a malloc op, or as much of it as there is memory for.

    returns  bool  True: the op is over

    Source: the recordings' driver.
    """
    thread = row["threads"][th]
    heap_pages, mapped, table = capacities(row, program, malloc_code)
    h = heap_of(row, th)
    if h < 0:
        h = heap_open(row, th, GLIBC, -1, -1, 0, heap_pages, mapped)
        if h < 0:
            return True
    heap = row["heaps"][h]
    if heap["pointers"] < 0:
        heap["pointers"] = new_pointers(row, heap["task"], table, POINTERS * POINTER_BYTES // PAGE)
        if heap["pointers"] < 0:
            return True
    if program["at"] == 0:
        program["at"] = 1
        heap["series"] += 1
    if program["quantum"] == 0 and not begin_quantum(row, h, program, op, quanta):
        return True
    area = row["areas"][heap["pointers"]]
    while area["touched"] * PAGE < heap["blocks"] * POINTER_BYTES:
        if touch(row, th, heap["pointers"], 1) <= 0:
            return False
    if not heap_settle(row, th, h):
        return False
    least, most = sizes_of(op)
    size = program["quantum"] * (least + most) // 2
    program["done"] += program["quantum"]
    program["quantum"] = 0
    program["progress"] += (program["progress_bytes"] + size) // PAGE
    program["progress_bytes"] = (program["progress_bytes"] + size) % PAGE
    if program["done"] >= op["time_ns"] or program["fresh"]:
        return True
    end = row["now_ns"] + row["spent_ns"] + row["wait_ns"]
    if op["ns_per_quantum"] > 0:
        program["deadline_ns"] = max(program["deadline_ns"] + size * op["ns_per_quantum"] // CHUNK, end - LAG_NS)
        thread["ready_ns"] = max(end, program["deadline_ns"])
    return False


@law
def mfree_step(row, th, program, op):
    """The mfree op: all its calls at once, then the pages as fast as the kernel takes them back.

    returns  bool  True: the op is over

    Source: the recordings' driver.
    """
    h = heap_of(row, th)
    if h < 0:
        return True
    if program["at"] == 0:
        program["at"] = 1
        blocks = row["heaps"][h]["blocks"]
        part = blocks * op["hot_q"] // BILLION
        how = op["pattern"]
        if how == FREE_FIRST:
            heap_free_range(row, h, 0, part)
        elif how == FREE_LAST:
            heap_free_range(row, h, blocks * (BILLION - op["hot_q"]) // BILLION, blocks)
        elif how == FREE_KEEP_EVERY:
            heap_free_all_but(row, h, op["pages"])
        elif how == FREE_RANDOM:
            heap_free_random(row, h, op["hot_q"] * ONE // BILLION)
        else:
            heap_free_range(row, h, 0, blocks)
    return heap_settle(row, th, h)


@law
def heap_step(row, th, program, op, malloc_code, quanta):
    """One step of malloc, mfree, mtrim or allocator (codes malloc_code, +1, +2, +3); sets when the thread goes on.

    returns  bool  True: the op is over

    Source: the recordings' driver.
    """
    thread = row["threads"][th]
    thread["ready_ns"] = -1
    over = True
    if op["code"] == malloc_code:
        over = malloc_step(row, th, program, op, malloc_code, quanta)
    elif op["code"] == malloc_code + 1:
        over = mfree_step(row, th, program, op)
    elif op["code"] == malloc_code + 3:
        heap_pages, mapped, _ = capacities(row, program, malloc_code)
        if heap_of(row, th) < 0:
            kind = op["pattern"]
            if kind != GLIBC:
                heap_pages += mapped
            heap_open(row, th, kind, op["time_ns"], op["hot_q"], op["accounted"], heap_pages, mapped)
    else:
        h = heap_of(row, th)
        if h >= 0:
            if program["at"] == 0:
                heap_trim(row, h)
            program["at"] = 1
            over = heap_settle(row, th, h)
    thread["ready_ns"] = max(thread["ready_ns"], row["now_ns"] + row["spent_ns"] + row["wait_ns"])
    return over
