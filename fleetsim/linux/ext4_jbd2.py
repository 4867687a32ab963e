# SPDX-License-Identifier: Apache-2.0
"""Metadata of the data file system: changed blocks are written twice, in the journal and in their own place (fs/ext4).

A transaction begins with the first change, is written to the journal 5 s later, and its blocks are dirty from then on; the
flusher writes them when they are 30 s old.
Leaves out: checkpoints of a full journal, fsync, data blocks (page_writeback.py's), the flusher's other reasons to write.
Source: fs/jbd2/commit.c, fs/ext4/super.c (commit interval 5 s); kernel-laws §4.2.
"""

from __future__ import annotations

from fleetsim.hardware.disk import WRITE, submit
from fleetsim.law import law
from fleetsim.linux.mm_types import NEVER, NS_PER_S, VM

PGPGOUT, NR_DIRTIED, NR_WRITTEN = VM["pgpgout"], VM["nr_dirtied"], VM["nr_written"]
COMMIT_NS = 5 * NS_PER_S
EXPIRE_NS = 30 * NS_PER_S
TAGS_PER_BLOCK = 500  # block numbers in one descriptor block


@law
def ext4_handle_dirty_metadata(row, blocks):
    """Metadata blocks join the running transaction; the first begins one.

    Source: fs/jbd2/transaction.c jbd2_journal_dirty_metadata.
    """
    journal = row["ext4_journal"]
    if journal["commit_ns"] == NEVER:
        journal["commit_ns"] = row["now_ns"] + COMMIT_NS
        journal["next_ns"] = min(journal["commit_ns"], journal["write_ns"])
    journal["blocks"] += blocks


@law
def write_blocks(row, blocks):
    """Write blocks of 4 KiB to the data disk.

    Source: block/blk-core.c submit_bio (pgpgout, kB).
    """
    submit(row["disk"][0], row["now_ns"], blocks, WRITE)
    row["vm"][PGPGOUT] += 4 * blocks


@law
def run_ext4_journal(row):
    """Commit the transaction whose time has come; write blocks whose time has come.

    Source: fs/jbd2/commit.c jbd2_journal_commit_transaction; mm/page-writeback.c, by age.
    """
    journal = row["ext4_journal"]
    if journal["commit_ns"] <= row["now_ns"]:
        blocks = journal["blocks"]
        write_blocks(row, blocks + blocks // TAGS_PER_BLOCK + 2)
        row["vm"][NR_DIRTIED] += blocks
        if journal["dirty"] == 0:
            journal["write_ns"] = row["now_ns"] + EXPIRE_NS
        journal["dirty"] += blocks
        journal["blocks"] = 0
        journal["commit_ns"] = NEVER
    if journal["write_ns"] <= row["now_ns"]:
        write_blocks(row, journal["dirty"])
        row["vm"][NR_WRITTEN] += journal["dirty"]
        journal["dirty"] = 0
        journal["write_ns"] = NEVER
    journal["next_ns"] = min(journal["commit_ns"], journal["write_ns"])
