# SPDX-License-Identifier: Apache-2.0
"""Any file of a simulated host by its path, as `cat` would print it: the one list of what there is to read.

    /proc/{meminfo,vmstat,buddyinfo,slabinfo,swaps,pressure/*,…}   procfs.py, proc_zones.py, procfs_swap.py
    /proc/sys/vm/*                                                 the knobs that some law reads
    /proc/PID/{statm,smaps_rollup,maps,smaps}                      procfs_pid.py, procfs_maps.py
    /sys/devices/system/node/*, /sys/block/zram*, /sys/kernel/*    sysfs.py

Leaves out: files of a cgroup, and what of /proc and /sys has nothing to do with memory.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from fleetsim.errors import BadInput
from fleetsim.linux.sysctl import SYSCTL_NAMES
from fleetsim.userland import procfs, procfs_maps, procfs_pid, sysfs
from fleetsim.userland.address_space import Labels
from fleetsim.userland.frames import alive_tasks
from fleetsim.userland.page_table import PageTables

Text = Callable[[], str]


def host_files(row: Any, labels: Callable[[int], Labels]) -> dict[str, Text]:
    """Every file there is, by path; what a process's page tables must be looked through for is made when it is read.

    row     a host's record
    labels  names of a process's areas, by task row
    """
    plain = {f"/proc/{path}": text for path, text in (procfs.tree(row) | procfs_pid.pid_tree(row)).items()}
    plain |= {f"/sys/{path}": text for path, text in sysfs.tree(row).items()}
    plain |= {f"/proc/sys/vm/{name.replace('page_cluster', 'page-cluster')}": f"{int(row['sysctl'][name])}\n" for name in SYSCTL_NAMES}
    files: dict[str, Text] = {path: _as_is(text) for path, text in plain.items()}
    for t in alive_tasks(row):
        pid = int(row["tasks"][t]["pid"])
        files[f"/proc/{pid}/maps"] = _of_tables(row, t, labels, procfs_maps.maps)
        files[f"/proc/{pid}/smaps_rollup"] = _of_tables(row, t, labels, procfs_maps.smaps_rollup)
        files[f"/proc/{pid}/smaps"] = _of_tables(row, t, labels, procfs_maps.smaps)
    return dict(sorted(files.items()))


def read_file(files: dict[str, Text], path: str, host: str) -> str:
    """The text of one file; BadInput names the nearest ones if there is no such file."""
    if path in files:
        return files[path]()
    near = get_close_matches(path, files, n=3, cutoff=0.5)
    hint = f"near it are {', '.join(near)}" if near else "`--list` names all there are"
    raise BadInput(f"{host} has no file {path!r}; {hint}")


def _as_is(text: str) -> Text:
    return lambda: text


def _of_tables(row: Any, t: int, labels: Callable[[int], Labels], render: Callable[[PageTables], str]) -> Text:
    return lambda: render(PageTables(row, t, labels(t)))
