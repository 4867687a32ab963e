# SPDX-License-Identifier: Apache-2.0
"""The op `fork_hold`: a child that does nothing but share its parent's memory for a while (see `script.py`)."""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import fork

CHILD = 2  # program["once"] of a forked child


@law
def free_program(row):
    """A thread row that a child may have: one that never had a program, or that of a child which is gone; −1: none is left.

    Source: fleetsim's own table.
    """
    for k in range(len(row["programs"])):
        other = row["programs"][k]
        if row["threads"][k]["used"] == 0 and (other["once"] == CHILD or (other["work"] == 0 and other["ops"] == 0)):
            return k
    return -1


@law
def fork_hold(row, th):
    """Fork a child that sleeps as long as the op says, and exits.

    Source: the recordings' driver.
    """
    program = row["programs"][th]
    child = free_program(row)
    if fork(row, th, child) < 0:
        return
    other = row["programs"][child]
    other["first"] = program["first"] + program["op"]
    other["ops"] = 1
    other["work"] = 0
    other["op"] = 0
    other["fresh_op"] = 1
    other["quantum"] = 0
    other["progress"] = 0
    other["due"] = 0
    other["once"] = CHILD
