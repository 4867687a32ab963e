# SPDX-License-Identifier: Apache-2.0
"""What tools show of a host's containers: `kubectl get pods`, `docker inspect`, `systemctl show`. A reading of the record, nothing more.

Source: kubectl's printers (pkg/printers/internalversion/printers.go printPod), the Docker Engine API (ContainerState), systemctl(1).
Leaves out: everything that is not life, death and memory; times are counted from the boot of the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fleetsim.containers.restarts import service_result
from fleetsim.host import kubelet_types as kt
from fleetsim.host.pods import containers_of, processes_of
from fleetsim.host.programs import Names
from fleetsim.linux.mm_types import NS_PER_S

PAGE = 4096
NO_TIME = "0001-01-01T00:00:00Z"


def pod_status(row: Any, p: int) -> str:
    """The STATUS column: the phase, unless a container has something to say."""
    pod = row["pods"][p]
    status = "Terminating" if pod["leaving"] else kt.REASONS[int(pod["reason"])] or kt.POD_PHASES[int(pod["phase"])]
    if pod["leaving"] or int(pod["phase"]) in (kt.SUCCEEDED, kt.FAILED):
        return "Completed" if int(pod["phase"]) == kt.SUCCEEDED else status
    for c in containers_of(row, p):
        reason = kt.REASONS[int(row["containers"][c]["reason"])]
        if reason and int(row["containers"][c]["state"]) != kt.RUNNING and reason != "PodInitializing":
            if row["containers"][c]["init"]:
                return status if reason == "Completed" else f"Init:{reason}"
            status = reason
    return status


def pods_table(row: Any, names: Names) -> list[dict[str, Any]]:
    """One entry per pod, as `kubectl get pods` and `kubectl describe` show them."""
    entries = []
    for name, p in names.pods.items():
        mine = [c for c in containers_of(row, p) if not row["containers"][c]["init"]]
        entries.append(
            {
                "name": name,
                "ready": f"{sum(int(row['containers'][c]['ready']) for c in mine)}/{len(mine)}",
                "status": pod_status(row, p),
                "restarts": sum(int(row["containers"][c]["restarts"]) for c in mine),
                "qos": kt.QOS_CLASSES[int(row["pods"][p]["qos"])],
                "memory_bytes": int(row["cgroups"][int(row["pods"][p]["cg"])]["usage"]) * PAGE,
                "request_bytes": int(row["pods"][p]["memory_request"]),
                "containers": [container_status(row, names, c) for c in containers_of(row, p)],
            }
        )
    return entries


def container_status(row: Any, names: Names, c: int) -> dict[str, Any]:
    """`containerStatuses` of a pod's status, with what memory the container has."""
    container = row["containers"][c]
    state = kt.CONTAINER_STATES[int(container["state"])]
    return {
        "name": names.container_name(c)[1],
        "state": state,
        "reason": kt.REASONS[int(container["reason"])] if state != "running" else "",
        "last_reason": kt.REASONS[int(container["last_reason"])],
        "exit_code": int(container["exit_code"]),
        "restarts": int(container["restarts"]),
        "ready": bool(container["ready"]),
        "memory_bytes": int(row["cgroups"][int(container["cg"])]["usage"]) * PAGE,
        "limit_bytes": int(container["limit"]),
    }


def docker_inspect(row: Any, names: Names, name: str, when: Callable[[int], str]) -> dict[str, Any]:
    """`docker inspect NAME`: Name, RestartCount, State. `when` writes an instant.

    OOMKilled is true as soon as the OOM killer was at the container, even if only a child died of it.
    """
    c = names.containers[name, name]
    container = row["containers"][c]
    policy = kt.RESTART_POLICIES[int(row["pods"][int(container["pod"])]["restart"])]
    running, waiting = int(container["state"]) == kt.RUNNING, int(container["state"]) == kt.WAITING and int(container["restarts"]) > 0
    started = int(container["started_ns"])
    return {
        "Name": f"/{name}",
        "RestartCount": int(container["restarts"]),
        "State": {
            "Status": "running" if running else "restarting" if waiting else "exited" if started or container["pid"] else "created",
            "Running": running or waiting,
            "Paused": False,
            "Restarting": waiting,
            "OOMKilled": bool(container["oom_killed"]),
            "Dead": False,
            "Pid": int(container["pid"]) if running else 0,
            "ExitCode": 0 if running else int(container["exit_code"]),
            "Error": "",
            "StartedAt": when(started) if container["pid"] else NO_TIME,
            "FinishedAt": when(int(container["finished_ns"])) if int(container["finished_ns"]) else NO_TIME,
        },
        "HostConfig": {
            "Memory": int(container["limit"]),
            "RestartPolicy": {
                "Name": {"Always": "always", "OnFailure": "on-failure", "Never": "no", "UnlessStopped": "unless-stopped"}[policy],
                "MaximumRetryCount": max(0, int(container["max_retries"])),
            },
        },
    }


def systemctl_show(row: Any, names: Names, name: str) -> dict[str, str]:
    """`systemctl show NAME.service`: the properties that tell of its life and its memory."""
    c = names.containers[name, name]
    container = row["containers"][c]
    state = int(container["state"])
    result = "success"
    if state != kt.RUNNING and container["pid"]:
        result = service_result(int(container["exit_code"]), bool(container["oom_killed"]))
    active = kt.UNIT_STATES[int(container["unit"])]
    main = next(iter(processes_of(row, c)))
    return {
        "Id": f"{name}.service",
        "ActiveState": active,
        "SubState": {"active": "running", "activating": "auto-restart", "inactive": "dead", "failed": "failed"}[active],
        "Result": result,
        "NRestarts": str(int(container["restarts"])),
        "MainPID": str(int(row["tasks"][main]["pid"]) if state == kt.RUNNING else 0),
        "ExecMainStatus": str(int(container["exit_code"])),
        "MemoryCurrent": str(int(row["cgroups"][int(container["cg"])]["usage"]) * PAGE),
        "MemoryMax": str(int(container["limit"])) if container["limit"] else "infinity",
    }


def seconds(t_ns: int) -> str:
    """An instant as seconds since boot."""
    return f"{t_ns / NS_PER_S:.3f}s"
