# SPDX-License-Identifier: Apache-2.0
"""One set of a cache of translations that has many ways: the same true LRU as `tlb_cache`, but no look-up moves more than one entry.

    block:  newest | nodes, each: key, older, newer, next of the chain, head of the chain | heads of chains

A node is named by where it stands in the array of all entries. The nodes of a set form one ring, the most recently used at `newest`
and the empty ones last, so the least recently used is the one before `newest`: to put a new key there is to turn the ring by one. A
key is found by its hash: a chain of the nodes that hash alike. With 16 chains or more per way nearly all have one node or none
(with 4, what a look-up costs is the processor's wrong guesses at the second: half the speed, measured). Which node a key is in and
how a chain is ordered is of no consequence to what hits, so results are those of `tlb_cache` exactly.

Leaves out: as `tlb_cache`. If somebody picks pages by their hash, chains grow: look-ups take longer, and are still exact.
Source: LRU as a list with a hash beside it (textbook); multiplicative hash by the golden section: Knuth, TAOCP volume 3, §6.4.
"""

from __future__ import annotations

import numpy as np

from fleetsim.hardware.tlb_cache import EMPTY, TAG_BITS
from fleetsim.law import law

WAYS_MIN = 24  # fewer are faster kept in order in an array
CHAINS_PER_WAY = 16
HEAD, NODE = 1, 5  # words of a block before its nodes, and of each node
OLDER, NEWER, NEXT, CHAIN = range(1, 5)  # words of a node; its first is the key
NOBODY = 0  # ends a chain: where the first block's own head is, or no block


def chains_of(ways: int) -> int:
    """A power of two."""
    return CHAINS_PER_WAY << (ways - 1).bit_length()


def stride_of(ways: int) -> int:
    """Words that one set takes: as many as it has ways, or a block if there are many."""
    return ways if ways < WAYS_MIN else HEAD + NODE * ways + chains_of(ways)


def new_block(first: int, ways: int) -> np.ndarray:
    """A set of many ways that knows nothing, to stand at `first`."""
    block = np.full(HEAD + NODE * ways + chains_of(ways), NOBODY, np.int64)
    nodes = HEAD + NODE * np.arange(ways)
    block[0] = first + HEAD
    block[nodes], block[nodes + OLDER], block[nodes + NEWER] = EMPTY, first + np.roll(nodes, -1), first + np.roll(nodes, 1)
    return block


@law
def chain_of(key, heads, chains):
    """Where the head of the chain of a key is. The product stays below 2^63, so that compiled and plain Python agree.

    heads    int64  where those of the block begin
    chains   int64  how many: a power of two, up to 2^16
    returns  int64  an index of the array of entries

    Source: Knuth, TAOCP volume 3, §6.4.
    """
    folded = (key ^ key >> 18 ^ key >> 41) & (1 << 31) - 1
    return heads + (folded * 2654435769 >> 16 & chains - 1)


@law
def find_node(entries, chain, key):
    """The node of a key, NOBODY if it is absent.

    Source: see the module.
    """
    node = entries[chain]
    while node != NOBODY and entries[node] != key:
        node = entries[node + NEXT]
    return node


@law
def out_of_chain(entries, node):
    """Take a node out of its chain.

    Source: see the module.
    """
    at = entries[node + CHAIN]
    while entries[at] != node:
        at = entries[at] + NEXT
    entries[at] = entries[node + NEXT]


@law
def to_the_seam(entries, node, newest):
    """Take a node, not the newest, from its place in the ring to between the newest and the oldest.

    Source: see the module.
    """
    older, newer = entries[node + OLDER], entries[node + NEWER]
    entries[newer + OLDER] = older
    entries[older + NEWER] = newer
    oldest = entries[newest + NEWER]  # read after that: it may have been the node itself
    entries[oldest + OLDER] = node
    entries[node + NEWER] = oldest
    entries[node + OLDER] = newest
    entries[newest + NEWER] = node


@law
def look_up_indexed(entries, first, stride, ways, key):
    """`tlb_cache.look_up` for a set of many ways: at most one node changes its place.

    entries  int64[:]  all sets
    first    int64     where the block begins
    stride   int64     its words
    ways     int64     1 or more
    returns  bool      it was there

    Source: see the module.
    """
    nodes = HEAD + NODE * ways
    chain = chain_of(key, first + nodes, stride - nodes)
    node = find_node(entries, chain, key)
    newest = entries[first]
    known = node != NOBODY
    if known:
        if node != newest:
            to_the_seam(entries, node, newest)
    else:
        node = entries[newest + NEWER]
        if entries[node] != EMPTY:
            out_of_chain(entries, node)
        entries[node] = key
        entries[node + NEXT] = entries[chain]
        entries[node + CHAIN] = chain
        entries[chain] = node
    entries[first] = node
    return known


@law
def forget(entries, first, node):
    """Make a node empty and the one that is taken next.

    Source: see the module.
    """
    out_of_chain(entries, node)
    entries[node] = EMPTY
    if node == entries[first]:
        entries[first] = entries[node + OLDER]
    else:
        to_the_seam(entries, node, entries[first])


@law
def drop_indexed(entries, first, stride, ways, key):
    """`tlb_cache.drop` for a set of many ways.

    returns  int64  entries dropped, 0 or 1

    Source: as `look_up_indexed`.
    """
    nodes = HEAD + NODE * ways
    node = find_node(entries, chain_of(key, first + nodes, stride - nodes), key)
    if node == NOBODY:
        return 0
    forget(entries, first, node)
    return 1


@law
def drop_tag_indexed(entries, first, sets, stride, ways, tag):
    """`tlb_cache.drop_tag` for a cache whose sets have many ways.

    tag      int64  whose; −1: everybody's
    returns  int64  entries dropped

    Source: as `look_up_indexed`.
    """
    dropped = 0
    for block in range(first, first + sets * stride, stride):
        node = entries[block]
        for _ in range(ways):
            key, older = entries[node], entries[node + OLDER]  # read before the node goes behind those still to be seen
            if key == EMPTY:
                break
            if tag < 0 or key & ((1 << TAG_BITS) - 1) == tag:
                forget(entries, block, node)
                dropped += 1
            node = older
    return dropped
