# SPDX-License-Identifier: Apache-2.0
"""Hosts of a group are told at boot what the scenario says, and what they have in common is there once."""

from __future__ import annotations

import gc
import pickle
import tracemalloc

from fleetsim.containers.pod import pod_cgroup
from fleetsim.containers.pod_spec import PodSpecs, pod_spec, tree_of
from fleetsim.fleet.hosts import host_specs, pod_names
from fleetsim.fleet.pods import node_options
from fleetsim.fleet.scale_fleet import containers, scale_plan


def test_a_host_is_its_name_and_the_files_that_faults_read_there() -> None:
    group = scale_plan(3, 40).scenario.groups[0]
    pods = dict.fromkeys(group.host_names, group.pods)
    first, second, third = host_specs(group, pods, {"node-1": {"/fault": 4096}})
    assert [spec.name for spec in (first, second, third)] == group.host_names
    assert second.files == {**first.files, "/fault": 4096} and "/fault" not in first.files
    assert first.files is third.files and first.sysctl is second.sysctl
    assert all(one is other for one, other in zip(first.pods.pods, third.pods.pods, strict=True))  # type: ignore[attr-defined]


def test_pods_are_made_when_somebody_looks_and_are_what_the_node_makes_of_each() -> None:
    group = scale_plan(2, 40).scenario.groups[0]
    options = node_options(group.keys)
    pods = PodSpecs("node-1", group.pods, options)
    tree = tree_of(options, group.pods)
    assert list(pods) == [pod_spec("node-1", pod, options, tree) for pod in group.pods]
    assert pods[1] == list(pods)[1] and pods[-2:] == tuple(pods)[-2:] and len(pods) == containers()
    made = {cgroup.name for pod in pods for cgroup in pod.cgroups}
    other = {cgroup.name for pod in PodSpecs("node-0", group.pods, options) for cgroup in pod.cgroups}
    assert set(pods.cgroup_names()) == made - other, "the ids, and nothing that all hosts have"
    assert pod_cgroup("node-1", group.pods[0]) in pods.cgroup_names()
    assert pods.alike(PodSpecs("node-0", group.pods, options)) and not pods.alike(PodSpecs("node-0", group.pods[1:], options))


def test_a_plan_grows_by_little_with_each_host() -> None:
    few, many = scale_plan(100, 40), scale_plan(500, 40)
    assert (len(pickle.dumps(many)) - len(pickle.dumps(few))) / 400 < 1000
    assert [pod_names(spec) for spec in few.hosts[:2]] == [[pod.name for pod in spec.pods] for spec in few.hosts[:2]]
    gc.collect()
    tracemalloc.start()
    again = scale_plan(500, 40)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(again.hosts) == 500 and taken / 500 < 4096, "with thirty containers on each"
