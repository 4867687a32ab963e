# SPDX-License-Identifier: Apache-2.0
"""How far a simulated run is from a recording, series by series: the recordings' own definition of the error.

    err = mean over time of |simulated − recorded| / scale, at the recording's sample times, at most 1
    level    scale = max(p99 − p1 of the recording, floor)
    counter  both from their first sample; scale = max(growth in the recording, floor)

A series counts if it moves by more than its floor on either side; one that moves in the recording and is missing in the
simulation counts 1. Floors: 2 % of MemTotal for memory, else as in SERIES. Kills: names in order, times in seconds.
"""

from __future__ import annotations

import csv
import gzip
import re
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetsim.errors import BadInput

LEVEL, COUNTER = "level", "counter"
STALE_S = 5.0  # a simulated value older than this is no value
FLOOR_SHARE = 0.02  # of MemTotal

_MEMORY = (
    "MemFree|MemAvailable|Buffers|Cached|SwapCached|Active\\(anon\\)|Inactive\\(anon\\)|Active\\(file\\)|Inactive\\(file\\)|Unevictable|"
    "Mlocked|SwapFree|Dirty|Writeback|AnonPages|Mapped|Shmem|KReclaimable|SReclaimable|SUnreclaim|PageTables|KernelStack|Committed_AS|"
    "CommitLimit|AnonHugePages|Hugetlb"
)
_CG_LEVELS = "anon|file|shmem|slab|pagetables|anon_thp|file_dirty|inactive_anon|active_anon|inactive_file|active_file|unevictable"
_CG_COUNTERS = "pgfault|pgmajfault|pgscan|pgsteal|pgrefill|pgactivate|pgdeactivate|workingset_\\w+|thp_\\w+"
_VM_COUNTERS = (
    "pgfault|pgmajfault|pgpgin|pgpgout|pswpin|pswpout|pgalloc_\\w+|pgfree|pgactivate|pgdeactivate|pgrefill|pgscan_\\w+|pgsteal_\\w+|"
    "workingset_(refault|activate|restore)_\\w+|slabs_scanned|drop_\\w+"
)

# (name, kind, floor: a number or the unit in which 2 % of MemTotal is meant, family); the first match counts
SERIES: list[tuple[re.Pattern[str], str, float | str, str]] = [
    (re.compile(rf"^(?:{pattern})$"), kind, floor, family)
    for pattern, kind, floor, family in (
        (rf"meminfo\.({_MEMORY})_kB", LEVEL, "kB", "host memory"),
        (r"meminfo\.HugePages_(Total|Free|Rsvd|Surp)", LEVEL, 4, "host memory"),
        (r"buddy\.(DMA32|Normal)\.(\d+)", LEVEL, "blocks", "buddy"),
        (r"cg\.[^.]+\.(current|swap_current|peak)", LEVEL, "bytes", "cgroup"),
        (rf"cg\.[^.]+\.stat\.({_CG_LEVELS})", LEVEL, "bytes", "cgroup"),
        (r"cg\.[^.]+\.(events|swap_events)\.(low|high|max|oom|oom_kill|oom_group_kill|fail)", COUNTER, 10, "cgroup"),
        (rf"cg\.[^.]+\.stat\.({_CG_COUNTERS})", COUNTER, 2000, "cgroup"),
        (r"cg\.[^.]+\.psi\.(memory|io)\.(some|full)\.total_us", COUNTER, 500_000, "psi"),
        (r"psi\.(memory|io)\.(some|full)\.total_us", COUNTER, 500_000, "psi"),
        (r"proc\..+\.(rss|swap|RssAnon|RssFile|RssShmem)_kB", LEVEL, "kB", "process"),
        (r"proc\..+\.(VmPTE|VmSize|HugetlbPages|VmLck)_kB", LEVEL, 512, "process"),
        (r"proc\..+\.oom_score", LEVEL, 20, "process"),
        (r"proc\..+\.progress_bytes", COUNTER, 8 << 20, "process"),
        (r"proc\..+\.(minflt|majflt)", COUNTER, 2000, "process"),
        (r"vmstat\.(pgscan_direct\w*|pgsteal_direct\w*)", COUNTER, 50_000, "reclaim and faults"),
        (r"vmstat\.allocstall_\w+", COUNTER, 2000, "reclaim and faults"),
        (rf"vmstat\.({_VM_COUNTERS})", COUNTER, 2000, "reclaim and faults"),
        (r"vmstat\.(kswapd_\w+|pageoutrun|oom_kill|compact_(stall|fail|success|daemon_wake)|thp_\w+)", COUNTER, 20, "reclaim and faults"),
        (r"vmstat\.compact_\w+", COUNTER, 2000, "reclaim and faults"),
        (r"(meminfo\.(Zswap|Zswapped)|swaps\.\w+\.used)_kB", LEVEL, "kB", "host memory"),
        (r"zram0\.(orig_data_size|compr_data_size|mem_used_total)|zswap\.pool_total_size", LEVEL, "bytes", "host memory"),
        (r"cg\.[^.]+\.zswap_current", LEVEL, "bytes", "cgroup"),
        (r"vmstat\.zswp(in|out)|zram0\.failed_writes", COUNTER, 2000, "reclaim and faults"),
        (r"vmstat\.nr_(dirty|writeback|dirtied|written)", LEVEL, 2000, "host memory"),
    )
]
_KILL = re.compile(r"\[\s*([\d.]+)\].*Killed process \d+ \(([^)]*)\)")
_STAMP = re.compile(r"\[\s*([\d.]+)\]")

Column = tuple[list[float], list[float]]  # times, values; cells that are empty or no number are left out
Kill = tuple[float, str]  # seconds since t0, victim


@dataclass(frozen=True)
class SeriesError:
    name: str
    err: float  # 0..1
    family: str
    missing: bool = False


@dataclass(frozen=True)
class Score:
    experiment: str
    series: tuple[SeriesError, ...]
    recorded_kills: tuple[Kill, ...]
    simulated_kills: tuple[Kill, ...]

    @property
    def median(self) -> float:
        return statistics.median(s.err for s in self.series) if self.series else 0.0

    @property
    def within_15(self) -> float:
        """Share of series with an error of at most 15 %."""
        return sum(s.err <= 0.15 for s in self.series) / len(self.series) if self.series else 1.0

    @property
    def victims_right(self) -> bool:
        return [name for _, name in self.recorded_kills] == [name for _, name in self.simulated_kills]

    @property
    def kill_errors_s(self) -> list[float]:
        return [abs(a - b) for (a, _), (b, _) in zip(self.recorded_kills, self.simulated_kills, strict=False)]


def load(folder: Path) -> tuple[dict[str, Column], list[Kill]]:
    """Columns and kills of one folder (BadInput if it cannot be read)."""
    columns: dict[str, Column] = {}
    try:
        with gzip.open(folder / "trace.csv.gz", "rt", newline="") as f:
            rows = csv.reader(f)
            names = next(rows)
            columns = {name: ([], []) for name in names}
            at = names.index("time_s")
            for row in rows:
                t = float(row[at])
                for name, text in zip(names, row, strict=False):
                    add_cell(columns[name], t, text)
        log = (folder / "dmesg.txt").read_text(errors="replace")
    except (OSError, EOFError, StopIteration, ValueError) as e:
        raise BadInput(f"is not a recording: {e or 'it is empty'}", file=folder) from None
    kills, t0 = [], 0.0
    for line in log.splitlines():
        if "wl: t0" in line and (match := _STAMP.search(line)):
            t0 = float(match[1])
        if match := _KILL.search(line):
            kills.append((float(match[1]) - t0, match[2]))
    return columns, kills


def add_cell(column: Column, t: float, text: str) -> None:
    if not text:
        return
    try:
        value = float(text)
    except ValueError:
        return  # a letter such as the process state
    column[0].append(t)
    column[1].append(value)


def quantile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def spread(values: Sequence[float], kind: str) -> float:
    return max(values) - min(values) if kind == LEVEL else abs(values[-1] - values[0])


def floor_of(floor: float | str, name: str, total_kb: float) -> float:
    if not isinstance(floor, str):
        return floor
    if floor == "blocks":
        order = int(name.rsplit(".", 1)[1])
        return total_kb * FLOOR_SHARE / (4 << order)
    return total_kb * FLOOR_SHARE * (1024 if floor == "bytes" else 1)


def series_error(recorded: Column, simulated: Column, kind: str, floor: float) -> float:
    """The error of one series that counts."""
    times, values = recorded
    s_times, s_values = simulated
    scale = max(quantile(values, 0.99) - quantile(values, 0.01) if kind == LEVEL else abs(values[-1] - values[0]), floor)
    base, s_base = (values[0], s_values[0]) if kind == COUNTER else (0.0, 0.0)
    errors = []
    for t, value in zip(times, values, strict=True):
        i = bisect_right(s_times, t + 1e-9) - 1
        known = i >= 0 and t - s_times[i] <= STALE_S
        errors.append(abs((s_values[i] - s_base) - (value - base)) / scale if known else 1.0)
    return min(1.0, statistics.fmean(errors))


def score(recording: Path, simulated: Path) -> Score:
    """Compare two folders of the recordings' format."""
    real, real_kills = load(recording)
    sim, sim_kills = load(simulated)
    total_kb = real["meminfo.MemTotal_kB"][1][0]
    errors = []
    for name, column in real.items():
        rule = next((r for r in SERIES if r[0].match(name)), None)
        if rule is None or len(column[1]) < 2:
            continue
        _, kind, raw_floor, family = rule
        floor = floor_of(raw_floor, name, total_kb)
        other = sim.get(name, ([], []))
        present = len(other[1]) > 1
        if not (spread(column[1], kind) > floor or (present and spread(other[1], kind) > floor)):
            continue
        err = round(series_error(column, other, kind, floor), 4) if present else 1.0
        errors.append(SeriesError(name, err, family, not present))
    return Score(recording.name, tuple(errors), tuple(real_kills), tuple(sim_kills))
