# SPDX-License-Identifier: Apache-2.0
"""Overcommit: may a task have this much address space? Scalar laws; the areas themselves are elsewhere.

Rules: pages, except the reserves' defaults (kB). A refusal is ENOMEM from mmap, brk or fork; it never kills anybody.
Leaves out: RLIMIT_AS, RLIMIT_DATA, vm.max_map_count.
Source: mm/util.c, mm/mmap.c (Linux 6.1); kernel-laws §6.
"""

from __future__ import annotations

from fleetsim.law import law

OVERCOMMIT_GUESS, OVERCOMMIT_ALWAYS, OVERCOMMIT_NEVER = 0, 1, 2
ADMIN_RESERVE_KB_MAX = 8192
USER_RESERVE_KB_MAX = 131_072


@law
def reserve_kbytes(free_kb_at_boot: int, max_kb: int) -> int:
    """Default of vm.admin_reserve_kbytes (max_kb 8192) and vm.user_reserve_kbytes (max_kb 131072).

        min(free_kb_at_boot / 32, max_kb)

    free_kb_at_boot  int64  kB free when the kernel has started, before user space
    max_kb           int64  kB
    returns          int64  kB

    Source: mm/mmap.c init_admin_reserve, init_user_reserve; kernel-laws 6. Leaves out: nothing.
    """
    return min(free_kb_at_boot // 32, max_kb)


@law
def commit_limit(total: int, hugetlb: int, ratio: int, kbytes: int, swap: int) -> int:
    """CommitLimit: what overcommit mode 2 grants in all.

        (kbytes / 4 if set, else (total − hugetlb) · ratio / 100) + swap

    total    int64  pages, MemTotal
    hugetlb  int64  pages in the hugetlb pools
    ratio    int64  per cent, vm.overcommit_ratio
    kbytes   int64  kB, vm.overcommit_kbytes, 0: not set
    swap     int64  pages, SwapTotal
    returns  int64  pages

    Source: mm/util.c vm_commit_limit; kernel-laws 6, T-6.1. Leaves out: nothing.
    """
    if kbytes > 0:
        return kbytes // 4 + swap
    return (total - hugetlb) * ratio // 100 + swap


@law
def vm_enough_memory(
    mode: int,
    request: int,
    committed: int,
    limit: int,
    total_ram_swap: int,
    admin_reserve: int,
    user_reserve: int,
    task_total_vm: int,
    cap_sys_admin: bool,
) -> bool:
    """Is a request for private writable (or shared anonymous) address space granted?

        mode 1: yes;  mode 0: request ≤ total_ram_swap
        mode 2: committed + request < limit − (admin_reserve unless privileged) − min(task_total_vm/32, user_reserve)

    mode            int64  vm.overcommit_memory, 0 guess, 1 always, 2 never
    request         int64  pages, ≥ 0
    committed       int64  pages, Committed_AS before the request
    limit           int64  pages, from commit_limit
    total_ram_swap  int64  pages, MemTotal + SwapTotal
    admin_reserve   int64  pages, vm.admin_reserve_kbytes / 4
    user_reserve    int64  pages, vm.user_reserve_kbytes / 4
    task_total_vm   int64  pages of address space the task has already
    cap_sys_admin   bool   the task is privileged
    returns         bool   False: ENOMEM

    Source: mm/util.c __vm_enough_memory; kernel-laws 6, T-6.2, T-6.3. Leaves out: nothing.
    """
    if mode == OVERCOMMIT_ALWAYS:
        return True
    if mode == OVERCOMMIT_GUESS:
        return request <= total_ram_swap
    allowed = limit - min(task_total_vm // 32, user_reserve)
    if not cap_sys_admin:
        allowed -= admin_reserve
    return committed + request < allowed
