# SPDX-License-Identifier: Apache-2.0
"""Names are looked up and files are made: what stat() and open(O_CREAT) leave in the kernel's caches (fs/namei.c, fs/dcache.c).

Each call does as many names as it can at once and returns how many; 0: memory could not be had, come back.
A name that does not exist leaves a negative dentry; a file looked at leaves dentry and inode, after its block of the inode
table was read (32 blocks at a time); a file made leaves a dirty block in the journal's transaction instead.
On tmpfs and ramfs nothing is left of a missing name, and a file's dentry and inode stay as long as the file.
Leaves out: the cost of searching large directories, names above 31 bytes, directories' own inodes.
Source: fs/namei.c, fs/dcache.c, fs/ext4/inode.c (Linux 6.1); kernel-laws §13.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import FILE_CREATE, FILE_STAT, NAME_HIT, NAME_MISS
from fleetsim.law import law
from fleetsim.linux.alloc_slowpath import alloc_pages, handle_over_high, try_charge
from fleetsim.linux.dcache import NEGATIVE, OPENED, PLAIN, d_lru_add, d_reference
from fleetsim.linux.ext4_jbd2 import ext4_handle_dirty_metadata
from fleetsim.linux.filemap import cache_new, read_ordered
from fleetsim.linux.lru_gen import folio_inc_refs, lru_gen_enabled
from fleetsim.linux.memory import get_pages
from fleetsim.linux.mm_inline import list_add, list_move
from fleetsim.linux.mm_types import LRU_ACTIVE_FILE, LRU_INACTIVE_FILE, LRU_NONE, METADATA
from fleetsim.linux.shrink_list import count_activated
from fleetsim.linux.slab_caches import (
    DENTRY,
    EXT4_INODE,
    JBD2_INODE,
    LSM_INODE,
    OBJECT_BYTES,
    SHMEM_INODE,
    SLAB_PAGES,
)
from fleetsim.linux.slub import charge_objects, keep_got, kmem_cache_alloc, slabs_wanted
from fleetsim.linux.vma import open_file

INODES_PER_BLOCK = 16  # ext4: 256 bytes each
READ_AHEAD = 32  # inode_readahead_blks
FILES_PER_DIR = 1000  # of the trees that stat_files walks: DIR/dN/fM
DIR_BLOCKS = 3  # … 12 bytes an entry
TREE_BLOCKS = DIR_BLOCKS + (FILES_PER_DIR + INODES_PER_BLOCK - 1) // INODES_PER_BLOCK
NAMES_PER_BLOCK = 150  # of a directory that grows: entries of about 20 bytes, blocks three quarters full


@law
def make_room(row, th, cache, objects):
    """Slabs for `objects` more objects, with reclaim if need be.

    returns  bool  False: not yet, come back

    Source: mm/slub.c ___slab_alloc under GFP_KERNEL.
    """
    slabs = slabs_wanted(row, cache, objects)
    if slabs > 0:
        pages = slabs * SLAB_PAGES[cache]
        got = alloc_pages(row, th, pages)
        if got == 0:
            return False
        return keep_got(row, cache, got) >= slabs
    return True


@law
def new_objects(row, cg, cache, objects):
    """Take `objects` objects of a cache, charged to a cgroup.

    Source: mm/slub.c slab_alloc_node, mm/memcontrol.c memcg_slab_post_alloc_hook.
    """
    kmem_cache_alloc(row, cache, objects)
    charge_objects(row, cg, cache, objects)


@law
def may_charge(row, th, cg, size):
    """True if a cgroup may have `size` more bytes of kernel memory now, after a round of reclaim if need be.

    Source: mm/memcontrol.c obj_cgroup_charge, try_charge_memcg.
    """
    if cg == 0:
        return True
    group = row["cgroups"][cg]
    now = group["slab_r"] + group["slab_u"]
    pages = (now + size + 4095 >> 12) - (now + 4095 >> 12)
    return pages == 0 or try_charge(row, th, pages) > 0  # the last pages of a batch may go over, as a stock does


@law
def step_over(tree, at, names):
    """How far from name `at` all names are alike, and whether they are cached.

    returns  (int64 names 1..names, bool cached)

    Source: fleetsim's own representation.
    """
    lo, hi, new = int(tree["lo"]), int(tree["hi"]), int(tree["new"])
    if at < new:
        return min(names, new - at), True
    if at < lo:
        return min(names, lo - at), False
    if at < hi:
        return min(names, hi - at), True
    return names, False


@law
def remember(tree, at, names):
    """The names from `at` on are cached now.

    Source: fleetsim's own representation: two intervals; a third makes the oldest forgotten (its names stay on the LRU).
    """
    lo, hi = int(tree["lo"]), int(tree["hi"])
    if lo == hi:
        tree["lo"] = at
        tree["hi"] = at + names
    elif at == hi:
        tree["hi"] += names
    elif at == tree["new"] and at < lo:
        tree["new"] += names
        if tree["new"] == lo:
            tree["lo"] = 0
            tree["new"] = 0
    else:
        tree["lo"] = at
        tree["hi"] = at + names
        tree["new"] = 0


@law
def spend(row, th, calls, operation):
    """Put `calls` calls on the bill, as system time.

    Source: kernel/sched/cputime.c account_system_time.
    """
    row["spent_ns"] += calls * row["cost"][operation]
    row["tasks"][row["threads"][th]["task"]]["stime_ns"] += calls * row["cost"][operation]


@law
def lookup_missing(row, th, t, at, names):
    """stat() of names that do not exist, from name `at` of tree `t` on.

    returns  int64  names done, 0: come back

    Source: fs/namei.c lookup_slow, fs/ext4/namei.c ext4_lookup (d_splice_alias of no inode); fs/libfs.c simple_lookup.
    """
    tree = row["name_trees"][t]
    cg = row["tasks"][row["threads"][th]["task"]]["cg"]
    if tree["on_disk"] == 0:
        spend(row, th, names, NAME_MISS)
        return names
    n, cached = step_over(tree, at, names)
    if cached:
        d_reference(row, cg, n)
        spend(row, th, n, NAME_HIT)
        return n
    if not may_charge(row, th, cg, n * (OBJECT_BYTES[DENTRY] + 8)) or not make_room(row, th, DENTRY, n):
        return 0
    new_objects(row, cg, DENTRY, n)
    d_lru_add(row, cg, NEGATIVE, n)
    remember(tree, at, n)
    spend(row, th, n, NAME_MISS)
    if cg > 0:
        handle_over_high(row, th, max(1, n * OBJECT_BYTES[DENTRY] >> 12))
    return n


@law
def activate_block(row, f, at):
    """Blocks of a file system's own are touched again and again: their pages are active.

    Source: fs/buffer.c touch_buffer, mm/swap.c folio_mark_accessed.
    """
    group = row["groups"][row["files"][f]["group"]]
    i = group["first"] + at // group["slice"]
    cohort = row["cohorts"][i]
    if lru_gen_enabled(row):
        folio_inc_refs(cohort)
    elif cohort["list"] != LRU_NONE and cohort["list"] != LRU_ACTIVE_FILE:
        count_activated(row, cohort["cg"], cohort["nr"])
        list_move(row, i, LRU_ACTIVE_FILE)


@law
def open_blocks(row, f):
    """The pages that hold the blocks of a directory and its inodes: cache of the block device, shown as Buffers.

    returns  bool  False: a table is full, the blocks are not simulated

    Source: fs/buffer.c __getblk (pages of the block device's mapping).
    """
    if not open_file(row, f, 0, 0):
        return False
    row["groups"][row["files"][f]["group"]]["is_file"] = METADATA
    return True


@law
def read_block(row, th, f, at):
    """The block of a file system's own at `at` must be there: it is read if it is not cached, with the 31 after it.

    returns  bool  False: come back

    Source: fs/ext4/inode.c __ext4_get_inode_loc (inode_readahead_blks).
    """
    if not open_blocks(row, f):
        return True
    file = row["files"][f]
    at = at % file["pages"]
    group = row["groups"][file["group"]]
    i = group["first"] + at // group["slice"]
    offset = at % group["slice"]
    length = min(group["slice"], group["pages"] - (at - offset))
    cohort = row["cohorts"][i]
    missing_below = length - cohort["nr"] if cohort["evicted"] > 0 else length
    cached = offset < cohort["nr"] if cohort["evicted"] == 0 else offset >= missing_below
    if cached:
        return True
    done, missed = read_ordered(row, th, file["group"], at, READ_AHEAD, READ_AHEAD)
    if done == 0:
        return False
    row["buffers"] += missed
    activate_block(row, f, at)
    return True


@law
def lookup_files(row, th, t, at, names):
    """stat() of DIR/dN/fM, a thousand files to a directory, from file `at` of tree `t` on.

    returns  int64  files done, 0: come back

    Source: fs/namei.c lookup_slow, fs/ext4/inode.c __ext4_iget.
    """
    tree = row["name_trees"][t]
    cg = row["tasks"][row["threads"][th]["task"]]["cg"]
    if at >= tree["exist"]:  # no such directory: one negative dentry for it, found again by the next thousand
        n = min(names, FILES_PER_DIR - at % FILES_PER_DIR)
        if tree["on_disk"] > 0 and at % FILES_PER_DIR == 0:
            if not make_room(row, th, DENTRY, 1):
                return 0
            new_objects(row, cg, DENTRY, 1)
            d_lru_add(row, cg, NEGATIVE, 1)
        spend(row, th, n, NAME_HIT)
        return n
    n, cached = step_over(tree, at, min(names, int(tree["exist"]) - at))
    if cached or tree["on_disk"] == 0:
        if tree["on_disk"] > 0:
            d_reference(row, cg, n)
        spend(row, th, n, NAME_HIT)
        return n
    place = at % FILES_PER_DIR
    n = min(n, INODES_PER_BLOCK - place % INODES_PER_BLOCK, FILES_PER_DIR - place)
    base = at // FILES_PER_DIR * TREE_BLOCKS
    if place == 0 and not read_block(row, th, tree["file"], base):
        return 0
    if not read_block(row, th, tree["file"], base + DIR_BLOCKS + place // INODES_PER_BLOCK):
        return 0
    if not may_charge(row, th, cg, n * (OBJECT_BYTES[DENTRY] + OBJECT_BYTES[EXT4_INODE] + 16)):
        return 0
    if not (make_room(row, th, DENTRY, n) and make_room(row, th, EXT4_INODE, n) and make_room(row, th, LSM_INODE, n)):
        return 0
    new_objects(row, cg, DENTRY, n)
    new_objects(row, cg, EXT4_INODE, n)
    kmem_cache_alloc(row, LSM_INODE, n)
    d_lru_add(row, cg, PLAIN, n)
    remember(tree, at, n)
    spend(row, th, n, FILE_STAT)
    if cg > 0:
        handle_over_high(row, th, max(1, n * OBJECT_BYTES[EXT4_INODE] >> 12))
    return n


@law
def new_blocks(row, th, f, at, blocks):
    """Blocks of a file system's own come into being in memory, without a read: `blocks` of them from `at` on.

    returns  int64  blocks done, 0: come back

    Source: fs/ext4/inode.c __ext4_get_inode_loc (an empty inode block is not read), ext4_append.
    """
    if not open_blocks(row, f):
        return blocks
    file = row["files"][f]
    at = at % file["pages"]
    group = row["groups"][file["group"]]
    i = group["first"] + at // group["slice"]
    offset = at % group["slice"]
    length = min(group["slice"], group["pages"] - (at - offset))
    n = min(blocks, length - offset)
    cohort = row["cohorts"][i]
    missing = min(n, max(0, offset + n - cohort["nr"]))
    if missing > 0:
        got = get_pages(row, th, missing)
        if got == 0:
            return 0
        if cohort["list"] == LRU_NONE:
            cohort["cg"] = row["tasks"][row["threads"][th]["task"]]["cg"]
            row["in_lru_fault"] = 0
            list_add(row, i, LRU_INACTIVE_FILE if lru_gen_enabled(row) else LRU_ACTIVE_FILE)
        back = min(got, int(cohort["evicted"]))
        cohort["evicted"] -= back
        group["evicted"] -= back
        cache_new(row, th, i, got)
        row["buffers"] += got
        n = n - missing + got
    return n


@law
def blocks_of_files(files):
    """Blocks that `files` files of one growing directory need: inodes, and the directory's own.

    Source: ext4's inode size and directory entries, see the module's constants.
    """
    return (files + INODES_PER_BLOCK - 1) // INODES_PER_BLOCK + (files + NAMES_PER_BLOCK - 1) // NAMES_PER_BLOCK


@law
def make_files(row, th, t, at, names):
    """open(O_CREAT | O_WRONLY) and close() of names from `at` on in the directory of tree `t`.

    returns  int64  files done, 0: come back

    Source: fs/namei.c lookup_open, fs/ext4/namei.c ext4_create; mm/shmem.c shmem_mknod.
    """
    tree = row["name_trees"][t]
    cg = row["tasks"][row["threads"][th]["task"]]["cg"]
    n, cached = step_over(tree, at, names)
    if cached:
        if tree["on_disk"] > 0:
            d_reference(row, cg, n)
        spend(row, th, n, NAME_HIT)
        return n
    inode = EXT4_INODE if tree["on_disk"] > 0 else SHMEM_INODE
    if not may_charge(row, th, cg, n * (OBJECT_BYTES[DENTRY] + OBJECT_BYTES[inode] + 16)):
        return 0
    if not (make_room(row, th, DENTRY, n) and make_room(row, th, inode, n) and make_room(row, th, LSM_INODE, n)):
        return 0
    if tree["on_disk"] > 0:
        if not make_room(row, th, JBD2_INODE, n):
            return 0
        first, last = blocks_of_files(at), blocks_of_files(at + n)
        at_block = first
        while at_block < last:
            made = new_blocks(row, th, tree["file"], at_block, last - at_block)
            if made == 0:
                return 0
            at_block += made
        ext4_handle_dirty_metadata(row, last - first)
        kmem_cache_alloc(row, JBD2_INODE, n)
        d_lru_add(row, cg, OPENED, n)
    new_objects(row, cg, DENTRY, n)
    new_objects(row, cg, inode, n)
    kmem_cache_alloc(row, LSM_INODE, n)
    remember(tree, at, n)
    tree["exist"] = max(int(tree["exist"]), at + n)
    spend(row, th, n, FILE_CREATE)
    if cg > 0:
        handle_over_high(row, th, max(1, n * OBJECT_BYTES[inode] >> 12))
    return n
