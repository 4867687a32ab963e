# SPDX-License-Identifier: Apache-2.0
"""The real free, vmstat and uptime (procps 4) read a rendered /proc and say what the numbers say."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetsim.linux.mm_types import CPU_IDLE
from fleetsim.linux.vmstat_names import MEMINFO_FIELDS, VMSTAT_FIELDS
from fleetsim.userland import procfs

MEMINFO = {
    "MemTotal": 66_000_000,
    "MemFree": 1_234_567,
    "MemAvailable": 40_000_001,
    "Buffers": 70_001,
    "Cached": 30_000_003,
    "SwapCached": 5,
    "Active": 9_000_007,
    "Inactive": 22_000_012,
    "SwapTotal": 8_388_604,
    "SwapFree": 8_000_000,
    "Shmem": 512_013,
    "Slab": 1_000_023,
    "SReclaimable": 800_017,
    "CommitLimit": 41_388_604,
    "Committed_AS": 50_000_021,
}  # kB, each a number of its own that fits 24 bits: vmstat converts units in single precision
VMSTAT = {"pgpgin": 123_456_789, "pgpgout": 98_765, "pswpin": 111, "pswpout": 97_151, "oom_kill": 3}
CPU_TICKS = (84_202, 3124, 25_842, 348_340, 1473, 0, 1200, 665)  # user nice system idle iowait irq softirq steal
BOOT_UNIX_S = 1_700_000_000


@pytest.fixture(scope="module")
def proc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proc")
    cpu_ns = [ticks * 10**7 for ticks in CPU_TICKS]
    files = {
        "meminfo": procfs.meminfo([MEMINFO.get(field, 0) for field in MEMINFO_FIELDS]),
        "vmstat": procfs.vmstat([VMSTAT.get(field, 0) for field in VMSTAT_FIELDS]),
        "stat": procfs.stat([[ns // 2 for ns in cpu_ns], [ns - ns // 2 for ns in cpu_ns]], BOOT_UNIX_S, 30_958, 3, 2),
        "uptime": procfs.uptime(2332 * 10**9, cpu_ns[CPU_IDLE]),
        "loadavg": procfs.loadavg([3051, 5754, 4464], 3, 201, 30_958),
        "cpuinfo": procfs.cpuinfo(2),
        "version": procfs.VERSION,
    }
    procfs.write_tree(files, folder)
    return folder


@pytest.fixture
def run(proc: Path, require_tool: Callable[[str], Path], require_unshare: None) -> Callable[..., str]:
    """Run a program whose /proc is the rendered one."""

    def run(program: str, *arguments: str) -> str:
        inside = 'mount --bind "$0" /proc && exec "$@"'
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", inside, str(proc), str(require_tool(program)), *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=30, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
        ).stdout

    return run


def test_free_shows_the_fields(run: Callable[..., str]) -> None:
    """procps ≥ 4.0.1: used = total − available; buff/cache = Buffers + Cached + SReclaimable (kernel-laws 5.3)."""
    rows = {line.split()[0]: list(map(int, line.split()[1:])) for line in run("free", "-k", "-v").splitlines()[1:]}
    m = MEMINFO
    cache = m["Buffers"] + m["Cached"] + m["SReclaimable"]
    assert rows["Mem:"] == [m["MemTotal"], m["MemTotal"] - m["MemAvailable"], m["MemFree"], m["Shmem"], cache, m["MemAvailable"]]
    assert rows["Swap:"] == [m["SwapTotal"], m["SwapTotal"] - m["SwapFree"], m["SwapFree"]]
    assert rows["Comm:"] == [m["CommitLimit"], m["Committed_AS"], m["CommitLimit"] - m["Committed_AS"]]


def test_vmstat_s_lists_every_counter(run: Callable[..., str]) -> None:
    said = {name: int(number) for number, name in re.findall(r"^\s*(\d+) (.*)$", run("vmstat", "-s"), re.M)}
    m = MEMINFO
    expected = {
        "K total memory": m["MemTotal"],
        "K active memory": m["Active"],
        "K inactive memory": m["Inactive"],
        "K free memory": m["MemFree"],
        "K buffer memory": m["Buffers"],
        "K swap cache": m["Cached"] + m["SReclaimable"],  # procps' name for the page cache
        "K total swap": m["SwapTotal"],
        "K used swap": m["SwapTotal"] - m["SwapFree"],
        "non-nice user cpu ticks": CPU_TICKS[0],
        "nice user cpu ticks": CPU_TICKS[1],
        "system cpu ticks": CPU_TICKS[2],
        "idle cpu ticks": CPU_TICKS[3],
        "IO-wait cpu ticks": CPU_TICKS[4],
        "softirq cpu ticks": CPU_TICKS[6],
        "stolen cpu ticks": CPU_TICKS[7],
        "boot time": BOOT_UNIX_S,
        "forks": 30_958,
    }
    assert {name: said.get(name) for name in expected} == expected
    paged = {name.split(" ", 1)[-1] if name.startswith("K ") else name: number for name, number in said.items()}
    assert (paged["paged in"], paged["paged out"]) == (VMSTAT["pgpgin"], VMSTAT["pgpgout"])
    assert (said["pages swapped in"], said["pages swapped out"]) == (VMSTAT["pswpin"], VMSTAT["pswpout"])


def test_vmstat_s_first_line_has_the_memory_columns(run: Callable[..., str]) -> None:
    _, heads, row = run("vmstat").splitlines()
    said = dict(zip(heads.split(), map(int, row.split()), strict=True))
    m = MEMINFO
    assert (said["r"], said["b"], said["swpd"], said["free"]) == (3, 2, m["SwapTotal"] - m["SwapFree"], m["MemFree"])
    assert (said["buff"], said["cache"]) == (m["Buffers"], m["Cached"] + m["SReclaimable"])


def test_uptime_shows_load_and_time_since_boot(run: Callable[..., str]) -> None:
    said = run("uptime")
    assert "up 38 min" in said and said.rstrip().endswith("load average: 1.49, 2.81, 2.18")
