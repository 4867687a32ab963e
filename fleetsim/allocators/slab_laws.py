# SPDX-License-Identifier: Apache-2.0
"""jemalloc and tcmalloc in formulas: what a loop of malloc or free leaves in slabs (tcmalloc: spans) of size classes.

Blocks of a loop are taken as uniform between two sizes; expected values, no luck. Shares and chances are 30-bit fixed point.
Source: jemalloc 5.3.0 and gperftools 2.10, as in jemalloc_*.py and tcmalloc_*.py; the tie is tests/allocators/test_slab_model.py.
"""

from __future__ import annotations

from fleetsim.allocators.jemalloc_decay import SMOOTHSTEP, SMOOTHSTEP_BITS
from fleetsim.allocators.jemalloc_sizes import page_class, page_class_size
from fleetsim.allocators.jemalloc_tables import DECAY_STEPS
from fleetsim.law import law

ONE = 1 << 30
MIB = 1 << 20


@law
def power_q(x, n):
    """x^n for a share x.

    x        int64  30-bit fixed point, 0..1
    returns  int64  30-bit fixed point

    Source: repeated squaring.
    """
    result = ONE
    while n > 0:
        if n & 1:
            result = result * x >> 30
        x = x * x >> 30
        n >>= 1
    return result


@law
def sizes_within(least, most, above, up_to):
    """How many whole numbers of least..most lie in above+1..up_to.

    Source: arithmetic.
    """
    return max(0, min(most, up_to) - max(least, above + 1) + 1)


@law
def empty_share(freed, regions):
    """Share of full slabs that are empty once a share of all blocks is freed at random.

        freed^regions

    freed    int64  30-bit fixed point
    regions  int64  of a slab

    Source: independent chances; src/arena.c arena_dalloc_bin_locked_handle_newly_empty.
    """
    return power_q(freed, regions)


@law
def decay_share(age_ns, decay_ms):
    """Share of pages freed `age_ns` ago that jemalloc may keep, 24-bit fixed point.

    decay_ms  int64  −1: all of them for ever

    Source: src/decay.c decay_backlog_npages_limit.
    """
    if decay_ms < 0:
        return 1 << SMOOTHSTEP_BITS
    if decay_ms == 0:
        return 0
    interval = decay_ms * 1_000_000 // DECAY_STEPS
    left = DECAY_STEPS - 1 - age_ns // interval
    return SMOOTHSTEP[left] if left >= 0 else 0


@law
def kept_of_run(pages, how, whole, threshold):
    """Pages that jemalloc still keeps of `pages` freed side by side from a heap's begin, because no run of them reached `threshold`.

        Σ over mappings (2 MiB, each a class larger):  up to the threshold: all of it
                                                        else in order: what is left over a multiple of it; at random: nothing

    how        int64  2: freed at random, so that a run closes only at the end; else in the order of addresses or against it
    whole      bool   a mapping as large as the threshold is given up as well: nothing of it waits in a thread's cache
    threshold  int64  bytes (oversize_threshold)

    Source: src/extent.c extent_record (a merged extent from the threshold on is purged at once), exp_grow.c.
    """
    kept, k = 0, page_class(2 * MIB)
    left = pages * 4096
    while left > 0:
        mapping = min(left, page_class_size(k))
        left -= mapping
        k += 1
        if mapping < threshold or (mapping == threshold and not whole):
            kept += mapping
        elif how != 2:
            kept += mapping % threshold
    return kept // 4096


@law
def purged_by_chance(pages, share, block, threshold):
    """Pages that jemalloc purges at once when a share of large blocks is freed at random: runs that happen to reach `threshold`.

        Σ over mappings above the threshold (mapping − threshold) · p^n · (1 + n (1 − p)),   n = threshold / block

    pages      int64  of all the blocks
    share      int64  p, 30-bit fixed point
    block      int64  mean bytes of one
    threshold  int64  bytes

    Source: lengths of runs of independent chances; src/extent.c extent_record.
    """
    k, left, room = page_class(2 * MIB), pages * 4096, 0
    while left > 0:
        mapping = min(left, page_class_size(k))
        left -= mapping
        k += 1
        room += max(0, mapping - threshold)
    n = min(1 << 20, threshold // max(1, block))
    chance = power_q(share, n) * (ONE + n * (ONE - share) >> 10) >> 20
    return (room // 4096) * min(chance, ONE) >> 30


@law
def returned_pages(freed, rate_q):
    """Pages of 8 KiB that tcmalloc has returned to the kernel after `freed` pages of spans were freed.

        (freed − 2^18) · rate / 1000

    rate_q  int64  release rate, 1024ths

    Source: src/page_heap.cc IncrementalScavenge; the first 2^18 pages as the release rate is not known when the heap first grows.
    """
    return max(0, freed - (1 << 18)) * rate_q // (1000 * 1024)
