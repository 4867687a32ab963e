# SPDX-License-Identifier: Apache-2.0
"""The keys of a scenario file (format 1), as pydantic models: what `fleetsim schema` publishes and every reader checks.

A pod entry holds the arguments of its workload beside its own keys, a timeline entry those of its fault: `scenario.py`
separates them. Bytes, nanoseconds and bytes per second from here on (units.py reads what people write).
Leaves out: what needs more than one entry to judge (`scenario.py`) and who is meant by a target (`targets.py`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from fleetsim.containers.load import Load
from fleetsim.fleet.disks import DISKS
from fleetsim.fleet.pod_models import Keys, KubeletKeys, dns_name
from fleetsim.linux.swap_types import NR_SWAPFILES
from fleetsim.units import NS_PER_S, Duration, PositiveDuration, PositiveSize, Size, show_bytes

HOSTS_MAX = 1_000_000
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
IMPACTS = ("killed", "slow", "latency", "errors", "unavailable", "unresponsive")
"""The harms a host can show so far."""


def _sizes(least: int, most: int) -> AfterValidator:
    def check(size: int) -> int:
        if not least <= size <= most:
            raise ValueError(f"write {show_bytes(least)} to {show_bytes(most)}")
        return size

    return AfterValidator(check)


def _a_month_at_most(duration_ns: int) -> int:
    if duration_ns > 31 * 86400 * NS_PER_S:
        raise ValueError("a run is at most 31d")
    return duration_ns


def known_disk(disk: str | None) -> str | None:
    if disk is not None and disk not in DISKS:
        raise ValueError(f"write one of {', '.join(DISKS)}")
    return disk


class SwapKeys(Keys):
    """A swap area of a host."""

    path: str = Field(description="what /proc/swaps calls it, such as /dev/sdb2, /swapfile or /dev/zram0", pattern=r"^/\S+$")
    size: Annotated[PositiveSize, _sizes(40 << 10, 16 << 40)] = Field(description="its size, for zram that of the uncompressed pages")
    type: Literal["partition", "file", "zram"] = Field("partition", description="what it is on")
    priority: int | None = Field(None, description="higher ones are filled first (default: below all before it)", ge=0, le=32767)
    disk: str | None = Field(None, description=f"a disk of its own: {', '.join(DISKS)} (default: it is on the host's disk)")
    mem_limit: Size = Field(0, description="zram: the most memory it may take (default: no limit)")
    swapon: bool = Field(True, description="in use from the start; if not, an op swapon uses it")

    _known = field_validator("disk")(known_disk)


class ZswapKeys(Keys):
    """A compressed cache in front of the swap areas, with the kernel's own parameters."""

    max_pool_percent: int = Field(20, description="share of RAM that its pool may take", ge=0, le=100)
    accept_threshold_percent: int = Field(90, description="how far a full pool must shrink before it is used again", ge=0, le=100)
    zpool: Literal["zbud", "zsmalloc"] = Field("zbud", description="allocator of the pool")
    same_filled_pages_enabled: bool = Field(True, description="pages all of whose words are alike take nothing")


class HostKeys(Keys):
    """A group of hosts that are alike."""

    hosts: int = Field(description="how many hosts", ge=1, le=HOSTS_MAX)
    name: str = Field(description="the group's name, such as web; its hosts are web-0, web-1 …")
    memory: Annotated[PositiveSize, _sizes(256 << 20, 16 << 40)] = Field(description="installed RAM of each, such as 64GiB")
    swap: Annotated[Size, _sizes(0, 16 << 40)] = Field(0, description="swap space of each")
    swaps: list[SwapKeys] = Field(default_factory=list, description="swap areas of each, instead of 'swap'", max_length=NR_SWAPFILES)
    zswap: ZswapKeys | None = Field(None, description="zswap in front of the swap areas (default: none)")
    cpus: int = Field(4, description="CPUs of each", ge=1, le=1024)
    cpu_profile: Literal["server", "vm"] = Field(
        "server", description="what its operations cost: those of bare metal or of a virtual machine"
    )
    numa_nodes: Literal[1, 2] = Field(1, description="NUMA nodes of each, with equal shares of its memory and CPUs")
    disk: str | None = Field(None, description=f"kind of disk: {', '.join(DISKS)} (default nvme; to be said where there is swap)")
    sysctl: dict[str, int] = Field(default_factory=dict, description="kernel settings, such as {vm.swappiness: 10}")
    hugepages_1gib: int = Field(0, ge=0, le=4096, description="pages of 1 GiB set aside at boot (hugepagesz=1G hugepages=N)")
    thp: Literal["always", "madvise", "never"] = Field("madvise", description="transparent huge pages")
    lru_gen: bool = Field(False, description="reclaim by generations (MGLRU), as distributions choose that enable it; Debian does not")
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="labels of the hosts' scrape targets, such as {site: north, job: node}; {host} and {group} stand for names",
    )
    files: dict[str, Annotated[PositiveSize, _sizes(1, 1 << 50)]] = Field(
        default_factory=dict, description="files on the data disk, such as {/data/big.bin: 200GiB}"
    )
    runtime: Literal["kubernetes", "docker", "systemd"] = Field(
        "kubernetes", description="who starts and restarts what runs there: a kubelet, bare Docker, or systemd (each pod is a service)"
    )
    kubelet: KubeletKeys | None = Field(
        None, description="settings of its kubelet (default: Kubernetes' own; {eviction_hard: 0} never evicts)"
    )
    pods: list[dict[str, Any]] = Field(default_factory=list, description="what runs on each of them")
    deployments: list[dict[str, Any]] = Field(
        default_factory=list, description="replicas that a scheduler places on them, and replaces when they are evicted"
    )

    _dns = field_validator("name")(dns_name)

    _known = field_validator("disk")(known_disk)

    @property
    def swap_bytes(self) -> int:
        """All swap that each has."""
        return self.swap + sum(area.size for area in self.swaps)

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for name in labels:
            if not _LABEL.fullmatch(name) or name.startswith("__"):
                raise ValueError(
                    f"{name!r} cannot be a label; a label is letters, digits and '_', such as site, and does not start with '__'"
                )
        return labels

    @field_validator("files")
    @classmethod
    def _files(cls, files: dict[str, int]) -> dict[str, int]:
        for path in files:
            if not path.startswith("/") or path.endswith("/") or any(c.isspace() for c in path):
                raise ValueError(f"{path!r} is not a file's path; write an absolute path without spaces, such as /data/big.bin")
        return files


class TimelineKeys(Keys):
    """Something that goes wrong. The fault's own parameters stand beside these keys."""

    at: Duration = Field(description="when it begins, such as 10m")
    fault: str = Field(description="which fault, see fleetsim list faults")
    on: str = Field(description="whom it hits, such as one web, 10% of db, all")
    for_: PositiveDuration | None = Field(None, alias="for", description="how long it lasts (default: to the end)")


class HealthKeys(Keys):
    """How a load balancer finds out which replicas answer."""

    every: PositiveDuration = Field(5 * NS_PER_S, description="time between two checks of a replica, whole seconds")
    timeout: PositiveDuration = Field(NS_PER_S, description="an answer that takes longer is a failed check")
    unhealthy: int = Field(3, description="failed checks in a row after which it gets no more requests", ge=1, le=1000)
    healthy: int = Field(2, description="good checks in a row after which it gets some again", ge=1, le=1000)


class ServiceKeys(Keys):
    """Pods on many hosts behind a load balancer."""

    name: str = Field(description="the service's name; targets say service/NAME")
    pods: str = Field(description="its replicas: the name of a pod or a deployment, or group/pod")
    load: Load = Field(description="requests that come to all of it, such as 2000/s")
    balance: Literal["round_robin", "least_requests"] = Field("round_robin", description="who gets the next request")
    health: HealthKeys = Field(default_factory=lambda: HealthKeys.model_validate({}), description="health checks")
    retries: int = Field(0, description="how often a client tries again at once when a request failed", ge=0, le=10)
    retry_budget: float = Field(20.0, description="retries in percent of the new requests, at most", ge=0, le=1000)
    panic: bool = Field(True, description="with no healthy replica left, all that are Ready are tried as if they were")
    drain: Duration | None = Field(
        None,
        description="how long a replica that is taken out may finish what it has before it is cut off (default: as long as it takes)",
    )
    connections: int = Field(
        0,
        description="long-lived connections that carry all requests, each to one replica, as of gRPC (0: each request is balanced)",
        ge=0,
        le=100_000,
    )
    connection_age: Duration = Field(0, description="a connection is closed and opened anew after so long, such as 5m (0: never)")

    @model_validator(mode="after")
    def _of_connections(self) -> ServiceKeys:
        if self.connection_age and not self.connections:
            raise ValueError("'connection_age' needs 'connections', such as 100; without them every request is balanced by itself")
        return self

    _dns = field_validator("name")(dns_name)


class ExpectKeys(Keys):
    """What must be seen: exactly one of impact, alert, silent, false_alarm."""

    impact: Literal["killed", "slow", "latency", "errors", "unavailable", "unresponsive"] | None = Field(
        None, description="the simulator must show this harm"
    )
    alert: str | None = Field(None, description="this alert must fire", min_length=1)
    silent: str | None = Field(None, description="this alert must not fire", min_length=1)
    false_alarm: str | None = Field(None, description="this alert is expected to fire although nobody is hurt", min_length=1)
    on: str | None = Field(None, description="where (default: impact and alert on the target, the others on all)")
    within: PositiveDuration | None = Field(None, description="by when, counted from the start of the fault")
    before: Literal["impact"] | None = Field(None, description="the alert must fire before the first harm")
    why: str = Field("", description="the reason, shown beside the verdict")


class ScenarioKeys(Keys):
    """One incident: who is there, what goes wrong, what must be seen."""

    format: Literal[1] = Field(1, description="version of this grammar")
    summary: str = Field(description="the first sentence of the incident report", min_length=1)
    seed: int = Field(0, description="decides all luck; the same seed gives the same run", ge=0, lt=1 << 63)
    duration: Annotated[PositiveDuration, AfterValidator(_a_month_at_most)] = Field(description="how long the run is, such as 45m")
    fleet: list[dict[str, Any]] = Field(description="groups of hosts", min_length=1, max_length=1000)
    services: list[ServiceKeys] = Field(default_factory=list, description="load balancers in front of pods", max_length=1000)
    timeline: list[dict[str, Any]] = Field(default_factory=list, description="what goes wrong, and when", max_length=1000)
    expect: list[dict[str, Any]] = Field(default_factory=list, description="what must be seen", max_length=1000)
    rules: list[str] = Field(
        default_factory=list, description="rule files that belong to the scenario, relative to it; --rules adds to them", max_length=100
    )
