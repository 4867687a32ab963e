# SPDX-License-Identifier: Apache-2.0
"""The control plane for Deployments: it keeps so many replicas on the hosts of a group, and replaces them one after the other.

Rules: replicas are placed by `containers/scheduler.py` when the plan is made, and afterwards whenever one is missing: evicted, failed
for good, refused by a node, or taken down by a rolling restart. It sees events and gives commands, every epoch; it never looks
into a host. A pod that fits nowhere is Pending, told once, and tried again at every look.
Leaves out: scaling; what a node that is not ready does to its pods (they stay).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from fleetsim.containers.deployment import Replica, fenceposts, to_create, to_delete, too_many
from fleetsim.containers.pod import Pod
from fleetsim.containers.pod_spec import NodeOptions, pod_spec, tree_of
from fleetsim.containers.scheduler import MAX_PODS, NodeInfo, place
from fleetsim.containers.workload import ServerWorkload
from fleetsim.fleet.availability import Availability
from fleetsim.fleet.services import Endpoint
from fleetsim.host.programs import CHILD
from fleetsim.host.spec import Command, Event

RETRY_NS = 10_000_000_000
"""After a node refused a pod it is left alone for so long (the scheduler's back-off queue: 1 s to 10 s)."""
CONTROL_PLANE = "control-plane"
REPLICA_NAME = re.compile(r"(.+)-[0-9a-f]{9}-[0-9a-f]{5}")
OF_A_TASK = ("killed", "latency", "errors")


@dataclass(frozen=True)
class Deployment:
    """`template` is a pod without a name of its own. `restarts_ns`: when `kubectl rollout restart` is called."""

    name: str
    template: Pod
    replicas: int
    max_unavailable: str = "25%"
    max_surge: str = "25%"
    restarts_ns: tuple[int, ...] = ()


@dataclass
class Placed:
    """One replica; `host` is None while it is Pending."""

    pod: Pod
    host: str | None
    revision: int
    task: str  # whom a service's requests go to
    arrived: bool = True  # its host has it; one that is sent to a host may be refused there
    available: bool = False
    leaving: bool = False
    load_ns: int = -1  # the step of a recorded load that it has


@dataclass
class Rollout:
    """A Deployment with its pods as the control plane knows them."""

    deployment: Deployment
    seed: int
    revision: int = 0
    made: int = 0
    pods: dict[str, Placed] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)  # names of all pods that it ever had: none is given twice
    pending_told: set[str] = field(default_factory=set)
    hosts: dict[str, None] = field(default_factory=dict)  # where pods of it stood so far
    availability: Availability = field(init=False)

    def __post_init__(self) -> None:
        one = self.deployment
        self.availability = Availability(one.name, one.replicas, fenceposts(one.max_surge, one.max_unavailable, one.replicas)[1])

    def make(self) -> Placed:
        """A new pod of the latest template, not placed yet."""
        pod = replace(self.deployment.template, name=self.new_name(), replica=True)
        placed = Placed(pod, None, self.revision, pod.serving_task)
        self.pods[placed.pod.name] = placed
        return placed

    def new_name(self) -> str:
        """NAME-TEMPLATE-SUFFIX. Of a thousand suffixes two may be alike; then the next one is taken, as the API server's clients do."""
        name = self.deployment.name
        template = hashlib.sha256(f"{name}\0{self.revision}".encode()).hexdigest()[:9]
        while True:
            suffix = hashlib.sha256(f"{self.seed}\0{name}\0{self.made}".encode()).hexdigest()[:5]
            self.made += 1
            if (chosen := f"{name}-{template}-{suffix}") not in self.named:
                self.named.add(chosen)
                return chosen

    def endpoints(self) -> Iterator[Endpoint]:
        """Its placed pods, as a service sees them."""
        for one in self.pods.values():
            if one.host is not None:
                yield Endpoint((one.host, one.task), one.leaving)

    def replicas(self) -> list[Replica]:
        alive = [one for one in self.pods.values() if not one.leaving]
        return [Replica(one.pod.name, one.available, one.revision == self.revision) for one in alive]


def deployment_of(pod: str) -> str | None:
    """The Deployment that a pod of such a name is a replica of (see `Rollout.new_name`); None: of none."""
    match = REPLICA_NAME.fullmatch(pod)
    return match[1] if match else None


def may_come(deployments: Sequence[Deployment], present: Sequence[Pod], options: NodeOptions) -> list[Pod]:
    """Replicas that a rolling update, or an eviction elsewhere, may add to those `present` on a node, as far as requests allow."""
    free = options.node.allocatable - sum(pod.request_bytes or 0 for pod in present)
    found: list[Pod] = []
    for one in deployments:
        surge, _ = fenceposts(one.max_surge, one.max_unavailable, one.replicas)
        for number in range(max(1, surge)):
            request = one.template.request_bytes or 0
            if request <= free and len(present) + len(found) < MAX_PODS:
                free -= request
                found.append(replace(one.template, name=f"{one.name}-more-{number}", replica=True))
    return found


def endpoints_of(planes: Iterable[ControlPlane]) -> dict[str, list[Endpoint]]:
    """The pods of every Deployment, in the order in which they were made; Deployments of one name are one."""
    found: dict[str, list[Endpoint]] = {}
    for plane in planes:
        for rollout in plane.rollouts:
            found.setdefault(rollout.deployment.name, []).extend(rollout.endpoints())
    return found


def ends_with_its_pod(pod: Pod, event: Event) -> Iterator[Event]:
    """Whatever harm is open at a pod that has left: what is missing from now on is a replica of its Deployment."""
    for process in pod.processes:
        for impact in OF_A_TASK:
            for task in (process.name, process.name + CHILD) if impact == "killed" else (process.name,):
                yield Event(event.t_ns, event.host, 0, "impact_end", task, {"impact": impact})


class ControlPlane:
    """All Deployments of one group of hosts. Made with the plan; `react` is called after every epoch."""

    def __init__(
        self, deployments: Sequence[Deployment], hosts: Sequence[str], fixed: Sequence[Pod], options: NodeOptions, seed: int
    ) -> None:
        self.options, self.seed, self.fixed = options, seed, tuple(fixed)
        self.nodes = {host: NodeInfo(host, options.node.allocatable) for host in hosts}
        for host in hosts:
            for pod in fixed:
                self.nodes[host] = self.nodes[host].with_pod(pod.request_bytes or 0)
        self.rollouts = [Rollout(one, seed) for one in deployments]
        self.changed = False  # pods came or are going since the last look
        self.refused: dict[tuple[str, str], int] = {}  # (deployment, host) → until when it is left alone
        for rollout in self.rollouts:
            for _ in range(rollout.deployment.replicas):
                self.bind(rollout, rollout.make(), 0)

    def bind(self, rollout: Rollout, placed: Placed, now_ns: int) -> bool:
        """Find a node for a pod; False: it stays Pending."""
        request = placed.pod.request_bytes or 0
        open_nodes = [node for node in self.nodes.values() if self.refused.get((rollout.deployment.name, node.name), 0) <= now_ns]
        placed.host = place(placed.pod.name, request, placed.pod.qos, open_nodes, self.seed)
        if placed.host is not None:
            self.nodes[placed.host] = self.nodes[placed.host].with_pod(request)
            rollout.hosts[placed.host] = None
        return placed.host is not None

    def pods_on(self, host: str) -> list[Pod]:
        """Replicas that the plan puts on a host."""
        return [one.pod for rollout in self.rollouts for one in rollout.pods.values() if one.host == host]

    def pending_at_first(self) -> list[str]:
        """One sentence for every Deployment of which some replicas fit nowhere."""
        notes = []
        for rollout in self.rollouts:
            pending = sum(one.host is None for one in rollout.pods.values())
            if pending:
                name, replicas = rollout.deployment.name, rollout.deployment.replicas
                notes.append(f"{pending} of {replicas} replicas of {name} fit on no host when the run begins: they are Pending")
        return notes

    # --- while the run goes on ------------------------------------------------------------------------------------------

    def react(self, events: Iterable[Event], now_ns: int) -> tuple[list[Command], list[Event]]:
        """What to do after what happened: (commands for the hosts, events of the control plane)."""
        commands: list[Command] = []
        told: list[Event] = []
        self.changed = False
        for event in events:
            if event.host in self.nodes:
                self.see(event, now_ns, told)
        for rollout in self.rollouts:
            due = sum(at <= now_ns for at in rollout.deployment.restarts_ns)
            if due > rollout.revision:
                rollout.revision, rollout.availability.rolling = due, True
                told.append(Event(now_ns, "", 0, "rollout", rollout.deployment.name, {"revision": rollout.revision}))
            told += rollout.availability.look(rollout.replicas(), list(rollout.hosts), now_ns)
            self.reconcile(rollout, now_ns, commands, told)
            commands += self.loads(rollout, now_ns)
        self.changed = self.changed or bool(commands)
        return commands, told

    def see(self, event: Event, now_ns: int, told: list[Event]) -> None:
        if event.kind == "node_condition" and event.data.get("condition") == "MemoryPressure":
            self.nodes[event.host] = replace(self.nodes[event.host], pressure=event.data["status"] == "True")
        for rollout in self.rollouts:
            placed = rollout.pods.get(event.subject)
            if placed is None or placed.host != event.host:
                continue
            self.changed = self.changed or event.kind in ("pod_phase", "pod_gone", "pod_rejected")
            if event.kind == "schedule":
                placed.arrived = True
            if event.kind in ("pod_ready", "pod_unready"):
                placed.available = event.kind == "pod_ready"
            elif event.kind == "pod_phase":  # Failed or Succeeded: a ReplicaSet does not count it any more
                placed.leaving, placed.available = True, False
            elif event.kind == "pod_rejected":
                self.refused[rollout.deployment.name, event.host] = now_ns + RETRY_NS
            if event.kind in ("pod_gone", "pod_rejected"):
                self.nodes[event.host] = self.nodes[event.host].without_pod(placed.pod.request_bytes or 0)
                told += ends_with_its_pod(placed.pod, event) if event.kind == "pod_gone" else ()
                del rollout.pods[event.subject]

    def reconcile(self, rollout: Rollout, now_ns: int, commands: list[Command], told: list[Event]) -> None:
        deployment = rollout.deployment
        surge, unavailable = fenceposts(deployment.max_surge, deployment.max_unavailable, deployment.replicas)
        for name in (*to_delete(rollout.replicas(), deployment.replicas, unavailable), *too_many(rollout.replicas(), deployment.replicas)):
            self.delete(rollout, rollout.pods[name], now_ns, commands)
        for _ in range(to_create(rollout.replicas(), deployment.replicas, surge)):
            rollout.make()
        for placed in [one for one in rollout.pods.values() if one.host is None]:
            self.start(rollout, placed, now_ns, commands, told)

    def delete(self, rollout: Rollout, placed: Placed, now_ns: int, commands: list[Command]) -> None:
        if placed.host is None:
            del rollout.pods[placed.pod.name]
            return
        placed.leaving, placed.available = True, False
        commands.append(Command(now_ns, placed.host, "delete_pod", {"pod": placed.pod.name}, CONTROL_PLANE))

    def start(self, rollout: Rollout, placed: Placed, now_ns: int, commands: list[Command], told: list[Event]) -> None:
        name = placed.pod.name
        if not self.bind(rollout, placed, now_ns):
            if name not in rollout.pending_told:
                rollout.pending_told.add(name)
                told.append(Event(now_ns, "", 0, "pod_pending", name, {"pod": name, "reason": f"0/{len(self.nodes)} nodes are available"}))
            return
        assert placed.host is not None
        placed.arrived = False
        spec = pod_spec(placed.host, placed.pod, self.options, tree_of(self.options, self.fixed))
        commands.append(Command(now_ns, placed.host, "start_pod", {"spec": spec}, CONTROL_PLANE))

    def loads(self, rollout: Rollout, now_ns: int) -> Iterator[Command]:
        """A recorded load comes to every replica: the next step to all of them, the present one to a replica that is new."""
        arguments = rollout.deployment.template.arguments
        steps = arguments.load.steps if isinstance(arguments, ServerWorkload) and arguments.load is not None else ()
        step = max((step for step in steps if step[0] <= now_ns), default=None)
        if step is None:
            return
        for placed in rollout.pods.values():
            if placed.host is not None and placed.arrived and not placed.leaving and placed.load_ns != step[0]:
                placed.load_ns = step[0]
                yield Command(now_ns, placed.host, "load", {"task": placed.task, "rate_milli": step[1]}, "load")
