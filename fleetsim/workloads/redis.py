# SPDX-License-Identifier: Apache-2.0
"""The `redis` workload: one thread that answers commands out of memory, and a forked child when it saves.

    redis_slots.py  what a process is told and knows      redis_heap.py  its memory
    redis_laws.py   formulas                              redis_save.py  fork, child, dump
    redis_log.py    the append-only file

A command looks its key up (structures, read) and reads or sets the value. A SET writes a new value into a region that another SET
freed, and the key's structures: 1.25 + 2 pages for 1 KiB (redis-server measured: tests/ground_truth/calibration). Whether a key is
there follows from how many are (redis_laws.hit_share). With maxmemory a key more is a key less, or an error.
Leaves out: pipelines, Lua, types other than strings, expiry by time, active defragmentation, the replication backlog, replicas between
two synchronisations.
Source: Redis 7.0 server.c, db.c, evict.c; kernel-laws §16.2.
"""

from __future__ import annotations

from fleetsim.law import ONE_Q, Q, law
from fleetsim.linux.syscalls import compute, exit_group, is_resident, seldom_used
from fleetsim.workloads import redis_slots
from fleetsim.workloads.redis_heap import bytes_per_key, delete, grow, insert, look, map_areas, most_keys, purge, used
from fleetsim.workloads.redis_laws import hit_share, share_q
from fleetsim.workloads.redis_log import append, flush
from fleetsim.workloads.redis_save import begin_save, buffer_writes, child_step, job_due, reap
from fleetsim.workloads.redis_slots import (
    CARRY,
    CHANGES,
    CHILD,
    CPU_NS,
    DELETE_NS,
    DELETE_Q,
    EVICTED,
    FAILING,
    FILL_MISSES,
    FIXED,
    FLAGS,
    HIT_CARRY,
    HIT_KEYS,
    HITS,
    HITS_1,
    HITS_2,
    KEYS,
    LEFT,
    LIVE,
    LOADED,
    LOADING,
    LOG,
    LOG_BASE,
    LOOKS,
    MAXMEMORY,
    MISSED_KEYS,
    NO_EVICTION,
    PHASE,
    PUT_OFF,
    RDB_BYTES,
    READ,
    SAVE,
    SAVED_NS,
    SERVING,
    SET_CARRY,
    SETS,
    STAGE,
    STATUS,
    STOP_WRITES,
    SYNCED_NS,
    VALUES,
    VOLATILE,
    VOLATILE_Q,
    WRITE_Q,
    WRITTEN,
)
from fleetsim.workloads.requests import come_up, expected, fail, finish, in_parallel, rest, take

ARGUMENTS = redis_slots.ARGUMENTS
QUIET_TICKS = 5  # ticks between two batches while all that it uses is resident and no child runs
FORKED_NS = 50_000_000  # between two batches while a child runs
SHORT_NS = 1_000_000  # a batch of which nobody notices that it is one
BUSY_NS = 100_000_000  # at most this much work in one batch, as far as known
EVICT_NS = 2_000  # of looking for a key to evict and freeing it
LOAD_NS = 20_000  # of loading a page of data: some 200 MB/s
PUT_OFF_MAX = 40  # batches before a save that is due
CRON_NS = 1_000  # of looking whether there is anything to do
ERROR_NS = 1_000  # of answering with an error
CRON = 5  # the phase after the five of a batch


@law
def start(row, th, w):
    """Map the areas, and load the keys that it starts with: those of the dump.

    A server that saves nothing starts empty when it is started again.

    returns  bool  True: it is up

    Source: rdb.c rdbLoad. Leaves out: reading the dump from the disk; it is taken to be as large as what was loaded first.
    """
    work = row["works"][w]
    redis = work["slots"]
    if redis[WRITTEN] == 0:
        redis[SAVED_NS] = row["now_ns"]
        redis[SYNCED_NS] = row["now_ns"]
        redis[LOG_BASE] = redis[LOADED] * redis[RDB_BYTES]
        if redis[SAVE] > 0 or redis[LOG] >= 0 or row["tasks"][work["task"]]["exits"] == 0:
            insert(redis, min(redis[LOADED], most_keys(redis)))
    if not map_areas(row, th, redis):
        exit_group(row, th, 1)  # zmalloc.c zmalloc_default_oom
        return False
    pages = grow(row, th, redis)
    compute(row, th, max(0, int(pages)) * LOAD_NS)
    return pages < 0


@law
def hits_of(redis):
    """Share of the commands whose key is there, 2^20ths.

    Source: redis_laws.hit_share; with volatile-* the keys that are never evicted and the others each by themselves.
    """
    first, second, third = redis[HITS], redis[HITS_1], redis[HITS_2]
    if redis[FLAGS] & 3 != VOLATILE:
        return hit_share(first, second, third, redis[LIVE], redis[KEYS])
    volatile = share_q(redis[KEYS], redis[VOLATILE_Q])
    fixed = hit_share(first, second, third, redis[FIXED], redis[KEYS] - volatile)
    other = hit_share(first, second, third, redis[LIVE] - redis[FIXED], volatile)
    return (fixed * (ONE_Q - redis[VOLATILE_Q]) + other * redis[VOLATILE_Q]) >> Q


@law
def make_room(row, redis, new):
    """Room for `new` keys more under maxmemory: keys are evicted for them, any or those with an expiry.

    returns  int64  of them so many get room; −1: it is above its limit, nothing can go, and every write is refused

    Source: evict.c performEvictions; server.c processCommand (denyoom).
    """
    if redis[MAXMEMORY] == 0:
        return new
    policy = redis[FLAGS] & 3
    over = used(redis) > redis[MAXMEMORY]
    room = (redis[MAXMEMORY] - used(redis)) // bytes_per_key(redis) + 1
    if policy == NO_EVICTION:
        return -1 if over else min(new, room)
    evictable = redis[LIVE] - (redis[FIXED] if policy == VOLATILE else 0)
    if over and evictable == 0:
        return -1
    evicted = max(0, min(new - room, evictable))
    delete(row, redis, evicted, 0)
    redis[EVICTED] += evicted
    return max(0, min(new, room + evicted))


@law
def part_of(redis, carry, count, share_q):
    """`count` · share as a whole number; what is left over is kept in slot `carry` for the next time.

    Source: fleetsim's own rounding: the sum is never off by one.
    """
    exact = int(count) * share_q + redis[carry]
    whole = min(int(count), exact >> Q)
    redis[carry] = exact - (whole << Q)
    return whole


@law
def plan(row, th, w, n):
    """What a batch of `n` commands does to the data, and its processor time.

    Source: server.c processCommand, call; db.c setKey, lookupKey.
    """
    redis = row["works"][w]["slots"]
    writes = part_of(redis, CARRY, n, redis[WRITE_Q])
    share = hits_of(redis)
    hits = part_of(redis, HIT_CARRY, n - writes, share)
    missed = n - writes - hits
    filled = missed if redis[FLAGS] & FILL_MISSES else 0
    sets, new = writes + filled, filled + writes - part_of(redis, SET_CARRY, writes, share)
    before = redis[EVICTED]
    stopped = redis[STATUS] & 1 and redis[FLAGS] & STOP_WRITES and redis[SAVE] > 0
    room = -1 if stopped else make_room(row, redis, new)
    refused = sets if room < 0 else new - room
    insert(redis, max(0, room))
    redis[CHANGES] += sets - refused
    buffer_writes(row, th, redis, sets - refused)
    append(redis, sets - refused)
    redis[HIT_KEYS] += hits
    redis[MISSED_KEYS] += missed
    redis[SETS] = ((sets - refused) << 32) + hits
    redis[FAILING] = min(refused, writes)
    redis[PHASE] = 0
    redis[LEFT] = -1
    compute(row, th, (n + filled - refused) * redis[CPU_NS] + refused * ERROR_NS + (redis[EVICTED] - before) * EVICT_NS)


@law
def accesses_of(redis, n, phase):
    """Which area a phase of a batch of `n` commands goes to, how often, and whether it writes.

    returns  (int64 area slot, int64 accesses, int64 1: writes)

    Source: see the module.
    """
    sets, hits = redis[SETS] >> 32, redis[SETS] & 0xFFFFFFFF
    value, structures = redis[LOOKS] >> 16, redis[LOOKS] & 0xFFFF
    if phase == 0:
        return WRITTEN, sets * structures, 1
    if phase == 1:
        return VALUES, sets * value >> 10, 1
    if phase == 2:
        return VALUES, hits * value >> 10, 0
    return (WRITTEN, 2 * n, 0) if phase == 3 else (READ, n, 0)


@law
def serve(row, th, w):
    """Go on with the batch under way.

    returns  bool  True: it is done

    Source: fleetsim's own.
    """
    work = row["works"][w]
    redis, n = work["slots"], work["server"]["batch"]
    if grow(row, th, redis) >= 0:
        return False
    while redis[PHASE] < CRON:
        area, accesses, write = accesses_of(redis, n, redis[PHASE])
        if redis[LEFT] < 0:
            redis[LEFT] = accesses
        if redis[LEFT] > 0:
            redis[LEFT] -= max(0, look(row, th, redis[area] - 1, redis[LEFT], write, redis[CHILD] > 0))
        if redis[LEFT] > 0:
            return False
        redis[PHASE] += 1
        redis[LEFT] = -1
    return flush(row, th, redis)


@law
def cron(row, th, w):
    """What Redis looks after ten times a second: its child, its save points, memory to be given back; and the mass deletion.

    It comes after a batch: whoever arrived before a fork has been answered by then.

    returns  bool  False: this took the step

    Source: server.c serverCron.
    """
    redis = row["works"][w]["slots"]
    if not reap(row, th, w):
        return False
    purge(row, th, redis)
    if redis[DELETE_NS] > 0 and redis[DELETE_NS] <= row["now_ns"]:
        share = redis[DELETE_Q]
        redis[DELETE_NS] = 0
        keys = share_q(redis[LIVE], share)
        redis[CHANGES] += keys
        delete(row, redis, keys, share_q(redis[FIXED], share))
        compute(row, th, keys * ERROR_NS)
    job = job_due(row, redis) if redis[CHILD] == 0 else 0
    server = row["works"][w]["server"]
    if job > 0 and redis[PUT_OFF] < PUT_OFF_MAX and (server["backlog"] > 0 or row["now_ns"] - server["began_ns"] > SHORT_NS):
        redis[PUT_OFF] += 1  # who came before is answered before: a batch is ours, Redis takes commands one by one
        compute(row, th, CRON_NS)
        return False
    redis[PUT_OFF] = 0
    if job > 0:
        begin_save(row, th, w, job)
    idle = row["spent_ns"] + row["wait_ns"] == 0
    compute(row, th, CRON_NS)
    return idle


@law
def calm(row, server, redis):
    """True while no child runs, nothing that it uses is missing, and nobody reclaims, or nobody can tell. Pages that are still
    write-protected since the last save need not be waited for: a fault more of a batch is a fault more.

    Source: fleetsim's own pacing; no latency depends on it (requests.py).
    """
    if redis[CHILD] > 0:
        return False
    if is_resident(row, redis[VALUES] - 1) and is_resident(row, redis[WRITTEN] - 1):
        return True
    n = expected(row, server, QUIET_TICKS * row["tick_ns"])
    return seldom_used(row, redis[WRITTEN] - 1, 3 * n) and seldom_used(row, redis[VALUES] - 1, n * (redis[LOOKS] >> 16) >> 10)


@law
def step(row, th, w):
    """Load, save, or answer the commands that have come since the last time; a child does its own part.

    Source: fleetsim's own.
    """
    work = row["works"][w]
    redis, server = work["slots"], work["server"]
    if row["threads"][th]["task"] != work["task"]:
        child_step(row, th, w)
        return
    if redis[STAGE] == LOADING:
        if start(row, th, w):
            redis[STAGE] = SERVING
            come_up(row, server)
        rest(row, th, server, 0)
        return
    if server["batch"] == 0:
        n = 0 if redis[PHASE] == CRON else take(row, th, server, max(1, BUSY_NS // max(1, server["service_ns"])))
        if n == 0:
            redis[PHASE] = 0
            gather_ns = row["tick_ns"] * QUIET_TICKS if calm(row, server, redis) else row["tick_ns"] if redis[CHILD] == 0 else FORKED_NS
            rest(row, th, server, gather_ns if cron(row, th, w) and server["backlog"] == 0 else 0)
            return
        plan(row, th, w, n)
    done = serve(row, th, w)
    in_parallel(row, server)
    if done:
        finish(row, th, server)
        fail(server, redis[FAILING])
    rest(row, th, server, 0)
