# SPDX-License-Identifier: Apache-2.0
"""cgroup v2 memory: effective protection, the memory.high brake, and what a charge over memory.max does next. Scalar laws.

Rules: pages; one level at a time, the walk through the tree is the caller's.
Leaves out: per-CPU charge stocks, v1. memory.swap.high is the same brake with the swap counter (`high_delay_ns`).
Source: mm/memcontrol.c (Linux 6.1); kernel-laws §3.11, §8.3, §8.4.
"""

from __future__ import annotations

from enum import IntEnum

from fleetsim.law import law
from fleetsim.linux.mm_types import MEMCG_CHARGE_BATCH

COSTLY_ORDER_PAGES = 8  # up to this many pages a charge is retried for as long as anything is reclaimed
HIGH_DELAY_MAX_S = 2
OVERAGE_SHIFT = 20  # overage is a 20-bit fixed-point share of memory.high
HIGH_SCALING_SHIFT = 14
OVERAGE_CAP = 1 << (OVERAGE_SHIFT + 1)  # at twice over, even one page sleeps for the full 2 s: larger values change nothing


class ChargeNext(IntEnum):
    """What a charge does after one round of reclaim at its limit."""

    RETRY = 0  # try the charge again
    DRAIN = 1  # drain the per-CPU stocks (once), then try again
    RETRY_COUNTED = 2  # try again, one retry fewer
    OOM = 3  # the cgroup is out of memory


@law
def effective_protection(
    usage: int, parent_usage: int, setting: int, parent_effective: int, siblings_protected: int, recursive: bool
) -> int:
    """A cgroup's share of the protection its parent has (memory.min and memory.low each by itself).

        p = min(usage, setting)
        siblings_protected > parent_effective:  p · parent_effective / siblings_protected
        else p, and with recursive protection the unclaimed rest is shared by unprotected usage:
              + (parent_effective − siblings_protected) · (usage − p) / (parent_usage − siblings_protected)

    usage               int64  pages charged to the cgroup, 0..2^31
    parent_usage        int64  pages charged to its parent
    setting             int64  pages, its memory.min or memory.low
    parent_effective    int64  pages, the parent's effective protection
    siblings_protected  int64  Σ min(usage, setting) over the parent's children, this one included
    recursive           bool   mounted with memory_recursiveprot
    returns             int64  pages

    Source: mm/memcontrol.c effective_protection; kernel-laws 3.11, T-3.9, T-3.10.
    Leaves out: a cgroup directly below the reclaim root, whose effective protection is its setting (the caller's case).
    A parent protected beyond its usage counts as protected up to it: the kernel's product may wrap there, the outcome is the same.
    """
    protected = min(usage, setting)
    if siblings_protected > parent_effective:
        return protected * parent_effective // siblings_protected
    claimable = min(parent_effective, parent_usage)
    if not recursive or claimable <= siblings_protected or usage <= protected:
        return protected
    return protected + (claimable - siblings_protected) * (usage - protected) // (parent_usage - siblings_protected)


@law
def high_delay_ticks(usage: int, high: int, nr_pages: int, hz: int = 250) -> int:
    """Ticks a task that charged nr_pages to a cgroup above memory.high owes.

        ov = ((usage − high) << 20) / high;   min(((ov² · hz) >> 34) · nr_pages / 64, 2 · hz)

    usage     int64  pages charged, 0..2^40
    high      int64  pages, memory.high
    nr_pages  int64  pages the task charged while over, 1..
    hz        int64  ticks a second
    returns   int64  ticks, 0..2·hz

    Source: mm/memcontrol.c calculate_overage, calculate_high_delay; kernel-laws 8.4, T-8.3.
    Leaves out: nothing (the maximum over ancestors is the maximum of this).
    """
    if usage <= high:
        return 0
    floor = max(high, 1)
    overage = min(((usage - floor) << OVERAGE_SHIFT) // floor, OVERAGE_CAP)
    ticks = (overage * overage * hz >> OVERAGE_SHIFT >> HIGH_SCALING_SHIFT) * nr_pages // MEMCG_CHARGE_BATCH
    return min(ticks, HIGH_DELAY_MAX_S * hz)


@law
def high_delay_ns(usage: int, high: int, nr_pages: int, hz: int = 250) -> int:
    """How long such a task sleeps once reclaim gave nothing: up to hz/100 ticks are forgiven.

        0 if high_delay_ticks ≤ hz/100, else that many ticks

    usage, high, nr_pages, hz  as in high_delay_ticks
    returns                    int64  ns, 0..2·10^9

    Source: mm/memcontrol.c mem_cgroup_handle_over_high; kernel-laws 8.4, T-8.3. Leaves out: nothing.
    """
    ticks = high_delay_ticks(usage, high, nr_pages, hz)
    if ticks <= hz // 100:
        return 0
    return ticks * 1_000_000_000 // hz


@law
def charge_next(nr_pages: int, margin: int, reclaimed: int, drained: bool, retries: int) -> ChargeNext:
    """What a charge does after one round of reclaim for a cgroup at memory.max.

        room now → RETRY;  stocks not yet drained → DRAIN;  something reclaimed and at most 8 pages wanted → RETRY;
        retries left → RETRY_COUNTED;  else OOM

    nr_pages   int64  pages wanted
    margin     int64  pages below the limit now
    reclaimed  int64  pages this round freed
    drained    bool   the stocks were drained during this charge
    retries    int64  left, from mm_types.MAX_RECLAIM_RETRIES down; a kill sets them back
    returns    ChargeNext

    Source: mm/memcontrol.c try_charge_memcg; kernel-laws 8.3, T-8.1, T-8.2.
    Leaves out: __GFP_NORETRY and __GFP_RETRY_MAYFAIL (the caller fails before or instead), dying tasks.
    """
    if margin >= nr_pages:
        return ChargeNext.RETRY
    if not drained:
        return ChargeNext.DRAIN
    if reclaimed > 0 and nr_pages <= COSTLY_ORDER_PAGES:
        return ChargeNext.RETRY
    if retries > 0:
        return ChargeNext.RETRY_COUNTED
    return ChargeNext.OOM
