# SPDX-License-Identifier: Apache-2.0
"""HotSpot's unified log as pauses: kind, length, processor time, the heap before and after, and what was copied.

Reads `-Xlog:gc*:file=…:uptime,tags` of JDK 17's G1 and Serial. Copied by a young collection is what it left in the survivor space and
what it added to the old generation. G1 logs regions (their size is in its first lines); Serial logs KiB.
Source: the log itself; JEP 158 (unified logging), JEP 271 (its lines for garbage collection).
Leaves out: Parallel, ZGC, Shenandoah; times of phases within a pause.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

LINE = re.compile(r"\[(?P<at>[\d.]+)s\]\[(?P<tags>[\w, ]+?)\s*\] (?:GC\((?P<id>\d+)\) )?(?P<text>.*)")
PAUSE = re.compile(r"Pause (?P<what>.+?) (?:(?P<before>\d+)M->(?P<after>\d+)M\((?P<committed>\d+)M\) )?(?P<ms>[\d.]+)ms$")
CPU = re.compile(r"User=(?P<user>[\d.]+)s Sys=(?P<sys>[\d.]+)s Real=(?P<real>[\d.]+)s")
REGION_SIZE = re.compile(r"Heap Region Size: (\d+)M")
REGIONS = re.compile(r"(?P<space>Eden|Survivor|Old) regions: (?P<before>\d+)->(?P<after>\d+)")
KIB = re.compile(r"(?P<space>DefNew|Tenured): (?P<before>\d+)K\(\d+K\)->(?P<after>\d+)K\(\d+K\)")


@dataclass
class Pause:
    at_s: float  # when it ended, seconds since the JVM's start
    kind: str  # young, mixed, remark, cleanup, full
    why: str  # as the log says it: `Young (Normal) (G1 Evacuation Pause)`
    ms: float
    before_mib: int
    after_mib: int
    committed_mib: int
    processor_ms: float = 0.0  # user and system, of all its threads; the log rounds to 10 ms
    copied_mib: float | None = None  # young and mixed collections only


def kind_of(what: str) -> str:
    if what.startswith("Young"):
        return "mixed" if "(Mixed)" in what else "young"
    return what.split()[0].lower()


def parse(lines: Iterable[str]) -> list[Pause]:
    """The pauses in the order in which they ended. A log that ends in the middle of one gives those before."""
    region_mib = 1
    spaces: dict[str, dict[str, tuple[float, float]]] = {}
    last: dict[str, Pause] = {}
    pauses = []
    for line in lines:
        found = LINE.match(line.strip())
        if not found:
            continue
        text, number = found["text"], found["id"]
        if size := REGION_SIZE.match(text):
            region_mib = int(size[1])
        elif regions := REGIONS.match(text):
            sizes = (int(regions["before"]) * region_mib, int(regions["after"]) * region_mib)
            spaces.setdefault(number, {})[regions["space"]] = sizes
        elif kib := KIB.match(text):
            spaces.setdefault(number, {})[kib["space"]] = (int(kib["before"]) / 1024, int(kib["after"]) / 1024)
        elif (pause := PAUSE.match(text)) and "start" not in found["tags"]:
            heap = [int(pause[name] or 0) for name in ("before", "after", "committed")]
            kind = kind_of(pause["what"])
            last[number] = Pause(float(found["at"]), kind, pause["what"], float(pause["ms"]), *heap)
            if kind in ("young", "mixed"):
                last[number].copied_mib = copied(spaces.get(number, {}))
            pauses.append(last[number])
        elif (cpu := CPU.match(text)) and number in last:
            last[number].processor_ms = 1000 * (float(cpu["user"]) + float(cpu["sys"]))
    return pauses


def copied(spaces: dict[str, tuple[float, float]]) -> float | None:
    """MiB a young collection copied: into the survivor space, and onto what the old generation had (a mixed one also frees there)."""
    if "Survivor" in spaces and "Old" in spaces:
        return spaces["Survivor"][1] + max(0.0, spaces["Old"][1] - spaces["Old"][0])
    if "DefNew" in spaces and "Tenured" in spaces:
        return spaces["DefNew"][1] + max(0.0, spaces["Tenured"][1] - spaces["Tenured"][0])
    return None


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Theil and Sen's line through (x, y): the median of all pairs' slopes, and the median of what is left over at x = 0.

    A few pauses that a busy machine stretched do not move it, as they would move least squares.
    """
    pairs = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(points) for b in points[i + 1 :] if a[0] != b[0]]
    if not pairs:
        raise ValueError("a line needs two points that differ in x")
    steep = median(pairs)
    return steep, median(y - steep * x for x, y in points)
