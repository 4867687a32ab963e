# SPDX-License-Identifier: Apache-2.0
"""The control plane for Deployments, given events by hand: what it commands, and that it never looks into a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fleetsim.containers.pod import Pod
from fleetsim.containers.pod_spec import NodeOptions
from fleetsim.containers.resources import Node
from fleetsim.containers.script import Script
from fleetsim.containers.web import Web
from fleetsim.fleet.deployments import RETRY_NS, ControlPlane, Deployment, deployment_of, may_come
from fleetsim.host.spec import Command, Event

GIB, S = 1 << 30, 10**9
HOSTS = ("a", "b", "c")


def pod(requests: int | None = GIB) -> Pod:
    return Pod("web", "script", Script(ops=("sleep 1",)), requests)


def plane(replicas: int = 3, requests: int | None = GIB, **more: Any) -> ControlPlane:
    return ControlPlane([Deployment("web", pod(requests), replicas, **more)], HOSTS, (), NodeOptions(Node(4 * GIB, eviction_hard=0)), 1)


def where(control: ControlPlane) -> dict[str, str | None]:
    return {name: one.host for name, one in control.rollouts[0].pods.items()}


class Cluster:
    """Nodes that do as they are told: a pod serves a second after it was started and is gone a second after it was deleted."""

    def __init__(self, control: ControlPlane) -> None:
        self.control, self.now = control, 0
        self.running = {name: host for name, host in where(control).items() if host is not None}
        self.events = [self.event("pod_ready", name, host) for name, host in self.running.items()]
        self.history: list[tuple[int, int]] = []  # (pods, serving) after each second

    def event(self, kind: str, name: str, host: str, **data: Any) -> Event:
        return Event(self.now, host, 0, kind, name, data)

    def second(self) -> list[Command]:
        self.now += S
        commands, _ = self.control.react(self.events, self.now)
        self.events = []
        serving = len(self.running)
        for command in commands:
            if command.kind == "start_pod":
                name = command.args["spec"].name  # type: ignore[attr-defined]
                self.running[name] = command.host
                self.events.append(self.event("pod_ready", name, command.host))
            else:
                name = str(command.args["pod"])
                del self.running[name]
                serving -= 1
                self.events.append(self.event("pod_gone", name, command.host))
        self.history.append((len(self.running), serving))
        return commands


def test_replicas_are_spread_over_the_hosts_by_their_requests() -> None:
    assert sorted(str(host) for host in where(plane()).values()) == ["a", "b", "c"]


def test_two_planes_of_one_seed_are_the_same_and_names_look_like_kubernetes() -> None:
    one, two = where(plane()), where(plane())
    assert one == two
    assert all(len(name.split("-")) == 3 and name.startswith("web-") for name in one)


def test_an_evicted_replica_is_made_again_elsewhere() -> None:
    """a is under pressure and evicts: the new pod goes to b or c, and nothing else is touched."""
    control = plane(replicas=1, requests=None)
    cluster = Cluster(control)
    cluster.second()
    ((name, host),) = cluster.running.items()
    cluster.events = [
        cluster.event("node_condition", host, host, condition="MemoryPressure", status="True"),
        cluster.event("pod_phase", name, host, phase="Failed", reason="Evicted"),
    ]
    (command,) = cluster.second()
    assert (command.kind, command.author) == ("start_pod", "control-plane") and command.host != host


def test_a_rolling_restart_replaces_every_pod_and_keeps_its_promises() -> None:
    """8 replicas, a quarter at a time: never more than 10 pods, never fewer than 6 that serve, all new in the end."""
    control = plane(replicas=8, restarts_ns=(5 * S,))
    cluster = Cluster(control)
    before = set(cluster.running)
    for _ in range(30):
        cluster.second()
    assert len(cluster.running) == 8 and not before & set(cluster.running)
    assert max(pods for pods, _ in cluster.history) <= 10 and min(serving for _, serving in cluster.history) >= 6


def test_without_the_restart_nothing_ever_happens() -> None:
    cluster = Cluster(plane(replicas=8))
    assert [cluster.second() for _ in range(10)] == [[]] * 10


def test_what_fits_nowhere_is_pending_told_once_and_placed_when_there_is_room() -> None:
    control = plane(replicas=4, requests=3 * GIB)
    assert sorted(map(str, where(control).values())) == ["None", "a", "b", "c"]
    assert control.pending_at_first() == ["1 of 4 replicas of web fit on no host when the run begins: they are Pending"]
    assert plane(replicas=3).pending_at_first() == []
    _, told = control.react([], S)
    assert [(e.kind, e.data["reason"]) for e in told] == [("pod_pending", "0/3 nodes are available")]
    assert control.react([], 2 * S) == ([], [])
    name, host = next((name, host) for name, host in where(control).items() if host)
    gone = [Event(2 * S, host, 0, kind, name, {"phase": "Failed"}) for kind in ("pod_phase", "pod_gone")]
    commands, _ = control.react(gone, 3 * S)
    assert [(c.kind, c.host) for c in commands] == [("start_pod", host)]


def test_a_node_that_refused_a_pod_is_left_alone_for_ten_seconds() -> None:
    control = ControlPlane([Deployment("web", pod(), 1)], ("a",), (), NodeOptions(Node(4 * GIB, eviction_hard=0)), 1)
    ((name, _),) = where(control).items()
    commands, told = control.react([Event(S, "a", 0, "pod_rejected", name, {})], S)
    assert commands == [] and [e.kind for e in told] == ["pod_pending"]
    commands, _ = control.react([], S + RETRY_NS)
    assert [c.kind for c in commands] == ["start_pod"]


def test_what_is_away_is_told_with_its_beginning_and_end_and_a_pod_that_left_takes_its_harm_with_it() -> None:
    control = plane(replicas=2)
    cluster = Cluster(control)
    cluster.second()
    (name, host), *_ = cluster.running.items()
    killed = Event(cluster.now, host, 0, "pod_unready", name, {})
    _, told = control.react([killed], 2 * S)
    assert [(e.kind, e.subject, e.data["unavailable"], e.data["impact"]) for e in told] == [("impact_start", "web", 1, "unavailable")]
    assert host in told[0].data["hosts"]  # type: ignore[operator]
    _, told = control.react([Event(3 * S, host, 0, kind, name, {}) for kind in ("pod_phase", "pod_gone")], 3 * S)
    ended = {(e.host, e.subject, e.data["impact"]) for e in told if e.kind == "impact_end"}
    assert {(host, name, "killed"), (host, f"{name}-child", "killed"), (host, name, "errors")} <= ended
    new = next(one for one in control.rollouts[0].pods if one not in cluster.running)
    where_new = str(where(control)[new])
    _, told = control.react([Event(5 * S, where_new, 0, "pod_ready", new, {})], 5 * S)
    assert [(e.kind, e.subject) for e in told] == [("impact_end", "web")]


def test_a_rolling_restart_of_a_healthy_deployment_is_no_harm() -> None:
    cluster = Cluster(plane(replicas=8, requests=None, restarts_ns=(5 * S,)))
    told: list[Event] = []
    react = cluster.control.react

    def listening(events: Any, now_ns: int) -> Any:
        commands, events = react(events, now_ns)
        told.extend(events)
        return commands, events

    cluster.control.react = listening  # type: ignore[method-assign]
    for _ in range(30):
        cluster.second()
    assert {e.kind for e in told if "impact" in e.data} <= {"impact_end"}, "and ends of what never began are left out of the history"
    assert [e.kind for e in told if "impact" not in e.data] == ["rollout"]


def test_a_recorded_load_comes_to_every_replica_also_to_those_that_come_later(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("0,5\n3,50\n")
    web = Web.model_validate({"load": {"replay": "l.csv"}}, context={"folder": str(tmp_path)})
    template = Pod("web", "web", web, GIB)
    control = ControlPlane([Deployment("web", template, 2)], HOSTS, (), NodeOptions(Node(4 * GIB, eviction_hard=0)), 1)

    def loads(events: list[Event], second: int) -> list[tuple[str, object]]:
        commands, _ = control.react(events, second * S)
        return [(str(c.args["task"]), c.args["rate_milli"]) for c in commands if c.kind == "load"]

    one, two = where(control)
    assert loads([], 1) == [(one, 5000), (two, 5000)]
    assert loads([], 2) == []
    assert loads([], 3) == [(one, 50_000), (two, 50_000)]
    gone = [Event(3 * S, str(where(control)[one]), 0, kind, one, {}) for kind in ("pod_phase", "pod_gone")]
    assert loads(gone, 4) == [] and control.changed, "the new one is sent to a host, which may refuse it"
    (new,) = set(where(control)) - {one, two}
    assert loads([Event(5 * S, str(where(control)[new]), 0, "schedule", new, {})], 5) == [(new, 50_000)]
    assert loads([], 6) == [] and not control.changed


def test_a_refused_replica_is_sent_no_load(tmp_path: Path) -> None:
    """The host does not know it: a command to it would be one to nobody, and the end of the run."""
    (tmp_path / "l.csv").write_text("0,5\n")
    web = Web.model_validate({"load": {"replay": "l.csv"}}, context={"folder": str(tmp_path)})
    control = ControlPlane([Deployment("web", Pod("web", "web", web), 1)], HOSTS, (), NodeOptions(Node(4 * GIB, eviction_hard=0)), 1)
    ((one, host),) = where(control).items()
    gone = [Event(S, str(host), 0, kind, one, {}) for kind in ("pod_phase", "pod_gone")]
    control.react(gone, S)
    ((new, where_to),) = where(control).items()
    commands, _ = control.react([Event(2 * S, str(where_to), 0, "pod_rejected", new, {})], 2 * S)
    assert [c.kind for c in commands] == ["start_pod"], "tried elsewhere"


def test_no_two_pods_of_a_deployment_have_one_name() -> None:
    """Of 5,000 suffixes of five hex digits some are alike; each pod that was asked for is there all the same, and counted once."""
    hosts = tuple(f"h{number}" for number in range(60))
    control = ControlPlane([Deployment("web", pod(None), 5000)], hosts, (), NodeOptions(Node(400 * GIB, eviction_hard=0)), 1)
    assert len(where(control)) == 5000
    assert {deployment_of(name) for name in where(control)} == {"web"}
    assert sum(node.pods for node in control.nodes.values()) == sum(host is not None for host in where(control).values())


def test_where_pods_go_does_not_hang_on_what_a_record_holds() -> None:
    """A node takes as many pods as its kubelet says, whichever size class the planning process has."""
    control = ControlPlane([Deployment("web", pod(None), 120)], ("a",), (), NodeOptions(Node(400 * GIB, eviction_hard=0)), 1)
    assert sum(host == "a" for host in where(control).values()) == 110


def test_replicas_on_one_host_have_processes_of_their_own() -> None:
    family = Script.model_validate({"processes": [{"name": "master", "ops": ["sleep 1"]}, {"name": "helper", "ops": ["sleep 1"]}]})
    control = ControlPlane([Deployment("web", Pod("web", "script", family), 2)], ("a",), (), NodeOptions(Node(4 * GIB, eviction_hard=0)), 1)
    pods = control.pods_on("a")
    assert [process.name for one in pods for process in one.processes] == [f"{one.name}.{p}" for one in pods for p in ("master", "helper")]
    assert [placed.task for placed in control.rollouts[0].pods.values()] == [f"{one.name}.master" for one in pods]


def test_what_may_come_is_the_surge_as_far_as_requests_allow() -> None:
    options = NodeOptions(Node(4 * GIB, eviction_hard=0))
    of = Deployment("web", pod(GIB), 8, max_surge="50%")
    assert len(may_come([of], [pod(GIB)], options)) == 3, "four, but three fit"
    assert len(may_come([of], [], options)) == 4
    assert len(may_come([Deployment("web", pod(None), 2, max_surge="0", max_unavailable="1")], [], options)) == 1, "evicted elsewhere"
    assert len({one.name for one in may_come([of, Deployment("api", pod(None), 8)], [], options)}) == 6
