# SPDX-License-Identifier: Apache-2.0
"""Pressure stall information: who waited, for what, for how long; host-wide and per cgroup.

A stall is an interval. `some` is the union of the stalls' intervals, `full` the part of it in which nobody did
productive work. Intervals reach us roughly in the order of their begin, so the union needs one number per total: how far
it is covered already. The totals feed the kernel's own 2-second averages (`psi_laws.py`), bit for bit.

On a host with several CPUs each CPU has a state of its own, and the totals are their mean weighted by non-idle time: a stall
counts for the share that its thread is of those not idle (`psi_stalled`), by the states at its begin.
Leaves out: which CPU a thread is on (one each, as far as there are enough); changes of the others' states during one stall;
the irq line.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.memcontrol import in_subtree
from fleetsim.linux.mm_types import NS_PER_S, PSI_CPU, PSI_FULL, PSI_IO, PSI_MEM, PSI_SOME
from fleetsim.linux.psi_laws import AVG_EXP_10, AVG_EXP_60, AVG_EXP_300, calc_avg, psi_stalled

PERIOD_NS = 2 * NS_PER_S
SEEN_MASK = (1 << 31) - 1
AWAKE_BITS, AWAKE_MAX = 12, 5  # so many rows of threads, of so many bits, in one number
AWAKE_MASK = (1 << AWAKE_BITS) - 1


@law
def cover(group, kind, begin_ns, end_ns):
    """`some`: count the part of [begin, end) that the union does not cover yet.

    Source: kernel/sched/psi.c psi_group_change, as a union of intervals; kernel-laws §9.
    """
    begin = max(begin_ns, group["psi_until_ns"][kind][PSI_SOME])
    if end_ns > begin:
        group["psi_total_ns"][kind][PSI_SOME] += end_ns - begin
        group["psi_until_ns"][kind][PSI_SOME] = end_ns


@law
def settle(group, kind, until_ns):
    """`full`: what has passed of the stall under way, and saw nobody work, counts now.

    Source: kernel/sched/psi.c test_state PSI_MEM_FULL, PSI_IO_FULL; kernel-laws §9.
    """
    begin = group["psi_until_ns"][kind][PSI_FULL]
    end = min(until_ns, group["psi_full_to_ns"][kind])
    if end > begin:
        group["psi_total_ns"][kind][PSI_FULL] += end - begin
        group["psi_until_ns"][kind][PSI_FULL] = end


@law
def stall_of(group, kind, begin_ns, end_ns):
    """A stall [begin, end) in one group: `some` at once, `full` as time passes (`settle`).

    Source: kernel/sched/psi.c psi_group_change; kernel-laws §9.
    """
    cover(group, kind, begin_ns, end_ns)
    settle(group, kind, begin_ns)
    if group["psi_full_to_ns"][kind] <= begin_ns:
        group["psi_until_ns"][kind][PSI_FULL] = max(group["psi_until_ns"][kind][PSI_FULL], begin_ns)
    group["psi_full_to_ns"][kind] = max(group["psi_full_to_ns"][kind], end_ns)


@law
def weigh(row, cg, kind, dt_ns):
    """One thread's stall on a host with several CPUs: its part of what `psi_stalled` says of all that are not idle just now.

    It is row["current"]'s, or a kernel thread's (cg −1).

    Source: kernel/sched/psi.c collect_percpu_times, get_recent_times; kernel-laws §9, T-9.1.
    """
    host, awake = count_threads(row, cg, kind)
    some, full = share_of_stall(dt_ns, host, row["cpus"])
    row["psi_total_ns"][kind][PSI_SOME] += some
    row["psi_total_ns"][kind][PSI_FULL] += 0 if kind == PSI_CPU else full
    alone = host[2] == 1  # nobody else is awake: every group above sees the same
    at = max(cg, 0)
    while at > 0:
        if not alone:
            inside = count_below(row, cg, kind, at, awake)
            some, full = share_of_stall(dt_ns, inside, row["cpus"])
        row["cgroups"][at]["psi_total_ns"][kind][PSI_SOME] += some
        row["cgroups"][at]["psi_total_ns"][kind][PSI_FULL] += full
        row["psi_awake"][at >> 3] |= 1 << (at & 7)
        at = row["cgroups"][at]["parent"]


@law
def state_of(row, th, cg, kind):
    """Whether a thread that is not idle waits, by a stall of the kind, or works.

    returns  (int64, int64)  1 or 0 each

    Source: kernel/sched/psi.c psi_group_change.
    """
    thread = row["threads"][th]
    works_yet = thread["work_until_ns"] > row["now_ns"]
    waits = 1 if (cg >= 0 and th == row["current"]) or (thread["stalled"] & (1 << kind) and not works_yet) else 0
    works = 1 if waits == 0 and (thread["stalled"] == 0 or works_yet or thread["stalled"] & (1 << PSI_CPU)) else 0
    return waits, works


@law
def count_threads(row, cg, kind):
    """Who is not idle just now on the host.

    returns  (int64 delayed by a stall of the kind, int64 working, int64 not idle); int64 the rows of those not idle, one more than each,
             AWAKE_BITS to a row, −1 if there are too many

    Source: kernel/sched/psi.c psi_group_change (tasks[NR_…]).
    """
    kernel = 1 if cg < 0 else 0
    now, current = row["now_ns"], row["current"]
    delayed, working, nonidle = kernel, 0, kernel
    awake = 0
    busy_until = row["busy_until_ns"]
    for th in range(row["nr_threads"]):
        if busy_until[th] < now and th != current:
            continue
        if row["threads"][th]["used"] == 0:
            continue
        waits, works = state_of(row, th, cg, kind)
        nonidle += 1
        delayed += waits
        working += works
        awake = -1 if awake < 0 or awake >> AWAKE_BITS * (AWAKE_MAX - 1) > 0 else (awake << AWAKE_BITS) + th + 1
    return (delayed, working, nonidle), awake


@law
def count_below(row, cg, kind, at, awake):
    """The same in the subtree of `at`.

    awake    int64  as `count_threads` says
    returns  (int64 delayed, int64 working, int64 not idle)

    Source: as `count_threads`.
    """
    delayed, working, nonidle = 0, 0, 0
    th = row["nr_threads"]
    while awake > 0 or (awake < 0 and th > 0):
        th = (awake & AWAKE_MASK) - 1 if awake > 0 else th - 1
        awake = awake >> AWAKE_BITS if awake > 0 else awake
        idle = row["busy_until_ns"][th] < row["now_ns"] and th != row["current"]
        if not idle and row["threads"][th]["used"] > 0 and in_subtree(row, row["tasks"][row["threads"][th]["task"]]["cg"], at):
            waits, works = state_of(row, th, cg, kind)
            nonidle += 1
            delayed += waits
            working += works
    return delayed, working, nonidle


@law
def share_of_stall(dt_ns, threads, cpus):
    """One stalled thread's part of a group's `some` and `full`.

    threads  (int64, int64, int64)  see `count_threads`
    returns  (int64, int64)  ns

    Source: kernel/sched/psi.c collect_percpu_times; kernel-laws §9, T-9.1.
    """
    delayed = max(1, threads[0])
    some, full = psi_stalled(dt_ns, delayed, threads[1], max(1, threads[2]), cpus)
    return some // delayed, full // delayed


@law
def stall(row, cg, kind, begin_ns, end_ns):
    """A task of cgroup `cg` (−1: a kernel thread) could not go on during [begin, end).

    Source: kernel/sched/psi.c psi_memstall_enter … leave; kernel-laws §9. System-wide CPU `full` is zero by definition.
    """
    if row["cpus"] > 1:
        if end_ns > begin_ns:
            weigh(row, cg, kind, end_ns - begin_ns)
        return
    if kind == PSI_CPU:
        cover(row, kind, begin_ns, end_ns)
    else:
        stall_of(row, kind, begin_ns, end_ns)
    while cg > 0:
        stall_of(row["cgroups"][cg], kind, begin_ns, end_ns)
        cg = row["cgroups"][cg]["parent"]


@law
def work_of(group, begin_ns, end_ns):
    """Productive time [begin, end) in one group: it is not `full`, whoever else waits.

    Source: kernel/sched/psi.c test_state (some task runnable and not stalled); kernel-laws §9.
    """
    for kind in (PSI_IO, PSI_MEM):
        settle(group, kind, begin_ns)
        group["psi_until_ns"][kind][PSI_FULL] = max(group["psi_until_ns"][kind][PSI_FULL], end_ns)


@law
def productive(row, cg, begin_ns, end_ns):
    """A task of cgroup `cg` did useful work during [begin, end).

    Source: kernel/sched/psi.c; kernel-laws §9.
    """
    work_of(row, begin_ns, end_ns)
    while cg > 0:
        work_of(row["cgroups"][cg], begin_ns, end_ns)
        cg = row["cgroups"][cg]["parent"]


@law
def averages(group):
    """One period's step of avg10, avg60 and avg300 for every kind and level of one group.

        sample = growth of total in µs, at most the period ;  percent = 100 · sample / period

    returns  bool  False: nothing is left of any stall, and the next step would change nothing either

    Source: kernel/sched/psi.c update_averages; kernel-laws §9, T-9.2.
    """
    period_us = PERIOD_NS // 1000
    awake = False
    for kind in range(3):
        for level in range(2):
            total = group["psi_total_ns"][kind][level] // 1000
            seen = group["psi_seen_us"][kind][level]
            sample = min(period_us, (total - seen) & SEEN_MASK)
            group["psi_seen_us"][kind][level] = (seen + sample) & SEEN_MASK  # what exceeds the period counts in the next, as there
            percent = 100 * sample // period_us
            avg = group["psi_avg"][kind][level]
            awake = awake or sample > 0
            if percent + avg[0] + avg[1] + avg[2] == 0:
                continue
            awake = True
            avg[0] = calc_avg(avg[0], AVG_EXP_10, percent)
            avg[1] = calc_avg(avg[1], AVG_EXP_60, percent)
            avg[2] = calc_avg(avg[2], AVG_EXP_300, percent)
    return awake


@law
def settle_all(row, until_ns):
    """`settle` every group of a host that has a single CPU; the stalls of others are counted when they happen (`weigh`).

    Source: as `settle`.
    """
    if row["cpus"] > 1:
        return
    for kind in range(3):
        settle(row, kind, until_ns)
        for cg in range(1, row["nr_cgroups"]):
            settle(row["cgroups"][cg], kind, until_ns)


@law
def update(row):
    """Bring every group's averages up to the host's clock; on a host with several CPUs those of groups that know of a stall.

    Source: kernel/sched/psi.c psi_avgs_work (every 2 s, and not where nothing has happened).
    """
    while row["psi_next_ns"] <= row["now_ns"]:
        settle_all(row, row["psi_next_ns"])
        averages(row)
        for cg in range(1, row["nr_cgroups"]):
            if row["cpus"] == 1 or row["psi_awake"][cg >> 3] & (1 << (cg & 7)):
                if not averages(row["cgroups"][cg]):
                    row["psi_awake"][cg >> 3] &= 255 - (1 << (cg & 7))
        row["psi_next_ns"] += PERIOD_NS
    settle_all(row, row["now_ns"])
    for kind in range(3):
        for level in range(2):
            row["psi_total_us"][kind][level] = row["psi_total_ns"][kind][level] // 1000
