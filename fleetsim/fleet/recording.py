# SPDX-License-Identifier: Apache-2.0
"""Kernel recordings: reading an experiment, writing a simulated run in the same format.

A folder holds `experiment.json` (machine, files, cgroups, processes with their ops), `start.json` (what was known at the
start), `trace.csv.gz` (one row per sample, a column per counter) and `dmesg.txt`. A replay may use `experiment.json` and,
of `start.json`, only the keys in `KNOWN_AT_START`: everything else in it is the answer.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fleetsim.errors import BadInput
from fleetsim.fleet.recorded_swap import DRIVER_NOISE, swaps_of, zswap_of
from fleetsim.host.spec import CgroupSpec, DiskSpec, HostSpec, TaskSpec
from fleetsim.workloads.script_ops import nodes_of

KNOWN_AT_START = (
    "MemTotal_kB SwapTotal_kB kernel cmdline cpus zones buddyinfo_start pagetypeinfo_start slabinfo_start swaps_start "
    "sysctl_vm sysfs meminfo_before_t0"
).split()
MIB = 1 << 20
EMULATED_DISK = DiskSpec(bytes_per_s=20_000_000_000, latency_us=45.0)
"""With a virtual clock the guest's disk is as fast as its host: about 47 µs per 32-page read (prototype, e04's IO pressure)."""
LAB_TMPFS = {"/shm": 2048 * MIB}
"""The recorder's init mounts one tmpfs with size=2G (`files_note` of each experiment)."""
SUFFIX = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Experiment:
    name: str
    spec: HostSpec
    duration_s: float
    sample_s: float
    cgroups: tuple[str, ...]
    tasks: tuple[TaskSpec, ...]


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as e:
        raise BadInput(f"cannot be read ({e.strerror}); an experiment folder holds experiment.json and start.json", file=path) from None
    except ValueError as e:
        raise BadInput(f"is not JSON ({e})", file=path) from None


def bytes_of(text: str) -> int:
    """`200M`, `max`, `0`: the value of a cgroup file, bytes; −1 is max."""
    if text == "max":
        return -1
    match = re.fullmatch(r"(\d+)([KMG]?)", str(text))
    if not match:
        raise BadInput(f"{text!r} is not a size such as 200M or max")
    return int(match[1]) * SUFFIX.get(match[2], 1)


def limit_of(file: str, text: str) -> int:
    """What a cgroup's file was given: bytes, or for cpuset.mems a bit for each node."""
    return (nodes_of(str(text)) or 0) if file == "cpuset.mems" else bytes_of(text)


def meminfo_kb(text: str) -> dict[str, int]:
    pairs = (line.split(":") for line in text.splitlines() if ":" in line)
    return {key: int(value.split()[0]) for key, value in pairs}


def slabs_of(text: str) -> dict[str, tuple[int, int]]:
    """/proc/slabinfo: objects in use and slabs of each cache."""
    fields = (line.split() for line in text.splitlines() if " : slabdata" in line and line[0] != "#")
    return {f[0]: (int(f[1]), int(f[14])) for f in fields}


def directories_of(note: str) -> dict[str, int]:
    """`/data/many/d0..d29/f0..f999` in the note about the files: what lies below which directory."""
    return {m[1]: (int(m[2]) + 1) * (int(m[3]) + 1) for m in re.finditer(r"(/\S+)/d0\.\.d(\d+)/f0\.\.f(\d+)", note)}


def disk_of(machine: Mapping[str, Any], which: str) -> DiskSpec:
    disk = machine.get("disks", {}).get(which)
    if machine.get("icount") or not disk:
        return EMULATED_DISK
    return DiskSpec(bytes_per_s=int(disk["bps_total"]), latency_us=1e6 / disk["iops_total"])


def read_experiment(folder: Path) -> Experiment:
    """The host, and how long and how often it was watched (BadInput with the file if it cannot be used)."""
    given = read_json(folder / "experiment.json")
    start = {k: v for k, v in read_json(folder / "start.json").items() if k in KNOWN_AT_START}
    try:
        machine = given["machine"]
        tasks = tuple(
            TaskSpec(p["name"], tuple(p["ops"]), p["start_s"], p.get("cgroup") or "", p.get("oom_score_adj", 0)) for p in given["processes"]
        )
        cgroups = tuple(CgroupSpec(c["name"], "", {k: limit_of(k, v) for k, v in c.get("limits", {}).items()}) for c in given["cgroups"])
        sysctl = {k: int(v) for k, v in start["sysctl_vm"].items() if re.fullmatch(r"-?\d+", v)}
        sysctl |= {k.removeprefix("vm."): int(v) for k, v in machine.get("sysctl", {}).items() if re.fullmatch(r"-?\d+", str(v))}
        measured = {"MemTotal_kB": start["MemTotal_kB"], "zones": start["zones"], "meminfo": meminfo_kb(start["meminfo_before_t0"])}
        measured["pagetypeinfo"] = start.get("pagetypeinfo_start", "")
        measured["slabs"] = slabs_of(start.get("slabinfo_start", ""))
        swaps = swaps_of(start.get("swaps_start", ""), machine, partial(disk_of, machine))
        spec = HostSpec(
            name=given["name"],
            memory_bytes=machine["ram_MiB"] * MIB,
            cpus=start["cpus"],
            numa_nodes=machine.get("numa_nodes", 1),
            swap_bytes=0 if swaps else start["SwapTotal_kB"] * 1024,
            sysctl=sysctl,
            thp=machine.get("thp", "madvise"),
            lru_gen=machine.get("sysfs", {}).get("/sys/kernel/mm/lru_gen/enabled", "n"),
            lru_gen_min_ttl_ms=int(machine.get("sysfs", {}).get("/sys/kernel/mm/lru_gen/min_ttl_ms", 0)),
            cpu_profile="lab" if machine.get("icount") else "lab-tcg",
            disk=disk_of(machine, "data"),
            swap_disk=disk_of(machine, "swap"),
            swaps=swaps,
            zswap=zswap_of(start.get("cmdline", ""), machine, measured["meminfo"]),
            page_noise=DRIVER_NOISE,
            files={path: size * MIB for path, size in given.get("files_MiB", {}).items()},
            tmpfs=LAB_TMPFS,
            directories=directories_of(given.get("files_note", "")),
            cgroups=cgroups,
            tasks=tasks,
            measured=measured,
        )
        if given["duration_s"] <= 0 or given["sample_s"] <= 0:
            raise BadInput("duration_s and sample_s must be above 0", file=folder / "experiment.json")
        return Experiment(given["name"], spec, given["duration_s"], given["sample_s"], tuple(c.name for c in cgroups), tasks)
    except (KeyError, TypeError, AttributeError) as e:
        raise BadInput(f"is not an experiment: {type(e).__name__} {e}", file=folder / "experiment.json") from None


def write_trace(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """`trace.csv.gz`: the union of all rows' columns, in the order they first appear; an empty cell did not exist then.
    The same rows give the same bytes (no time stamp in the gzip header)."""
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with path.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as f:
        f.write(text.getvalue().encode())
