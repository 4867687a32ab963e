# SPDX-License-Identifier: Apache-2.0
"""Every workload that is not a script: the row that each of their processes has, and which laws belong to which.

A row of `WORK` is one process: who it is, how its users' requests stand, and the slots of its workload: its arguments first,
then what it knows of itself, which is zero whenever the process starts. Adding a workload: its file, its name among the
`ARGUMENTS`, and its branch in `step_work`.
"""

from __future__ import annotations

import numpy as np

from fleetsim.law import law
from fleetsim.linux.syscalls import CAPACITY, is_running
from fleetsim.workloads import batch, idle, jvm, jvm_state, log, plugin, postgres, postgres_types, redis, web
from fleetsim.workloads.arrivals import SERVER
from fleetsim.workloads.requests import go_down

NR_WORKS = CAPACITY.works
NR_SLOTS = 72
assert jvm_state.NR_USED <= NR_SLOTS

ARGUMENTS = {
    "idle": idle.ARGUMENTS,
    "web": web.ARGUMENTS,
    "jvm": jvm.ARGUMENTS,
    "redis": redis.ARGUMENTS,
    "postgres": postgres_types.ARGUMENTS,
    "batch": batch.ARGUMENTS,
    "log": log.ARGUMENTS,
    "plugin": plugin.ARGUMENTS,
}
"""Name of a workload → what its first slots are: `Work.values` has them by these names."""

KINDS = {name: number for number, name in enumerate(ARGUMENTS, 1)}
IDLE, WEB, JVM, REDIS, POSTGRES, BATCH, LOG, PLUGIN = KINDS.values()

WORK = np.dtype(
    [
        ("kind", "i1"),  # 0: the row is free, else KINDS
        ("task", "i2"),
        ("arguments", "i2"),  # how many of its slots are arguments
        ("server", SERVER),
        ("slots", "i8", (NR_SLOTS,)),
    ]
)

WORK_FIELDS = [
    ("works", WORK, (NR_WORKS,)),
    ("backends", postgres_types.BACKEND, (postgres_types.NR_BACKENDS,)),
    ("backends_used", "i8"),  # rows in use so far
]
"""The workloads' part of a host's record."""


@law
def begin_work(row, w):
    """The process of row `w` is started (again): it has done nothing yet.

    Source: fleetsim's own.
    """
    work = row["works"][w]
    go_down(row, work["server"])
    work["slots"][work["arguments"] :] = 0


@law
def step_work(row, th, w):
    """One chunk of the work of row `w`, by its thread `th`.

    Source: fleetsim's own.
    """
    kind = row["works"][w]["kind"]
    if kind == IDLE:
        idle.step(row, th, w)
    elif kind == WEB:
        web.step(row, th, w)
    elif kind == JVM:
        jvm.step(row, th, w)
    elif kind == REDIS:
        redis.step(row, th, w)
    elif kind == POSTGRES:
        postgres.step(row, th, w)
    elif kind == BATCH:
        batch.step(row, th, w)
    elif kind == LOG:
        log.step(row, th, w)
    elif kind == PLUGIN:
        plugin.step(row, th, w)


@law
def note_gone(row):
    """Servers whose process does not run any more do not answer.

    Source: fleetsim's own.
    """
    for w in range(NR_WORKS):
        work = row["works"][w]
        if work["server"]["ready"] > 0 and not is_running(row, work["task"]):
            go_down(row, work["server"])
