# SPDX-License-Identifier: Apache-2.0
"""What /sys says of memory, as text, byte for byte in the format of Linux 6.1: nodes, and in debugfs how free memory is cut up.

    devices/system/node/node0/{meminfo,numastat,vmstat,distance,cpulist}     drivers/base/node.c
    kernel/debug/extfrag/{unusable_index,extfrag_index}                      mm/vmstat.c

Leaves out: more than one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fleetsim.linux import vmstat as kernel
from fleetsim.linux.free_area import blocks_at_least
from fleetsim.linux.page_alloc import fragmentation_index, unusable_free_index
from fleetsim.linux.vmstat_names import MEMINFO_FIELDS, VMSTAT_FIELDS
from fleetsim.userland.proc_zones import ORDERS, free_lists

KB = 4  # of a page
NODE_MEMINFO = (  # lines after SwapCached, kB
    "Active Inactive Active(anon) Inactive(anon) Active(file) Inactive(file) Unevictable Mlocked Dirty Writeback FilePages Mapped "
    "AnonPages Shmem KernelStack PageTables SecPageTables NFS_Unstable Bounce WritebackTmp KReclaimable Slab SReclaimable SUnreclaim "
    "AnonHugePages ShmemHugePages ShmemPmdMapped FileHugePages FilePmdMapped"
).split()
ONE_NARROWER = ("FileHugePages", "FilePmdMapped")
NODE_STATS_END = "nr_dirty_threshold"  # the first line of /proc/vmstat that no node has
NUMASTAT = {
    "numa_hit": "numa_hit",
    "numa_miss": "numa_miss",
    "numa_foreign": "numa_foreign",
    "interleave_hit": "numa_interleave",
    "local_node": "numa_local",
    "other_node": "numa_other",
}


def node_meminfo(node: int, kb: Mapping[str, int], huge: Mapping[str, int]) -> str:
    """`kb`: MemTotal MemFree SwapCached and NODE_MEMINFO; `huge`: HugePages_Total, _Free and _Surp."""
    values = {
        "MemTotal": kb["MemTotal"],
        "MemFree": kb["MemFree"],
        "MemUsed": kb["MemTotal"] - kb["MemFree"],
        "SwapCached": kb["SwapCached"],
    }
    values |= {name: kb[name] for name in NODE_MEMINFO}
    width = {name: 14 if name in ONE_NARROWER else 15 for name in values}
    text = "".join(f"Node {node} {name + ':':<{width[name]}} {value:8d} kB\n" for name, value in values.items())
    return text + "".join(
        f"Node {node} {name + ':':<16} {huge[name]:5d}\n" for name in ("HugePages_Total", "HugePages_Free", "HugePages_Surp")
    )


def numastat(vm: Mapping[str, int]) -> str:
    return "".join(f"{name} {vm[counter]}\n" for name, counter in NUMASTAT.items())


def node_vmstat(vm: Mapping[str, int]) -> str:
    names = list(vm)
    return "".join(f"{name} {vm[name]}\n" for name in names[: names.index(NODE_STATS_END)])


def distance(distances: Sequence[int]) -> str:
    return " ".join(map(str, distances)) + "\n"


def cpulist(first: int, last: int) -> str:
    return f"{first}-{last}\n" if last > first else f"{first}\n"


def index_line(node: int, zone: str, indices: Sequence[int], width: int) -> str:
    """Thousandths with a decimal point, as C's / and % cut them: towards zero."""
    cells = []
    for index in indices:
        whole, rest = (abs(index) // 1000, abs(index) % 1000) if index >= 0 else (-(-index // 1000), -(-index % 1000))
        cells.append(f"{whole:{width}d}.{rest:03d} ")
    return f"Node {node}, zone {zone:>8} " + "".join(cells) + "\n"


def extfrag(zones: Mapping[str, Any]) -> dict[str, str]:
    """Both files of debugfs: zone name → its row."""
    unusable, index = "", ""
    for name, zone in zones.items():
        pages, blocks = int(zone["free"]), int(zone["free_area"].sum())
        fitting = [int(blocks_at_least(zone, order)) for order in range(ORDERS)]
        unusable += index_line(0, name, [int(unusable_free_index(pages, fitting[o], o)) for o in range(ORDERS)], 0)
        index += index_line(0, name, [int(fragmentation_index(blocks, pages, fitting[o], o)) for o in range(ORDERS)], 2)
    return {"kernel/debug/extfrag/unusable_index": unusable, "kernel/debug/extfrag/extfrag_index": index}


def tree(row: Any) -> dict[str, str]:
    """The files of a host's record, by path below /sys."""
    lines, counters = np.zeros(len(MEMINFO_FIELDS), dtype=np.int64), np.zeros(len(VMSTAT_FIELDS), dtype=np.int64)
    kernel.meminfo(row, lines)
    kernel.vmstat(row, counters)
    info, vm = dict(zip(MEMINFO_FIELDS, lines.tolist(), strict=True)), dict(zip(VMSTAT_FIELDS, counters.tolist(), strict=True))
    kb = {name: info.get(name, 0) for name in ("MemTotal", "MemFree", "SwapCached", *NODE_MEMINFO)}
    kb["FilePages"] = vm["nr_file_pages"] * KB
    node = "devices/system/node/"
    files = {
        f"{node}online": "0\n",
        f"{node}possible": "0\n",
        f"{node}has_memory": "0\n",
        f"{node}has_cpu": "0\n",
        f"{node}node0/meminfo": node_meminfo(0, kb, info),
        f"{node}node0/numastat": numastat(vm),
        f"{node}node0/vmstat": node_vmstat(vm),
        f"{node}node0/distance": distance([10]),
        f"{node}node0/cpulist": cpulist(0, int(row["cpus"]) - 1),
    }
    return files | extfrag(free_lists(row))
