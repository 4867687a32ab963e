# SPDX-License-Identifier: Apache-2.0
"""A measurement as a record: which program on which machine, with which parameters, and each figure's min, median and max.

Every figure's name ends in its unit (`_bytes`, `_kib`, `_ms`, `_us`, `_percent`, `_ratio`, `_count`…). A figure that is text (a message,
an exit status) must be the same in every repeat.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "ground_truth" / "calibration"
MODEL = "model"  # beside the records, but not one of them: what the models say (compare.py)
REPEATS = 3
Figure = float | int | str | None
Run = Mapping[str, Figure]


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Min, median and max: counts exactly, fractions to five significant digits."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return {"min": short(low), "median": short(middle), "max": short(high), "n": len(values)}


def short(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(f"{value:.5g}")


def figures_of(runs: Sequence[Run]) -> dict[str, Any]:
    """The spread of each figure over the repeats; a figure that a repeat lacks (None) is taken over the others."""
    if len(runs) < REPEATS:
        raise ValueError(f"{len(runs)} repeats; a measurement needs at least {REPEATS}")
    figures: dict[str, Any] = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        values = [run[name] for run in runs if run.get(name) is not None]
        if any(isinstance(value, str) for value in values):
            if len(set(values)) != 1:
                raise ValueError(f"{name} differs between repeats: {sorted(set(map(str, values)))}")
            figures[name] = values[0]
        elif values:
            figures[name] = spread([float(value) for value in values if value is not None])
    return figures


def first_line(path: str, start: str = "") -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((line for line in lines if line.startswith(start)), "unknown")


def machine() -> dict[str, Any]:
    """What a figure depends on besides the program: kernel, processor, memory, THP and overcommit as they are set here."""
    memory_kib = int(first_line("/proc/meminfo", "MemTotal").split()[1])
    swap_kib = int(first_line("/proc/meminfo", "SwapTotal").split()[1])
    thp = first_line("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "kernel": platform.release(),
        "cpu_model": first_line("/proc/cpuinfo", "model name").partition(":")[2].strip(),
        "cpus": os.cpu_count(),
        "memory_mib": memory_kib // 1024,
        "swap_mib": swap_kib // 1024,
        "thp": thp[thp.find("[") + 1 : thp.find("]")],
        "overcommit_memory": first_line("/proc/sys/vm/overcommit_memory"),
    }


def record(program: str, version: str, measurement: str, parameters: Mapping[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "program": program,
        "version": version,
        "measurement": measurement,
        "parameters": dict(parameters),
        "figures": figures_of(runs),
        "when": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        **machine(),
    }


def repeated(what: str, measure: Callable[..., Run], *arguments: Any) -> list[Run]:
    """The measurement REPEATS times, each said on stderr as it is done."""
    runs = []
    for number in range(REPEATS):
        runs.append(measure(*arguments))
        print(f"{what}: {number + 1} of {REPEATS}", file=sys.stderr, flush=True)
    return runs


def write(name: str, records: Sequence[Mapping[str, Any]], folder: Path = FOLDER) -> Path:
    """One file of records, one figure on a line, so that a new measurement can be read as a difference."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(list(records), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read(folder: Path = FOLDER) -> list[dict[str, Any]]:
    paths = sorted(path for path in folder.glob("*.json") if path.stem != MODEL)
    return [entry for path in paths for entry in json.loads(path.read_text(encoding="utf-8"))]
