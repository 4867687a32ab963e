# SPDX-License-Identifier: Apache-2.0
"""The slots of a `redis` process: what it was told first (`ARGUMENTS`), then what it knows of itself.

Fields that a slot shares with others say so: there are not many slots. Bytes, keys, nanoseconds; shares are 2^20ths.
"""

from __future__ import annotations

ARGUMENTS = (
    "keys",
    "loaded",
    "flags",
    "written_bytes",
    "read_bytes",
    "value_bytes",
    "slab",
    "looks",
    "rdb_bytes",
    "write_q",
    "cpu_ns",
    "maxmemory",
    "volatile_q",
    "hits_0",
    "hits_1",
    "hits_2",
    "save_0",
    "save_1",
    "save_2",
    "save_rate",
    "dump",
    "temp",
    "delete_ns",
    "delete_q",
    "sync_ns",
    "latency_ns",
    "sync_rate",
    "buffer_bytes",
    "log",
)
(
    KEYS,  # keys that its clients ask for
    LOADED,  # … of which so many are there when it starts
    FLAGS,  # see below
    WRITTEN_BYTES,  # of a key's structures that a SET writes to: dictEntry, and object and key where they share a size class
    READ_BYTES,  # … that a SET only reads
    VALUE_BYTES,  # size class of its value
    SLAB,  # regions of a slab of that class · 2^16 + its pages
    LOOKS,  # pages of a value that a command touches, 1024ths, · 2^16 + pages of structures that a SET writes to
    RDB_BYTES,  # of a key in a dump
    WRITE_Q,  # share of the commands that write
    CPU_NS,  # processor time of a command
    MAXMEMORY,  # 0: none
    VOLATILE_Q,  # share of the keys that have an expiry, which is what volatile-* may evict
    HITS,  # hit rates by the share of the keys that is there, three to a slot (redis_laws.hit_share)
    HITS_1,
    HITS_2,
    SAVE,  # save points: seconds · 2^32 + changes; 0: none
    SAVE_1,
    SAVE_2,
    SAVE_RATE,  # bytes of a dump that its child makes in a second of processor time
    DUMP,  # file row of the last good dump …
    TEMP,  # … and of the one that is written; they change places
    DELETE_NS,  # when keys are deleted, 0: never …
    DELETE_Q,  # … and what share of them
    SYNC_NS,  # a replica asks for a full synchronisation every so often, 0: never
    LATENCY_NS,  # latency-monitor-threshold, 0: off
    SYNC_RATE,  # bytes a second that a replica takes
    BUFFER_BYTES,  # client-output-buffer-limit of a replica
    LOG,  # file row of the append-only file, −1: none
    # --- state ---
    STAGE,  # LOADING or SERVING
    WRITTEN,  # areas, one more than their rows: structures that are written …
    READ,  # … only read, with what the server has of its own …
    VALUES,  # … and values
    LIVE,  # keys there
    FIXED,  # … of them without an expiry, if only the others may be evicted
    SLABS,  # slabs of values
    POOL,  # pages of freed slabs that jemalloc keeps (dirty) …
    POOL_FIRST,  # … of so many …
    POOL_NS,  # … when they were freed
    CHANGES,  # since the last save
    SAVED_NS,  # when that was …
    TRIED_NS,  # … and when it was last tried
    CHILD,  # one more than the task row of its child
    CHILD_PID,
    CHILD_STAGE,  # C_…
    CHILD_PAGES,  # pages of the dataset when it was forked …
    CHILD_READ,  # … of which it has gone over so many
    CHILD_WROTE,  # pages of the dump that it has written
    JOB,  # what the child does: SAVING, SYNCING or REWRITING · 2^40 + changes when it was forked
    PHASE,  # of the batch under way
    LEFT,  # accesses that this phase still makes
    SETS,  # of the batch · 2^32 + hits
    FAILING,  # commands of the batch that are answered with an error
    CARRY,  # parts of a write still to come, 2^20ths
    STATUS,  # rdb_last_bgsave_status: 1 err; · 2: failures in a row
    FORK_US,  # latest_fork_usec
    COW_PAGES,  # rdb_last_cow_size
    EVICTED,  # evicted_keys
    HIT_KEYS,  # keyspace_hits
    MISSED_KEYS,  # keyspace_misses
    SYNCED_NS,  # when the last synchronisation began
    HIT_CARRY,  # as CARRY, of hits …
    SET_CARRY,  # … and of SETs whose key was there
    PUT_OFF,  # batches for which the save that is due has waited
    BUFFER,  # area for what a replica is still to be sent, one more than its row; 0: none …
    BUFFERED,  # … bytes in it
    LOGGED,  # bytes of commands since the last rewrite …
    LOG_WROTE,  # … pages of them that are written …
    LOG_FORKED,  # … bytes when the child was forked that rewrites it
    LOG_BASE,  # bytes of its base, a dump
) = range(70)

NO_EVICTION, ALLKEYS, VOLATILE = 0, 1, 2
"""The part of FLAGS in its lowest two bits: which keys maxmemory-policy may evict."""
DISABLE_THP, STOP_WRITES, FILL_MISSES, OOM_SCORE_ADJ = 4, 8, 16, 32
"""Further bits: disable-thp, stop-writes-on-bgsave-error, clients that set what they missed, and oom-score-adj."""
LOADING, SERVING = 0, 1
SAVING, SYNCING, REWRITING = 1, 2, 3
C_STOP, C_FAILED, C_OPEN, C_WORK, C_SYNC, C_RENAME, C_DONE = -2, -1, 0, 1, 2, 3, 4
