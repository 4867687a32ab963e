# SPDX-License-Identifier: Apache-2.0
"""Takes recordings of the real kernel into tests/ground_truth: `.venv/bin/python scripts/add-ground-truth.py RECORDING_DIR…`.

Kept are the trace, the experiment, what was known at its start, and of the kernel's log the reports of kills.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

TRUTH = Path(__file__).resolve().parents[1] / "tests" / "ground_truth"
KNOWN_AT_START = (
    "MemTotal_kB SwapTotal_kB kernel cmdline cpus zones buddyinfo_start pagetypeinfo_start slabinfo_start swaps_start sysctl_vm sysfs "
    "meminfo_before_t0"
).split()
ENDS = re.compile(r"Killed process|are going to be killed|oom_reaper|Kernel panic")


def reports(log: str) -> list[str]:
    """The mark of t = 0, and every OOM report without its call trace."""
    kept, inside, trace = [], False, False
    for line in log.splitlines():
        if "invoked oom-killer" in line:
            inside, trace = True, True
            kept.append(line)
            continue
        if "Mem-Info:" in line or "memory: usage" in line:
            trace = False
        if "wl: t0" in line or (inside and not trace) or ENDS.search(line):
            kept.append(line)
        inside = inside and not ENDS.search(line)
    return kept


def add(recording: Path) -> None:
    folder = TRUTH / recording.name
    folder.mkdir(exist_ok=True)
    for name in ("trace.csv.gz", "experiment.json"):
        shutil.copyfile(recording / name, folder / name)
        (folder / name).chmod(0o644)
    start = json.loads((recording / "start.json").read_text())
    (folder / "start.json").write_text(json.dumps({key: start[key] for key in start if key in KNOWN_AT_START}, indent=1) + "\n")
    (folder / "dmesg.txt").write_text("\n".join(reports((recording / "dmesg.txt").read_text(errors="replace"))) + "\n")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        add(Path(argument))
