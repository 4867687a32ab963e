# SPDX-License-Identifier: Apache-2.0
"""Shared objects from their making to their end: shared anonymous memory, System V segments, files on tmpfs (mm/shmem.c, ipc/shm.c).

What happens to their pages is in `shmem.py`.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import SYSCALL
from fleetsim.law import law
from fleetsim.linux.events import REFUSED, TABLE_FULL, record
from fleetsim.linux.fs_types import NR_FILES
from fleetsim.linux.mm_types import AREA_FREE, AREA_SHMEM, NR_AREAS
from fleetsim.linux.mmap_layout import place_area
from fleetsim.linux.pgtable import forget_area, trim_tables
from fleetsim.linux.rmap import add_mapping, drop_mapping, find_mapping
from fleetsim.linux.shmem import LINKED, NOT_LINKED, SHM_MNT, shmem_evict_inode, shmem_truncate
from fleetsim.linux.vma import enough_memory, open_file, vma_link
from fleetsim.linux.zap import munlock_group


@law
def shmem_file_setup(row, t, pages, kind, hot_pages, linked):
    """A new object of `pages` pages on the kernel's own mount; all of it is promised at once (Committed_AS).

    linked   int64  ANONYMOUS for shared anonymous memory, LINKED for a segment that lives until it is removed
    returns  int64  file row; −1: refused (ENOMEM, or a table is full: an event says which)

    Source: mm/shmem.c __shmem_file_setup, shmem_acct_size; kernel-laws §6, §14.
    """
    if not enough_memory(row, t, pages, 1):
        record(row, REFUSED, t, pages, 0, 0, 0, 0, 0, 0, 0)
        return -1
    for f in range(NR_FILES):
        file = row["files"][f]
        if file["used"]:
            continue
        file["used"] = 1
        file["pages"] = pages
        file["size"] = pages
        file["group"] = -1
        file["groups"] = 0
        file["mount"] = SHM_MNT
        file["linked"] = linked
        file["reserved"] = 0
        if not open_file(row, f, kind, hot_pages):
            file["used"] = 0
            return -1
        file["reserved"] = pages
        row["committed"] += pages
        return f
    record(row, TABLE_FULL, t, pages, 0, 0, 0, 0, 0, 0, 0)
    return -1


@law
def shmem_mmap(row, t, f):
    """Map the whole of an object into task `t`.

    returns  int64  area row, −1: a table is full

    Source: mm/shmem.c shmem_mmap.
    """
    file = row["files"][f]
    for a in range(NR_AREAS):
        area = row["areas"][a]
        if area["kind"] != AREA_FREE:
            continue
        vma_link(area, AREA_SHMEM, t, f, file["group"], file["groups"], 0, file["size"])
        place_area(row, a)
        ok = True
        for k in range(file["groups"]):
            ok = ok and add_mapping(row, a, file["group"] + k) >= 0
        row["tasks"][t]["total_vm"] += area["pages"]
        if ok:
            return a
        shmem_unmap(row, a, 0)
        return -1
    record(row, TABLE_FULL, t, file["size"], 0, 0, 0, 0, 0, 0, 0)
    return -1


@law
def shmem_unmap(row, a, budget):
    """Unmap an object from a task. If it has no name and this was its last mapping, up to `budget` of its pages go now.

    returns  (int64 pages and slots given back, bool the area is gone)

    Source: mm/mmap.c unmap_region, fput of the object.
    """
    area = row["areas"][a]
    task = row["tasks"][area["task"]]
    for k in range(area["groups"]):
        drop_mapping(row, a, area["group"] + k)
        if area["locked"] > 0:
            munlock_group(row, area["group"] + k)
    area["locked"] = 0
    trim_tables(row, area, 0)
    done = 0
    if row["files"][area["file"]]["linked"] != LINKED:
        done, gone = shmem_evict_inode(row, area["file"], budget)
        if not gone and budget > 0:
            return done, False
    task["total_vm"] -= area["pages"]
    forget_area(row, area)
    return done, True


@law
def shmem_zap(row, a):
    """madvise(MADV_DONTNEED) of a mapped object: the page-table entries go, the object keeps its pages.

    Source: mm/madvise.c madvise_dontneed_single_vma.
    """
    area = row["areas"][a]
    for k in range(area["groups"]):
        if find_mapping(row, a, area["group"] + k) >= 0:
            drop_mapping(row, a, area["group"] + k)
            add_mapping(row, a, area["group"] + k)
    area["touched"] = 0


@law
def shmem_create(row, f, kind, truncate):
    """open(O_CREAT) of a tmpfs file, with O_TRUNC if asked for.

    returns  bool  False: a table is full

    Source: mm/shmem.c shmem_create, shmem_setattr.
    """
    file = row["files"][f]
    row["spent_ns"] += row["cost"][SYSCALL]
    if not open_file(row, f, kind, 0):
        return False
    file["linked"] = LINKED
    if truncate:
        shmem_truncate(row, f, file["pages"] + 1)
        file["size"] = 0
    return True


@law
def shmem_unlink(row, f):
    """unlink() of a tmpfs file, shm_unlink(), IPC_RMID: the object goes at once if nobody maps it, else with its last mapping.

    Source: mm/shmem.c shmem_unlink, ipc/shm.c do_shm_rmid.
    """
    file = row["files"][f]
    row["spent_ns"] += row["cost"][SYSCALL]
    file["linked"] = NOT_LINKED
    shmem_evict_inode(row, f, file["pages"] + 1)
