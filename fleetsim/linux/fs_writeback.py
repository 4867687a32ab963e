# SPDX-License-Identifier: Apache-2.0
"""The flusher of the data disk and the pages on their way to it (fs/fs-writeback.c, fs/ext4/inode.c writepages, page-io.c).

    NONE        woken above the background limit     → BACKGROUND: chunk by chunk, file by file, until below it
    NONE        every dirty_writeback_centisecs      → PERIODIC: files older than dirty_expire, and those begun before
    any         woken by reclaim or sync             → ALL
    BACKGROUND, PERIODIC, ALL   nothing left         → NONE

Pages leave the queue of the device in its order (`pagevecs`). New blocks count as written only when the journal has taken
note of them, so they wait for a commit under way; so does the flusher itself (seen in recordings: both stand still).
Leaves out: the order of inodes within one look, metadata pages of the block device (the journal's own are in jbd2.py).
"""

from __future__ import annotations

from fleetsim.hardware.cpu import ALLOC_BLOCKS, WRITE_OUT
from fleetsim.hardware.disk import WRITE, submit
from fleetsim.law import law
from fleetsim.linux.fs_types import NR_FILES, NR_PAGEVECS
from fleetsim.linux.jbd2 import blocked_until, journal_start
from fleetsim.linux.mm_inline import list_add_tail, list_del
from fleetsim.linux.mm_types import LRU_INACTIVE_FILE, LRU_NONE, NEVER, RECLAIM, VM
from fleetsim.linux.page_writeback import (
    WB_ALL,
    WB_BACKGROUND,
    WB_NONE,
    WB_PERIODIC,
    account_dirtied,
    account_writeback,
    stamp,
    update_bandwidth,
    wb_over_bg_thresh,
)
from fleetsim.linux.page_writeback_laws import writeback_chunk_size
from fleetsim.linux.workingset_clock import note_cost

NR_WRITTEN, PGPGOUT, PGROTATED, NR_VMSCAN_WRITE = VM["nr_written"], VM["pgpgout"], VM["pgrotated"], VM["nr_vmscan_write"]
EXTENT_PAGES = 2_048  # the most that one extent, and so one bio, takes (fs/ext4/inode.c MAX_WRITEPAGES_EXTENT_LEN)
IDLE_NS = 1_000_000_000
CENTISECOND = 10_000_000


@law
def schedule(row):
    """The flusher's next event: its own wake-up or the completion of the oldest write.

    Source: fleetsim's own event order.
    """
    bdi = row["bdi"]
    bdi["next_ns"] = bdi["wake_ns"]
    if row["pv_count"] > 0:
        entry = row["pagevecs"][row["pv_head"]]
        done = max(entry["done_ns"], row["journal"]["commit_ns"]) if entry["fresh"] else entry["done_ns"]
        bdi["next_ns"] = min(bdi["next_ns"], done)


@law
def wakeup_flusher_threads(row):
    """Write everything that is dirty: reclaim met nothing but dirty pages, or somebody called sync.

    Source: fs/fs-writeback.c wakeup_flusher_threads.
    """
    bdi = row["bdi"]
    if row["nr_dirty"] > 0 and bdi["why"] != WB_ALL:
        queue_io(row, WB_ALL)
        bdi["wake_ns"] = min(bdi["wake_ns"], row["now_ns"])
        schedule(row)


@law
def queue_io(row, why):
    """Begin a pass: which files it is to write.

    Source: fs/fs-writeback.c queue_io, move_expired_inodes: what is on b_more_io goes on whatever its age.
    """
    bdi = row["bdi"]
    expire = row["sysctl"]["dirty_expire_centisecs"] * CENTISECOND
    bdi["why"] = why
    bdi["left"] = row["nr_dirty"]
    for f in range(NR_FILES):
        file = row["files"][f]
        old = why != WB_PERIODIC or file["more_io"] > 0 or file["dirtied_ns"] + expire <= row["now_ns"]
        file["queued"] = 1 if file["dirty"] > 0 and old else 0


@law
def room_in_queue(row):
    """True if another write can be queued: a full queue makes its submitter wait.

    Source: block/blk-mq-tag.c blk_mq_get_tag; the number is fleetsim's own table.
    """
    return row["pv_count"] < NR_PAGEVECS


@law
def start_writeback(row, f, i, pages):
    """Send up to `pages` dirty pages of cohort `i` of file `f` to the device.

    returns  int64  pages sent; those still under writeback from before are left for later

    Source: fs/ext4/inode.c ext4_writepages, mm/page-writeback.c __folio_start_writeback.
    """
    cohort, file = row["cohorts"][i], row["files"][f]
    n = min(pages, cohort["dirty"], cohort["nr"] - cohort["wb"], EXTENT_PAGES)
    if n <= 0:
        return 0
    if row["pv_count"] == 0 and row["now_ns"] - row["bdi"]["stamp_ns"] > IDLE_NS:
        stamp(row, row["now_ns"])
    cohort["dirty"] -= n
    cohort["wb"] += n
    account_dirtied(row, f, cohort["cg"], -n)
    account_writeback(row, f, cohort["cg"], n)
    fresh = min(n, max(0, file["size"] - file["blocks"]))
    if fresh > 0:
        file["blocks"] += fresh
        journal_start(row, f)
    entry = row["pagevecs"][(row["pv_head"] + row["pv_count"]) % NR_PAGEVECS]
    row["pv_count"] += 1
    entry["cohort"] = i
    entry["file"] = f
    entry["pages"] = n
    entry["fresh"] = 1 if fresh > 0 else 0
    entry["done_ns"] = submit(row["disk"][0], row["now_ns"], n, WRITE)
    row["vm"][PGPGOUT] += 4 * n
    return n


@law
def pageout(row, i, pages):
    """kswapd met dirty file pages for the second time: it writes them itself.

    Source: mm/vmscan.c pageout, mm/swap.c lru_note_cost; kernel-laws §3.6, §3.7.
    """
    g = row["cohorts"][i]["group"]
    for f in range(NR_FILES):
        file = row["files"][f]
        if file["group"] >= 0 and file["group"] <= g < file["group"] + file["groups"]:
            n = start_writeback(row, f, i, pages) if room_in_queue(row) else 0
            row["vm"][NR_VMSCAN_WRITE] += n
            note_cost(row, row["cohorts"][i]["cg"], True, n)
            schedule(row)


@law
def cohort_of(row, f, k):
    """Row of the k-th cohort of a file, counted over its groups.

    Source: fleetsim's own table.
    """
    group = row["groups"][row["files"][f]["group"]]
    if k < group["cohorts"]:
        return group["first"] + k
    return row["groups"][row["files"][f]["group"] + 1]["first"] + k - group["cohorts"]


@law
def nr_cohorts(row, f):
    """Cohorts of a file, over its groups.

    Source: fleetsim's own table.
    """
    file, total = row["files"][f], 0
    if file["group"] >= 0:
        for k in range(file["groups"]):
            total += row["groups"][file["group"] + k]["cohorts"]
    return total


@law
def writeback_single_inode(row, f, pages):
    """Write up to `pages` dirty pages of file `f`, in file order from where the last time ended.

    returns  (int64 pages sent, int64 ns of processor time that takes)

    Source: fs/fs-writeback.c writeback_single_inode, mm/page-writeback.c write_cache_pages (range_cyclic).
    """
    file, total, written = row["files"][f], nr_cohorts(row, f), 0
    blocks = file["blocks"]
    for step in range(total):
        if file["dirty"] == 0 or written >= pages:
            break
        k = (file["at"] + step) % total
        i = cohort_of(row, f, k)
        while row["cohorts"][i]["dirty"] > 0 and written < pages and room_in_queue(row):
            n = start_writeback(row, f, i, pages - written)
            if n == 0:
                break
            written += n
        if written > 0:
            file["at"] = k
        if not room_in_queue(row):
            break
    schedule(row)
    return written, written * row["cost"][WRITE_OUT] + (file["blocks"] - blocks) * row["cost"][ALLOC_BLOCKS]


@law
def next_queued(row):
    """File whose turn it is in the pass under way, −1: none is left.

    Source: fs/fs-writeback.c writeback_sb_inodes.
    """
    bdi = row["bdi"]
    for step in range(NR_FILES):
        f = (bdi["cursor"] + step) % NR_FILES
        file = row["files"][f]
        if file["queued"] == 0:
            continue
        if file["dirty"] == 0:
            file["queued"] = 0
        elif bdi["why"] != WB_BACKGROUND or bdi["target"] == 0 or file["cg"] == bdi["target"]:
            return f
    return -1


@law
def go_to_sleep(row):
    """Nothing is left to write: look again in five seconds if anything is dirty, else only when woken.

    Source: fs/fs-writeback.c wb_workfn (its end).
    """
    bdi = row["bdi"]
    interval = row["sysctl"]["dirty_writeback_centisecs"] * CENTISECOND
    bdi["why"] = WB_NONE
    bdi["wake_ns"] = NEVER
    if row["nr_dirty"] > 0 and interval > 0:
        bdi["wake_ns"] = max(row["now_ns"], bdi["old_flush_ns"]) + interval
    schedule(row)


@law
def find_work(row):
    """The flusher woke up: the periodic look if it is due, else the background limit.

    returns  bool  False: there is nothing to do

    Source: fs/fs-writeback.c wb_do_writeback, wb_check_old_data_flush, wb_check_background_flush.
    """
    bdi = row["bdi"]
    interval = row["sysctl"]["dirty_writeback_centisecs"] * CENTISECOND
    if interval > 0 and row["now_ns"] >= bdi["old_flush_ns"] + interval:
        bdi["old_flush_ns"] = row["now_ns"]
        queue_io(row, WB_PERIODIC)
        if next_queued(row) >= 0:
            return True
    if wb_over_bg_thresh(row):
        queue_io(row, WB_BACKGROUND)
        return True
    return False


@law
def wb_writeback(row):
    """One chunk of the flusher's work at the host's clock.

    Source: fs/fs-writeback.c wb_writeback, writeback_sb_inodes.
    """
    bdi = row["bdi"]
    busy = row["journal"]["commit_ns"]
    if busy > row["now_ns"] or not room_in_queue(row):
        entry = row["pagevecs"][row["pv_head"]]
        bdi["wake_ns"] = max(row["now_ns"] + 1, busy if busy > row["now_ns"] else entry["done_ns"])
        schedule(row)
        return
    if bdi["why"] == WB_NONE and not find_work(row):
        go_to_sleep(row)
        return
    over = bdi["why"] != WB_BACKGROUND or wb_over_bg_thresh(row)
    f = next_queued(row) if over and bdi["left"] > 0 else -1
    if f < 0:
        bdi["why"] = WB_NONE
        if not find_work(row):
            go_to_sleep(row)
            return
        f = next_queued(row)
        if f < 0:
            go_to_sleep(row)
            return
    chunk = writeback_chunk_size(bdi["avg_write_bandwidth"], bdi["dirty_limit"])
    written, spent = writeback_single_inode(row, f, min(chunk, bdi["left"]))
    update_bandwidth(row, row["now_ns"], -1, 0, 0)
    file = row["files"][f]
    file["more_io"] = 1 if file["dirty"] > 0 else 0
    if written == 0:  # all that is dirty is still under writeback from before
        file["queued"] = 0
    bdi["cursor"] = (f + 1) % NR_FILES
    bdi["left"] -= written
    row["cpu_ns"][2] += spent
    bdi["wake_ns"] = row["now_ns"] + max(1, spent)
    if written == 0 and row["pv_count"] > 0:
        bdi["wake_ns"] = max(bdi["wake_ns"], row["pagevecs"][row["pv_head"]]["done_ns"])
    schedule(row)


@law
def end_writeback(row):
    """Every write that is through by now: its pages are clean again; those that reclaim waits for go to the list's tail.

    Source: mm/page-writeback.c __folio_end_writeback, fs/ext4/page-io.c ext4_end_io; mm/swap.c folio_rotate_reclaimable.
    """
    before = row["pv_count"]
    while row["pv_count"] > 0:
        entry = row["pagevecs"][row["pv_head"]]
        if entry["done_ns"] > row["now_ns"] or (entry["fresh"] > 0 and row["journal"]["commit_ns"] > row["now_ns"]):
            break
        row["pv_head"] = (row["pv_head"] + 1) % NR_PAGEVECS
        row["pv_count"] -= 1
        end_pages(row, entry["file"], entry["cohort"], entry["pages"])
        if row["disk"][0]["failing"] > 0:
            row["disk"][0]["errors"] += 1
    if row["pv_count"] == 0 and before > 0:
        update_bandwidth(row, row["now_ns"], -1, 0, 0)
    schedule(row)


@law
def end_pages(row, f, i, pages):
    """`pages` pages of file `f`, sent out from cohort `i`, are written; a bag may have handed some to others of its group meanwhile.

    Source: mm/page-writeback.c __folio_end_writeback.
    """
    left = int(pages)
    for k in range(nr_cohorts(row, f) + 1):
        j = i if k == 0 else cohort_of(row, f, k - 1)
        cohort = row["cohorts"][j]
        n = min(left, cohort["wb"])
        if n > 0:
            cohort["wb"] -= n
            left -= n
            account_writeback(row, f, cohort["cg"], -n)
            if cohort["flags"] & RECLAIM and cohort["wb"] == 0 and cohort["dirty"] == 0:
                rotate_reclaimable(row, j)
        if left == 0:
            break
    row["vm"][NR_WRITTEN] += pages
    row["bdi"]["written"] += pages


@law
def rotate_reclaimable(row, i):
    """Pages that reclaim met while they were dirty are clean now: they go first.

    Source: mm/swap.c folio_rotate_reclaimable, lru_move_tail_fn; kernel-laws §3.7.
    """
    cohort = row["cohorts"][i]
    cohort["flags"] &= ~RECLAIM
    if cohort["list"] != LRU_NONE:
        list_del(row, i)
        list_add_tail(row, i, LRU_INACTIVE_FILE)
        row["vm"][PGROTATED] += cohort["nr"]


@law
def run_flusher(row):
    """What is due at the device: completions first, then the flusher's own work.

    Source: fs/fs-writeback.c wb_workfn; block/blk-mq.c blk_mq_complete_request.
    """
    end_writeback(row)
    if row["bdi"]["wake_ns"] <= row["now_ns"]:
        wb_writeback(row)


@law
def written_until(row, f):
    """When the last page of file `f` that is under writeback now will be written; 0 if none is.

    Source: mm/filemap.c filemap_fdatawait_range.
    """
    until = 0
    for k in range(row["pv_count"]):
        entry = row["pagevecs"][(row["pv_head"] + k) % NR_PAGEVECS]
        if entry["file"] == f:
            until = max(entry["done_ns"], blocked_until(row, f)) if entry["fresh"] else entry["done_ns"]
    return until
