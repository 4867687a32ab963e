# SPDX-License-Identifier: Apache-2.0
"""What /proc says of zones: buddyinfo, pagetypeinfo and zoneinfo as text, byte for byte in the format of Linux 6.1 (mm/vmstat.c).

Leaves out: zones without pages (Movable and Device), single CPUs' lists (one stands for all).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fleetsim.linux import mm_types as mm
from fleetsim.linux.node_stat import NODE_VMSTAT, node_counts, pages_of_zone

MIGRATETYPES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")
ORDERS = 11
COUNT_MAX = 100_000  # pagetypeinfo stops counting there (it holds the zone's lock)
SPANNED_HOLE = 1  # page 0 of the machine is in no zone
LRU_NAMES = ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")


ZoneKey = tuple[int, str]  # node, name


def buddyinfo(zones: Mapping[ZoneKey, Sequence[int]]) -> str:
    """(node, zone name) → free blocks of order 0 to 10."""
    return "".join(f"Node {node}, zone {name:>8} " + "".join(f"{n:6d} " for n in blocks) + "\n" for (node, name), blocks in zones.items())


def pagetypeinfo(zones: Mapping[ZoneKey, tuple[Sequence[Sequence[int]], Sequence[int]]]) -> str:
    """(node, zone name) → (free blocks by type and order, pageblocks by type); types that are not given have none. The kernel prints
    the whole for each node."""
    nodes = sorted({node for node, _ in zones})
    return "".join(pagetypes_of_node({zone: zones[zone] for zone in zones if zone[0] == node}) for node in nodes)


def pagetypes_of_node(zones: Mapping[ZoneKey, tuple[Sequence[Sequence[int]], Sequence[int]]]) -> str:
    text = "Page block order: 9\nPages per block:  512\n\n"
    text += f"{'Free pages count per migrate type at order':<43} " + "".join(f"{order:6d} " for order in range(ORDERS)) + "\n"
    for (node, name), (lists, _) in zones.items():
        for i, kind in enumerate(MIGRATETYPES):
            counts = lists[i] if i < len(lists) else [0] * ORDERS
            cells = "".join(f"{'>' if n >= COUNT_MAX else ''}{min(n, COUNT_MAX):6d} " for n in counts)
            text += f"Node {node:4d}, zone {name:>8}, type {kind:>12} {cells}\n"
    text += f"\n{'Number of blocks type':<23}" + "".join(f"{kind:>12} " for kind in MIGRATETYPES) + "\n"
    for (node, name), (_, blocks) in zones.items():
        counts = [*blocks, *[0] * (len(MIGRATETYPES) - len(blocks))]
        text += f"Node {node}, zone {name:>8} " + "".join(f"{n:12d} " for n in counts) + "\n"
    return text


def zoneinfo(zones: Sequence[Mapping[str, Any]], per_node: Sequence[Mapping[str, int]]) -> str:
    """`per_node`: the lines of each node, shown in its first zone; every zone: node, name, pages, watermarks, protection, stats, lists,
    start_pfn."""
    text = ""
    shown = set()
    for zone in zones:
        text += f"Node {zone['node']}, zone {zone['name']:>8}\n"
        if zone["node"] not in shown:
            shown.add(zone["node"])
            text += "  per-node stats\n" + "".join(f"      {name:<12} {value}\n" for name, value in per_node[zone["node"]].items())
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


def free_lists(row: Any) -> dict[ZoneKey, Any]:
    """The zones of a host's record that have pages."""
    return {(int(zone["node"]), mm.ZONE_NAMES[int(zone["kind"])]): zone for zone in row["zones"] if zone["managed"]}


def node_lines(row: Any, node: int, vm: Mapping[str, int]) -> dict[str, int]:
    """The gauges of one node; what is counted for the host alone stands in its first."""
    counts = node_counts(row, node)
    lines = {name: counts[NODE_VMSTAT[name]] if name in NODE_VMSTAT else value if node == 0 else 0 for name, value in vm.items()}
    return lines | ({"nr_kernel_stack": counts["kernel_stack"] * 4} if "nr_kernel_stack" in lines else {})


def tree(row: Any, vm: Mapping[str, int]) -> dict[str, str]:
    """The three files of a host's record; `vm` is its /proc/vmstat."""
    zones = free_lists(row)
    types = {name: (zone["free_area"].tolist(), zone["pageblocks"].tolist()) for name, zone in zones.items()}
    files = {"buddyinfo": buddyinfo({name: np.sum(lists, axis=0).tolist() for name, (lists, _) in types.items()})}
    files["pagetypeinfo"] = pagetypeinfo(types)
    node = {
        name: value for name, value in vm.items() if list(vm).index("nr_inactive_anon") <= list(vm).index(name) < list(vm).index("pgpgin")
    }
    per_node = [node] if int(row["nr_nodes"]) == 1 else [node | node_lines(row, n, node) for n in range(int(row["nr_nodes"]))]
    rows, pfn, shown = row["cohorts"], SPANNED_HOLE, []
    for (number, name), zone in zones.items():
        z = mm.ZONE_NODE1 if number else mm.ZONE_NAMES.index(name)
        pages = pages_of_zone(rows, z)
        unreclaimable = int(row["kswapd"][number]["failures"] >= mm.MAX_RECLAIM_RETRIES)
        stats = {"nr_free_pages": int(zone["free"])}
        stats |= {f"nr_zone_{lru}": int(pages[rows["list"] == i].sum(dtype="i8")) for i, lru in enumerate(LRU_NAMES)}
        low = {mark: int(zone["wmark"][i]) for i, mark in enumerate(("min", "low", "high"))}
        managed = int(zone["managed"])
        shown.append(
            {
                "node": number,
                "name": name,
                "free": int(zone["free"]),
                "boost": int(zone["boost"]),
                **low,
                "spanned": managed,
                "present": managed,
                "managed": managed,
                "cma": 0,
            }
            | {
                "protection": zone["protection"].tolist(),
                "stats": stats,
                "unreclaimable": unreclaimable,
            }
            | {"pagesets": [(int(zone["pcp"].sum()), int(zone["pcp_high"]), int(zone["pcp_batch"]))], "start_pfn": pfn}
        )
        pfn = 4096 if z == 0 else 1 << 20
    return files | {"zoneinfo": zoneinfo(shown, per_node)}
