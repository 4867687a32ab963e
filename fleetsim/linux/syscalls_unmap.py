# SPDX-License-Identifier: Apache-2.0
"""The calls by which a task gives memory back, wholly or in part, says how it will use it, or locks it (part of `syscalls.py`)."""

from __future__ import annotations

from fleetsim.hardware.cpu import EXIT, SYSCALL
from fleetsim.law import law
from fleetsim.linux.anon_vma import detach, layered, unmap_anon
from fleetsim.linux.exit import unmap_file, unmap_pages
from fleetsim.linux.hugetlb import unmap_hugetlb, zap_hugetlb
from fleetsim.linux.madvise import MADV_DONTNEED, do_madvise, free_part
from fleetsim.linux.mlock import do_mlock
from fleetsim.linux.mm_types import AREA_ANON, AREA_FILE, AREA_HUGETLB, AREA_SHMEM
from fleetsim.linux.shm import shmem_unmap, shmem_zap
from fleetsim.linux.truncate import evict_inode, is_mapped
from fleetsim.linux.zap import zap_group


@law
def munmap(row, th, a):
    """Unmap a whole area; a large one takes several calls.

    returns  bool  True: it is gone

    Source: mm/mmap.c.
    """
    if row["areas"][a]["kind"] == AREA_FILE:
        f = row["areas"][a]["file"]
        unmap_file(row, row["tasks"][row["threads"][th]["task"]], a)
        if row["files"][f]["linked"] == 0 and not is_mapped(row, f):
            evict_inode(row, th, f)
        return True
    if row["areas"][a]["kind"] == AREA_SHMEM:
        _, gone = shmem_unmap(row, a, 4096)
        return gone
    if row["areas"][a]["kind"] == AREA_HUGETLB:
        unmap_hugetlb(row, a)
        return True
    _, gone = unmap_anon(row, a, 4096)
    return gone


@law
def zap_pages(row, th, a):
    """madvise(MADV_DONTNEED) of a whole area: the pages go, the area stays and can be touched anew.

    returns  bool  True: done

    Source: mm/madvise.c madvise_dontneed_single_vma; page tables stay (kernel-laws §11.1).
    """
    area = row["areas"][a]
    if area["kind"] == AREA_SHMEM:
        shmem_zap(row, a)
        return True
    if area["kind"] == AREA_HUGETLB:
        zap_hugetlb(row, a)
        return True
    if area["kind"] == AREA_FILE:
        unmap_pages(row, a)
        return True
    if layered(row["groups"][area["group"]]) and not detach(row, a):
        return True
    left = 4096
    for k in range(area["groups"]):
        left -= zap_group(row, area["group"] + k, left)
    row["spent_ns"] += (4096 - left) * row["cost"][EXIT]
    if left == 0:
        return False
    area["touched"] = 0
    area["ahead"] = 0
    area["zero"] = 0
    return True


@law
def free_range(row, th, a, unmap, how, amount):
    """munmap or MADV_DONTNEED of a part of an anonymous area.

    unmap   int64  1: munmap, 0: MADV_DONTNEED
    how     int64  PART_FIRST, PART_LAST or PART_EVERY
    amount  int64  pages, or k: one page of k is kept

    Source: mm/madvise.c, mm/mmap.c. Leaves out: a part of a mapped file.
    """
    row["spent_ns"] += row["cost"][SYSCALL]
    if row["areas"][a]["kind"] == AREA_ANON:
        free_part(row, a, unmap, how, amount)


@law
def madvise(row, th, a, advice):
    """madvise() over all of an area.

    advice   int64  MADV_…
    returns  bool   True: done

    Source: mm/madvise.c.
    """
    row["spent_ns"] += row["cost"][SYSCALL]
    if advice == MADV_DONTNEED:
        return zap_pages(row, th, a)
    return do_madvise(row, th, a, advice)


@law
def mlock(row, th, a, onfault):
    """mlock2() over all of an area.

    onfault  int64  1: MLOCK_ONFAULT
    returns  bool   True: done

    Source: mm/mlock.c.
    """
    row["spent_ns"] += row["cost"][SYSCALL]
    return do_mlock(row, th, a, onfault)
