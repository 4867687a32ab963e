# SPDX-License-Identifier: Apache-2.0
"""/proc of a simulated host as text, byte for byte in the format of Linux 6.1.

    text functions     numbers → the file's text; one function per file, named after it
    tree(row)          a host's record → {path below /proc: text}
    write_tree(…)      the same as files, for real programs (procps, node_exporter) to read

Rules: the values are those of `linux/vmstat.py`; nothing is computed here but the kernel's own rounding when it prints.
Leaves out: interrupts, context switches and forks by kind (printed as 0), /proc/PID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from fleetsim.linux import vmstat as kernel
from fleetsim.linux.cputime import cpu_times
from fleetsim.linux.mm_types import CPU_IDLE, NR_CPUS, PSI_CPU, PSI_IO, PSI_MEM
from fleetsim.linux.slab_caches import CACHES
from fleetsim.linux.vmstat_names import MEMINFO_COUNTS, MEMINFO_FIELDS, VMSTAT_FIELDS
from fleetsim.userland import proc_zones, procfs_swap

VERSION = (
    "Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, "
    "GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)\n"
)
"""What every simulated host says: the kernel that the laws follow. `uname`'s release and version are parts of it."""

SLABINFO_HEAD = (
    "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
    " : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n"
)
_NS_PER_S = 1_000_000_000
_NS_PER_TICK = 10_000_000  # USER_HZ is 100
_NS_PER_CENTISECOND = 10_000_000


def meminfo(values: Sequence[int]) -> str:
    """/proc/meminfo; `values` in the order of MEMINFO_FIELDS, kB or counts (fs/proc/meminfo.c)."""
    lines = []
    for field, value in zip(MEMINFO_FIELDS, values, strict=True):
        if field in MEMINFO_COUNTS:  # mm/hugetlb.c: "HugePages_Total:   %5lu"
            lines.append(f"{field + ':':<16}   {value:5d}\n")
        else:
            lines.append(f"{field + ':':<16}{value:8d} kB\n")
    return "".join(lines)


def vmstat(values: Sequence[int]) -> str:
    """/proc/vmstat; `values` in the order of VMSTAT_FIELDS (mm/vmstat.c)."""
    return "".join(f"{field} {value}\n" for field, value in zip(VMSTAT_FIELDS, values, strict=True))


def pressure(avg: ArrayLike, total_us: ArrayLike, *, system_cpu: bool = False) -> str:
    """/proc/pressure/X or cgroup X.pressure (kernel/sched/psi.c psi_show).

    avg         [some|full][10|60|300 s] in 1/2048 of a percent
    total_us    [some|full] in µs
    system_cpu  the host's own CPU file: its `full` line is zeros, because a whole machine is never without a running task
    """
    lines = []
    for kind, averages, total in zip(("some", "full"), np.asarray(avg).tolist(), np.asarray(total_us).tolist(), strict=True):
        if kind == "full" and system_cpu:
            averages, total = [0, 0, 0], 0
        ten, sixty, three_hundred = (_fixed_point(value) for value in averages)
        lines.append(f"{kind} avg10={ten} avg60={sixty} avg300={three_hundred} total={total}\n")
    return "".join(lines)


def loadavg(load: Sequence[int], running: int, threads: int, last_pid: int) -> str:
    """/proc/loadavg; `load` in 1/2048, rounded up by half a hundredth before it is cut (fs/proc/loadavg.c)."""
    one, five, fifteen = (_fixed_point(value + 2048 // 200) for value in load)
    return f"{one} {five} {fifteen} {running}/{threads} {last_pid}\n"


def stat(cpu_ns: Sequence[Sequence[int]], boot_unix_s: int, processes: int, running: int, blocked: int) -> str:
    """/proc/stat (fs/proc/stat.c); `cpu_ns`: per CPU user nice system idle iowait irq softirq steal."""
    lines = ["cpu  " + _ticks([sum(column) // _NS_PER_TICK for column in zip(*cpu_ns, strict=True)])]
    for cpu, times in enumerate(cpu_ns):
        lines.append(f"cpu{cpu} " + _ticks([ns // _NS_PER_TICK for ns in times]))
    lines += ["intr 0", "ctxt 0", f"btime {boot_unix_s}", f"processes {processes}", f"procs_running {running}", f"procs_blocked {blocked}"]
    lines.append("softirq 0" + " 0" * 10)
    return "\n".join(lines) + "\n"


def cpuinfo(cpus: int) -> str:
    """/proc/cpuinfo, the lines that do not depend on a CPU's make (arch/x86/kernel/cpu/proc.c); procps refuses a /proc without it."""
    return "".join(
        f"processor\t: {cpu}\nvendor_id\t: fleetsim\ncpu family\t: 6\nmodel\t\t: 0\nmodel name\t: simulated x86-64 CPU\n"
        f"physical id\t: 0\nsiblings\t: {cpus}\ncore id\t\t: {cpu}\ncpu cores\t: {cpus}\n"
        "address sizes\t: 46 bits physical, 48 bits virtual\n\n"
        for cpu in range(cpus)
    )


def slabinfo(caches: Sequence[tuple[str, int, int, int, int, int]]) -> str:
    """/proc/slabinfo of SLUB; per cache: name, objects in use, bytes of one, of a slab objects and pages, slabs (mm/slab_common.c)."""
    lines = ["slabinfo - version: 2.1\n" + SLABINFO_HEAD]
    for name, active, size, per_slab, pages, slabs in caches:
        objects = f"{name:<17} {active:6d} {slabs * per_slab:6d} {size:6d} {per_slab:4d} {pages:4d}"
        lines.append(f"{objects} : tunables {0:4d} {0:4d} {0:4d} : slabdata {slabs:6d} {slabs:6d} {0:6d}\n")
    return "".join(lines)


def uptime(now_ns: int, idle_ns: int) -> str:
    """/proc/uptime: seconds since boot, and the idle time of all CPUs together (fs/proc/uptime.c)."""
    return f"{_seconds(now_ns)} {_seconds(idle_ns)}\n"


def tree(row: np.void, swap_paths: Mapping[str, int] | None = None) -> dict[str, str]:
    """All files of a host's record, by path below /proc. `swap_paths` names the swap areas (procfs_swap.py)."""
    mem = np.zeros(len(MEMINFO_FIELDS), dtype=np.int64)
    vm = np.zeros(len(VMSTAT_FIELDS), dtype=np.int64)
    kernel.meminfo(row, mem)
    kernel.vmstat(row, vm)
    running, blocked, threads = _count_threads(row)
    per_cpu = np.zeros((int(row["cpus"]), len(row["cpu_ns"])), dtype=np.int64)
    for cpu, times in enumerate(per_cpu):
        if cpu < NR_CPUS:
            cpu_times(row, cpu, times)
        else:
            times[CPU_IDLE] = row["now_ns"]
    cpu_ns = per_cpu.tolist()
    last_pid = int(row["next_pid"]) - 1
    with_zswap = procfs_swap.with_zswap(row, meminfo(mem.tolist()), vmstat(vm.tolist()))
    files = {
        "meminfo": with_zswap[0],
        "vmstat": with_zswap[1],
        "swaps": procfs_swap.swaps(row, swap_paths),
        "loadavg": loadavg(row["loadavg"].tolist(), running, threads, last_pid),
        "stat": stat(cpu_ns, int(row["boot_unix_s"]), last_pid, running, blocked),
        "slabinfo": slabinfo(
            [(c[0], int(s["objects"]), c[1], c[2], c[3], int(s["slabs"])) for c, s in zip(CACHES, row["slab"], strict=True)]
        ),
        "cpuinfo": cpuinfo(int(row["cpus"])),
        "uptime": uptime(int(row["now_ns"]), sum(times[CPU_IDLE] for times in cpu_ns)),
        "version": VERSION,
    }
    files |= proc_zones.tree(row, dict(zip(VMSTAT_FIELDS, vm.tolist(), strict=True)))
    for name, resource in (("cpu", PSI_CPU), ("io", PSI_IO), ("memory", PSI_MEM)):
        averages, totals = row["psi_avg"][resource], row["psi_total_us"][resource]
        files[f"pressure/{name}"] = pressure(averages, totals, system_cpu=resource == PSI_CPU)
    return files


def write_tree(files: Mapping[str, str], folder: Path) -> None:
    """Write `files` below `folder`, which then can stand for /proc."""
    for path, text in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="ascii")


def _count_threads(row: np.void) -> tuple[int, int, int]:
    """(on a CPU, waiting for something, all) threads: one busy thread per busy CPU runs, the other busy ones wait."""
    used = row["threads"]["used"] > 0
    busy = int((used & (row["busy_until_ns"] > row["now_ns"])).sum())
    running = min(busy, int((row["cpu"]["free_ns"] > row["now_ns"]).sum()))
    return running, busy - running, int(used.sum())


def _fixed_point(value: int) -> str:
    """A number in 1/2048 as the kernel prints it: LOAD_INT and LOAD_FRAC."""
    return f"{value >> 11}.{(value & 2047) * 100 >> 11:02d}"


def _ticks(values: Sequence[int]) -> str:
    return " ".join(map(str, [*values, 0, 0]))  # guest and guest_nice


def _seconds(ns: int) -> str:
    return f"{ns // _NS_PER_S}.{ns % _NS_PER_S // _NS_PER_CENTISECOND:02d}"
