# SPDX-License-Identifier: Apache-2.0
"""Areas and files: making them, cutting them into groups and cohorts, and taking them down (mm/mmap.c, mm/memory.c unmap).

Leaves out: splitting and merging of areas, partial munmap. Where areas lie is in mmap_layout.py.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import EXIT, SYSCALL
from fleetsim.law import law
from fleetsim.linux.events import REFUSED, TABLE_FULL, record
from fleetsim.linux.mm_inline import list_del
from fleetsim.linux.mm_types import (
    AREA_ANON,
    AREA_FREE,
    LRU_NONE,
    NR_AREAS,
    NR_COHORTS,
    NR_GROUPS,
    NR_WRITEBACK,
    UNIFORM,
)
from fleetsim.linux.mmap import commit_limit, vm_enough_memory
from fleetsim.linux.mmap_layout import place_area
from fleetsim.linux.pgtable import forget_area
from fleetsim.linux.swap_types import NR_SWAPFILES
from fleetsim.linux.zap import zap_group

COHORT_PAGES_MIN = 64
COHORTS_MAX = 64
COHORTS_MIDDLE, COHORTS_SMALL, COHORTS_LEAST, COHORTS_TINY, COHORTS_FEWEST = 32, 16, 6, 4, 2
TINY, FEWEST = 512, 4096  # below these parts of RAM an ordered group has COHORTS_TINY and COHORTS_FEWEST
BAGS, BAGS_SMALL, BAGS_TINY = 24, 10, 6
SMALL_BAGS, TINY_BAGS = 64, 2048  # below these parts of RAM a uniform group has BAGS_SMALL and BAGS_TINY


@law
def find_cohorts(row, wanted):
    """First of `wanted` consecutive unused cohort rows, or −1.

    Source: fleetsim's own table.
    """
    run = 0
    for i in range(NR_COHORTS):
        run = run + 1 if row["cohorts"][i]["group"] < 0 else 0
        if run == wanted:
            return i - wanted + 1
    return -1


@law
def find_groups(row, wanted):
    """First of `wanted` consecutive unused group rows, or −1.

    Source: fleetsim's own table.
    """
    run = 0
    for g in range(NR_GROUPS):
        run = run + 1 if row["groups"][g]["used"] == 0 else 0
        if run == wanted:
            return g - wanted + 1
    return -1


@law
def cohorts_for(totalram, pages, kind, shared):
    """How many cohorts a group of `pages` pages gets: 64 for one that matters (1/16 of RAM and more), 32, 16, 6, 4 and 2 for smaller ones.

    A group with random access gets bags instead: 24, 10 and 6.

    shared   bool   its pages may be charged to several cgroups (a file, a shared object): fewer than 10 bags would not do
    returns  int64  rows

    Source: design §3.2: K = 64 cohorts of ≥ 64 pages are enough, fewer for small groups. The bounds are the coarsest at which replays of
    the recordings keep their score (docs/benchmarks.md, "How many cohorts").
    """
    if kind == UNIFORM:
        if pages * SMALL_BAGS >= totalram:
            return BAGS
        return BAGS_SMALL if shared or pages * TINY_BAGS >= totalram else BAGS_TINY
    most = COHORTS_MAX
    if pages * 16 < totalram:
        most = COHORTS_MIDDLE
    if pages * 32 < totalram:
        most = COHORTS_SMALL
    if pages * 128 < totalram:
        most = COHORTS_LEAST
    if pages * TINY < totalram:
        most = COHORTS_TINY
    if pages * FEWEST < totalram:
        most = COHORTS_FEWEST
    return max(1, min(most, pages // COHORT_PAGES_MIN))


@law
def make_group(row, g, kind, is_file, task, pages):
    """Fill group row `g` and claim its cohorts.

    returns  bool  False: the cohort table is full

    Source: fleetsim's own representation (design §3.2).
    """
    wanted = cohorts_for(row["totalram"], pages, kind, task < 0)
    first = find_cohorts(row, wanted)
    if first < 0:
        return False
    group = row["groups"][g]
    row["nr_groups"] = max(row["nr_groups"], g + 1)
    group["used"] = 1
    group["kind"] = kind
    group["is_file"] = is_file
    group["shmem"] = 0
    group["maps"] = -1
    group["below"] = -1
    group["cow"] = 0
    group["task"] = task
    group["first"] = first
    group["cohorts"] = wanted
    group["pages"] = pages
    group["slice"] = (pages + wanted - 1) // wanted
    group["resident"] = 0
    group["swapped"] = 0
    group["evicted"] = 0
    group["touches"] = 0
    group["carry"] = 0
    group["carry_split"] = 0
    group["mapped"] = 0
    group["buffered"] = 0
    group["locked"] = 0
    group["ra_win"] = 0
    group["huge"] = 0
    group["huge_gone"] = 0
    group["in_filter"] = 0
    group["stored"] = 0
    group["noise"] = row["noise"]
    for area in range(NR_SWAPFILES):
        group["slots"][area] = 0
    for k in range(wanted):
        cohort = row["cohorts"][first + k]
        cohort["group"] = g
        cohort["list"] = LRU_NONE
        cohort["flags"] = 0
        cohort["nr"] = 0
        cohort["low_zone"][0] = 0
        cohort["low_zone"][1] = 0
        cohort["node1"] = 0
        cohort["wb"] = 0
        cohort["dirty"] = 0
        cohort["clean"] = 0
        cohort["swapped"] = 0
        cohort["evicted"] = 0
        cohort["off"] = 0
        cohort["home"] = -1
        cohort["shadow"] = 0
        cohort["shadow_cg"] = 0
        cohort["base"] = 0
        cohort["born"] = 0
    return True


@law
def make_groups(row, kind, is_file, task, pages, hot_pages):
    """One group, or a hot and a cold one.

    returns  int64  first group row, or −1: a table is full

    Source: fleetsim's own representation; hot and cold parts of a random pattern are two uniform groups.
    """
    wanted = 2 if 0 < hot_pages < pages else 1
    g = find_groups(row, wanted)
    if g < 0:
        return -1
    ok = make_group(row, g, kind, is_file, task, hot_pages if wanted == 2 else pages)
    if ok and wanted == 2:
        ok = make_group(row, g + 1, kind, is_file, task, pages - hot_pages)
        if not ok:
            drop_group(row, g)
    return g if ok else -1


@law
def drop_group(row, g):
    """Forget a group none of whose pages is resident or in swap any more; its cohorts become free rows.

    Source: fleetsim's own table.
    """
    group = row["groups"][g]
    for k in range(group["cohorts"]):
        i = group["first"] + k
        list_del(row, i)
        row["cohorts"][i]["group"] = -1
        row["cohorts"][i]["wb"] = 0
        row["cohorts"][i]["clean"] = 0
    for k in range(NR_WRITEBACK):
        entry = row["writeback"][k]
        if group["first"] <= entry["cohort"] < group["first"] + group["cohorts"]:
            entry["pages"] = 0
    group["used"] = 0


@law
def enough_memory(row, t, pages, accounted):
    """May task `t` be promised `pages` more pages?

    accounted  int64  0 for MAP_NORESERVE, which only mode 2 ignores
    returns    bool   False: ENOMEM

    Source: mm/util.c __vm_enough_memory; kernel-laws §6.
    """
    sysctl = row["sysctl"]
    mode = sysctl["overcommit_memory"]
    if accounted == 0 and mode != 2:
        return True
    total = row["totalram"] + row["swap_total"]
    limit = commit_limit(row["totalram"], row["hugetlb"], sysctl["overcommit_ratio"], sysctl["overcommit_kbytes"], row["swap_total"])
    admin, user = sysctl["admin_reserve_kbytes"] // 4, sysctl["user_reserve_kbytes"] // 4
    return vm_enough_memory(mode, pages, row["committed"], limit, total, admin, user, row["tasks"][t]["total_vm"], True)


@law
def map_untouched(row, th, chunk, most):
    """Private writable mappings of `chunk` pages, again and again until ENOMEM or `most` pages are had; nobody is going to touch them.

    They are address space and a promise, and have no table row.

    returns  int64  pages got

    Source: mm/mmap.c mmap_region (adjacent mappings merge into one).
    """
    t = row["threads"][th]["task"]
    task = row["tasks"][t]
    got = 0
    while got < most:
        row["spent_ns"] += row["cost"][SYSCALL]
        if not enough_memory(row, t, chunk, 1):
            record(row, REFUSED, t, chunk, 0, 0, 0, 0, 0, 0, 0)
            break
        row["committed"] += chunk
        task["untouched_vm"] += chunk
        task["total_vm"] += chunk
        task["data_vm"] += chunk
        got += chunk
    return got


@law
def vma_link(area, kind, t, f, g, groups, accounted, pages):
    """A free row becomes an area of `pages` pages of task `t`, none of which was touched yet.

    kind     int64  AREA_…
    f        int64  file or shared object, −1 for none
    g        int64  first of its `groups` groups

    Source: mm/mmap.c vm_area_alloc, vma_link.
    """
    area["kind"] = kind
    area["task"] = t
    area["file"] = f
    area["group"] = g
    area["groups"] = groups
    area["accounted"] = accounted
    area["pages"] = pages
    area["touched"] = 0
    area["zero"] = 0
    area["tables"] = 0
    area["start"] = 0
    area["cut"] = 0
    area["pte_upto"] = 0
    area["thp_flag"] = 0
    area["hstate"] = 0
    area["locked"] = 0
    area["ahead"] = 0


@law
def mmap_anon(row, t, pages, kind, hot_pages, accounted):
    """Private anonymous mapping of `pages` pages for task `t`.

    kind       int64  ORDERED or UNIFORM: how it is going to be accessed
    hot_pages  int64  size of the hot part of a UNIFORM area, 0 for none
    accounted  int64  0 for MAP_NORESERVE
    returns    int64  area row; −1 refused (ENOMEM, or a table is full: an event says which)

    Source: mm/mmap.c mmap_region, mm/util.c __vm_enough_memory; kernel-laws §6.
    """
    task = row["tasks"][t]
    mode = row["sysctl"]["overcommit_memory"]
    if not enough_memory(row, t, pages, accounted):
        record(row, REFUSED, t, pages, 0, 0, 0, 0, 0, 0, 0)
        return -1
    a = -1
    for k in range(NR_AREAS):
        if row["areas"][k]["kind"] == AREA_FREE:
            a = k
            break
    g = make_groups(row, kind, 0, t, pages, hot_pages) if a >= 0 else -1
    if a < 0 or g < 0:
        record(row, TABLE_FULL, t, pages, 0, 0, 0, 0, 0, 0, 0)
        return -1
    area = row["areas"][a]
    vma_link(
        area, AREA_ANON, t, -1, g, 2 if kind == UNIFORM and 0 < hot_pages < pages else 1, 1 if accounted > 0 or mode == 2 else 0, pages
    )
    place_area(row, a)
    if area["accounted"]:
        row["committed"] += pages
    task["total_vm"] += pages
    task["data_vm"] += pages
    return a


@law
def zap_area(row, a, budget):
    """Take down an anonymous area page by page; once it is empty, its page tables and the area itself go.

    returns  (int64 pages given back, bool the area is gone)

    Source: mm/mmap.c unmap_region, free_pgtables.
    """
    area = row["areas"][a]
    task = row["tasks"][area["task"]]
    left = budget
    for k in range(area["groups"]):
        left -= zap_group(row, area["group"] + k, left)
    row["spent_ns"] += (budget - left) * row["cost"][EXIT]
    if left == 0:
        return budget, False
    for k in range(area["groups"]):
        drop_group(row, area["group"] + k)
    if area["accounted"]:
        row["committed"] -= area["pages"] - area["cut"]
    task["total_vm"] -= area["pages"] - area["cut"]
    task["data_vm"] -= area["pages"] - area["cut"]
    forget_area(row, area)
    return budget - left, True


@law
def open_file(row, f, kind, hot_pages):
    """Give file `f` its groups on first use.

    returns  bool  False: a table is full

    Source: fleetsim's own representation.
    """
    file = row["files"][f]
    if file["group"] >= 0:
        return True
    on_disk = file["mount"] < 0
    largest = max(file["pages"], file["size"], 1)
    g = make_groups(row, kind, 1 if on_disk else 0, -1, largest, hot_pages)
    if g < 0:
        record(row, TABLE_FULL, -1, largest, 0, 0, 0, 0, 0, 0, 0)
        return False
    file["group"] = g
    file["groups"] = 2 if kind == UNIFORM and 0 < hot_pages < largest else 1
    for k in range(file["groups"]):
        row["groups"][g + k]["shmem"] = 0 if on_disk else 1
    if on_disk:
        last = row["groups"][g + file["groups"] - 1]
        last["pages"] -= largest - file["size"]  # it is cut for the size it will have; it has the size it has
    return True


@law
def slice_at(group, at):
    """Which cohort of an ordered group holds position `at`; the last one takes whatever a file grew beyond the size it was cut for.

    returns  (int64 number of the cohort in its group, int64 first position of its slice)

    Source: fleetsim's own representation (design §3.2).
    """
    k = min(at // group["slice"], group["cohorts"] - 1)
    return k, k * group["slice"]
