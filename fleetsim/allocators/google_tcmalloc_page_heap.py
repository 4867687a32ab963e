# SPDX-License-Identifier: Apache-2.0
"""The huge-page-aware page heap of Google's tcmalloc: who gets pages from where, and what goes back to the kernel on demand.

Up to half a huge page the filler serves; up to 1 GiB a block gets whole huge pages and donates the rest of the last to the filler,
unless regions have begun; a multiple of huge pages gets just these. Nothing goes back by itself but what the huge cache cannot hold.
Leaves out: heap limits (they release as a request of the program does), memory for sampled and for cold blocks.
Source: google/tcmalloc at fce3f55, huge_page_aware_allocator.h, static_vars.h ConstantRatePageAllocatorReleaser, stats.cc
PageAllocInfo; docs/temeraire.md; kernel-laws §15.3.
"""

from __future__ import annotations

from fleetsim.allocators.google_tcmalloc_filler import contribute, filler_get, filler_put, filler_release
from fleetsim.allocators.google_tcmalloc_huge import cache_get, cache_put, cache_put_unbacked, cache_release
from fleetsim.allocators.google_tcmalloc_region import region_add, region_get, region_put, region_release
from fleetsim.allocators.google_tcmalloc_sizes import HUGE_PAGES, PAGE, PAGE_SHIFT
from fleetsim.allocators.google_tcmalloc_tables import REGION_PAGES
from fleetsim.allocators.google_tcmalloc_tracker import start_tracker, tracker_get
from fleetsim.law import law

SMALL_PAGES = HUGE_PAGES // 2
REGIONS_FROM = (64 << 20) >> PAGE_SHIFT  # pages that large blocks waste, from where regions are used


@law
def slack_of(pages):
    """Pages that a large span leaves in its last huge page.

    Source: stats.cc PageAllocInfo::RecordAlloc, RecordFree.
    """
    return -pages % HUGE_PAGES if pages > SMALL_PAGES else 0


@law
def take_part(heap, h, pages, donated, dense):
    """The first `pages` pages of huge page `h` are used, the rest is the filler's.

    returns  int64  page number

    Source: huge_page_aware_allocator.h AllocAndContribute.
    """
    start_tracker(heap, h, donated, dense)
    if donated == 1:
        heap.trackers[h]["abandoned_count"] = pages
    page, _ = tracker_get(heap, h, pages)
    contribute(heap, h, dense)
    return page


@law
def raw_huge_pages(heap, pages):
    """Whole huge pages for a span of `pages` pages.

    returns  (int64 page number, int64 1 if its last huge page went to the filler)

    Source: huge_page_aware_allocator.h AllocRawHugepages.
    """
    count = (pages + HUGE_PAGES - 1) // HUGE_PAGES
    first = cache_get(heap, count)
    slack = count * HUGE_PAGES - pages
    if slack == 0:
        return first * HUGE_PAGES, 0
    heap.state[0]["donated"] += 1
    take_part(heap, first + count - 1, HUGE_PAGES - slack, 1, 0)
    return first * HUGE_PAGES, 1


@law
def large_pages(heap, pages):
    """Pages for a span of more than half a huge page and at most a region.

    returns  (int64 page number, int64 1 if its last huge page went to the filler)

    Source: huge_page_aware_allocator.h AllocLarge.
    """
    row = heap.state[0]
    if pages % HUGE_PAGES == 0:
        return raw_huge_pages(heap, pages)
    if pages < HUGE_PAGES:
        page = filler_get(heap, pages, 0)
        if page >= 0:
            return page, 0
    page = region_get(heap, pages)
    if page >= 0:
        return page, 0
    if row["slack"] + row["abandoned"] < REGIONS_FROM or row["regions"] == len(heap.regions):
        return raw_huge_pages(heap, pages)
    region_add(heap)
    return region_get(heap, pages), 0


@law
def new_pages(heap, pages, alignment, dense):
    """Pages for a span, `alignment` pages aligned.

    dense    int64  1 if it will hold many objects
    returns  (int64 page number, int64 1 if its last huge page went to the filler)

    Source: huge_page_aware_allocator.h New, NewAligned, LockAndAlloc, AllocSmall, RefillFiller.
    """
    if alignment > 1:
        page, donated = raw_huge_pages(heap, pages)
    elif pages <= SMALL_PAGES:
        page, donated = filler_get(heap, pages, dense), 0
        if page < 0:
            page = take_part(heap, cache_get(heap, 1), pages, 0, dense)
    elif pages <= REGION_PAGES:
        page, donated = large_pages(heap, pages)
    else:
        page, donated = raw_huge_pages(heap, pages)
    heap.state[0]["slack"] += slack_of(pages)
    return page, donated


@law
def release_huge_page(heap, h):
    """Huge page `h` of the filler is wholly free.

    Source: huge_page_aware_allocator.h ReleaseHugepage.
    """
    row, tracker = heap.state[0], heap.trackers[h]
    if tracker["was_donated"] == 1:
        row["donated"] -= 1
        if tracker["abandoned"] == 1:
            row["abandoned"] -= tracker["abandoned_count"]
    tracker["exists"] = 0
    if tracker["released_count"] > 0:
        cache_put_unbacked(heap, h)
    else:
        cache_put(heap, h, 1)


@law
def abandon(heap, h):
    """The large block that donated the rest of huge page `h` is freed, and the rest still in use.

    Source: huge_page_aware_allocator.h DeleteFromHugepage, Delete.
    """
    tracker = heap.trackers[h]
    heap.state[0]["abandoned"] += tracker["abandoned_count"]
    tracker["abandoned"] = 1


@law
def delete_pages(heap, page, pages, donated, dense):
    """A span's pages are free.

    Source: huge_page_aware_allocator.h Delete.
    """
    row = heap.state[0]
    row["slack"] -= slack_of(pages)
    h = page // HUGE_PAGES
    if heap.trackers[h]["exists"] == 1 and (pages < HUGE_PAGES):
        if filler_put(heap, h, page, pages):
            release_huge_page(heap, h)
        elif donated == 1:
            abandon(heap, h)
        return
    if region_put(heap, page, pages):
        return
    count = (pages + HUGE_PAGES - 1) // HUGE_PAGES
    here = pages % HUGE_PAGES
    if here > 0:
        last = h + count - 1
        if not filler_put(heap, last, last * HUGE_PAGES, here):
            abandon(heap, last)
            count -= 1
        elif heap.trackers[last]["released_count"] > 0:
            release_huge_page(heap, last)
            count -= 1
        else:
            row["donated"] -= 1
            heap.trackers[last]["exists"] = 0
    cache_put(heap, h, count)


@law
def release_to_system(heap, size):
    """The program, or the background thread, asks for `size` bytes to go back to the kernel.

    returns  int64  bytes that did, beyond what an earlier request had got too much

    Source: static_vars.h ConstantRatePageAllocatorReleaser::Release; huge_page_aware_allocator.h ReleaseAtLeastNPages.
    """
    row = heap.state[0]
    if size <= row["released_extra"]:
        row["released_extra"] -= size
        size = 0
    else:
        size -= row["released_extra"]
    pages = (size + PAGE - 1) // PAGE
    released = cache_release(heap, (pages + HUGE_PAGES - 1) // HUGE_PAGES) * HUGE_PAGES
    released += region_release(heap)
    if heap.options[0]["subrelease"] == 1 and released < pages:
        released += filler_release(heap, pages - released)
    row["released_extra"] = max(0, released * PAGE - size)
    return min(size, released * PAGE)
