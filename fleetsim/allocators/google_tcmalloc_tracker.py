# SPDX-License-Identifier: Apache-2.0
"""Trackers of Google's tcmalloc: which pages of a huge page of the filler are in use, and which were given back to the kernel.

Source: google/tcmalloc at fce3f55, huge_page_tracker.h, internal/range_tracker.h; kernel-laws §15.3.
"""

from __future__ import annotations

from fleetsim.allocators.google_tcmalloc_sizes import HUGE_PAGES
from fleetsim.allocators.google_tcmalloc_span import unback
from fleetsim.law import law


@law
def start_tracker(heap, h, donated, dense):
    """Huge page `h` begins in the filler, all of it free and backed.

    Source: huge_page_tracker.h PageTracker; huge_page_filler.h Contribute.
    """
    tracker = heap.trackers[h]
    for p in range(HUGE_PAGES):
        tracker["used"][p] = tracker["released"][p] = 0
    tracker["exists"], tracker["in_use"], tracker["allocations"], tracker["longest"] = 1, 0, 0, HUGE_PAGES
    tracker["released_count"], tracker["dense"] = 0, dense
    tracker["donated"] = tracker["was_donated"] = donated
    tracker["abandoned"] = tracker["abandoned_count"] = 0


@law
def mark_range(used, first, end, pages):
    """Use `pages` pages of the shortest free run in used[first:end] that holds them, the lowest of such.

    used     uint8[]  1: in use
    returns  (int64 first page used, int64 longest free run after)

    Source: internal/range_tracker.h FindAndMark.
    """
    longest, second, best, best_length = 0, 0, -1, 1 << 62
    i = first
    while i < end:
        if used[i] != 0:
            i += 1
            continue
        begin = i
        while i < end and used[i] == 0:
            i += 1
        length = i - begin
        if length > longest:
            longest, second = length, longest
        elif length > second:
            second = length
        if pages <= length < best_length:
            best, best_length = begin, length
    for p in range(best, best + pages):
        used[p] = 1
    if best_length == longest:
        longest = max(longest - pages, second)
    return best, longest


@law
def unmark_range(used, first, end, begin, pages):
    """Pages used[begin:begin + pages] are free.

    returns  int64  how long the free run around them is, within used[first:end]

    Source: internal/range_tracker.h Unmark.
    """
    for p in range(begin, begin + pages):
        used[p] = 0
    low, high = begin, begin + pages
    while low > first and used[low - 1] == 0:
        low -= 1
    while high < end and used[high] == 0:
        high += 1
    return high - low


@law
def tracker_get(heap, h, pages):
    """Use `pages` pages of huge page `h`, which has a free run of that length.

    returns  (int64 page number, int64 pages of it that were not backed)

    Source: huge_page_tracker.h Get.
    """
    tracker = heap.trackers[h]
    first, longest = mark_range(tracker["used"], 0, HUGE_PAGES, pages)
    tracker["longest"] = longest
    tracker["in_use"] += pages
    tracker["allocations"] += 1
    unbacked = 0
    if tracker["released_count"] > 0:
        for p in range(first, first + pages):
            unbacked += int(tracker["released"][p])
            tracker["released"][p] = 0
        tracker["released_count"] -= unbacked
    return h * HUGE_PAGES + first, unbacked


@law
def tracker_put(heap, h, page, pages):
    """Pages of huge page `h` are free again.

    Source: huge_page_tracker.h Put.
    """
    tracker = heap.trackers[h]
    run = unmark_range(tracker["used"], 0, HUGE_PAGES, page - h * HUGE_PAGES, pages)
    tracker["longest"] = max(tracker["longest"], run)
    tracker["in_use"] -= pages
    tracker["allocations"] -= 1


@law
def release_free(heap, h):
    """All free pages of huge page `h` go back to the kernel.

    returns  int64  how many were backed until now

    Source: huge_page_tracker.h ReleaseFree.
    """
    tracker, count = heap.trackers[h], 0
    for p in range(HUGE_PAGES):
        if tracker["used"][p] == 0 and tracker["released"][p] == 0:
            tracker["released"][p] = 1
            unback(heap, h * HUGE_PAGES + p, 1)
            count += 1
    tracker["released_count"] += count
    return count
