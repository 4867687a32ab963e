# SPDX-License-Identifier: Apache-2.0
"""Replaying kernel recordings on a simulated host: `fleetsim fidelity EXPERIMENT_DIR…`.

The host is booted from what was known at the recording's start, runs the recorded processes' ops, and is read at the
recording's sample times; the result is written in the recording's own format, and scored against it afterwards.
Nothing of the recording but `experiment.json` and the start values is read before the replay has finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fleetsim.errors import BadInput
from fleetsim.fleet.fidelity_score import Score, score
from fleetsim.fleet.recorded_swap import swap_columns, zswap_cgroup_columns
from fleetsim.fleet.recording import Experiment, read_experiment, write_trace
from fleetsim.hardware.disk import REQUEST_PAGES, busy_ms
from fleetsim.host.shard import Shard
from fleetsim.linux import mm_types as mm
from fleetsim.linux.mlock import vm_locked
from fleetsim.linux.node_stat import node_counts, node_numastat
from fleetsim.linux.oom_badness import OOM_INELIGIBLE, proc_oom_score
from fleetsim.linux.oom_kill import task_points
from fleetsim.linux.page_writeback import swap_writeback
from fleetsim.linux.pgtable import mm_pgtables
from fleetsim.linux.psi_laws import avg_hundredths
from fleetsim.linux.slub import slab_stat
from fleetsim.linux.vmstat import MEMINFO_COUNTS, MEMINFO_FIELDS, VMSTAT_FIELDS, meminfo, vmstat

PAGE = 4096
TICK_NS = 10_000_000  # ns per USER_HZ tick of /proc/PID/stat
T0 = "<9>[    0.000000] wl: t0"
PSI_NAMES = ("cpu", "io", "memory")
LEVELS = ("some", "full")
NODE_MEMINFO = {
    "MemFree": "free",
    "Active(anon)": "active_anon",
    "Inactive(anon)": "inactive_anon",
    "Active(file)": "active_file",
    "Inactive(file)": "inactive_file",
    "AnonPages": "anon",
    "FilePages": "file_pages",
    "Shmem": "shmem",
    "Mapped": "mapped",
}
STAT_LISTS = ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")


@dataclass
class Replay:
    """One experiment's result: its rows as in trace.csv.gz, its log as in dmesg.txt, and the ops that were skipped."""

    name: str
    rows: list[dict[str, object]] = field(default_factory=list)
    dmesg: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)


def psi_columns(prefix: str, group: Any, kinds: Sequence[int]) -> dict[str, object]:
    columns: dict[str, object] = {}
    for kind in kinds:
        for level, name in enumerate(LEVELS):
            at = f"{prefix}psi.{PSI_NAMES[kind]}.{name}."
            for i, window in enumerate(("avg10", "avg60", "avg300")):
                columns[at + window] = f"{avg_hundredths(int(group['psi_avg'][kind][level][i])) / 100:.2f}"
            columns[at + "total_us"] = int(group["psi_total_ns"][kind][level]) // 1000
    return columns


def host_columns(row: Any) -> dict[str, object]:
    columns: dict[str, object] = {}
    values = np.zeros(len(MEMINFO_FIELDS), "i8")
    meminfo(row, values)
    for name, value in zip(MEMINFO_FIELDS, values, strict=True):
        columns[f"meminfo.{name}" + ("" if name in MEMINFO_COUNTS else "_kB")] = int(value)
    counters = np.zeros(len(VMSTAT_FIELDS), "i8")
    vmstat(row, counters)
    for name, value in zip(VMSTAT_FIELDS, counters, strict=True):
        columns[f"vmstat.{name}"] = int(value)
    columns |= psi_columns("", row, (mm.PSI_MEM, mm.PSI_IO, mm.PSI_CPU))
    columns |= node_columns(row, dict(zip(VMSTAT_FIELDS, counters.tolist(), strict=True)))
    for zone in row["zones"]:
        if not zone["managed"]:
            continue
        name = ("N1." if zone["node"] else "") + mm.ZONE_NAMES[int(zone["kind"])]
        for order, blocks in enumerate(zone["free_area"].sum(axis=0).tolist()):
            columns[f"buddy.{name}.{order}"] = blocks
        columns |= {f"zone.{name}.{field}": int(zone[field]) for field in ("free", "managed", "boost")}
        columns |= {f"zone.{name}.{mark}": int(zone["wmark"][i]) for i, mark in enumerate(("min", "low", "high"))}
    file_pages, swap_pages, now_ns = int(row["nr_writeback"]), int(swap_writeback(row)), int(row["now_ns"])
    columns |= disk_columns("data", row["disk"][0], now_ns, file_pages + (0 if row["swap_disk"] else swap_pages))
    if row["swap_disk"]:
        columns |= disk_columns("swap", row["disk"][1], now_ns, swap_pages)
    columns["loadavg.1"] = f"{int(row['loadavg'][0]) / 2048:.2f}"
    for i, name in ((mm.CPU_USER, "user"), (mm.CPU_SYSTEM, "system"), (mm.CPU_IDLE, "idle"), (mm.CPU_IOWAIT, "iowait")):
        columns[f"cpu.{name}_ticks"] = int(row["cpu_ns"][i]) // TICK_NS
    return columns


def node_columns(row: Any, vm: Mapping[str, int]) -> dict[str, object]:
    """What /sys/devices/system/node says of each of several nodes."""
    columns: dict[str, object] = {}
    for node in range(int(row["nr_nodes"])) if int(row["nr_nodes"]) > 1 else ():
        counts = node_counts(row, node)
        columns |= {f"node{node}.meminfo.{name}_kB": counts[key] * 4 for name, key in NODE_MEMINFO.items()}
        names = ("numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node")
        columns |= {f"node{node}.numastat.{n}": v for n, v in zip(names, node_numastat(row, vm, node).values(), strict=True)}
    return columns


def disk_columns(name: str, disk: Any, now_ns: int, in_flight: int) -> dict[str, object]:
    """What /proc/diskstats says of one device: requests and sectors once they are done (here: up to what is queued now)."""
    at = f"disk.{name}."
    columns: dict[str, object] = {}
    for k, (word, one) in enumerate((("reads", "read"), ("writes", "write"))):
        waiting = in_flight if word == "writes" else 0
        columns[f"{at}{word}"] = int(disk["requests"][k]) - -(-waiting // REQUEST_PAGES)
        columns[f"{at}{one}_sectors"] = (int(disk["pages"][k]) - waiting) * 8
        columns[f"{at}{one}_ms"] = int(disk["wait_ns"][k]) // mm.NS_PER_MS
    columns[f"{at}inflight"] = -(-in_flight // REQUEST_PAGES)
    columns[f"{at}io_ms"] = int(busy_ms(disk, now_ns))
    columns[f"{at}weighted_ms"] = int(disk["wait_ns"].sum()) // mm.NS_PER_MS
    return columns


def cgroup_columns(row: Any, name: str, cg: int) -> dict[str, object]:
    group = row["cgroups"][cg]
    at = f"cg.{name}."
    columns: dict[str, object] = {
        at + "current": int(group["usage"]) * PAGE,
        at + "swap_current": int(group["swap"]) * PAGE,
        at + "peak": int(group["peak"]) * PAGE,
    }
    events = {event: int(group["events"][i]) for event, i in mm.EV.items()}
    columns |= {f"{at}events.{e}": events[e] for e in ("low", "high", "max", "oom", "oom_kill", "oom_group_kill")}
    columns |= {f"{at}swap_events.{e}": events[f"swap_{e}"] for e in ("high", "max", "fail")}
    for key in ("anon", "file", "shmem", "kernel", "pagetables", "swapcached", "file_dirty", "file_writeback"):
        columns[f"{at}stat.{key}"] = int(group[key]) * PAGE
    slab = [int(slab_stat(row, cg, reclaimable)) for reclaimable in (1, 0)]
    columns |= {f"{at}stat.slab_reclaimable": slab[0], f"{at}stat.slab_unreclaimable": slab[1], f"{at}stat.slab": sum(slab)}
    columns[f"{at}stat.anon_thp"] = int(group["anon_thp"]) * PAGE
    for lru, key in enumerate(STAT_LISTS):
        columns[f"{at}stat.{key}"] = int(group["tree"][lru]) * PAGE
    stat = {key: int(group["stat"][i]) for key, i in mm.CG.items()}
    columns |= {f"{at}stat.{key}": value for key, value in stat.items()}
    columns[f"{at}stat.pgscan"] = stat["pgscan_kswapd"] + stat["pgscan_direct"]
    columns[f"{at}stat.pgsteal"] = stat["pgsteal_kswapd"] + stat["pgsteal_direct"]
    return columns | psi_columns(at, group, (mm.PSI_MEM, mm.PSI_IO)) | zswap_cgroup_columns(row, name, cg)


def task_columns(row: Any, name: str, t: int) -> dict[str, object]:
    """The process's columns; empty before it was started, only its progress after it ended."""
    task = row["tasks"][t]
    at = f"proc.{name}."
    program = row["programs"][int(task["main_thread"])]
    state = int(task["state"])
    if state == mm.TASK_WAITING and not task["exits"]:
        return {}
    alive = state in (mm.TASK_RUNNING, mm.TASK_EXITING)
    columns: dict[str, object] = {at + "pid": int(task["pid"]), at + "alive": int(alive), at + "op": int(program["op"])}
    counted = int(program["counted"])  # files are counted one by one
    columns[at + "progress_bytes"] = (int(program["progress"]) - counted) * PAGE + counted + int(program["progress_bytes"])
    if not alive:
        return columns
    total = int(row["totalram"] + row["swap_total"])
    points = task_points(row, t, total)
    pages = {
        "VmSize": "total_vm",
        "VmHWM": "hwm",
        "RssAnon": "rss_anon",
        "RssFile": "rss_file",
        "RssShmem": "rss_shmem",
        "VmData": "data_vm",
        "swap": "swapents",
        "HugetlbPages": "hugetlb",
    }
    columns |= {f"{at}{shown}_kB": int(task[name]) * 4 for shown, name in pages.items()}
    columns[at + "VmPTE_kB"] = int(mm_pgtables(row, t)) * 4
    columns[at + "rss_kB"] = int(task["rss_anon"] + task["rss_file"] + task["rss_shmem"]) * 4
    columns[at + "VmLck_kB"] = int(vm_locked(row, t)) * 4
    columns |= {f"{at}{count}": int(task[count]) for count in ("minflt", "majflt")}
    columns |= {f"{at}{t}_ticks": int(task[f"{t}_ns"]) // TICK_NS for t in ("utime", "stime", "blkio")}
    # until its set-up is over a process has the oom_score_adj of its parent, and the recordings' init has −1000
    shielded = points == OOM_INELIGIBLE or (int(program["op"]) == 0 and bool(program["fresh_op"]))
    columns[at + "oom_score"] = 0 if shielded else int(proc_oom_score(points, total))
    return columns


def replay(experiment: Experiment, tick_ns: int, progress: Callable[[float], None] | None = None) -> Replay:
    """Run one experiment from start to end."""
    shard = Shard([experiment.spec], seed=0, tick_ns=tick_ns)
    row, names = shard.records[0], shard.names_of(0)
    result = Replay(experiment.name)
    for number in range(int(experiment.duration_s / experiment.sample_s) + 1):
        t_s = number * experiment.sample_s
        # a process that starts at a sample's own instant is in that sample already: run just past it
        shard.advance(0, int(t_s * mm.NS_PER_S) + 1)
        sample: dict[str, object] = {"time_s": f"{t_s:.3f}"}
        sample |= host_columns(row) | swap_columns(row, names.swaps)
        for name in experiment.cgroups:
            sample |= cgroup_columns(row, name, names.cgroups[name])
        for task in experiment.tasks:
            sample |= task_columns(row, task.name, names.tasks[task.name])
            if (child := f"{task.name}-child") in names.tasks:
                sample |= task_columns(row, child, names.tasks[child])
        result.rows.append(sample)
        if progress:
            progress(t_s / experiment.duration_s)
    result.dmesg = [T0, *shard.dmesg[0]]
    result.unsupported = sorted({op.split()[0] for ops in names.unsupported.values() for op in ops})
    return result


def write_replay(result: Replay, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_trace(folder / "trace.csv.gz", result.rows)
    (folder / "dmesg.txt").write_text("\n".join(result.dmesg) + "\n")


@dataclass
class Fidelity:
    """All experiments' scores, in the order given."""

    tick_ns: int
    scores: list[Score]
    unscored: list[str]  # replayed, but the folder holds no recording to compare with
    unsupported: dict[str, list[str]]  # experiment → ops this kernel skips


def run_fidelity(folders: Sequence[Path], out: Path, *, tick_ns: int = 0, progress: Callable[[str, float], None] | None = None) -> Fidelity:
    """Replay every folder into `out`/NAME and score it.

    tick_ns  0 replays at the recordings' own quantum of 256 KiB; else the fleet's tick
    """
    experiments = [(folder, read_experiment(folder)) for folder in folders]
    names = [e.name for _, e in experiments]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise BadInput(f"two folders hold the same experiment {twice[0]!r}: their results would overwrite each other")
    result = Fidelity(tick_ns, [], [], {})
    for folder, experiment in experiments:
        done = replay(experiment, tick_ns, partial(progress, experiment.name) if progress else None)
        write_replay(done, out / experiment.name)
        if done.unsupported:
            result.unsupported[experiment.name] = done.unsupported
        if (folder / "trace.csv.gz").exists() and (folder / "dmesg.txt").exists():
            result.scores.append(score(folder, out / experiment.name))
        else:
            result.unscored.append(experiment.name)
    return result
