# SPDX-License-Identifier: Apache-2.0
"""How a container ends: preStop, SIGTERM, a server that finishes what it has, SIGKILL; and who hears of an exit when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleetsim.containers.load import Load
from fleetsim.containers.pod import Pod
from fleetsim.containers.web import Web
from fleetsim.host.ports import Ports
from fleetsim.workloads.arrivals import COUNTERS
from tests.containers.pod_worlds import PodWorld, pod_world, script_pod

S = 10**9
HOG = "mmap_anon a 100 | touch a 100 100 | sleep 100000"


def web_world(load: str = "100/s", *, grace_s: int = 30, pre_stop_s: int = 0, runtime: str = "kubernetes", **more: Any) -> PodWorld:
    arguments = Web(load=Load.model_validate(load), working_set="4MiB", starting="100ms", request_memory=0, **{"cpu": "1ms", **more})
    pod = Pod("web", "web", arguments, grace_s=grace_s, pre_stop_s=pre_stop_s)
    return pod_world(pod, memory_mib=192, runtime=runtime, cpus=4)


def ports_of(w: PodWorld) -> Ports:
    return Ports(w.shard.records, [w.shard.names_of(0)], [(0, "web")])


def counts(ports: Ports) -> dict[str, int]:
    (port,) = ports.read()
    return {name: int(port[name]) for name in COUNTERS}


def ended_at(w: PodWorld) -> tuple[float, int]:
    (exit_,) = w.events("task_exit")
    return exit_.t_ns / S, int(str(exit_.data["exit_code"]))


@pytest.mark.parametrize("pre_stop_s", [0, 5])
def test_sigterm_comes_when_the_pre_stop_hook_is_over_and_it_serves_until_then(pre_stop_s: int) -> None:
    w = web_world(pre_stop_s=pre_stop_s)
    ports = ports_of(w.at(9.5))
    w.command(10, "delete_pod", pod="web")
    w.at(20)
    when, code = ended_at(w)
    assert code == 143 and when == pytest.approx(10 + pre_stop_s, abs=0.1)
    assert w.story("container_stop", "pod_unready", "task_exit", "pod_gone")[:2] == [("container_stop", "web"), ("pod_unready", "web")]
    assert w.times("pod_unready", "web") == [10], "from the beginning it is no endpoint"
    assert counts(ports)["served"] == pytest.approx(100 * (when - 0.13), abs=6)


def test_a_server_that_shuts_down_gracefully_refuses_what_comes_and_loses_nothing_that_it_has() -> None:
    """200 requests of half a second each come in a second: 8 are served at a time. With `finish` all of them are; without, they break."""
    lost: dict[object, dict[str, int]] = {}
    for finish in (0, "20s"):
        w = web_world("100/s", cpu="500ms", workers=4, queue=1000, timeout=0, finish=finish, grace_s=60)
        ports = ports_of(w.at(10))
        w.command(10, "load", task="web", rate_milli=0)
        w.command(10, "delete_pod", pod="web")
        w.at(60)
        lost[finish] = counts(ports)
    assert lost[0]["broken"] > 500
    done = lost["20s"]
    assert done["served"] > lost[0]["served"] + 100
    assert done["served"] + done["refused"] + done["broken"] == done["arrived"]


def test_it_ends_as_soon_as_it_is_idle_and_exits_with_zero() -> None:
    w = web_world("50/s", finish="20s")
    ports = ports_of(w.at(9.5))
    w.command(10, "delete_pod", pod="web")
    w.at(20)
    when, code = ended_at(w)
    assert code == 0 and 10 < when <= 11.1
    found = counts(ports)
    (gone,) = w.times("pod_gone", "web")
    assert found["broken"] == 0 and found["refused"] == pytest.approx(50 * (gone - 10), abs=5), "the listening socket is closed"
    assert found["served"] + found["refused"] == found["arrived"]


def test_what_does_not_finish_in_time_is_killed_by_the_grace_period() -> None:
    w = web_world("20/s", cpu="900ms", workers=2, queue=10_000, timeout=0, finish="300s", grace_s=6)
    w.command(10, "delete_pod", pod="web")
    w.at(25)
    assert ended_at(w) == (pytest.approx(16, abs=0.5), 137)


def test_a_hook_that_takes_longer_than_the_grace_period_leaves_two_seconds() -> None:
    """minimumGracePeriodInSeconds: SIGTERM when the grace period is over, SIGKILL two seconds later."""
    w = web_world("20/s", cpu="900ms", workers=2, queue=10_000, timeout=0, finish="300s", grace_s=4, pre_stop_s=60)
    w.command(10, "delete_pod", pod="web")
    w.at(25)
    assert ended_at(w) == (pytest.approx(10 + 4 + 2, abs=0.5), 137)


def test_what_a_server_had_counted_stays_known_when_its_pod_has_left() -> None:
    w = web_world()
    ports = ports_of(w.at(10))
    before = counts(ports)
    w.command(10, "delete_pod", pod="web")
    w.at(15)
    after = counts(ports)
    assert w.story("pod_gone") == [("pod_gone", "web")]
    assert after["served"] > before["served"]
    assert after["refused"] > 80, "a second's worth came after SIGTERM, and until the pod was gone"
    assert after["arrived"] == after["served"] + after["broken"] + after["refused"]
    assert int(ports.read()[0]["ready"]) == int(ports.read()[0]["endpoint"]) == 0
    ports.send(np.array([1000]))  # nobody is there: nothing happens


def test_cut_connections_lose_what_is_there_and_the_server_goes_on() -> None:
    w = web_world("100/s", cpu="500ms", workers=4, queue=1000, timeout=0)
    ports = ports_of(w.at(10))
    (port,) = ports.read()
    waits = int(port["arrived"]) - int(port["served"]) - int(port["refused"])
    assert waits > 100
    w.command(10, "cut", task="web")
    w.at(10.1)
    assert counts(ports)["broken"] == pytest.approx(waits, abs=20)
    served = counts(ports)["served"]
    assert counts(ports_of(w.at(20)))["served"] > served + 20


def test_who_is_killed_while_idle_loses_what_is_under_way_and_not_what_is_only_counted_together() -> None:
    """A quiet server's requests are counted a second at a time; of 100 a second of 1 ms each hardly one is there at any instant."""
    w = web_world("100/s")
    ports = ports_of(w.at(9.95))
    w.command(9.95, "kill", task="web")
    w.at(9.99)
    found = counts(ports)
    assert found["broken"] <= 3
    assert found["served"] + found["broken"] + found["refused"] == found["arrived"] == pytest.approx(100 * 9.8, abs=20)


# --- who hears of an exit when ----------------------------------------------------------------------------------------------


def restarts(w: PodWorld, task: str = "app") -> list[float]:
    """Seconds between each end and the start after it."""
    ends = [event.t_ns / S for event in w.events("task_exit") if event.subject == task]
    return [round(again - end, 3) for again, end in zip(w.times("restart", task), ends, strict=False)]


def test_docker_restarts_after_100_ms_and_twice_as_long_each_time() -> None:
    w = pod_world(script_pod("app", "sleep 0.25 | exit 1"), runtime="docker", memory_mib=128).at(5)
    assert restarts(w)[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8], abs=0.01)


def test_systemd_restarts_after_restartsec() -> None:
    w = pod_world(script_pod("app", "sleep 3.3 | exit 1", restart="OnFailure"), runtime="systemd", memory_mib=128).at(20)
    assert len(restarts(w)) == 5 and restarts(w) == pytest.approx([0.1] * 5, abs=0.01)


def test_a_kubelet_hears_of_it_when_it_relists() -> None:
    w = pod_world(script_pod("app", "sleep 1.3 | exit 1"), memory_mib=128).at(5)
    assert w.times("container_exit", "app") == [2]


# --- for how long a kill is a harm ------------------------------------------------------------------------------------------


def harms(w: PodWorld) -> list[tuple[str, str]]:
    return [(e.kind, e.subject) for e in w.events("impact_start", "impact_end") if e.data["impact"] == "killed"]


def test_the_harm_of_a_kill_ends_with_the_restart() -> None:
    w = pod_world(script_pod("app", HOG, limits=40)).at(14)
    assert harms(w)[:2] == [("impact_start", "app"), ("impact_end", "app")]


def test_a_kill_is_told_once_and_names_the_pod_of_a_child() -> None:
    w = pod_world(script_pod("app", limits=40, processes={"master": "sleep 1000", "child": HOG})).at(8)
    assert sorted(event.subject for event in w.events("oom_kill")) == ["child", "master"]
