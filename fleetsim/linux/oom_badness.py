# SPDX-License-Identifier: Apache-2.0
"""Whom the OOM killer prefers: badness, and the /proc/PID/oom_score people see. Scalar laws.

Rules: pages, signed; the largest badness dies, of equals the later in the task list. Nothing else counts: no age, nice, CPU time,
user or children. They did before 2.6.36, and `badness_2_6_11` is that formula, for hosts that ask for it (`oom_heuristic`).
Leaves out: who is exempt for reasons other than oom_score_adj (init, kernel threads, already reaped, in vfork): the caller knows.
Source: mm/oom_kill.c, fs/proc/base.c (Linux 5.9 to 6.12); kernel-laws §7.1, §7.2.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.math64 import div64_s64, int_sqrt

OOM_SCORE_ADJ_MIN, OOM_SCORE_ADJ_MAX = -1000, 1000
OOM_INELIGIBLE = -(2**63)  # LONG_MIN: never chosen
PAGE_BYTES = 4096
OOM_PROPORTIONAL, OOM_2_6_11 = 0, 1
OOM_HEURISTICS = ("5.9", "2.6.11")  # by the kernel version each came with
OOM_DISABLE = -17  # oom_adj of a task that is never chosen


@law
def oom_badness(rss: int, swapents: int, pgtables_bytes: int, adj: int, totalpages: int) -> int:
    """How much killing this task (thread group) would give back, moved by oom_score_adj.

        rss + swapents + pgtables_bytes/4096 + adj · (totalpages / 1000);   OOM_INELIGIBLE if adj = −1000

    rss             int64  pages, anon + file + shmem (hugetlb pages are not in it)
    swapents        int64  pages in swap
    pgtables_bytes  int64  bytes
    adj             int64  oom_score_adj, −1000..1000
    totalpages      int64  pages: MemTotal + SwapTotal, or what the cgroup's limits allow
    returns         int64  pages, may be negative

    Source: mm/oom_kill.c oom_badness; kernel-laws 7.1, T-7.1. Leaves out: nothing.
    """
    if adj == OOM_SCORE_ADJ_MIN:
        return OOM_INELIGIBLE
    return rss + swapents + pgtables_bytes // PAGE_BYTES + adj * (totalpages // 1000)


@law
def oom_adj_of(oom_score_adj: int) -> int:
    """/proc/PID/oom_adj, the older scale, for a value of the newer one.

        oom_score_adj · 17 / 1000, rounded towards zero;  15 for 1000

    oom_score_adj  int64  −1000..1000
    returns        int64  −17..15

    Source: fs/proc/base.c oom_adj_read. Leaves out: nothing.
    """
    if oom_score_adj == OOM_SCORE_ADJ_MAX:
        return 15
    return div64_s64(oom_score_adj * -OOM_DISABLE, OOM_SCORE_ADJ_MAX)


@law
def badness_2_6_11(total_vm: int, children_vm: int, cpu_s: int, run_s: int, nice: int, superuser: bool, rawio: bool, oom_adj: int) -> int:
    """How bad kernels before 2.6.36 thought a task: by address space, spared by processor time and age.

        (total_vm + children_vm) / √(cpu_s / 8) / ⁴√(run_s / 1024);   · 2 if niced;   / 4 if the superuser's;   / 4 with raw I/O
        shifted left by oom_adj, or right by −oom_adj            (a root of 0 divides by nothing; OOM_INELIGIBLE at −17)

    total_vm     int64  pages of address space (not what is resident), 0..2^40
    children_vm  int64  pages of its children's address spaces
    cpu_s        int64  s of user and system time
    run_s        int64  s since it was started
    nice         int64  −20..19
    superuser    bool   uid 0 or CAP_SYS_ADMIN
    rawio        bool   CAP_SYS_RAWIO
    oom_adj      int64  −17..15
    returns      int64  points

    Source: mm/oom_kill.c badness (Linux 2.6.11); kernel-laws 7.5.
    Leaves out: HZ (seconds are whole here); the eighth for a task that shares no memory node.
    """
    if oom_adj == OOM_DISABLE:
        return OOM_INELIGIBLE
    points = total_vm + children_vm
    points //= max(1, int_sqrt(cpu_s >> 3))
    points //= max(1, int_sqrt(int_sqrt(run_s >> 10)))
    if nice > 0:
        points *= 2
    if superuser:
        points //= 4
    if rawio:
        points //= 4
    return points << oom_adj if oom_adj > 0 else points >> -oom_adj


@law
def proc_oom_score(badness: int, totalpages: int) -> int:
    """/proc/PID/oom_score.

        (1000 + badness · 1000 / totalpages) · 2 / 3  (rounded towards zero);   0 if ineligible

    badness     int64  pages, from oom_badness over the whole host
    totalpages  int64  pages, MemTotal + SwapTotal, > 0
    returns     int64  0..2000: an empty task with adj 0 shows 666, one that fills the host 1333

    Source: fs/proc/base.c proc_oom_score; kernel-laws 7.2, T-7.1. Leaves out: nothing.
    """
    if badness == OOM_INELIGIBLE:
        return 0
    return div64_s64((1000 + div64_s64(badness * 1000, totalpages)) * 2, 3)
