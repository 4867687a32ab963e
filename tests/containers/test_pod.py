# SPDX-License-Identifier: Apache-2.0
"""Pods as a node makes them: cgroups, oom_score_adj, swap, MemoryQoS, tmpfs, with Kubernetes, Docker and systemd."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fleetsim.containers.pod import Container, Pod, container_cgroup
from fleetsim.containers.pod_spec import NodeOptions, PodSpecs
from fleetsim.containers.resources import Node
from fleetsim.containers.script import Script
from fleetsim.containers.workload import ANYWHERE, Process, Room
from fleetsim.host.spec import CgroupSpec, PodSpec

GIB, MIB = 1 << 30, 1 << 20
OPTIONS = NodeOptions(Node(64 * GIB, eviction_hard=0))


def pod(name: str = "p", requests: int | None = None, limits: int | None = None, ops: tuple[str, ...] = ("sleep 1",), **more: Any) -> Pod:
    return Pod(name, "script", Script(ops=ops), requests, limits, **more)


def container(name: str, requests: int | None = None, limits: int | None = None, **more: Any) -> Container:
    return Container(name, "script", Script(ops=("sleep 1",)), requests, limits, **more)


def pod_of(*containers: Container, **more: Any) -> Pod:
    first = containers[0]
    return Pod("p", "script", first.arguments, first.requests, first.limits, several=containers, **more)


def spec(one: Pod, options: NodeOptions = OPTIONS) -> PodSpec:
    return PodSpecs("web-0", (one,), options)[0]


def tree(*pods: Pod, options: NodeOptions = OPTIONS) -> dict[str, CgroupSpec]:
    return {cgroup.name: cgroup for one in PodSpecs("web-0", pods, options) for cgroup in one.cgroups}


def test_the_tree_is_the_kubelets() -> None:
    """
    kubepods → burstable → pod → container with limits; guaranteed pods directly under kubepods; parents come before children
    """
    found = tree(pod("a", GIB, 2 * GIB), pod("b", None, GIB), pod("c"))
    containers = [name for name in found if name.startswith("cri-containerd-")]
    above = [found[found[name].parent].parent for name in containers]
    assert above == ["kubepods-burstable.slice", "kubepods.slice", "kubepods-besteffort.slice"]
    assert [found[name].limits.get("memory.max") for name in containers] == [2 * GIB, GIB, None]
    assert all(found[name].limits["memory.swap.max"] == 0 and found[name].limits["memory.oom.group"] == 1 for name in containers)
    assert all("memory.min" not in cgroup.limits and "memory.low" not in cgroup.limits for cgroup in found.values())
    assert "memory.max" not in found["kubepods.slice"].limits, "nothing is reserved"
    seen = {""}
    for cgroup in found.values():
        assert cgroup.parent in seen
        seen.add(cgroup.name)


def test_what_is_reserved_is_kept_from_kubepods_and_the_eviction_threshold_is_not() -> None:
    node = Node(64 * GIB, kube_reserved=GIB, system_reserved=2 * GIB, eviction_hard=100 * MIB)
    assert tree(pod(), options=NodeOptions(node))["kubepods.slice"].limits == {"memory.max": 61 * GIB}
    assert node.allocatable == 61 * GIB - 100 * MIB


def test_memory_qos_keeps_requests_at_every_level_and_throttles_before_the_limit() -> None:
    """T-17.2 in the tree: 256 MiB of 512 MiB → memory.high 510,025,728."""
    one, two = pod("a", 256 * MIB, 512 * MIB), pod("b", GIB, GIB)
    found = tree(one, two, options=replace(OPTIONS, memory_qos=True))
    assert found["kubepods.slice"].limits["memory.min"] == GIB + 256 * MIB
    assert found["kubepods-burstable.slice"].limits["memory.min"] == 256 * MIB
    inside = found[container_cgroup("web-0", "a")].limits
    assert (inside["memory.min"], inside["memory.high"]) == (256 * MIB, 510_025_728)
    shielded = found[container_cgroup("web-0", "b")].limits
    assert shielded["memory.min"] == GIB and "memory.high" not in shielded


def test_limited_swap_reaches_the_burstable_container() -> None:
    """T-17.3: 4 GiB of 64, 16 GiB of swap → 1 GiB; a Guaranteed one gets none."""
    options = replace(OPTIONS, limited_swap=True, swap_bytes=16 * GIB)
    found = tree(pod("a", 4 * GIB, 8 * GIB), pod("b", 4 * GIB, 4 * GIB), options=options)
    assert found[container_cgroup("web-0", "a")].limits["memory.swap.max"] == GIB
    assert found[container_cgroup("web-0", "b")].limits["memory.swap.max"] == 0


def test_a_container_may_be_given_swap_of_its_own() -> None:
    assert tree(pod("a", GIB, 2 * GIB, swap=MIB))[container_cgroup("web-0", "a")].limits["memory.swap.max"] == MIB


def test_containers_of_a_pod_share_its_slice_and_its_class_but_not_their_scores() -> None:
    """burstable: app requests 32 of 64 GiB → 500, the sidecar nothing → 999; the pod has no limit, since the sidecar has none."""
    one = pod_of(container("app", 32 * GIB, 40 * GIB), container("sidecar"))
    made = spec(one)
    assert made.qos == "burstable"
    assert [task.oom_score_adj for each in made.containers for task in each.tasks] == [500, 999]
    assert [task.name for each in made.containers for task in each.tasks] == ["p.app", "p.sidecar"]
    (slice_spec,) = [cgroup for cgroup in made.cgroups if cgroup.name == made.cgroup]
    assert "memory.max" not in slice_spec.limits
    assert {cgroup.parent for cgroup in made.cgroups if cgroup.name.startswith("cri-")} == {made.cgroup}


def test_app_containers_wait_for_init_containers_and_the_larger_request_counts() -> None:
    one = pod_of(container("migrate", 2 * GIB, init=True), container("app", GIB), container("sidecar", 512 * MIB))
    assert one.request_bytes == 2 * GIB
    assert [each.tasks[0].held for each in spec(one).containers] == [False, True, True]


def test_nobody_but_the_kubelet_starts_a_container_again() -> None:
    assert all(task.restart_s is None for each in spec(pod()).containers for task in each.tasks)


def test_docker_gives_as_much_swap_as_memory_and_kills_one_process() -> None:
    made = spec(pod("a", None, GIB), replace(OPTIONS, runtime="docker"))
    (inside,) = [cgroup for cgroup in made.cgroups if cgroup.name.startswith("docker-")]
    assert inside.parent == "system.slice"
    assert inside.limits == {"memory.max": GIB, "memory.swap.max": GIB}
    assert made.containers[0].tasks[0].oom_score_adj == 0


def test_systemd_makes_a_unit_and_kills_it_whole_if_it_is_told_to() -> None:
    options = replace(OPTIONS, runtime="systemd")
    limits = {policy: spec(pod("a", None, GIB, oom_policy=policy), options).cgroups[-1].limits for policy in ("stop", "kill")}
    assert limits == {"stop": {"memory.max": GIB}, "kill": {"memory.max": GIB, "memory.oom.group": 1}}
    assert spec(pod("a"), options).cgroups[-1].name == "a.service"


def test_names_of_cgroups_differ_between_hosts_and_not_between_runs() -> None:
    first, again, other = (PodSpecs(host, (pod(),), OPTIONS)[0].cgroups[-1].name for host in ("web-0", "web-0", "web-1"))
    assert first == again != other


def test_an_empty_dir_of_medium_memory_is_a_tmpfs_of_the_pod() -> None:
    """Its size is the one given, else what the pod may take; its files are the pod's own."""
    one = pod("a", None, GIB, ops=("write_file /cache/x 10 0", "write_file /big/y 10 0"), empty_dirs={"/cache": 256 * MIB, "/big": 0})
    made = spec(one)
    base = "/var/lib/kubelet/pods/a/volumes/kubernetes.io~empty-dir"
    assert made.tmpfs == {f"{base}/cache": 256 * MIB, f"{base}/big": GIB}
    assert made.containers[0].tasks[0].ops == (f"write_file {base}/cache/x 10 0", f"write_file {base}/big/y 10 0")


def test_a_container_has_64_mib_of_dev_shm_of_its_own_if_it_uses_it() -> None:
    assert spec(pod("a", ops=("write_file /dev/shm/ring 10 0",))).tmpfs == {"/var/lib/kubelet/pods/a/shm": 64 * MIB}
    assert spec(pod("a")).tmpfs == {}


class Sized(Script):
    """A workload that looks at where it is."""

    def processes(self, pod: str, room: Room = ANYWHERE) -> tuple[Process, ...]:
        return (Process(f"{pod}-{room.visible_bytes >> 20}-{room.cpus}", ("sleep 1",)),)


def test_a_workload_sees_the_memory_and_the_cpus_it_has() -> None:
    """Its limit, else the host's memory."""
    sized = Sized(ops=("sleep 1",))
    options = replace(OPTIONS, cpus=6)
    names = [spec(Pod("p", "script", sized, None, limit), options).containers[0].tasks[0].name for limit in (512 * MIB, None)]
    assert names == ["p-512-6", "p-65536-6"]
