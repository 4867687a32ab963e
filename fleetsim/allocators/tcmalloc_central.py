# SPDX-License-Identifier: Apache-2.0
"""tcmalloc's central free lists: one per class, of spans with free objects, behind a transfer cache of whole batches.

A new span's objects are threaded into a list at once, which populates every page in which one begins. A span whose objects
are all back goes to the page heap. A transfer cache takes batches of exactly the class's size, and may take a slot from another.
Source: src/central_freelist.cc of gperftools 2.10; kernel-laws §15.3.
"""

from __future__ import annotations

from fleetsim.allocators.tcmalloc_page_heap import alloc_span, delete_span
from fleetsim.allocators.tcmalloc_sizes import CLASSES, MOVED, PAGE_SHIFT, SIZE_OF, SLOTS_MAX, SPAN_PAGES
from fleetsim.law import law

FIRST_SLOTS = 16


@law
def start_central(heap):
    """Central lists of a new process.

    Source: src/central_freelist.cc Init.
    """
    for k in range(CLASSES):
        heap.central[k]["slots"] = min(FIRST_SLOTS, SLOTS_MAX[k])


@law
def nonempty_add(heap, k, s):
    """Span `s` is the first that is asked.

    Source: src/span.cc DLL_Prepend.
    """
    first = heap.central[k]["nonempty"]
    heap.spans[s]["next"], heap.spans[s]["previous"] = first, -1
    if first >= 0:
        heap.spans[first]["previous"] = s
    heap.central[k]["nonempty"] = s


@law
def nonempty_remove(heap, k, s):
    """Span `s` has no free object any more, or no object in use.

    Source: src/span.cc DLL_Remove.
    """
    following, before = heap.spans[s]["next"], heap.spans[s]["previous"]
    if before >= 0:
        heap.spans[before]["next"] = following
    else:
        heap.central[k]["nonempty"] = following
    if following >= 0:
        heap.spans[following]["previous"] = before


@law
def object_to_span(heap, k, o):
    """Object `o` of class `k` goes back to its span; if it was the last in use, the span goes back to the page heap.

    Source: src/central_freelist.cc ReleaseToSpans.
    """
    s = heap.owner[o >> (PAGE_SHIFT - 3)]
    span, central = heap.spans[s], heap.central[k]
    if span["objects"] == 0:
        nonempty_add(heap, k, s)
    central["objects"] += 1
    span["in_use"] -= 1
    if span["in_use"] == 0:
        central["objects"] -= (span["length"] << PAGE_SHIFT) // SIZE_OF[k]
        nonempty_remove(heap, k, s)
        central["spans"] -= 1
        delete_span(heap, s)
    else:
        heap.links[o] = span["objects"]
        span["objects"] = o


@law
def list_to_spans(heap, k, o):
    """All objects of the list that begins with `o` go back to their spans.

    Source: src/central_freelist.cc ReleaseListToSpans.
    """
    while o != 0:
        following = heap.links[o]
        object_to_span(heap, k, o)
        o = following


@law
def shrink_other(heap, k, force):
    """The class whose turn it is gives up a slot of its transfer cache; a full one only if forced, and then loses a batch.

    returns  bool  it did

    Source: src/central_freelist.cc EvictRandomSizeClass, ShrinkCache.
    """
    row = heap.state[0]
    other = row["evict"]
    row["evict"] = (other + 1) % CLASSES
    central = heap.central[other]
    if other == k or central["slots"] == 0 or (not force and central["used"] == central["slots"]):
        return False
    central["slots"] -= 1
    if central["used"] > central["slots"]:
        central["used"] -= 1
        list_to_spans(heap, other, central["heads"][central["used"]])
    return True


@law
def slot_free(heap, k):
    """True if the transfer cache of class `k` has, or gets, a free slot.

    Source: src/central_freelist.cc MakeCacheSpace.
    """
    central = heap.central[k]
    if central["used"] < central["slots"]:
        return True
    if central["slots"] == SLOTS_MAX[k]:
        return False
    if shrink_other(heap, k, False) or shrink_other(heap, k, True):
        central["slots"] += 1
        return True
    return False


@law
def insert_range(heap, k, first, count):
    """A list of `count` objects of class `k` comes back from a thread.

    Source: src/central_freelist.cc InsertRange.
    """
    central = heap.central[k]
    if count == MOVED[k] and slot_free(heap, k):
        central["heads"][central["used"]] = first
        central["used"] += 1
    else:
        list_to_spans(heap, k, first)


@law
def populate(heap, k):
    """A new span for class `k`, cut into objects.

    Source: src/central_freelist.cc Populate.
    """
    s = alloc_span(heap, SPAN_PAGES[k])
    span, central = heap.spans[s], heap.central[k]
    span["size_class"] = k
    for page in range(span["start"], span["start"] + span["length"]):
        heap.owner[page] = s
    first = span["start"] << PAGE_SHIFT
    count = (span["length"] << PAGE_SHIFT) // SIZE_OF[k]
    new = 0
    for j in range(count):
        address = first + j * SIZE_OF[k]
        heap.links[address >> 3] = (address + SIZE_OF[k]) >> 3 if j + 1 < count else 0
        new += 1 - heap.touched[address >> 12]
        heap.touched[address >> 12] = 1
    heap.state[0]["touched"] += new
    span["objects"], span["in_use"] = first >> 3, 0
    nonempty_add(heap, k, s)
    central["spans"] += 1
    central["objects"] += count


@law
def fetch_from_span(heap, k, count):
    """Up to `count` objects from the first span that has any.

    returns  (int64 objects, int64 first of their list, int64 last; 0: none)

    Source: src/central_freelist.cc FetchFromOneSpans.
    """
    s = heap.central[k]["nonempty"]
    if s < 0:
        return 0, 0, 0
    span = heap.spans[s]
    first = span["objects"]
    last, got = first, 1
    while got < count and heap.links[last] != 0:
        last = heap.links[last]
        got += 1
    span["objects"] = heap.links[last]
    if span["objects"] == 0:
        nonempty_remove(heap, k, s)
    heap.links[last] = 0
    span["in_use"] += got
    heap.central[k]["objects"] -= got
    return got, first, last


@law
def remove_range(heap, k, count):
    """A list of up to `count` objects of class `k` for a thread.

    returns  (int64 objects, int64 first of their list)

    Source: src/central_freelist.cc RemoveRange.
    """
    central = heap.central[k]
    if count == MOVED[k] and central["used"] > 0:
        central["used"] -= 1
        return count, central["heads"][central["used"]]
    if central["nonempty"] < 0:
        populate(heap, k)
    total, head = 0, 0
    while total < count:
        got, first, last = fetch_from_span(heap, k, count - total)
        if got == 0:
            break
        heap.links[last] = head  # what comes later lies in front
        head = first
        total += got
    return total, head
