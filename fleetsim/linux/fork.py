# SPDX-License-Identifier: Apache-2.0
"""fork(): a child with a copy of its parent's address space, made of page tables only (kernel/fork.c, mm/memory.c copy_page_range).

Every present private page is write-protected in both and shared until one of them writes (`wp_page.py`); entries of swapped
pages are duplicated; page tables of files and shared objects are not copied, the child faults them in. The child promises
as much as its parent did (Committed_AS), so fork may fail with ENOMEM; a full table is EAGAIN.
Leaves out: MADV_DONTFORK, vfork, threads (the child has the calling one only), the child's own first faults on its stack.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import FORK, FORK_HUGE, FORK_PAGE
from fleetsim.law import law
from fleetsim.linux.events import REFUSED, TABLE_FULL, TASK_START, record
from fleetsim.linux.exit import IMAGE_DATA, IMAGE_SLAB, IMAGE_STACK
from fleetsim.linux.fs_types import NR_MAPPINGS
from fleetsim.linux.huge_mm import HPAGE_PMD_NR
from fleetsim.linux.memcontrol import add_kernel
from fleetsim.linux.mm_types import (
    AREA_ANON,
    AREA_FREE,
    AREA_HUGETLB,
    NR_AREAS,
    NR_TASKS,
    TASK_DEAD,
    TASK_RUNNING,
    WMARK_MIN,
)
from fleetsim.linux.pgtable import account_tables
from fleetsim.linux.rmap import add_mapping, add_rss, find_mapping, present_pages
from fleetsim.linux.swap_state import take_clean
from fleetsim.linux.vma import enough_memory
from fleetsim.linux.zonelist import pin_got, rmqueue

CHILD_FILE = 2  # pages of the program's text that a child maps at once: it runs on where fork returns (measured: RssFile 8 kB)


@law
def free_task(row):
    """A row for a new task: that of a child that is dead, or a new one; −1: none is left.

    Source: fleetsim's own table (kernel: pid_max, EAGAIN).
    """
    for t in range(row["nr_tasks"]):
        if row["tasks"][t]["state"] == TASK_DEAD and row["tasks"][t]["parent"] >= 0:
            return t
    return row["nr_tasks"] if row["nr_tasks"] < NR_TASKS else -1


@law
def room_for(row, t):
    """True if the tables have rows for a second copy of task `t`'s areas and mappings.

    Source: fleetsim's own tables.
    """
    areas, mappings = 0, 0
    free_areas, free_mappings = 0, 0
    for a in range(NR_AREAS):
        area = row["areas"][a]
        if area["kind"] == AREA_FREE:
            free_areas += 1
        elif area["task"] == t:
            areas += 1
            for g in range(area["group"], area["group"] + area["groups"]):
                layer = g
                while layer >= 0:
                    mappings += 2 if row["groups"][layer]["task"] >= 0 else 1
                    layer = row["groups"][layer]["below"]
    for m in range(NR_MAPPINGS):
        if row["mappings"][m]["used"] == 0:
            free_mappings += 1
    return areas <= free_areas and mappings <= free_mappings


@law
def share_group(row, a, b, g):
    """The pages of group `g`, the parent's area `a` has them, are the child's area `b`'s too from now on.

    returns  int64  ns that copying the page-table entries takes

    Source: mm/memory.c copy_present_pte, copy_nonpresent_pte; mm/huge_memory.c copy_huge_pmd (one entry for 512 pages, and a page
    table set aside for when it is split).
    """
    group = row["groups"][g]
    if group["task"] >= 0:
        for i in range(group["first"], group["first"] + group["cohorts"]):
            if row["cohorts"][i]["clean"] > 0:  # a layer's pages hold no slots and are not MADV_FREE'd
                take_clean(row, i, row["cohorts"][i]["clean"])
        present = present_pages(row, group)
        mapping = row["mappings"][add_mapping(row, a, g)]
        mapping["mapped"] = present
        mapping["swapped"] = group["resident"] + group["swapped"] - present
        group["task"] = -1
        group["cow"] = 0
    m = find_mapping(row, a, g)
    if m < 0:
        return 0
    mine = row["mappings"][m]
    theirs = row["mappings"][add_mapping(row, b, g)]
    theirs["mapped"] = mine["mapped"]
    theirs["swapped"] = mine["swapped"]
    child = row["tasks"][row["areas"][b]["task"]]
    add_rss(child, group, mine["mapped"])
    child["swapents"] += mine["swapped"]
    small = mine["mapped"] + mine["swapped"] - min(mine["mapped"], group["huge"] * HPAGE_PMD_NR)
    return small * row["cost"][FORK_PAGE] + group["huge"] * row["cost"][FORK_HUGE]


@law
def dup_mmap(row, t, c):
    """Copy every area of task `t` for its child `c`.

    returns  int64  ns that copying the page-table entries takes

    Source: kernel/fork.c dup_mmap, mm/memory.c copy_page_range; kernel-laws §10.2.
    """
    spent = 0
    b = 0
    for a in range(NR_AREAS):
        area = row["areas"][a]
        if area["kind"] == AREA_FREE or area["kind"] == AREA_HUGETLB or area["task"] != t:
            continue  # huge pages of a pool are not shared with a child here
        while row["areas"][b]["kind"] != AREA_FREE:
            b += 1
        row["areas"][b] = area
        twin = row["areas"][b]
        twin["task"] = c
        twin["tables"] = 0
        twin["locked"] = 0  # locks are not inherited
        if area["accounted"]:
            row["committed"] += area["pages"] - area["cut"]
        for g in range(area["group"], area["group"] + area["groups"]):
            if area["kind"] != AREA_ANON:
                add_mapping(row, b, g)
                continue
            layer = g
            while layer >= 0:
                spent += share_group(row, a, b, layer)
                layer = row["groups"][layer]["below"]
        if area["kind"] == AREA_ANON:
            twin["tables"] = area["tables"]
    return spent


@law
def promised(row, t):
    """Pages of task `t` in Committed_AS: what a copy of it has to be promised.

    Source: kernel/fork.c dup_mmap (VM_ACCOUNT); kernel-laws §6, T-6.3.
    """
    pages = IMAGE_DATA
    for a in range(NR_AREAS):
        if row["areas"][a]["kind"] != AREA_FREE and row["areas"][a]["task"] == t and row["areas"][a]["accounted"]:
            pages += row["areas"][a]["pages"] - row["areas"][a]["cut"]
    return pages


@law
def kernel_side(row, child):
    """The kernel's own memory of a child: its stack, and the slab objects that stand for it.

    Source: kernel/fork.c dup_task_struct; the amounts are those of exec (exit.py).
    """
    child["base_stack"] = rmqueue(row, IMAGE_STACK, WMARK_MIN)
    pin_got(row)
    child["base_slab"] = rmqueue(row, IMAGE_SLAB, WMARK_MIN)
    pin_got(row)
    row["kernel_stack"] += child["base_stack"]
    row["slab_unreclaimable"] += child["base_slab"]
    add_kernel(row, child["cg"], child["base_stack"] + child["base_slab"])


@law
def start_thread(row, th, t, ready_ns):
    """Thread row `th` becomes the only thread of task `t`, and may run from `ready_ns` on.

    Source: kernel/fork.c wake_up_new_task.
    """
    thread = row["threads"][th]
    thread["used"] = 1
    thread["task"] = t
    thread["ready_ns"] = ready_ns
    thread["since_ns"] = ready_ns
    row["busy_until_ns"][th] = 0
    thread["work_until_ns"] = 0
    thread["stalled"] = 0
    thread["charge_retries"] = 0
    thread["no_progress"] = 0


@law
def copy_process(row, t, th):
    """fork() of task `t`; the child's only thread is thread row `th`.

    returns  int64  the child's row; −1: ENOMEM or EAGAIN (an event says which)

    Source: kernel/fork.c copy_process, copy_mm; kernel-laws §10.2.
    """
    row["spent_ns"] += row["cost"][FORK]
    parent = row["tasks"][t]
    if not enough_memory(row, t, promised(row, t), 1):
        record(row, REFUSED, t, promised(row, t), 0, 0, 0, 0, 0, 0, 0)
        return -1
    c = free_task(row)
    if c < 0 or th < 0 or not room_for(row, t):
        record(row, TABLE_FULL, t, 0, 0, 0, 0, 0, 0, 0, 0)
        return -1
    row["nr_tasks"] = max(row["nr_tasks"], c + 1)
    child = row["tasks"][c]
    exits = child["exits"]
    row["tasks"][c] = parent
    child["parent"] = t
    child["pipes"] = 0
    child["inherited_pipes"] = parent["pipes"] + parent["inherited_pipes"]
    child["pid"] = row["next_pid"]
    row["next_pid"] += 1
    child["base_shared"] = parent["base_anon"] + parent["base_shared"]
    child["base_anon"] = 0
    child["base_file"] = CHILD_FILE
    child["rss_anon"] = child["base_shared"]
    child["rss_file"] = CHILD_FILE
    child["rss_shmem"] = 0
    child["swapents"] = 0
    child["minflt"] = 0
    child["majflt"] = 0
    child["utime_ns"] = 0
    child["stime_ns"] = 0
    child["blkio_ns"] = 0
    child["pgtables"] = 0
    child["killed"] = 0
    child["exits"] = exits  # of all who had the row: it only grows
    child["exit_code"] = 0
    child["started_ns"] = row["now_ns"]
    child["restart_ns"] = -1
    child["main_thread"] = th
    child["state"] = TASK_RUNNING
    row["committed"] += IMAGE_DATA
    copying = dup_mmap(row, t, c)
    account_tables(row, c)
    kernel_side(row, child)
    child["hwm"] = child["rss_anon"] + child["rss_file"]
    row["spent_ns"] += copying
    parent["stime_ns"] += row["cost"][FORK] + copying
    start_thread(row, th, c, row["now_ns"] + row["spent_ns"])
    row["nr_threads"] = max(row["nr_threads"], th + 1)
    row["reschedule"] = 1
    record(row, TASK_START, c, child["pid"], child["cg"], 0, t + 1, 0, 0, 0, 0)
    return c
