# SPDX-License-Identifier: Apache-2.0
"""Writing /proc/sys/vm/drop_caches: what can be read again is dropped (fs/drop_caches.c).

Leaves out: bit 1, the slab (its shrinkers' business), the log line.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.fs_types import NR_FILES
from fleetsim.linux.mm_types import VM
from fleetsim.linux.truncate import invalidate_mapping_pages

DROP_PAGECACHE = VM["drop_pagecache"]


@law
def drop_pagecache(row):
    """Bit 0: every clean page of the cache that nobody maps; dirty ones stay (`sync` first to be rid of them too), tmpfs stays.

    returns  int64  pages dropped

    Source: fs/drop_caches.c drop_pagecache_sb; kernel-laws §4.3.
    """
    dropped = 0
    for f in range(NR_FILES):
        if row["files"][f]["group"] >= 0 and row["files"][f]["mount"] < 0:
            dropped += invalidate_mapping_pages(row, f)
    row["vm"][DROP_PAGECACHE] += 1
    return dropped
