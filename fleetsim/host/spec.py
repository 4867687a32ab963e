# SPDX-License-Identifier: Apache-2.0
"""What a host is told at boot: plain frozen data, the only thing that fleets, tests and `fidelity` hand to `boot()`.

Bytes and seconds here (this is an edge); `boot.py` converts to pages and nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CgroupSpec:
    """One cgroup v2 directory. `limits` has the interface files' own names and values in bytes (-1 = `max`), cpuset.mems a bit for
    each node."""

    name: str
    parent: str = ""  # "" is the root
    limits: Mapping[str, int] = field(
        default_factory=dict
    )  # memory.max, memory.high, memory.min, memory.low, memory.swap.max, memory.oom.group


@dataclass(frozen=True)
class Requests:
    """What a server's users do and what they put up with."""

    workers: int = 16  # requests served at the same time
    queue_max: int = 128  # … and waiting
    rate_milli: int = 0  # requests per 1000 s, on average over a period …
    swing_milli: int = 0  # … and how many more at its peak
    period_ns: int = 86_400 * 10**9
    peak_ns: int = 0  # when the first peak is, from 00:00 of the clock on the wall
    timeout_ns: int = 0  # 0: clients wait for ever
    cancels: bool = False  # the server drops a request whose client went away; else it serves it for nothing
    slo_ns: int = 0  # latency objective, 0: none …
    late_permille: int = 10  # … which so many of a thousand requests may miss
    finish_ns: int = 0  # after SIGTERM it finishes what it has, for so long at most; 0: it ends at once


@dataclass(frozen=True)
class PlugIn:
    """A workload whose program is Python of a user's own (host/plugins.py). It is shipped and kept in checkpoints by pickling."""

    name: str  # as scenarios write it
    begin: Callable[[], Any]  # makes the program of a process that starts; it has a method `step(kernel)`
    origin: str = ""  # the distribution that it comes with


@dataclass(frozen=True)
class Work:
    """What a process does, if it is not a script: a workload of `workloads/works.py` and its arguments by field. A path among them
    becomes the row of that file, `at_ns` is a time of the day (UTC)."""

    kind: str
    values: Mapping[str, int | str] = field(default_factory=dict)
    requests: Requests | None = None
    areas: tuple[tuple[int, bool], ...] = ()  # (pages, used at random) of what it may map at once: is there room in the record?
    shared: tuple[int, ...] = ()  # pages of the shared memory that it makes, used at random
    files: tuple[tuple[str, int, int], ...] = ()  # (path, most pages it ever writes to it, parts used at random: 0, 1 or hot and cold)
    children: int = 0  # processes that it may fork …
    inherits: int = 0  # … each with copies of so many of its areas …
    on_top: tuple[tuple[int, bool], ...] = ()  # … as which it writes to so many pages that the fork left shared
    plugin: PlugIn | None = None  # of the kind `plugin`: `values` has its files then, path in the container → path on the host


@dataclass(frozen=True)
class TaskSpec:
    """One process. Its first thread runs `ops`, the op language of `workloads/script.py`, in order, or does its `work`."""

    name: str  # comm; unique on its host
    ops: tuple[str, ...]
    start_s: float = 0.0
    cgroup: str = ""
    oom_score_adj: int = 0
    restart_s: float | None = None  # seconds after death at which it is started again; None: stays dead
    nice: int = 0  # with `superuser`: what the OOM heuristic of 2.6.11 asks for
    superuser: bool = False
    work: Work | None = None  # instead of `ops`
    held: bool = False  # it does not start by itself at `start_s`: somebody else starts it


@dataclass(frozen=True)
class ProbeSpec:
    """A probe of a container, with the defaults of the Kubernetes API; seconds."""

    kind: str  # startup | readiness | liveness
    delay_s: int = 0
    period_s: int = 10
    timeout_s: int = 1
    failure_threshold: int = 3
    success_threshold: int = 1


@dataclass(frozen=True)
class ContainerSpec:
    """One container of a pod: its processes by name, PID 1 first; bytes, 0: not set."""

    name: str
    tasks: tuple[TaskSpec, ...]
    cgroup: str
    request_bytes: int = 0
    limit_bytes: int = 0
    init: bool = False
    probes: tuple[ProbeSpec, ...] = ()
    max_retries: int = -1  # Docker's on-failure:N
    oom_policy: str = "stop"  # systemd's OOMPolicy=: stop | continue | kill


@dataclass(frozen=True)
class PodSpec:
    """A pod as the kubelet is told of it. Its cgroups and those above come with it, parents first."""

    name: str
    containers: tuple[ContainerSpec, ...]
    cgroup: str
    qos: str = "besteffort"  # guaranteed | burstable | besteffort
    request_bytes: int = 0
    priority: int = 0
    restart: str = "Always"  # Always | OnFailure | Never, Docker's UnlessStopped
    grace_s: int = 30
    pre_stop_s: int = 0  # lifecycle.preStop.sleep of its containers
    cgroups: tuple[CgroupSpec, ...] = ()
    tmpfs: Mapping[str, int] = field(default_factory=dict)  # emptyDir and /dev/shm: mount point on the host → bytes


@dataclass(frozen=True)
class KubeletSpec:
    """How a host looks after its pods; thresholds in bytes of memory.available, 0: none."""

    runtime: str = "kubernetes"  # kubernetes | docker | systemd
    eviction_hard_bytes: int = 0
    eviction_soft_bytes: int = 0
    eviction_soft_grace_s: float = 0.0
    eviction_max_pod_grace_s: int = 0
    transition_s: float = 300.0
    monitor_s: float = 10.0


@dataclass(frozen=True)
class DiskSpec:
    """A block device: fixed latency per request plus a bandwidth, and maybe a limit of requests per second, shared by everybody."""

    bytes_per_s: int
    latency_us: float
    iops: int = 0  # requests per second, 0: no limit


@dataclass(frozen=True)
class SwapSpec:
    """One swap area, or, with `kind` zram, a compressed block device in memory that is one."""

    path: str  # as /proc/swaps names it; unique on its host
    bytes: int  # with the header page that mkswap takes
    priority: int = -1  # 0 to 32767; −1: none given, below all areas that are on by then
    kind: str = "partition"  # partition | file | zram
    disk: DiskSpec | None = None  # None: it is on the data disk
    on: bool = True  # swapon at boot
    mem_limit_bytes: int = 0  # zram: 0 is none


@dataclass(frozen=True)
class ZswapSpec:
    """The parameters of /sys/module/zswap; `None` in a HostSpec is a kernel without zswap."""

    max_pool_percent: int = 20
    accept_threshold_percent: int = 90
    zpool: str = "zbud"  # zbud | zsmalloc
    same_filled_pages_enabled: bool = True
    enabled: bool = True


@dataclass(frozen=True)
class HostSpec:
    name: str
    memory_bytes: int  # installed RAM; MemTotal is what boot leaves of it
    cpus: int = 4
    numa_nodes: int = 1  # 1 or 2, each with half of the memory and of the CPUs
    swap_bytes: int = 0
    sysctl: Mapping[str, int] = field(default_factory=dict)  # "vm.swappiness": 10
    hugepages_1gib: int = 0  # the kernel's command line: hugepagesz=1G hugepages=N
    thp: str = "madvise"  # transparent_hugepage/enabled: always | madvise | never
    thp_defrag: str = "madvise"  # … /defrag: always | defer | defer+madvise | madvise | never
    lru_gen: str = "n"  # lru_gen/enabled: y, n or a number with one bit per part of MGLRU
    lru_gen_min_ttl_ms: int = 0
    cpu_profile: str = "server"  # hardware/cpu.py PROFILES
    disk: DiskSpec = DiskSpec(2_000_000_000, 80.0)
    swap_disk: DiskSpec | None = None  # None: swap shares `disk`
    swaps: tuple[SwapSpec, ...] = ()  # instead of `swap_bytes` and `swap_disk`
    zswap: ZswapSpec | None = None
    page_noise: int = 1_495  # bytes of a page that do not compress, where no op says; lzo-rle makes 2.7 : 1 of it (kernel-laws §10.5)
    files: Mapping[str, int] = field(default_factory=dict)  # path → bytes
    tmpfs: Mapping[str, int] = field(default_factory=lambda: {"/dev/shm": 0})  # mount point → bytes; 0: half of MemTotal
    directories: Mapping[str, int] = field(default_factory=dict)  # path → files below it, a thousand to each of its directories dN
    cgroups: tuple[CgroupSpec, ...] = ()
    tasks: tuple[TaskSpec, ...] = ()
    pods: Sequence[PodSpec] = ()  # with cgroups and tasks of their own
    kubelet: KubeletSpec = KubeletSpec()
    oom_heuristic: str = "5.9"  # how the OOM killer chooses, by kernel version: 5.9 (as 6.1 does) or 2.6.11 (age, nice, address space)
    measured: Mapping[str, Any] | None = None  # pools of a recorded host at its start, see boot.measured_pools
    boot_unix_s: int = 0  # wall-clock time of virtual time 0, only ever shown, never used by a law


@dataclass(frozen=True)
class Command:
    """Something done to a host from outside between two epochs (a fault, the control plane, a person)."""

    t_ns: int
    host: str
    kind: str  # start_thread | stop_thread | start_task | kill | mkdir | rmdir | sysctl | limit | disk | load | cut | …_pod
    args: Mapping[str, object] = field(default_factory=dict)
    author: str = "chaos"

    # start_thread  {"task": name, "thread": id, "ops": (…,)}  one more thread of the task, sharing its memory
    # stop_thread   {"task": name, "thread": id}               the thread ends; what it allocated stays
    # start_task    {"spec": TaskSpec}                         a new process (its cgroup must exist)
    # kill          {"task": name}                             SIGKILL
    # mkdir         {"spec": CgroupSpec}                       a cgroup more
    # rmdir         {"cgroup": name}                           … is removed; what is charged to it stays so until it is reclaimed (a zombie)
    # sysctl        {"name": "vm.swappiness", "value": 10}
    # limit         {"cgroup": name, "file": "memory.max", "bytes": n}
    # load          {"task": name, "rate_milli": n}            requests per 1000 s that come from now on
    # cut           {"task": name}                             connections to it are cut: the requests that are there fail
    # start_pod     {"spec": PodSpec}                          the scheduler bound a pod to this node
    # delete_pod    {"pod": name}                              SIGTERM, after the grace period SIGKILL, then it is gone
    # disk          {"disk": "data", "slow_percent": 1000, "failing": 0}   a device gets slow (100: as it was), or fails every transfer


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a host, as it goes into the history (`subject` is a task, cgroup or host name).

    When a fleet starts, all its hosts' events come to one process at once: hence the slots.
    """

    t_ns: int
    host: str
    seq: int  # per host, total order within one instant
    kind: str  # oom_kill | task_exit | restart | impact_start | impact_end | boot | table_full | eviction | probe_fail …
    subject: str
    data: Mapping[str, object] = field(default_factory=dict)

    def __reduce__(self) -> tuple[type[Event], tuple[object, ...]]:
        return Event, (self.t_ns, self.host, self.seq, self.kind, self.subject, self.data)
