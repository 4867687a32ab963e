# SPDX-License-Identifier: Apache-2.0
"""The rows of those who work: a reclaim's scan control, MGLRU's part of an lruvec, kswapd, a CPU.

Declared here, placed in a host's record by `mm_types.py`.
"""

from __future__ import annotations

import numpy as np

SCAN_CONTROL = np.dtype(
    [
        ("kind", "i8"),  # BY_KSWAPD, BY_DIRECT or BY_MEMCG
        ("node", "i8"),  # kswapd: its NUMA node
        ("target", "i8"),  # cgroup whose subtree is reclaimed; 0 is the whole host
        ("priority", "i8"),
        ("wanted", "i8"),  # nr_to_reclaim
        ("rounds", "i2"),  # how many rounds are made as one (reclaim_rounds), else 1
        ("scanned", "i8"),  # at this priority
        ("reclaimed", "i8"),
        ("sent", "i8"),  # pages whose write-out this reclaim started: as good as reclaimed once they are written
        ("may_deactivate", "i8", (2,)),  # anon, file: decided once per pass
        ("force_deactivate", "i8"),
        ("skipped_deactivate", "i8"),
        ("low_reclaim", "i8"),  # memcg_low_reclaim: ignore memory.low
        ("low_skipped", "i8"),
        ("cache_trim_mode", "i8"),
        ("file_is_tiny", "i8"),
        ("lists", "i8", (5,)),  # pages on the host's lists, as far as they are on the node that is reclaimed from
        ("nr", "i8", (4,)),  # pages still to scan, by list
        ("goal", "i8", (4,)),  # … as get_scan_count wanted it
        ("lruvec_reclaimed", "i8"),  # kswapd: of the lruvec whose turn it is
        ("order", "i8"),
        ("may_swap", "i8"),  # may_swap and may_writepage
        ("spent_ns", "i8"),  # processor time of the work done
        ("dirty", "i8"),  # dirty or written file pages that it met
        ("lruvec_scanned", "i8"),  # MGLRU: of the lruvec whose turn it is
        ("lruvec_max_seq", "i8"),  # … its max_seq when its turn began
        ("lruvec_zone", "i8", (2,)),  # … highest zone in which its oldest generation still has pages, by type
        ("memcgs_need_aging", "i8"),  # MGLRU, kswapd: the next pass looks whether lruvecs must be aged
    ]
)
"""mm/vmscan.c struct scan_control, with what prepare_scan_count decides."""

NR_CTRL_TIERS = 4  # anon tier 0, file tiers 0, 1, 2: those pages are evicted from (lru_gen_pid.py)
LRU_GEN = [
    ("max_seq", "i4"),  # youngest generation; the oldest one by type: anon, file
    ("min_seq", "i4", (2,)),
    ("timestamps", "i4", (4,)),  # birth of each generation, in ticks of 4 ms
    ("avg_refaulted", "i4", (NR_CTRL_TIERS,)),  # moving averages of what follows
    ("avg_total", "i4", (NR_CTRL_TIERS,)),
    ("refaulted", "i4", (NR_CTRL_TIERS,)),  # since the oldest generation is the oldest
    ("evicted", "i4", (NR_CTRL_TIERS,)),
    ("protected", "i4", (2,)),  # of file tiers 1 and 2
]
"""include/linux/mmzone.h struct lru_gen_struct, as far as the lists themselves do not say it; fields of a CGROUP row."""

KSWAPD = np.dtype(
    [
        ("state", "i8"),
        ("next_ns", "i8"),  # when its next slice of work, or the end of its nap, is due
        ("cursor", "i8"),  # next lruvec of the pass under way, −1: a new pass begins
        ("midway", "i8"),  # 1: the lruvec at the cursor has had a part of its turn
        ("pass_reclaimed", "i8"),  # sc.reclaimed when the pass began
        ("failures", "i8"),  # kswapd_failures
        ("order", "i8"),  # kswapd_order: the highest order somebody asked for since the run began
        ("alloc_order", "i8"),  # … for which this run was begun
        ("boost", "i8", (4,)),  # of each zone when the run began: taken off its marks when it ends
        ("boost_left", "i8"),  # nr_boost_reclaim: pages still to reclaim for its sake alone
    ]
)

CPU = np.dtype(
    [
        ("free_ns", "i8"),  # when it has done what it was given
        ("io_until_ns", "i8"),  # until then somebody who ran here last waits for I/O
        ("user_ns", "i8"),  # booked so far, with what it was given last …
        ("system_ns", "i8"),
        ("iowait_ns", "i8"),
        ("last_system_ns", "i8"),  # … which ends with this much system time
        ("holder", "i8"),  # who has it until free_ns: HELD_BY_THREAD, HELD_BY_KSWAPD + node, or HELD_BY_EXIT + task row
    ]
)
"""kernel/sched/sched.h struct rq, as far as /proc/stat shows it."""
