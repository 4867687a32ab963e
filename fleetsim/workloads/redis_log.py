# SPDX-License-Identifier: Apache-2.0
"""The append-only file: every SET is appended, and when the log is as large as its base a child writes a new base (BGREWRITEAOF).

The base is a dump (aof-use-rdb-preamble), written by the laws of redis_save.py to the same pair of files; what came before the fork is
dropped with the old log then. A write that must wait, for memory or because too much is dirty, makes the commands of its batch wait.
Leaves out: fsync (appendfsync everysec is a thread's of its own), the pause of writes while that one is late, reading the log at start.
Source: Redis 7.0 aof.c flushAppendOnlyFile, rewriteAppendOnlyFileBackground; server.c serverCron (auto-aof-rewrite-percentage 100).
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import ORDERED, creat, unlink, write_file
from fleetsim.workloads.redis_laws import PAGE
from fleetsim.workloads.redis_slots import LOG, LOG_BASE, LOG_FORKED, LOG_WROTE, LOGGED, RDB_BYTES

REWRITE_MIN = 64 << 20  # auto-aof-rewrite-min-size
PROTOCOL_BYTES = 40  # around key and value of a SET
CHUNK = 1024  # pages of one write()


@law
def append(redis, sets):
    """`sets` SETs go to the end of the log.

    Source: aof.c feedAppendOnlyFile.
    """
    if redis[LOG] >= 0:
        redis[LOGGED] += sets * (redis[RDB_BYTES] + PROTOCOL_BYTES)


@law
def flush(row, th, redis):
    """Write out what the log does not have yet.

    returns  bool  False: come back

    Source: aof.c flushAppendOnlyFile. Leaves out: what the program does when its disk is full.
    """
    due = redis[LOGGED] // PAGE - redis[LOG_WROTE]
    if redis[LOG] < 0 or due <= 0:
        return True
    opened = creat(row, th, redis[LOG], ORDERED, 0) if redis[LOG_WROTE] == 0 else 1
    if opened <= 0:
        return opened < 0
    done = write_file(row, th, redis[LOG], redis[LOG_WROTE], min(CHUNK, due))
    redis[LOG_WROTE] += max(0, done)
    return done < 0 or done == due


@law
def rewrite_due(redis):
    """True if the log has grown by all of its base.

    Source: server.c serverCron.
    """
    return redis[LOG] >= 0 and redis[LOGGED] >= redis[LOG_BASE] and redis[LOGGED] + redis[LOG_BASE] >= REWRITE_MIN


@law
def rewritten(row, th, redis, base_pages):
    """A new base is there: the log starts with what was written after the fork.

    returns  bool  False: come back

    Source: aof.c backgroundRewriteDoneHandler.
    """
    if not unlink(row, th, redis[LOG]):
        return False
    redis[LOGGED] -= redis[LOG_FORKED]
    redis[LOG_FORKED] = 0
    redis[LOG_WROTE] = 0
    redis[LOG_BASE] = base_pages * PAGE
    return True
