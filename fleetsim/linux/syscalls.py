# SPDX-License-Identifier: Apache-2.0
"""All that a task may ask of the kernel: the one door between workloads and `linux/`.

Every call is made for a thread, does as much as it can at once, and returns how much that was. What it cost is on the
thread's bill afterwards: `spent_ns` of processor time and `wait_ns` asleep. A call that did nothing wants to be made
again once the bill is paid: that is how a task waits for memory. No call tells a workload why it was slow.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import SYSCALL
from fleetsim.law import law
from fleetsim.linux.capacity_classes import CAPACITY as CAPACITY
from fleetsim.linux.cputime import sched_setaffinity as sched_setaffinity
from fleetsim.linux.events import (
    FORK_LATENCY,
    GC_PAUSE,
    OUT_OF_MEMORY_ERROR,
    REFUSED,
    SAVE_END,
    SAVE_FAILED,
    SAVE_START,
    SYNC_FAILED,
    record,
)
from fleetsim.linux.events import OP_END as OP_END
from fleetsim.linux.events import OP_START as OP_START
from fleetsim.linux.exit import begin_exit, unmap_file
from fleetsim.linux.fork import copy_process
from fleetsim.linux.hugetlb import map_hugetlb as map_hugetlb
from fleetsim.linux.madvise import MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADVICE, PART_EVERY, PART_FIRST, PART_LAST
from fleetsim.linux.math64 import int_sqrt as int_sqrt
from fleetsim.linux.mempolicy import MPOL_BIND, MPOL_DEFAULT, MPOL_INTERLEAVE, MPOL_LOCAL, MPOL_PREFERRED
from fleetsim.linux.mempolicy import set_mempolicy as set_mempolicy
from fleetsim.linux.mm_fault import access, access_rest, at_rest, is_resident, read_untouched, seldom_used, touch
from fleetsim.linux.mm_types import AREA_FILE, AREA_FREE, NR_AREAS, ORDERED, TASK_EXITING, TASK_RUNNING, UNIFORM
from fleetsim.linux.mmap_layout import place_area
from fleetsim.linux.namei import lookup_files as lookup_files
from fleetsim.linux.namei import lookup_missing as lookup_missing
from fleetsim.linux.namei import make_files as make_files
from fleetsim.linux.pipe import make_pipes as make_pipes
from fleetsim.linux.private_dirty import private_dirty as private_dirty
from fleetsim.linux.proc_sysctl import write_knob as write_knob
from fleetsim.linux.rmap import add_mapping
from fleetsim.linux.shm import shmem_file_setup, shmem_mmap
from fleetsim.linux.shmem import ANONYMOUS, LINKED, NOT_LINKED, shmem_evict_inode, shmem_fault, shmem_fill
from fleetsim.linux.swapoff import swapoff as swapoff
from fleetsim.linux.swapoff import swapon as swapon
from fleetsim.linux.sync import SYNC_DATA, SYNC_DONE
from fleetsim.linux.syscalls_unmap import free_range, madvise, mlock, munmap, zap_pages
from fleetsim.linux.sysctl_paths import Write as Write
from fleetsim.linux.sysctl_paths import resolve as resolve
from fleetsim.linux.vfs import creat, file_size, fsync, is_empty, open_random, pread, read_file, unlink, write_file
from fleetsim.linux.vma import enough_memory, map_untouched, mmap_anon, open_file, vma_link

__all__ = [
    "FORK_LATENCY",
    "GC_PAUSE",
    "MADVICE",
    "MADV_HUGEPAGE",
    "MADV_NOHUGEPAGE",
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "OP_END",
    "OP_START",
    "ORDERED",
    "OUT_OF_MEMORY_ERROR",
    "PART_EVERY",
    "PART_FIRST",
    "PART_LAST",
    "SAVE_END",
    "SAVE_FAILED",
    "SAVE_START",
    "SYNC_DATA",
    "SYNC_DONE",
    "SYNC_FAILED",
    "UNIFORM",
    "access",
    "access_filled",
    "access_rest",
    "at_rest",
    "compute",
    "creat",
    "exit_group",
    "file_size",
    "fill_shared",
    "fork",
    "free_range",
    "fsync",
    "has_ended",
    "is_resident",
    "is_running",
    "madvise",
    "map_anonymous",
    "map_file",
    "map_shared",
    "map_untouched",
    "mlock",
    "munmap",
    "open_random",
    "pread",
    "private_dirty",
    "read_file",
    "read_untouched",
    "sched_setaffinity",
    "seldom_used",
    "set_content",
    "set_mempolicy",
    "set_oom_score_adj",
    "shm_rmid",
    "shmget",
    "swapoff",
    "swapon",
    "tell",
    "touch",
    "unlink",
    "write_file",
    "write_log",
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
def set_content(row, a, noise):
    """What area `a` is going to hold: `noise` bytes of each page do not compress, the rest is alike. 0: all words of a page are alike.

    Source: fleetsim's own (content is not simulated, but zram and zswap depend on it).
    """
    area = row["areas"][a]
    for g in range(area["group"], area["group"] + area["groups"]):
        row["groups"][g]["noise"] = noise


@law
def map_file(row, th, f, kind, hot_pages, private):
    """mmap() of a whole file, to read and to write.

    private  int64  1: MAP_PRIVATE, whose copies are promised to the task (Committed_AS); 0: MAP_SHARED
    returns  int64  area, or −1

    Source: mm/mmap.c mmap_region (accountable_mapping). Leaves out: the copies that writes to a private mapping make.
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
            if private and not enough_memory(row, t, file["size"], 1):
                break
            vma_link(area, AREA_FILE, t, f, file["group"], file["groups"], private, file["size"])
            place_area(row, a)
            area["touched"] = file["size"]
            row["tasks"][t]["total_vm"] += file["size"]
            if private:
                row["committed"] += file["size"]
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
def fill_shared(row, th, a, pages):
    """Write to up to `pages` pages of a shared object, used at random, that nobody has written to yet.

    returns  int64  pages done; 0: come back, or all are filled

    Source: mm/shmem.c shmem_fault.
    """
    g = row["areas"][a]["group"]
    held = row["groups"][g]["resident"] + row["groups"][g]["swapped"]
    row["in_lru_fault"] = 1
    return max(0, shmem_fill(row, th, a, g, min(pages, row["areas"][a]["pages"] - held), held))


@law
def access_filled(row, th, a, accesses):
    """Read at random from the pages of a shared object that somebody has written to.

    returns  int64  accesses done; 0: come back, or none is filled

    Source: mm/memory.c do_read_fault (maps up to 16 pages around).
    """
    g = row["areas"][a]["group"]
    held = row["groups"][g]["resident"] + row["groups"][g]["swapped"]
    row["in_lru_fault"] = 1
    return max(0, shmem_fault(row, th, a, g, 0, accesses, held, 0)) if held > 0 else 0


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


@law
def compute(row, th, ns):
    """The thread computes for `ns` of processor time, in user mode.

    Source: not a call: what a program does between two of them.
    """
    row["spent_ns"] += ns
    row["tasks"][row["threads"][th]["task"]]["utime_ns"] += ns


@law
def tell(row, th, kind):
    """The thread's program says something that the host's history should have: OP_START, OP_END.

    Source: syslog(3); it changes nothing.
    """
    record(row, kind, row["threads"][th]["task"], 0, 0, 0, 0, 0, 0, 0, 0)


@law
def is_running(row, t):
    """Does task `t` run?

    Source: kill(pid, 0).
    """
    return row["tasks"][t]["state"] == TASK_RUNNING


@law
def has_ended(row, c, pid):
    """Is the child with process id `pid`, once in task row `c`, gone?

    Source: waitpid(pid, WNOHANG).
    """
    task = row["tasks"][c]
    return task["pid"] != pid or (task["state"] != TASK_RUNNING and task["state"] != TASK_EXITING)


@law
def set_oom_score_adj(row, th, adj):
    """A task writes to its own /proc/self/oom_score_adj.

    adj      int64  beyond −1000 or 1000: the nearest of them
    returns  int64  what it was before

    Source: fs/proc/base.c __set_oom_adj. Leaves out: that lowering it needs CAP_SYS_RESOURCE.
    """
    row["spent_ns"] += row["cost"][SYSCALL]
    task = row["tasks"][row["threads"][th]["task"]]
    before = task["oom_score_adj"]
    task["oom_score_adj"] = max(-1000, min(1000, adj))
    return before


@law
def write_log(row, th, kind, a, b, c):
    """The program writes a line to its log: the history tells it.

    kind     int64  of linux/events.py
    a, b, c  int64  what the kind says

    Source: write(2) to standard output, as a container runtime keeps it; what it costs is left out.
    """
    record(row, kind, row["threads"][th]["task"], a, b, c, 0, 0, 0, 0, 0)
