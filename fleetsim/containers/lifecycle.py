# SPDX-License-Identifier: Apache-2.0
"""Lifecycles as literal tables: (state, event) → state. An illegal move raises and changes nothing.

    pod         Pending → Running → Succeeded | Failed
    container   waiting → running → terminated → waiting (CrashLoopBackOff) → …
    probe       unknown → success ⇄ failure

Source: the pod lifecycle in the Kubernetes documentation; pkg/kubelet/status/status_manager.go checkContainerStateTransition
(a terminated container of a pod that is not restarted stays so).
Leaves out: nothing of these; who causes an event is `kubelet.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

POD: dict[tuple[str, str], str] = {
    ("Pending", "started"): "Running",
    ("Pending", "failed"): "Failed",  # an init container failed for good
    ("Pending", "evicted"): "Failed",
    ("Running", "evicted"): "Failed",
    ("Running", "succeeded"): "Succeeded",
    ("Running", "failed"): "Failed",
}
CONTAINER: dict[tuple[str, str], str] = {
    ("waiting", "started"): "running",
    ("running", "exited"): "terminated",
    ("terminated", "backed_off"): "waiting",
}
PROBE: dict[tuple[str, str], str] = {
    ("unknown", "passed"): "success",
    ("unknown", "failed"): "failure",
    ("success", "failed"): "failure",
    ("failure", "passed"): "success",
    ("success", "restarted"): "unknown",
    ("failure", "restarted"): "unknown",
    ("unknown", "restarted"): "unknown",
}
UNIT: dict[tuple[str, str], str] = {
    ("inactive", "started"): "active",
    ("active", "exited"): "inactive",
    ("active", "failed"): "failed",
    ("active", "backed_off"): "activating",
    ("activating", "started"): "active",
    ("activating", "start_limit_hit"): "failed",
}
"""A systemd service, as `systemctl show -p ActiveState` names its states (activating: auto-restart)."""


class IllegalMove(AssertionError):
    """A move that the table does not have: only a mistake of ours can ask for it."""


def move(table: Mapping[tuple[str, str], str], state: str, event: str) -> str:
    """The state after `event`; IllegalMove if there is none."""
    if (state, event) not in table:
        known = ", ".join(e for s, e in table if s == state) or "nothing"
        raise IllegalMove(f"{event!r} cannot happen to what is {state!r}; only {known} can")
    return table[state, event]
