# SPDX-License-Identifier: Apache-2.0
"""Saving: Redis forks, and its child writes all that is there to a dump while the parent goes on.

    SAVING    a save point is due: the dump goes to a temporary file that then takes the place of the old one
    REWRITING the append-only file has doubled: a new base is written, see redis_log.py
    SYNCING   a replica wants everything: the child sends it, nothing is written to a disk (repl-diskless-sync); what is written
              meanwhile waits in a buffer, and if that gets too large the replica is dropped and asks for everything anew

The fork stops the server for as long as copying its page tables takes (latest_fork_usec). A fork that is refused, a dump that cannot
be written and a child that is killed are failed saves; with stop-writes-on-bgsave-error writes are refused until one succeeds.
A child whose parent is gone ends by itself.
Leaves out: MADV_DONTNEED by the child of values of two pages and more that it has written (7.0), the pipe between
the two.
Source: Redis 7.0 rdb.c rdbSaveBackground, rdbSaveRio, server.c serverCron, childinfo.c.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import (
    FORK_LATENCY,
    ORDERED,
    SAVE_END,
    SAVE_FAILED,
    SAVE_START,
    SYNC_DATA,
    SYNC_DONE,
    SYNC_FAILED,
    compute,
    creat,
    exit_group,
    fork,
    fsync,
    has_ended,
    is_running,
    map_anonymous,
    munmap,
    private_dirty,
    set_oom_score_adj,
    unlink,
    write_file,
    write_log,
)
from fleetsim.workloads.redis_heap import look
from fleetsim.workloads.redis_laws import NS_PER_S, PAGE, RETRY_NS, save_due
from fleetsim.workloads.redis_log import PROTOCOL_BYTES, rewrite_due, rewritten
from fleetsim.workloads.redis_slots import (
    BUFFER,
    BUFFER_BYTES,
    BUFFERED,
    C_DONE,
    C_FAILED,
    C_OPEN,
    C_RENAME,
    C_STOP,
    C_SYNC,
    C_WORK,
    CHANGES,
    CHILD,
    CHILD_PAGES,
    CHILD_PID,
    CHILD_READ,
    CHILD_STAGE,
    CHILD_WROTE,
    COW_PAGES,
    DUMP,
    FLAGS,
    FORK_US,
    JOB,
    LATENCY_NS,
    LIVE,
    LOG_FORKED,
    LOGGED,
    OOM_SCORE_ADJ,
    RDB_BYTES,
    REWRITING,
    SAVE,
    SAVE_1,
    SAVE_2,
    SAVE_RATE,
    SAVED_NS,
    SAVING,
    STATUS,
    SYNC_NS,
    SYNC_RATE,
    SYNCED_NS,
    SYNCING,
    TEMP,
    TRIED_NS,
    VALUES,
    WRITTEN,
)
from fleetsim.workloads.requests import pause
from fleetsim.workloads.script_fork import CHILD as FORKED
from fleetsim.workloads.script_fork import free_program

STEP_PAGES, STEP_SHIFT = 1024, 5  # pages of data between two looks of the child at its file: at least, and that part of them
CHILD_ADJ = 800  # oom-score-adj-values 0 200 800, the last: children
RECONNECT_NS = 10 * NS_PER_S  # until a replica that was dropped asks again
BY_FORK, BY_CHILD, BY_FILE, BY_LIMIT, BY_BUFFER = 0, 1, 2, 3, 4
"""Why a save failed."""


@law
def job_due(row, redis):
    """What a child should be forked for now: SAVING, REWRITING, SYNCING, 0: nothing.

    Source: server.c serverCron (a failed save is tried again after five seconds), replication.c.
    """
    now = row["now_ns"]
    if redis[STATUS] == 0 or now - redis[TRIED_NS] > RETRY_NS:
        since = now - redis[SAVED_NS]
        for point in (SAVE, SAVE_1, SAVE_2):
            if save_due(redis[point], redis[CHANGES], since):
                return SAVING
    if rewrite_due(redis) and (redis[LOG_FORKED] == 0 or now - redis[TRIED_NS] > RETRY_NS):
        return REWRITING
    return SYNCING if redis[SYNC_NS] > 0 and now - redis[SYNCED_NS] >= redis[SYNC_NS] else 0


@law
def has_failed(row, th, redis, why):
    """A save has failed: writes stop if they should; the history is told of the first of several in a row.

    Source: rdb.c backgroundSaveDoneHandler.
    """
    if redis[STATUS] == 0:
        write_log(row, th, SAVE_FAILED, why, 0, 0)
    redis[STATUS] = (redis[STATUS] | 1) + 2


@law
def begin_save(row, th, w, job):
    """fork() for a save or a synchronisation.

    Source: rdb.c rdbSaveBackground, server.c redisFork.
    """
    work = row["works"][w]
    redis, server = work["slots"], work["server"]
    redis[TRIED_NS] = row["now_ns"]
    if job == SYNCING:
        redis[SYNCED_NS] = row["now_ns"]
    if job == REWRITING:
        redis[LOG_FORKED] = redis[LOGGED]
    child = free_program(row)
    before = row["spent_ns"]
    c = fork(row, th, child)
    took = row["spent_ns"] - before
    pause(row, server, took)
    if c < 0:
        if job == SAVING:
            has_failed(row, th, redis, BY_FORK if child >= 0 else BY_LIMIT)
        return
    program = row["programs"][child]
    program["work"] = w + 1
    program["once"] = FORKED
    redis[CHILD] = c + 1
    redis[CHILD_PID] = row["tasks"][c]["pid"]
    redis[CHILD_STAGE] = C_WORK if job == SYNCING else C_OPEN
    if redis[FLAGS] & OOM_SCORE_ADJ:
        set_oom_score_adj(row, child, row["tasks"][work["task"]]["oom_score_adj"] + CHILD_ADJ)
    redis[CHILD_PAGES] = 0
    for slot in (WRITTEN, VALUES):
        redis[CHILD_PAGES] += row["areas"][redis[slot] - 1]["touched"]
    redis[CHILD_READ] = 0
    redis[CHILD_WROTE] = 0
    redis[COW_PAGES] = 0
    redis[JOB] = (job << 40) + redis[CHANGES]
    redis[FORK_US] = took // 1000
    if job == SYNCING:
        redis[BUFFER] = map_anonymous(row, th, redis[BUFFER_BYTES] // PAGE + 1, ORDERED, 0, 1) + 1
    write_log(row, th, SAVE_START, job, redis[FORK_US], redis[CHILD_PID])
    if redis[LATENCY_NS] > 0 and took >= redis[LATENCY_NS]:
        write_log(row, th, FORK_LATENCY, took // 1_000_000, 0, 0)


@law
def clear_up(row, th, redis, job, good):
    """Give back what was there for the child only: a bad temporary file, the log before a good rewrite, a replica's buffer.

    returns  bool  False: come back

    Source: rdb.c rdbRemoveTempFile, aof.c backgroundRewriteDoneHandler, networking.c freeClient.
    """
    if job == SYNCING:
        if redis[BUFFER] > 0 and not munmap(row, th, redis[BUFFER] - 1):
            return False
        redis[BUFFER] = 0
        redis[BUFFERED] = 0
        return True
    if not good:
        return unlink(row, th, redis[TEMP])
    return job != REWRITING or rewritten(row, th, redis, redis[CHILD_WROTE])


@law
def reap(row, th, w):
    """Look whether the child is gone, and how.

    returns  bool  False: something is not given back yet, come back

    Source: server.c checkChildrenDone, rdb.c backgroundSaveDoneHandler.
    """
    redis = row["works"][w]["slots"]
    if redis[CHILD] == 0 or not has_ended(row, redis[CHILD] - 1, redis[CHILD_PID]):
        return True
    job, good = redis[JOB] >> 40, redis[CHILD_STAGE] == C_DONE
    if not clear_up(row, th, redis, job, good):
        return False
    redis[CHILD] = 0
    if good:
        write_log(row, th, SAVE_END, job, (row["now_ns"] - redis[TRIED_NS]) // 1_000_000, redis[COW_PAGES])
    elif job == SYNCING:
        redis[SYNCED_NS] = row["now_ns"] - redis[SYNC_NS] + RECONNECT_NS
    elif job == SAVING:
        has_failed(row, th, redis, BY_FILE if redis[CHILD_STAGE] == C_FAILED else BY_CHILD)
    if good and job == SAVING:
        redis[CHANGES] -= redis[JOB] & ((1 << 40) - 1)
        redis[SAVED_NS] = row["now_ns"]
        redis[STATUS] = 0
    return True


@law
def buffer_writes(row, th, redis, sets):
    """What a replica that is being synchronised must be sent as well; if it is too much it is dropped.

    Source: replication.c feedReplicationBuffer, networking.c closeClientOnOutputBufferLimitReached (the hard limit).
    """
    if redis[BUFFER] == 0 or redis[CHILD_STAGE] == C_STOP:
        return
    redis[BUFFERED] += sets * (redis[RDB_BYTES] + PROTOCOL_BYTES)
    if redis[BUFFERED] > redis[BUFFER_BYTES] and redis[CHILD_STAGE] == C_WORK:
        redis[CHILD_STAGE] = C_STOP
        write_log(row, th, SYNC_FAILED, BY_BUFFER, 0, 0)


@law
def inherited(row, a, c):
    """The child's area at the address of the parent's area `a`; −1: it has none.

    Source: kernel/fork.c dup_mmap (addresses stay).
    """
    for b in range(len(row["areas"])):
        area = row["areas"][b]
        if area["kind"] != 0 and area["task"] == c and area["start"] == row["areas"][a]["start"]:
            return b
    return -1


@law
def child_reads(row, th, redis, total):
    """The child goes over the next pages of the data and makes a part of the dump of them.

    total    int64  pages of the data
    returns  int64  bytes of the dump

    Accesses are at random here, a sweep is not: of what is left to be read it makes so many accesses as if it were all of it.

    Source: rdb.c rdbSaveDb.
    """
    left = total - redis[CHILD_READ]
    pages = min(max(STEP_PAGES, total >> STEP_SHIFT), left)
    for slot in (WRITTEN, VALUES):
        a = inherited(row, redis[slot] - 1, row["threads"][th]["task"])
        look(row, th, a, row["areas"][a]["touched"] * pages // left, 0, True)
    bytes_made = redis[LIVE] * redis[RDB_BYTES] // total * pages
    compute(row, th, bytes_made * (NS_PER_S // 1_000_000) // max(1, redis[SAVE_RATE] // 1_000_000))
    redis[CHILD_READ] += pages
    return bytes_made


@law
def child_works(row, th, redis):
    """The data is gone over and the dump is written, or sent.

    returns  int64  bytes that are to be sent now

    Source: rdb.c rdbSaveRio. Leaves out: that keys come and go in the parent meanwhile changes nothing for the child.
    """
    total, due = redis[CHILD_PAGES], 0
    if redis[JOB] >> 40 != SYNCING:
        due = (redis[LIVE] * redis[RDB_BYTES] // PAGE + 1) * redis[CHILD_READ] // max(1, total)
    if due > redis[CHILD_WROTE]:
        done = write_file(row, th, redis[TEMP], redis[CHILD_WROTE], due - redis[CHILD_WROTE])
        if done < 0:
            redis[CHILD_STAGE] = C_FAILED
            exit_group(row, th, 1)
        redis[CHILD_WROTE] += max(0, done)
    elif redis[CHILD_READ] < total:
        made = child_reads(row, th, redis, total)
        return made if redis[JOB] >> 40 == SYNCING else 0
    elif redis[JOB] >> 40 != SYNCING:
        redis[CHILD_STAGE] = C_SYNC + (SYNC_DATA << 8)
    else:
        child_ends(row, th, redis)
    return 0


@law
def child_ends(row, th, redis):
    """The child says what was copied since the fork, and exits.

    Source: childinfo.c sendChildInfo (Private_Dirty of /proc/self/smaps), rdb.c rdbSaveBackground.
    """
    redis[COW_PAGES] = private_dirty(row, row["threads"][th]["task"])
    redis[CHILD_STAGE] = C_DONE
    exit_group(row, th, 0)


@law
def child_step(row, th, w):
    """One chunk of the child's work.

    Source: rdb.c rdbSave.
    """
    work = row["works"][w]
    redis = work["slots"]
    stage = redis[CHILD_STAGE] & 0xFF if redis[CHILD_STAGE] >= 0 else C_STOP
    sent = 0
    if stage == C_STOP or redis[CHILD] - 1 != row["threads"][th]["task"] or not is_running(row, work["task"]):
        exit_group(row, th, 1)
    elif stage == C_OPEN:
        opened = creat(row, th, redis[TEMP], ORDERED, 1)
        if opened < 0:
            redis[CHILD_STAGE] = C_FAILED
            exit_group(row, th, 1)
        elif opened > 0:
            redis[CHILD_STAGE] = C_WORK
    elif stage == C_WORK:
        sent = child_works(row, th, redis)
    elif stage == C_SYNC:
        done = fsync(row, th, redis[TEMP], redis[CHILD_STAGE] >> 8)
        redis[CHILD_STAGE] = C_RENAME if done == SYNC_DONE else C_SYNC + (done << 8)
    elif stage == C_RENAME and unlink(row, th, redis[DUMP]):
        redis[DUMP], redis[TEMP] = redis[TEMP], redis[DUMP]
        child_ends(row, th, redis)
    sent_ns = sent * 1000 // max(1, redis[SYNC_RATE] // 1_000_000)
    row["threads"][th]["ready_ns"] = row["now_ns"] + max(row["spent_ns"] + row["wait_ns"], sent_ns)
