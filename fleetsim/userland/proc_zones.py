# SPDX-License-Identifier: Apache-2.0
"""What /proc says of zones: buddyinfo, pagetypeinfo and zoneinfo as text, byte for byte in the format of Linux 6.1 (mm/vmstat.c).

Leaves out: several nodes, zones without pages (Movable and Device), single CPUs' lists (one stands for all).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fleetsim.linux import mm_types as mm

MIGRATETYPES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")
ORDERS = 11
COUNT_MAX = 100_000  # pagetypeinfo stops counting there (it holds the zone's lock)
SPANNED_HOLE = 1  # page 0 of the machine is in no zone
LRU_NAMES = ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")


def buddyinfo(zones: Mapping[str, Sequence[int]]) -> str:
    """zone name → free blocks of order 0 to 10."""
    return "".join(f"Node 0, zone {name:>8} " + "".join(f"{n:6d} " for n in blocks) + "\n" for name, blocks in zones.items())


def pagetypeinfo(zones: Mapping[str, tuple[Sequence[Sequence[int]], Sequence[int]]]) -> str:
    """zone name → (free blocks by type and order, pageblocks by type); types that are not given have none."""
    text = "Page block order: 9\nPages per block:  512\n\n"
    text += f"{'Free pages count per migrate type at order':<43} " + "".join(f"{order:6d} " for order in range(ORDERS)) + "\n"
    for name, (lists, _) in zones.items():
        for i, kind in enumerate(MIGRATETYPES):
            counts = lists[i] if i < len(lists) else [0] * ORDERS
            cells = "".join(f"{'>' if n >= COUNT_MAX else ''}{min(n, COUNT_MAX):6d} " for n in counts)
            text += f"Node {0:4d}, zone {name:>8}, type {kind:>12} {cells}\n"
    text += f"\n{'Number of blocks type':<23}" + "".join(f"{kind:>12} " for kind in MIGRATETYPES) + "\n"
    for name, (_, blocks) in zones.items():
        counts = [*blocks, *[0] * (len(MIGRATETYPES) - len(blocks))]
        text += f"Node 0, zone {name:>8} " + "".join(f"{n:12d} " for n in counts) + "\n"
    return text


def zoneinfo(zones: Sequence[Mapping[str, Any]], node: Mapping[str, int]) -> str:
    """`node`: the per-node lines, shown in the first zone; every zone: name, pages, watermarks, protection, stats, lists, start_pfn."""
    text = ""
    for i, zone in enumerate(zones):
        text += f"Node 0, zone {zone['name']:>8}\n"
        if i == 0:
            text += "  per-node stats\n" + "".join(f"      {name:<12} {value}\n" for name, value in node.items())
        text += f"  pages free     {zone['free']}\n"
        for name in ("boost", "min", "low", "high", "spanned", "present", "managed", "cma"):
            text += f"        {name:<8} {zone[name]}\n"
        text += f"        protection: ({', '.join(str(n) for n in zone['protection'])})\n"
        text += "".join(f"      {name:<12} {value}\n" for name, value in zone["stats"].items())
        text += "  pagesets\n"
        for cpu, (count, high, batch) in enumerate(zone["pagesets"]):
            text += f"    cpu: {cpu}\n              count: {count}\n              high:  {high}\n              batch: {batch}\n"
        text += f"  node_unreclaimable:  {zone['unreclaimable']}\n  start_pfn:           {zone['start_pfn']}\n"
    return text


def free_lists(row: Any) -> dict[str, Any]:
    """The zones of a host's record that have pages."""
    return {name: row["zones"][z] for z, name in enumerate(mm.ZONE_NAMES) if row["zones"][z]["managed"]}


def tree(row: Any, vm: Mapping[str, int]) -> dict[str, str]:
    """The three files of a host's record; `vm` is its /proc/vmstat."""
    zones = free_lists(row)
    types = {name: (zone["free_area"].tolist(), zone["pageblocks"].tolist()) for name, zone in zones.items()}
    files = {"buddyinfo": buddyinfo({name: np.sum(lists, axis=0).tolist() for name, (lists, _) in types.items()})}
    files["pagetypeinfo"] = pagetypeinfo(types)
    node = {
        name: value for name, value in vm.items() if list(vm).index("nr_inactive_anon") <= list(vm).index(name) < list(vm).index("pgpgin")
    }
    rows, pfn, shown = row["cohorts"], SPANNED_HOLE, []
    for name, zone in zones.items():
        z = mm.ZONE_NAMES.index(name)
        pages = rows["low_zone"][:, z] if z < 2 else rows["nr"] - rows["low_zone"].sum(axis=1)
        stats = {"nr_free_pages": int(zone["free"])}
        stats |= {f"nr_zone_{lru}": int(pages[rows["list"] == i].sum(dtype="i8")) for i, lru in enumerate(LRU_NAMES)}
        low = {mark: int(zone["wmark"][i]) for i, mark in enumerate(("min", "low", "high"))}
        managed = int(zone["managed"])
        shown.append(
            {
                "name": name,
                "free": int(zone["free"]),
                "boost": int(zone["boost"]),
                **low,
                "spanned": managed,
                "present": managed,
                "managed": managed,
                "cma": 0,
            }
            | {"protection": zone["protection"].tolist(), "stats": stats, "unreclaimable": int(row["kswapd"]["failures"] >= 16)}
            | {"pagesets": [(int(zone["pcp"].sum()), int(zone["pcp_high"]), int(zone["pcp_batch"]))], "start_pfn": pfn}
        )
        pfn = 4096 if z == 0 else 1 << 20
    return files | {"zoneinfo": zoneinfo(shown, node)}
