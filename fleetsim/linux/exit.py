# SPDX-License-Identifier: Apache-2.0
"""Tasks come and go: exec of a program's image, exit, and the time it takes to give the memory back (kernel/exit.c, mm/mmap.c exit_mmap).

An exit works in slices, so that a victim's memory comes back over time, as it does (1.25 µs per page on the recordings' CPU).
Leaves out: zombies.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import EXIT
from fleetsim.law import law
from fleetsim.linux.anon_vma import unmap_anon
from fleetsim.linux.cputime import account_time, idlest_cpu
from fleetsim.linux.events import OOM_REAP, TASK_EXIT, TASK_START, record
from fleetsim.linux.hugetlb import unmap_hugetlb
from fleetsim.linux.memcontrol import add_anon, add_kernel, charge
from fleetsim.linux.mm_types import (
    AREA_ANON,
    AREA_FILE,
    AREA_HUGETLB,
    AREA_SHMEM,
    HELD_BY_EXIT,
    NR_AREAS,
    NR_THREADS,
    OOM_KILLED,
    OOM_REAPED,
    TASK_DEAD,
    TASK_EXITING,
    TASK_RUNNING,
    TASK_WAITING,
    WMARK_MIN,
)
from fleetsim.linux.mmap_layout import FULL
from fleetsim.linux.oom_kill import send_sigkill, uninterruptible_until
from fleetsim.linux.pgtable import account_tables, forget_area, free_tables
from fleetsim.linux.pipe import close_pipes
from fleetsim.linux.rmap import add_mapping, drop_mapping
from fleetsim.linux.shm import shmem_unmap
from fleetsim.linux.swapfile import reinsert_swap_info
from fleetsim.linux.zap import munlock_group
from fleetsim.linux.zonelist import pin_got, rmqueue, unpin

# The image of a small static program: what one process costs before it maps anything itself, in pages
# (kernel 6.1, measured as the first process of a cgroup: memory.stat anon 216 KiB, page tables 32 KiB, slab 7 KiB, stack and rest 28 KiB);
# its page tables follow from where it lies (pgtable.py), the upper two levels of them are in the rest.
IMAGE_ANON, IMAGE_FILE, IMAGE_STACK, IMAGE_SLAB = 54, 196, 4, 4
IMAGE_VM, IMAGE_DATA = 997, 604
SLICE = 1024  # pages given back per slice of an exit


@law
def start_task(row, t):
    """exec: take the pages of a program's image and start to count.

    Source: fs/exec.c; the amounts are measured, see above. Leaves out: failure of so small an allocation.
    """
    task = row["tasks"][t]
    cg = task["cg"]
    for what in range(3):
        pages = IMAGE_ANON if what == 0 else IMAGE_STACK if what == 1 else IMAGE_SLAB
        got = rmqueue(row, pages, WMARK_MIN)
        pin_got(row)
        if what == 0:
            row["unlisted_anon"] += got
            add_anon(row, cg, got)
            charge(row, cg, got)
            task["base_anon"] = got
            task["rss_anon"] = got
        else:
            add_kernel(row, cg, got)
            if what == 1:
                row["kernel_stack"] += got
                task["base_stack"] = got
            else:
                row["slab_unreclaimable"] += got
                task["base_slab"] = got
    task["state"] = TASK_RUNNING
    row["reschedule"] = 1
    task["rss_file"] = IMAGE_FILE
    task["base_file"] = IMAGE_FILE
    task["parent"] = -1
    task["pinned"] = 0
    task["policy"] = 0
    task["policy_nodes"] = 0
    task["il_prev"] = 1
    task["base_shared"] = 0
    task["rss_shmem"] = 0
    task["swapents"] = 0
    task["total_vm"] = IMAGE_VM
    task["data_vm"] = IMAGE_DATA
    task["hwm"] = task["rss_anon"] + task["rss_file"]
    task["minflt"] = 0
    task["majflt"] = 0
    task["killed"] = 0
    task["exit_code"] = 0
    task["pid"] = row["next_pid"]
    row["next_pid"] += 1
    task["mm_key"] = 4 * task["pid"] + min(FULL, row["randomize_va_space"])
    task["pgtables"] = 0
    account_tables(row, t)
    row["committed"] += IMAGE_DATA
    record(row, TASK_START, t, task["pid"], task["cg"], task["exits"], 0, 0, 0, 0, 0)


@law
def exit_mmap(row, t):
    """One slice of an exit: up to 1024 pages go back; when none is left the task is gone, or waits to be started again.

    Source: mm/mmap.c exit_mmap, kernel/exit.c do_exit.
    """
    task = row["tasks"][t]
    cpu = idlest_cpu(row)
    if row["cpu"][cpu]["free_ns"] > row["now_ns"]:
        task["exit_ready_ns"] = row["cpu"][cpu]["free_ns"]
        return
    left = SLICE
    row["spent_ns"] = 0
    for a in range(NR_AREAS):
        area = row["areas"][a]
        if area["task"] != t or left == 0:
            continue
        if area["kind"] == AREA_ANON:
            done, gone = unmap_anon(row, a, left)
            left -= done
            if not gone:
                break
        elif area["kind"] == AREA_FILE:
            unmap_file(row, task, a)
        elif area["kind"] == AREA_SHMEM:
            done, gone = shmem_unmap(row, a, left)
            left -= done
            if not gone:
                break
        elif area["kind"] == AREA_HUGETLB:
            unmap_hugetlb(row, a)
    spent = max(row["spent_ns"], row["cost"][EXIT])
    account_time(row, cpu, HELD_BY_EXIT + t, 0, spent)
    task["stime_ns"] += spent
    task["exit_ready_ns"] = row["now_ns"] + spent + 1  # who waited meanwhile goes first
    if left == 0:
        return
    blocked_ns = uninterruptible_until(row, t)
    if task["killed"] > 0 and blocked_ns > row["now_ns"]:
        if task["killed"] == OOM_KILLED:  # its memory was taken from it while it waits: the reaper's work
            task["killed"] = OOM_REAPED
            record(row, OOM_REAP, t, task["pid"], task["rss_file"], task["rss_shmem"], 0, 0, 0, 0, 0)
        task["exit_ready_ns"] = blocked_ns
        return
    finish_exit(row, t)


@law
def unmap_pages(row, a):
    """MADV_DONTNEED of a mapped file: its cached pages stay, the task's page tables forget them.

    Source: mm/memory.c zap_pte_range (file pages).
    """
    area = row["areas"][a]
    for k in range(area["groups"]):
        drop_mapping(row, a, area["group"] + k)
        add_mapping(row, a, area["group"] + k)


@law
def unmap_file(row, task, a):
    """Unmap a file: its cached pages stay, nobody's RSS counts them any more.

    Source: mm/memory.c zap_pte_range (file pages).
    """
    area = row["areas"][a]
    for k in range(area["groups"]):
        drop_mapping(row, a, area["group"] + k)
        if area["locked"] > 0:
            munlock_group(row, area["group"] + k)
    if area["accounted"]:
        row["committed"] -= area["pages"]
    task["total_vm"] -= area["pages"]
    forget_area(row, area)


@law
def zap_pid_ns_processes(row, t):
    """PID 1 of a PID namespace is gone: every other process of the namespace is killed; who was still to start never does.

    Source: kernel/pid_namespace.c zap_pid_ns_processes.
    """
    for other in range(row["nr_tasks"]):
        task = row["tasks"][other]
        if other == t or task["pid_ns"] != t + 1:
            continue
        if task["state"] == TASK_RUNNING:
            send_sigkill(row, other)
        elif task["state"] == TASK_WAITING:
            task["state"] = TASK_DEAD
            task["exit_ready_ns"] = row["now_ns"]


@law
def finish_exit(row, t):
    """The last page is back: give up the image, end the threads, and be dead, or wait for the next start.

    Source: kernel/exit.c do_exit.
    """
    task = row["tasks"][t]
    cg = task["cg"]
    close_pipes(row, t)
    image = task["base_anon"]
    unpin(row, image)
    row["unlisted_anon"] -= image
    add_anon(row, cg, -image)
    charge(row, cg, -image)
    tables = task["pgtables"]
    free_tables(row, task, tables)
    unpin(row, task["base_stack"] + task["base_slab"])
    row["kernel_stack"] -= task["base_stack"]
    row["slab_unreclaimable"] -= task["base_slab"]
    add_kernel(row, cg, -(task["base_stack"] + task["base_slab"]))
    row["committed"] -= IMAGE_DATA + task["untouched_vm"]
    task["untouched_vm"] = 0
    task["rss_anon"] = 0
    task["rss_file"] = 0
    task["total_vm"] = 0
    task["data_vm"] = 0
    task["exits"] += 1
    row["nr_exits"] += 1
    row["reschedule"] = 1
    for th in range(NR_THREADS):
        if row["threads"][th]["used"] > 0 and row["threads"][th]["task"] == t:
            row["threads"][th]["used"] = 0
    record(row, TASK_EXIT, t, task["exit_code"], task["killed"], task["pid"], 0, 0, 0, 0, 0)
    if task["restart_ns"] >= 0:
        task["state"] = TASK_WAITING
        task["started_ns"] = row["now_ns"] + task["restart_ns"]
    else:
        task["state"] = TASK_DEAD
        task["exit_ready_ns"] = row["now_ns"]  # when it was gone: what a runtime notes as the time it finished
    if task["pid_ns"] == t + 1:
        zap_pid_ns_processes(row, t)


@law
def begin_exit(row, t, code):
    """exit(code), or the last thread is done.

    Source: kernel/exit.c do_group_exit.
    """
    task = row["tasks"][t]
    if task["state"] == TASK_RUNNING:
        task["state"] = TASK_EXITING
        row["reschedule"] = 1
        task["exit_code"] = code
        task["exit_ready_ns"] = row["now_ns"]
        if row["swapoff_task"] == t + 1:
            reinsert_swap_info(row)
