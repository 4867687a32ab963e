# SPDX-License-Identifier: Apache-2.0
"""Who has which CPU, and what the CPUs' time went into (kernel/sched/cputime.c, the part that /proc/stat shows).

Everything that computes takes a CPU: threads, kswapd, exits. Work is booked when it begins; a CPU's idle and iowait time are
what is left of the clock, so the four always add up to it and never run back.
Leaves out: nice, irq, softirq, steal and guest time; time slices, priorities, cpu.max.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import CPU_IDLE, CPU_IOWAIT, CPU_SYSTEM, CPU_USER, HELD_BY_EXIT, HELD_BY_KSWAPD, HELD_BY_THREAD, NR_CPUS


@law
def idlest_cpu(row):
    """The CPU that is free first; of equals the lowest.

    Source: kernel/sched/fair.c select_idle_sibling, as far as it matters here: an idle CPU is taken before a busy one.
    """
    cpu, least = 0, row["cpu"][0]["free_ns"]
    for k in range(1, min(NR_CPUS, row["cpus"])):
        free = row["cpu"][k]["free_ns"]
        if free < least:
            cpu, least = k, free
    return cpu


@law
def cpu_to_node(row, cpu):
    """The NUMA node of a CPU: each node has as many, the first ones are the first node's.

    Source: include/linux/topology.h cpu_to_node; how many each has is fleetsim's own choice.
    """
    return cpu * row["nr_nodes"] // max(1, row["cpus"])


@law
def idlest_cpu_of(row, node):
    """The CPU of a node that is free first; of equals the lowest. A node without CPUs uses the other's.

    Source: mm/vmscan.c kswapd (it runs on its node's CPUs); kernel/sched/fair.c select_idle_sibling.
    """
    if row["nr_nodes"] == 1:
        return idlest_cpu(row)
    cpu = -1
    for k in range(min(NR_CPUS, row["cpus"])):
        if cpu_to_node(row, k) == node and (cpu < 0 or row["cpu"][k]["free_ns"] < row["cpu"][cpu]["free_ns"]):
            cpu = k
    return cpu if cpu >= 0 else idlest_cpu(row)


@law
def select_task_rq(row, task):
    """The CPU that a task's thread gets: an idle one of its node, else, if it is not pinned there, whichever is free first.

    Source: kernel/sched/fair.c select_task_rq_fair, by its usual outcome.
    """
    cpu = idlest_cpu_of(row, task["node"])
    if row["nr_nodes"] > 1 and task["pinned"] == 0 and row["cpu"][cpu]["free_ns"] > row["now_ns"]:
        return idlest_cpu(row)
    return cpu


@law
def sched_setaffinity(row, t, cpu):
    """A task is to run on the CPU's node only, from its next turn on.

    Source: kernel/sched/core.c sched_setaffinity. Leaves out: that it is to run on that one CPU (it gets any of the node).
    """
    task = row["tasks"][t]
    task["node"] = cpu_to_node(row, min(cpu, row["cpus"] - 1))
    task["pinned"] = 1


@law
def account_time(row, cpu, holder, user_ns, system_ns):
    """The CPU works for `user_ns` + `system_ns` from the host's clock on, for one that preempts another on top of what it has to do.

    holder  int64  HELD_BY_…

    Source: kernel/sched/cputime.c account_user_time, account_system_index_time.
    """
    rq = row["cpu"][cpu]
    begin = max(row["now_ns"], rq["free_ns"])
    if begin > row["now_ns"]:
        system_left = min(begin - row["now_ns"], rq["last_system_ns"])
    else:
        system_left = 0
        rq["holder"] = holder
    rq["iowait_ns"] -= max(0, rq["io_until_ns"] - begin)  # somebody works now: the rest of that wait is not idle
    rq["io_until_ns"] = min(rq["io_until_ns"], begin)
    rq["user_ns"] += user_ns
    rq["system_ns"] += system_ns
    rq["last_system_ns"] = system_left + system_ns
    rq["free_ns"] = begin + user_ns + system_ns


@law
def can_preempt(row, cpu, th):
    """A thread that slept takes the CPU at once from kswapd or an exit, which have run meanwhile; not from another thread's chunk.

    Source: kernel/sched/fair.c check_preempt_wakeup, by its usual outcome; between threads the chunk is our time slice.
    """
    return row["cpu"][cpu]["holder"] != HELD_BY_THREAD and row["busy_until_ns"][th] < row["now_ns"]


@law
def put_off(row, cpu, until_ns):
    """Whoever had the CPU goes on only at `until_ns`: somebody preempted it.

    returns  bool  True: it is kswapd

    Source: kernel/sched/core.c preempt_schedule, by its effect.
    """
    holder = row["cpu"][cpu]["holder"]
    if holder < HELD_BY_EXIT:
        kswapd = row["kswapd"][holder - HELD_BY_KSWAPD]
        kswapd["next_ns"] = max(kswapd["next_ns"], until_ns + 1)
        return True
    task = row["tasks"][holder - HELD_BY_EXIT]
    task["exit_ready_ns"] = max(task["exit_ready_ns"], until_ns + 1)
    row["reschedule"] = 1
    return False


@law
def account_iowait(row, cpu, until_ns):
    """The task that just left the CPU waits for I/O until `until_ns`: idle time of this CPU meanwhile is iowait.

    Source: kernel/sched/cputime.c account_idle_time (rq->nr_iowait > 0).
    """
    rq = row["cpu"][cpu]
    begin = max(rq["free_ns"], rq["io_until_ns"])
    if until_ns > begin:
        rq["iowait_ns"] += until_ns - begin
        rq["io_until_ns"] = until_ns


@law
def cpu_times(row, cpu, out):
    """user, nice, system, idle, iowait, irq, softirq, steal of one CPU up to the host's clock.

    out  int64[8]  ns, added to

    Source: fs/proc/stat.c show_stat; kernel/sched/cputime.c.
    """
    rq = row["cpu"][cpu]
    ahead = max(0, rq["free_ns"] - row["now_ns"])  # booked, not yet worked
    waiting = max(0, rq["io_until_ns"] - max(row["now_ns"], rq["free_ns"]))
    system_ahead = min(ahead, rq["last_system_ns"])
    system = rq["system_ns"] - system_ahead
    user = rq["user_ns"] - (ahead - system_ahead)
    iowait = rq["iowait_ns"] - waiting
    out[CPU_USER] += user
    out[CPU_SYSTEM] += system
    out[CPU_IOWAIT] += iowait
    out[CPU_IDLE] += row["now_ns"] - user - system - iowait


@law
def account_cpus(row):
    """Sum every CPU's times into row["cpu_ns"], as the first line of /proc/stat shows them.

    Source: fs/proc/stat.c show_stat.
    """
    row["cpu_ns"][:] = 0
    for cpu in range(min(NR_CPUS, row["cpus"])):
        cpu_times(row, cpu, row["cpu_ns"])
    row["cpu_ns"][CPU_IDLE] += max(0, row["cpus"] - NR_CPUS) * row["now_ns"]  # CPUs beyond the table are never used
