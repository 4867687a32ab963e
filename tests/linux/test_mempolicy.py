# SPDX-License-Identifier: Apache-2.0
"""Memory policies and cpusets: whose memory comes from where, and an OOM kill beside half of a host's memory.

Outside truth: h52, h53 and h54 of a real kernel on two nodes (`tests/ground_truth/`), replayed in `tests/fleet/test_fidelity.py`.
"""

from __future__ import annotations

import pytest

from fleetsim.errors import BadInput
from fleetsim.linux.mempolicy import (
    CONSTRAINT_CPUSET,
    CONSTRAINT_MEMORY_POLICY,
    CONSTRAINT_NONE,
    MPOL_BIND,
    constrained_alloc,
    cpuset_mems,
    enter_task,
    leave_task,
    nr_present,
    oom_cpuset_eligible,
    policy_nodemask,
    set_mempolicy,
)
from fleetsim.linux.mm_types import ALL_NODES, WMARK_LOW, ZONE_NODE1
from fleetsim.linux.mmzone import NUMA_HIT, NUMA_INTERLEAVE_HIT, NUMA_LOCAL, NUMA_MISS, NUMA_OTHER
from fleetsim.linux.node_stat import node_counts
from fleetsim.linux.zonelist import rmqueue
from fleetsim.workloads.script_ops import parse_op
from tests.host.worlds import PAGES, World, world
from tests.linux.test_nodes import anon, two_nodes


def grown(w: World, seconds: float) -> list[int]:
    """MiB of anonymous memory that each node has more at that time."""
    before = anon(w)
    return [round((b - a) / PAGES) for a, b in zip(before, anon(w.at(seconds)), strict=True)]


@pytest.mark.parametrize(
    ("policy", "where"),
    [
        ("default", [150, 0]),
        ("local", [150, 0]),
        ("bind:0", [150, 0]),
        ("bind:1", [0, 150]),
        ("bind:0-1", [150, 0]),
        ("preferred:1", [0, 150]),
        ("interleave:0-1", [75, 75]),
        ("interleave:1", [150, 0]),
    ],
)
def test_where_memory_comes_from(policy: str, where: list[int]) -> None:
    w = two_nodes(tasks={"t": f"pin 0 | mempolicy {policy} | mmap_anon A 150 | touch A 150 0 | sleep 99"})
    assert grown(w, 3) == pytest.approx(where, abs=2)


def test_a_preferred_node_that_is_full_is_left_for_the_other_and_a_bound_one_is_not() -> None:
    for policy, kills in (("preferred:1", []), ("bind:1", ["t"])):
        w = two_nodes(tasks={"t": f"pin 0 | mempolicy {policy} | mmap_anon A 700 | touch A 700 100 | sleep 99"}).at(12)
        assert w.kills() == kills, policy


def test_counters_say_what_was_asked_for_and_where_the_cpu_was() -> None:
    """h53: what a preferred node cannot give is a miss on the other, and local there if the task runs there."""
    w = two_nodes(tasks={"t": "pin 0 | mempolicy interleave:0-1 | mmap_anon A 100 | touch A 100 0 | sleep 99"}).at(2)
    numa = w.row["numa"]
    assert numa[:, NUMA_INTERLEAVE_HIT].tolist() == pytest.approx([50 * PAGES, 50 * PAGES], abs=300)
    assert numa[:, NUMA_MISS].tolist() == [0, 0]
    assert int(numa[1][NUMA_OTHER]) >= int(numa[1][NUMA_INTERLEAVE_HIT])
    w = two_nodes(tasks={"t": "pin 0 | mempolicy preferred:1 | mmap_anon A 600 | touch A 600 0 | sleep 99"}).at(3)
    numa = w.row["numa"]
    assert int(numa[0][NUMA_MISS]) > 100 * PAGES
    assert int(numa[0][NUMA_LOCAL]) > int(numa[0][NUMA_HIT])


def bound_and_bystander() -> World:
    """A small task bound to the second node, beside a large one of the first that has no policy."""
    tasks = {
        "large": "pin 0 | mmap_anon A 420 | touch A 420 0 | sleep 99",
        "bound": "pin 1 | mempolicy bind:1 | mmap_anon A 300 | touch A 300 100 | sleep 99",
        "other": "pin 1 | mempolicy bind:1 | mmap_anon A 300 | touch A 300 100 | sleep 99",
    }
    return two_nodes(1024, tasks=tasks, adj={"large": 0})


def test_who_runs_out_of_a_node_has_somebody_killed_who_may_have_no_page_there() -> None:
    """mempolicy_in_oom_domain: only tasks bound elsewhere are spared; the largest dies, and the node is as full as before."""
    w = bound_and_bystander().at(8)
    assert w.kills()[0] == "large"
    assert w.kills()[-1] in ("bound", "other"), "which is why somebody else has to die next"
    report = [line for line in w.shard.dmesg[0] if "oom-kill:" in line or "] Node " in line or ">Node " in line]
    assert "constraint=CONSTRAINT_MEMORY_POLICY,nodemask=1,cpuset=/,mems_allowed=0-1,global_oom" in "".join(report)
    assert not any("Node 0" in line for line in report), "the node that could not be used is not shown"


def test_a_cpuset_confines_its_tasks_and_only_those_who_share_a_node_with_them_may_die() -> None:
    cgroups = {"box": {"cpuset.mems": 2}, "near": {"cpuset.mems": 1}}
    tasks = {
        "near/large": "mmap_anon A 420 | touch A 420 0 | sleep 99",
        "box/kept": "mmap_anon A 250 | touch A 250 0 | sleep 99",
        "box/inside": "mmap_anon A 400 | touch A 400 100 | sleep 99",
        "free": "pin 0 | mmap_anon A 20 | touch A 20 0 | sleep 99",
    }
    w = two_nodes(1024, cgroups=cgroups, tasks=tasks, adj={"kept": -1000}).at(9)
    assert w.kills() == ["inside"], "the largest task has nothing to do with that node"
    assert int(w.task("inside")["node"]) == 1, "whose memory is confined to a node runs there"
    line = next(line for line in w.shard.dmesg[0] if "oom-kill:" in line)
    assert "constraint=CONSTRAINT_CPUSET,nodemask=(null),cpuset=box,mems_allowed=1,global_oom" in line
    assert node_counts(w.row, 0)["anon"] > 420 * PAGES


def test_single_pages_are_interleaved_too_from_one_turn_on_the_cpu_to_the_next() -> None:
    w = two_nodes(tasks={"t": "mempolicy interleave:0-1 | sleep 99"}).at(1)
    nodes = []
    for _ in range(4):
        enter_task(w.row, 0, 0)
        assert rmqueue(w.row, 1, WMARK_LOW) == 1
        nodes.append(int(w.row["got"][ZONE_NODE1]))
        leave_task(w.row, 0)
    assert nodes in ([0, 1, 0, 1], [1, 0, 1, 0])


def test_panic_on_oom_1_spares_a_host_whose_other_node_has_memory() -> None:
    """mm/oom_kill.c check_panic_on_oom: 1 panics only if nothing constrains the allocation, 2 always."""
    for mode, dead in ((1, ["t"]), (2, [])):
        tasks = {"t": "pin 1 | mempolicy bind:1 | mmap_anon A 700 | touch A 700 100 | sleep 99", "idle": "sleep 99"}
        w = two_nodes(tasks=tasks, sysctl={"panic_on_oom": mode}).at(12)
        assert w.kills() == dead
        assert (int(w.task("idle")["state"]) == int(w.task("t")["state"])) == (mode == 2), "a panic ends all of them"


def test_rules_of_the_laws() -> None:
    cgroups = {"a": {"cpuset.mems": 2}, "a/b": {}, "a/c": {"cpuset.mems": 1}}
    w = two_nodes(cgroups=cgroups, tasks={"a/b/t": "sleep 99", "u": "sleep 99"}).at(1)
    row, t, u = w.row, w.shard.names_of(0).tasks["t"], w.shard.names_of(0).tasks["u"]
    number = w.shard.names_of(0).cgroups
    assert [int(cpuset_mems(row, number[name])) for name in ("a", "b", "c")] == [2, 2, 2], "cut to the parent's, else the parent's"
    assert int(constrained_alloc(row, t)) == CONSTRAINT_CPUSET
    assert int(constrained_alloc(row, u)) == CONSTRAINT_NONE
    assert int(nr_present(row, u)) == int(row["totalram"])
    assert int(nr_present(row, t)) == int(row["zones"][3]["managed"])
    assert set_mempolicy(row, u, MPOL_BIND, 1)
    assert (int(constrained_alloc(row, u)), int(policy_nodemask(row, u))) == (CONSTRAINT_MEMORY_POLICY, 1)
    assert not oom_cpuset_eligible(row, t, u) or cpuset_mems(row, 0) == ALL_NODES
    assert oom_cpuset_eligible(row, u, t), "no policy of its own: it may have memory there"
    assert not set_mempolicy(row, u, MPOL_BIND, 4), "no such node"
    row["mems_allowed"], row["preferred_node"], row["numa_node"] = ALL_NODES, 0, 0  # as when it leaves its CPU


def test_a_child_inherits_policy_and_node() -> None:
    w = two_nodes(tasks={"t": "pin 1 | mempolicy bind:1 | mmap_anon A 50 | touch A 50 0 | fork_hold 5 | sleep 99"}).at(2)
    child = next(task for task in w.row["tasks"] if int(task["parent"]) >= 0)
    assert (int(child["policy"]), int(child["policy_nodes"]), int(child["node"]), int(child["pinned"])) == (MPOL_BIND, 2, 1, 1)


def test_ops_that_make_no_sense_are_refused_in_a_sentence() -> None:
    for text, right in (
        ("mempolicy bind", "one of default"),
        ("mempolicy bind:7", "nodes are 0, 1"),
        ("mempolicy preferred:0-1", "takes one"),
    ):
        with pytest.raises(BadInput, match=right):
            parse_op(text)
    with pytest.raises(BadInput, match="must be a number"):
        parse_op("pin x")


def test_a_cpuset_of_nodes_that_a_host_has_not_is_refused() -> None:
    with pytest.raises(BadInput, match=r"1 for all; it was given 2 \(EINVAL\)"):
        world(512, cgroups={"g": {"cpuset.mems": 2}})


def test_with_one_node_a_policy_changes_nothing() -> None:
    ops = "mmap_anon A 900 noreserve | touch A 900 200 | sleep 99"
    plain, bound = (world(512, tasks={"t": before + ops}).at(9) for before in ("", "pin 1 | mempolicy bind:0 | "))
    assert plain.kills() == bound.kills() == ["t"]
    assert "CONSTRAINT_NONE" in next(line for line in bound.shard.dmesg[0] if "oom-kill:" in line)
