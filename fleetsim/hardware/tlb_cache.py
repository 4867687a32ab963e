# SPDX-License-Identifier: Apache-2.0
"""One cache of translations: set-associative, true LRU within each set.

A set is `ways` consecutive entries of one array, the most recently used first and the empty ones last, so order is position
and needs no clock. A key is what was translated and for whom:

    key = (address >> shift) << 18 | shift << 12 | tag           set = (address >> shift) mod sets

with `tag` the address space's (a PCID). Two parts of the address space can so never be taken for each other, nor a 2 MiB page for the
4 KiB page at its start, though all of them may share one array.

Leaves out: real ones are pseudo-LRU (a tree of bits, or not-recently-used), and some index their sets by a hash.
Source: textbook caches; Intel SDM volume 3A §4.10 for what entries are tagged with.
"""

from __future__ import annotations

from fleetsim.law import law

EMPTY = -1
TAG_BITS = 12
SHIFT_BITS = 6
KEY_BITS = TAG_BITS + SHIFT_BITS
ADDRESS_MASK = (1 << 57) - 1


@law
def key_of(address, shift, tag):
    """The key of an address in a cache whose entries stand for 2^shift bytes.

    address  int64  canonical, sign included
    shift    int64  12 or more (the number would not fit below)
    tag      int64  0..4095
    returns  int64  ≥ 0

    Source: fleetsim's own (see the module).
    """
    return ((address & ADDRESS_MASK) >> shift) << KEY_BITS | shift << TAG_BITS | tag


@law
def look_up(entries, first, ways, key):
    """Look for a key in one set and make it the most recently used; if it is absent it takes the place of the least recently used.

    One pass: each entry moves one place back until the place that the key had (or nobody) is reached.

    entries  int64[:]  all sets
    first    int64     where the set begins
    ways     int64     0: there is no such cache
    returns  bool      it was there

    Source: fleetsim's own; LRU as a stack (Mattson et al. 1970).
    """
    carried = key
    one_set = entries[first : first + ways]  # a third faster than indices into all of them, which Numba checks for being negative
    for way in range(ways):
        found = one_set[way]
        one_set[way] = carried
        if found == key:
            return True
        if found == EMPTY:
            return False
        carried = found
    return False


@law
def drop(entries, first, ways, key):
    """Take a key out of its set; those behind it move up.

    returns  int64  entries dropped, 0 or 1

    Source: as `look_up`.
    """
    dropped = 0
    for i in range(first, first + ways):
        if entries[i] == key:
            dropped = 1
        if dropped:
            entries[i] = entries[i + 1] if i + 1 < first + ways else EMPTY
    return dropped


@law
def drop_tag(entries, first, size, ways, tag):
    """Take everything of one address space out of a cache; the rest keeps its order.

    size     int64  entries of the whole cache
    tag      int64  whose; −1: everybody's
    returns  int64  entries dropped

    Source: as `look_up`.
    """
    dropped = 0
    for set_at in range(first, first + size, max(1, ways)):
        kept = set_at
        for i in range(set_at, set_at + ways):
            key = entries[i]
            if key == EMPTY:
                break
            if tag < 0 or key & ((1 << TAG_BITS) - 1) == tag:
                dropped += 1
            else:
                entries[kept] = key
                kept += 1
        for i in range(kept, set_at + ways):
            entries[i] = EMPTY
    return dropped
