# SPDX-License-Identifier: Apache-2.0
"""Whole huge pages of Google's tcmalloc: those from the kernel without memory behind them, and a cache of backed ones.

Address space comes in regions of 1 GiB that are handed out from their ends down. A huge page that becomes free stays backed in the
cache if the cache is below its limit: ten huge pages at least, more as the use of the last second rose and fell; what is beyond goes
back to the kernel at once.
Limits: of free runs the shortest that fits is taken, the lowest of such; life searches a randomised tree for it and may miss it.
Source: google/tcmalloc at fce3f55, huge_allocator.cc, huge_cache.cc, internal/system_allocator.h; kernel-laws §15.3.
"""

from __future__ import annotations

from fleetsim.allocators.google_tcmalloc_series import over_time, report
from fleetsim.allocators.google_tcmalloc_sizes import HUGE_PAGES
from fleetsim.allocators.google_tcmalloc_span import unback
from fleetsim.allocators.google_tcmalloc_tables import CACHED, OFF_PEAK, SIZE, TAKEN, UNBACKED, USAGE
from fleetsim.law import law

REGION = 512  # huge pages
CACHE_NS = 1_000_000_000
LEAST_LIMIT = 10


@law
def find_run(heap, kind, count):
    """The shortest run of at least `count` huge pages of one kind, the lowest of such.

    returns  (int64 its first, −1: none; int64 its length)

    Source: huge_cache.cc Find; huge_allocator.cc Find.
    """
    best, best_length, h, end = -1, 1 << 62, 1, heap.state[0]["end"]
    while h < end:
        if heap.huge[h] != kind:
            h += 1
            continue
        begin = h
        while h < end and heap.huge[h] == kind:
            h += 1
        if count <= h - begin < best_length:
            best, best_length = begin, h - begin
    return best, best_length


@law
def set_run(heap, first, count, kind):
    """`count` huge pages from `first` on are of this kind now.

    Source: huge_address_map.cc Insert, Remove.
    """
    for h in range(first, first + count):
        heap.huge[h] = kind


@law
def from_system(heap, count):
    """`count` more huge pages of address space, without memory behind them.

    Source: internal/system_allocator.h AllocateFromRegion, MmapRegion::Alloc; huge_allocator.cc AllocateRange.
    """
    row = heap.state[0]
    if count > REGION:
        start = row["end"]
        row["end"] += count + 1  # a huge page between regions: they are apart in life
        row["reserved"] += count
    else:
        if row["region_free"] < count:
            row["region_start"], row["region_free"] = row["end"], REGION
            row["end"] += REGION + 1
            row["reserved"] += REGION
        row["region_free"] -= count
        start = row["region_start"] + row["region_free"]
    set_run(heap, start, count, UNBACKED)
    row["system"] += count
    row["unbacked"] += count


@law
def unbacked_get(heap, count):
    """`count` huge pages in a row without memory behind them.

    returns  int64  the first

    Source: huge_allocator.cc Get.
    """
    first, _ = find_run(heap, UNBACKED, count)
    if first < 0:
        from_system(heap, count)
        first, _ = find_run(heap, UNBACKED, count)
    set_run(heap, first, count, TAKEN)
    heap.state[0]["unbacked"] -= count
    return first


@law
def unbacked_put(heap, first, count):
    """Huge pages without memory behind them are free.

    Source: huge_allocator.cc Release.
    """
    set_run(heap, first, count, UNBACKED)
    heap.state[0]["unbacked"] += count


@law
def shrink_cache(heap, target):
    """The cache gives huge pages back to the kernel until it holds `target`, the shortest runs first.

    returns  int64  how many

    Source: huge_cache.cc ShrinkCache.
    """
    row, removed = heap.state[0], 0
    while row["cached"] > target:
        first, length = find_run(heap, CACHED, 1)
        length = min(length, row["cached"] - target)
        row["cached"] -= length
        unback(heap, first * HUGE_PAGES, length * HUGE_PAGES)
        unbacked_put(heap, first, length)
        removed += length
    return removed


@law
def lower_limit(heap):
    """The cache's limit falls by half of what it has held throughout the last two seconds, if that is a fifth of it.

    returns  int64  huge pages given back to the kernel

    Source: huge_cache.cc MaybeShrinkCacheLimit.
    """
    row = heap.state[0]
    row["limit_changed"] = row["now"]
    least, _, _, _ = over_time(heap, SIZE, 2 * CACHE_NS)
    if least < row["limit"] // 5:
        return 0
    drop = max(least // 2, 1)
    row["limit"] = max(row["limit"] - drop, LEAST_LIMIT)
    return shrink_cache(heap, row["limit"])


@law
def raise_limit(heap):
    """The cache missed: its limit rises to what would have spared the last second's dip, and a tenth.

    Source: huge_cache.cc MaybeGrowCacheLimit.
    """
    row = heap.state[0]
    _, shrink, _, _ = over_time(heap, OFF_PEAK, CACHE_NS)
    least, _, _, _ = over_time(heap, USAGE, CACHE_NS)
    dip = min(shrink, row["usage"] - least)
    if dip + dip // 10 > row["limit"]:
        row["limit"], row["limit_changed"] = dip + dip // 10, row["now"]


@law
def cache_get(heap, count):
    """`count` huge pages in a row, backed ones if the cache has them.

    returns  int64  the first

    Source: huge_cache.cc Get, DoGet, IncUsage.
    """
    row = heap.state[0]
    first, _ = find_run(heap, CACHED, count)
    missed = first < 0
    if missed:
        first = unbacked_get(heap, count)
    else:
        row["cached"] -= count
        report(heap, SIZE, row["cached"])
        set_run(heap, first, count, TAKEN)
    row["usage"] += count
    report(heap, USAGE, row["usage"])
    report(heap, OFF_PEAK, 0)
    if missed:
        raise_limit(heap)
    return first


@law
def less_usage(heap, count):
    """`count` huge pages are not used any more.

    Source: huge_cache.cc DecUsage.
    """
    row = heap.state[0]
    row["usage"] -= count
    report(heap, USAGE, row["usage"])
    _, most, _, _ = over_time(heap, USAGE, CACHE_NS)
    report(heap, OFF_PEAK, most - row["usage"])


@law
def cache_put(heap, first, count):
    """Backed huge pages are free: the cache keeps them as far as its limit lets it.

    Source: huge_cache.cc Release.
    """
    row = heap.state[0]
    less_usage(heap, count)
    set_run(heap, first, count, CACHED)
    row["cached"] += count
    if row["now"] - row["limit_changed"] > 2 * CACHE_NS:
        lower_limit(heap)
    shrink_cache(heap, row["limit"])
    report(heap, SIZE, row["cached"])


@law
def cache_put_unbacked(heap, h):
    """Huge page `h`, given back to the kernel in parts before, is free.

    Source: huge_cache.cc ReleaseUnbacked.
    """
    less_usage(heap, 1)
    unbacked_put(heap, h, 1)


@law
def cache_release(heap, count):
    """The cache gives about `count` huge pages back to the kernel.

    returns  int64  how many

    Source: huge_cache.cc ReleaseCachedPages.
    """
    row = heap.state[0]
    released = lower_limit(heap)
    if released < count:
        released += shrink_cache(heap, max(0, row["cached"] - (count - released)))
    report(heap, SIZE, row["cached"])
    return released
