# SPDX-License-Identifier: Apache-2.0
"""Pipes: kernel objects that each hold one page nobody can move or reclaim (fs/pipe.c).

A pipe costs its inode and name, two open files, its description, its ring of 16 buffers, and the page that was written
into it. All of it goes when its task exits.
Leaves out: the table of file descriptors, the soft limit for users without privileges, reading.
Source: fs/pipe.c (Linux 6.1); kernel-laws §8.2, §13.1.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import PIPE
from fleetsim.law import law
from fleetsim.linux.alloc_slowpath import handle_over_high
from fleetsim.linux.memcontrol import add_kernel
from fleetsim.linux.memory import get_pages
from fleetsim.linux.mm_types import TASK_EXITING, TASK_RUNNING
from fleetsim.linux.namei import make_room, spend
from fleetsim.linux.slab_caches import DENTRY, FILP, LSM_FILE, LSM_INODE, PIPE_BUFS, PIPE_INFO, PIPE_INODE
from fleetsim.linux.slub import charge_objects, kmem_cache_alloc, kmem_cache_free
from fleetsim.linux.zonelist import pin_got, unpin


@law
def make_pipes(row, th, pipes):
    """pipe() and a write of one page into it, `pipes` times; they stay open until the task exits.

    returns  int64  pipes made, 0: come back

    Source: fs/pipe.c create_pipe_files, alloc_pipe_info, pipe_write (one page of the kernel's, that cannot move).
    """
    task = row["tasks"][row["threads"][th]["task"]]
    cg = task["cg"]
    for cache in (DENTRY, PIPE_INODE, LSM_INODE, PIPE_INFO, PIPE_BUFS):
        if not make_room(row, th, cache, pipes):
            return 0
    if not (make_room(row, th, FILP, 2 * pipes) and make_room(row, th, LSM_FILE, 2 * pipes)):
        return 0
    n = get_pages(row, th, pipes)
    if n == 0:
        return 0
    pin_got(row)
    row["other_kernel"] += n
    add_kernel(row, cg, n)
    count_pipes(row, cg, n)
    task["pipes"] += n
    spend(row, th, n, PIPE)
    if cg > 0:
        handle_over_high(row, th, n)
    return n


@law
def count_pipes(row, cg, pipes):
    """The slab objects of `pipes` pipes, made (or, below 0, freed).

    Source: fs/pipe.c alloc_pipe_info, free_pipe_info.
    """
    for cache in (DENTRY, PIPE_INODE, LSM_INODE, PIPE_INFO, PIPE_BUFS, FILP, LSM_FILE):
        objects = 2 * pipes if cache in (FILP, LSM_FILE) else pipes
        if pipes > 0:
            kmem_cache_alloc(row, cache, objects)
        else:
            kmem_cache_free(row, cache, -objects, 0)
        if cache != LSM_INODE and cache != LSM_FILE:
            charge_objects(row, cg, cache, objects)


@law
def heir(row, t):
    """A living child of task `t` that has pipes of its open, or −1.

    Source: fs/pipe.c pipe_release (the pipe stays while anybody has it open).
    """
    for c in range(row["nr_tasks"]):
        child = row["tasks"][c]
        if child["parent"] == t and child["inherited_pipes"] > 0 and TASK_RUNNING <= child["state"] <= TASK_EXITING:
            return c
    return -1


@law
def close_pipes(row, t):
    """Task `t` exits: its pipes go, but for those that a child has open too.

    Source: fs/pipe.c pipe_release, put_pipe_info. Leaves out: of several children only the first keeps them.
    """
    task = row["tasks"][t]
    task["inherited_pipes"] = 0
    n = int(task["pipes"])
    if n == 0:
        return
    c = heir(row, t)
    kept = 0
    if c >= 0:
        child = row["tasks"][c]
        kept = min(n, int(child["inherited_pipes"]))
        child["pipes"] += kept
        child["inherited_pipes"] = 0
    n -= kept
    task["pipes"] = 0
    if n > 0:
        count_pipes(row, task["cg"], -n)
        unpin(row, n)
        row["other_kernel"] -= n
        add_kernel(row, task["cg"], -n)
