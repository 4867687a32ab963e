# SPDX-License-Identifier: Apache-2.0
"""`fleetsim pods`: what an operator would see of a host's containers in the middle of an incident."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleetsim.cli.main import execute

FLEET = """summary: x
duration: 3m
fleet:
  - hosts: 1
    name: kube
    memory: 512MiB
    pods:
      - {name: app, workload: script, limits: 40MiB, ops: [mmap_anon a 100, touch a 100 100, sleep 1000]}
      - name: web
        containers:
          - {name: main, workload: script, requests: 32MiB, ops: [sleep 1000]}
          - {name: side, workload: idle}
  - hosts: 1
    name: bare
    memory: 512MiB
    runtime: docker
    pods:
      - {name: lone, workload: script, limits: 40MiB, restart: "no", ops: [mmap_anon a 100, touch a 100 100, sleep 1000]}
  - hosts: 1
    name: unit
    memory: 512MiB
    runtime: systemd
    pods:
      - {name: job, workload: script, restart: on-failure, ops: [sleep 1, exit 1]}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "pods.yaml"
    path.write_text(FLEET)
    return str(path)


def test_the_table_is_that_of_kubectl(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["pods", "--at", "6s", scenario, "kube-0"]) == 0
    head, app, web = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "READY", "STATUS", "RESTARTS", "QOS", "MEMORY", "REQUEST"]
    assert app.split()[:5] == ["app", "0/1", "CrashLoopBackOff", "1", "Guaranteed"]
    assert web.split()[:5] == ["web", "2/2", "Running", "0", "Burstable"] and web.split()[6] == "32Mi"


def test_docker_inspect_is_json_with_the_state_that_docker_has(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["pods", "--at", "6s", scenario, "bare-0", "lone"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["State"]["OOMKilled"], shown["State"]["ExitCode"], shown["State"]["Status"]) == (True, 137, "exited")
    assert shown["HostConfig"] == {"Memory": 40 << 20, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}}


def test_systemctl_shows_properties(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["pods", "--at", "20s", scenario, "unit-0", "job"]) == 0
    shown = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert (shown["ActiveState"], shown["Result"], shown["MemoryMax"]) == ("failed", "exit-code", "infinity")


def test_an_unknown_pod_is_one_sentence(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["pods", "--at", "6s", scenario, "kube-0", "wep"]) == 2
    assert "kube-0 has no pod 'wep' at 6s; it has: app, web" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("limits: 40MiB, ops", "restart: sometimes, ops"),
        ("{name: side, workload: idle}", "{name: main, workload: idle}"),
        ("{name: side, workload: idle}", "{name: side, workload: idle, init: maybe}"),
        ("    runtime: docker\n", "    runtime: podman\n"),
        ('restart: "no", ops', 'restart: "no", liveness: {}, ops'),
        ("      - name: web\n", "      - name: web\n        workload: idle\n"),
        ("name: kube\n", "name: kube\n    kubelet: {eviction_soft: 200MiB}\n"),
        ("name: kube\n", "name: kube\n    kubelet: {kube_reserved: 400MiB}\n"),
        ("name: kube\n", "name: kube\n    deployments: [{name: app, workload: idle, replicas: 2}]\n"),
        ("name: kube\n", "name: kube\n    deployments: [{name: more, workload: idle}]\n"),
        ("    runtime: docker\n", "    runtime: docker\n    deployments: [{name: more, workload: idle, replicas: 1}]\n"),
        ('restart: "no", ops', 'restart: "no", pre_stop: 5s, ops'),
        ('restart: "no", ops', 'restart: "no", priority: 7, ops'),
        ("limits: 40MiB, ops", "liveness: {period: 500ms}, ops"),
        ("limits: 40MiB, ops", "liveness: {success_threshold: 2}, ops"),
        ("limits: 40MiB, ops", "empty_dirs: {cache: 10MiB}, ops"),
    ],
)
def test_bad_input_is_one_sentence_with_the_line(wrong: str, right: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    assert wrong in FLEET
    path.write_text(FLEET.replace(wrong, right, 1))
    assert execute(["validate", str(path)]) == 2
    told = capsys.readouterr().err
    assert "bad.yaml:" in told and "Traceback" not in told
    print(told)


DEPLOYED = """summary: x
duration: 2m
fleet:
  - hosts: 3
    name: node
    memory: 512MiB
    deployments:
      - {name: app, replicas: 3, workload: idle, memory: 8MiB, requests: 16MiB, restarts: [10s]}
"""


def test_one_host_of_a_deployment_is_what_it_is_in_the_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rolling restart waits for pods on other hosts, so those have to run as well."""
    path = tmp_path / "deployed.yaml"
    path.write_text(DEPLOYED)
    assert execute(["run", "--out", str(tmp_path / "run"), str(path)]) == 0
    events = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    there: dict[str, set[str]] = {f"node-{n}": set() for n in range(3)}
    for event in events:
        if event["kind"] == "pod_ready":
            there[event["host"]].add(event["subject"])
        elif event["kind"] == "pod_gone":
            there[event["host"]].discard(event["subject"])
    for host, pods in there.items():
        capsys.readouterr()
        assert execute(["pods", "--json", "--at", "119s", str(path), host]) == 0
        assert {pod["name"] for pod in json.loads(capsys.readouterr().out)["pods"]} == pods
    assert sum(len(pods) for pods in there.values()) == 3
