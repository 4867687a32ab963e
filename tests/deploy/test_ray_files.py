# SPDX-License-Identifier: Apache-2.0
"""The files of deploy/ray are ones that Ray and KubeRay take, and say the same versions and commands as the project."""

from __future__ import annotations

import copy
import re
import shlex
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer.main
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv

from fleetsim.cli.main import app
from fleetsim.fleet.scenario import load_scenario

PROJECT = Path(__file__).parents[2]
RAY = PROJECT / "deploy" / "ray"
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE))


def content(name: str) -> Any:
    return yaml.safe_load((RAY / name).read_text())


# --- ray up -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cluster.yaml", "own-machines.yaml"])
def test_ray_up_takes_the_cluster_file(name: str) -> None:
    validate_config(prepare_config(content(name)))


@pytest.mark.parametrize(
    "spoil", [{"worker": {}}, {"head_node_type": "nobody"}, {"max_workers": 1}, {"idle_timeout_minutes": "ten"}], ids=str
)
def test_ray_up_would_refuse_a_wrong_one(spoil: dict[str, Any]) -> None:
    wrong = content("cluster.yaml") | spoil
    with pytest.raises(Exception, match=r"worker|head_node_type|max_workers|ten"):
        validate_config(prepare_config(wrong))


@pytest.mark.parametrize("name", ["cluster.yaml", "own-machines.yaml"])
def test_the_folder_that_is_copied_is_the_one_that_is_installed(name: str) -> None:
    cluster = content(name)
    (there, here), *_ = cluster["file_mounts"].items()
    installs = [command for command in cluster["setup_commands"] if "pip install" in command]
    assert here == "."
    assert [shlex.split(command)[-3:] for command in installs] == [["-c", f"{there}/constraints.txt", there]]


# --- KubeRay ----------------------------------------------------------------------------------------------------------------
# The fields that are used of ray-operator/apis/ray/v1 (raycluster_types.go, rayjob_types.go) and of Kubernetes' core/v1.


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _a_quantity(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)?(m|[KMGT]i?)?", text):
        raise ValueError(f"{text!r} is no quantity of Kubernetes")
    return text


Quantity = Annotated[str, AfterValidator(_a_quantity)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class Resources(Strict):
    requests: dict[Literal["cpu", "memory"], Quantity]
    limits: dict[Literal["cpu", "memory"], Quantity]


class Port(Strict):
    containerPort: Annotated[int, Field(gt=0, lt=65536)]
    name: Annotated[Name, Field(max_length=15)]


class Mount(Strict):
    name: Name
    mountPath: Annotated[str, Field(pattern="^/")]


class Container(Strict):
    name: Name
    image: str
    resources: Resources
    ports: list[Port] = []
    volumeMounts: list[Mount] = []


class Claim(Strict):
    claimName: Name


class Volume(Strict):
    name: Name
    persistentVolumeClaim: Claim


class PodSpec(Strict):
    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume] = []


class Template(Strict):
    spec: PodSpec


class HeadGroup(Strict):
    rayStartParams: dict[str, str]
    template: Template


class WorkerGroup(Strict):
    groupName: Name
    replicas: int
    minReplicas: int
    maxReplicas: int
    rayStartParams: dict[str, str]
    template: Template


class ClusterSpec(Strict):
    rayVersion: str
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]

    def pods(self) -> list[PodSpec]:
        return [self.headGroupSpec.template.spec, *(group.template.spec for group in self.workerGroupSpecs)]


class Metadata(Strict):
    name: Name


class RayCluster(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class JobSpec(Strict):
    entrypoint: str
    runtimeEnvYAML: str
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    backoffLimit: int
    rayClusterSpec: ClusterSpec


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


def cluster_specs() -> list[ClusterSpec]:
    return [RayCluster.model_validate(content("raycluster.yaml")).spec, RayJob.model_validate(content("rayjob.yaml")).spec.rayClusterSpec]


def test_kuberay_takes_the_manifests() -> None:
    assert len(cluster_specs()) == 2
    wrong = copy.deepcopy(content("rayjob.yaml"))
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1
    with pytest.raises(ValidationError, match="minReplica"):
        RayJob.model_validate(wrong)


def test_what_is_mounted_is_a_volume_of_its_pod_and_a_claim_that_the_files_make() -> None:
    claims = {content("runs-volume.yaml")["metadata"]["name"]}
    for pod in [pod for spec in cluster_specs() for pod in spec.pods()]:
        volumes = {volume.name: volume.persistentVolumeClaim.claimName for volume in pod.volumes}
        assert {mount.name for container in pod.containers for mount in container.volumeMounts} <= set(volumes)
        assert set(volumes.values()) <= claims


def test_pods_have_the_memory_that_they_ask_for_so_that_none_is_killed_for_another() -> None:
    for container in [container for spec in cluster_specs() for pod in spec.pods() for container in pod.containers]:
        assert container.resources.requests["memory"] == container.resources.limits["memory"]


# --- one project, one version -----------------------------------------------------------------------------------------------


def test_ray_is_everywhere_the_version_that_the_project_is_tested_with() -> None:
    image = f"rayproject/ray:{PINS['ray']}-py311"
    assert f"\nFROM {image}\n" in (RAY / "Dockerfile").read_text()
    assert content("cluster.yaml")["docker"]["image"] == image
    assert {spec.rayVersion for spec in cluster_specs()} == {PINS["ray"]}


def test_the_runtime_environment_brings_what_the_project_needs_in_the_versions_it_is_tested_with() -> None:
    environment = RuntimeEnv(**content("runtime-env.yaml"))
    needed = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.split(r"[\[<>=]", one)[0] for one in needed]
    pins = {name.lower().replace("_", "-"): version for name, version in PINS.items()}
    assert environment["pip"]["packages"] == [f"{name}=={pins[name]}" for name in names if name != "ray"]  # Ray is there


def commands() -> list[str]:
    """Every fleetsim command that these files tell anybody to use."""
    job = content("rayjob.yaml")["spec"]["entrypoint"]
    text = (RAY / "runtime-env.yaml").read_text().replace("\\\n#", "")
    return [job, *re.findall(r"-- python -m (fleetsim .*)", text)]


@pytest.mark.parametrize("command", commands())
def test_commands_are_ones_that_this_fleetsim_has(command: str) -> None:
    _, verb, *rest = shlex.split(command)
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    parsed = group.commands[verb].make_context(verb, rest)
    scenario = parsed.params.get("scenario") or parsed.params["scenarios"][0]
    assert load_scenario(PROJECT / scenario).name
    assert parsed.params["ray"] == "auto"


def test_the_guide_names_every_file() -> None:
    guide = (RAY / "README.md").read_text()
    files = {path.name for path in RAY.iterdir()} - {"README.md", "Dockerfile.dockerignore"}
    assert files == set(re.findall(r"\]\(([\w.-]+)\)", guide))
