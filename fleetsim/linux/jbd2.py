# SPDX-License-Identifier: Apache-2.0
"""The journal of the data file system: why an fsync waits for everybody, and makes everybody wait (fs/jbd2, fs/ext4/fsync.c).

Each write() changes its file's inode (its time, its size, its blocks), and so joins the running transaction. A transaction is
committed after five seconds, or when an fsync needs it. The commit's blocks queue at the device behind all the data that was
sent there before; until they are written, the inodes in them cannot be changed again, so every writer of these files sleeps.

    running ── 5 s, or fsync ──► committing (its blocks in the device's queue) ── written ──► done

Seen in recordings: writers stand still for seconds while a neighbour's fsync is in its second half.
Leaves out: the size of the journal and its checkpoints, fast commits, data=journal, the block an inode shares with its neighbours.
Source: fs/jbd2/commit.c, fs/jbd2/transaction.c, fs/ext4/inode.c ext4_dirty_inode (Linux 6.1).
"""

from __future__ import annotations

from fleetsim.hardware.disk import WRITE, submit
from fleetsim.law import law
from fleetsim.linux.mm_types import NEVER, VM

COMMIT_INTERVAL_NS = 5_000_000_000  # mount option commit=5
COMMIT_PAGES = 6  # descriptor, inode table, two bitmaps, group descriptors, commit record
PGPGOUT = VM["pgpgout"]


@law
def journal_start(row, f):
    """The inode of file `f` changes: it is part of the running transaction.

    Source: fs/jbd2/transaction.c start_this_handle, fs/ext4/inode.c ext4_dirty_inode.
    """
    journal = row["journal"]
    row["files"][f]["tid"] = journal["tid"]
    if journal["begun_ns"] < 0:
        journal["begun_ns"] = row["now_ns"]
        if journal["commit_ns"] == 0:
            journal["next_ns"] = row["now_ns"] + COMMIT_INTERVAL_NS


@law
def blocked_until(row, f):
    """Until when the inode of file `f` cannot be changed, because a commit that holds it is being written; 0: it can be.

    Source: fs/jbd2/transaction.c do_get_write_access (wait_on_bit_io BH_Shadow).
    """
    journal = row["journal"]
    if journal["commit_ns"] > row["now_ns"] and row["files"][f]["tid"] == journal["tid"] - 1:
        return journal["commit_ns"]
    return 0


@law
def commit_transaction(row):
    """The running transaction is closed and its blocks are sent to the device, behind all that waits there already.

    Source: fs/jbd2/commit.c jbd2_journal_commit_transaction. The commit record's flush is one more latency.
    """
    journal = row["journal"]
    journal["tid"] += 1
    journal["begun_ns"] = -1
    done = submit(row["disk"][0], row["now_ns"], COMMIT_PAGES, WRITE)
    row["vm"][PGPGOUT] += 4 * COMMIT_PAGES
    journal["commit_ns"] = max(done + row["disk"][0]["latency_ns"], row["now_ns"] + 1)
    journal["next_ns"] = journal["commit_ns"]


@law
def kjournald2(row):
    """A commit is on disk, or the running transaction is five seconds old.

    Source: fs/jbd2/journal.c kjournald2.
    """
    journal = row["journal"]
    if journal["commit_ns"] > row["now_ns"]:
        journal["next_ns"] = journal["commit_ns"]
        return
    journal["commit_ns"] = 0
    if journal["begun_ns"] >= 0 and row["now_ns"] >= journal["begun_ns"] + COMMIT_INTERVAL_NS:
        commit_transaction(row)
    else:
        journal["next_ns"] = journal["begun_ns"] + COMMIT_INTERVAL_NS if journal["begun_ns"] >= 0 else NEVER
