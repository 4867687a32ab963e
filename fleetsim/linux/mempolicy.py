# SPDX-License-Identifier: Apache-2.0
"""Where a task's pages come from on a host with two NUMA nodes: its CPU's node, its memory policy, its cgroup's cpuset (mm/mempolicy.c).

`enter_task` is called when a task gets a CPU and says it once for all that is allocated for it until it leaves the CPU.
Leaves out: policies of single areas (mbind), nodes with weights, migration by cpusets.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import ALL_NODES, NR_ZONES, TASK_RUNNING

MPOL_DEFAULT, MPOL_PREFERRED, MPOL_BIND, MPOL_INTERLEAVE, MPOL_LOCAL = range(5)  # include/uapi/linux/mempolicy.h
CONSTRAINT_NONE, CONSTRAINT_CPUSET, CONSTRAINT_MEMORY_POLICY = range(3)  # include/linux/oom.h


@law
def cpuset_mems(row, cg):
    """Nodes that tasks of a cgroup may have memory of: its own setting cut to its ancestors', or theirs if nothing is left of it.

    Source: kernel/cgroup/cpuset.c effective_mems; an empty set is the parent's.
    """
    nodes = ALL_NODES
    while cg > 0:
        own = row["cgroups"][cg]["cpuset_mems"]
        if own > 0:
            nodes = nodes & own if nodes & own > 0 else own
        cg = row["cgroups"][cg]["parent"]
    return nodes


@law
def cpuset_of(row, cg):
    """The nearest cgroup, from `cg` upwards, with nodes of its own.

    Source: kernel/cgroup/cpuset.c task_cs.
    """
    while cg > 0 and row["cgroups"][cg]["cpuset_mems"] == 0:
        cg = row["cgroups"][cg]["parent"]
    return cg


@law
def policy_nodemask(row, t):
    """Nodes that a task's memory may come from.

    Source: mm/mempolicy.c policy_nodemask; mm/page_alloc.c cpuset_zone_allowed.
    """
    task = row["tasks"][t]
    mems = cpuset_mems(row, task["cg"])
    if task["policy"] == MPOL_BIND and task["policy_nodes"] & mems > 0:
        return task["policy_nodes"] & mems
    return mems


@law
def first_node(nodes, preferred):
    """`preferred` if it is one of `nodes`, else the other.

    Source: mm/page_alloc.c first_zones_zonelist (nodes by distance).
    """
    return preferred if (nodes >> preferred) & 1 > 0 else 1 - preferred


@law
def enter_task(row, t, node):
    """Task `t` has a CPU of `node`: what is allocated now is allocated for it.

    Source: mm/mempolicy.c get_task_policy, policy_node, interleave_nodes.
    """
    task = row["tasks"][t]
    row["numa_node"] = node
    row["mems_allowed"] = policy_nodemask(row, t)
    row["interleave"] = 0
    row["preferred_node"] = node
    if task["policy"] == MPOL_PREFERRED:
        row["preferred_node"] = task["policy_nodes"] >> 1
    elif task["policy"] == MPOL_INTERLEAVE and task["policy_nodes"] & row["mems_allowed"] == ALL_NODES:
        row["interleave"] = 1
        row["preferred_node"] = 1 - task["il_prev"]
    row["preferred_node"] = first_node(row["mems_allowed"], row["preferred_node"])


@law
def leave_task(row, t):
    """Task `t` is off its CPU: the kernel's own threads allocate from any node.

    Source: mm/mempolicy.c default_policy, interleave_nodes (il_prev).
    """
    if row["interleave"] > 0:
        row["tasks"][t]["il_prev"] = 1 - row["preferred_node"]
    row["interleave"] = 0
    row["mems_allowed"] = ALL_NODES
    row["preferred_node"] = 0
    row["numa_node"] = 0


@law
def set_mempolicy(row, t, mode, nodes):
    """set_mempolicy(): a task's policy, for what it allocates from now on.

    nodes    int64  a bit for each node
    returns  bool   False: EINVAL, no node is left

    Source: mm/mempolicy.c do_set_mempolicy.
    """
    if mode in (MPOL_PREFERRED, MPOL_BIND, MPOL_INTERLEAVE) and nodes & ((1 << row["nr_nodes"]) - 1) == 0:
        return False
    task = row["tasks"][t]
    task["policy"] = mode
    task["policy_nodes"] = nodes & ((1 << row["nr_nodes"]) - 1)
    task["il_prev"] = 1
    if row["nr_nodes"] > 1 and task["state"] == TASK_RUNNING:
        enter_task(row, t, row["numa_node"])
    return True


@law
def constrained_alloc(row, t):
    """What keeps the allocation of task `t` from the free memory of other nodes.

    returns  int64  CONSTRAINT_…

    Source: mm/oom_kill.c constrained_alloc.
    """
    if row["nr_nodes"] == 1 or t < 0:
        return CONSTRAINT_NONE
    task = row["tasks"][t]
    if task["policy"] == MPOL_BIND and task["policy_nodes"] != ALL_NODES:
        return CONSTRAINT_MEMORY_POLICY
    return CONSTRAINT_NONE if cpuset_mems(row, task["cg"]) == ALL_NODES else CONSTRAINT_CPUSET


@law
def nr_present(row, t):
    """Pages of the nodes that the allocation of task `t` may use.

    Source: mm/oom_kill.c constrained_alloc (totalpages).
    """
    if constrained_alloc(row, t) == CONSTRAINT_NONE:
        return row["totalram"]
    nodes = policy_nodemask(row, t)
    total = 0
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        if (nodes >> zone["node"]) & 1 > 0:
            total += zone["managed"]
    return total


@law
def oom_cpuset_eligible(row, invoker, t):
    """True if the OOM killer may choose task `t` for an allocation of task `invoker`: both could have memory of the same node.

    Under a memory policy only tasks bound elsewhere are spared, whatever memory the others have.

    Source: mm/oom_kill.c oom_cpuset_eligible, mm/mempolicy.c mempolicy_in_oom_domain.
    """
    if row["nr_nodes"] == 1 or invoker < 0:
        return True
    task = row["tasks"][t]
    if constrained_alloc(row, invoker) == CONSTRAINT_MEMORY_POLICY:
        return task["policy"] != MPOL_BIND or task["policy_nodes"] & row["tasks"][invoker]["policy_nodes"] > 0
    return cpuset_mems(row, task["cg"]) & cpuset_mems(row, row["tasks"][invoker]["cg"]) > 0


@law
def home_node(row, t):
    """The node that a task starts on: the only one its cpuset leaves it, else tasks are spread evenly.

    Source: kernel/sched/fair.c find_idlest_group (the group with the fewest tasks), by its effect on tasks that start one after the
    other; who confines memory to a node confines CPUs to it as well (kubelet's topology manager).
    """
    mems = cpuset_mems(row, row["tasks"][t]["cg"])
    return first_node(mems, t % row["nr_nodes"])
