# SPDX-License-Identifier: Apache-2.0
"""cgroups come, get limits, and go: what mkdir, writes to the interface files and rmdir do to a host's record."""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetsim.errors import BadInput
from fleetsim.host.programs import Names
from fleetsim.host.spec import CgroupSpec, HostSpec
from fleetsim.law import plain
from fleetsim.linux import mm_types as mm
from fleetsim.linux.lru_gen import lru_gen_init_lruvec
from fleetsim.linux.memcontrol import DYING, css_offline, nr_dying_descendants
from fleetsim.linux.proc_sysctl import CGROUP_KNOBS
from fleetsim.workloads.script_types import OP_SYSW

PAGE = 4096
LIMITS = {
    "memory.max": "max",
    "memory.high": "high",
    "memory.min": "min",
    "memory.low": "low",
    "memory.swap.max": "swap_max",
    "memory.swap.high": "swap_high",
    "memory.zswap.max": "zswap_max",
    "memory.oom.group": "oom_group",
    "cpuset.mems": "cpuset_mems",
}


def cgroups(row: Any, spec: HostSpec, names: Names) -> None:
    empty_cgroup(row, 0, -1)
    row["nr_cgroups"] = 1
    for cg in spec.cgroups:
        add_cgroup(row, names, cg)


def add_cgroup(row: Any, names: Names, spec: CgroupSpec) -> None:
    """mkdir of a cgroup, and its limits; the row of a removed one to which nothing is charged any more is used again.

    BadInput if the host is full or the parent is unknown.
    """
    if spec.parent not in names.cgroups:
        raise BadInput(f"host {names.host}: cgroup {spec.name!r} has the unknown parent {spec.parent!r}; parents come first")
    if spec.name in names.cgroups:
        raise BadInput(f"host {names.host}: there is a cgroup {spec.name!r} already")
    let_go_of_the_dying(row)
    unused = np.flatnonzero(row["cgroups"]["used"] == 0)
    if len(unused) == 0:
        dying = int((row["cgroups"]["used"] == DYING).sum())
        raise BadInput(f"host {names.host}: more than {mm.NR_CGROUPS - 1} cgroups, {dying} of them removed but still charged")
    i = names.cgroups[spec.name] = int(unused[0])
    empty_cgroup(row, i, names.cgroups[spec.parent])
    row["cgroups"][names.cgroups[spec.parent]]["children"] += 1
    row["nr_cgroups"] = max(int(row["nr_cgroups"]), i + 1)
    for file, value in spec.limits.items():
        set_limit(row, i, file, int(value))


def forget_shadows(row: Any, i: int) -> None:
    """What removed cgroup `i` evicted is nobody's any more: no refault of it counts as recent (mem_cgroup_from_id finds none)."""
    old = row["cohorts"]["shadow_cg"] == i
    row["cohorts"]["shadow_cg"][old] = 0
    row["cohorts"]["flags"][old] &= ~mm.SHADOW_WORKINGSET
    row["cohorts"]["shadow"][old] = -mm.NO_LIMIT // 2


def remove_cgroup(row: Any, names: Names, name: str) -> None:
    """rmdir of a cgroup; BadInput where the kernel says EBUSY: a process is in it, or a cgroup below it."""
    cg = names.cgroups.get(name, 0)
    if cg == 0:
        raise BadInput(
            f"host {names.host} has no cgroup {name!r} that can be removed; it has: {', '.join(sorted(names.cgroups)).strip(', ')}"
        )
    inside = [task for task, t in names.tasks.items() if int(row["tasks"][t]["cg"]) == cg and not is_gone(row["tasks"][t])]
    below = [other for other, i in names.cgroups.items() if i > 0 and int(row["cgroups"][i]["parent"]) == cg]
    if inside or below:
        raise BadInput(f"host {names.host}: cgroup {name!r} is busy (EBUSY): {', '.join(sorted(inside + below))}")
    css_offline(row, cg)
    forget_shadows(row, cg)
    for op in row["ops"]:  # its files are gone: who writes to one gets ENOENT
        if int(op["code"]) == OP_SYSW and int(op["handle"]) in CGROUP_KNOBS and int(op["file"]) == cg:
            op["file"] = -1
    del names.cgroups[name]


def is_gone(task: Any) -> bool:
    """True if a task is dead and will not start again."""
    return int(task["state"]) in (mm.TASK_FREE, mm.TASK_DEAD) and int(task["restart_ns"]) < 0


def let_go_of_the_dying(row: Any) -> None:
    """The rows of removed cgroups to which nothing is charged any more are free again."""
    if (row["cgroups"]["used"] == DYING).any():  # a law's call with a bare record costs Numba more than all of this function
        nr_dying_descendants(row, 0)


def empty_cgroup(row: Any, i: int, parent: int) -> None:
    """Row `i` of the table is a new cgroup without limits, pages and children."""
    group = np.zeros((), row["cgroups"].dtype)
    group["used"], group["parent"] = 1, parent
    group["head"] = group["tail"] = -1
    group["max"] = group["high"] = group["swap_max"] = group["swap_high"] = mm.NO_LIMIT
    group["zswap_max"] = -1
    row["cgroups"][i] = group
    plain(lru_gen_init_lruvec)(row, i)


def set_limit(row: Any, cg: int, file: str, value: int) -> None:
    """Write one of a cgroup's interface files; bytes, −1 is `max`."""
    group = row["cgroups"][cg]
    if file not in LIMITS:
        raise BadInput(f"unknown cgroup file {file!r}; known are: {', '.join(LIMITS)}")
    online = (1 << int(row["nr_nodes"])) - 1
    if file == "cpuset.mems" and value & ~online:
        raise BadInput(f"cpuset.mems takes a bit for each NUMA node the host has, {online} for all; it was given {value} (EINVAL)")
    if file in ("memory.oom.group", "cpuset.mems"):
        group[LIMITS[file]] = value
    elif file == "memory.zswap.max":
        group["zswap_max"] = -1 if value < 0 else min(value // PAGE, (1 << 31) - 1)
    else:
        group[LIMITS[file]] = mm.NO_LIMIT if value < 0 else value // PAGE
        if file in ("memory.min", "memory.low") and value != 0:
            row["protected"] = 1
