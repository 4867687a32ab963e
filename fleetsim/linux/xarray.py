# SPDX-License-Identifier: Apache-2.0
"""What the page cache costs in slabs: nodes of the trees that find a page, and the file system's own buffer heads (lib/xarray.c).

A node finds 64 consecutive pages; it stays while any of them is cached or has left its shadow, so a file read through keeps
its nodes after its pages have gone, until the shadow shrinker takes them. Swap slots are found by nodes as well.

    nodes   = Σ over files ceil((resident + evicted + swapped) / 64)  +  ceil(used slots / 64)
    shadows = Σ over files floor(evicted / 64): nodes that hold nothing else (a file read at random: · (evicted share)²)

They follow from the tables in closed form, and are brought up to date when a slab's worth of pages came or went, so that
a quiet host pays nothing.
Leaves out: nodes above the lowest level (1/64 more), small files whose only page needs no node, journal heads.
Source: lib/xarray.c, mm/workingset.c workingset_update_node, fs/buffer.c alloc_buffer_head; kernel-laws §13.1.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import METADATA, UNIFORM, VM
from fleetsim.linux.slab_caches import BUFFER_HEAD, XA_NODE
from fleetsim.linux.slub import charge_objects, grow_at_once, kmem_cache_alloc, kmem_cache_free

PGALLOC, PGFREE = VM["pgalloc_dma"], VM["pgfree"]
SLOTS = 64  # XA_CHUNK_SIZE
STALE = 896  # pages that one slab of nodes finds …
STALE_SHIFT, STALE_FROM = 8, 8192  # … or this part of the machine less so many, if it is a large one (their nodes are a 16,000th of it)


@law
def slabs_are_stale(row):
    """True if so many pages came and went since the last look that the page cache's slabs may be another number.

    Source: fleetsim's own saving of work.
    """
    seen = row["vm"][PGFREE] + row["vm"][PGALLOC] + row["vm"][PGALLOC + 1] + row["vm"][PGALLOC + 2]
    return seen - row["xa_seen"] >= max(STALE, (row["totalram"] >> STALE_SHIFT) - STALE_FROM)


@law
def shadow_nodes_of(group):
    """Nodes of a file's tree that hold nothing but shadows.

    Source: mm/workingset.c workingset_update_node; kernel-laws §3.8. Read at random, a whole node is seldom empty.
    """
    nodes = group["evicted"] // SLOTS
    if group["kind"] == UNIFORM and nodes > 0:
        known = group["evicted"] + group["resident"]
        nodes = nodes * group["evicted"] // known * group["evicted"] // known
    return nodes


@law
def follow(row, cache, have, want):
    """Move a cache from `have` derived objects to `want`.

    returns  int64  derived objects it has now

    Source: mm/slub.c; memory that cannot be had at once is tried for again next time.
    """
    if want > have:
        got = grow_at_once(row, cache, want - have)
        kmem_cache_alloc(row, cache, got)
        return have + got
    if want < have:
        kmem_cache_free(row, cache, have - want, 0)
    return want


@law
def sync_page_cache_slabs(row):
    """Nodes of everything cached now, and buffer heads of the file system's own blocks.

    Source: see the module.
    """
    row["xa_seen"] = row["vm"][PGFREE] + row["vm"][PGALLOC] + row["vm"][PGALLOC + 1] + row["vm"][PGALLOC + 2]
    for cg in range(row["nr_cgroups"]):
        row["cgroups"][cg]["xa_wanted"] = 0
        row["cgroups"][cg]["shadow_nodes"] = 0
    heads, all_shadows = 0, 0
    for g in range(row["nr_groups"]):
        group = row["groups"][g]
        if group["used"] == 0 or (group["is_file"] == 0 and group["shmem"] == 0):
            continue
        cg = max(0, int(row["cohorts"][group["first"]]["cg"]))
        shadows = shadow_nodes_of(group)
        row["cgroups"][cg]["xa_wanted"] += (group["resident"] + group["evicted"] + group["swapped"] + SLOTS - 1) // SLOTS
        row["cgroups"][cg]["shadow_nodes"] += shadows
        all_shadows += shadows
        if group["is_file"] == METADATA:
            heads += group["resident"]
    row["cgroups"][0]["xa_wanted"] += (row["swap_total"] - row["swap_free"] + SLOTS - 1) // SLOTS
    row["workingset_nodes"] = all_shadows
    row["buffer_heads"] = follow(row, BUFFER_HEAD, row["buffer_heads"], heads)
    for cg in range(row["nr_cgroups"]):
        group = row["cgroups"][cg]
        have = int(group["xa_nodes"])
        if int(group["xa_wanted"]) != have:
            now = follow(row, XA_NODE, have, int(group["xa_wanted"]))
            charge_objects(row, cg, XA_NODE, now - have)
            group["xa_nodes"] = now
