# SPDX-License-Identifier: Apache-2.0
"""The page where the order of the laws is read: what happens next on a host, again and again, until an instant.

A host is a queue of things that are due: a thread that can go on, a slice of kswapd, a chunk of the flusher, a commit of the
journal, a slice of an exit, a task to be started, the two-second step of the pressure averages. The earliest is done, at its
own time; ties go in the order of this list. Nothing is drawn by luck and nothing runs on a grid, so that tasks, kswapd and the
disk interleave as finely as the work itself (measured: the interleaving matters more than the length of a tick, design §3.3).
"""

from __future__ import annotations

from fleetsim.hardware.cpu import START
from fleetsim.host.impact import WINDOW_NS, measure_host, measure_pace, measure_servers
from fleetsim.host.kubelet_types import KUBERNETES
from fleetsim.law import law
from fleetsim.linux.check import validate_fast
from fleetsim.linux.cputime import account_cpus, account_iowait, account_time, can_preempt, cpu_to_node, put_off, select_task_rq
from fleetsim.linux.exit import exit_mmap, start_task
from fleetsim.linux.ext4_jbd2 import run_ext4_journal
from fleetsim.linux.fs_writeback import run_flusher
from fleetsim.linux.jbd2 import kjournald2
from fleetsim.linux.kcompactd import run_kcompactd
from fleetsim.linux.khugepaged import run_khugepaged
from fleetsim.linux.kswapd import run_kswapd, wakeup_boosted
from fleetsim.linux.mempolicy import enter_task, home_node, leave_task
from fleetsim.linux.mm_types import (
    HELD_BY_THREAD,
    NEVER,
    NR_THREADS,
    NS_PER_S,
    PSI_CPU,
    PSI_IO,
    PSI_MEM,
    TASK_EXITING,
    TASK_RUNNING,
    TASK_WAITING,
)
from fleetsim.linux.psi import productive, stall, update
from fleetsim.linux.psi_laws import LOAD_EXP_1, LOAD_EXP_5, LOAD_EXP_15, calc_load
from fleetsim.linux.xarray import slabs_are_stale, sync_page_cache_slabs
from fleetsim.workloads.script import begin_program
from fleetsim.workloads.script import step as script_step
from fleetsim.workloads.works import begin_work, note_gone, step_work

LOAD_PERIOD_NS = 5 * NS_PER_S
FREE_STEPS_MAX = 1_000_000
SOUND, EVENTS, CALL_AGAIN, ASKS = 0, 1, 2, 3  # what run_host returns
DUE_NOTHING, DUE_CLOCK, DUE_KSWAPD, DUE_WRITEBACK, DUE_JOURNAL, DUE_HUGE, DUE_TASK, DUE_THREAD = range(8)


@law
def is_due_ns(task):
    """When a task starts or goes on exiting; NEVER if it does neither.

    Source: fleetsim's own event order.
    """
    if task["state"] == TASK_WAITING:
        return task["started_ns"]
    return task["exit_ready_ns"] if task["state"] == TASK_EXITING else NEVER


@law
def task_due(row):
    """The first of the tasks that are due earliest.

    Source: fleetsim's own event order.
    """
    for t in range(row["nr_tasks"]):
        if is_due_ns(row["tasks"][t]) == row["task_due_ns"]:
            return t
    return -1


@law
def reschedule(row):
    """Note anew when every thread and task is due: some task's state changed.

    Source: fleetsim's own event order.
    """
    row["reschedule"] = 0
    row["task_due_ns"] = NEVER
    for t in range(row["nr_tasks"]):
        row["task_due_ns"] = min(row["task_due_ns"], is_due_ns(row["tasks"][t]))
    for th in range(row["nr_threads"]):
        thread = row["threads"][th]
        alive = thread["used"] > 0 and row["tasks"][thread["task"]]["state"] == TASK_RUNNING
        row["due_ns"][th] = thread["ready_ns"] if alive else NEVER
    note_gone(row)


@law
def next_thread(row):
    """The thread that is due first; of several the one that could go on first.

    returns  (int64 thread row, int64 when); NEVER if none is due

    Source: fleetsim's own event order.
    """
    due = row["due_ns"]
    earliest = NEVER
    for th in range(row["nr_threads"]):
        earliest = min(earliest, due[th])
    which, last = NR_THREADS, -1
    for th in range(row["nr_threads"]):
        which = min(which, th if due[th] == earliest else NR_THREADS)
        last = max(last, th if due[th] == earliest else -1)
    if last > which:
        for th in range(which + 1, last + 1):
            if due[th] == earliest and row["threads"][th]["since_ns"] < row["threads"][which]["since_ns"]:
                which = th
    return which, earliest


@law
def next_due(row, until_ns, thread, thread_ns):
    """What is due first before `until_ns`.

    thread, thread_ns  from `next_thread`
    returns            (int64 DUE_…, int64 which row, int64 when)

    Source: fleetsim's own event order.
    """
    what, which, when = DUE_NOTHING, -1, until_ns
    clock = min(row["psi_next_ns"], row["load_next_ns"], row["slow_next_ns"], row["ext4_journal"]["next_ns"])
    if clock < when:
        what, when = DUE_CLOCK, clock
    for node in range(row["nr_nodes"]):
        if row["kswapd"][node]["next_ns"] < when:
            what, which, when = DUE_KSWAPD, node, row["kswapd"][node]["next_ns"]
    if row["bdi"]["next_ns"] < when:
        what, when = DUE_WRITEBACK, row["bdi"]["next_ns"]
    if row["journal"]["next_ns"] < when:
        what, when = DUE_JOURNAL, row["journal"]["next_ns"]
    if min(row["kcompactd_next_ns"], row["khugepaged_next_ns"]) < when:
        what, when = DUE_HUGE, min(row["kcompactd_next_ns"], row["khugepaged_next_ns"])
    if row["task_due_ns"] < when:
        what, when = DUE_TASK, row["task_due_ns"]
    if thread_ns < when:
        what, which, when = DUE_THREAD, thread, thread_ns
    elif what == DUE_TASK:
        which = task_due(row)
    return what, which, max(when, row["now_ns"])


@law
def run_clock(row):
    """Periodic work of the kernel and of us: pressure averages (2 s), load average (5 s), pace (10 s), the journal.

    Source: kernel/sched/psi.c, kernel/sched/loadavg.c.
    """
    if row["psi_next_ns"] <= row["now_ns"]:
        update(row)
    if row["load_next_ns"] <= row["now_ns"]:
        row["load_next_ns"] += LOAD_PERIOD_NS
        active = 0
        for th in range(row["nr_threads"]):
            if row["threads"][th]["used"] and row["busy_until_ns"][th] > row["now_ns"]:
                active += 2048
        load = row["loadavg"]
        load[0] = calc_load(load[0], LOAD_EXP_1, active)
        load[1] = calc_load(load[1], LOAD_EXP_5, active)
        load[2] = calc_load(load[2], LOAD_EXP_15, active)
    if row["slow_next_ns"] <= row["now_ns"]:
        row["slow_next_ns"] += WINDOW_NS
        measure_pace(row)
        measure_servers(row)
        measure_host(row)
    if row["ext4_journal"]["next_ns"] <= row["now_ns"]:
        run_ext4_journal(row)


@law
def run_task(row, t):
    """A task starts, with its first thread at its first op, or goes on exiting.

    Source: fs/exec.c, kernel/exit.c.
    """
    task = row["tasks"][t]
    if task["state"] == TASK_EXITING:
        exit_mmap(row, t)
        if row["kubelet"]["runtime"] != KUBERNETES and row["nr_exits"] != row["kubelet"]["exits_seen"]:
            row["attention"] = 1  # Docker and systemd hear of it at once (SIGCHLD); a kubelet finds it when it relists
        return
    task["node"] = home_node(row, t)
    cpu = select_task_rq(row, task)
    if row["nr_nodes"] > 1:
        enter_task(row, t, cpu_to_node(row, cpu))
    start_task(row, t)
    account_time(row, cpu, HELD_BY_THREAD, 0, row["cost"][START])
    th = task["main_thread"]
    thread = row["threads"][th]
    thread["used"] = 1
    thread["task"] = t
    thread["ready_ns"] = row["cpu"][cpu]["free_ns"]
    thread["since_ns"] = thread["ready_ns"]
    row["busy_until_ns"][th] = 0
    thread["charge_retries"] = 0
    thread["no_progress"] = 0
    begin_program(row, th)
    if row["programs"][th]["work"] > 0:
        begin_work(row, row["programs"][th]["work"] - 1)
    if row["nr_nodes"] > 1:
        leave_task(row, t)


@law
def waits_for_cpu(row, th, cg, until_ns):
    """All CPUs are busy until `until_ns`: CPU pressure; and whoever could work, had it a CPU, keeps other stalls from being full.

    Source: kernel/sched/psi.c psi_group_change (TSK_RUNNING without TSK_ONCPU); kernel-laws §9.
    """
    begin, thread = row["now_ns"], row["threads"][th]
    thread["ready_ns"] = until_ns
    thread["work_until_ns"] = begin
    row["busy_until_ns"][th] = until_ns
    thread["stalled"] = 1 << PSI_CPU
    stall(row, cg, PSI_CPU, begin, until_ns)
    if row["cpus"] == 1:
        productive(row, cg, begin, until_ns)


@law
def begin_turn(row, th):
    """Give a thread a CPU and an empty bill, or let it wait for a CPU.

    returns  (int64 its CPU, −1: it waits; int64 until when somebody whom it preempts has that CPU, 0: nobody)

    Source: kernel/sched (who waits longest runs next); CPU pressure is the wait. Leaves out: time slices, nice, cpu.max.
    """
    task = row["tasks"][row["threads"][th]["task"]]
    begin = row["now_ns"]
    row["current"] = th
    cpu = select_task_rq(row, task)
    free = row["cpu"][cpu]["free_ns"]
    preempts = free > begin and can_preempt(row, cpu, th)
    if free > begin and not preempts:
        waits_for_cpu(row, th, task["cg"], free)
        return -1, 0
    row["spent_ns"] = 0
    row["reclaim_ns"] = 0
    row["wait_ns"] = 0
    row["stall_ns"][:] = 0
    if row["nr_nodes"] > 1:
        enter_task(row, row["threads"][th]["task"], cpu_to_node(row, cpu))
    return cpu, free if preempts else 0


@law
def run_thread(row, th, under_way):
    """One chunk of a thread's work, if there is a CPU for it; or the next part of the chunk that is under way, if it is a plug-in's.

    under_way  bool  the latter
    returns    bool  False: the turn is not over, its program is to go on (`asking`)

    Source: fleetsim's own pacing.
    """
    task, turn = row["tasks"][row["threads"][th]["task"]], row["turn"]
    if under_way:
        cpu, preempted_ns = turn["cpu"], turn["preempted_ns"]
        user_before, system_before = turn["utime_ns"], turn["stime_ns"]
    else:
        cpu, preempted_ns = begin_turn(row, th)
        user_before, system_before = task["utime_ns"], task["stime_ns"]
        if cpu < 0:
            return True
    work = row["programs"][th]["work"]
    if work > 0:
        step_work(row, th, work - 1)
    else:
        script_step(row, th)
    if row["asking"] > 0:
        turn["cpu"] = cpu
        turn["preempted_ns"] = preempted_ns
        turn["utime_ns"] = user_before
        turn["stime_ns"] = system_before
        return False
    spent, user = row["spent_ns"], min(row["spent_ns"], task["utime_ns"] - user_before)
    task["stime_ns"] = system_before + spent - user
    end_turn(row, th, cpu, preempted_ns, user)
    return True


@law
def end_turn(row, th, cpu, preempted_ns, user):
    """Book what a thread's chunk of work cost it and the others.

    cpu, preempted_ns  int64  from `begin_turn`
    user               int64  of its processor time, in user mode

    Source: kernel/sched/cputime.c, kernel/sched/psi.c.
    """
    thread = row["threads"][th]
    cg, begin, spent = row["tasks"][thread["task"]]["cg"], row["now_ns"], row["spent_ns"]
    if row["nr_nodes"] > 1:
        leave_task(row, thread["task"])
    account_time(row, cpu, HELD_BY_THREAD, user, spent - user)
    if preempted_ns > 0 and spent > 0 and put_off(row, cpu, preempted_ns + spent):
        stall(row, -1, PSI_MEM, preempted_ns, preempted_ns + spent)
    useful = spent - row["reclaim_ns"]
    thread["work_until_ns"] = begin + useful
    row["busy_until_ns"][th] = begin + spent + row["wait_ns"]
    thread["stalled"] = 0
    if row["cpus"] == 1:
        productive(row, cg, begin, begin + useful)
    for kind in (PSI_IO, PSI_MEM):  # as if all useful work of the chunk came first: a task cannot work and wait at once
        if row["stall_ns"][kind] > 0:
            thread["stalled"] |= 1 << kind
            stall(row, cg, kind, begin + useful, begin + useful + row["stall_ns"][kind])
    if row["stall_ns"][PSI_IO] > 0:
        account_iowait(row, cpu, row["busy_until_ns"][th])
    thread["since_ns"] = thread["ready_ns"]
    if row["spent_ns"] + row["wait_ns"] == 0 and thread["used"] and thread["ready_ns"] <= begin:
        thread["ready_ns"] = begin + 1  # nothing is free of charge: an op without cost still lets time pass
        row["free_steps"] += 1
        assert row["free_steps"] < FREE_STEPS_MAX, "an op does nothing and takes no time: it would go on for ever"
    else:
        row["free_steps"] = 0


@law
def run_until(row, until_ns):
    """Everything that is due on the host before `until_ns`, in order; the clock stands at `until_ns` afterwards.

    returns  bool  False: stopped early because a task was just killed and its report should be written, or because a plug-in wants
                   its Python program (`asking`); call again

    Source: fleetsim's own main loop (design §4).
    """
    under_way = row["asking"] > 0
    if not under_way:
        row["attention"] = 0
    thread, thread_ns = -1, NEVER
    changed = True
    while True:
        if under_way:
            what, which, when = DUE_THREAD, row["asking"] - 1, row["now_ns"]
        else:
            if row["reschedule"] > 0:
                reschedule(row)
                changed = True
            if changed:
                thread, thread_ns = next_thread(row)
                changed = False
            what, which, when = next_due(row, until_ns, thread, thread_ns)
        if what == DUE_NOTHING:
            break
        row["now_ns"] = when
        if what == DUE_CLOCK:
            run_clock(row)
        elif what == DUE_KSWAPD:
            run_kswapd(row, which)
        elif what == DUE_WRITEBACK:
            run_flusher(row)
        elif what == DUE_JOURNAL:
            kjournald2(row)
        elif what == DUE_HUGE:
            if row["kcompactd_next_ns"] <= when:
                run_kcompactd(row)
            else:
                run_khugepaged(row)
        elif what == DUE_TASK:
            run_task(row, which)
            row["reschedule"] = 1
        else:
            if not run_thread(row, which, under_way):
                return False
            under_way = False
            row["due_ns"][which] = row["threads"][which]["ready_ns"] if row["threads"][which]["used"] > 0 else NEVER
            changed = True
        if row["boosted"] > 0:
            wakeup_boosted(row)
        if slabs_are_stale(row):
            sync_page_cache_slabs(row)
        if row["attention"] > 0:
            return False
    row["now_ns"] = until_ns
    update(row)
    account_cpus(row)
    return True


@law
def run_host(records, i, until_ns):
    """`run_until` for host `i` of a shard: an array is recognised at once when called from Python, a record is not (0.5 against 28 µs).

    returns  int64  CALL_AGAIN or ASKS (a plug-in's program): stopped early, see `run_until`; else at `until_ns`: SOUND, EVENTS if
                    there are any to be told, or −k if rule k of linux/check.py is broken

    Source: measured with Numba 0.68; linux/check.py.
    """
    row = records[i]
    if not run_until(row, until_ns):
        return ASKS if row["asking"] > 0 else CALL_AGAIN
    broken = validate_fast(row)
    if broken > 0:
        return -broken
    return EVENTS if row["nr_events"] > 0 or row["event_seq"] > 0 else SOUND
