# SPDX-License-Identifier: Apache-2.0
"""The metric catalogue: every metric that an outsider can see, as data.

Rules: names, types, help texts and labels are those of the real exporters (node_exporter 1.5, its default collectors
and its default `--collector.vmstat.fields`); `fleetsim list metrics` prints this table and nothing else. A metric is
listed only if its value follows from the simulated host: nothing is exported as a guess.
Leaves out: families whose truth is not simulated yet (cpu, diskstats, filesystem, netdev, `process_*` but the start time).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fleetsim.errors import BadInput
from fleetsim.linux.vmstat_names import MEMINFO_COUNTS, MEMINFO_FIELDS, VMSTAT_FIELDS

NODE_EXPORTER = "node_exporter"
PROMETHEUS = "prometheus"

VMSTAT_FILTER = re.compile(r"^(oom_kill|pgpg|pswp|pg.*fault).*")
"""node_exporter's default `--collector.vmstat.fields`."""

COLLECTORS = ("loadavg", "meminfo", "pressure", "stat", "time", "uname", "vmstat")
"""node_exporter's collectors that are shown; `stat` with its boot time only."""

PROFILES = ("full", "standard", "rules")


@dataclass(frozen=True)
class Metric:
    """One metric family. `labels` are its own label names, before Prometheus adds a target's."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()
    exporter: str = NODE_EXPORTER
    standard: bool = True  # member of the `standard` profile; `full` has everything, `rules` what is asked for


def meminfo_metric(field: str) -> str:
    """The metric of a line of /proc/meminfo: brackets become underscores, a kB line gets `_bytes`."""
    name = field.replace("(", "_").replace(")", "")
    return f"node_memory_{name}" if field in MEMINFO_COUNTS else f"node_memory_{name}_bytes"


def vmstat_metric(field: str) -> str:
    return f"node_vmstat_{field}"


VMSTAT_SHOWN = tuple(field for field in VMSTAT_FIELDS if VMSTAT_FILTER.match(field))

# Lines of /proc/meminfo that no published alert rule reads and that hardly ever change: `full` only.
_MEMINFO_RARE = {"SecPageTables", "NFS_Unstable", "Bounce", "WritebackTmp", "VmallocTotal", "VmallocUsed", "VmallocChunk"}
_MEMINFO_RARE |= {"ShmemHugePages", "ShmemPmdMapped", "FileHugePages", "FilePmdMapped", "DirectMap4k", "DirectMap2M", "DirectMap1G"}


def _meminfo() -> Iterable[Metric]:
    for field in MEMINFO_FIELDS:
        name = meminfo_metric(field)
        text = f"Memory information field {name.removeprefix('node_memory_')}."
        yield Metric(name, "gauge", text, standard=field not in _MEMINFO_RARE)


def _vmstat() -> Iterable[Metric]:
    for field in VMSTAT_SHOWN:
        yield Metric(vmstat_metric(field), "untyped", f"/proc/vmstat information field {field}.")


_HOST = (
    Metric("node_boot_time_seconds", "gauge", "Node boot time, in unixtime."),
    Metric("node_load1", "gauge", "1m load average."),
    Metric("node_load5", "gauge", "5m load average."),
    Metric("node_load15", "gauge", "15m load average."),
    Metric("node_pressure_cpu_waiting_seconds_total", "counter", "Total time in seconds that processes have waited for CPU time"),
    Metric(
        "node_pressure_io_stalled_seconds_total",
        "counter",
        "Total time in seconds no process could make progress due to IO congestion",
    ),
    Metric(
        "node_pressure_io_waiting_seconds_total",
        "counter",
        "Total time in seconds that processes have waited due to IO congestion",
    ),
    Metric(
        "node_pressure_memory_stalled_seconds_total",
        "counter",
        "Total time in seconds no process could make progress due to memory congestion",
    ),
    Metric("node_pressure_memory_waiting_seconds_total", "counter", "Total time in seconds that processes have waited for memory"),
    Metric("node_time_seconds", "gauge", "System time in seconds since epoch (1970)."),
    Metric(
        "node_uname_info",
        "gauge",
        "Labeled system information as provided by the uname system call.",
        ("domainname", "machine", "nodename", "release", "sysname", "version"),
    ),
)

_EXPORTER_ITSELF = (
    Metric(
        "node_exporter_build_info",
        "gauge",
        "A metric with a constant '1' value labeled by version, revision, branch, goversion from which node_exporter was built, "
        "and the goos and goarch for the build.",
        ("branch", "goarch", "goos", "goversion", "revision", "version"),
        standard=False,
    ),
    Metric(
        "node_scrape_collector_duration_seconds",
        "gauge",
        "node_exporter: Duration of a collector scrape.",
        ("collector",),
        standard=False,
    ),
    Metric(
        "node_scrape_collector_success",
        "gauge",
        "node_exporter: Whether a collector succeeded.",
        ("collector",),
        standard=False,
    ),
    Metric("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", standard=False),
    Metric("promhttp_metric_handler_requests_in_flight", "gauge", "Current number of scrapes being served.", standard=False),
    Metric(
        "promhttp_metric_handler_requests_total",
        "counter",
        "Total number of scrapes by HTTP status code.",
        ("code",),
        standard=False,
    ),
)

_WRITTEN_BY_PROMETHEUS = (
    Metric("up", "gauge", "1 if the scrape of the target succeeded, 0 if it failed.", exporter=PROMETHEUS),
    Metric("scrape_duration_seconds", "gauge", "Duration of the scrape.", exporter=PROMETHEUS),
    Metric("scrape_samples_scraped", "gauge", "The number of samples the target exposed.", exporter=PROMETHEUS),
    Metric(
        "scrape_samples_post_metric_relabeling",
        "gauge",
        "The number of samples remaining after metric relabeling was applied.",
        exporter=PROMETHEUS,
    ),
    Metric("scrape_series_added", "gauge", "The approximate number of new series in this scrape.", exporter=PROMETHEUS),
)

METRICS: tuple[Metric, ...] = tuple(
    sorted(
        (*_meminfo(), *_vmstat(), *_HOST, *_EXPORTER_ITSELF, *_WRITTEN_BY_PROMETHEUS),
        key=lambda metric: (metric.exporter, metric.name),
    )
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
assert len(BY_NAME) == len(METRICS), "a metric is listed twice"


@dataclass(frozen=True)
class Profile:
    """Which metrics a run keeps. `needed` is used by `rules` alone: the names that the loaded rules read."""

    name: str
    needed: frozenset[str] = frozenset()

    def keeps(self, metric: Metric) -> bool:
        if metric.name == "up":  # without it nobody sees a dead target
            return True
        if self.name == "rules":
            return metric.name in self.needed
        return self.name == "full" or metric.standard


def profile(name: str, needed: Iterable[str] = ()) -> Profile:
    """The profile called `name`; `needed` are metric names for `rules` (names nobody exports are the judge's business)."""
    if name not in PROFILES:
        raise BadInput(f"unknown metric profile {name!r}; known are: {', '.join(PROFILES)}")
    return Profile(name, frozenset(needed) if name == "rules" else frozenset())


def describe() -> list[dict[str, object]]:
    """The catalogue for `fleetsim list metrics --json`."""
    return [{"name": m.name, "type": m.type, "help": m.help, "labels": list(m.labels), "exporter": m.exporter} for m in METRICS]
