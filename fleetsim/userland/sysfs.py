# SPDX-License-Identifier: Apache-2.0
"""What /sys says of memory, as text, byte for byte in the format of Linux 6.1: NUMA nodes, zram, and in debugfs how free memory is cut up.

devices/system/node/nodeN/{meminfo,numastat,vmstat,distance,cpulist}     drivers/base/node.c
kernel/mm/hugepages/hugepages-{2048,1048576}kB/*                         mm/hugetlb.c
block/zram0/{mm_stat,io_stat,disksize}                                   drivers/block/zram/zram_drv.c (see procfs_swap.py)
kernel/debug/extfrag/{unusable_index,extfrag_index}                      mm/vmstat.c
kernel/debug/zswap/*                                                     mm/zswap.c (see procfs_swap.py)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fleetsim.linux import vmstat as kernel
from fleetsim.linux.cputime import cpu_to_node
from fleetsim.linux.free_area import blocks_at_least
from fleetsim.linux.node_stat import node_counts, node_numastat
from fleetsim.linux.page_alloc import fragmentation_index, unusable_free_index
from fleetsim.linux.vmstat_names import MEMINFO_FIELDS, VMSTAT_FIELDS
from fleetsim.userland.proc_zones import ORDERS, ZoneKey, free_lists, node_lines
from fleetsim.userland.procfs_swap import sys_block, zswap_debugfs

KB = 4  # of a page
NODES = "devices/system/node/"
LOCAL_DISTANCE, REMOTE_DISTANCE = 10, 21  # what the ACPI tables of servers with two sockets usually say
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


def extfrag(zones: Mapping[ZoneKey, Any]) -> dict[str, str]:
    """Both files of debugfs: (node, zone name) → its row."""
    unusable, index = "", ""
    for (node, name), zone in zones.items():
        pages, blocks = int(zone["free"]), int(zone["free_area"].sum())
        fitting = [int(blocks_at_least(zone, order)) for order in range(ORDERS)]
        unusable += index_line(node, name, [int(unusable_free_index(pages, fitting[o], o)) for o in range(ORDERS)], 0)
        index += index_line(node, name, [int(fragmentation_index(blocks, pages, fitting[o], o)) for o in range(ORDERS)], 2)
    return {"kernel/debug/extfrag/unusable_index": unusable, "kernel/debug/extfrag/extfrag_index": index}


def tree(row: Any) -> dict[str, str]:
    """The files of a host's record, by path below /sys."""
    lines, counters = np.zeros(len(MEMINFO_FIELDS), dtype=np.int64), np.zeros(len(VMSTAT_FIELDS), dtype=np.int64)
    kernel.meminfo(row, lines)
    kernel.vmstat(row, counters)
    info, vm = dict(zip(MEMINFO_FIELDS, lines.tolist(), strict=True)), dict(zip(VMSTAT_FIELDS, counters.tolist(), strict=True))
    kb = {name: info.get(name, 0) for name in ("MemTotal", "MemFree", "SwapCached", *NODE_MEMINFO)}
    kb["FilePages"] = vm["nr_file_pages"] * KB
    nodes = int(row["nr_nodes"])
    files = {f"{NODES}{name}": "0\n" if nodes == 1 else "0-1\n" for name in ("online", "possible", "has_memory", "has_cpu")}
    for n in range(nodes):
        at = f"{NODES}node{n}/"
        lines_of, huge, gauges = kb, info, vm
        if nodes > 1:
            lines_of, gauges = kb | node_kb(row, n, kb), vm | node_lines(row, n, vm) | node_numastat(row, vm, n)
            huge = info if n == 0 else dict.fromkeys(info, 0)
        files[f"{at}meminfo"] = node_meminfo(n, lines_of, huge)
        files[f"{at}numastat"] = numastat(gauges)
        files[f"{at}vmstat"] = node_vmstat(gauges)
        files[f"{at}distance"] = distance([LOCAL_DISTANCE if m == n else REMOTE_DISTANCE for m in range(nodes)])
        files[f"{at}cpulist"] = cpulist(*cpus_of(row, n))
    swap = {f"block/{name}": text for name, text in sys_block(row).items()}
    swap |= {f"kernel/debug/zswap/{name}": text for name, text in zswap_debugfs(row).items()}
    return files | swap | hugepages(row) | extfrag(free_lists(row))


def hugepages(row: Any) -> dict[str, str]:
    """The files of both hugetlb pools; pages of 1 GiB are never made on demand, so nr_overcommit_hugepages of theirs stays 0."""
    files: dict[str, str] = {}
    for pool, kb in zip(row["hstates"], (2048, 1_048_576), strict=True):
        at = f"kernel/mm/hugepages/hugepages-{kb}kB/"
        files |= {f"{at}nr_hugepages": f"{int(pool['nr'])}\n", f"{at}nr_hugepages_mempolicy": f"{int(pool['nr'])}\n"}
        files |= {f"{at}free_hugepages": f"{int(pool['free'])}\n", f"{at}resv_hugepages": f"{int(pool['resv'])}\n"}
        files |= {f"{at}surplus_hugepages": f"{int(pool['surplus'])}\n", f"{at}nr_overcommit_hugepages": f"{int(pool['overcommit'])}\n"}
    return files


def cpus_of(row: Any, node: int) -> tuple[int, int]:
    """The first and the last CPU of a node."""
    mine = [cpu for cpu in range(int(row["cpus"])) if cpu_to_node(row, cpu) == node]
    return mine[0], mine[-1]


def node_kb(row: Any, node: int, host: Mapping[str, int]) -> dict[str, int]:
    """The meminfo of one of several nodes, kB; what is known of the host alone stands in the first."""
    n = node_counts(row, node)
    pages = {
        "MemTotal": n["total"],
        "MemFree": n["free"],
        "Active": n["active_anon"] + n["active_file"],
        "Inactive": n["inactive_anon"] + n["inactive_file"],
        "Active(anon)": n["active_anon"],
        "Inactive(anon)": n["inactive_anon"],
        "Active(file)": n["active_file"],
        "Inactive(file)": n["inactive_file"],
        "Unevictable": n["unevictable"],
        "Mlocked": n["unevictable"],
        "Dirty": n["dirty"],
        "Writeback": n["writeback"],
        "FilePages": n["file_pages"],
        "Mapped": n["mapped"],
        "AnonPages": n["anon"],
        "Shmem": n["shmem"],
        "KernelStack": n["kernel_stack"],
        "PageTables": n["page_tables"],
        "KReclaimable": n["slab_reclaimable"],
        "Slab": n["slab_reclaimable"] + n["slab_unreclaimable"],
        "SReclaimable": n["slab_reclaimable"],
        "SUnreclaim": n["slab_unreclaimable"],
    }
    return {name: pages[name] * KB if name in pages else value if node == 0 else 0 for name, value in host.items()}
