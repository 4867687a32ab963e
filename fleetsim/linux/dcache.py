# SPDX-License-Identifier: Apache-2.0
"""Cached names and inodes that nobody uses: who is in them, in which order they were left, and how they go (fs/dcache.c, fs/inode.c).

The LRU of one superblock and cgroup is a queue of runs: dentries left one after the other, of three kinds (a name that does
not exist, a name of an inode only looked at, a name of an inode once opened for writing). A run is a row of `DENTRY_RUN`;
rows stand in the order of age. An inode joins its own LRU when its name goes. What is found again before it goes gets a
second round.
A *name tree* says which names of one directory are cached, as two intervals: names are used in order, and go in order.
Leaves out: directories' own dentries (pinned by their children), hard links, an inode found again after its name has gone.
Source: fs/dcache.c, fs/inode.c (Linux 6.1); kernel-laws §13.3.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.slab_caches import DENTRY, EXT4_INODE, JBD2_INODE, LSM_INODE
from fleetsim.linux.slab_types import NR_DENTRY_RUNS, NR_NAME_TREES
from fleetsim.linux.slub import charge_objects, kmem_cache_free

NEGATIVE, PLAIN, OPENED = 0, 1, 2  # kinds of names
RUN_SHARE = 32  # a run grows to this part of its cgroup's queue, then a new one begins
RUN_MIN = 1024


@law
def run_total(run):
    """Names in a run.

    Source: fleetsim's own representation.
    """
    return int(run["names"][0]) + int(run["names"][1]) + int(run["names"][2])


@law
def del_run(row, at):
    """Take row `at` out of the queue, keeping the order of the others.

    Source: fleetsim's own table.
    """
    runs = row["dentries"]
    row["nr_dentries"] -= 1
    for i in range(at, row["nr_dentries"]):
        for k in range(3):
            runs[i]["names"][k] = runs[i + 1]["names"][k]
        runs[i]["cg"] = runs[i + 1]["cg"]
        runs[i]["referenced"] = runs[i + 1]["referenced"]


@law
def merge_oldest(row):
    """The table is full: the two oldest neighbours of one cgroup become one run.

    Source: fleetsim's own table (more rows than there can be cgroups, so that two of one always exist).
    """
    runs = row["dentries"]
    for i in range(row["nr_dentries"]):
        for j in range(i + 1, row["nr_dentries"]):
            if runs[i]["cg"] == runs[j]["cg"]:
                for k in range(3):
                    runs[i]["names"][k] += runs[j]["names"][k]
                runs[i]["referenced"] += runs[j]["referenced"]
                del_run(row, j)
                return


@law
def d_lru_add(row, cg, kind, names):
    """Names that nobody uses any more join the young end of their cgroup's queue.

    Source: fs/dcache.c d_lru_add (a name just left is not referenced).
    """
    group = row["cgroups"][cg]
    group["dentries"] += names
    runs = row["dentries"]
    at = row["nr_dentries"] - 1
    while at >= 0 and runs[at]["cg"] != cg:
        at -= 1
    if at < 0 or run_total(runs[at]) >= max(RUN_MIN, int(group["dentries"]) // RUN_SHARE):
        if row["nr_dentries"] == NR_DENTRY_RUNS:
            merge_oldest(row)
        at = row["nr_dentries"]
        row["nr_dentries"] += 1
        runs[at]["cg"] = cg
        runs[at]["referenced"] = 0
        for k in range(3):
            runs[at]["names"][k] = 0
    runs[at]["names"][kind] += names


@law
def d_reference(row, cg, names):
    """Cached names were found again: they get a second round (DCACHE_REFERENCED).

    Source: fs/dcache.c retain_dentry. Which run they are in is not kept: the oldest first, as names are used in order.
    """
    for i in range(row["nr_dentries"]):
        run = row["dentries"][i]
        if run["cg"] == cg and names > 0:
            n = min(names, run_total(run) - int(run["referenced"]))
            run["referenced"] += n
            names -= n


@law
def forget_names(row, kind, names):
    """`names` names of a kind were dropped from their cache, the oldest: the trees that knew them forget them.

    Source: fleetsim's own representation.
    """
    for t in range(NR_NAME_TREES):
        tree = row["name_trees"][t]
        while tree["kind"] == kind and names > 0 and tree["hi"] > tree["lo"]:
            n = min(names, int(tree["hi"]) - int(tree["lo"]))
            tree["lo"] += n
            names -= n
            if tree["lo"] == tree["hi"]:  # the newer interval, from name 0 on, is all there is
                tree["lo"] = 0
                tree["hi"] = tree["new"]
                tree["new"] = 0


@law
def prune_dcache_sb(row, cg, wanted):
    """Look at up to `wanted` of the oldest unused names of a cgroup: referenced ones go round again, the others are freed.

    returns  (int64 names looked at, int64 names freed, int64 pages given back)

    Source: fs/dcache.c prune_dcache_sb, dentry_lru_isolate; fs/inode.c iput_final (the inode of a freed name joins its LRU).
    """
    group = row["cgroups"][cg]
    left = wanted
    freed = 0
    pages = 0
    while left > 0:
        at = 0
        while at < row["nr_dentries"] and row["dentries"][at]["cg"] != cg:
            at += 1
        if at == row["nr_dentries"]:
            break
        run = row["dentries"][at]
        total = run_total(run)
        n = min(left, total)
        again = n * int(run["referenced"]) // total
        run["referenced"] -= again
        moved, gone, taken = 0, 0, 0
        for kind in range(3):
            have = int(run["names"][kind])
            k = min(have, n - taken, (n * have + total - 1) // total)
            back = k * again // n
            run["names"][kind] -= k
            taken += k
            group["dentries"] -= k
            if back > 0:
                moved += back
                d_lru_add(row, cg, kind, back)
                at = 0  # the queue may have been reordered: find the run again
                while row["dentries"][at]["cg"] != cg:
                    at += 1
                run = row["dentries"][at]
            if k > back:
                gone += k - back
                forget_names(row, kind, k - back)
                if kind != NEGATIVE:
                    group["inodes"] += k - back
                    group["jinodes"] += k - back if kind == OPENED else 0
        if gone > 0:
            pages += kmem_cache_free(row, DENTRY, gone, moved)
            charge_objects(row, cg, DENTRY, -gone)
        if run_total(run) == 0:
            del_run(row, at)
        freed += gone
        left -= max(1, taken)
    return wanted - left, freed, pages


@law
def prune_icache_sb(row, cg, wanted):
    """Free up to `wanted` unused inodes of a cgroup, with what the security module and the journal keep for each.

    returns  (int64 inodes freed, int64 pages given back)

    Source: fs/inode.c prune_icache_sb, inode_lru_isolate, ext4_free_in_core_inode; kernel-laws §13.3. An inode that holds
    page cache is not on this LRU (since 5.16), so pginodesteal stays 0.
    """
    group = row["cgroups"][cg]
    n = min(wanted, int(group["inodes"]))
    if n <= 0:
        return 0, 0
    opened = n * int(group["jinodes"]) // int(group["inodes"])
    group["inodes"] -= n
    group["jinodes"] -= opened
    pages = kmem_cache_free(row, EXT4_INODE, n, 0) + kmem_cache_free(row, LSM_INODE, n, 0)
    charge_objects(row, cg, EXT4_INODE, -n)
    if opened > 0:
        pages += kmem_cache_free(row, JBD2_INODE, opened, 0)
    return n, pages
