# SPDX-License-Identifier: Apache-2.0
"""`heap_violations` distrusts the allocators' tables: what they believe of their pages is what the kernel has.

Source: fleetsim's own bookkeeping (ARCHITECTURE.md: every page is in one place).
"""

from __future__ import annotations

from typing import Any

from fleetsim.allocators.glibc_heap import FIRST_BRK
from fleetsim.allocators.heap_rows import is_stale
from fleetsim.allocators.tables import NR_HEAPS
from fleetsim.linux.mm_types import TASK_RUNNING


def heap_violations(row: Any) -> list[str]:
    """What is wrong with the heaps of running tasks, in sentences."""
    found = []
    for h in range(NR_HEAPS):
        heap = row["heaps"][h]
        if is_stale(row, h) or row["tasks"][int(heap["task"])]["state"] != TASK_RUNNING:
            continue
        if heap["slab"] >= 0:
            found += slab_violations(row, h)
            continue
        places = [p for p in row["places"] if p["used"] and p["heap"] == h]
        believed = sum(int(p["pages"]) for p in places) + int(heap["top_pages"]) + int(heap["rest_pages"])
        groups = [row["groups"][int(row["areas"][int(a)]["group"])] for a in (heap["area"], heap["maps"]) if a >= 0]
        there = sum(int(g["resident"]) + int(g["swapped"]) for g in groups)
        if believed != there:
            found.append(f"heap {h} believes that {believed} of its pages are populated, the kernel has {there}")
        if int(heap["brk"]) - FIRST_BRK != int(row["areas"][int(heap["area"])]["pages"]):
            found.append(
                f"heap {h} ends at page {int(heap['brk'])}, its area has {int(row['areas'][int(heap['area'])]['pages'])} more than at first"
            )
        for place in places:
            if not 0 <= int(place["live"]) <= int(place["size"]) or int(place["pages"]) < 0 or int(place["keep"]) < 0:
                found.append(f"heap {h}: impossible counts in {place}")
    return found


def slab_violations(row: Any, h: int) -> list[str]:
    """The same of a heap of jemalloc or tcmalloc, and that it fits its mappings."""
    slab, area = row["slab_heaps"][int(row["heaps"][h]["slab"])], row["areas"][int(row["heaps"][h]["area"])]
    group = row["groups"][int(area["group"])]
    there, found = int(group["resident"]) + int(group["swapped"]), []
    if int(slab["pages"]) != there:
        found.append(f"heap {h} believes that {int(slab['pages'])} of its pages are populated, the kernel has {there}")
    if there > int(area["pages"]):
        found.append(f"heap {h} has {there} pages in mappings of {int(area['pages'])}")
    i, live = int(slab["head"]), int(slab["large_live"])
    while i >= 0:
        c = row["slab_classes"][i]
        live += int(c["live"])
        if not c["used"] or min(c["live"], c["slabs"], c["spare"]) < 0 or not 0 <= c["holey"] <= c["slabs"]:
            found.append(f"heap {h}: impossible counts in {c}")
        i = int(c["next"])
    if live != int(slab["live"]) or min(slab["pool"]) < 0:
        found.append(f"heap {h} counts {int(slab['live'])} live blocks, its classes {live}; free pages {slab['pool']}")
    return found
