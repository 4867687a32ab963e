# SPDX-License-Identifier: Apache-2.0
"""cgroup v2 memory controller: charging, protection, limits and their events.

Row 0 of `cgroups` is the root (no limits of its own). Usage, statistics and events are kept with all children, as the
interface files show them. The scalar formulas are in `memcontrol_laws.py`.
Leaves out: per-CPU pre-charges (memory.current is exact here), kernel-memory by the byte.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.memcontrol_laws import effective_protection
from fleetsim.linux.mm_types import NO_LIMIT

DYING = 2  # group["used"]: removed, with charges left


@law
def margin(row, cg):
    """Pages that can still be charged to `cg` before some level hits memory.max, and which level that is.

    returns  (int64 pages ≥ 0, int64 row of the tightest level or −1)

    Source: mm/memcontrol.c mem_cgroup_margin, over all ancestors as page_counter_try_charge walks them.
    """
    least, level = NO_LIMIT, -1
    while cg > 0:
        group = row["cgroups"][cg]
        room = max(0, group["max"] - group["usage"])
        if room < least:
            least, level = room, cg
        cg = group["parent"]
    return least, level


@law
def charge(row, cg, pages):
    """Count `pages` (may be negative) to `cg` and its ancestors.

    Source: mm/page_counter.c page_counter_charge; kernel-laws §8.3.
    """
    while cg >= 0:
        group = row["cgroups"][cg]
        group["usage"] += pages
        group["peak"] = max(group["peak"], group["usage"])
        cg = group["parent"]


@law
def count(row, cg, stat, number):
    """Add to one of memory.stat's event counters (`CG[...]`), with all ancestors.

    Source: mm/memcontrol.c __count_memcg_events, rstat flush.
    """
    while cg >= 0:
        row["cgroups"][cg]["stat"][stat] += number
        cg = row["cgroups"][cg]["parent"]


@law
def count_both(row, cg, stat, number, other, other_number):
    """Add to two of memory.stat's event counters, with all ancestors.

    Source: mm/memcontrol.c __count_memcg_events, rstat flush.
    """
    while cg >= 0:
        group = row["cgroups"][cg]
        group["stat"][stat] += number
        group["stat"][other] += other_number
        cg = group["parent"]


@law
def event(row, cg, kind):
    """One more of a memory.events entry (`EV[...]`), hierarchical as memory.events is.

    Source: include/linux/memcontrol.h memcg_memory_event.
    """
    while cg > 0:
        row["cgroups"][cg]["events"][kind] += 1
        cg = row["cgroups"][cg]["parent"]


@law
def event_times(row, cg, kind, number):
    """`number` more of a memory.events or memory.swap.events entry.

    Source: include/linux/memcontrol.h memcg_memory_event.
    """
    while cg > 0:
        row["cgroups"][cg]["events"][kind] += number
        cg = row["cgroups"][cg]["parent"]


@law
def add_anon(row, cg, pages):
    """Mapped anonymous pages of a cgroup (memory.stat `anon`), with all ancestors.

    Source: mm/rmap.c NR_ANON_MAPPED.
    """
    row["anon_mapped"] += pages
    while cg >= 0:
        row["cgroups"][cg]["anon"] += pages
        cg = row["cgroups"][cg]["parent"]


@law
def add_file(row, cg, pages):
    """Page-cache pages of a cgroup (memory.stat `file`), with all ancestors.

    Source: mm/filemap.c NR_FILE_PAGES.
    """
    row["nr_file_lru"] += pages
    while cg >= 0:
        row["cgroups"][cg]["file"] += pages
        cg = row["cgroups"][cg]["parent"]


@law
def charge_cache(row, cg, pages):
    """Pages of the page cache are charged to `cg` and its ancestors, or uncharged: `charge` and `add_file` in one walk.

    Source: mm/page_counter.c page_counter_charge, mm/filemap.c NR_FILE_PAGES.
    """
    row["nr_file_lru"] += pages
    while cg >= 0:
        group = row["cgroups"][cg]
        group["usage"] += pages
        group["peak"] = max(group["peak"], group["usage"])
        group["file"] += pages
        cg = group["parent"]


@law
def add_shmem(row, cg, pages):
    """Pages of shared memory and tmpfs of a cgroup (memory.stat `shmem`, and part of `file`), with all ancestors.

    Source: mm/shmem.c shmem_add_to_page_cache, NR_SHMEM; kernel-laws §14.
    """
    row["shmem"] += pages
    while cg >= 0:
        row["cgroups"][cg]["shmem"] += pages
        row["cgroups"][cg]["file"] += pages
        cg = row["cgroups"][cg]["parent"]


@law
def add_kernel(row, cg, pages):
    """Charge kernel memory (stacks, slab, page tables) to a cgroup (memory.stat `kernel`).

    Source: mm/memcontrol.c obj_cgroup_charge_pages; kernel-laws §8.2.
    """
    charge(row, cg, pages)
    while cg >= 0:
        row["cgroups"][cg]["kernel"] += pages
        cg = row["cgroups"][cg]["parent"]


@law
def add_swap(row, cg, pages):
    """Swap slots of a cgroup (memory.swap.current), with all ancestors.

    Source: mm/memcontrol.c mem_cgroup_try_charge_swap.
    """
    while cg >= 0:
        row["cgroups"][cg]["swap"] += pages
        cg = row["cgroups"][cg]["parent"]


@law
def swap_room(row, cg):
    """Swap slots that `cg` may still take: free slots of the host, and swap.max − swap.current of every level.

    Source: mm/memcontrol.c mem_cgroup_get_nr_swap_pages; kernel-laws §3.5 row 1.
    """
    return min(row["swap_free"], swap_limit_room(row, cg))


@law
def swap_limit_room(row, cg):
    """Swap slots that the memory.swap.max of `cg` and its ancestors still allow.

    Source: mm/memcontrol.c mem_cgroup_get_nr_swap_pages (its limits).
    """
    room = NO_LIMIT
    while cg > 0:
        group = row["cgroups"][cg]
        room = min(room, group["swap_max"] - group["swap"])
        cg = group["parent"]
    return max(0, room)


@law
def calculate_protection(row, root, cg):
    """Effective memory.min and memory.low of `cg` for reclaim that started at `root`.

    Parents come before children in the table, so walking it in order always finds the parent's value fresh. The root of the
    reclaim keeps the values of an earlier reclaim from above, and 6.1 tests those: a cgroup whose memory.min is its memory.max
    can be out of memory with cache left.

    Source: mm/memcontrol.c mem_cgroup_calculate_protection; kernel-laws §3.11 (memory_recursiveprot is on, as systemd mounts it).
    """
    group = row["cgroups"][cg]
    parent = group["parent"]
    if cg == root or group["usage"] == 0:
        return
    if parent == root:
        group["emin"] = min(group["min"], NO_LIMIT)
        group["elow"] = min(group["low"], NO_LIMIT)
        return
    above = row["cgroups"][parent]
    sum_min, sum_low = 0, 0
    for i in range(1, row["nr_cgroups"]):
        sibling = row["cgroups"][i]
        if sibling["used"] and sibling["parent"] == parent:
            sum_min += min(sibling["usage"], sibling["min"])
            sum_low += min(sibling["usage"], sibling["low"])
    group["emin"] = effective_protection(group["usage"], above["usage"], group["min"], above["emin"], sum_min, True)
    group["elow"] = effective_protection(group["usage"], above["usage"], group["low"], above["elow"], sum_low, True)


@law
def css_offline(row, cg):
    """rmdir of a cgroup: it has no task any more, but what was charged to it stays so until it is reclaimed or freed.

    Source: mm/memcontrol.c mem_cgroup_css_offline (its protection and limits end), kernel/cgroup/cgroup.c cgroup_rmdir;
    kernel-laws §8.2. `css_free` gives the row back.
    """
    group = row["cgroups"][cg]
    group["used"] = DYING
    group["min"] = 0
    group["low"] = 0
    group["high"] = NO_LIMIT
    css_free(row, cg)


@law
def css_free(row, cg):
    """A dying cgroup to which nothing is charged any more is gone.

    returns  bool  True: its row is free

    Source: mm/memcontrol.c mem_cgroup_css_free (the last reference is the last charge).
    """
    group = row["cgroups"][cg]
    if group["used"] != DYING or group["usage"] > 0 or group["swap"] > 0:
        return False
    group["used"] = 0
    row["cgroups"][group["parent"]]["children"] -= 1
    return True


@law
def nr_dying_descendants(row, cg):
    """cgroup.stat nr_dying_descendants; those that are empty by now go first.

    Source: kernel/cgroup/cgroup.c cgroup_stat_show.
    """
    dying = 0
    for i in range(1, row["nr_cgroups"]):
        if row["cgroups"][i]["used"] == DYING and not css_free(row, i) and i != cg and in_subtree(row, i, cg):
            dying += 1
    return dying


@law
def in_subtree(row, cg, root):
    """True if `cg` is `root` or one of its descendants.

    Source: include/linux/memcontrol.h mem_cgroup_is_descendant.
    """
    while cg >= 0:
        if cg == root:
            return True
        cg = row["cgroups"][cg]["parent"]
    return False
