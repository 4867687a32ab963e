# SPDX-License-Identifier: Apache-2.0
"""node_exporter on a simulated host: which series it shows, and the law that fills in their values.

    the kernel's record → READING (what /proc would say, integers) → facts (metric units, float64) → one profile's values

Rules: what the kernel shows is computed by `linux/vmstat.py` alone and only converted here, in the arithmetic that
node_exporter 1.5 uses, so that the last bit agrees (a conformance test runs the real one). The exporter is a process of
its own: what it counts itself starts again with it.
Leaves out: the exporter's own memory and CPU use; collectors not in `catalog.COLLECTORS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fleetsim.law import law
from fleetsim.linux import vmstat
from fleetsim.linux.mm_types import PSI_CPU, PSI_FULL, PSI_IO, PSI_MEM, PSI_SOME
from fleetsim.linux.psi import PERIOD_NS
from fleetsim.linux.vmstat_names import MEMINFO_COUNTS, MEMINFO_FIELDS, VMSTAT_FIELDS
from fleetsim.observe.catalog import BY_NAME, COLLECTORS, VMSTAT_SHOWN, Profile, meminfo_metric, vmstat_metric

READING = np.dtype(
    [
        ("meminfo", "i8", (len(MEMINFO_FIELDS),)),  # kB, HugePages_* counts
        ("vmstat", "i8", (len(VMSTAT_FIELDS),)),
        ("psi_total_us", "i8", (3, 2)),
        ("psi_at_ns", "i8"),  # since boot: when the totals were last brought up to date
        ("loadavg", "i8", (3,)),  # 1/2048
        ("boot_unix_s", "i8"),
        ("now_ns", "i8"),  # since boot
    ]
)
"""What a host's kernel would tell a program that reads all of /proc at one instant."""

EXPORTER = np.dtype(
    [
        ("start_unix_ns", "i8"),  # when the exporter's process started
        ("requests", "i8"),  # pages it has served since
    ]
)
"""What the exporter's own process remembers, and forgets when it restarts."""

UNAME = {
    "domainname": "(none)",
    "machine": "x86_64",
    "release": "6.1.0-56-amd64",
    "sysname": "Linux",
    "version": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)",
}
"""What `uname` says on every simulated host but for the node's name: the kernel that the laws follow."""

BUILD = {
    "branch": "debian/sid",
    "goarch": "amd64",
    "goos": "linux",
    "goversion": "go1.19.8",
    "revision": "1.5.0-1+b6",
    "version": "1.5.0",
}

# How long each collector takes on a calm host, ns: one scrape of the real one (node_exporter 1.5.0, Debian 12).
COLLECTOR_NS = {
    "loadavg": 27_850,
    "meminfo": 217_450,
    "pressure": 128_970,
    "stat": 103_990,
    "time": 116_810,
    "uname": 10_360,
    "vmstat": 166_720,
}
assert tuple(COLLECTOR_NS) == COLLECTORS

# --- facts: every value there is, in a fixed order; a profile picks from them ------------------------------------------

_MEMINFO_FACTOR = np.array([1.0 if field in MEMINFO_COUNTS else 1024.0 for field in MEMINFO_FIELDS])
_VMSTAT_SHOWN = np.array([VMSTAT_FIELDS.index(field) for field in VMSTAT_SHOWN], dtype=np.int64)
_COLLECTOR_NS = np.array([COLLECTOR_NS[name] for name in COLLECTORS], dtype=np.int64)

_PSI_METRICS = {
    "node_pressure_cpu_waiting_seconds_total": (PSI_CPU, PSI_SOME),
    "node_pressure_io_waiting_seconds_total": (PSI_IO, PSI_SOME),
    "node_pressure_io_stalled_seconds_total": (PSI_IO, PSI_FULL),
    "node_pressure_memory_waiting_seconds_total": (PSI_MEM, PSI_SOME),
    "node_pressure_memory_stalled_seconds_total": (PSI_MEM, PSI_FULL),
}
_PSI_PLACES = np.array(list(_PSI_METRICS.values()), dtype=np.int64)


@dataclass(frozen=True)
class Series:
    """One series as the exporter shows it, before a target's labels."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()  # sorted by label name


def _facts() -> list[Series]:
    """The series of every fact, in the order in which `collect_values` and then `_exporter_facts` write them."""
    facts = [Series(meminfo_metric(field)) for field in MEMINFO_FIELDS]
    facts += [Series(vmstat_metric(field)) for field in VMSTAT_SHOWN]
    facts += [Series(name) for name in _PSI_METRICS]
    facts += [Series("node_load1"), Series("node_load5"), Series("node_load15")]
    facts += [Series("node_boot_time_seconds"), Series("node_time_seconds")]
    facts += [Series("process_start_time_seconds")]
    facts += [Series("promhttp_metric_handler_requests_total", (("code", code),)) for code in ("200", "500", "503")]
    facts += [Series("promhttp_metric_handler_requests_in_flight")]
    facts += [Series("node_scrape_collector_duration_seconds", (("collector", name),)) for name in COLLECTORS]
    facts += [Series("node_scrape_collector_success", (("collector", name),)) for name in COLLECTORS]
    facts += [Series("node_exporter_build_info", tuple(BUILD.items())), Series("node_uname_info", tuple(UNAME.items()))]
    return facts


FACTS = _facts()
NR_FACTS = len(FACTS)
NR_HOST_FACTS = FACTS.index(Series("node_time_seconds")) + 1  # these come from the kernel, the rest from the exporter


@cache
def plan(profile: Profile) -> NDArray[np.int64]:
    """Which fact each series of `series(profile)` shows, in the order of the exporter's page: by name, then by label values.

    Handed to the laws below; every target's scraper has the same.
    """
    kept = [i for i, fact in enumerate(FACTS) if profile.keeps(BY_NAME[fact.name])]
    return np.array(sorted(kept, key=lambda i: (FACTS[i].name, [value for _, value in FACTS[i].labels])), dtype=np.int64)


def series(profile: Profile, host: str = "") -> list[Series]:
    """The series of `profile` in page order; `host` is the node's name in `node_uname_info`."""
    return [_named(FACTS[i], host) for i in plan(profile).tolist()]


def _named(fact: Series, host: str) -> Series:
    if fact.name != "node_uname_info":
        return fact
    return Series(fact.name, tuple(sorted({**UNAME, "nodename": host}.items())))


SCRATCH = np.dtype([("reading", READING), ("facts", "f8", (NR_FACTS,))])
"""Room to work in for the laws below; nothing in it outlives a call."""

# --- laws ----------------------------------------------------------------------------------------------------------


@law
def read_kernel(row, reading):  # type: ignore[no-untyped-def]
    """Read everything that node_exporter's collectors read, at one instant.

    row      host record
    reading  READING, filled in

    Source: fs/proc/meminfo.c, mm/vmstat.c, kernel/sched/psi.c, fs/proc/loadavg.c by way of `linux/vmstat.py`.
    Leaves out: that the real exporter reads the files one after another within some milliseconds.
    """
    vmstat.meminfo(row, reading["meminfo"])
    vmstat.vmstat(row, reading["vmstat"])
    for kind in range(row["psi_total_us"].shape[0]):
        for part in range(row["psi_total_us"].shape[1]):
            reading["psi_total_us"][kind][part] = row["psi_total_us"][kind][part]
    reading["psi_at_ns"] = row["psi_next_ns"] - PERIOD_NS
    for i in range(len(row["loadavg"])):
        reading["loadavg"][i] = row["loadavg"][i]
    reading["boot_unix_s"] = row["boot_unix_s"]
    reading["now_ns"] = row["now_ns"]


@law
def collect_values(meminfo, vmstat_values, psi_total_us, loadavg, boot_unix_s, now_unix_ns, out):  # type: ignore[no-untyped-def]
    """The kernel's numbers in the units of the metrics.

        meminfo   kB · 1024, or the count            vmstat   as it is
        pressure  µs / 1000 / 1000 (in this order)   load     hundredths, rounded as /proc/loadavg prints them

    out      float64[≥ NR_HOST_FACTS], written in the order of FACTS

    Source: node_exporter 1.5 collector/{meminfo,vmstat,pressure,loadavg,stat,time}_linux.go; fs/proc/loadavg.c
            (adds FIXED_1/200 = 10 before it cuts to hundredths).
    Leaves out: nothing.
    """
    at = 0
    for i in range(len(_MEMINFO_FACTOR)):
        out[at] = meminfo[i] * _MEMINFO_FACTOR[i]
        at += 1
    for i in range(len(_VMSTAT_SHOWN)):
        out[at] = vmstat_values[_VMSTAT_SHOWN[i]]
        at += 1
    for i in range(len(_PSI_PLACES)):
        out[at] = psi_total_us[_PSI_PLACES[i, 0], _PSI_PLACES[i, 1]] / 1000.0 / 1000.0
        at += 1
    for i in range(3):
        out[at] = ((loadavg[i] + 10) * 100 >> 11) / 100.0
        at += 1
    out[at] = boot_unix_s
    out[at + 1] = now_unix_ns / 1e9


@law
def exporter_values(exporter, slowdown, out):  # type: ignore[no-untyped-def]
    """What the exporter says of itself.

    exporter  EXPORTER
    slowdown  float64 ≥ 1  how much longer than on a calm host everything takes
    out       float64[NR_FACTS], written from NR_HOST_FACTS on

    Source: client_golang promhttp (a request is counted when it is answered, so a page shows those before it);
            node_exporter 1.5 collector/collector.go.
    Leaves out: failures of single collectors (every file is always readable here).
    """
    at = NR_HOST_FACTS
    out[at] = exporter["start_unix_ns"] / 1e9
    out[at + 1] = exporter["requests"]
    out[at + 2] = 0.0  # code 500
    out[at + 3] = 0.0  # code 503
    out[at + 4] = 1.0  # in flight: this one
    at += 5
    nr = len(_COLLECTOR_NS)
    for i in range(nr):
        out[at + i] = _COLLECTOR_NS[i] * slowdown / 1e9
        out[at + nr + i] = 1.0
    out[at + 2 * nr] = 1.0  # build
    out[at + 2 * nr + 1] = 1.0  # uname


@law
def collect_reading(scratch, exporter, slowdown, plan, out):  # type: ignore[no-untyped-def]
    """One page's values from what was read into `scratch["reading"]`.

    scratch   SCRATCH
    exporter  EXPORTER
    slowdown  float64 ≥ 1
    plan      int64[n]  from `plan(profile)`
    out       float64[n], in the order of `series(profile)`

    Source: node_exporter 1.5, as its parts. Leaves out: nothing of its own.
    """
    reading = scratch["reading"]
    facts = scratch["facts"]
    now_unix_ns = reading["boot_unix_s"] * 1_000_000_000 + reading["now_ns"]
    collect_values(
        reading["meminfo"], reading["vmstat"], reading["psi_total_us"], reading["loadavg"], reading["boot_unix_s"], now_unix_ns, facts
    )
    exporter_values(exporter, slowdown, facts)
    for i in range(len(plan)):
        out[i] = facts[plan[i]]


@law
def collect(rows, scratch, exporter, slowdown, plan, out):  # type: ignore[no-untyped-def]
    """One page's values of a host's record, now.

    rows, scratch, exporter  arrays of one (see `scrape.scrape_row`); all else as in `collect_reading`

    Source: node_exporter 1.5, as its parts. Leaves out: nothing of its own.
    """
    read_kernel(rows[0], scratch[0]["reading"])
    collect_reading(scratch[0], exporter[0], slowdown, plan, out)


class NodeExporter:
    """The exporter's process on one host, for whoever wants a page at once (a live server, a test)."""

    def __init__(self, profile: Profile, host: str) -> None:
        self.series = series(profile, host)
        self._plan = plan(profile)
        self._scratch = np.zeros(1, SCRATCH)
        self.own = np.zeros(1, EXPORTER)

    def values(self, row: np.ndarray | np.void) -> NDArray[np.float64]:
        """The page's values for a host's record, in the order of `series`; counts as a served request."""
        rows = row if isinstance(row, np.ndarray) else np.array([row])
        out = np.empty(len(self.series))
        collect(rows, self._scratch, self.own, 1.0, self._plan, out)
        self.own["requests"] += 1
        return out
