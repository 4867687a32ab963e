# SPDX-License-Identifier: Apache-2.0
"""read() at random places of a file (mm/filemap.c): in calls of 128 KiB, or in small ones as a database reads its blocks.

Readahead does nothing for them: what was asked for is read, no more (kernel-laws §4.1). A file that is read at random is a uniform
group: of the pages read as many are missing as of the whole.
Leaves out: activation by the second read (the bags' accessed share keeps such pages when reclaim looks at them); history in the cache
that makes readahead take a random reader for a sequential one.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import READ_CACHED
from fleetsim.hardware.disk import READ, submit_many
from fleetsim.law import Q, law
from fleetsim.linux.bags import expected
from fleetsim.linux.filemap import PGPGIN, load_uniform, read_disk
from fleetsim.linux.mm_types import PSI_IO, PSI_MEM


@law
def wait_for_blocks(row, th, pages, block, at_once, hot):
    """Wait for `pages` missing pages that are read in requests of `block` pages, `at_once` of them at the same time.

    The bill is that of one reader after the other: `at_once` times what passes.

    Source: mm/readahead.c page_cache_sync_ra (a standalone random read is read as it is); kernel-laws §9 (Workingset: memory pressure).
    """
    task = row["tasks"][row["threads"][th]["task"]]
    begin = row["now_ns"] + row["spent_ns"] + row["wait_ns"]
    wait = (submit_many(row["disk"][0], begin, pages, block, at_once, READ) - begin) * at_once
    row["wait_ns"] += wait
    task["blkio_ns"] += wait
    row["stall_ns"][PSI_IO] += wait
    if hot:
        row["stall_ns"][PSI_MEM] += wait
    row["vm"][PGPGIN] += 4 * pages


@law
def read_blocks(row, th, g, pages, block, at_once):
    """read() of `pages` pages at random places of a file.

        missing pages met = pages · missing / size

    block    int64  pages of one call, 0: 128 KiB, one call after the other
    at_once  int64  so many threads do it side by side
    returns  (int64 pages done (fewer if memory could not be had at once, 0: come back), int64 of them from disk)

    Source: mm/filemap.c filemap_read; expected values (kernel-laws §20.2).
    """
    group = row["groups"][g]
    task = row["tasks"][row["threads"][th]["task"]]
    missing = group["pages"] - group["resident"]
    loaded = 0
    if missing > 0:
        wanted = min(missing, expected(group, pages, (missing << Q) // group["pages"]))
        if wanted > 0:
            loaded, hot = load_uniform(row, th, g, wanted)
            pages = pages * loaded // wanted
            if loaded > 0 and block > 0:
                wait_for_blocks(row, th, loaded, block, at_once, hot)
            elif loaded > 0:
                read_disk(row, th, loaded, hot)
    group["touches"] += pages
    row["spent_ns"] += pages * row["cost"][READ_CACHED]
    task["stime_ns"] += pages * row["cost"][READ_CACHED]
    return pages, loaded
