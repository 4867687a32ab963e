# SPDX-License-Identifier: Apache-2.0
"""What the history says of a Redis that saves: the words of its own log and INFO."""

from __future__ import annotations

from typing import Any

from fleetsim.linux import events as ev
from fleetsim.workloads.redis_save import BY_BUFFER, BY_CHILD, BY_FILE, BY_FORK, BY_LIMIT
from fleetsim.workloads.redis_slots import REWRITING, SAVING, SYNCING

REDIS_EVENTS = (ev.SAVE_START, ev.SAVE_END, ev.SAVE_FAILED, ev.FORK_LATENCY, ev.SYNC_FAILED)
JOBS = {SAVING: "save", SYNCING: "sync", REWRITING: "rewrite"}
REASONS = {
    BY_FORK: "Can't save in background: fork: Cannot allocate memory",
    BY_LIMIT: "Can't save in background: fork: Resource temporarily unavailable",
    BY_BUFFER: "Replica closed ASAP for overcoming of output buffer limits",
    BY_CHILD: "Background saving terminated by signal 9",
    BY_FILE: "Write error saving DB on disk",
}
PAGE = 4096


def redis_event(kind: int, arg: list[int]) -> dict[str, Any]:
    """The data of one of `REDIS_EVENTS`."""
    if kind == ev.SAVE_START:
        return {"job": JOBS[arg[0]], "fork_usec": arg[1], "child_pid": arg[2]}
    if kind == ev.SAVE_END:
        return {"job": JOBS[arg[0]], "seconds": arg[1] / 1000, "cow_bytes": arg[2] * PAGE}
    if kind in (ev.SAVE_FAILED, ev.SYNC_FAILED):
        return {"reason": REASONS[arg[0]]}
    return {"event": "fork", "ms": arg[0]}
