# SPDX-License-Identifier: Apache-2.0
"""What the kubelet of a host (or Docker, or systemd) knows: its pods, their containers, their probes, and the node's condition.

Fields only, so that a snapshot of the record holds them; what is decided with them is in `fleetsim/containers/`, in Python, but for
the look that is taken every second (`relist.py`). Names stand beside the record (`Names.pods`, `Names.containers`).
Leaves out: images, volumes other than tmpfs, everything of a pod that is not memory, life or readiness.
"""

from __future__ import annotations

import numpy as np

from fleetsim.linux.capacity_classes import CAPACITY

NR_PODS = CAPACITY.pods
NR_CONTAINERS = CAPACITY.containers
NR_PROBES = CAPACITY.probes
RELIST_NS = 1_000_000_000
"""Period of the pod lifecycle event generator (pkg/kubelet/kubelet.go genericPlegRelistPeriod)."""

# --- states, as their tables in containers/lifecycle.py name them ----------------------------------------------------
PENDING, POD_RUNNING, SUCCEEDED, FAILED = range(4)
POD_PHASES = ("Pending", "Running", "Succeeded", "Failed")
WAITING, RUNNING, TERMINATED = range(3)
CONTAINER_STATES = ("waiting", "running", "terminated")
NO_REASON, CRASH_LOOP, COMPLETED, ERROR, OOM_KILLED, EVICTED, CONTAINER_CREATING = range(7)
REASONS = ("", "CrashLoopBackOff", "Completed", "Error", "OOMKilled", "Evicted", "PodInitializing")
GUARANTEED, BURSTABLE, BESTEFFORT = range(3)
QOS_CLASSES = ("guaranteed", "burstable", "besteffort")
ALWAYS, ON_FAILURE, NEVER_RESTART, UNLESS_STOPPED = range(4)
UNIT_STATES = ("inactive", "active", "activating", "failed")
RESTART_POLICIES = ("Always", "OnFailure", "Never", "UnlessStopped")
KUBERNETES, DOCKER, SYSTEMD = range(3)
RUNTIMES = ("kubernetes", "docker", "systemd")
OOM_STOP, OOM_CONTINUE, OOM_KILL = range(3)
OOM_POLICIES = ("stop", "continue", "kill")
STARTUP, READINESS, LIVENESS = range(3)
PROBE_KINDS = ("startup", "readiness", "liveness")
UNKNOWN, SUCCESS, FAILURE = range(3)

POD = np.dtype(
    [
        ("used", "i1"),
        ("phase", "i1"),
        ("reason", "i1"),
        ("qos", "i1"),
        ("restart", "i1"),  # restartPolicy
        ("serving", "i1"),  # 1: all its containers are ready, so that a service sends it requests
        ("leaving", "i1"),  # 1: it was deleted or evicted; its cgroups go when its last process is gone
        ("cg", "i2"),  # row of its cgroup
        ("priority", "i4"),
        ("grace_ns", "i8"),  # terminationGracePeriodSeconds
        ("pre_stop_s", "i2"),  # how long the preStop hook of its containers sleeps before SIGTERM
        ("memory_request", "i8"),  # bytes, all containers
    ]
)

CONTAINER = np.dtype(
    [
        ("used", "i1"),
        ("pod", "i2"),
        ("init", "i1"),  # 1: it runs to its end before the others start
        ("state", "i1"),
        ("reason", "i1"),  # of the state; of a waiting one CrashLoopBackOff
        ("last_reason", "i1"),  # why it ended last (lastState.terminated)
        ("ready", "i1"),
        ("startup_done", "i1"),  # 1: its startup probe succeeded, or it has none
        ("stopping", "i1"),  # 1: it is being stopped by us; 2: for good
        ("oom_killed", "i1"),  # 1: the OOM killer was at it since it started, be it at a child of it
        ("tasks", "i1"),  # processes that start with it: rows `first` and on
        ("cg", "i2"),
        ("first", "i2"),  # row of its PID 1
        ("oom_policy", "i1"),  # systemd's OOMPolicy=
        ("unit", "i1"),  # systemd's ActiveState
        ("exit_code", "i4"),
        ("restarts", "i4"),
        ("max_retries", "i4"),  # Docker's on-failure:N, −1: no limit
        ("oom_seen", "i4"),  # oom_kill of its memory.events at the last look
        ("pid", "i4"),  # of its PID 1 at the last look
        ("backoff_ns", "i8"),  # the next one, 0: it has not failed yet
        ("failed_ns", "i8"),  # when it last failed (the back-off's lastUpdate)
        ("started_ns", "i8"),
        ("finished_ns", "i8"),
        ("hook", "i1"),  # 1: it is being stopped, and its preStop hook is under way …
        ("term_s", "i4"),  # … until this second; SIGTERM comes, or came, then
        ("kill_ns", "i8"),  # SIGKILL follows its SIGTERM then, 0: none under way
        ("window_ns", "i8"),  # systemd: when the interval of its start limit began …
        ("window_starts", "i4"),  # … and starts within it
        ("request", "i8"),  # bytes, 0: none
        ("limit", "i8"),
    ]
)

PROBE = np.dtype(
    [
        ("used", "i1"),
        ("kind", "i1"),  # PROBE_KINDS
        ("container", "i2"),
        ("result", "i1"),  # UNKNOWN, SUCCESS, FAILURE
        ("delay_s", "i4"),  # initialDelaySeconds
        ("period_s", "i4"),
        ("timeout_s", "i4"),
        ("failure_threshold", "i2"),
        ("success_threshold", "i2"),
        ("failures", "i2"),  # in a row, up to the threshold
        ("successes", "i2"),
        ("next_ns", "i8"),  # when it is asked next
        ("answer_ns", "i8"),  # how long the last answer took; −1: refused
        ("told", "i1"),  # failures that the history has been told of
    ]
)

KUBELET = np.dtype(
    [
        ("used", "i1"),
        ("runtime", "i1"),
        ("pressure", "i1"),  # MemoryPressure as the status says it
        ("over", "i1"),  # a threshold was met at the last look: 1 soft, 2 hard
        ("next_ns", "i8"),  # next look
        ("monitor_ns", "i8"),  # next look at the eviction signals
        ("status_ns", "i8"),  # next nodeStatusUpdate
        ("low_ns", "i8"),  # when a threshold was last met
        ("soft_since_ns", "i8"),  # since when the soft one is met, −1: it is not
        ("hard_pages", "i8"),  # evictionHard memory.available, 0: none
        ("soft_pages", "i8"),
        ("soft_grace_ns", "i8"),
        ("pod_grace_ns", "i8"),  # evictionMaxPodGracePeriod
        ("transition_ns", "i8"),  # evictionPressureTransitionPeriod
        ("monitor_period_ns", "i8"),
        ("available_pages", "i8"),  # memory.available at the last look
        ("busy", "i1"),  # 1: something is under way, so that every look is worth a decision
        ("pids_seen", "i8"),  # next_pid, nr_exits and oom_kill of vmstat at the last look: nothing of it changed, nothing happened
        ("exits_seen", "i8"),
        ("oom_seen", "i8"),
        ("probe_ns", "i8"),  # when the next probe is due
        ("evicting", "i2"),  # one more than the pod that is being evicted; no other is meanwhile
    ]
)

KUBELET_FIELDS = [
    ("pods", POD, (NR_PODS,)),
    ("nr_pods", "i8"),
    ("containers", CONTAINER, (NR_CONTAINERS,)),
    ("nr_containers", "i8"),
    ("probes", PROBE, (NR_PROBES,)),
    ("nr_probes", "i8"),
    ("kubelet", KUBELET),
]
