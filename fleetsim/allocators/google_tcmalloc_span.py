# SPDX-License-Identifier: Apache-2.0
"""Spans of Google's tcmalloc: which of their objects are free, and the rows that describe them.

A span of larger objects has a bit for each and hands out the lowest. A span of small objects hands out the newest of twelve it
names itself, then the newest of a list kept inside free objects: an object that names others (a host) is written to, so its page
is populated. Objects are cut off the begin of a new span, so that pages nobody needs yet stay unpopulated.
Source: google/tcmalloc at fce3f55, span.cc, span.h; kernel-laws §15.3.
"""

from __future__ import annotations

from fleetsim.allocators.google_tcmalloc_sizes import BITMAP_SIZE, OBJECTS, PAGE, PAGE_SHIFT, SIZE_OF
from fleetsim.allocators.google_tcmalloc_tables import SPAN_CACHE
from fleetsim.law import law


@law
def touch(heap, address, size):
    """Somebody writes `size` bytes at `address`: pages not there yet are populated.

    Source: mm/memory.c do_anonymous_page.
    """
    if size > 0:
        new = 0
        for page in range(address >> 12, ((address + size - 1) >> 12) + 1):
            new += 1 - int(heap.touched[page])
            heap.touched[page] = 1
        heap.state[0]["touched"] += new


@law
def unback(heap, page, pages):
    """`pages` pages of 8 KiB from `page` on go back to the kernel: what was populated of them is gone.

    Source: internal/system_allocator.h ReleasePages (MADV_DONTNEED).
    """
    gone = 0
    for p in range(2 * page, 2 * (page + pages)):
        gone += int(heap.touched[p])
        heap.touched[p] = 0
    heap.state[0]["touched"] -= gone


@law
def new_span(heap, page, pages, k, donated):
    """A row for a span of class `k` (0: one large block).

    returns  int64  its number

    Source: span.h Span::New; pagemap.h Set, RegisterSizeClass.
    """
    row = heap.state[0]
    s = row["free_span"]
    if s >= 0:
        row["free_span"] = heap.spans[s]["next"]
    else:
        s = row["spans_end"]
        row["spans_end"] += 1
    span = heap.spans[s]
    span["start"], span["pages"], span["size_class"], span["donated"] = page, pages, k, donated
    span["next"], span["previous"], span["allocated"], span["stack"] = -1, -1, 0, -1
    for p in range(page, page + (pages if k > 0 else 1)):  # of a large block only its begin is ever asked for
        heap.owner[p] = s
    row["live_spans"] += 1
    row["most_spans"] = max(row["most_spans"], row["live_spans"])
    return s


@law
def drop_span(heap, s):
    """The row of span `s` is free again.

    Source: span.h Span::Delete.
    """
    row, span = heap.state[0], heap.spans[s]
    if span["stack"] >= 0:
        heap.stacks[span["stack"], 0] = row["free_stack"]
        row["free_stack"] = span["stack"]
    span["next"] = row["free_span"]
    row["free_span"] = s
    row["live_spans"] -= 1


@law
def has_bitmap(k):
    """True if spans of class `k` know their free objects by bits.

    Source: span.h UseBitmapForSize.
    """
    return SIZE_OF[k] >= PAGE // BITMAP_SIZE


@law
def push_host(heap, s, index, most):
    """Object `index` goes on the list inside the free objects of span `s`, which names `most` others in each host.

    Source: span.h ListPushBatch.
    """
    span = heap.spans[s]
    if span["depth"] > 0 and span["embedded"] != most:
        span["embedded"] += 1
    else:
        touch(heap, (span["start"] << PAGE_SHIFT) + index * SIZE_OF[span["size_class"]], 2)
        span["embedded"] = 0
    heap.stacks[span["stack"], span["depth"]] = index
    span["depth"] += 1


@law
def build_freelist(heap, s, batch, at, count):
    """A new span's objects are free; the first `count` go to batch[at] and behind.

    returns  int64  how many there were

    Source: span.cc BuildFreelist, BuildBitmap.
    """
    row, span = heap.state[0], heap.spans[s]
    k = span["size_class"]
    objects, begin = OBJECTS[k], span["start"] << PAGE_SHIFT
    got = min(count, objects)
    for j in range(got):
        batch[at + j] = begin + j * SIZE_OF[k]
    span["allocated"] = got
    if has_bitmap(k):
        span["low"] = got
        for j in range(objects):
            span["free"][j] = 1 if j >= got else 0
        return got
    span["stack"] = row["free_stack"]
    if span["stack"] >= 0:
        row["free_stack"] = heap.stacks[span["stack"], 0]
    else:
        span["stack"] = row["stacks_end"]
        row["stacks_end"] += 1
    span["cache_size"] = span["depth"] = span["embedded"] = 0
    first, last = got, objects
    while first < last and span["cache_size"] < SPAN_CACHE:
        span["cache"][span["cache_size"]] = first
        span["cache_size"] += 1
        first += 1
    most = SIZE_OF[k] // 2 - 1
    while first < last:  # hosts from the begin, what they name from the end
        if span["depth"] > 0 and span["embedded"] != most:
            last -= 1
            push_host(heap, s, last, most)
        else:
            push_host(heap, s, first, most)
            first += 1
    return got


@law
def pop_objects(heap, s, batch, at, count):
    """Up to `count` free objects of span `s` go to batch[at] and behind.

    returns  int64  how many there were

    Source: span.h BitmapPopBatch, ListPopBatch.
    """
    span = heap.spans[s]
    k, begin = span["size_class"], span["start"] << PAGE_SHIFT
    got = min(count, OBJECTS[k] - span["allocated"])
    size = SIZE_OF[k]
    if has_bitmap(k):
        j = span["low"]
        for i in range(got):
            while span["free"][j] == 0:
                j += 1
            span["free"][j] = 0
            batch[at + i] = begin + j * size
        span["low"] = j
    else:
        for i in range(got):
            if span["cache_size"] > 0:
                span["cache_size"] -= 1
                batch[at + i] = begin + span["cache"][span["cache_size"]] * size
            else:
                span["depth"] -= 1
                batch[at + i] = begin + heap.stacks[span["stack"], span["depth"]] * size
                span["embedded"] = span["embedded"] - 1 if span["embedded"] > 0 else size // 2 - 1
    span["allocated"] += got
    return got


@law
def push_object(heap, s, address):
    """The object at `address` is free again.

    Source: span.h BitmapPushBatch, ListPushBatch.
    """
    span = heap.spans[s]
    k = span["size_class"]
    index = (address - (span["start"] << PAGE_SHIFT)) // SIZE_OF[k]
    span["allocated"] -= 1
    if has_bitmap(k):
        span["free"][index] = 1
        span["low"] = min(span["low"], index)
    elif span["cache_size"] < SPAN_CACHE:
        span["cache"][span["cache_size"]] = index
        span["cache_size"] += 1
    else:
        push_host(heap, s, index, SIZE_OF[k] // 2 - 1)
