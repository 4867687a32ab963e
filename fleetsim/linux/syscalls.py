# SPDX-License-Identifier: Apache-2.0
"""All that a task may ask of the kernel: the one door between workloads and `linux/`.

Every call is made for a thread, does as much as it can at once, and returns how much that was. What it cost is on the
thread's bill afterwards: `spent_ns` of processor time and `wait_ns` asleep. A call that did nothing wants to be made
again once the bill is paid: that is how a task waits for memory. No call tells a workload why it was slow.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import EXIT, SYSCALL
from fleetsim.law import Q, law
from fleetsim.linux.events import REFUSED, record
from fleetsim.linux.exit import begin_exit, unmap_file
from fleetsim.linux.filemap import access_mapped, read_ordered, read_random
from fleetsim.linux.memory import access_ordered, access_uniform, read_zero, touch_new
from fleetsim.linux.mm_types import AREA_FILE, AREA_FREE, KSWAPD_SLEEP, NR_AREAS, ORDERED, UNIFORM
from fleetsim.linux.vma import mmap_anon, open_file, zap_area, zap_group

__all__ = [
    "ORDERED",
    "UNIFORM",
    "access",
    "at_rest",
    "exit_group",
    "map_anonymous",
    "map_file",
    "munmap",
    "read_file",
    "read_untouched",
    "touch",
    "zap_pages",
]


@law
def map_anonymous(row, th, pages, kind, hot_pages, accounted):
    """mmap(MAP_PRIVATE | MAP_ANONYMOUS).

    kind       int64  ORDERED (swept) or UNIFORM (random): the access pattern the task is going to have
    hot_pages  int64  pages of the hot part, 0 for none
    accounted  int64  0 for MAP_NORESERVE
    returns    int64  area, or −1 for ENOMEM

    Source: mm/mmap.c.
    """
    row["spent_ns"] += row["cost"][SYSCALL]
    return mmap_anon(row, row["threads"][th]["task"], pages, kind, hot_pages, accounted)


@law
def map_file(row, th, f, kind, hot_pages):
    """mmap(MAP_SHARED) of a whole file, read-only.

    returns  int64  area, or −1

    Source: mm/mmap.c.
    """
    t = row["threads"][th]["task"]
    if not open_file(row, f, kind, hot_pages):
        return -1
    for a in range(NR_AREAS):
        area = row["areas"][a]
        if area["kind"] == AREA_FREE:
            file = row["files"][f]
            area["kind"] = AREA_FILE
            area["task"] = t
            area["file"] = f
            area["group"] = file["group"]
            area["groups"] = file["groups"]
            area["accounted"] = 0
            area["pages"] = file["pages"]
            area["touched"] = file["pages"]
            area["zero"] = 0
            area["tables"] = 0
            for k in range(file["groups"]):
                row["groups"][file["group"] + k]["task"] = t
            row["tasks"][t]["total_vm"] += file["pages"]
            return a
    record(row, REFUSED, t, row["files"][f]["pages"], 0, 0, 0, 0, 0, 0, 0)
    return -1


@law
def touch(row, th, a, pages):
    """Write to the next `pages` never-touched pages of an area, in order.

    returns  int64  pages done; −1 once every page was touched

    Source: mm/memory.c.
    """
    area = row["areas"][a]
    if area["touched"] >= area["pages"]:
        return -1
    return touch_new(row, th, a, min(pages, area["pages"] - area["touched"]))


@law
def read_untouched(row, th, a, at, pages):
    """Read `pages` pages of an area that was never written to: private anonymous memory is all zero then.

    at       int64  position of the reader's cursor, −1: at random
    returns  int64  pages done

    Source: mm/memory.c do_anonymous_page (read fault).
    """
    return read_zero(row, th, a, at, min(pages, row["areas"][a]["pages"]))


@law
def access_part(row, th, area, g, accesses, write):
    """Random accesses to one uniform group of an area.

    Source: mm/memory.c handle_mm_fault, mm/filemap.c filemap_fault.
    """
    if accesses == 0:
        return 0
    if area["kind"] == AREA_FILE:
        return access_mapped(row, th, g, accesses)
    return access_uniform(row, th, g, accesses, write)


@law
def access(row, th, a, at, pages, hot_q, write):
    """Access `pages` pages of an area: from position `at` on if it is swept, anywhere if it is used at random.

    hot_q    int64  share of random accesses that go to the hot part, 2^20ths
    write    int64  1: the pages are written to, 0: only read
    returns  int64  pages done

    Source: mm/memory.c handle_mm_fault, mm/filemap.c filemap_fault.
    """
    area = row["areas"][a]
    g = area["group"]
    group = row["groups"][g]
    if group["kind"] == ORDERED:
        if area["kind"] == AREA_FILE:
            done, _ = read_ordered(row, th, g, at, pages, 0)
            return done
        return access_ordered(row, th, g, at, pages, write)
    hot = pages
    if area["groups"] == 2:
        exact = pages * hot_q + group["carry_split"]
        hot = min(pages, exact >> Q)
        group["carry_split"] = exact - (hot << Q)
    done = access_part(row, th, area, g, hot, write)
    if hot == pages or (hot > 0 and done == 0):
        return done
    rest = pages - hot if hot == 0 else (pages - hot) * done // hot  # the cold part goes as far as the hot one did
    return done + access_part(row, th, area, g + 1, rest, write)


@law
def at_rest(row, g, groups):
    """True if every page of some groups is resident and nobody reclaims: accesses to them change nothing but accessed bits.

    Source: fleetsim's own representation (design §3.2: quiet groups are not visited).
    """
    if row["kswapd"]["state"] != KSWAPD_SLEEP:
        return False
    missing = 0
    for k in range(groups):
        missing += row["groups"][g + k]["pages"] - row["groups"][g + k]["resident"]
    return missing == 0


@law
def read_file(row, th, f, at, pages, fresh, kind):
    """read() of up to `pages` pages of a file from page `at`, or anywhere if it is a file read at random.

    kind     int64  ORDERED or UNIFORM: how the file is read, decided by whoever opens it first

    returns  (int64 pages done, int64 of them from disk); (0, 0): come back; −1: it cannot be read

    Source: mm/filemap.c filemap_read.
    """
    if not open_file(row, f, kind, 0):
        return -1, 0
    file = row["files"][f]
    g = file["group"]
    if row["groups"][g]["kind"] == ORDERED:
        return read_ordered(row, th, g, at, pages, fresh)
    if file["groups"] == 2 and at >= row["groups"][g]["pages"]:
        g += 1
    return read_random(row, th, g, pages), 0


@law
def munmap(row, th, a):
    """Unmap a whole area; a large one takes several calls.

    returns  bool  True: it is gone

    Source: mm/mmap.c.
    """
    if row["areas"][a]["kind"] == AREA_FILE:
        unmap_file(row, row["tasks"][row["threads"][th]["task"]], a)
        return True
    _, gone = zap_area(row, a, 4096)
    return gone


@law
def zap_pages(row, th, a):
    """madvise(MADV_DONTNEED) of a whole area: the pages go, the area stays and can be touched anew.

    returns  bool  True: done

    Source: mm/madvise.c madvise_dontneed_single_vma; page tables stay (kernel-laws §11.1).
    """
    area = row["areas"][a]
    left = 4096
    for k in range(area["groups"]):
        left -= zap_group(row, area["group"] + k, left)
    row["spent_ns"] += (4096 - left) * row["cost"][EXIT]
    if left == 0:
        return False
    area["touched"] = 0
    area["zero"] = 0
    return True


@law
def exit_group(row, th, code):
    """exit_group(code).

    Source: kernel/exit.c.
    """
    begin_exit(row, row["threads"][th]["task"], code)
