# SPDX-License-Identifier: Apache-2.0
"""The huge page filler of Google's tcmalloc: packs spans of less than a huge page so that huge pages become wholly used or wholly free.

A request is served from the huge page with the shortest longest free run, and of those with the most spans in it; huge pages for
spans of many objects are kept apart, those with the most spans first. The tails of large blocks (donated) come next, then huge
pages of which parts were given back to the kernel. On demand the emptiest lose their free pages (subrelease), but not what the
demand of the last minutes says will be needed again.
Limits: which of equally used huge pages loses pages first is std::sort's choice in life, the order of the lists here.
Source: google/tcmalloc at fce3f55, huge_page_filler.h, hinted_tracker_lists.h; docs/temeraire.md; kernel-laws §15.3.
"""

from __future__ import annotations

from fleetsim.allocators.google_tcmalloc_series import over_time, report
from fleetsim.allocators.google_tcmalloc_sizes import HUGE_PAGES
from fleetsim.allocators.google_tcmalloc_span import unback
from fleetsim.allocators.google_tcmalloc_tables import CHUNKS, DEMAND, DONATED, GROUP, KIND_LISTS, PARTIAL, REGULAR, RELEASED
from fleetsim.allocators.google_tcmalloc_tracker import release_free, tracker_get, tracker_put
from fleetsim.law import law

CAP_NS = 600_000_000_000  # demand further back caps nothing
PARTIAL_SHARE = 10  # a release takes at least a tenth of what partly released huge pages have left


@law
def kind_of(tracker):
    """Which lists a huge page that holds spans is on, dense or sparse.

    Source: huge_page_filler.h AddToFillerList.
    """
    if tracker["released_count"] == 0:
        return REGULAR + tracker["dense"]
    if HUGE_PAGES - tracker["in_use"] <= tracker["released_count"]:
        return RELEASED + tracker["dense"]
    return PARTIAL + tracker["dense"]


@law
def index_of(tracker):
    """Which of these lists: the first that can serve a request is the one to be asked.

    Source: huge_page_filler.h IndexFor, SparseListFor, DenseListFor.
    """
    if tracker["dense"] == 1:
        return (HUGE_PAGES - tracker["allocations"]) * CHUNKS
    width = 0
    while (1 << width) < tracker["allocations"]:
        width += 1  # the logarithm, rounded up
    return tracker["longest"] * CHUNKS + max(0, CHUNKS - 1 - width)


@law
def list_add(heap, kind, index, h):
    """Huge page `h` is the first of its list.

    Source: hinted_tracker_lists.h Add.
    """
    tracker, first = heap.trackers[h], heap.lists[kind, index]
    tracker["list"], tracker["next"], tracker["previous"] = kind * KIND_LISTS + index, first, -1
    if first >= 0:
        heap.trackers[first]["previous"] = h
    heap.lists[kind, index] = h
    heap.groups[kind, index // GROUP] += 1


@law
def list_remove(heap, h):
    """Huge page `h` leaves its list.

    Source: hinted_tracker_lists.h Remove.
    """
    tracker = heap.trackers[h]
    kind, index = tracker["list"] // KIND_LISTS, tracker["list"] % KIND_LISTS
    if tracker["previous"] >= 0:
        heap.trackers[tracker["previous"]]["next"] = tracker["next"]
    else:
        heap.lists[kind, index] = tracker["next"]
    if tracker["next"] >= 0:
        heap.trackers[tracker["next"]]["previous"] = tracker["previous"]
    heap.groups[kind, index // GROUP] -= 1


@law
def list_least(heap, kind, index):
    """The first huge page of the first list from `index` on that has any, −1: none.

    Source: hinted_tracker_lists.h GetLeast.
    """
    while index < KIND_LISTS:
        if heap.groups[kind, index // GROUP] == 0:
            index = (index // GROUP + 1) * GROUP
            continue
        if heap.lists[kind, index] >= 0:
            return heap.lists[kind, index]
        index += 1
    return -1


@law
def to_filler_list(heap, h):
    """Huge page `h` is on the list that suits it; once used for spans it is no donation any more.

    Source: huge_page_filler.h AddToFillerList.
    """
    tracker = heap.trackers[h]
    tracker["donated"] = 0
    list_add(heap, kind_of(tracker), index_of(tracker), h)


@law
def contribute(heap, h, dense):
    """Huge page `h`, some of it used, begins in the filler.

    Source: huge_page_filler.h Contribute, DonateToFillerList.
    """
    row, tracker = heap.state[0], heap.trackers[h]
    row["used"][dense] += tracker["in_use"]
    if tracker["donated"] == 1:
        list_add(heap, DONATED, tracker["longest"], h)
    else:
        to_filler_list(heap, h)
    row["trackers"] += 1
    report(heap, DEMAND, row["used"][0] + row["used"][1])


@law
def filler_get(heap, pages, dense):
    """`pages` pages, fewer than a huge page has, of a huge page in the filler.

    returns  int64  page number, −1: no huge page has them

    Source: huge_page_filler.h TryGet.
    """
    row = heap.state[0]
    index = CHUNKS if dense == 1 else pages * CHUNKS
    h = list_least(heap, REGULAR + dense, index)
    if h < 0 and dense == 0:
        h = list_least(heap, DONATED, pages)
    if h < 0:
        h = list_least(heap, PARTIAL + dense, index)
    if h < 0:
        h = list_least(heap, RELEASED + dense, index)
    if h < 0:
        return -1
    list_remove(heap, h)
    page, unbacked = tracker_get(heap, h, pages)
    to_filler_list(heap, h)
    row["used"][dense] += pages
    row["unmapped"] -= unbacked
    report(heap, DEMAND, row["used"][0] + row["used"][1])
    return page


@law
def filler_put(heap, h, page, pages):
    """Pages of huge page `h` are free again.

    returns  bool  all of it is, and it has left the filler

    Source: huge_page_filler.h Put.
    """
    row, tracker = heap.state[0], heap.trackers[h]
    list_remove(heap, h)
    tracker_put(heap, h, page, pages)
    row["used"][tracker["dense"]] -= pages
    empty = tracker["longest"] == HUGE_PAGES
    if empty:
        row["trackers"] -= 1
        if tracker["released_count"] > 0:  # what is left of it follows, so that it is whole again
            row["unmapped"] -= tracker["released_count"]
            row["unaccounted"] += HUGE_PAGES - tracker["released_count"]
            unback(heap, h * HUGE_PAGES, HUGE_PAGES)
    else:
        to_filler_list(heap, h)
    report(heap, DEMAND, row["used"][0] + row["used"][1])
    return empty


@law
def wanted_after_demand(heap, desired, released):
    """How many pages a release takes, if what the last minutes needed must stay.

    desired, released  pages asked for, and of them already released

    Source: huge_page_filler.h GetDesiredSubreleasePages; huge_page_subrelease.h GetRecentDemand.
    """
    row, o = heap.state[0], heap.options[0]
    if o["skip_short_ns"] == 0 and o["skip_long_ns"] == 0:
        return desired
    used = row["used"][0] + row["used"][1]
    report(heap, DEMAND, used)
    _, _, _, swing = over_time(heap, DEMAND, o["skip_short_ns"])
    _, _, trend, _ = over_time(heap, DEMAND, o["skip_long_ns"])
    _, peak, _, _ = over_time(heap, DEMAND, CAP_NS)
    required = min(peak, swing + trend)
    now = row["trackers"] * HUGE_PAGES - row["unmapped"]
    return min(desired, released + max(0, now - required)) if required != 0 else desired


@law
def emptiest(heap, first_kind, last_kind):
    """The huge page with the fewest pages in use that has backed free ones, of two kinds of lists; a sparse one before a dense.

    returns  int64  its number, −1: none

    Source: huge_page_filler.h SelectCandidates, CompareForSubrelease.
    """
    best, least = -1, 1 << 62
    for h in range(1, heap.state[0]["end"]):
        tracker = heap.trackers[h]
        if tracker["exists"] == 1 and tracker["in_use"] + tracker["released_count"] < HUGE_PAGES:
            kind = tracker["list"] // KIND_LISTS
            order = 2 * tracker["in_use"] + tracker["dense"]
            if kind in (first_kind, first_kind + 1, last_kind) and order < least:
                best, least = h, order
    return best


@law
def partial_pages(heap):
    """Backed free pages of huge pages of which others were given back.

    Source: huge_page_filler.h FreePagesInPartialAllocs.
    """
    count = 0
    for h in range(1, heap.state[0]["end"]):
        tracker = heap.trackers[h]
        if tracker["exists"] == 1 and tracker["released_count"] > 0:
            count += HUGE_PAGES - tracker["in_use"] - tracker["released_count"]
    return count


@law
def filler_release(heap, desired):
    """About `desired` pages go back to the kernel: those of huge pages already broken first, then of the emptiest.

    returns  int64  how many did

    Source: huge_page_filler.h ReleasePages, ReleaseCandidates.
    """
    row = heap.state[0]
    desired = max(desired, partial_pages(heap) // PARTIAL_SHARE)
    released = row["unaccounted"]
    row["unaccounted"] = 0
    if released >= desired:
        return released
    desired = wanted_after_demand(heap, desired, released)
    for first, last in ((PARTIAL, PARTIAL), (REGULAR, DONATED)):
        while released < desired:
            h = emptiest(heap, first, last)
            if h < 0:
                break
            list_remove(heap, h)
            count = release_free(heap, h)
            row["unmapped"] += count
            released += count
            to_filler_list(heap, h)
    return released
