# SPDX-License-Identifier: Apache-2.0
"""The memory of a `redis` process: three areas used at random, and how full jemalloc's slabs in them are.

    WRITTEN  dictEntries, and the objects and keys of the same size class: every SET writes there, every command reads
    READ     the rest: the dict's table, what the server has of its own, jemalloc's metadata
    VALUES   slabs of one size class; freed slabs wait in jemalloc's pool for ten seconds

Deleting keys at random leaves most slabs with something in them: RSS stays while used_memory falls (mem_fragmentation_ratio).
The laws of slabs are those of allocators/slab_laws.py; what is kept here are three numbers, SLABS, LIVE and POOL.
Leaves out: slabs of structures (many to a page: none gets empty before the last key goes), thread caches, values of several sizes,
purging while a child runs.
Source: Redis 7.0 db.c, object.c; jemalloc 5.3 by way of the allocators.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import MADV_NOHUGEPAGE, PART_LAST, UNIFORM, access, free_range, madvise, map_anonymous, touch
from fleetsim.workloads.redis_laws import PAGE, pool_left, share_q, slabs_for, slabs_left, table_bytes, used_memory
from fleetsim.workloads.redis_slots import (
    BUFFER,
    BUFFER_BYTES,
    BUFFERED,
    CHILD,
    DISABLE_THP,
    FIXED,
    FLAGS,
    KEYS,
    LIVE,
    MAXMEMORY,
    POOL,
    POOL_FIRST,
    POOL_NS,
    READ,
    READ_BYTES,
    SLAB,
    SLABS,
    VALUE_BYTES,
    VALUES,
    VOLATILE,
    VOLATILE_Q,
    WRITTEN,
    WRITTEN_BYTES,
)

CHUNK = 2048  # pages that are touched in one go
BASE_PAGES = 2_750  # of an empty server, beside the program's image (measured: 12.4 MB in all)
DESCRIPTION = 136  # bytes that jemalloc has to say of a slab and its pages


@law
def bytes_per_key(redis):
    """used_memory of a key and its value, without its place in the dict's table.

    Source: sums of size classes (containers/redis.py).
    """
    return redis[WRITTEN_BYTES] + redis[READ_BYTES] + redis[VALUE_BYTES]


@law
def used(redis):
    """used_memory, bytes, without what replicas are still to be sent: what maxmemory is compared with.

    Source: redis_laws.used_memory; evict.c freeMemoryGetNotCountedMemory.
    """
    return used_memory(redis[LIVE], bytes_per_key(redis))


@law
def most_keys(redis):
    """How many keys there may ever be: all that clients ask for, or as many as maxmemory has room for.

    Source: evict.c getMaxmemoryState.
    """
    keys = redis[KEYS]
    if redis[MAXMEMORY] > 0:
        keys = min(keys, redis[MAXMEMORY] // max(1, bytes_per_key(redis)) + 1)
    return keys


@law
def pages_for(redis, area, keys, slabs):
    """Pages of area slot `area` (WRITTEN, READ, VALUES) with so many keys and slabs of values.

    Source: see the module.
    """
    slab_pages = redis[SLAB] & 0xFFFF
    structures = keys * redis[WRITTEN_BYTES] // PAGE + 1
    if area == WRITTEN:
        return structures
    if area == VALUES:
        return slabs * slab_pages
    described = (structures + keys * redis[READ_BYTES] // PAGE + slabs) * DESCRIPTION
    return BASE_PAGES + (table_bytes(keys) + keys * redis[READ_BYTES] + described) // PAGE + 1


@law
def map_areas(row, th, redis):
    """Map the address space that the data may need.

    returns  bool  False: refused

    Source: jemalloc's src/pages.c (mmap); disable-thp: prctl(PR_SET_THP_DISABLE).
    """
    keys = most_keys(redis)
    slabs = slabs_for(keys, redis[SLAB] >> 16)
    for area in (WRITTEN, READ, VALUES):
        if redis[area] == 0:
            redis[area] = map_anonymous(row, th, max(1, pages_for(redis, area, keys, slabs)), UNIFORM, 0, 1) + 1
            if redis[area] == 0:
                return False
            if redis[FLAGS] & DISABLE_THP:
                madvise(row, th, redis[area] - 1, MADV_NOHUGEPAGE)
    return True


@law
def grow(row, th, redis):
    """Touch what the keys there need and do not have yet, a chunk at a time.

    returns  int64  pages touched; −1: nothing is missing

    Source: first touches of malloc'ed memory.
    """
    for area in (WRITTEN, READ, VALUES):
        wanted = pages_for(redis, area, redis[LIVE], redis[SLABS]) + (redis[POOL] if area == VALUES else 0)
        a = redis[area] - 1
        missing = min(wanted, row["areas"][a]["pages"]) - row["areas"][a]["touched"]
        done = touch(row, th, a, min(CHUNK, missing)) if missing > 0 else -1
        if done >= 0:
            return done
    if redis[BUFFER] == 0:
        return -1
    missing = min(redis[BUFFERED], redis[BUFFER_BYTES]) // PAGE - row["areas"][redis[BUFFER] - 1]["touched"]
    return touch(row, th, redis[BUFFER] - 1, min(CHUNK, missing)) if missing > 0 else -1


@law
def insert(redis, keys):
    """`keys` keys more: their values get free regions first, then slabs of the pool, then new ones.

    Source: jemalloc's src/arena.c arena_cache_bin_fill_small, src/pac.c pac_alloc_real.
    """
    if redis[FLAGS] & 3 == VOLATILE:  # of those that are missing, any
        missing = max(1, redis[KEYS] - redis[LIVE])
        fixed = redis[KEYS] - share_q(redis[KEYS], redis[VOLATILE_Q]) - redis[FIXED]
        redis[FIXED] += min(fixed, (keys * fixed + missing // 2) // missing)
    redis[LIVE] += keys
    wanted = slabs_for(redis[LIVE], redis[SLAB] >> 16)
    if wanted > redis[SLABS]:
        from_pool = min(redis[POOL], (wanted - redis[SLABS]) * (redis[SLAB] & 0xFFFF))
        redis[POOL] -= from_pool
        redis[POOL_FIRST] -= from_pool
        redis[SLABS] = wanted


@law
def delete(row, redis, keys, fixed):
    """`keys` keys, any, are gone: slabs that are empty then go to the pool.

    fixed  int64  so many of them have no expiry

    Source: jemalloc's src/arena.c arena_dalloc_bin_locked_handle_newly_empty.
    """
    keys = min(keys, redis[LIVE])
    left = slabs_left(redis[SLABS], redis[SLAB] >> 16, redis[LIVE], keys)
    redis[LIVE] -= keys
    redis[FIXED] -= min(fixed, redis[FIXED])
    freed = (redis[SLABS] - left) * (redis[SLAB] & 0xFFFF)
    redis[SLABS] = left
    if freed > 0:
        redis[POOL] += freed
        redis[POOL_FIRST] = redis[POOL]
        redis[POOL_NS] = row["now_ns"]


@law
def purge(row, th, redis):
    """Give back of the pool what jemalloc does not keep any more.

    Source: jemalloc's src/pac.c pac_maybe_decay_purge (MADV_DONTNEED).
    """
    if redis[POOL] == 0 or redis[CHILD] > 0:
        return
    over = redis[POOL] - pool_left(redis[POOL_FIRST], row["now_ns"] - redis[POOL_NS])
    if over > 0:
        a = redis[VALUES] - 1
        free_range(row, th, a, 0, PART_LAST, min(over, row["areas"][a]["touched"]))
        redis[POOL] -= over


@law
def look(row, th, a, accesses, write, shared):
    """Random accesses to what is touched of area `a`.

    shared   bool   a fork may have left it shared: it then knows its whole length only, and accesses are spread as if over that
    returns  int64  accesses done; 0: come back; −1: the process dies

    Source: linux/wp_page.py for the second sentence.
    """
    touched, pages = row["areas"][a]["touched"], row["areas"][a]["pages"]
    if touched == 0:
        return accesses
    if not shared or touched == pages:
        return access(row, th, a, 0, accesses, 0, write)
    spread = max(1, accesses * pages // touched)
    done = access(row, th, a, 0, spread, 0, write)
    return done if done <= 0 else max(1, accesses * done // spread)
