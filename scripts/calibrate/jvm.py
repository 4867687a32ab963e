# SPDX-License-Identifier: Apache-2.0
"""The JVM under load: pauses against what survives and lives, collections against eden, resident memory against heap.

`make measure PROGRAM=jvm`. Allocator.java allocates at a pace with a live set and a share that survives; the log of the collector and
/proc say what came of it. Pauses are wall-clock and noisy on a busy machine: beside each is its processor time, which is not.
Leaves out: a heap that is swapped out (the record says whether the machine has swap), Parallel, ZGC, Shenandoah.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from scripts.calibrate.gc_log import Pause, parse, slope
from scripts.calibrate.process import folder_of_its_own, status, unprivileged
from scripts.calibrate.record import Run, record, repeated

SOURCE = Path(__file__).with_name("Allocator.java")
RUN_S = 60
SECONDS = 4
# (collector, -Xmx MiB, live MiB, allocation MiB/s, share that survives in percent)
LOADS = (
    ("G1", 1024, 100, 300, 2),
    ("G1", 1024, 400, 300, 2),
    ("G1", 1024, 400, 300, 20),
    ("G1", 2048, 400, 300, 20),
    ("G1", 2048, 400, 100, 20),
    ("Serial", 1024, 100, 300, 2),
    ("Serial", 1024, 400, 300, 2),
    ("Serial", 1024, 400, 300, 20),
)


@dataclass
class Outcome:
    said: dict[str, float]  # what Allocator printed, and `NAME_rss_kib` at each of its marks
    pauses: list[Pause]
    exit_code: int
    words: str  # whatever else was printed


def version() -> str:
    text = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"Server VM \(build ([^,)]+)", text)
    return found[1] if found else text.splitlines()[0]


@contextlib.contextmanager
def compiled() -> Iterator[Path]:
    with folder_of_its_own() as folder:
        shutil.copy(SOURCE, folder)  # the repository may lie where nobody else can read
        source = str(folder / SOURCE.name)
        subprocess.run(["javac", "-d", str(folder), source], check=True, stdin=subprocess.DEVNULL, **unprivileged())
        yield folder


def run(folder: Path, options: Sequence[str], *arguments: str, at_the_end: Callable[[int], dict[str, float]] | None = None) -> Outcome:
    """Allocator with these options of java; at each mark it prints its RSS is read. `at_the_end` looks at the process before it goes."""
    log = folder / "gc.log"
    log.unlink(missing_ok=True)
    command = ["java", *options, f"-Xlog:gc*:file={log}:uptime,tags", "-cp", str(folder), "Allocator", *arguments]
    said: dict[str, float] = {}
    other = []
    with (folder / "errors").open("w+") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=folder, text=True, **unprivileged()
        )
        with process:
            assert process.stdout
            for line in process.stdout:
                name, _, value = line.partition(" ")
                if re.fullmatch(r"[a-z_]+", name) and value.strip().isdigit():
                    said[name] = float(value)
                    if name.endswith("_at_ms"):
                        now = status(process.pid)
                        said[name.replace("_at_ms", "_rss_kib")] = now["VmRSS"]
                        said[name.replace("_at_ms", "_peak_rss_kib")] = now["VmHWM"]
                    if name == "over_at_ms":
                        said |= at_the_end(process.pid) if at_the_end else {}
                        break
                else:
                    other.append(line)
            with contextlib.suppress(BrokenPipeError):
                process.communicate("\n", timeout=RUN_S)  # lets it go
        errors.seek(0)
        lines = log.read_text().splitlines() if log.exists() else []
        return Outcome(said, parse(lines), process.returncode, "".join(other) + errors.read())


def of_kind(pauses: Sequence[Pause], *kinds: str) -> list[Pause]:
    return [pause for pause in pauses if pause.kind in kinds]


# ------------------------------------------------------------------------------------------------------------ under load


def loaded(folder: Path, seen: list[Pause], collector: str, heap: int, live: int, rate: int, survive: int) -> Run:
    """Some seconds at a steady pace; the pauses of the whole run are kept in `seen` for the fit."""
    options = [f"-XX:+Use{collector}GC", f"-Xmx{heap}m"]
    outcome = run(folder, options, f"live={live}", f"rate={rate}", f"survive={survive}", f"seconds={SECONDS}")
    said = outcome.said
    seen += outcome.pauses
    steady = [pause for pause in outcome.pauses if said["filled_at_ms"] <= 1000 * pause.at_s <= said["done_at_ms"]]
    young = of_kind(steady, "young", "mixed")
    seconds = (said["done_at_ms"] - said["filled_at_ms"]) / 1000
    full = of_kind(outcome.pauses, "full")[-1]
    return {
        "allocated_mib": said["allocated_mib"],
        "young_per_s": len(young) / seconds,
        "allocated_per_young_mib": said["allocated_mib"] / len(young) if young else None,
        "copied_per_young_mib": median([pause.copied_mib or 0.0 for pause in young]) if young else None,
        "young_pause_median_ms": median([pause.ms for pause in young]) if young else None,
        "young_pause_max_ms": max((pause.ms for pause in young), default=None),
        "young_processor_mean_ms": sum(pause.processor_ms for pause in young) / len(young) if young else None,
        "mixed_count": len(of_kind(steady, "mixed")),
        "remark_count": len(of_kind(steady, "remark")),
        "remark_pause_max_ms": max((pause.ms for pause in of_kind(steady, "remark")), default=None),
        "full_in_load_count": len(of_kind(steady, "full")),
        "last_full_pause_ms": full.ms,
        "last_full_processor_ms": full.processor_ms,
        "last_full_left_mib": full.after_mib,
        "filled_rss_kib": said["filled_rss_kib"],
        "done_committed_mib": said["done_committed_mib"],
        "done_rss_kib": said["done_rss_kib"],
        "peak_rss_kib": said["over_peak_rss_kib"],
    }


def fit(seen: Sequence[Pause]) -> Run:
    """How long a young pause takes, as a line over what it copied; and the same in processor time, of all threads together."""
    young = [pause for pause in of_kind(seen, "young", "mixed") if pause.copied_mib is not None]
    wall_slope, wall_rest = slope([(pause.copied_mib or 0.0, pause.ms) for pause in young])
    cpu_slope, cpu_rest = slope([(pause.copied_mib or 0.0, pause.processor_ms) for pause in young])
    full = of_kind(seen, "full")
    return {
        "young_pauses_count": len(young),
        "young_pause_per_copied_mib_ms": wall_slope,
        "young_pause_at_nothing_copied_ms": wall_rest,
        "young_processor_per_copied_mib_ms": cpu_slope,
        "young_processor_at_nothing_copied_ms": cpu_rest,
        "young_processor_total_per_copied_mib_ms": sum(p.processor_ms for p in young) / sum(p.copied_mib or 0.0 for p in young),
        "full_pause_per_left_gib_ms": median(pause.ms / pause.after_mib * 1024 for pause in full),
        "full_processor_per_left_gib_ms": median(pause.processor_ms / pause.after_mib * 1024 for pause in full),
    }


def loads(folder: Path) -> list[dict[str, Any]]:
    records = []
    # Repeat by repeat, so that each repeat has a fit of its own.
    seen: dict[str, list[list[Pause]]] = {}
    for collector, heap, live, rate, survive in LOADS:
        of_this: list[list[Pause]] = []

        def once(collector: str = collector, heap: int = heap, live: int = live, rate: int = rate, survive: int = survive) -> Run:
            of_this.append([])  # noqa: B023 - called before the loop goes on
            return loaded(folder, of_this[-1], collector, heap, live, rate, survive)  # noqa: B023

        runs = repeated(f"jvm: {collector}, heap {heap}, live {live}, {rate} MiB/s, {survive} % survive", once)
        parameters = {"collector": collector, "heap_mib": heap, "live_mib": live, "alloc_mib_per_s": rate, "survive_percent": survive}
        records.append(record("jvm", version(), "load", parameters, runs))
        kept = seen.setdefault(collector, [[] for _ in of_this])
        for repeat, pauses in enumerate(of_this):
            kept[repeat] += pauses
    for collector, repeats in seen.items():
        records.append(record("jvm", version(), "pause fit", {"collector": collector}, [fit(pauses) for pauses in repeats]))
    return records


def measure() -> list[dict[str, Any]]:
    with compiled() as folder:
        return loads(folder)
