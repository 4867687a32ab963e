# SPDX-License-Identifier: Apache-2.0
"""The keys of a pod, its containers and its probes in a scenario, and how a host group looks after its pods, as pydantic models.

Leaves out: a workload's own arguments, which stand beside these keys (`pods.py` separates them).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from fleetsim.host.spec import KubeletSpec, ProbeSpec
from fleetsim.units import NS_PER_S, Duration, PositiveDuration, PositiveSize, Size

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_RESTART = re.compile(r"Always|OnFailure|Never|no|always|unless-stopped|on-failure(:[1-9][0-9]{0,3})?")
_POLICIES = {"always": "Always", "no": "Never", "unless-stopped": "UnlessStopped"}


def dns_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name.isdigit() or name == "all":
        raise ValueError("a name is made of small letters, digits and '-', such as web-1 (and is not 'all')")
    return name


def _whole_seconds(duration_ns: int) -> int:
    if duration_ns % NS_PER_S:
        raise ValueError("write whole seconds, as the Kubernetes API takes them, such as 10s")
    return duration_ns


WholeSeconds = Annotated[Duration, AfterValidator(_whole_seconds)]
PositiveSeconds = Annotated[PositiveDuration, AfterValidator(_whole_seconds)]


class Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class ProbeKeys(Keys):
    """A probe: a request that must be answered in time."""

    delay: WholeSeconds = Field(0, description="initialDelaySeconds")
    period: PositiveSeconds = Field(10 * NS_PER_S, description="how often it asks")
    timeout: PositiveSeconds = Field(NS_PER_S, description="an answer that takes longer is a failure")
    failure_threshold: int = Field(3, description="failures in a row until it has failed", ge=1, le=1000)
    success_threshold: int = Field(1, description="successes in a row until it has passed again", ge=1, le=1000)

    def spec(self, kind: str) -> ProbeSpec:
        seconds = (self.delay // NS_PER_S, self.period // NS_PER_S, self.timeout // NS_PER_S)
        return ProbeSpec(kind, *seconds, self.failure_threshold, self.success_threshold)


class ContainerKeys(Keys):
    """One container of a pod. Its workload's arguments stand beside these keys."""

    name: str = Field(description="the container's name, such as app")
    workload: str = Field(description="what it runs, see fleetsim list workloads")
    requests: Size | None = Field(None, description="memory the scheduler sets aside (default: the limits)")
    limits: PositiveSize | None = Field(None, description="memory.max of the container (default: none)")
    swap: Size = Field(0, description="memory.swap.max of the container (default: none, as the kubelet has it)")
    init: bool = Field(False, description="an init container: it runs to its end before the others start")
    startup: ProbeKeys | None = Field(None, description="startup probe: liveness and readiness wait until it passed")
    readiness: ProbeKeys | None = Field(None, description="readiness probe: while it fails no service sends it requests")
    liveness: ProbeKeys | None = Field(None, description="liveness probe: when it fails the container is restarted")

    _dns = field_validator("name")(dns_name)

    @property
    def probes(self) -> tuple[ProbeSpec, ...]:
        given = (("startup", self.startup), ("readiness", self.readiness), ("liveness", self.liveness))
        return tuple(keys.spec(kind) for kind, keys in given if keys is not None)

    @model_validator(mode="after")
    def _in_order(self) -> ContainerKeys:
        for kind, keys in (("startup", self.startup), ("liveness", self.liveness)):
            if keys is not None and keys.success_threshold != 1:
                raise ValueError(f"'success_threshold' of a {kind} probe is 1, as the Kubernetes API demands; take it out")
        return self


class OfPod(Keys):
    """What a pod has beside its containers."""

    numa_node: Literal[0, 1] | None = Field(
        None, description="the only NUMA node of its CPUs and memory, as the kubelet's topology manager sees to (default: any)"
    )
    restart: str = Field(
        "Always",
        description="restartPolicy: Always, OnFailure or Never; for Docker no, always, unless-stopped, on-failure or on-failure:N",
    )
    priority: int = Field(
        0, description="of two pods above their request the one with less is evicted first", ge=-1_000_000_000, le=1_000_000_000
    )
    grace: WholeSeconds = Field(30 * NS_PER_S, description="terminationGracePeriod: SIGKILL follows SIGTERM after that")
    pre_stop: WholeSeconds = Field(
        0, description="lifecycle.preStop.sleep of its containers (Kubernetes): how long they go on before SIGTERM, within the grace period"
    )
    empty_dirs: dict[str, Size] = Field(
        default_factory=dict, description="emptyDir volumes of medium Memory, such as {/cache: 256MiB} (0: as much as the pod may take)"
    )
    oom_policy: Literal["stop", "continue", "kill"] = Field("stop", description="systemd's OOMPolicy: what a kill by the OOM killer does")

    @field_validator("restart")
    @classmethod
    def _restart(cls, restart: str) -> str:
        if not _RESTART.fullmatch(restart):
            raise ValueError(
                "write Always, OnFailure or Never, or as Docker says it no, always, unless-stopped, on-failure or on-failure:3"
            )
        return restart

    @field_validator("empty_dirs")
    @classmethod
    def _paths(cls, empty_dirs: dict[str, int]) -> dict[str, int]:
        for path in empty_dirs:
            if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", path):
                raise ValueError(f"{path!r} is not a directory to mount on; write an absolute path without spaces, such as /cache")
        return empty_dirs

    @model_validator(mode="after")
    def _hook_in_time(self) -> OfPod:
        if self.pre_stop > self.grace:
            raise ValueError("'pre_stop' is longer than 'grace', which the Kubernetes API refuses; write at most the grace period")
        return self

    @property
    def restart_policy(self) -> str:
        head = self.restart.partition(":")[0]
        return "OnFailure" if head == "on-failure" else _POLICIES.get(head, head)

    @property
    def max_retries(self) -> int:
        count = self.restart.partition(":")[2]
        return int(count) if count else -1


class PodKeys(ContainerKeys, OfPod):
    """A pod on every host of its group: one container. Its workload's arguments stand beside these keys."""

    name: str = Field(description="the pod's name, such as checkout")


class PodOfContainersKeys(OfPod):
    """A pod on every host of its group: several containers."""

    name: str = Field(description="the pod's name, such as checkout")
    containers: list[dict[str, Any]] = Field(description="its containers", min_length=1, max_length=16)

    _dns = field_validator("name")(dns_name)


_PODS_OR_PERCENT = r"^([0-9]{1,4}|[0-9]{1,3}%)$"


class DeploymentKeys(Keys):
    """Replicas of a pod that a scheduler places on the hosts of the group. The pod's own keys stand beside these."""

    name: str = Field(description="the deployment's name; its pods are called after it, as in Kubernetes, such as web-1a2b3c4d5-6e7f8")
    replicas: int = Field(description="how many pods", ge=1, le=10_000)
    max_unavailable: str = Field("25%", description="pods that may be away in a rolling update, such as 1 or 25%", pattern=_PODS_OR_PERCENT)
    max_surge: str = Field("25%", description="pods that may be there in addition", pattern=_PODS_OR_PERCENT)
    restarts: list[Duration] = Field(
        default_factory=list, description="when `kubectl rollout restart` is called, such as [10m]", max_length=100
    )

    _dns = field_validator("name")(dns_name)


class KubeletKeys(Keys):
    """How the kubelet of a host is configured; the defaults are Kubernetes' own."""

    kube_reserved: Size = Field(0, description="memory kept from pods for the kubelet and the runtime")
    system_reserved: Size = Field(0, description="memory kept from pods for the system's daemons")
    eviction_hard: Size = Field(100 << 20, description="memory.available below which pods are evicted at once (0: never)")
    eviction_soft: Size = Field(0, description="memory.available below which pods are evicted after a grace period (0: never)")
    eviction_soft_grace: WholeSeconds = Field(0, description="how long it must be below eviction_soft, such as 90s")
    eviction_max_pod_grace: WholeSeconds = Field(0, description="the longest that a pod evicted softly has to end by itself")
    transition_period: WholeSeconds = Field(300 * NS_PER_S, description="how long MemoryPressure stays after it was last seen")
    monitoring_period: PositiveSeconds = Field(10 * NS_PER_S, description="how often memory.available is looked at")
    memory_qos: bool = Field(False, description="feature gate MemoryQoS: memory.min and memory.high from requests and limits")
    memory_throttling_percent: int = Field(90, description="memoryThrottlingFactor in percent", ge=1, le=100)
    swap_behavior: Literal["NoSwap", "LimitedSwap"] = Field("NoSwap", description="what swap containers may use")
    single_process_oom_kill: bool = Field(False, description="true: only the process that is chosen dies, not its whole container")

    def spec(self, runtime: str) -> KubeletSpec:
        in_kubernetes = runtime == "kubernetes"
        return KubeletSpec(
            runtime,
            self.eviction_hard if in_kubernetes else 0,
            self.eviction_soft if in_kubernetes else 0,
            self.eviction_soft_grace / NS_PER_S,
            self.eviction_max_pod_grace // NS_PER_S,
            self.transition_period / NS_PER_S,
            self.monitoring_period / NS_PER_S,
        )

    @model_validator(mode="after")
    def _in_order(self) -> KubeletKeys:
        if self.eviction_soft and self.eviction_soft < self.eviction_hard:
            raise ValueError("'eviction_soft' is below 'eviction_hard', so it is never seen; write more than the hard threshold")
        if self.eviction_soft and not self.eviction_soft_grace:
            raise ValueError("'eviction_soft' needs 'eviction_soft_grace', such as 90s")
        return self
