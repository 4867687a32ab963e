# SPDX-License-Identifier: Apache-2.0
"""Pressure stall information: the averages of /proc/pressure/* and who counts as stalled. Scalar laws.

Rules: averages are 11-bit fixed point (2048 = 1), shared with the load average; totals are integers and only grow.
Leaves out: per-CPU bookkeeping (one sum per host and cgroup instead), triggers, irq pressure.
Source: kernel/sched/psi.c, kernel/sched/loadavg.c (Linux 6.1); kernel-laws §9.
"""

from __future__ import annotations

from fleetsim.law import law

FSHIFT = 11
FIXED_1 = 1 << FSHIFT
AVG_EXP_10, AVG_EXP_60, AVG_EXP_300 = 1677, 1981, 2034  # 2048 · e^(−2/T): avg10, avg60, avg300 at one step in 2 s
LOAD_EXP_1, LOAD_EXP_5, LOAD_EXP_15 = 1884, 2014, 2037  # 2048 · e^(−5/T): the load average, one step in 5 s


@law
def calc_load(load: int, exp: int, active: int) -> int:
    """One step of an exponentially damped average, rounded up while rising so that it can reach its limit.

        (load · exp + active · (2048 − exp) [+ 2047 if active ≥ load]) / 2048

    load     int64  1/2048, ≥ 0
    exp      int64  1/2048, 0..2048
    active   int64  1/2048, the new sample
    returns  int64  1/2048

    Source: kernel/sched/loadavg.c calc_load; kernel-laws 9, T-9.2. Leaves out: nothing.
    """
    new = load * exp + active * (FIXED_1 - exp)
    if active >= load:
        new += FIXED_1 - 1
    return new >> FSHIFT


@law
def fixed_power(x: int, n: int) -> int:
    """x^n by squaring, rounded to nearest at every step.

    x        int64  1/2048, 0..2048
    n        int64  ≥ 0
    returns  int64  1/2048

    Source: kernel/sched/loadavg.c fixed_power_int; kernel-laws 9. Leaves out: nothing.
    """
    half = FIXED_1 >> 1
    result = FIXED_1
    while n > 0:
        if n & 1:
            result = (result * x + half) >> FSHIFT
        n >>= 1
        x = (x * x + half) >> FSHIFT
    return result


@law
def calc_avg(avg: int, exp: int, pct: int) -> int:
    """One period of a pressure average.

        calc_load(avg, exp, pct · 2048)

    avg      int64  1/2048 of a per cent
    exp      int64  AVG_EXP_10, AVG_EXP_60 or AVG_EXP_300
    pct      int64  per cent of the period that was stalled, 0..100
    returns  int64  1/2048 of a per cent

    Source: kernel/sched/psi.c calc_avgs; kernel-laws 9, T-9.2. Leaves out: nothing.
    """
    return calc_load(avg, exp, pct << FSHIFT)


@law
def psi_missed_periods(now_ns: int, next_update_ns: int, period_ns: int) -> int:
    """Whole periods that went by unseen before this update (nobody was running, so nobody stalled).

        (now − next_update) / period,   0 if on time

    now_ns          int64  ns
    next_update_ns  int64  ns, when this update was due
    period_ns       int64  ns, 2 s and one tick
    returns         int64  periods

    Source: kernel/sched/psi.c update_averages; kernel-laws 9. Leaves out: nothing.
    """
    if now_ns - next_update_ns < period_ns:
        return 0
    return (now_ns - next_update_ns) // period_ns


@law
def psi_update(avg: int, exp: int, missed: int, sample_ns: int, period_ns: int) -> int:
    """A pressure average after one update: missed periods decay it, then the sampled period is added.

        avg ← calc_load(avg, exp^missed, 0);   avg ← calc_avg(avg, exp, 100 · min(sample, period) / period)

    avg        int64  1/2048 of a per cent
    exp        int64  AVG_EXP_10, AVG_EXP_60 or AVG_EXP_300
    missed     int64  from psi_missed_periods
    sample_ns  int64  ns stalled since the last update (the rest above period_ns stays for the next one)
    period_ns  int64  ns, now − (last update + missed periods), > 0
    returns    int64  1/2048 of a per cent

    Source: kernel/sched/psi.c update_averages, calc_avgs; kernel-laws 9, T-9.2. Leaves out: nothing.
    """
    if missed > 0:
        avg = calc_load(avg, fixed_power(exp, missed), 0)
    return calc_avg(avg, exp, min(sample_ns, period_ns) * 100 // period_ns)


@law
def psi_stalled(dt_ns: int, delayed: int, productive: int, nonidle: int, cpus: int) -> tuple[int, int]:
    """Time to add to the totals of `some` and `full` for a span in which the tasks' states did not change.

        threads = min(nonidle, cpus)
        some = dt · min(delayed, threads) / threads;   full = dt · (threads − min(productive, threads)) / threads, at most some

    dt_ns       int64  ns, ≥ 0
    delayed     int64  tasks stalled on the resource
    productive  int64  tasks running and not stalled
    nonidle     int64  tasks running, stalled or waiting for I/O
    cpus        int64  ≥ 1
    returns     (int64, int64)  ns of some, ns of full

    Source: kernel/sched/psi.c header comment, collect_percpu_times, test_state (full only where somebody is delayed); kernel-laws 9, T-9.1.
    Leaves out: which CPU a task is on (spread evenly, one task a CPU).
    """
    threads = min(nonidle, cpus)
    if threads <= 0 or delayed <= 0:
        return 0, 0
    some = dt_ns * min(delayed, threads) // threads
    full = dt_ns * (threads - min(productive, threads)) // threads
    return some, min(some, full)


@law
def avg_hundredths(avg: int) -> int:
    """An average as /proc/pressure prints it, without the point: 9.05 is 905.

        (avg >> 11) · 100 + ((avg & 2047) · 100 >> 11)

    avg      int64  1/2048
    returns  int64  hundredths

    Source: kernel/sched/psi.c psi_show with LOAD_INT, LOAD_FRAC; kernel-laws 9, T-9.2. Leaves out: nothing.
    """
    return (avg >> FSHIFT) * 100 + ((avg & (FIXED_1 - 1)) * 100 >> FSHIFT)
