# SPDX-License-Identifier: Apache-2.0
"""The look that a kubelet takes at its host every second: did a container end or start, are probes due, is memory short?

It only looks, asks the probes and says what is worth a decision; decisions are `fleetsim/containers/kubelet.py`'s. So a calm host
with thirty containers costs next to nothing.
Source: pkg/kubelet/pleg/generic.go (relist), pkg/kubelet/prober/worker.go, pkg/kubelet/eviction/eviction_manager.go (synchronize).
Leaves out: the jitter of probes after a restart of the kubelet; a probe is a request like any other, so its answer is known when it is
asked (what would delay it later is not foreseen), and it does not take a worker's time.
"""

from __future__ import annotations

from fleetsim.host.kubelet_types import CONTAINER_CREATING, FAILURE, RELIST_NS, RUNNING, STARTUP, SUCCESS, WAITING
from fleetsim.law import law
from fleetsim.linux.mm_types import EV, LRU_INACTIVE_FILE, NEVER, NS_PER_S, TASK_RUNNING, VM
from fleetsim.linux.nodes import nr_free
from fleetsim.workloads.requests import answer_ns

CONTAINERS, PROBES, NODE = 1, 2, 4  # what is worth a decision
STATUS_NS = 10 * NS_PER_S
VM_OOM_KILL = VM["oom_kill"]
EV_OOM_KILL = EV["oom_kill"]


@law
def answers_in_ns(row, t):
    """How long process `t` would take to answer a request that came now: while its thread stands still it does not.

    returns  int64  ns; −1: refused, nobody listens

    Source: a TCP connection to a port without a listener is reset; a listener that stalls answers when it goes on.
    """
    task = row["tasks"][t]
    if task["state"] != TASK_RUNNING:
        return -1
    th = task["main_thread"]
    waits = max(0, row["busy_until_ns"][th] - row["now_ns"])
    w = row["programs"][th]["work"]
    if w > 0:
        server = row["works"][w - 1]["server"]
        if server["used"] > 0 and (server["ready"] == 0 or server["closing"] > 0):
            return -1
        if server["used"] > 0:
            waits = max(waits, answer_ns(row, server))
    return waits


@law
def ask(row, b):
    """Ask probe `b` once and count.

    returns  bool  True: the history should know (its result changed, or it failed and has not failed for good before)

    Source: pkg/kubelet/prober/worker.go doProbe.
    """
    probe = row["probes"][b]
    before = probe["result"]
    answer = answers_in_ns(row, row["containers"][probe["container"]]["first"])
    probe["answer_ns"] = answer
    if answer >= 0 and answer <= int(probe["timeout_s"]) * NS_PER_S:
        probe["failures"] = 0
        probe["successes"] = min(probe["successes"] + 1, probe["success_threshold"])
        if probe["successes"] >= probe["success_threshold"]:
            probe["result"] = SUCCESS
        return probe["result"] != before
    probe["successes"] = 0
    probe["failures"] = min(probe["failures"] + 1, probe["failure_threshold"])
    if probe["failures"] >= probe["failure_threshold"]:
        probe["result"] = FAILURE
    return probe["result"] != before or before != FAILURE


@law
def ask_probes(row):
    """Ask those that are due, of containers that run; liveness and readiness wait for the startup probe.

    returns  int64  PROBES or 0; `told` marks those that the history should know of

    Source: pkg/kubelet/prober/worker.go.
    """
    worth = 0
    next_ns = NEVER
    for b in range(row["nr_probes"]):
        probe = row["probes"][b]
        container = row["containers"][probe["container"]]
        if probe["used"] == 0 or container["state"] != RUNNING:
            continue
        if probe["next_ns"] > row["now_ns"]:
            next_ns = min(next_ns, probe["next_ns"])
            continue
        next_ns = min(next_ns, probe["next_ns"] + int(probe["period_s"]) * NS_PER_S)
        probe["next_ns"] += int(probe["period_s"]) * NS_PER_S
        if (probe["kind"] == STARTUP) == (container["startup_done"] > 0):
            continue
        if ask(row, b):
            probe["told"] = 1
            worth = PROBES
    row["kubelet"]["probe_ns"] = next_ns
    return worth


@law
def is_news(row, container):
    """Is a container not as the kubelet knows it: its PID 1 started or is gone, somebody in it was killed for memory, it is to be ended?

    Source: pkg/kubelet/pleg/generic.go generateEvents (the state of containers); processes that PID 1 forks are none of its business.
    """
    task = row["tasks"][container["first"]]
    if container["state"] == WAITING:
        return task["pid"] != container["pid"] or container["reason"] == CONTAINER_CREATING
    if container["state"] != RUNNING:
        return False
    killed = row["cgroups"][container["cg"]]["events"][EV_OOM_KILL] != container["oom_seen"]
    return killed or task["state"] != TASK_RUNNING or container["kill_ns"] > 0


@law
def is_stirred(row):
    """True if some container is not as it was at the last look, or something is under way.

    While no process started, was gone or was killed for memory nobody has to look at the containers.

    Source: pkg/kubelet/pleg/generic.go computeEvents. Which container it was is found out where it is decided what to do.
    """
    kubelet = row["kubelet"]
    if kubelet["busy"] > 0:
        return True
    same = kubelet["pids_seen"] == row["next_pid"] and kubelet["exits_seen"] == row["nr_exits"]
    if same and kubelet["oom_seen"] == row["vm"][VM_OOM_KILL]:
        return False
    kubelet["pids_seen"] = row["next_pid"]
    kubelet["exits_seen"] = row["nr_exits"]
    kubelet["oom_seen"] = row["vm"][VM_OOM_KILL]
    news = False
    for c in range(row["nr_containers"]):
        news = news or (row["containers"][c]["used"] > 0 and is_news(row, row["containers"][c]))
    return news


@law
def memory_available(row):
    """The eviction signal memory.available, pages: capacity − working set, where working set = (MemTotal − MemFree) − inactive_file.

    Source: pkg/kubelet/eviction/helpers.go makeSignalObservations, the root cgroup's usage from meminfo (cgroup v2);
    kernel-laws §17.3.
    """
    usage = row["totalram"] - nr_free(row)
    return row["totalram"] - max(0, usage - row["cgroups"][0]["tree"][LRU_INACTIVE_FILE])


@law
def look_at_node(row):
    """The eviction signal, once in a monitoring interval.

    returns  int64  NODE or 0

    Source: pkg/kubelet/eviction/eviction_manager.go synchronize.
    """
    kubelet = row["kubelet"]
    if kubelet["hard_pages"] == 0 and kubelet["soft_pages"] == 0:
        return 0
    if row["now_ns"] < kubelet["monitor_ns"]:
        return 0
    kubelet["monitor_ns"] = row["now_ns"] + kubelet["monitor_period_ns"]
    kubelet["available_pages"] = memory_available(row)
    kubelet["over"] = 0
    if kubelet["available_pages"] < kubelet["hard_pages"]:
        kubelet["over"] = 2
    elif kubelet["available_pages"] < kubelet["soft_pages"]:
        kubelet["over"] = 1
    busy = kubelet["over"] > 0 or kubelet["low_ns"] >= 0 or kubelet["soft_since_ns"] >= 0
    return NODE if busy else 0


@law
def status_is_due(row):
    """Every ten seconds the node's status is published; is there news in it?

    returns  int64  NODE or 0

    Source: nodeStatusUpdateFrequency (pkg/kubelet/kubelet_node_status.go syncNodeStatus); kernel-laws §17.3.
    """
    kubelet = row["kubelet"]
    if row["now_ns"] < kubelet["status_ns"]:
        return 0
    kubelet["status_ns"] += STATUS_NS
    return NODE if (kubelet["low_ns"] >= 0) != (kubelet["pressure"] > 0) else 0


@law
def relist(records, i):
    """Everything that the kubelet of host `i` looks at every second.

    returns  int64  CONTAINERS | PROBES | NODE: what is worth a decision

    Source: pkg/kubelet/kubelet.go syncLoopIteration.
    """
    row = records[i]
    kubelet = row["kubelet"]
    kubelet["next_ns"] += RELIST_NS
    worth = CONTAINERS if is_stirred(row) else 0
    if row["now_ns"] >= kubelet["probe_ns"]:
        worth |= ask_probes(row)
    return worth | look_at_node(row) | status_is_due(row)
