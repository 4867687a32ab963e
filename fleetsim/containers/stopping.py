# SPDX-License-Identifier: Apache-2.0
"""How a container is stopped: by its kubelet (deleted, evicted, a probe that failed), or by Docker or systemd.

    preStop hook (sleeps `pre_stop`) → SIGTERM → a server with `finish` takes nothing new and finishes what it has → exit
    └────────────────────────── terminationGracePeriod ──────────────────────────────────┘ SIGKILL

Rules: whoever looks after the container goes on with it every second. SIGTERM ends a process at once, unless it is a server that
shuts down gracefully (http.Server.Shutdown, nginx' SIGQUIT): that one exits with 0 when the last request is answered.
Source: pkg/kubelet/kuberuntime/kuberuntime_container.go killContainer.
Leaves out: hooks other than a sleep; a PID 1 without a handler, which ignores SIGTERM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleetsim.host import kubelet_types as kt
from fleetsim.host.pods import processes_of
from fleetsim.linux import mm_types as mm
from fleetsim.linux.exit import begin_exit
from fleetsim.linux.oom_kill import send_sigkill
from fleetsim.workloads.arrivals import arrive
from fleetsim.workloads.requests import answer_the_gathered

if TYPE_CHECKING:
    from fleetsim.containers.kubelet import Sync

SIGTERM_EXIT = 143
STOPPING, STOPPED_FOR_GOOD = 1, 2
MIN_GRACE_NS = 2 * mm.NS_PER_S
"""A container is left at least so long between its SIGTERM and SIGKILL, however long its preStop hook took
(pkg/kubelet/kuberuntime/kuberuntime_container.go minimumGracePeriodInSeconds)."""


def stop(sync: Sync, c: int, grace_ns: int, why: str) -> None:
    """The preStop hook now, then SIGTERM, SIGKILL after the grace period; with none, SIGKILL at once."""
    container = sync.row["containers"][c]
    if int(container["state"]) == kt.WAITING:  # in its back-off: it does not come back
        for t in processes_of(sync.row, c):
            if int(sync.row["tasks"][t]["state"]) == mm.TASK_WAITING:
                sync.row["tasks"][t]["state"] = mm.TASK_DEAD
    if int(container["state"]) != kt.RUNNING or container["stopping"]:
        return
    container["stopping"], container["ready"] = STOPPING, 0
    sync.row["kubelet"]["busy"] = 1
    sync.tell_container("container_stop", c, why=why, grace_s=grace_ns // mm.NS_PER_S)
    if grace_ns <= 0:
        kill(sync, c)
        return
    hook_ns = min(int(sync.row["pods"][int(container["pod"])]["pre_stop_s"]) * mm.NS_PER_S, grace_ns)
    container["hook"], container["term_s"] = 1, -(-(sync.now + hook_ns) // mm.NS_PER_S)
    least = MIN_GRACE_NS if sync.runtime == kt.KUBERNETES else 0
    container["kill_ns"] = sync.now + hook_ns + max(grace_ns - hook_ns, least)
    if hook_ns == 0:
        terminate(sync, c)


def terminate(sync: Sync, c: int) -> None:
    """SIGTERM. It ends whoever does not handle it; a server may shut down gracefully (`finish`)."""
    sync.row["containers"][c]["hook"] = 0
    for t in processes_of(sync.row, c):
        if int(sync.row["tasks"][t]["state"]) != mm.TASK_RUNNING:
            continue
        server = server_of(sync.row, t)
        if server is not None and server["ready"] and int(server["finish_ms"]) > 0:
            arrive(sync.row, server)
            server["closing"] = 1
        else:
            begin_exit(sync.row, t, SIGTERM_EXIT)


def go_on_stopping(sync: Sync, c: int) -> None:
    """Its preStop hook may be over, or a server of it done with the last request."""
    container = sync.row["containers"][c]
    if container["hook"] and int(container["term_s"]) * mm.NS_PER_S <= sync.now:
        terminate(sync, c)
    for t in processes_of(sync.row, c):
        server = server_of(sync.row, t)
        if server is None or not server["closing"] or int(sync.row["tasks"][t]["state"]) != mm.TASK_RUNNING:
            continue
        asked_ns = int(container["term_s"]) * mm.NS_PER_S
        if sync.now >= asked_ns + max(kt.RELIST_NS, int(server["service_ns"])):
            arrive(sync.row, server)
            answer_the_gathered(sync.row, server)
        if int(server["backlog"]) == 0 or sync.now >= asked_ns + int(server["finish_ms"]) * mm.NS_PER_MS:
            begin_exit(sync.row, t, 0)


def server_of(row: Any, t: int) -> Any:
    """The server that process `t` is; None: it is none."""
    w = int(row["programs"][int(row["tasks"][t]["main_thread"])]["work"])
    server = row["works"][w - 1]["server"] if w > 0 else None
    return server if server is not None and server["used"] else None


def kill(sync: Sync, c: int) -> None:
    container = sync.row["containers"][c]
    container["hook"] = container["kill_ns"] = 0
    for t in processes_of(sync.row, c):
        if int(sync.row["tasks"][t]["state"]) == mm.TASK_RUNNING:
            send_sigkill(sync.row, t)
