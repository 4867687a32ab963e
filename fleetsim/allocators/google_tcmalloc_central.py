# SPDX-License-Identifier: Apache-2.0
"""Central free lists of Google's tcmalloc, behind a transfer cache: spans with a free object, by how many objects are out.

A request is served from the span with the most objects out, so that the others may empty; a span whose objects are all back goes
to the page heap at once. The transfer cache is a stack of objects that takes what comes and gives what it has.
Leaves out: the transfer caches' background resizing and plundering (a program must ask for background actions).
Source: google/tcmalloc at fce3f55, central_freelist.h, central_freelist.cc, transfer_cache_internals.h; kernel-laws §15.3.
"""

from __future__ import annotations

from fleetsim.allocators.google_tcmalloc_page_heap import delete_pages, new_pages
from fleetsim.allocators.google_tcmalloc_sizes import DENSE_OBJECTS, OBJECTS, PAGE_SHIFT, SPAN_PAGES, TRANSFER_SLOTS
from fleetsim.allocators.google_tcmalloc_span import build_freelist, drop_span, new_span, pop_objects, push_object
from fleetsim.allocators.google_tcmalloc_tables import SPAN_LISTS
from fleetsim.law import law


@law
def list_for(k, allocated):
    """Which list of class `k` a span with `allocated` objects out is on: the fullest on the first.

    Source: central_freelist.h IndexFor.
    """
    if OBJECTS[k] <= 2 * SPAN_LISTS:
        return max(0, SPAN_LISTS - allocated)
    width = 0
    while allocated >> width > 0:
        width += 1
    return SPAN_LISTS - min(width, SPAN_LISTS)


@law
def add_span(heap, k, s, index):
    """Span `s` is the first of its list.

    Source: hinted_tracker_lists.h Add.
    """
    first = heap.central[k]["first"][index]
    span = heap.spans[s]
    span["next"], span["previous"], span["list"] = first, -1, index
    if first >= 0:
        heap.spans[first]["previous"] = s
    heap.central[k]["first"][index] = s


@law
def remove_span(heap, k, s):
    """Span `s` leaves its list.

    Source: hinted_tracker_lists.h Remove.
    """
    span = heap.spans[s]
    if span["previous"] >= 0:
        heap.spans[span["previous"]]["next"] = span["next"]
    else:
        heap.central[k]["first"][span["list"]] = span["next"]
    if span["next"] >= 0:
        heap.spans[span["next"]]["previous"] = span["previous"]


@law
def move_span(heap, k, s):
    """Span `s` goes to the list of its objects out, if that is another.

    Source: hinted_tracker_lists.h Move.
    """
    index = list_for(k, heap.spans[s]["allocated"])
    if index != heap.spans[s]["list"]:
        remove_span(heap, k, s)
        add_span(heap, k, s, index)


@law
def span_back(heap, s):
    """Span `s` goes back to the page heap.

    Source: central_freelist.cc DeallocateSpans.
    """
    span = heap.spans[s]
    dense = 1 if OBJECTS[span["size_class"]] > DENSE_OBJECTS else 0
    start, pages, donated = span["start"], span["pages"], span["donated"]
    heap.central[span["size_class"]]["spans"] -= 1
    drop_span(heap, s)
    delete_pages(heap, start, pages, donated, dense)


@law
def central_insert(heap, k, batch, begin, end):
    """Objects batch[begin:end] of class `k` go back to their spans. Spans that are empty then leave only when all are back.

    Source: central_freelist.h InsertRange, ReleaseToSpans.
    """
    central, empty = heap.central[k], 0
    if OBJECTS[k] == 1:
        for i in range(begin, end):
            span_back(heap, heap.owner[batch[i] >> PAGE_SHIFT])
        return
    i = begin
    while i < end:
        s = heap.owner[batch[i] >> PAGE_SHIFT]
        run = 1
        while i + run < end and heap.owner[batch[i + run] >> PAGE_SHIFT] == s:
            run += 1
        span = heap.spans[s]
        listed = span["allocated"] < OBJECTS[k]
        if span["allocated"] == run:
            if listed:
                remove_span(heap, k, s)
            heap.emptied[empty] = s
            empty += 1
        else:
            for j in range(run):
                push_object(heap, s, batch[i + j])
            if listed:
                move_span(heap, k, s)
            else:
                add_span(heap, k, s, list_for(k, span["allocated"]))
        i += run
    central["free"] += end - begin - empty * OBJECTS[k]
    for j in range(empty):
        span_back(heap, heap.emptied[j])


@law
def populate(heap, k, batch, at, count):
    """A new span for class `k`; up to `count` of its objects go to batch[at] and behind.

    returns  int64  how many

    Source: central_freelist.h Populate; central_freelist.cc AllocateSpan, AccessDensity.
    """
    dense = 1 if OBJECTS[k] > DENSE_OBJECTS else 0
    page, donated = new_pages(heap, SPAN_PAGES[k], 1, dense)
    s = new_span(heap, page, SPAN_PAGES[k], k, donated)
    central = heap.central[k]
    central["spans"] += 1
    if OBJECTS[k] == 1:
        heap.spans[s]["allocated"] = 1
        batch[at] = page << PAGE_SHIFT
        return 1
    got = build_freelist(heap, s, batch, at, count)
    if got < OBJECTS[k]:
        add_span(heap, k, s, list_for(k, got))
    central["free"] += OBJECTS[k]
    return got


@law
def central_remove(heap, k, batch, count):
    """Up to `count` objects of class `k` go to batch[0] and behind. At most one new span is cut for them.

    returns  int64  how many

    Source: central_freelist.h RemoveRange.
    """
    if OBJECTS[k] == 1:
        return populate(heap, k, batch, 0, 1)
    central, got = heap.central[k], 0
    while got < count:
        s = -1
        for index in range(SPAN_LISTS):
            s = central["first"][index]
            if s >= 0:
                break
        if s < 0:
            got += populate(heap, k, batch, got, count - got)
            break
        got += pop_objects(heap, s, batch, got, count - got)
        if heap.spans[s]["allocated"] == OBJECTS[k]:
            remove_span(heap, k, s)
        else:
            move_span(heap, k, s)
    central["free"] -= got
    return got


@law
def transfer_insert(heap, k, batch, count):
    """Objects batch[:count] of class `k` come back from a per-CPU cache: what the transfer cache cannot take goes to the spans.

    Source: transfer_cache_internals.h InsertRange.
    """
    central = heap.central[k]
    taken = min(count, TRANSFER_SLOTS[k] - central["used"])
    for i in range(taken):
        heap.transfer[k, central["used"] + i] = batch[i]
    central["used"] += taken
    if taken < count:
        central_insert(heap, k, batch, taken, count)


@law
def transfer_remove(heap, k, batch, count):
    """Objects of class `k` for a per-CPU cache go to batch[0] and behind: those of the transfer cache, if it has any.

    returns  int64  how many, at most `count`

    Source: transfer_cache_internals.h RemoveRange.
    """
    central = heap.central[k]
    if central["used"] == 0:
        return central_remove(heap, k, batch, count)
    got = min(count, central["used"])
    central["used"] -= got
    for i in range(got):
        batch[i] = heap.transfer[k, central["used"] + i]
    return got
