# SPDX-License-Identifier: Apache-2.0
"""Dirty page cache: who made it, how much of it there may be, and the brake on those who make more (mm/page-writeback.c).

    write() ─► account_dirtied ─► balance_dirty_pages: wake the flusher above the background limit; above the free run
                                  sleep, as IO wait, as long as the pages just dirtied are worth at the writer's rate

A writer's rate is the device's base rate (dirty_ratelimit) times the brake (position_ratio) of the host or of its cgroup,
whichever is tighter. The scalar formulas are in `page_writeback_laws.py`, the flusher is in `fs_writeback.py`.
Leaves out: a bdi_writeback of its own for every cgroup (their writers share the base rate), the share of several devices, laptop_mode.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.fs_types import NR_FILES
from fleetsim.linux.mm_types import NEVER, NO_LIMIT, NR_WRITEBACK, NS_PER_S, PSI_IO, VM
from fleetsim.linux.nodes import nr_free
from fleetsim.linux.page_writeback_laws import (
    BANDWIDTH_INTERVAL_NS,
    PAGE_BYTES,
    RATELIMIT_CALC_SHIFT,
    bdi_pos_ratio,
    dirty_limit,
    dirty_limits,
    dirty_poll_interval,
    dirty_ratelimit,
    dirtyable,
    falling_limit,
    max_pause_ns,
    memcg_dirtyable,
    min_pause,
    pos_ratio,
    write_bandwidth,
)

NR_DIRTIED, NR_WRITTEN = VM["nr_dirtied"], VM["nr_written"]
LONGEST_WAIT_NS = 200_000_000
WB_NONE, WB_BACKGROUND, WB_PERIODIC, WB_ALL = 0, 1, 2, 3  # why the flusher works


@law
def io_wait(row, th, wait_ns):
    """The thread sleeps for a device: IO pressure, never memory pressure. At most 200 ms at a time: the caller comes back and looks again.

    Source: kernel/sched/core.c io_schedule; kernel-laws §4.2, §9.
    """
    wait = max(1, min(wait_ns, LONGEST_WAIT_NS))
    row["wait_ns"] += wait
    row["stall_ns"][PSI_IO] += wait
    row["tasks"][row["threads"][th]["task"]]["blkio_ns"] += wait


@law
def account_dirtied(row, f, cg, pages):
    """`pages` clean pages of file `f`, charged to `cg`, became dirty (negative: they are dirty no more).

    Source: mm/page-writeback.c folio_account_dirtied, folio_account_cleaned.
    """
    row["nr_dirty"] += pages
    row["files"][f]["dirty"] += pages
    while cg >= 0:
        row["cgroups"][cg]["file_dirty"] += pages
        cg = row["cgroups"][cg]["parent"]


@law
def account_writeback(row, f, cg, pages):
    """`pages` pages of file `f` went under writeback (negative: came back from it).

    Source: mm/page-writeback.c __folio_start_writeback, __folio_end_writeback.
    """
    row["nr_writeback"] += pages
    row["files"][f]["writeback"] += pages
    while cg >= 0:
        row["cgroups"][cg]["file_writeback"] += pages
        cg = row["cgroups"][cg]["parent"]


@law
def swap_writeback(row):
    """Pages of the swap cache that are being written just now: they count in NR_WRITEBACK like file pages.

    Source: mm/page_io.c __swap_writepage.
    """
    pages = 0
    for k in range(row["wb_count"]):
        entry = row["writeback"][(row["wb_head"] + k) % NR_WRITEBACK]
        if entry["done_ns"] > row["now_ns"]:
            pages += entry["pages"]
    return pages


@law
def host_avail(row):
    """Memory that the host's dirty limits are a share of, pages.

    Source: mm/page-writeback.c global_dirtyable_memory.
    """
    tree = row["cgroups"][0]["tree"]
    return dirtyable(nr_free(row), row["totalreserve"], tree[2], tree[3])


@law
def domain_dirty_limits(row, avail):
    """thresh, background and free run of the host, pages.

    Source: mm/page-writeback.c domain_dirty_limits; kernel-laws §4.2.
    """
    sysctl = row["sysctl"]
    thresh = dirty_limit(avail, sysctl["dirty_ratio"], sysctl["dirty_bytes"])
    return dirty_limits(thresh, dirty_limit(avail, sysctl["dirty_background_ratio"], sysctl["dirty_background_bytes"]))


@law
def memcg_dirty_limits(row, cg, avail, dirty):
    """The same for one cgroup: a share of its own cache and of what it can still get. Limits in bytes become shares of the host.

    avail    int64  pages, host_avail()
    dirty    int64  pages of the host, dirty and under writeback
    returns  (int64, int64, int64)  thresh, background, free run

    Source: mm/page-writeback.c mdtc_calc_avail, domain_dirty_limits; mm/memcontrol.c mem_cgroup_wb_stats.
    """
    group = row["cgroups"][cg]
    headroom, at = NO_LIMIT, cg
    while at > 0:
        level = row["cgroups"][at]
        headroom = min(headroom, max(0, min(level["max"], level["high"]) - level["usage"]))
        at = level["parent"]
    own = group["file_dirty"] + group["file_writeback"]
    mine = memcg_dirtyable(group["tree"][2] + group["tree"][3], own, headroom, avail, dirty)
    sysctl = row["sysctl"]
    thresh, bg = dirty_limit(mine, sysctl["dirty_ratio"], 0), dirty_limit(mine, sysctl["dirty_background_ratio"], 0)
    if sysctl["dirty_bytes"] > 0:
        thresh = min((sysctl["dirty_bytes"] + avail - 1) // avail, PAGE_BYTES) * mine // PAGE_BYTES
    if sysctl["dirty_background_bytes"] > 0:
        bg = min((sysctl["dirty_background_bytes"] + avail - 1) // avail, PAGE_BYTES) * mine // PAGE_BYTES
    return dirty_limits(thresh, bg)


@law
def wb_over_bg_thresh(row):
    """Is more dirty than the background limit allows, on the host or in a cgroup? Notes in `target` whose limit it is.

    Source: fs/fs-writeback.c wb_over_bg_thresh; only dirty pages count, those under writeback do not.
    """
    avail = host_avail(row)
    _, bg, _ = domain_dirty_limits(row, avail)
    row["bdi"]["target"] = 0
    if row["nr_dirty"] > bg:
        return True
    dirty = row["nr_dirty"] + row["nr_writeback"]
    for f in range(NR_FILES):  # a cgroup without dirty files of its own has nothing to write, whatever its children have
        cg = row["files"][f]["cg"]
        if row["files"][f]["dirty"] > 0 and cg > 0:
            _, bg, _ = memcg_dirty_limits(row, cg, avail, dirty)
            if row["cgroups"][cg]["file_dirty"] > bg:
                row["bdi"]["target"] = cg
                return True
    return False


@law
def update_bandwidth(row, now_ns, ratio, dirty, setpoint):
    """Estimate the device's bandwidth anew, at most every 200 ms, and with a writer at the brake the base rate too.

    ratio     int64  the writer's position ratio, 1024 = 1.0; −1: nobody is at the brake
    setpoint  int64  pages

    Source: mm/page-writeback.c __wb_update_bandwidth.
    """
    bdi = row["bdi"]
    elapsed = now_ns - bdi["stamp_ns"]
    if elapsed < BANDWIDTH_INTERVAL_NS:
        return
    if ratio >= 0:
        rate = (bdi["dirtied"] - bdi["dirtied_stamp"]) * NS_PER_S // elapsed
        bdi["dirty_ratelimit"], bdi["balanced_dirty_ratelimit"] = dirty_ratelimit(
            bdi["dirty_ratelimit"], bdi["balanced_dirty_ratelimit"], ratio, bdi["avg_write_bandwidth"], rate, dirty, setpoint
        )
    bdi["write_bandwidth"], bdi["avg_write_bandwidth"] = write_bandwidth(
        bdi["write_bandwidth"], bdi["avg_write_bandwidth"], bdi["written"] - bdi["written_stamp"], elapsed
    )
    stamp(row, now_ns)


@law
def stamp(row, now_ns):
    """The next estimate starts from here.

    Source: mm/page-writeback.c __wb_update_bandwidth; wb_bandwidth_estimate_start does only this after an idle second.
    """
    bdi = row["bdi"]
    bdi["stamp_ns"] = now_ns
    bdi["dirtied_stamp"] = bdi["dirtied"]
    bdi["written_stamp"] = bdi["written"]


@law
def position_ratio(row, limits, dirty, limit):
    """How fast a writer may go, as a multiple of the base rate, by how near a limit is. 1024 = 1.0.

    limits   (int64, int64, int64)  thresh, background, free run
    limit    int64  pages, the hard limit
    returns  (int64, int64)  ratio, set point

    Source: mm/page-writeback.c wb_position_ratio.
    """
    setpoint = (limits[2] + limit) // 2
    if dirty >= limit:
        return 0, setpoint
    ratio = pos_ratio(setpoint, dirty, limit)
    return bdi_pos_ratio(ratio, setpoint, limits[0], limit, dirty, row["bdi"]["avg_write_bandwidth"]), setpoint


@law
def wake_background(row):
    """Start background writeback unless the flusher is at work.

    Source: fs/fs-writeback.c wb_start_background_writeback.
    """
    bdi = row["bdi"]
    if bdi["why"] == WB_NONE and bdi["wake_ns"] > row["now_ns"]:
        bdi["wake_ns"] = row["now_ns"]
        bdi["next_ns"] = row["now_ns"]


@law
def must_balance(thread):
    """True if the thread dirtied as many pages as it may before it looks at the limits, or came back from a full stop.

    Source: mm/page-writeback.c balance_dirty_pages_ratelimited.
    """
    return thread["nr_dirtied"] > 0 and thread["nr_dirtied"] >= thread["nr_dirtied_pause"]


@law
def balance_dirty_pages(row, th):
    """The thread dirtied enough pages to look at the limits: go on, or sleep for what they are worth.

    Source: mm/page-writeback.c balance_dirty_pages; kernel-laws §4.2. At a full stop (ratio 0) the count of dirtied pages
    is kept, so that the thread comes here again before it writes more.
    """
    bdi, thread = row["bdi"], row["threads"][th]
    cg = row["tasks"][thread["task"]]["cg"]
    now = row["now_ns"] + row["spent_ns"] + row["wait_ns"]
    avail = host_avail(row)
    limits = domain_dirty_limits(row, avail)
    dirty = row["nr_dirty"] + row["nr_writeback"] + swap_writeback(row)
    over_bg = row["nr_dirty"] > limits[1]
    free_run = dirty <= limits[2]
    interval = dirty_poll_interval(dirty, limits[0])
    mine, my_limits = 0, limits
    if cg > 0:
        mine = row["cgroups"][cg]["file_dirty"] + row["cgroups"][cg]["file_writeback"]
        my_limits = memcg_dirty_limits(row, cg, avail, dirty)
        over_bg = over_bg or row["cgroups"][cg]["file_dirty"] > my_limits[1]
        free_run = free_run and mine <= my_limits[2]
        interval = min(interval, dirty_poll_interval(mine, my_limits[0]))
    if over_bg:
        wake_background(row)
    if free_run:
        thread["nr_dirtied"] = 0
        thread["nr_dirtied_pause"] = interval
        thread["dirty_paused_ns"] = now
        return
    if now - bdi["stamp_ns"] >= BANDWIDTH_INTERVAL_NS:
        bdi["dirty_limit"] = falling_limit(bdi["dirty_limit"], limits[0], dirty)
    ratio, setpoint = position_ratio(row, limits, dirty, max(limits[0], bdi["dirty_limit"]))
    if cg > 0:
        my_ratio, my_setpoint = position_ratio(row, my_limits, mine, my_limits[0])
        if my_ratio < ratio:
            ratio, setpoint, dirty = my_ratio, my_setpoint, mine
    update_bandwidth(row, now, ratio, dirty, setpoint)
    pause_writer(row, th, now, ratio, dirty)


@law
def pause_writer(row, th, now_ns, ratio, dirty):
    """Sleep for the pages dirtied since the last pause, at the thread's rate: not if it is too short to be worth it, 200 ms at most.

    Source: mm/page-writeback.c balance_dirty_pages (its second half).
    """
    bdi, thread = row["bdi"], row["threads"][th]
    rate = bdi["dirty_ratelimit"] * ratio >> RATELIMIT_CALC_SHIFT
    longest = max_pause_ns(dirty, bdi["avg_write_bandwidth"])
    shortest, pages = min_pause(longest, bdi["dirty_ratelimit"], rate, bdi["avg_write_bandwidth"])
    if rate == 0:
        thread["dirty_paused_ns"] = now_ns + longest
        io_wait(row, th, longest)
        return
    period = thread["nr_dirtied"] * NS_PER_S // rate
    pause = period - (now_ns - thread["dirty_paused_ns"])
    thread["nr_dirtied"] = 0
    if pause < shortest:
        thread["dirty_paused_ns"] = now_ns if pause < -NS_PER_S else thread["dirty_paused_ns"] + period
        return
    forgiven = min(max(0, pause - longest), longest)
    pause = min(pause, longest)
    thread["dirty_paused_ns"] = now_ns + forgiven + pause
    thread["nr_dirtied_pause"] = pages
    io_wait(row, th, pause)


@law
def set_inode_dirty(row, f, cg):
    """A clean file got its first dirty page: its age begins, and the flusher will look in five seconds if nothing else was dirty.

    Source: fs/fs-writeback.c __mark_inode_dirty, wb_wakeup_delayed.
    """
    bdi, file = row["bdi"], row["files"][f]
    file["dirtied_ns"] = row["now_ns"]
    file["cg"] = cg
    interval = row["sysctl"]["dirty_writeback_centisecs"] * 10_000_000
    if interval > 0 and bdi["why"] == WB_NONE and bdi["wake_ns"] == NEVER:
        bdi["wake_ns"] = row["now_ns"] + interval
        bdi["next_ns"] = min(bdi["next_ns"], bdi["wake_ns"])
