# SPDX-License-Identifier: Apache-2.0
"""Whatever pods do and whatever is done to them: no illegal move, sound tables, and the kubelet's picture agrees with the kernel's."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fleetsim.containers.pod import Pod
from fleetsim.host import kubelet_types as kt
from fleetsim.host.spec import ProbeSpec
from fleetsim.linux import mm_types as mm
from tests.containers.pod_worlds import PodWorld, pod_of, pod_world, script_container, script_pod

OPS = st.sampled_from(
    [
        "sleep 1000",
        "exit 1",
        "sleep 2 | exit 0",
        "mmap_anon a 60 | touch a 60 0 | sleep 1000",
        "mmap_anon a 90 | touch a 90 3 | sleep 1000",
        "read_file /data 60 0 | sleep 3 | exit 3",
        "write_file /c/x 20 0 | sleep 5 | exit 1",
        "sleep 4 | fork_hold 3 | sleep 1000",
    ]
)
PROBES = st.lists(st.sampled_from(kt.PROBE_KINDS), unique=True, max_size=3).map(
    lambda kinds: tuple(ProbeSpec(k, period_s=3) for k in kinds)
)
LIMITS = st.sampled_from([None, 30, 100])


@st.composite
def pods(draw: Any, name: str) -> Pod:
    more = {
        "restart": draw(st.sampled_from(["Always", "OnFailure", "Never"])),
        "grace_s": draw(st.sampled_from([0, 2])),
        "empty_dirs": {"/c": 0},
    }
    if draw(st.booleans()):
        return script_pod(name, draw(OPS), None, draw(LIMITS), probes=draw(PROBES), **more)
    init = (
        [script_container("init", draw(st.sampled_from(["exit 0", "sleep 2 | exit 0", "exit 1"])), init=True)]
        if draw(st.booleans())
        else []
    )
    return pod_of(name, *init, *(script_container(f"c{n}", draw(OPS), None, draw(LIMITS)) for n in range(draw(st.integers(1, 2)))), **more)


WHAT = st.sampled_from(["kill", "delete_pod", "disk"])
COMMANDS = st.lists(st.tuples(st.integers(1, 50), WHAT, st.integers(0, 2)), max_size=5)


def agrees(w: PodWorld) -> None:
    """What the kubelet believes at a look is what the kernel shows."""
    tasks = w.row["tasks"]
    for container in w.row["containers"][w.row["containers"]["used"] == 1]:
        state = int(tasks[int(container["first"])]["state"])
        if int(container["state"]) == kt.RUNNING:
            assert state != mm.TASK_DEAD or any(int(s) == mm.TASK_EXITING for s in tasks["state"])
        elif int(container["state"]) == kt.TERMINATED:
            assert state == mm.TASK_DEAD and not container["ready"]
        elif int(container["reason"]) == kt.CRASH_LOOP:
            assert state in (mm.TASK_WAITING, mm.TASK_DEAD) and not container["ready"]
    for p, pod in enumerate(w.row["pods"]):
        if pod["used"]:
            main = [c for c in w.row["containers"] if c["used"] and int(c["pod"]) == p and not c["init"]]
            assert bool(pod["serving"]) == (all(c["ready"] for c in main) and not pod["leaving"])
    gone = {p for p, pod in enumerate(w.row["pods"]) if not pod["used"]}
    assert not [c for c in w.row["containers"] if c["used"] and int(c["pod"]) in gone]


@settings(max_examples=15, deadline=None)
@given(st.data(), COMMANDS, st.sampled_from([0, 40]), st.booleans())
def test_any_pods_under_any_commands(data: st.DataObject, commands: list[tuple[int, str, int]], hard_mib: int, single: bool) -> None:
    names = ["a", "b", "c"][: data.draw(st.integers(1, 3))]
    drawn = [data.draw(pods(name)) for name in names]
    w = pod_world(
        *drawn, memory_mib=192, hard_mib=hard_mib, files={"/data": 60 << 20}, options={"single_process_oom_kill": single}, tick_ms=200
    )
    tasks = [process.name for pod in drawn for process in pod.processes]
    for at, kind, which in commands:
        args = {"kill": {"task": tasks[which % len(tasks)]}, "delete_pod": {"pod": names[which % len(names)]}}
        w.command(at + 0.5, kind, **args.get(kind, {"disk": "data", "slow_percent": 100_000}))
    for second in range(1, 60):
        w.at(second)
        agrees(w)
