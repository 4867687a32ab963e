# SPDX-License-Identifier: Apache-2.0
"""Huge regions of Google's tcmalloc: 1 GiB in which large blocks lie without regard to huge pages.

They begin when what large blocks leave unused in their last huge pages exceeds 64 MiB. What is freed in them stays backed until
a release takes a tenth of the wholly free huge pages.
Source: google/tcmalloc at fce3f55, huge_region.h; docs/regions-are-not-optional.md; kernel-laws §15.3.
"""

from __future__ import annotations

from fleetsim.allocators.google_tcmalloc_huge import REGION, unbacked_get
from fleetsim.allocators.google_tcmalloc_sizes import HUGE_PAGES
from fleetsim.allocators.google_tcmalloc_span import unback
from fleetsim.allocators.google_tcmalloc_tables import REGION_PAGES
from fleetsim.allocators.google_tcmalloc_tracker import mark_range, unmark_range
from fleetsim.law import law

RELEASE_SHARE = 10


@law
def region_add(heap):
    """One more region, without memory behind it.

    Source: huge_page_aware_allocator.h AddRegion; huge_region.h Contribute.
    """
    row = heap.state[0]
    r = row["regions"]
    row["regions"] += 1
    region = heap.regions[r]
    region["start"], region["longest"] = unbacked_get(heap, REGION), REGION_PAGES
    for i in range(REGION):
        region["is_backed"][i] = region["pages_used"][i] = 0
    row["region_order"][r] = r
    sort_regions(heap)


@law
def sort_regions(heap):
    """The region with the shortest longest free run is asked first; equals keep their order.

    Source: huge_region.h HugeRegionSet Rise, Fall.
    """
    order = heap.state[0]["region_order"]
    for i in range(1, heap.state[0]["regions"]):
        r, j = order[i], i
        while j > 0 and heap.regions[order[j - 1]]["longest"] > heap.regions[r]["longest"]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = r


@law
def count_use(heap, r, begin, pages, change):
    """Pages of region `r` are used (change 1) or free (−1): a huge page is backed with its first page in use, and stays so.

    Source: huge_region.h Inc, Dec.
    """
    region = heap.regions[r]
    for p in range(begin, begin + pages):
        i = p // HUGE_PAGES
        if change > 0 and region["pages_used"][i] == 0:
            if region["is_backed"][i] == 1:
                region["free_backed"] -= 1
            else:
                region["is_backed"][i] = 1
                region["backed"] += 1
        region["pages_used"][i] += change
        if change < 0 and region["pages_used"][i] == 0:
            region["free_backed"] += 1
    region["in_use"] += change * pages


@law
def region_get(heap, pages):
    """`pages` pages of a region.

    returns  int64  page number, −1: no region has them

    Source: huge_region.h HugeRegionSet MaybeGet, HugeRegion MaybeGet.
    """
    row = heap.state[0]
    for j in range(row["regions"]):
        r = row["region_order"][j]
        region = heap.regions[r]
        if region["longest"] < pages:
            continue
        # behind the highest page in use all is free: that run is looked at as far as it can matter
        end = min(REGION_PAGES, region["high"] + pages)
        tail = REGION_PAGES - region["high"]
        first, longest = mark_range(heap.region_used[r], 0, end, pages) if end < REGION_PAGES else (-1, -1)
        if first < 0 or first + pages > region["high"]:
            if end < REGION_PAGES:  # it was cut short: undo and look at all of it
                for p in range(first, first + pages):
                    heap.region_used[r][p] = 0
            first, longest = mark_range(heap.region_used[r], 0, REGION_PAGES, pages)
        else:
            longest = max(longest, tail)
        region["high"] = max(region["high"], first + pages)
        region["longest"] = longest
        count_use(heap, r, first, pages, 1)
        sort_regions(heap)
        return region["start"] * HUGE_PAGES + first
    return -1


@law
def region_put(heap, page, pages):
    """Pages of a region are free.

    returns  bool  they were one's

    Source: huge_region.h HugeRegionSet MaybePut, HugeRegion Put.
    """
    row = heap.state[0]
    for j in range(row["regions"]):
        r = row["region_order"][j]
        region = heap.regions[r]
        begin = page - region["start"] * HUGE_PAGES
        if 0 <= begin < REGION_PAGES:
            run = unmark_range(heap.region_used[r], 0, REGION_PAGES, begin, pages)
            region["longest"] = max(region["longest"], run)
            count_use(heap, r, begin, pages, -1)
            sort_regions(heap)
            return True
    return False


@law
def region_release(heap):
    """A tenth of the regions' wholly free backed pages goes back to the kernel, rounded up to huge pages.

    returns  int64  pages

    Source: huge_region.h HugeRegionSet ReleasePages, HugeRegion Release.
    """
    row = heap.state[0]
    free = 0
    for r in range(row["regions"]):
        free += heap.regions[r]["free_backed"]
    target, released = free * HUGE_PAGES // RELEASE_SHARE, 0
    for j in range(row["regions"]):
        region = heap.regions[row["region_order"][j]]
        for i in range(REGION):
            if released >= target:
                break
            if region["is_backed"][i] == 1 and region["pages_used"][i] == 0:
                region["is_backed"][i] = 0
                region["backed"] -= 1
                region["free_backed"] -= 1
                unback(heap, (region["start"] + i) * HUGE_PAGES, HUGE_PAGES)
                released += HUGE_PAGES
    return released
