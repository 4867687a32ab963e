# SPDX-License-Identifier: Apache-2.0
"""How much page cache may be dirty, and how hard a writer is braked near the limit. Scalar laws.

    dirtyable ─► thresh, bg ─► freerun, set point ─► pos_ratio · dirty_ratelimit = a writer's pages/s ─► its pause

Rules: pages, pages per second, nanoseconds; ratios through the kernel's 12-bit fixed point, the brake through its 10-bit one.
Leaves out: strictlimit, real-time tasks' bonus.
Source: mm/page-writeback.c (Linux 6.1); kernel-laws §4.2.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.math64 import div64_s64

PAGE_BYTES = 4096
MS = 1_000_000
S = 1_000 * MS
MAX_PAUSE_NS = 200 * MS  # the longest single pause of a writer
BANDWIDTH_INTERVAL_NS = 200 * MS  # how often bandwidth and rate are estimated anew
BANDWIDTH_PERIOD_NS = 4_096 * MS  # 3 s rounded up to a power of two of ticks at HZ=250: the memory of the estimate
INIT_BW = 25_600  # pages/s, 100 MiB/s: what a device is thought to do before anything is known of it
DIRTY_POLL_THRESH = 32  # pages: pauses worth fewer are not worth it
MIN_WRITEBACK_PAGES = 1_024  # 4 MiB
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


@law
def bdi_pos_ratio(ratio: int, setpoint: int, thresh: int, limit: int, dirty: int, write_bw: int) -> int:
    """The device's own control line on top of the brake: gentler, and it lets nobody fill a slow device's queue for ever.

        span = 8 s of bandwidth ;  up to ¾ of the way to setpoint + span: ratio · (setpoint + span − dirty) / span, beyond it ratio / 4
        and up to 8-fold while the device has less than half its share to do

    ratio     int64  0..2048, from pos_ratio()
    setpoint  int64  pages
    thresh    int64  pages, all of it may be this device's
    limit     int64  pages
    dirty     int64  pages of this device, dirty and under writeback
    write_bw  int64  pages/s
    returns   int64  1024 = 1.0

    Source: mm/page-writeback.c wb_position_ratio (one device: its threshold is the host's). Leaves out: the share of several devices.
    """
    share = max(thresh, (limit - dirty) // 8)
    x = (share << 16) // (thresh | 1)
    wb_setpoint = setpoint * x >> 16
    span = (thresh - min(share, thresh) + 8 * write_bw) * x >> 16
    intercept = wb_setpoint + span
    if dirty < intercept - span // 4:
        ratio = ratio * (intercept - dirty) // ((intercept - wb_setpoint) | 1)
    else:
        ratio //= 4
    reserve = share // 2
    if dirty < reserve:
        ratio = ratio * reserve // dirty if dirty > reserve // 8 else ratio * 8
    return ratio


@law
def write_bandwidth(old: int, avg: int, written: int, elapsed_ns: int) -> tuple[int, int]:
    """The estimate of a device's write bandwidth after `written` more pages in `elapsed_ns`.

        bw = (written + old · (4.096 s − elapsed)) / 4.096 s ;  avg follows old by 1/8 when both it and bw lie on the same side

    old      int64  pages/s, the last estimate
    avg      int64  pages/s, the smoothed one
    returns  (int64, int64)  pages/s, new estimate and new average (≥ 1)

    Source: mm/page-writeback.c wb_update_write_bandwidth.
    """
    if elapsed_ns > BANDWIDTH_PERIOD_NS:
        bw = written * S // elapsed_ns
        return bw, max(1, bw)
    elapsed_us = elapsed_ns // 1000
    bw = (written * 1_000_000 + old * (BANDWIDTH_PERIOD_NS // 1000 - elapsed_us)) // (BANDWIDTH_PERIOD_NS // 1000)
    if avg > old and old >= bw:
        avg -= (avg - old) >> 3
    elif avg < old and old <= bw:
        avg += (old - avg) >> 3
    return bw, max(1, avg)


@law
def dirty_ratelimit(
    ratelimit: int, balanced: int, ratio: int, write_bw: int, dirty_rate: int, dirty: int, setpoint: int
) -> tuple[int, int]:
    """The base rate of every writer, moved a step towards the one at which writers together dirty as fast as the device writes.

        task = ratelimit · ratio ;  new balanced = task · write_bw / dirty_rate, at most write_bw
        step only if the old and new balanced rate and `task` agree on the direction, and no more than 1/8 of the way

    ratelimit   int64  pages/s, so far
    balanced    int64  pages/s, the last balanced rate
    ratio       int64  1024 = 1.0
    write_bw    int64  pages/s
    dirty_rate  int64  pages/s at which pages were dirtied since the last estimate
    dirty       int64  pages
    setpoint    int64  pages
    returns     (int64, int64)  pages/s: new ratelimit (≥ 1), new balanced rate

    Source: mm/page-writeback.c wb_update_dirty_ratelimit.
    """
    task = (ratelimit * ratio >> RATELIMIT_CALC_SHIFT) + 1
    fresh = min(task * write_bw // (dirty_rate | 1), write_bw)
    step = 0
    if dirty < setpoint:
        x = min(balanced, min(fresh, task))
        if ratelimit < x:
            step = x - ratelimit
    else:
        x = max(balanced, max(fresh, task))
        if ratelimit > x:
            step = ratelimit - x
    shift = ratelimit // (2 * step + 1)
    step = ((step >> shift) + 7) // 8 if shift < 63 else 0
    ratelimit = ratelimit + step if ratelimit < fresh else ratelimit - step
    return max(1, ratelimit), fresh


@law
def max_pause_ns(dirty: int, write_bw: int) -> int:
    """The longest pause that does not let a device run dry: about as long as it needs for an eighth of what it has to do.

        dirty / bandwidth · 128 ms + one tick, at most 200 ms          (128 ms: HZ/8 rounded up to a power of two of ticks at HZ=250)

    Source: mm/page-writeback.c wb_max_pause.
    """
    return min(MAX_PAUSE_NS, dirty * 4 * MS // (1 + write_bw // 32) + 4 * MS)


@law
def min_pause(max_pause: int, ratelimit: int, task_rate: int, write_bw: int) -> tuple[int, int]:
    """The shortest pause worth making, and after how many pages the writer should look again.

        t = 10 ms + 10 ms per power of two by which the device is faster than one writer, at most half the longest pause

    returns  (int64 ns, int64 pages)

    Source: mm/page-writeback.c wb_min_pause.
    """
    faster = 0
    while (ratelimit << (faster + 1)) <= write_bw:
        faster += 1
    t = min(10 * MS + faster * 10 * MS, 4 * MS + max_pause // 2)
    pages = ratelimit * t // S
    if pages < DIRTY_POLL_THRESH:
        t = max_pause
        pages = ratelimit * t // S
        if pages > DIRTY_POLL_THRESH:
            pages = DIRTY_POLL_THRESH
            t = S * DIRTY_POLL_THRESH // ratelimit
    if S * pages // (task_rate + 1) > max_pause:
        t = max_pause
        pages = task_rate * t // S
    return (4 * MS + t // 2 if pages >= DIRTY_POLL_THRESH else t), pages


@law
def dirty_poll_interval(dirty: int, thresh: int) -> int:
    """Pages a writer may dirty before it looks again, while it is not braked: the more room, the more.

        √(thresh − dirty), as a power of two

    Source: mm/page-writeback.c dirty_poll_interval.
    """
    pages = 1
    if thresh > dirty:
        while pages * pages * 4 <= thresh - dirty:
            pages *= 2
    return pages


@law
def writeback_chunk_size(write_bw: int, limit: int) -> int:
    """Pages that are written of one file before the next has its turn: half a second of bandwidth, at most an eighth of the limit.

    Source: fs/fs-writeback.c writeback_chunk_size; rounded to 4 MiB.
    """
    pages = min(write_bw // 2, limit // 8)
    return (pages + MIN_WRITEBACK_PAGES) // MIN_WRITEBACK_PAGES * MIN_WRITEBACK_PAGES


@law
def falling_limit(limit: int, thresh: int, dirty: int) -> int:
    """The hard limit follows a rising threshold at once and a falling one slowly, never below what is dirty.

    Source: mm/page-writeback.c update_dirty_limit (once per 200 ms).
    """
    if limit < thresh:
        return thresh
    thresh = max(thresh, dirty)
    return limit - ((limit - thresh) >> 5) if limit > thresh else limit


@law
def memcg_dirtyable(file_pages: int, dirty: int, headroom: int, global_avail: int, global_dirty: int) -> int:
    """Memory the dirty limits of one cgroup are a share of: its cache, and what it could still get.

        clean = file − dirty ;  other_clean = (global_avail − global_dirty) − clean ;  file + min(headroom, other_clean)

    file_pages    int64  pages on its file lists
    dirty         int64  of them dirty or under writeback
    headroom      int64  until the tightest of its and its parents' limits
    global_avail  int64  pages, dirtyable()
    global_dirty  int64  pages
    returns       int64  pages

    Source: mm/page-writeback.c mdtc_calc_avail; kernel-laws 4.2.
    """
    clean = file_pages - min(file_pages, dirty)
    global_clean = global_avail - min(global_avail, global_dirty)
    other_clean = global_clean - min(global_clean, clean)
    return file_pages + min(headroom, other_clean)
