# SPDX-License-Identifier: Apache-2.0
"""When does what died start again? The kubelet's back-off, Docker's restart manager, systemd's Restart= and start limit.

Each is a function of what is known when a container has ended; the answer is the delay in ns, or None: it stays as it is.
Source: pkg/kubelet/kuberuntime/kuberuntime_manager.go doBackOff, k8s.io/client-go/util/flowcontrol/backoff.go; moby
restartmanager/restartmanager.go; systemd.service(5), systemd.unit(5); kernel-laws §17.4.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetsim.units import NS_PER_S

BASE_NS, MAX_NS = 10 * NS_PER_S, 300 * NS_PER_S
RESET_NS = 2 * MAX_NS
"""A container that did not fail for so long begins at the base again (Backoff.hasExpired: twice the longest)."""
DOCKER_BASE_NS, DOCKER_MAX_NS, DOCKER_RESET_NS = 100_000_000, 60 * NS_PER_S, 10 * NS_PER_S


def wants_restart(policy: str, exit_code: int) -> bool:
    """Does the pod's restartPolicy ask for another start? (Docker's unless-stopped is Always until somebody stops it.)"""
    return policy in ("Always", "UnlessStopped") or (policy == "OnFailure" and exit_code != 0)


def crash_loop_delay(previous_ns: int, since_last_failure_ns: int) -> int:
    """CrashLoopBackOff: 10 s, then twice as long each time, 300 s at most; 10 s again after ten minutes without a failure.

    previous_ns  the delay before, 0: it never failed

    Source: kernel-laws §17.4, worked example T-17.4. Leaves out: a kubelet restarts a container that fails for the first time within
    a second (the back-off counts from the second failure on); here, as in the worked example, that one waits too.
    """
    if previous_ns == 0 or since_last_failure_ns > RESET_NS:
        return BASE_NS
    return min(2 * previous_ns, MAX_NS)


def docker_delay(previous_ns: int, ran_ns: int) -> int:
    """Docker: 100 ms, twice as long each time, a minute at most; 100 ms again once a container ran for ten seconds.

    Source: moby restartmanager/restartmanager.go ShouldRestart.
    """
    if previous_ns == 0 or ran_ns > DOCKER_RESET_NS:
        return DOCKER_BASE_NS
    return min(2 * previous_ns, DOCKER_MAX_NS)


@dataclass(frozen=True)
class StartLimit:
    """systemd's StartLimitIntervalSec= and StartLimitBurst=: how many starts the interval that began at `since_ns` has seen."""

    since_ns: int = 0
    starts: int = 0
    interval_ns: int = 10 * NS_PER_S
    burst: int = 5

    def start(self, now_ns: int) -> StartLimit | None:
        """One more start; None: the limit is hit, the unit is failed.

        Source: src/basic/ratelimit.c ratelimit_below.
        """
        if self.starts == 0 or now_ns - self.since_ns > self.interval_ns:
            return StartLimit(now_ns, 1, self.interval_ns, self.burst)
        if self.starts >= self.burst:
            return None
        return StartLimit(self.since_ns, self.starts + 1, self.interval_ns, self.burst)


RESTARTS_AFTER: dict[str, frozenset[str]] = {
    "no": frozenset(),
    "always": frozenset({"success", "exit-code", "signal", "oom-kill"}),
    "on-success": frozenset({"success"}),
    "on-failure": frozenset({"exit-code", "signal", "oom-kill"}),
    "on-abnormal": frozenset({"signal", "oom-kill"}),
    "on-abort": frozenset({"signal"}),
}
"""systemd.service(5), table of Restart=: after which results of a service it is started again."""


def service_result(exit_code: int, oom_killed: bool) -> str:
    """systemd's Result=: how a service ended."""
    if oom_killed:
        return "oom-kill"
    if exit_code in (0, 143, 130, 129, 141):  # SIGTERM, SIGINT, SIGHUP and SIGPIPE are clean for a service
        return "success"
    return "signal" if exit_code > 128 else "exit-code"


SYSTEMD_RESTART_NS = 100_000_000
"""RestartSec='s default."""
