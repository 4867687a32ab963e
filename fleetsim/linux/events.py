# SPDX-License-Identifier: Apache-2.0
"""What happens on a host that a log or a history would tell: kills, exits, full tables, impacts.

A compiled host writes rows of `EVENT`; `host/shard.py` turns them into text. When the table is nearly full the host stops
where it is and asks for attention, so that nothing is lost however long an epoch is; should one instant bring more than
the rest of the table holds, `event_seq` still counts them and the reader reports the gap: never silently.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import NR_EVENTS

(BOOT, TASK_START, OOM_KILL, OOM_PANIC, TASK_EXIT, TABLE_FULL, COMMAND, IMPACT_START, IMPACT_END, REFUSED) = range(10)
(OP_START, OP_END, OOM_REAP, SWAP_ERROR) = range(10, 14)
(GC_PAUSE, OUT_OF_MEMORY_ERROR) = range(14, 16)
(SAVE_START, SAVE_END, SAVE_FAILED, FORK_LATENCY, SYNC_FAILED) = range(16, 21)

KINDS = (
    "boot",
    "task_start",
    "oom_kill",
    "oom_panic",
    "task_exit",
    "table_full",
    "command",
    "impact_start",
    "impact_end",
    "enomem",
    "op_start",
    "op_end",
    "oom_reap",
    "swap_error",
    "gc_pause",
    "out_of_memory_error",
    "save_start",
    "save_end",
    "save_failed",
    "latency",
    "sync_failed",
)


SPARE = NR_EVENTS * 2 // 5  # rows kept for what one instant may still bring
ARG_MAX = (1 << 31) - 1


@law
def record(row, kind, subject, a, b, c, d, e, f, g, h):
    """Append one event at the host's clock: `subject` is a task row, a…h what the kind needs (pages up to 8 TiB, then 8 TiB).

    Source: fleetsim's own history.
    """
    row["event_seq"] += 1
    if row["nr_events"] == NR_EVENTS:
        return
    entry = row["events"][row["nr_events"]]
    row["nr_events"] += 1
    if row["nr_events"] >= NR_EVENTS - SPARE:
        row["attention"] = 1
    entry["t_ns"] = row["now_ns"]
    entry["seq"] = row["event_seq"]
    entry["kind"] = kind
    entry["subject"] = subject
    entry["arg"][0] = min(a, ARG_MAX)
    entry["arg"][1] = min(b, ARG_MAX)
    entry["arg"][2] = min(c, ARG_MAX)
    entry["arg"][3] = min(d, ARG_MAX)
    entry["arg"][4] = min(e, ARG_MAX)
    entry["arg"][5] = min(f, ARG_MAX)
    entry["arg"][6] = min(g, ARG_MAX)
    entry["arg"][7] = min(h, ARG_MAX)
