# SPDX-License-Identifier: Apache-2.0
"""How much page cache may be dirty, and how hard a writer is braked near the limit. Scalar laws.

Rules: pages; ratios through the kernel's 12-bit fixed point, the brake through its 10-bit one.
Leaves out: the per-device and per-cgroup domains (their own limits and a second brake), strictlimit, real-time tasks' bonus.
Source: mm/page-writeback.c (Linux 6.1); kernel-laws §4.2.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.math64 import div64_s64

PAGE_BYTES = 4096
RATELIMIT_CALC_SHIFT = 10  # pos_ratio 1.0 is 1 << 10


@law
def dirtyable(free: int, totalreserve: int, inactive_file: int, active_file: int) -> int:
    """Memory the dirty limits are a share of.

        free − min(free, totalreserve) + inactive_file + active_file + 1

    free           int64  pages, MemFree
    totalreserve   int64  pages, Σ page_alloc.totalreserve_of_zone
    inactive_file  int64  pages
    active_file    int64  pages
    returns        int64  pages, ≥ 1

    Source: mm/page-writeback.c global_dirtyable_memory; kernel-laws 4.2. Leaves out: highmem.
    """
    return free - min(free, totalreserve) + inactive_file + active_file + 1


@law
def dirty_limit(dirtyable_pages: int, ratio: int, limit_bytes: int) -> int:
    """One dirty limit, from vm.dirty_*bytes if set, else from vm.dirty_*ratio.

        ceil(limit_bytes / 4096)   or   (ratio · 4096 / 100) · dirtyable / 4096

    dirtyable_pages  int64  pages, from dirtyable()
    ratio            int64  per cent, 0..100
    limit_bytes      int64  bytes, 0: not set
    returns          int64  pages

    Source: mm/page-writeback.c domain_dirty_limits; kernel-laws 4.2, T-4.2. Leaves out: nothing.
    """
    if limit_bytes > 0:
        return (limit_bytes + PAGE_BYTES - 1) // PAGE_BYTES
    return ratio * PAGE_BYTES // 100 * dirtyable_pages // PAGE_BYTES


@law
def dirty_limits(thresh: int, bg: int) -> tuple[int, int, int]:
    """The three levels that matter, from the two limits.

        bg = thresh/2 if bg ≥ thresh;   freerun = (thresh + bg) / 2

    thresh   int64  pages, above it a writer stops
    bg       int64  pages, above it the flusher writes
    returns  (int64, int64, int64)  thresh, bg, freerun: up to freerun no writer is braked

    Source: mm/page-writeback.c domain_dirty_limits, dirty_freerun_ceiling; kernel-laws 4.2, T-4.2. Leaves out: nothing.
    """
    if bg >= thresh:
        bg = thresh // 2
    return thresh, bg, (thresh + bg) // 2


@law
def dirty_thresholds(dirtyable_pages: int, ratio: int, bg_ratio: int) -> tuple[int, int, int]:
    """dirty_limits of vm.dirty_ratio and vm.dirty_background_ratio (no vm.dirty_*bytes set).

    dirtyable_pages  int64  pages, from dirtyable()
    ratio            int64  per cent, vm.dirty_ratio
    bg_ratio         int64  per cent, vm.dirty_background_ratio
    returns          (int64, int64, int64)  pages: thresh, bg, freerun

    Source: mm/page-writeback.c domain_dirty_limits; kernel-laws 4.2, T-4.2. Leaves out: nothing.
    """
    return dirty_limits(dirty_limit(dirtyable_pages, ratio, 0), dirty_limit(dirtyable_pages, bg_ratio, 0))


@law
def pos_ratio(setpoint: int, dirty: int, limit: int) -> int:
    """The brake: a writer's rate as a multiple of the fair one, by how far dirty pages are from the set point.

        x = (setpoint − dirty) / (limit − setpoint);   clamp(1 + x³, 0, 2)          (10-bit fixed point)

    setpoint  int64  pages, (freerun + limit) / 2
    dirty     int64  pages, dirty and under writeback
    limit     int64  pages, > setpoint
    returns   int64  0..2048, 1024 = 1.0

    Source: mm/page-writeback.c pos_ratio_polynom; kernel-laws 4.2, T-4.3.
    Leaves out: the device's own control line; the caller stops the writer outright at dirty ≥ limit.
    """
    x = div64_s64((setpoint - dirty) << RATELIMIT_CALC_SHIFT, (limit - setpoint) | 1)
    one = 1 << RATELIMIT_CALC_SHIFT
    x = min(max(x, -2 * one), 2 * one)  # beyond ±1 the result is clamped anyway; the cube of a large x would not fit
    cube = x * x >> RATELIMIT_CALC_SHIFT
    cube = cube * x >> RATELIMIT_CALC_SHIFT
    return min(max(one + cube, 0), 2 * one)
