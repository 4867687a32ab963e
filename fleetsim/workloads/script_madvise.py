# SPDX-License-Identifier: Apache-2.0
"""The ops by which a script maps private memory and gives it back, wholly or in part, says how it will use it, or locks it."""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import (
    MADV_HUGEPAGE,
    MADV_NOHUGEPAGE,
    free_range,
    madvise,
    map_anonymous,
    mlock,
    munmap,
    set_content,
    zap_pages,
)

MUNMAP, DONTNEED, FREE_PART, MADVISE, MLOCK = range(5)  # the ops' codes, counted from OP_MUNMAP


@law
def map_private(row, th, op):
    """mmap_anon, with the advice about huge pages that goes with it, and what its pages are going to hold.

    returns  int64  area, or −1

    Source: the recordings' driver.
    """
    a = map_anonymous(row, th, op["pages"], op["pattern"], op["hot_pages"], op["accounted"])
    if a >= 0 and op["thp"] != 0:
        madvise(row, th, a, MADV_HUGEPAGE if op["thp"] > 0 else MADV_NOHUGEPAGE)
    if a >= 0 and op["file"] >= 0:
        set_content(row, a, op["file"])
    return a


@law
def do_memory(row, th, op, what):
    """free, madvise, mlock. What mlock brought in counts as progress once it is done.

    what     int64  MUNMAP … MLOCK
    returns  bool   False: it is not done yet, come back

    Source: the recordings' driver.
    """
    a = row["handles"][op["handle"]]
    if what == MUNMAP:
        if a >= 0 and not munmap(row, th, a):
            return False
        row["handles"][op["handle"]] = -1
    if a < 0 or what == MUNMAP:
        return True
    if what == DONTNEED:
        return zap_pages(row, th, a)
    if what == MADVISE:
        return madvise(row, th, a, op["pattern"])
    if what == FREE_PART:
        free_range(row, th, a, op["accounted"], op["pattern"], op["pages"])
        return True
    if not mlock(row, th, a, op["pattern"]):
        return False
    if op["pattern"] == 0:
        row["programs"][th]["progress"] += row["areas"][a]["pages"]
    return True
