# SPDX-License-Identifier: Apache-2.0
"""The `postgres` workload: shared buffers that every backend maps, data that is read() through the page cache, a log that is flushed.

A query computes, looks at blocks, reads what is not in the shared buffers (from the page cache, or from disk), may sort in memory
of its backend, and may commit: its log is written and flushed, once for all who commit at the same time. The checkpointer
writes what was changed, spread over nine tenths of the time to the next checkpoint. If a backend dies, all are ended
and the server recovers, because the shared memory may be damaged.
Source: kernel-laws §16.3; src/backend (PostgreSQL 15): storage/buffer/bufmgr.c, access/transam/xlog.c, postmaster/checkpointer.c.
Leaves out: what queries mean, locks, vacuum, spilling of sorts to temporary files, the replay of the log at recovery.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import (
    ORDERED,
    SYNC_DATA,
    SYNC_DONE,
    UNIFORM,
    compute,
    creat,
    exit_group,
    file_size,
    fill_shared,
    fsync,
    is_running,
    map_hugetlb,
    map_shared,
    open_random,
    pread,
    set_oom_score_adj,
    touch,
    write_file,
)
from fleetsim.workloads.arrivals import lose
from fleetsim.workloads.postgres_backends import (
    connect,
    count,
    crashed,
    end_sorts,
    is_checkpointer,
    look,
    next_client,
    release,
    sort,
    spawn,
    warm_up,
)
from fleetsim.workloads.postgres_buffers import carried, change, full_after, miss, push_out
from fleetsim.workloads.postgres_types import (
    ADJ,
    BLOCK,
    BUFFER_PAGES,
    CARRY_SORTS,
    CARRY_WAL,
    CARRY_WRITES,
    CHECKPOINT_AT,
    CHECKPOINT_NS,
    CHECKPOINT_SYNC,
    CHECKPOINTER,
    CLIENT,
    CPU_NS,
    DATA,
    DIRTY,
    EVICTED,
    FILLED,
    FULL_AFTER,
    HOT_LOOKS_PERMILLE,
    HOT_PAGES,
    HOT_PERMILLE,
    HUGE,
    IS_HUGE,
    LAST_NS,
    LEFT_HOT,
    LOOKS,
    PHASE,
    PROTECT,
    SHARED,
    SINCE,
    SORT_PERMILLE,
    SORTS,
    STAGE,
    START_NS,
    SYNC,
    TO_WRITE,
    WAL,
    WAL_AT,
    WAL_BYTES,
    WAL_LEFT,
    WAL_PAGES,
    WHOLE_COLD,
    WHOLE_HOT,
    WORK_PAGES,
    WRITE_PERMILLE,
    WRITES,
)
from fleetsim.workloads.requests import come_up, finish, go_down, in_parallel, note_slow, rest, take, together

PAGE = 4096
SECOND_NS = 10**9
QUIET_TICKS = 5  # ticks between two batches while nobody waits for a disk
BUSY_NS = 100_000_000  # at most this much work in one batch, as far as known
CLEANING, MAPPING, OPENING, SERVING = range(4)
IDLE, SORTING, READING, WRITING, SYNCING = range(5)
HUGE_OFF, HUGE_TRY, HUGE_ON = 0, 1, 2
SORT_PAGE_NS = 20_000  # processor time of sorting a page of rows
BACKEND_LOOK_NS = 5 * SECOND_NS  # how often a backend looks if its postmaster is there
WRITE_PAGES = 256  # that a checkpoint writes in one go


@law
def start(row, th, w):
    """Make the shared memory, open the files, start the checkpointer.

    returns  bool  False: it cannot be had, and the server gives up

    Source: src/backend/port/sysv_shmem.c PGSharedMemoryCreate (huge_pages).
    """
    pg = row["works"][w]["slots"]
    if pg[PROTECT] > 0:
        before = set_oom_score_adj(row, th, -1000)
        pg[ADJ] = before if before > -1000 else pg[ADJ]
    if pg[SHARED] == 0 and pg[HUGE] != HUGE_OFF:
        pg[SHARED] = map_hugetlb(row, th, pg[BUFFER_PAGES], 0) + 1
        pg[IS_HUGE] = 1 if pg[SHARED] > 0 else 0
    if pg[SHARED] == 0 and pg[HUGE] != HUGE_ON:
        pg[SHARED] = map_shared(row, th, pg[BUFFER_PAGES], UNIFORM, 0) + 1
    size = file_size(row, pg[DATA])
    pg[HOT_PAGES] = size * pg[HOT_PERMILLE] // 1000
    if pg[SHARED] == 0 or not open_random(row, pg[DATA], pg[HOT_PAGES]) or creat(row, th, pg[WAL], ORDERED, 0) < 0:
        exit_group(row, th, 1)
        return False
    pg[FULL_AFTER] = full_after(pg, size)
    pg[CHECKPOINT_AT] = row["now_ns"]
    pg[CHECKPOINT_SYNC] = SYNC_DONE
    pg[LAST_NS] = row["now_ns"]
    compute(row, th, pg[START_NS])
    spawn(row, th, w, CHECKPOINTER)
    return True


@law
def begin(row, th, w, n):
    """A batch of `n` queries: what they compute, look at, miss, sort and change.

    Source: see the module.
    """
    work = row["works"][w]
    pg = work["slots"]
    span = max(1, row["now_ns"] - pg[LAST_NS])
    pg[LAST_NS] = row["now_ns"]
    new = miss(pg, file_size(row, pg[DATA]), n)
    missed = (pg[LEFT_HOT] + pg[LEFT_HOT + 1]) // BLOCK
    if pg[IS_HUGE] > 0:
        while new > 0 and touch(row, th, pg[SHARED] - 1, new) > 0:
            new -= 1
        pg[FILLED] = row["areas"][pg[SHARED] - 1]["touched"]
    else:
        b = next_client(row, w)
        if b >= 0 and new > 0:
            pg[FILLED] += fill_shared(row, row["backends"][b]["th"], row["backends"][b]["shared"], new)
        look(row, w, n * pg[LOOKS])
    compute(row, th, n * pg[CPU_NS])
    sorts = carried(pg, CARRY_SORTS, n * pg[SORT_PERMILLE], 1000)
    each = pg[WORK_PAGES] * SORT_PAGE_NS
    compute(row, th, sorts * each)
    pg[SORTS] = min(min(sorts, count(row, w, CLIENT)), 1 + sorts * each // span)
    pg[WRITES] = carried(pg, CARRY_WRITES, n * pg[WRITE_PERMILLE], 1000)
    whole = change(pg, file_size(row, pg[DATA]), pg[WRITES])
    pg[WAL_LEFT] = carried(pg, CARRY_WAL, pg[WRITES] * pg[WAL_BYTES] + whole * BLOCK * PAGE, PAGE) + (1 if pg[WRITES] > 0 else 0)
    push_out(pg, missed, n)
    pg[SYNC] = SYNC_DATA
    pg[PHASE] = SORTING


@law
def fail(row, w):
    """The queries of the batch under way end with an error.

    Source: ERROR: could not read block; out of memory.
    """
    server = row["works"][w]["server"]
    server["broken"] = lose(server, server["batch"], server["broken"])
    server["batch"] = 0
    row["works"][w]["slots"][PHASE] = IDLE


@law
def read_missed(row, th, w):
    """read() the blocks that were not in the shared buffers.

    returns  bool  True: all are there

    Source: src/backend/storage/smgr/md.c mdread.
    """
    work = row["works"][w]
    pg, server = work["slots"], work["server"]
    at_once = max(1, min(server["workers"], server["batch"]))
    for part in range(2):
        if pg[LEFT_HOT + part] <= 0:
            continue
        done, from_disk = pread(row, th, pg[DATA], part * pg[HOT_PAGES], pg[LEFT_HOT + part], BLOCK, at_once)
        if done < 0:
            fail(row, w)
            return False
        note_slow(server, (from_disk + BLOCK - 1) // BLOCK)
        in_parallel(row, server)
        pg[LEFT_HOT + part] -= done
        if pg[LEFT_HOT + part] > 0 or row["wait_ns"] > 0:
            return False
    return True


@law
def log(row, th, w):
    """Write the log of the commits of the batch and flush it, once for those who commit at the same time.

    returns  bool  True: done

    Source: src/backend/access/transam/xlog.c XLogWrite, XLogFlush. Leaves out: that several flushes keep the device busy, not one.
    """
    work = row["works"][w]
    pg, server = work["slots"], work["server"]
    if pg[PHASE] == WRITING and pg[WAL_LEFT] > 0:
        if pg[WAL_AT] >= pg[WAL_PAGES]:
            pg[WAL_AT] = 0
        done = write_file(row, th, pg[WAL], pg[WAL_AT], min(pg[WAL_LEFT], pg[WAL_PAGES] - pg[WAL_AT]))
        pg[WAL_AT] += max(0, done)
        pg[WAL_LEFT] -= max(0, done)
        if done < 0:
            fail(row, w)
            return False
    elif pg[SYNC] != SYNC_DONE:
        pg[PHASE] = SYNCING
        pg[SYNC] = fsync(row, th, pg[WAL], pg[SYNC])
    together(row, server, pg[WRITES])
    if pg[WAL_LEFT] == 0 and pg[SYNC] == SYNC_DONE:
        note_slow(server, pg[WRITES])
        return True
    return False


@law
def serve(row, th, w):
    """Go on with the batch under way.

    returns  bool  True: it is done

    Source: see the module.
    """
    work = row["works"][w]
    pg = work["slots"]
    if pg[PHASE] == SORTING:
        if pg[SORTS] > 0:
            done = sort(row, w)
            in_parallel(row, work["server"])
            pg[PHASE] = READING if done else SORTING
            return False
        pg[PHASE] = READING
    if pg[PHASE] == READING:
        if not read_missed(row, th, w):
            return False
        if pg[WRITES] == 0:
            return True
        pg[PHASE] = WRITING
        return False
    return log(row, th, w)


@law
def queries(row, th, w):
    """Answer the queries that have come since the last time.

    Source: fleetsim's own.
    """
    work = row["works"][w]
    pg, server = work["slots"], work["server"]
    if server["batch"] == 0:
        if not end_sorts(row, w) or not warm_up(row, w):
            rest(row, th, server, 0)
            return
        most = server["workers"] * BUSY_NS // max(1, server["service_ns"])
        n = take(row, th, server, max(server["workers"], most))
        connect(row, th, w)
        if n == 0:
            rest(row, th, server, QUIET_TICKS * row["tick_ns"])
            return
        begin(row, th, w, n)
        in_parallel(row, server)
        rest(row, th, server, 0)
        return
    done = serve(row, th, w)
    if done:
        finish(row, th, server)
        pg[PHASE] = IDLE
    ticks = QUIET_TICKS if server["io_ns"] == 0 else 1
    rest(row, th, server, ticks * row["tick_ns"] if done and server["backlog"] == 0 else 0)


@law
def checkpoint(row, th, w):
    """The checkpointer: begin every CHECKPOINT_NS, write a piece, flush at the end. It writes what backends had to evict as well.

    returns  int64  ns until it has something to do again

    Source: src/backend/postmaster/checkpointer.c (checkpoint_completion_target 0.9), storage/buffer/bufmgr.c BufferSync.
    """
    pg = row["works"][w]["slots"]
    if pg[CHECKPOINT_SYNC] != SYNC_DONE and pg[TO_WRITE] <= 0:
        pg[CHECKPOINT_SYNC] = fsync(row, th, pg[DATA], pg[CHECKPOINT_SYNC])
        return 0
    passed = row["now_ns"] - pg[CHECKPOINT_AT]
    if passed >= pg[CHECKPOINT_NS] and pg[TO_WRITE] <= 0:
        pg[CHECKPOINT_AT] = row["now_ns"]
        pg[TO_WRITE] = pg[DIRTY]
        pg[DIRTY] = pg[WHOLE_HOT] = pg[WHOLE_COLD] = pg[SINCE] = 0
        pg[CHECKPOINT_SYNC] = SYNC_DATA if pg[TO_WRITE] + pg[EVICTED] > 0 else SYNC_DONE
        passed = 0
    left_ns = max(SECOND_NS, pg[CHECKPOINT_NS] * 9 // 10 - passed)
    due = min(pg[TO_WRITE], pg[TO_WRITE] * SECOND_NS // left_ns + 1)
    pages = min(WRITE_PAGES, (due + pg[EVICTED]) * BLOCK)
    if pages > 0:
        at = pg[HOT_PAGES] if (row["now_ns"] // SECOND_NS) % 1000 * 617 % 1000 >= pg[HOT_LOOKS_PERMILLE] else 0
        done = write_file(row, th, pg[DATA], at, pages)
        blocks = max(0, done) // BLOCK
        evicted = min(blocks, pg[EVICTED])
        pg[EVICTED] -= evicted
        pg[TO_WRITE] -= min(pg[TO_WRITE], blocks - evicted)
        if done == 0:
            return 0
    return SECOND_NS * pages // max(pages, (due + pg[EVICTED]) * BLOCK) if pages > 0 else SECOND_NS


@law
def child_step(row, th, w):
    """A child of the postmaster: the checkpointer works, a backend sleeps; both end when the postmaster is gone.

    Source: src/backend/storage/ipc/pmsignal.c PostmasterIsAlive.
    """
    thread = row["threads"][th]
    work = row["works"][w]
    wait = BACKEND_LOOK_NS
    if not is_running(row, work["task"]):
        exit_group(row, th, 1)
    elif work["slots"][STAGE] == SERVING and is_checkpointer(row, w, th):
        wait = checkpoint(row, th, w)
    thread["ready_ns"] = row["now_ns"] + row["spent_ns"] + row["wait_ns"] + wait


@law
def step(row, th, w):
    """Start, or answer queries; a child does its own part.

    Source: see the module.
    """
    work = row["works"][w]
    pg, server = work["slots"], work["server"]
    if row["threads"][th]["task"] != work["task"]:
        child_step(row, th, w)
    elif pg[STAGE] == CLEANING:
        pg[STAGE] = MAPPING if release(row, w) else CLEANING
        rest(row, th, server, 0 if pg[STAGE] == MAPPING else row["tick_ns"])
    elif pg[STAGE] == MAPPING:
        if start(row, th, w):
            pg[STAGE] = OPENING
        rest(row, th, server, 0)
    elif pg[STAGE] == OPENING:
        pg[STAGE] = SERVING
        come_up(row, server)
        rest(row, th, server, 0)
    elif crashed(row, w):
        go_down(row, server)
        begin_again(pg)
        rest(row, th, server, 0)
    else:
        queries(row, th, w)


@law
def begin_again(pg):
    """Crash recovery: all is as at the start, but that the shared memory is there.

    Source: src/backend/postmaster/postmaster.c PostmasterStateMachine (the shared memory is made anew).
    """
    shared, huge, filled, adj, at = pg[SHARED], pg[IS_HUGE], pg[FILLED], pg[ADJ], pg[WAL_AT]
    pg[STAGE:] = 0
    pg[SHARED], pg[IS_HUGE], pg[FILLED], pg[ADJ], pg[WAL_AT] = shared, huge, filled, adj, at
