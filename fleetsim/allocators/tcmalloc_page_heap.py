# SPDX-License-Identifier: Apache-2.0
"""tcmalloc's page heap: free spans by length, normal ones (populated) and returned ones apart, and the slow way back to the kernel.

A span is cut from the shortest list that has one, of equal length rather a normal one. Freed spans merge with neighbours of
their kind. Every 1000 pages freed (at rate 1) one page is worth returning, so one span is; a rate of 0 returns nothing.
Leaves out: a limit of the heap, memory that metadata takes between two growths of the heap, huge pages.
Source: src/page_heap.cc of gperftools 2.10; kernel-laws §15.3.
"""

from __future__ import annotations

from fleetsim.allocators.tcmalloc_sizes import PAGE_SHIFT
from fleetsim.allocators.tcmalloc_tables import IN_USE, MAX_PAGES, NORMAL, RETURNED
from fleetsim.law import law

RELEASE_DELAY, RELEASE_DELAY_MAX = 1 << 18, 1 << 20  # pages
COALESCE_INTERVAL = (128 << 20) >> PAGE_SHIFT


@law
def new_span(heap, start, length, location):
    """A row of spans for `length` pages from `start` on.

    Source: src/span.cc NewSpan; src/page_heap.h RecordSpan.
    """
    row = heap.state[0]
    s = row["free_span"]
    if s >= 0:
        row["free_span"] = heap.spans[s]["next"]
    else:
        s = row["spans_end"]
        row["spans_end"] += 1
    span = heap.spans[s]
    span["start"], span["length"], span["location"] = start, length, location
    span["size_class"], span["objects"], span["in_use"] = 0, 0, 0
    heap.owner[start] = s
    heap.owner[start + length - 1] = s
    return s


@law
def drop_span(heap, s):
    """The row of span `s` is free.

    Source: src/span.cc DeleteSpan.
    """
    heap.spans[s]["location"] = -1
    heap.spans[s]["next"] = heap.state[0]["free_span"]
    heap.state[0]["free_span"] = s


@law
def list_add(heap, s):
    """Free span `s` becomes the newest of its list.

    Source: src/page_heap.cc PrependToFreeList.
    """
    row, span = heap.state[0], heap.spans[s]
    place, k = span["location"], min(span["length"], MAX_PAGES + 1)
    row["free"][place] += span["length"]
    first = row["lists"][place, k]
    span["next"], span["previous"] = first, -1
    if first >= 0:
        heap.spans[first]["previous"] = s
    else:
        row["lasts"][place, k] = s
    row["lists"][place, k] = s


@law
def list_remove(heap, s):
    """Free span `s` leaves its list.

    Source: src/page_heap.cc RemoveFromFreeList.
    """
    row, span = heap.state[0], heap.spans[s]
    place, k = span["location"], min(span["length"], MAX_PAGES + 1)
    row["free"][place] -= span["length"]
    following, before = span["next"], span["previous"]
    if before >= 0:
        heap.spans[before]["next"] = following
    else:
        row["lists"][place, k] = following
    if following >= 0:
        heap.spans[following]["previous"] = before
    else:
        row["lasts"][place, k] = before


@law
def return_pages(heap, s):
    """The pages of span `s` go back to the kernel.

    Source: src/page_heap.cc DecommitSpan; src/system-alloc.cc TCMalloc_SystemRelease (madvise MADV_DONTNEED).
    """
    span = heap.spans[s]
    given = 0
    for page in range(2 * span["start"], 2 * (span["start"] + span["length"])):
        given += heap.touched[page]
        heap.touched[page] = 0
    heap.state[0]["touched"] -= given


@law
def carve(heap, s, pages):
    """Take `pages` pages from the begin of free span `s`; the rest stays free.

    Source: src/page_heap.cc Carve.
    """
    span = heap.spans[s]
    place = span["location"]
    list_remove(heap, s)
    span["location"] = IN_USE
    if span["length"] > pages:
        rest = new_span(heap, span["start"] + pages, span["length"] - pages, place)
        list_add(heap, rest)
        span["length"] = pages
        heap.owner[span["start"] + pages - 1] = s
    return s


@law
def best_large(heap, place, pages):
    """The shortest span of at least `pages` pages among those longer than a list counts, of equal ones the lowest.

    returns  int64  −1: none

    Source: src/page_heap.cc AllocLarge (SpanSet).
    """
    best = -1
    s = heap.state[0]["lists"][place, MAX_PAGES + 1]
    while s >= 0:
        span = heap.spans[s]
        if span["length"] >= pages:
            if (
                best < 0
                or span["length"] < heap.spans[best]["length"]
                or (span["length"] == heap.spans[best]["length"] and span["start"] < heap.spans[best]["start"])
            ):
                best = s
        s = span["next"]
    return best


@law
def search(heap, pages):
    """A span of `pages` pages from what is free.

    returns  int64  −1: none

    Source: src/page_heap.cc SearchFreeAndLargeLists, AllocLarge.
    """
    for k in range(pages, MAX_PAGES + 1):
        for place in (NORMAL, RETURNED):
            s = heap.state[0]["lists"][place, k]
            if s >= 0:
                return carve(heap, s, pages)
    s = best_large(heap, NORMAL, pages)
    t = best_large(heap, RETURNED, pages)
    if t >= 0:
        longer = heap.spans[t]["length"] - (heap.spans[s]["length"] if s >= 0 else 1 << 60)
        if longer < 0 or (longer == 0 and heap.spans[t]["start"] < heap.spans[s]["start"]):
            s = t
    return carve(heap, s, pages) if s >= 0 else -1


@law
def mergeable(heap, s, page):
    """The free span at `page`, out of its list, if it is of the kind of `s`; aggressive: a normal one beside a returned one is returned.

    returns  int64  −1: none

    Source: src/page_heap.cc CheckAndHandlePreMerge.
    """
    other = heap.owner[page] if 0 < page < heap.state[0]["end"] else -1
    if other < 0:
        return -1
    place, theirs = heap.spans[s]["location"], heap.spans[other]["location"]
    if heap.options[0]["aggressive_decommit"] and theirs == NORMAL and place == RETURNED:
        return_pages(heap, other)
    elif theirs != place:
        return -1
    list_remove(heap, other)
    return other


@law
def merge_free(heap, s):
    """Free span `s` merges with its neighbours and joins its list.

    Source: src/page_heap.cc MergeIntoFreeList.
    """
    span = heap.spans[s]
    start, length = span["start"], span["length"]
    if heap.options[0]["aggressive_decommit"] and span["location"] == NORMAL:
        return_pages(heap, s)
        span["location"] = RETURNED
    before = mergeable(heap, s, start - 1)
    if before >= 0:
        span["start"] -= heap.spans[before]["length"]
        span["length"] += heap.spans[before]["length"]
        drop_span(heap, before)
        heap.owner[span["start"]] = s
    after = mergeable(heap, s, start + length)
    if after >= 0:
        span["length"] += heap.spans[after]["length"]
        drop_span(heap, after)
        heap.owner[span["start"] + span["length"] - 1] = s
    list_add(heap, s)


@law
def release(heap, pages):
    """Return free spans, one of each length in turn and the oldest of it, until `pages` pages are.

    returns  int64  pages returned

    Source: src/page_heap.cc ReleaseAtLeastNPages, ReleaseSpan.
    """
    row = heap.state[0]
    done = 0
    while done < pages and row["free"][NORMAL] > 0:
        for _ in range(MAX_PAGES + 1):
            if done >= pages:
                break
            if row["release_index"] > MAX_PAGES:
                row["release_index"] = 0
            k = row["release_index"] + 1
            row["release_index"] += 1
            s = row["lasts"][NORMAL, k] if k <= MAX_PAGES else best_large(heap, NORMAL, 0)
            if s < 0:
                continue
            done += heap.spans[s]["length"]
            return_pages(heap, s)
            list_remove(heap, s)
            heap.spans[s]["location"] = RETURNED
            merge_free(heap, s)
    return done


@law
def delete_span(heap, s):
    """Span `s` is free; every so many freed pages something is returned to the kernel.

    Source: src/page_heap.cc Delete, IncrementalScavenge.
    """
    row, span, rate = heap.state[0], heap.spans[s], heap.options[0]["release_rate_q"]
    pages = span["length"]
    span["size_class"] = 0
    span["location"] = NORMAL
    merge_free(heap, s)
    row["scavenge"] -= pages
    if row["scavenge"] < 0:
        done = release(heap, 1) if rate > 0 else 0
        row["scavenge"] = RELEASE_DELAY if done == 0 else min(RELEASE_DELAY_MAX, 1000 * 1024 * done // rate)


@law
def alloc_span(heap, pages):
    """A span of `pages` pages in use: from what is free, else the heap grows by at least 1 MiB.

    Source: src/page_heap.cc New, GrowHeap.
    """
    row = heap.state[0]
    s = search(heap, pages)
    if s >= 0:
        return s
    free, returned, system = row["free"][NORMAL], row["free"][RETURNED], row["system"]
    rare = system // COALESCE_INTERVAL != (system + pages) // COALESCE_INTERVAL
    if rare and free > 0 and returned > 0 and free + returned >= system // 4:
        release(heap, 0x7FFFFFFF)
        s = search(heap, pages)
        if s >= 0:
            return s
    ask = max(pages, MAX_PAGES)
    start = row["end"]
    row["end"] += ask
    row["system"] += ask
    delete_span(heap, new_span(heap, start, ask, IN_USE))
    return search(heap, pages)
