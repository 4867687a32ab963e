# SPDX-License-Identifier: Apache-2.0
"""fsync(): a file's pages and its inode are on disk when it returns (fs/sync.c vfs_fsync, fs/ext4/fsync.c).

It takes several calls, since time passes in between: send the dirty pages, wait for the file's pages, wait for the journal.
Both waits are for the device's one queue, so they last as long as what others have put there.
Leaves out: sync_file_range, O_DSYNC, syncfs (wakeup_flusher_threads does the writing of it).
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.fs_writeback import writeback_single_inode, written_until
from fleetsim.linux.jbd2 import blocked_until, commit_transaction
from fleetsim.linux.page_writeback import io_wait

SYNC_DATA, SYNC_WAIT, SYNC_JOURNAL, SYNC_DONE = 2, 3, 4, 5


@law
def vfs_fsync(row, th, f, stage):
    """Go on with an fsync of file `f`.

    stage    int64  SYNC_DATA at first, then what the last call returned
    returns  int64  the next stage; SYNC_DONE: all is on disk once the bill is paid

    Source: fs/ext4/fsync.c ext4_sync_file, mm/filemap.c file_write_and_wait_range, fs/jbd2/journal.c jbd2_complete_transaction.
    """
    file, journal, now = row["files"][f], row["journal"], row["now_ns"]
    if stage == SYNC_DATA:
        _, spent = writeback_single_inode(row, f, file["dirty"])
        row["spent_ns"] += spent
        row["tasks"][row["threads"][th]["task"]]["stime_ns"] += spent
        if file["dirty"] > 0:  # the queue is full, or pages were written to again while they are under writeback
            io_wait(row, th, row["pagevecs"][row["pv_head"]]["done_ns"] - now)
            return SYNC_DATA
        return SYNC_WAIT
    if stage == SYNC_WAIT:
        if file["writeback"] > 0:
            io_wait(row, th, written_until(row, f) - now)
            return SYNC_WAIT
        return SYNC_JOURNAL
    if file["tid"] == journal["tid"] and journal["begun_ns"] >= 0:
        if journal["commit_ns"] > now:  # the commit under way does not hold it: one more has to follow
            io_wait(row, th, journal["commit_ns"] - now)
            return SYNC_JOURNAL
        commit_transaction(row)
    if blocked_until(row, f) > now:  # the commit that holds it is being written
        io_wait(row, th, journal["commit_ns"] - now)
        return SYNC_JOURNAL
    return SYNC_DONE
