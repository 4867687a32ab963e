# SPDX-License-Identifier: Apache-2.0
"""The kernel log's report of an OOM kill, written from the host's tables at the instant of the kill.

The lines themselves are in `linux/oom_report.py`. Leaves out: the stack dump between the first line and `Mem-Info:`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fleetsim.host.programs import Names
from fleetsim.linux import mm_types as mm
from fleetsim.linux import mmzone
from fleetsim.linux.memcontrol import in_subtree
from fleetsim.linux.mempolicy import (
    CONSTRAINT_MEMORY_POLICY,
    constrained_alloc,
    cpuset_mems,
    cpuset_of,
    oom_cpuset_eligible,
    policy_nodemask,
)
from fleetsim.linux.node_stat import node_counts, pages_of_zone
from fleetsim.linux.nodes import nr_free
from fleetsim.linux.oom_report import (
    NodeInfo,
    OomScope,
    OomTask,
    ZoneInfo,
    mem_info,
    memcg_info,
    oom_invoked,
    oom_kill,
    oom_killed,
    task_dump,
)
from fleetsim.linux.per_cpu_pages import nr_pcp
from fleetsim.linux.pgtable import mm_pgtables

GFP_GLOBAL, GFP_MEMCG = 0x140CCA, 0xCC0  # GFP_HIGHUSER_MOVABLE|__GFP_COMP; GFP_KERNEL, what a charge passes
PAGE = 4096
CONSTRAINTS = ("CONSTRAINT_NONE", "CONSTRAINT_CPUSET", "CONSTRAINT_MEMORY_POLICY")
STAT_FIELDS = ("workingset_refault_anon", "workingset_refault_file", "pgfault", "pgmajfault")


def free_blocks(zone: Any) -> tuple[tuple[int, str], ...]:
    """(free blocks, letters of the types that have some) for every order 0..10."""
    lists = zone["free_area"].tolist()
    return tuple((sum(counts), "".join(c for c, n in zip("UME", counts, strict=True) if n)) for counts in zip(*lists, strict=True))


def oom_task(row: Any, names: Names, t: int) -> OomTask:
    task = row["tasks"][t]
    rss = int(task["rss_anon"] + task["rss_file"] + task["rss_shmem"])
    pid = int(task["pid"])
    return OomTask(
        pid,
        0,
        pid,
        int(task["total_vm"]),
        rss,
        int(mm_pgtables(row, t)) * PAGE,
        int(task["swapents"]),
        int(task["oom_score_adj"]),
        names.task_name(t),
    )


def node_info(row: Any) -> NodeInfo:
    tree = row["cgroups"][0]["tree"]
    return NodeInfo(
        active_anon=int(tree[1]),
        inactive_anon=int(tree[0]),
        active_file=int(tree[3]),
        inactive_file=int(tree[2]),
        unevictable=int(tree[4] + row["mlocked"]),
        dirty=0,
        writeback=0,
        slab_reclaimable=int(row["slab_reclaimable"]),
        slab_unreclaimable=int(row["slab_unreclaimable"]),
        mapped=int(row["file_mapped"]),
        shmem=int(row["shmem"]),
        pagetables=int(row["page_tables"]),
        kernel_stack_kb=int(row["kernel_stack"]) * 4,
        free=int(nr_free(row)),
        free_pcp=int(nr_pcp(row)),
        anon_thp=int(row["anon_thp"]) * 512,
        all_unreclaimable=bool(row["kswapd"]["failures"][: int(row["nr_nodes"])].min() >= mm.MAX_RECLAIM_RETRIES),
        file_pages=int(row["nr_file_lru"] + row["shmem"] + row["unlisted_file"] + row["swap_cache"]),
        swapcache=int(row["swap_cache"]),
        free_swap=int(row["swap_free"]),
        total_swap=int(row["swap_total"]),
        ram=int(row["totalram"]),
        reserved=0,
    )


def one_node(row: Any, node: int) -> NodeInfo:
    """The same for one of several nodes."""
    if int(row["nr_nodes"]) == 1:
        return node_info(row)
    n = node_counts(row, node)
    return replace(
        node_info(row),
        active_anon=n["active_anon"],
        inactive_anon=n["inactive_anon"],
        active_file=n["active_file"],
        inactive_file=n["inactive_file"],
        unevictable=n["unevictable"] + (int(row["mlocked"]) if node == 0 else 0),
        mapped=n["mapped"],
        shmem=n["shmem"],
        pagetables=n["page_tables"],
        kernel_stack_kb=n["kernel_stack"] * 4,
        all_unreclaimable=bool(row["kswapd"][node]["failures"] >= mm.MAX_RECLAIM_RETRIES),
    )


def zone_infos(row: Any, nodes: Sequence[int]) -> list[ZoneInfo]:
    rows = row["cohorts"]
    infos = []
    for z in range(mm.NR_ZONES):
        zone, name = row["zones"][z], mm.ZONE_NAMES[int(row["zones"][z]["kind"])]
        if zone["managed"] == 0 or int(zone["node"]) not in nodes:
            continue
        pages = pages_of_zone(rows, z)
        lists = [int(pages[rows["list"] == lru].sum(dtype="i8")) for lru in range(mm.NR_LRU_LISTS)]
        low_min, low_low, low_high = (int(w) for w in zone["wmark"])
        managed = int(zone["managed"])
        infos.append(
            ZoneInfo(
                node=int(zone["node"]),
                name=name,
                free=int(zone["free"]),
                boost=int(zone["boost"]),
                min=low_min,
                low=low_low,
                high=low_high,
                reserved_highatomic=0,
                active_anon=lists[1],
                inactive_anon=lists[0],
                active_file=lists[3],
                inactive_file=lists[2],
                unevictable=lists[4],
                writepending=0,
                present=managed,
                managed=managed,
                mlocked=0,
                free_pcp=int(zone["pcp"].sum()),
                local_pcp=int(zone["pcp"].sum()),
                lowmem_reserve=tuple(int(pages) for pages in zone["protection"]),
                blocks=free_blocks(zone),
            )
        )
    return infos


def cgroup_path(row: Any, names: Names, cg: int) -> str:
    parts = []
    while cg > 0:
        parts.append(names.cgroup_name(cg))
        cg = int(row["cgroups"][cg]["parent"])
    return "/" + "/".join(reversed(parts))


def memcg_lines(row: Any, names: Names, cg: int) -> list[str]:
    group = row["cgroups"][cg]
    stat = {"anon": int(group["anon"]) * PAGE, "file": int(group["file"]) * PAGE, "kernel": int(group["kernel"]) * PAGE}
    stat |= {"pagetables": int(group["pagetables"]) * PAGE}
    stat |= {n: int(group["tree"][i]) * PAGE for i, n in enumerate(("inactive_anon", "active_anon", "inactive_file", "active_file"))}
    stat |= {name: int(group["stat"][mm.CG[name]]) for name in STAT_FIELDS}
    swap_limit = int(group["swap_max"])
    path = cgroup_path(row, names, cg)
    return memcg_info(
        path, int(group["usage"]), int(group["max"]), int(group["events"][mm.EV["max"]]), int(group["swap"]), swap_limit, 0, stat
    )


def node_list(nodes: int) -> str:
    """A set of nodes as the kernel prints it: 0, 1 or 0-1."""
    return {1: "0", 2: "1"}.get(nodes, "0-1")


def scope_of(row: Any, names: Names, invoker: int) -> tuple[list[int], OomScope]:
    """The nodes that the allocation could have used, and what the report says of them."""
    if int(row["nr_nodes"]) == 1 or invoker < 0:
        return [0], OomScope()
    task = row["tasks"][invoker]
    constraint, mems = int(constrained_alloc(row, invoker)), int(cpuset_mems(row, int(task["cg"])))
    nodes = int(policy_nodemask(row, invoker))
    bound = constraint == CONSTRAINT_MEMORY_POLICY
    cpuset = "/" if mems == mm.ALL_NODES else names.cgroup_name(int(cpuset_of(row, int(task["cg"]))))
    where = OomScope(CONSTRAINTS[constraint], node_list(nodes) if bound else "(null)", cpuset, node_list(mems))
    return [node for node in range(mmzone.NR_NODES) if nodes >> node & 1], where


def oom_report(row: Any, names: Names, victims: list[Any]) -> list[str]:
    """The whole report of one OOM: `victims` are the `oom_kill` events of this instant, the chosen one first."""
    first = victims[0]
    victim, invoker, cg = int(first["subject"]), int(first["arg"][0]), int(first["arg"][1])
    nodes, where = scope_of(row, names, invoker)
    inside = invoker >= 0  # else somebody outside wrote a limit: a shell
    comm, adj = (names.task_name(invoker), int(row["tasks"][invoker]["oom_score_adj"])) if inside else ("sh", 0)
    lines = oom_invoked(comm, GFP_MEMCG if cg else GFP_GLOBAL, 0, adj)
    lines += (
        memcg_lines(row, names, cg)
        if cg
        else mem_info(node_info(row), {node: one_node(row, node) for node in nodes}, zone_infos(row, nodes))
    )
    alive = (mm.TASK_RUNNING, mm.TASK_EXITING)
    tasks = [
        t
        for t in range(int(row["nr_tasks"]))
        if int(row["tasks"][t]["state"]) in alive
        and in_subtree(row, int(row["tasks"][t]["cg"]), cg)
        and (cg or oom_cpuset_eligible(row, invoker, t))
    ]
    lines += task_dump([oom_task(row, names, t) for t in tasks])
    group = cgroup_path(row, names, int(row["tasks"][victim]["cg"])) if len(victims) > 1 else ""
    task_memcg = cgroup_path(row, names, int(row["tasks"][victim]["cg"]))
    oom_memcg = cgroup_path(row, names, cg) if cg else None
    lines += oom_kill(oom_task(row, names, victim), rss_of(first), task_memcg, oom_memcg, group=group, where=where)
    for other in victims[1:]:
        lines += oom_killed(oom_task(row, names, int(other["subject"])), rss_of(other), memcg=cg > 0)
    return lines


def rss_of(event: Any) -> tuple[int, int, int]:
    return int(event["arg"][3]), int(event["arg"][4]), int(event["arg"][5])
