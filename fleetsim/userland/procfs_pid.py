# SPDX-License-Identifier: Apache-2.0
"""/proc/PID of a simulated host as text, byte for byte in the format of Linux 6.1: the files about a process's memory.

    pid_tree(row)   a host's record → {PID/file: text} for every process that is alive

Leaves out: smaps by area, maps, stat and status; no file is dirty here yet, so a file's pages print as clean.
"""

from __future__ import annotations

from typing import Any

from fleetsim.linux.mm_types import NR_TASKS, TASK_EXITING, TASK_RUNNING
from fleetsim.linux.task_mmu import MemSizeStats, smaps_rollup

PAGE_KB = 4
FIRST, LAST = 0x400000, 0x7FFFFFFDE000  # addresses of a program's text and of the end of its stack; nothing here depends on them
NAME_COLUMN = 73  # where fs/proc/task_mmu.c seq_pad puts the name


def rollup_text(stats: MemSizeStats, anon_huge: int = 0, locked: int = 0) -> str:
    """/proc/PID/smaps_rollup; pages in, kB out (fs/proc/task_mmu.c show_smaps_rollup, __show_smap)."""
    rss, pss, private = stats.rss, stats.pss, stats.private
    shared = {kind: rss[kind] - private[kind] for kind in rss}
    values = {
        "Rss": sum(rss.values()),
        "Pss": sum(pss.values()),
        "Pss_Dirty": pss["anon"] + pss["shmem"],
        "Pss_Anon": pss["anon"],
        "Pss_File": pss["file"],
        "Pss_Shmem": pss["shmem"],
        "Shared_Clean": shared["file"],
        "Shared_Dirty": shared["anon"] + shared["shmem"],
        "Private_Clean": private["file"],
        "Private_Dirty": private["anon"] + private["shmem"],
        "Referenced": sum(rss.values()),
        "Anonymous": rss["anon"],
        "LazyFree": 0,
        "AnonHugePages": anon_huge,
        "ShmemPmdMapped": 0,
        "FilePmdMapped": 0,
        "Shared_Hugetlb": 0,
        "Private_Hugetlb": 0,
        "Swap": stats.swap,
        "SwapPss": stats.swap_pss,
        "Locked": locked,
    }
    head = f"{FIRST:08x}-{LAST:08x} ---p 00000000 00:00 0 ".ljust(NAME_COLUMN) + "[rollup]\n"
    return head + "".join(f"{name + ':':<16}{pages * PAGE_KB:>{23 - max(15, len(name))}d} kB\n" for name, pages in values.items())


def statm(task: Any) -> str:
    """/proc/PID/statm, pages: size resident shared text lib data dt (fs/proc/array.c proc_pid_statm)."""
    shared = int(task["rss_file"] + task["rss_shmem"])
    return f"{int(task['total_vm'])} {shared + int(task['rss_anon'])} {shared} {int(task['base_file'])} 0 {int(task['data_vm'])} 0\n"


def pid_tree(row: Any) -> dict[str, str]:
    """The files of every process that is alive, by path below /proc."""
    files = {}
    for t in range(NR_TASKS):
        task = row["tasks"][t]
        if int(task["state"]) in (TASK_RUNNING, TASK_EXITING):
            files[f"{int(task['pid'])}/smaps_rollup"] = rollup_text(smaps_rollup(row, t))
            files[f"{int(task['pid'])}/statm"] = statm(task)
    return files
