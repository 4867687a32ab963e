# SPDX-License-Identifier: Apache-2.0
"""Ordered sets of extents, as jemalloc keeps them: pairing heaps by serial number and address, linked through the extents' rows.

Which extent comes first is all that matters to memory; the shape of the heap decides only the speed.
Source: include/jemalloc/internal/ph.h (pairing heap), edata.h edata_snad_comp of jemalloc 5.3.0.
"""

from __future__ import annotations

from fleetsim.law import law


@law
def before(extents, a, b):
    """True if extent `a` is taken before `b`: the older, or of one age the lower.

    Source: include/jemalloc/internal/edata.h edata_snad_comp.
    """
    if extents[a]["serial"] != extents[b]["serial"]:
        return extents[a]["serial"] < extents[b]["serial"]
    return extents[a]["page"] < extents[b]["page"]


@law
def meld(extents, a, b):
    """One heap of two, given by their roots; −1 is the empty heap.

    Source: include/jemalloc/internal/ph.h phn_merge.
    """
    if a < 0:
        return b
    if b < 0:
        return a
    first, second = (a, b) if before(extents, a, b) else (b, a)
    child = extents[first]["child"]
    extents[second]["next"] = child
    extents[second]["previous"] = first
    if child >= 0:
        extents[child]["previous"] = second
    extents[first]["child"] = second
    extents[first]["next"] = -1
    extents[first]["previous"] = -1
    return first


@law
def heap_insert(extents, root, e):
    """The heap `root` with extent `e` in it.

    returns  int64  its new root

    Source: include/jemalloc/internal/ph.h ph_insert.
    """
    extents[e]["child"] = -1
    extents[e]["next"] = -1
    extents[e]["previous"] = -1
    return meld(extents, root, e)


@law
def meld_children(extents, e):
    """The heap of what was below extent `e`: neighbours pair by pair, then all.

    Source: include/jemalloc/internal/ph.h phn_merge_siblings.
    """
    child = extents[e]["child"]
    extents[e]["child"] = -1
    pairs = -1
    while child >= 0:
        second = extents[child]["next"]
        pair = child
        if second >= 0:
            rest = extents[second]["next"]
            pair = meld(extents, child, second)
            child = rest
        else:
            child = -1
        extents[pair]["next"] = pairs
        extents[pair]["previous"] = -1
        pairs = pair
    root = -1
    while pairs >= 0:
        rest = extents[pairs]["next"]
        extents[pairs]["next"] = -1
        root = meld(extents, root, pairs)
        pairs = rest
    return root


@law
def heap_remove(extents, root, e):
    """The heap `root` without extent `e`, which is in it.

    returns  int64  its new root, −1: empty

    Source: include/jemalloc/internal/ph.h ph_remove.
    """
    if e == root:
        return meld_children(extents, e)
    previous, following = extents[e]["previous"], extents[e]["next"]
    if extents[previous]["child"] == e:
        extents[previous]["child"] = following
    else:
        extents[previous]["next"] = following
    if following >= 0:
        extents[following]["previous"] = previous
    return meld(extents, root, meld_children(extents, e))
