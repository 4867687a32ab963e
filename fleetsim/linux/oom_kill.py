# SPDX-License-Identifier: Apache-2.0
"""The OOM killer: whom it chooses, whom it kills, and the event that the log report is written from (mm/oom_kill.c).

A victim that waits for a disk cannot die before the wait is over. After two seconds the OOM reaper takes its memory instead,
and from then on somebody else may be chosen.
Leaves out: notifiers; the reaper's ten tries for a contended mmap lock.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.events import OOM_KILL, OOM_PANIC, record
from fleetsim.linux.memcontrol import event, in_subtree
from fleetsim.linux.mempolicy import CONSTRAINT_NONE, constrained_alloc, nr_present, oom_cpuset_eligible
from fleetsim.linux.mm_types import (
    EV,
    NR_TASKS,
    NS_PER_S,
    OOM_KILLED,
    PSI_IO,
    TASK_DEAD,
    TASK_EXITING,
    TASK_RUNNING,
    TASK_WAITING,
    VM,
)
from fleetsim.linux.oom_badness import OOM_2_6_11, OOM_INELIGIBLE, badness_2_6_11, oom_adj_of, oom_badness
from fleetsim.linux.pgtable import mm_pgtables
from fleetsim.linux.swapfile import reinsert_swap_info

VM_OOM_KILL = VM["oom_kill"]
EV_OOM, EV_OOM_KILL, EV_OOM_GROUP = EV["oom"], EV["oom_kill"], EV["oom_group_kill"]
TASK_PAGE = 4096
OOM_REAPER_DELAY_NS = 2 * NS_PER_S


@law
def task_points(row, t, totalpages):
    """Badness of task `t` (OOM_INELIGIBLE if it cannot be chosen).

    Source: mm/oom_kill.c oom_badness; kernel-laws §7.1.
    """
    task = row["tasks"][t]
    rss = task["rss_anon"] + task["rss_file"] + task["rss_shmem"]
    return oom_badness(rss, task["swapents"], mm_pgtables(row, t) * TASK_PAGE, task["oom_score_adj"], totalpages)


@law
def historical_points(row, t):
    """Badness of task `t` as kernels before 2.6.36 reckoned it.

    Source: mm/oom_kill.c badness (Linux 2.6.11); kernel-laws §7.5. Leaves out: children (no task here is another's parent).
    """
    task = row["tasks"][t]
    cpu_s = (task["utime_ns"] + task["stime_ns"]) // NS_PER_S
    run_s = max(0, row["now_ns"] - task["started_ns"]) // NS_PER_S
    root = task["superuser"] > 0
    return badness_2_6_11(task["total_vm"], 0, cpu_s, run_s, task["nice"], root, root, oom_adj_of(task["oom_score_adj"]))


@law
def total_pages(row, cg, invoker):
    """Memory that badness is measured against: the RAM of the nodes that may be used + swap, or memory.max + the swap the cgroup may use.

    Source: mm/oom_kill.c constrained_alloc; kernel-laws §7.1.
    """
    if cg == 0:
        return nr_present(row, invoker) + row["swap_total"]
    group = row["cgroups"][cg]
    total = min(group["max"], row["totalram"])
    if row["sysctl"]["swappiness"] > 0:
        total += min(group["swap_max"], row["swap_total"])
    return total


@law
def select_bad_process(row, cg, invoker):
    """The task with the most points in the subtree of `cg`; among equals the later one (with the heuristic of 2.6.11 the earlier).

    returns  int64  task row; −1 nobody; −2 a victim is still giving its memory back, so nobody new is chosen

    Source: mm/oom_kill.c oom_evaluate_task, select_bad_process; kernel-laws §7.1.
    """
    total = total_pages(row, cg, invoker)
    chosen, best = -1, OOM_INELIGIBLE
    for t in range(NR_TASKS):
        task = row["tasks"][t]
        if not in_subtree(row, task["cg"], cg) or (cg == 0 and not oom_cpuset_eligible(row, invoker, t)):
            continue
        if task["state"] == TASK_EXITING and task["killed"] == OOM_KILLED:
            return -2
        if task["state"] != TASK_RUNNING:
            continue
        if row["swapoff_task"] == t + 1:
            return t  # oom_task_origin
        points = historical_points(row, t) if row["oom_heuristic"] == OOM_2_6_11 else task_points(row, t, total)
        if points == OOM_INELIGIBLE:
            continue
        if chosen < 0 or points > best or (points == best and row["oom_heuristic"] != OOM_2_6_11):
            chosen, best = t, points
    return chosen


@law
def uninterruptible_until(row, t):
    """When the last thread of a task has the pages it waits for; pacing, memory.high and other sleeps end with the signal.

    Source: mm/filemap.c folio_wait_bit_common (TASK_UNINTERRUPTIBLE in a fault and a read).
    """
    until = row["now_ns"]
    for th in range(row["nr_threads"]):
        thread = row["threads"][th]
        if thread["used"] > 0 and thread["task"] == t and thread["stalled"] & (1 << PSI_IO):
            until = max(until, row["busy_until_ns"][th])
    return until


@law
def send_sigkill(row, t):
    """SIGKILL: the task starts to exit now, or when the disk lets go of it (the OOM reaper waits two seconds for that).

    Source: kernel/signal.c do_send_sig_info, mm/oom_kill.c queue_oom_reaper; the memory comes back as exit_mmap works (exit.py).
    """
    task = row["tasks"][t]
    if row["swapoff_task"] == t + 1:
        reinsert_swap_info(row)
    task["state"] = TASK_EXITING
    row["reschedule"] = 1
    task["exit_code"] = 137
    task["exit_ready_ns"] = row["now_ns"]
    blocked_ns = uninterruptible_until(row, t)
    if blocked_ns > row["now_ns"]:
        reaper_ns = row["now_ns"] + OOM_REAPER_DELAY_NS if task["killed"] == OOM_KILLED else blocked_ns
        task["exit_ready_ns"] = min(blocked_ns, reaper_ns)


@law
def oom_kill_task(row, t, cg, invoker):
    """Kill one victim and book it: vmstat, memory.events of its own cgroup, and an event with what the log line needs.

    Source: mm/oom_kill.c __oom_kill_process; kernel-laws §7.3.
    """
    task = row["tasks"][t]
    record(
        row,
        OOM_KILL,
        t,
        invoker,
        cg,
        task["total_vm"],
        task["rss_anon"],
        task["rss_file"],
        task["rss_shmem"],
        mm_pgtables(row, t),
        task["swapents"],
    )
    row["vm"][VM_OOM_KILL] += 1
    event(row, task["cg"], EV_OOM_KILL)
    task["killed"] = OOM_KILLED
    row["attention"] = 1
    send_sigkill(row, t)


@law
def panic(row, invoker, cg):
    """The kernel panics: nothing runs on this host any more.

    Source: mm/oom_kill.c check_panic_on_oom, out_of_memory ("System is deadlocked on memory"); kernel-laws §7.3.
    Leaves out: the reboot that vm.panic may ask for.
    """
    record(row, OOM_PANIC, invoker, 0, cg, 0, 0, 0, 0, 0, 0)
    for t in range(NR_TASKS):
        task = row["tasks"][t]
        if task["state"] == TASK_RUNNING:
            task["restart_ns"] = -1
            send_sigkill(row, t)
        elif task["state"] == TASK_WAITING:
            task["state"] = TASK_DEAD
            row["reschedule"] = 1


@law
def oom_group_of(row, victim_cg, cg):
    """Highest ancestor of the victim inside the OOM domain with memory.oom.group set, or −1.

    Source: mm/memcontrol.c mem_cgroup_get_oom_group; kernel-laws §7.3.
    """
    found = -1
    at = victim_cg
    while at > 0:
        if row["cgroups"][at]["oom_group"] > 0:
            found = at
        if at == cg:
            break
        at = row["cgroups"][at]["parent"]
    return found


@law
def out_of_memory(row, cg, invoker):
    """Choose and kill (the host is out of memory if `cg` is 0, else that cgroup).

    cg       int64  cgroup row
    invoker  int64  task whose allocation failed, −1 for somebody outside who lowered a limit
    returns  bool   False: nobody can be killed

    Source: mm/oom_kill.c out_of_memory; kernel-laws §7.3.
    """
    sysctl = row["sysctl"]
    if cg > 0:
        event(row, cg, EV_OOM)
    if sysctl["panic_on_oom"] == 2 or (sysctl["panic_on_oom"] == 1 and cg == 0 and constrained_alloc(row, invoker) == CONSTRAINT_NONE):
        panic(row, invoker, cg)
        return True
    if sysctl["oom_kill_allocating_task"] > 0 and cg == 0 and invoker >= 0 and row["tasks"][invoker]["oom_score_adj"] > -1000:
        victim = invoker
    else:
        victim = select_bad_process(row, cg, invoker)
    if victim == -2:
        return True
    if victim < 0:
        if cg == 0:  # "System is deadlocked on memory": nobody left to kill is the end of the host
            panic(row, invoker, cg)
        return False
    group = oom_group_of(row, row["tasks"][victim]["cg"], cg)
    oom_kill_task(row, victim, cg, invoker)
    if group > 0:
        event(row, group, EV_OOM_GROUP)
        for t in range(NR_TASKS):
            task = row["tasks"][t]
            mortal = task["state"] == TASK_RUNNING and task["oom_score_adj"] > -1000
            if (mortal or t == victim) and in_subtree(row, task["cg"], group):  # the walk meets the victim too: told and counted twice
                oom_kill_task(row, t, cg, invoker)
    return True
