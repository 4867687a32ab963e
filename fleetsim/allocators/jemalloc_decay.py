# SPDX-License-Identifier: Apache-2.0
"""When jemalloc gives free pages back: by decay along a smooth step over `dirty_decay_ms`, looked at as threads use the arena.

Time is cut into 200 epochs. Each knows how many pages became free in it; the older, the fewer of them may stay. An epoch is
noticed only by a thread that happens to look (about every 1000th call that reaches the arena) or by a background thread: an
idle process keeps what it had.
Leaves out: which number a thread's generator really draws (its seed is an address); here the luck is a fixed sequence per thread.
Source: src/decay.c, pac.c, arena.c, background_thread.c, ticker.c of jemalloc 5.3.0; kernel-laws §15.2.
"""

from __future__ import annotations

import math

import numpy as np

from fleetsim.allocators.jemalloc_extents import evict, record_extent, retain_extent
from fleetsim.allocators.jemalloc_sizes import PAGE
from fleetsim.allocators.jemalloc_tables import DECAY_STEPS, DIRTY, MUZZY
from fleetsim.law import law

SMOOTHSTEP_BITS = 24
SMOOTHSTEP = np.array(
    [((6 * i**5 - 15 * i**4 * 200 + 10 * i**3 * 200**2) << SMOOTHSTEP_BITS) // 200**5 for i in range(1, DECAY_STEPS + 1)], np.int64
)
"""6x⁵ − 15x⁴ + 10x³ at x = 1/200 … 1, 24-bit fixed point."""

TICKS = 1000  # ARENA_DECAY_NTICKS_PER_UPDATE: mean number of ticks between two looks
TICKER_MULTIPLIER = 61
TICKER = np.array([round(TICKER_MULTIPLIER * math.log(64 / (i + 1))) for i in range(64)], np.int64)
"""−61 · ln u for u = 1/64 … 1: makes waiting times exponential."""

BACKGROUND_MIN_NS = 100_000_000
BACKGROUND_THRESHOLD = 1024  # pages: a background thread wakes when so many are to be purged
NEVER = 1 << 62


@law
def draw(luck, below):
    """A number 0..below−1 and the generator's next state.

    Source: own arithmetic (a 31-bit linear congruential generator); stands for include/jemalloc/internal/prng.h.
    """
    luck = (luck * 1_103_515_245 + 12_345) & 0x7FFFFFFF
    return luck * below >> 31, luck


@law
def set_deadline(decay):
    """The end of the next epoch, at random within it.

    Source: src/decay.c decay_deadline_init.
    """
    decay["deadline"] = decay["epoch"] + decay["interval"]
    if decay["ms"] > 0:
        jitter, decay["luck"] = draw(decay["luck"], decay["interval"])
        decay["deadline"] += jitter


@law
def start_decay(heap, a, state, ms):
    """Begin to count epochs: nothing is known of earlier times.

    Source: src/decay.c decay_reinit.
    """
    decay = heap.arenas[a]["decay"][state]
    decay["ms"] = ms
    decay["interval"] = max(0, ms) * 1_000_000 // DECAY_STEPS
    decay["epoch"] = heap.state[0]["now"]
    decay["luck"] = 1 + 7919 * a + state
    decay["unpurged"] = 0
    decay["limit"] = 0
    for i in range(DECAY_STEPS):
        decay["backlog"][i] = 0
    set_deadline(decay)


@law
def pages_kept(decay):
    """Pages that may stay: Σ backlog · smoothstep.

    Source: src/decay.c decay_backlog_npages_limit.
    """
    total = 0
    for i in range(DECAY_STEPS):
        total += decay["backlog"][i] * SMOOTHSTEP[i]
    return total >> SMOOTHSTEP_BITS


@law
def advance_epoch(decay, now, pages):
    """If the deadline is over, count the epochs that passed and put `pages` less those known into the newest.

    returns  bool  an epoch has begun

    Source: src/decay.c decay_maybe_advance_epoch, decay_backlog_update.
    """
    if decay["deadline"] > now:
        return False
    passed = (now - decay["epoch"]) // decay["interval"]
    decay["epoch"] += passed * decay["interval"]
    set_deadline(decay)
    shift = min(passed, DECAY_STEPS)
    for i in range(DECAY_STEPS):
        decay["backlog"][i] = decay["backlog"][i + shift] if i + shift < DECAY_STEPS else 0
    decay["backlog"][DECAY_STEPS - 1] = max(0, pages - decay["unpurged"])
    decay["limit"] = pages_kept(decay)
    decay["unpurged"] = max(decay["limit"], pages)
    return True


@law
def purge_to(heap, a, state, limit, fully):
    """Purge the extents that are free longest until at most `limit` pages are; dirty ones become muzzy unless that is off.

    Source: src/pac.c pac_decay_to_limit, pac_stash_decayed, pac_decay_stashed.
    """
    arena = heap.arenas[a]
    most = arena["pages"][state] - limit
    first, last, stashed = -1, -1, 0
    while stashed < most:
        e = evict(heap, a, state, limit)
        if e < 0:
            break
        heap.extents[e]["newer"] = -1
        if last >= 0:
            heap.extents[last]["newer"] = e
        else:
            first = e
        last = e
        stashed += heap.extents[e]["pages"]
    lazily = state == DIRTY and not fully and heap.options[0]["decay_ms"][MUZZY] != 0
    while first >= 0:
        e, first = first, heap.extents[first]["newer"]
        if lazily:
            record_extent(heap, a, MUZZY, e)
        else:
            arena["mapped"] -= heap.extents[e]["pages"] * PAGE
            retain_extent(heap, a, e)


@law
def decay_state(heap, a, state, background):
    """Look at the time: purge what is over the limit if an epoch has begun (a background thread: in any case).

    Source: src/pac.c pac_maybe_decay_purge; src/arena.c arena_decay_impl.
    """
    arena = heap.arenas[a]
    decay = arena["decay"][state]
    if decay["ms"] <= 0:
        if decay["ms"] == 0:
            purge_to(heap, a, state, 0, False)
        return
    pages = arena["pages"][state]
    advanced = advance_epoch(decay, heap.state[0]["now"], pages)
    if background or (advanced and heap.options[0]["background_thread"] == 0):
        if pages > decay["limit"]:
            purge_to(heap, a, state, decay["limit"], False)


@law
def decay_arena(heap, a, background):
    """Decay of dirty, then of muzzy pages.

    Source: src/arena.c arena_decay, arena_decay_muzzy.
    """
    decay_state(heap, a, DIRTY, background)
    arena = heap.arenas[a]
    if arena["pages"][MUZZY] > 0 or arena["decay"][MUZZY]["ms"] > 0:
        decay_state(heap, a, MUZZY, background)


@law
def tick(heap, t, a, count):
    """Thread `t` was in arena `a` for `count` blocks: about every 1000th time it looks at decay.

    Source: include/jemalloc/internal/arena_inlines_b.h arena_decay_ticks; ticker.h ticker_geom_ticks.
    """
    thread = heap.threads[t]
    thread["ticks"] -= count
    if thread["ticks"] < 0:
        k, thread["luck"] = draw(thread["luck"], 64)
        thread["ticks"] = TICKS * TICKER[k] // TICKER_MULTIPLIER
        decay_arena(heap, a, False)


@law
def purged_within(decay, epochs):
    """Pages that will be over the limit `epochs` epochs from now.

    Source: src/decay.c decay_npurge_after_interval.
    """
    total = 0
    for i in range(DECAY_STEPS):
        total += decay["backlog"][i] * (SMOOTHSTEP[i] - (SMOOTHSTEP[i - epochs] if i >= epochs else 0))
    return total >> SMOOTHSTEP_BITS


@law
def time_until_purge(decay, pages):
    """How long a background thread may sleep, ns; NEVER: until something is freed.

    Source: src/decay.c decay_ns_until_purge.
    """
    if decay["ms"] <= 0:
        return NEVER
    if pages == 0 and decay["backlog"].max() == 0:
        return NEVER
    if pages <= BACKGROUND_THRESHOLD:
        return decay["interval"] * DECAY_STEPS
    low, high = 2, DECAY_STEPS
    at_low, at_high = purged_within(decay, low), purged_within(decay, high)
    if at_low > BACKGROUND_THRESHOLD:
        return decay["interval"] * low
    if at_high < BACKGROUND_THRESHOLD:
        return decay["interval"] * high
    while at_low + BACKGROUND_THRESHOLD < at_high and low + 2 < high:
        middle = (low + high) // 2
        at_middle = purged_within(decay, middle)
        if at_middle > BACKGROUND_THRESHOLD:
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle
    return decay["interval"] * (high + low) // 2


@law
def background_look(heap, a):
    """The background thread looks at arena `a` now and says when it will again; woken from an endless sleep it only does the latter.

    Source: src/background_thread.c background_work_sleep_once. Leaves out: that one thread serves every fourth arena.
    """
    arena = heap.arenas[a]
    if arena["wake"] >= 0:
        decay_arena(heap, a, True)
    wait = min(
        time_until_purge(arena["decay"][DIRTY], arena["pages"][DIRTY]), time_until_purge(arena["decay"][MUZZY], arena["pages"][MUZZY])
    )
    arena["wake"] = -1 if wait == NEVER else heap.state[0]["now"] + max(wait, BACKGROUND_MIN_NS)


@law
def after_free(heap, a):
    """An extent became free: with a decay time of 0 it is purged now; a background thread asleep for good is woken.

    Source: src/arena.c arena_handle_deferred_work.
    """
    arena = heap.arenas[a]
    if arena["decay"][DIRTY]["ms"] == 0:
        purge_to(heap, a, DIRTY, 0, True)
    if heap.options[0]["background_thread"] and arena["wake"] < 0:
        background_look(heap, a)


@law
def pass_time(heap, until):
    """Let time pass until `until` ns: nothing happens but what background threads do.

    Source: src/background_thread.c background_work_sleep_once.
    """
    row = heap.state[0]
    while heap.options[0]["background_thread"]:
        first = -1
        for a in range(len(heap.arenas)):
            arena = heap.arenas[a]
            if arena["used"] and 0 <= arena["wake"] <= until and (first < 0 or arena["wake"] < heap.arenas[first]["wake"]):
                first = a
        if first < 0:
            break
        row["now"] = max(row["now"], heap.arenas[first]["wake"])
        background_look(heap, first)
    row["now"] = until
