# SPDX-License-Identifier: Apache-2.0
"""Whom the OOM killer prefers: badness, and the /proc/PID/oom_score people see. Scalar laws.

Rules: pages, signed; the largest badness dies, of equals the later in the task list. Nothing else counts: no age, nice, CPU time,
user or children.
Leaves out: who is exempt for reasons other than oom_score_adj (init, kernel threads, already reaped, in vfork): the caller knows.
Source: mm/oom_kill.c, fs/proc/base.c (Linux 5.9 to 6.12); kernel-laws §7.1, §7.2.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.math64 import div64_s64

OOM_SCORE_ADJ_MIN, OOM_SCORE_ADJ_MAX = -1000, 1000
OOM_INELIGIBLE = -(2**63)  # LONG_MIN: never chosen
PAGE_BYTES = 4096


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
