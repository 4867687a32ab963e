# SPDX-License-Identifier: Apache-2.0
"""Who looks after a host's containers: the kubelet, or dockerd, or systemd. Every second it relists and decides what to do.

    look() ─ relist (a law) ─┬─ a container started, ended, lost a process, is being stopped   → this file
                             ├─ a probe passed or failed                                       → this file
                             └─ memory.available, the node's condition                         → node_pressure.py

Rules: all that it knows is in the host's record; it acts on processes only (start, SIGTERM, SIGKILL) and never on memory; moves follow
the tables of `lifecycle.py`. A container has ended when its PID 1 and all others of its PID namespace are gone.
Source: pkg/kubelet/kubelet.go, pkg/kubelet/kuberuntime/kuberuntime_manager.go (computePodActions), pkg/kubelet/prober.
A kubelet finds what happened when it relists, Docker and systemd hear of an exit at once. How a container is stopped says `stopping.py`.
Leaves out: image pulls, lifecycle hooks other than a preStop that sleeps, sidecar (restartable init) containers, the time that creating
a container takes.
"""

from __future__ import annotations

from typing import Any

from fleetsim.containers import lifecycle, node_pressure, restarts
from fleetsim.containers.restarts import StartLimit
from fleetsim.containers.stopping import STOPPED_FOR_GOOD, go_on_stopping, kill, stop
from fleetsim.host import kubelet_types as kt
from fleetsim.host.pods import containers_of, is_empty, processes_of, remove_pod
from fleetsim.host.relist import CONTAINERS, NODE, PROBES, relist
from fleetsim.host.shard import Shard
from fleetsim.linux import mm_types as mm

EV_OOM_KILL = mm.EV["oom_kill"]


def subject_of(pod: str, container: str) -> str:
    """How the history calls a container: like its pod, if it is the only one and has the pod's name."""
    return pod if pod == container else f"{pod}/{container}"


class Kubelet:
    """The agent of all hosts of a shard (see `host/shard.py`)."""

    def look(self, shard: Shard, host_index: int, now_ns: int) -> int:
        if worth := relist(shard.records, host_index):
            Sync(shard, host_index).decide(int(worth))
        return now_ns + kt.RELIST_NS

    def notice(self, shard: Shard, host_index: int) -> None:
        """dockerd (containerd's events) and systemd (SIGCHLD) act as soon as a process is gone."""
        row = shard.records[host_index]
        if int(row["kubelet"]["runtime"]) != kt.KUBERNETES and int(row["kubelet"]["exits_seen"]) != int(row["nr_exits"]):
            row["kubelet"]["exits_seen"] = row["nr_exits"]
            Sync(shard, host_index).decide(CONTAINERS)


class Sync:
    """One host, one instant."""

    def __init__(self, shard: Shard, i: int) -> None:
        self.shard, self.i = shard, i
        shard.changed(i)
        self.row, self.names = shard.records[i], shard.names_of(i)
        self.now = int(self.row["now_ns"])
        self.runtime = int(self.row["kubelet"]["runtime"])

    def decide(self, worth: int) -> None:
        if worth & CONTAINERS:
            for p in self.pods():
                self.sync_pod(p)
            self.note_what_is_under_way()
        if worth & PROBES:
            self.sync_probes()
        if worth & NODE:
            node_pressure.synchronize(self)

    def note_what_is_under_way(self) -> None:
        """What has to be looked at again although nothing else may happen: pods that leave, containers that are being stopped or end."""
        containers = self.row["containers"][: int(self.row["nr_containers"])]
        running = containers[(containers["used"] == 1) & (containers["state"] == kt.RUNNING)]
        ending = self.row["tasks"]["state"][running["first"]] != mm.TASK_RUNNING
        self.row["kubelet"]["busy"] = int(ending.any() or (running["kill_ns"] > 0).any() or self.row["pods"]["leaving"].any())

    def pods(self) -> list[int]:
        return [p for p in range(int(self.row["nr_pods"])) if self.row["pods"][p]["used"]]

    def tell(self, kind: str, subject: str, **data: Any) -> None:
        self.shard.emit(self.i, kind, subject, **data)

    def tell_container(self, kind: str, c: int, **data: Any) -> None:
        pod, name = self.names.container_name(c)
        self.tell(kind, subject_of(pod, name), pod=pod, container=name, **data)

    # --- pods ----------------------------------------------------------------------------------------------------------

    def sync_pod(self, p: int) -> None:
        pod = self.row["pods"][p]
        mine = containers_of(self.row, p)
        if pod["leaving"]:
            self.stop_pod(p, int(pod["grace_ns"]))
        for c in mine:
            self.sync_container(c)
        if pod["leaving"] and is_empty(self.row, p):
            self.leave(p)
            return
        self.sync_phase(p, mine)
        self.sync_serving(p, mine)

    def stop_pod(self, p: int, grace_ns: int) -> None:
        for c in containers_of(self.row, p):
            if self.row["containers"][c]["stopping"] != STOPPED_FOR_GOOD:
                stop(self, c, grace_ns, "the pod is deleted")
                self.row["containers"][c]["stopping"] = STOPPED_FOR_GOOD
        self.sync_serving(p, containers_of(self.row, p))

    def leave(self, p: int) -> None:
        name, phase = self.names.pod_name(p), kt.POD_PHASES[int(self.row["pods"][p]["phase"])]
        remove_pod(self.row, self.names, p)
        if self.row["kubelet"]["evicting"] == p + 1:
            self.row["kubelet"]["evicting"] = 0
            self.row["kubelet"]["monitor_ns"] = self.now  # who was evicted is gone: look again at once
        self.tell("pod_gone", name, pod=name, phase=phase)

    def move_pod(self, p: int, event: str) -> None:
        pod = self.row["pods"][p]
        phase = lifecycle.move(lifecycle.POD, kt.POD_PHASES[int(pod["phase"])], event)
        pod["phase"] = kt.POD_PHASES.index(phase)
        if event != "started":
            name = self.names.pod_name(p)
            self.tell("pod_phase", name, pod=name, phase=phase, reason=kt.REASONS[int(pod["reason"])])

    def sync_phase(self, p: int, mine: list[int]) -> None:
        """Init containers first, one after the other; then the phase that the containers' states make."""
        pod = self.row["pods"][p]
        rows = [self.row["containers"][c] for c in mine]
        if int(pod["phase"]) in (kt.SUCCEEDED, kt.FAILED) or pod["leaving"]:
            return
        ended = [one for one in rows if self.is_over(one)]
        failed = [one for one in ended if int(one["exit_code"]) != 0]
        init_failed = [one for one in failed if one["init"]]
        if init_failed:
            self.move_pod(p, "failed")
            return
        for c, one in zip(mine, rows, strict=True):
            if int(one["reason"]) == kt.CONTAINER_CREATING and int(one["state"]) == kt.WAITING:
                if all(self.is_over(other) for other in rows if other["init"] and other is not one and self.before(other, one, mine, rows)):
                    self.start(c, self.now)
                    one["reason"] = kt.NO_REASON
        main = [one for one in rows if not one["init"]]
        if int(pod["phase"]) == kt.PENDING and any(int(one["state"]) == kt.RUNNING or int(one["restarts"]) > 0 for one in main):
            self.move_pod(p, "started")
        if int(pod["phase"]) == kt.RUNNING and all(self.is_over(one) for one in main):
            self.move_pod(p, "failed" if any(int(one["exit_code"]) != 0 for one in main) else "succeeded")

    def before(self, other: Any, one: Any, mine: list[int], rows: list[Any]) -> bool:
        """Does init container `other` come before `one`? All do before an app container."""
        at = {int(row["first"]): number for number, row in enumerate(rows)}
        return not one["init"] or at[int(other["first"])] < at[int(one["first"])]

    def is_over(self, container: Any) -> bool:
        return int(container["state"]) == kt.TERMINATED

    def sync_serving(self, p: int, mine: list[int]) -> None:
        pod = self.row["pods"][p]
        main = [self.row["containers"][c] for c in mine if not self.row["containers"][c]["init"]]
        serving = int(bool(main) and not pod["leaving"] and all(one["ready"] for one in main))
        if serving != int(pod["serving"]):
            pod["serving"] = serving
            name = self.names.pod_name(p)
            self.tell("pod_ready" if serving else "pod_unready", name, pod=name)

    # --- containers ------------------------------------------------------------------------------------------------------

    def sync_container(self, c: int) -> None:
        container = self.row["containers"][c]
        task = self.row["tasks"][int(container["first"])]
        if int(container["state"]) == kt.WAITING and int(task["pid"]) != int(container["pid"]):
            self.started(c)
        if int(container["state"]) != kt.RUNNING:
            return
        if int(container["kill_ns"]) > 0 and self.now >= int(container["kill_ns"]):
            kill(self, c)
        elif container["stopping"]:
            go_on_stopping(self, c)
        kills = int(self.row["cgroups"][int(container["cg"])]["events"][EV_OOM_KILL])
        if kills != int(container["oom_seen"]):
            self.oom_killed(c, kills - int(container["oom_seen"]))
            container["oom_seen"] = kills
        if self.is_gone(container):
            self.ended(c)

    def is_gone(self, container: Any) -> bool:
        """True once PID 1 and everybody else of its PID namespace are dead."""
        tasks = self.row["tasks"][: int(self.row["nr_tasks"])]
        if int(tasks[int(container["first"])]["state"]) != mm.TASK_DEAD:
            return False
        inside = tasks[tasks["pid_ns"] == int(container["first"]) + 1]
        return not any(int(state) in (mm.TASK_RUNNING, mm.TASK_EXITING) for state in inside["state"])

    def move_unit(self, container: Any, event: str) -> None:
        if self.runtime == kt.SYSTEMD:
            state = lifecycle.move(lifecycle.UNIT, kt.UNIT_STATES[int(container["unit"])], event)
            container["unit"] = kt.UNIT_STATES.index(state)

    def move(self, container: Any, event: str) -> None:
        state = lifecycle.move(lifecycle.CONTAINER, kt.CONTAINER_STATES[int(container["state"])], event)
        container["state"] = kt.CONTAINER_STATES.index(state)

    def started(self, c: int) -> None:
        container = self.row["containers"][c]
        task = self.row["tasks"][int(container["first"])]
        self.move(container, "started")
        self.move_unit(container, "started")
        container["pid"], container["started_ns"], container["reason"] = task["pid"], task["started_ns"], kt.NO_REASON
        container["oom_killed"], container["hook"], container["kill_ns"], container["stopping"] = 0, 0, 0, 0
        if self.runtime == kt.SYSTEMD and container["restarts"] == 0:
            container["window_ns"], container["window_starts"] = self.now, 1
        kinds = set()
        for probe in self.row["probes"][: int(self.row["nr_probes"])]:
            if probe["used"] and int(probe["container"]) == c:
                kinds.add(int(probe["kind"]))
                due = int(container["started_ns"]) + int(probe["delay_s"]) * mm.NS_PER_S
                probe["next_ns"] = -(-due // mm.NS_PER_S) * mm.NS_PER_S + mm.NS_PER_S  # a worker's first tick
                self.row["kubelet"]["probe_ns"] = min(int(self.row["kubelet"]["probe_ns"]), int(probe["next_ns"]))
                probe["failures"], probe["successes"], probe["result"] = 0, 0, self.probe_result(probe, "restarted")
        container["startup_done"] = int(kt.STARTUP not in kinds)
        container["ready"] = int(kt.READINESS not in kinds and kt.STARTUP not in kinds and not container["init"])

    def ended(self, c: int) -> None:
        """PID 1 is gone: why, and does it start again?"""
        container = self.row["containers"][c]
        pod = self.row["pods"][int(container["pod"])]
        task = self.row["tasks"][int(container["first"])]
        self.move(container, "exited")
        oom = int(task["killed"]) > 0
        container["exit_code"], container["finished_ns"], container["ready"] = task["exit_code"], task["exit_ready_ns"], 0
        container["reason"] = kt.OOM_KILLED if oom else kt.COMPLETED if int(task["exit_code"]) == 0 else kt.ERROR
        container["last_reason"] = container["reason"]
        self.tell_container(
            "container_exit",
            c,
            exit_code=int(task["exit_code"]),
            reason=kt.REASONS[int(container["reason"])],
            restarts=int(container["restarts"]),
        )
        for_good = int(container["stopping"]) == STOPPED_FOR_GOOD or bool(pod["leaving"])
        delay_ns = None if for_good else self.restart_delay(c, oom)
        if delay_ns is not None:
            self.back_off(c, delay_ns)
        elif kt.UNIT_STATES[int(container["unit"])] == "active":
            result = restarts.service_result(int(container["exit_code"]), bool(container["oom_killed"]))
            self.move_unit(container, "exited" if result == "success" else "failed")

    def restart_delay(self, c: int, oom: bool) -> int | None:
        """How long after its end it starts again, as its runtime does it; None: never."""
        container = self.row["containers"][c]
        policy = kt.RESTART_POLICIES[int(self.row["pods"][int(container["pod"])]["restart"])]
        code, finished = int(container["exit_code"]), int(container["finished_ns"])
        if container["init"]:
            if code == 0:
                return None
            policy = "Never" if policy == "Never" else "Always"
        if self.runtime == kt.SYSTEMD:
            return self.systemd_delay(c, code, oom)
        if not restarts.wants_restart(policy, code):
            return None
        previous = int(container["backoff_ns"])
        if self.runtime == kt.DOCKER:
            if 0 <= int(container["max_retries"]) <= int(container["restarts"]):
                return None
            return restarts.docker_delay(previous, finished - int(container["started_ns"]))
        return restarts.crash_loop_delay(previous, finished - int(container["failed_ns"]))

    def systemd_delay(self, c: int, code: int, oom: bool) -> int | None:
        container = self.row["containers"][c]
        policy = SYSTEMD_RESTART[kt.RESTART_POLICIES[int(self.row["pods"][int(container["pod"])]["restart"])]]
        result = restarts.service_result(code, oom or bool(container["oom_killed"]))
        if result not in restarts.RESTARTS_AFTER[policy]:
            return None
        seen = StartLimit(int(container["window_ns"]), int(container["window_starts"])).start(self.now)
        if seen is None:
            self.move_unit(container, "backed_off")
            self.move_unit(container, "start_limit_hit")
            self.tell_container("start_limit_hit", c, restarts=int(container["restarts"]))
            return None
        container["window_ns"], container["window_starts"] = seen.since_ns, seen.starts
        return restarts.SYSTEMD_RESTART_NS

    def back_off(self, c: int, delay_ns: int) -> None:
        container = self.row["containers"][c]
        self.move(container, "backed_off")
        self.move_unit(container, "backed_off")
        container["reason"] = kt.CRASH_LOOP
        container["backoff_ns"], container["failed_ns"] = delay_ns, container["finished_ns"]
        container["restarts"] += 1
        self.start(c, max(self.now, int(container["finished_ns"]) + delay_ns))
        self.tell_container("back_off", c, seconds=round(delay_ns / mm.NS_PER_S, 3), restarts=int(container["restarts"]))

    def start(self, c: int, at_ns: int) -> None:
        """Its processes start at `at_ns`."""
        for t in processes_of(self.row, c):
            self.row["tasks"][t]["state"] = mm.TASK_WAITING
            self.row["tasks"][t]["started_ns"] = at_ns

    def oom_killed(self, c: int, kills: int) -> None:
        """The OOM killer was at it. Is its PID 1 alive, then nobody but the kernel's counter tells of it."""
        container = self.row["containers"][c]
        container["oom_killed"] = 1
        if int(self.row["tasks"][int(container["first"])]["state"]) != mm.TASK_RUNNING:
            return
        self.tell_container("process_oom_killed", c, processes=kills)
        if self.runtime == kt.SYSTEMD and int(container["oom_policy"]) == kt.OOM_STOP:
            stop(self, c, int(self.row["pods"][int(container["pod"])]["grace_ns"]), "OOMPolicy=stop")

    # --- probes ----------------------------------------------------------------------------------------------------------

    def probe_result(self, probe: Any, event: str) -> int:
        results = ("unknown", "success", "failure")
        return results.index(lifecycle.move(lifecycle.PROBE, results[int(probe["result"])], event))

    def sync_probes(self) -> None:
        for probe in self.row["probes"][: int(self.row["nr_probes"])]:
            if not probe["told"]:
                continue
            probe["told"] = 0
            c, kind, result = int(probe["container"]), int(probe["kind"]), int(probe["result"])
            if int(self.row["containers"][c]["state"]) != kt.RUNNING:  # it has ended meanwhile
                continue
            if int(probe["failures"]) > 0:
                self.tell_failure(c, probe)
            container = self.row["containers"][c]
            if kind == kt.STARTUP and result == kt.SUCCESS:
                self.startup_passed(c)
            elif kind == kt.READINESS and bool(container["ready"]) != (result == kt.SUCCESS):
                self.set_ready(c, result == kt.SUCCESS)
            elif kind in (kt.STARTUP, kt.LIVENESS) and result == kt.FAILURE:
                grace = int(self.row["pods"][int(container["pod"])]["grace_ns"])
                stop(self, c, grace, f"{kt.PROBE_KINDS[kind]} probe failed")
                self.sync_serving(int(container["pod"]), containers_of(self.row, int(container["pod"])))

    def tell_failure(self, c: int, probe: Any) -> None:
        answer = int(probe["answer_ns"])
        data = {"failures": int(probe["failures"]), "threshold": int(probe["failure_threshold"])}
        reason = {"reason": "connection refused"} if answer < 0 else {"reason": "timeout", "answer_ms": answer // mm.NS_PER_MS}
        self.tell_container("probe_fail", c, probe=kt.PROBE_KINDS[int(probe["kind"])], **reason, **data)

    def startup_passed(self, c: int) -> None:
        self.row["containers"][c]["startup_done"] = 1
        probes = self.row["probes"][: int(self.row["nr_probes"])]
        if not any(one["used"] and int(one["container"]) == c and int(one["kind"]) == kt.READINESS for one in probes):
            self.set_ready(c, True)

    def set_ready(self, c: int, ready: bool) -> None:
        container = self.row["containers"][c]
        container["ready"] = int(ready)
        self.tell_container("container_ready" if ready else "container_unready", c)
        self.sync_serving(int(container["pod"]), containers_of(self.row, int(container["pod"])))


SYSTEMD_RESTART = {"Always": "always", "OnFailure": "on-failure", "Never": "no", "UnlessStopped": "always"}
