# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's shared buffers: which blocks of the data are in them, so that a query need not read() them.

    a block that λ queries in a query's time look at is there with probability 1 − e^(−λT)

T, the same for all blocks, is how long ago (in queries) a block may have been looked at last to be still there: Che's approximation of
a cache that keeps what was used last, which the clock sweep with its usage counts is near to. While the buffers are not full T is
all the time since the start. Of pgbench on a real server it gives the share of hits, cold, warming and warm, to a percent
(docs/coverage.md).
Source: H. Che, Y. Tung, Z. Wang, Hierarchical Web Caching Systems (2002); src/backend/storage/buffer/freelist.c (PostgreSQL 15).
What commits change follows from the same draws: a block is dirty from its first change to its being written, and the first
change of a block after a checkpoint has begun puts all of it into the log.
Leaves out: rings for big scans, bulk writes and vacuum; index pages above the leaves, which are always there.
"""

from __future__ import annotations

from fleetsim.law import ONE_Q, exp_neg_q, law
from fleetsim.workloads.postgres_types import (
    BLOCK,
    BUFFER_PAGES,
    CARRY_COLD,
    CARRY_COLD_WHOLE,
    CARRY_DIRTY,
    CARRY_HOT,
    CARRY_HOT_CHANGES,
    CARRY_HOT_WHOLE,
    CARRY_PUSHED,
    CHANGES,
    DIRTY,
    EVICTED,
    FILLED,
    FULL_AFTER,
    HOT_LOOKS_PERMILLE,
    HOT_PAGES,
    LEFT_COLD,
    LEFT_HOT,
    LOOKED,
    LOOKS,
    SINCE,
    WHOLE_COLD,
    WHOLE_HOT,
    WRITE_PERMILLE,
)

QUERIES_MAX = 1 << 40


@law
def absent_q(queries, looks_permille, blocks):
    """Share of `blocks` blocks that none of the last `queries` queries looked at, each of which looks at so many of them at random.

    looks_permille  int64  thousandths of a block
    returns         int64  2^20ths

    Source: see the module.
    """
    if blocks <= 0 or looks_permille <= 0:
        return ONE_Q
    if queries > 20_000 * blocks // looks_permille:
        return 0
    return exp_neg_q((queries * looks_permille << 10) // blocks * 1024 // 1000)


@law
def carried(pg, slot, amount, whole):
    """`amount` / `whole`, what is left over is carried to the next time in a slot.

    Source: fleetsim's own rounding.
    """
    exact = amount + pg[slot]
    pg[slot] = exact % whole
    return exact // whole


@law
def hot_looks(pg):
    """Looks of a query at the hot part of the data, thousandths.

    Source: fleetsim's own.
    """
    return pg[LOOKS] * pg[HOT_LOOKS_PERMILLE] if pg[HOT_PAGES] > 0 else 0


@law
def present_pages(pg, data_pages, queries):
    """Pages of the data that the last `queries` queries looked at.

    Source: see the module.
    """
    hot, cold = pg[HOT_PAGES], data_pages - pg[HOT_PAGES]
    looked = hot_looks(pg)
    there = hot * (ONE_Q - absent_q(queries, looked, hot // BLOCK)) >> 20
    return there + (cold * (ONE_Q - absent_q(queries, 1000 * pg[LOOKS] - looked, cold // BLOCK)) >> 20)


@law
def full_after(pg, data_pages):
    """After how many queries the shared buffers are full; QUERIES_MAX if all data fits.

    Source: bisection of `present_pages`.
    """
    if pg[LOOKS] == 0 or present_pages(pg, data_pages, QUERIES_MAX) <= pg[BUFFER_PAGES]:
        return QUERIES_MAX
    low, high = 0, QUERIES_MAX
    while high - low > 1:
        middle = (low + high) // 2
        if present_pages(pg, data_pages, middle) < pg[BUFFER_PAGES]:
            low = middle
        else:
            high = middle
    return high


@law
def miss(pg, data_pages, n):
    """What `n` queries do not find in the shared buffers: pages that they read, and how many of those go into unused buffers.

    returns  int64  pages for unused buffers

    Source: see the module; the first half of the queries of a batch fill the buffers for the second.
    """
    hot, cold = pg[HOT_PAGES], data_pages - pg[HOT_PAGES]
    looked = hot_looks(pg)
    queries = min(pg[LOOKED] + n // 2, pg[FULL_AFTER])
    exact = n * looked // 8 * absent_q(queries, looked, hot // BLOCK) + pg[CARRY_HOT]
    pg[LEFT_HOT] = exact // (125 << 20) * BLOCK
    pg[CARRY_HOT] = exact % (125 << 20)
    looked = 1000 * pg[LOOKS] - looked
    exact = n * looked // 8 * absent_q(queries, looked, cold // BLOCK) + pg[CARRY_COLD]
    pg[LEFT_COLD] = exact // (125 << 20) * BLOCK
    pg[CARRY_COLD] = exact % (125 << 20)
    pg[LOOKED] = min(pg[LOOKED] + n, pg[FULL_AFTER])
    filled = min(pg[BUFFER_PAGES], present_pages(pg, data_pages, pg[LOOKED]))
    return max(0, filled - pg[FILLED])


@law
def first_changes(pg, slot, carry, blocks, changed):
    """Of `changed` changes of `blocks` blocks at random how many are of blocks that were not changed before; pg[slot] counts those.

    carry    int64  slot of what is left over

    Source: (blocks − before)·(1 − e^(−changed/blocks)), to the second order.
    """
    clean = max(0, blocks - pg[slot])
    half = changed * clean // max(1, blocks) // 2
    first = min(clean, carried(pg, carry, changed * max(0, clean - half), max(1, blocks)))
    pg[slot] += first
    return first


@law
def change(pg, data_pages, commits):
    """`commits` commits change blocks: pg[DIRTY] of the shared buffers differ from the file then.

    returns  int64  blocks that the log has as a whole

    Source: src/backend/access/transam/xloginsert.c (full_page_writes); see the module. Leaves out: hint bits, holes in images.
    """
    changed = commits * pg[CHANGES]
    hot = carried(pg, CARRY_HOT_CHANGES, changed * pg[HOT_LOOKS_PERMILLE], 1000) if pg[HOT_PAGES] > 0 else 0
    before = pg[WHOLE_HOT] + pg[WHOLE_COLD]
    first = first_changes(pg, WHOLE_HOT, CARRY_HOT_WHOLE, pg[HOT_PAGES] // BLOCK, hot)
    first += first_changes(pg, WHOLE_COLD, CARRY_COLD_WHOLE, (data_pages - pg[HOT_PAGES]) // BLOCK, changed - hot)
    written = max(0, before - pg[DIRTY])  # of those that were changed before
    pg[DIRTY] += first + carried(pg, CARRY_DIRTY, ((changed - first) * written << 10) // max(1, before), 1024)
    pg[DIRTY] = min(pg[DIRTY], pg[BUFFER_PAGES] // BLOCK)
    return first


@law
def push_out(pg, missed, n):
    """`n` queries missed `missed` blocks, which take the place of others: the dirty ones among those must be written first.

        a block that is pushed out was looked at last T queries ago: if that was after the checkpoint, and by a query that changed it

    Source: src/backend/storage/buffer/bufmgr.c BufferAlloc; see the module. Leaves out: the background writer, which does some of it
    before.
    """
    pg[SINCE] = min(pg[SINCE] + n, pg[FULL_AFTER])
    if pg[SINCE] >= pg[FULL_AFTER] and pg[FILLED] >= pg[BUFFER_PAGES]:
        changed = pg[WRITE_PERMILLE] * min(pg[CHANGES], pg[LOOKS]) // max(1, pg[LOOKS])
        pushed = min(pg[DIRTY], carried(pg, CARRY_PUSHED, missed * changed, 1000))
        pg[DIRTY] -= pushed
        pg[EVICTED] += pushed
