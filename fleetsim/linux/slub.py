# SPDX-License-Identifier: Apache-2.0
"""Slab caches: objects, the slabs that hold them, and the pages of the slabs (mm/slub.c, mm/slab.h).

A cache takes pages when its free objects are used up and gives a slab back when the last of its objects goes. Objects are
freed in the order they were made (LRU), so whole slabs come free, except where a survivor sits between them: those holes
are `loose`, used first by the next objects and never given back while their neighbours live.
Rules: `row["slab_reclaimable"]` and `row["slab_unreclaimable"]` are the pages of all caches and of what has no cache
(kmalloc above 8 KiB); a slab's pages stand on no LRU list. Objects are charged to a cgroup by the byte, with a pointer each.
Leaves out: per-CPU and per-node partial lists (they only decide which free object is used first), slab merging, debugging.
Source: mm/slub.c, mm/slab.h obj_full_size (Linux 6.1); kernel-laws §13.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.memcontrol import charge, in_subtree
from fleetsim.linux.mm_types import NR_ZONES, TASK_EXITING, TASK_RUNNING, WMARK_MIN
from fleetsim.linux.nodes import zonelist
from fleetsim.linux.slab_caches import OBJECT_BYTES, PER_SLAB, RECLAIMABLE, SLAB_PAGES
from fleetsim.linux.zonelist import pin_got, rmqueue, unpin

OBJCG_BYTES = 8  # the owner's pointer that every charged object has
IMAGE_SLAB_R, IMAGE_SLAB_U = 3_000, 4_248  # bytes of objects that an empty program has: part of the pages in task["base_slab"]


@law
def slabs_wanted(row, cache, objects):
    """Slabs that a cache must get before it can hold `objects` more.

        ceil((objects − (slabs · per_slab − in use)) / per_slab),  ≥ 0

    cache    int64  row of `slab_caches.CACHES`
    returns  int64

    Source: mm/slub.c ___slab_alloc; kernel-laws §13.1.
    """
    slab = row["slab"][cache]
    free = int(slab["slabs"]) * PER_SLAB[cache] - int(slab["objects"])
    return max(0, (objects - free + PER_SLAB[cache] - 1) // PER_SLAB[cache])


@law
def add_slabs(row, cache, slabs):
    """Count `slabs` more (or fewer) slabs of a cache, with their pages.

    Source: mm/slab.h account_slab, unaccount_slab.
    """
    row["slab"][cache]["slabs"] += slabs
    pages = slabs * SLAB_PAGES[cache]
    if RECLAIMABLE[cache] > 0:
        row["slab_reclaimable"] += pages
    else:
        row["slab_unreclaimable"] += pages


@law
def keep_got(row, cache, pages):
    """The pages just taken (`row["got"]`) become slabs of a cache; what is less than a slab goes back.

    returns  int64  slabs made

    Source: mm/slub.c allocate_slab.
    """
    slabs = pages // SLAB_PAGES[cache]
    pin_got(row)
    add_slabs(row, cache, slabs)
    rest = pages - slabs * SLAB_PAGES[cache]
    if rest > 0:
        unpin(row, rest)
    return slabs


@law
def grow_at_once(row, cache, objects):
    """Make room for `objects` more without reclaim, as far as free memory above the min watermark goes.

    returns  int64  objects there is room for now, ≤ objects

    Source: mm/slub.c new_slab under GFP_NOWAIT | __GFP_HIGH.
    """
    wanted = slabs_wanted(row, cache, objects)
    if wanted > 0:
        keep_got(row, cache, rmqueue(row, wanted * SLAB_PAGES[cache], WMARK_MIN))
    slab = row["slab"][cache]
    return min(objects, int(slab["slabs"]) * PER_SLAB[cache] - int(slab["objects"]))


@law
def kmem_cache_alloc(row, cache, objects):
    """`objects` objects that there is room for are in use from now on; loose holes are filled first.

    Source: mm/slub.c slab_alloc_node.
    """
    slab = row["slab"][cache]
    slab["objects"] += objects
    slab["loose"] = max(0, int(slab["loose"]) - objects)


@law
def kmem_cache_free(row, cache, objects, kept):
    """Free `objects` neighbours among which `kept` survivors stay; slabs without any object in use go back.

        loose holes made = objects · (1 − share^(per_slab − 1)),  share = objects / (objects + kept)

    returns  int64  pages given back

    Source: mm/slub.c __slab_free, discard_slab; the chance that a freed object's slab mates go too is fleetsim's own
    (survivors are spread evenly). kernel-laws §13.1 (one live object pins its slab).
    """
    slab = row["slab"][cache]
    per = PER_SLAB[cache]
    slab["objects"] -= objects
    in_use = int(slab["objects"])
    loose = int(slab["loose"])
    if kept > 0:
        whole_q = 1 << 20
        for _ in range(per - 1):
            whole_q = whole_q * objects // (objects + kept)
        loose += objects - (objects * whole_q >> 20)
    loose = min(loose, in_use * (per - 1))
    slab["loose"] = loose
    empty = max(0, int(slab["slabs"]) * per - in_use - loose) // per
    if empty == 0:
        return 0
    add_slabs(row, cache, -empty)
    unpin(row, empty * SLAB_PAGES[cache])
    return empty * SLAB_PAGES[cache]


@law
def charge_objects(row, cg, cache, objects):
    """Charge (or, below 0, uncharge) objects to a cgroup, by the byte, rounded up to pages.

    Source: mm/memcontrol.c obj_cgroup_charge, mm/slab.h obj_full_size; kernel-laws §8.2.
    """
    if cg <= 0:
        return
    group = row["cgroups"][cg]
    before = group["slab_r"] + group["slab_u"] + 4095 >> 12
    size = objects * (OBJECT_BYTES[cache] + OBJCG_BYTES)
    if RECLAIMABLE[cache] > 0:
        group["slab_r"] += size
    else:
        group["slab_u"] += size
    pages = (group["slab_r"] + group["slab_u"] + 4095 >> 12) - before
    if pages != 0:
        charge(row, cg, pages)
        while cg >= 0:
            row["cgroups"][cg]["kernel"] += pages
            cg = row["cgroups"][cg]["parent"]


@law
def slab_stat(row, cg, reclaimable):
    """memory.stat slab_reclaimable or slab_unreclaimable of a cgroup with all descendants, bytes.

    Source: mm/memcontrol.c memory_stat_format; kernel-laws §8.5.
    """
    total = 0
    for i in range(row["nr_cgroups"]):
        at = i
        while at > cg:
            at = row["cgroups"][at]["parent"]
        if at == cg:
            total += row["cgroups"][i]["slab_r"] if reclaimable > 0 else row["cgroups"][i]["slab_u"]
    for t in range(row["nr_tasks"]):
        task = row["tasks"][t]
        alive = task["state"] == TASK_RUNNING or task["state"] == TASK_EXITING
        if alive and in_subtree(row, task["cg"], cg):
            total += IMAGE_SLAB_R if reclaimable > 0 else IMAGE_SLAB_U
    return total


@law
def unpin_boot(row, pages):
    """Let `pages` pages pinned before the host was up be given back like any others (hugetlb pools, slabs of boot).

    Source: fleetsim's own bookkeeping of the conservation law (kernel-laws §0).
    """
    for place in range(NR_ZONES):
        zone = row["zones"][zonelist(0, place)]
        k = min(pages, zone["boot_pinned"])
        zone["boot_pinned"] -= k
        pages -= k
