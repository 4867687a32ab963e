# SPDX-License-Identifier: Apache-2.0
"""The JVM beside its load: what it takes at its start, what it gives back, how it runs out of memory, and the defaults it chooses.

`make measure PROGRAM=jvm_memory`. Native memory is the JVM's own account (NativeMemoryTracking, jcmd); RSS is the kernel's.
Leaves out: direct buffers, class unloading, limits of a cgroup (`-XX:MaxRAM` stands for them: the JVM reckons from the same figure).
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from scripts.calibrate.jvm import compiled, of_kind, run, version
from scripts.calibrate.process import unprivileged
from scripts.calibrate.record import Run, record, repeated

MAX_RAM_MIB = (128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 65_536)
FLAGS = "MaxHeapSize InitialHeapSize G1HeapRegionSize MaxNewSize ReservedCodeCacheSize MetaspaceSize ThreadStackSize".split()
NATIVE = re.compile(r"-\s+(?P<name>[\w ]+?) \(reserved=\d+KB, committed=(?P<kib>\d+)KB\)")


def native_memory(pid: int) -> dict[str, float]:
    """What `jcmd PID VM.native_memory` calls committed, by category, in KiB."""
    command = ["jcmd", str(pid), "VM.native_memory", "summary"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, **unprivileged())
    return parse_native_memory(answer.stdout)


def parse_native_memory(text: str) -> dict[str, float]:
    return {f"committed_{found['name'].strip().lower().replace(' ', '_')}_kib": float(found["kib"]) for found in NATIVE.finditer(text)}


def at_start(folder: Path, collector: str, threads: int) -> Run:
    """A JVM that has done nothing: what is resident, and what it committed outside its heap."""
    options = [f"-XX:+Use{collector}GC", "-Xmx1g", "-XX:NativeMemoryTracking=summary"]
    said = run(folder, options, f"threads={threads}", at_the_end=native_memory).said
    native = {name: value for name, value in said.items() if name.startswith("committed_")}
    return {"rss_kib": said["done_rss_kib"], **native}


def given_back(folder: Path, collector: str) -> Run:
    """600 MiB let go: what is committed and resident then, after idle seconds, after a full collection, and after three more."""
    said = run(folder, [f"-XX:+Use{collector}GC", "-Xmx1g"], "live=600", "after=drop", "idle=2").said
    return {
        f"{mark}_{what}": said[f"{mark}_{what}"]
        for mark in ("done", "dropped", "collected", "over")
        for what in ("used_mib", "committed_mib", "rss_kib")
    }


def run_out(folder: Path, collector: str, option: str) -> Run:
    """A live set that cannot fit: what is printed, what the exit status is, and how many collections went before."""
    options = [f"-XX:+Use{collector}GC", "-Xmx64m", *([option] if option else [])]
    outcome = run(folder, options, "live=200")
    lines = (outcome.words or "nothing").splitlines()
    return {
        "exit_code": outcome.exit_code,
        "says": next((line for line in lines if "OutOfMemoryError" in line), lines[0]),
        "full_count": len(of_kind(outcome.pauses, "full")),
        "lived_s": outcome.pauses[-1].at_s,
    }


def defaults(option: str) -> Run:
    """The defaults a JVM chooses where the machine looks as `option` says."""
    command = ["java", option, "-XX:+PrintFlagsFinal", "-version"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
    flags = parse_flags(text)
    figures: dict[str, Any] = {f"{name}_{'kib' if name == 'ThreadStackSize' else 'bytes'}": int(flags[name]) for name in FLAGS}
    return {**figures, "collector": next(name for name in ("UseG1GC", "UseSerialGC", "UseParallelGC") if flags[name] == "true")}


def parse_flags(text: str) -> dict[str, str]:
    """`size_t MaxHeapSize = 268435456 {product} {ergonomic}`: name → value."""
    return dict(re.findall(r"^\s*\w+ (\w+)\s+=\s?(\S*)", text, re.MULTILINE))


def measure() -> list[dict[str, Any]]:
    records = []
    with compiled() as folder:
        for collector, threads in (("G1", 0), ("G1", 200), ("Serial", 0)):
            runs = repeated(f"jvm: at start, {collector}, {threads} threads", at_start, folder, collector, threads)
            records.append(record("jvm", version(), "at start", {"collector": collector, "heap_mib": 1024, "threads": threads}, runs))
        for collector in ("G1", "Serial"):
            runs = repeated(f"jvm: {collector} gives memory back", given_back, folder, collector)
            records.append(record("jvm", version(), "given back", {"collector": collector, "heap_mib": 1024, "live_mib": 600}, runs))
        for collector, option in (("G1", ""), ("Serial", ""), ("G1", "-XX:+ExitOnOutOfMemoryError")):
            runs = repeated(f"jvm: {collector} runs out of memory {option}", run_out, folder, collector, option)
            parameters = {"collector": collector, "heap_mib": 64, "live_mib": 200, "option": option or "none"}
            records.append(record("jvm", version(), "out of memory", parameters, runs))
    for option in (*(f"-XX:MaxRAM={mib}m" for mib in MAX_RAM_MIB), "-XX:ActiveProcessorCount=1", "-Xmx4g", "-Xmx16g", "-Xmx32g"):
        records.append(record("jvm", version(), "defaults", {"option": option}, repeated(f"jvm: {option}", defaults, option)))
    return records
