# SPDX-License-Identifier: Apache-2.0
"""All that a task may ask of the kernel: the one door between workloads and `linux/`.

Every call is made for a thread, does as much as it can at once, and returns how much that was. What it cost is on the
thread's bill afterwards: `spent_ns` of processor time and `wait_ns` asleep. A call that did nothing wants to be made
again once the bill is paid: that is how a task waits for memory. No call tells a workload why it was slow.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import EXIT, SYSCALL
from fleetsim.law import Q, law
from fleetsim.linux.anon_vma import detach, layered, push_layer, unmap_anon
from fleetsim.linux.events import REFUSED, record
from fleetsim.linux.exit import begin_exit, unmap_file
from fleetsim.linux.filemap import access_mapped, access_mapped_ordered
from fleetsim.linux.memory import access_ordered, access_uniform, read_zero, touch_new
from fleetsim.linux.mm_types import AREA_FILE, AREA_FREE, AREA_SHMEM, KSWAPD_SLEEP, NR_AREAS, ORDERED, UNIFORM
from fleetsim.linux.rmap import add_mapping, find_mapping
from fleetsim.linux.shm import shmem_file_setup, shmem_mmap, shmem_unmap, shmem_zap
from fleetsim.linux.shmem import ANONYMOUS, LINKED, NOT_LINKED, shmem_evict_inode, shmem_fault, touch_shared
from fleetsim.linux.sync import SYNC_DATA, SYNC_DONE
from fleetsim.linux.truncate import evict_inode, is_mapped
from fleetsim.linux.vfs import creat, file_size, fsync, is_empty, read_file, unlink, write_file
from fleetsim.linux.vma import map_untouched, mmap_anon, open_file, zap_group
from fleetsim.linux.fork import copy_process
from fleetsim.linux.wp_page import access_forked_ordered, access_forked_uniform

__all__ = [
    "ORDERED",
    "SYNC_DATA",
    "SYNC_DONE",
    "UNIFORM",
    "access",
    "at_rest",
    "creat",
    "exit_group",
    "file_size",
    "fsync",
    "fork",
    "map_anonymous",
    "map_file",
    "map_shared",
    "map_untouched",
    "munmap",
    "read_file",
    "read_untouched",
    "shm_rmid",
    "shmget",
    "touch",
    "unlink",
    "write_file",
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
    if row["files"][f]["linked"] == NOT_LINKED or is_empty(row, f) or not open_file(row, f, kind, hot_pages):
        return -1
    if row["files"][f]["mount"] >= 0:
        a = shmem_mmap(row, t, f)
        if a >= 0:
            row["areas"][a]["touched"] = row["areas"][a]["pages"]
        return a
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
            area["pages"] = file["size"]
            area["touched"] = file["size"]
            area["zero"] = 0
            area["tables"] = 0
            row["tasks"][t]["total_vm"] += file["size"]
            for k in range(file["groups"]):
                if add_mapping(row, a, file["group"] + k) < 0:
                    unmap_file(row, row["tasks"][t], a)
                    return -1
            return a
    record(row, REFUSED, t, row["files"][f]["pages"], 0, 0, 0, 0, 0, 0, 0)
    return -1


@law
def map_shared(row, th, pages, kind, hot_pages):
    """mmap(MAP_SHARED | MAP_ANONYMOUS): an object that its mappers share and that goes with the last of them.

    returns  int64  area, or −1 for ENOMEM

    Source: mm/shmem.c shmem_zero_setup.
    """
    row["spent_ns"] += row["cost"][SYSCALL]
    t = row["threads"][th]["task"]
    f = shmem_file_setup(row, t, pages, kind, hot_pages, ANONYMOUS)
    if f < 0:
        return -1
    a = shmem_mmap(row, t, f)
    if a < 0:
        shmem_evict_inode(row, f, 1)
    return a


@law
def shmget(row, th, pages, kind):
    """shmget(IPC_CREAT): a System V segment. It stays until `shm_rmid`, whoever maps it (map_file attaches it).

    returns  int64  file row, or −1 for ENOMEM

    Source: ipc/shm.c newseg.
    """
    row["spent_ns"] += row["cost"][SYSCALL]
    return shmem_file_setup(row, row["threads"][th]["task"], pages, kind, 0, LINKED)


@law
def shm_rmid(row, th, f):
    """shmctl(IPC_RMID): the segment goes with its last mapping, or now; its row is free afterwards.

    Source: ipc/shm.c do_shm_rmid.
    """
    row["spent_ns"] += row["cost"][SYSCALL]
    row["files"][f]["linked"] = ANONYMOUS
    shmem_evict_inode(row, f, row["files"][f]["pages"] + 1)


@law
def mapped_part(row, a, at):
    """Group of an area that position `at` is in, the position inside it, and how many of the group's pages the area reaches.

    returns  (int64 group, int64 position, int64 pages)

    Source: fleetsim's own representation (hot and cold part of an area are two groups).
    """
    area = row["areas"][a]
    g = area["group"]
    hot = row["groups"][g]["pages"]
    reach = area["touched"] if area["touched"] > 0 else area["pages"]
    if area["groups"] == 2 and at >= hot:
        return g + 1, at - hot, max(0, reach - hot)
    return g, at, min(hot, reach)


@law
def touch(row, th, a, pages):
    """Write to the next `pages` never-touched pages of an area, in order.

    returns  int64  pages done; −1 once every page was touched

    Source: mm/memory.c.
    """
    area = row["areas"][a]
    if area["touched"] >= area["pages"]:
        return -1
    if area["kind"] == AREA_SHMEM:
        g, at, _ = mapped_part(row, a, area["touched"])
        group = row["groups"][g]
        n = min(pages, min(area["pages"] - area["touched"], group["pages"] - at))
        if group["kind"] == UNIFORM:
            n = touch_shared(row, th, a, g, n)
        else:
            n = shmem_fault(row, th, a, g, at, n, group["pages"], 1)
        area["touched"] += max(0, n)
        return n
    if row["groups"][area["group"]]["task"] < 0 and not push_layer(row, a):
        return -1
    return touch_new(row, th, a, min(pages, area["pages"] - area["touched"]))


@law
def access_part(row, th, a, g, accesses, write):
    """Random accesses to one uniform group of an area.

    Source: mm/memory.c handle_mm_fault, mm/filemap.c filemap_fault.
    """
    area = row["areas"][a]
    if accesses == 0:
        return 0
    if area["kind"] == AREA_FILE:
        return access_mapped(row, th, find_mapping(row, a, g), accesses)
    if area["kind"] == AREA_SHMEM:
        hot = row["groups"][area["group"]]["pages"]
        _, _, reach = mapped_part(row, a, 0 if g == area["group"] else hot)
        return shmem_fault(row, th, a, g, 0, accesses, reach, write)
    if layered(row["groups"][g]):
        return access_forked_uniform(row, th, a, g - area["group"], accesses, write)
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
            return access_mapped_ordered(row, th, find_mapping(row, a, g), at, pages)
        if area["kind"] == AREA_SHMEM:
            return shmem_fault(row, th, a, g, at, pages, group["pages"], write)
        if layered(group):
            return access_forked_ordered(row, th, a, at, pages, write)
        return access_ordered(row, th, g, at, pages, write)
    hot = pages
    if area["groups"] == 2:
        exact = pages * hot_q + group["carry_split"]
        hot = min(pages, exact >> Q)
        group["carry_split"] = exact - (hot << Q)
    done = access_part(row, th, a, g, hot, write)
    g = area["group"]
    if hot == pages or (hot > 0 and done == 0):
        return done
    rest = pages - hot if hot == 0 else (pages - hot) * done // hot  # the cold part goes as far as the hot one did
    return done + access_part(row, th, a, g + 1, rest, write)


@law
def read_untouched(row, th, a, at, pages, hot_q):
    """Read `pages` pages of an area that was never written to: private anonymous memory is all zero, a shared object gets its pages.

    at       int64  position of the reader's cursor
    hot_q    int64  as for `access`
    returns  int64  pages done

    Source: mm/memory.c do_anonymous_page (read fault), mm/shmem.c shmem_fault.
    """
    area = row["areas"][a]
    if area["kind"] == AREA_SHMEM:
        return access(row, th, a, at, pages, hot_q, 0)
    ordered = row["groups"][area["group"]]["kind"] == ORDERED
    return read_zero(row, th, a, at if ordered else -1, min(pages, area["pages"]))


@law
def at_rest(row, g, groups):
    """True if every page of some groups is resident and mapped and nobody reclaims: accesses to them change nothing but accessed bits.

    Source: fleetsim's own representation (design §3.2: quiet groups are not visited).
    """
    if row["kswapd"]["state"] != KSWAPD_SLEEP:
        return False
    missing = 0
    for k in range(groups):
        group = row["groups"][g + k]
        missing += group["pages"] - group["resident"]
        if group["task"] < 0:  # what is not mapped yet faults
            missing += group["resident"] - group["mapped"]
        elif group["is_file"] == 0 and layered(group):  # what is write-protected faults
            missing += 1
    return missing == 0


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
    if layered(row["groups"][area["group"]]) and not detach(row, a):
        return True
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
def fork(row, th, child_th):
    """fork(): the child's only thread is thread row `child_th`, −1: there is none left for it.

    returns  int64  task row of the child; −1: ENOMEM or EAGAIN

    Source: kernel/fork.c kernel_clone.
    """
    return copy_process(row, row["threads"][th]["task"], child_th)


@law
def exit_group(row, th, code):
    """exit_group(code).

    Source: kernel/exit.c.
    """
    begin_exit(row, row["threads"][th]["task"], code)
