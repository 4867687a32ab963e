# SPDX-License-Identifier: Apache-2.0
"""What `fleetsim bench scale` says of what it measured: figures per size, and the first bottleneck in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fleetsim.fleet.room import show_rounded
from fleetsim.fleet.scale_meter import Measured
from fleetsim.linux.capacity_classes import CAPACITY

CURE = {
    "cores": "more machines, or longer waits",
    "memory": "more machines, or a smaller size class",
    "driver": "fewer hosts in one run, or what docs/scaling.md says",
    "disk": "a smaller metric profile, or faster disks",
}


@dataclass(frozen=True)
class Resources:
    memory: int | None  # bytes that were free before; None: nobody says
    own_memory: bool  # the driver's memory is of the same


@dataclass(frozen=True)
class Row:
    measured: Measured
    alone: Measured
    resources: Resources

    @property
    def per_core(self) -> float:
        """Hosts in real time that each worker's core keeps."""
        m = self.measured
        return m.hosts * m.simulated_s / (m.wall_s * m.workers)

    @property
    def efficiency(self) -> float:
        alone = self.alone
        return self.per_core / (alone.hosts * alone.simulated_s / alone.wall_s)

    @property
    def bytes_per_host(self) -> float:
        """Of the workers; of the whole process with a local engine."""
        return (self.measured.worker_bytes or self.measured.driver_bytes) / self.measured.hosts

    @property
    def driver_us(self) -> float:
        """The controller's own processor time per host and epoch."""
        return self.measured.driver_s / (self.measured.hosts * self.measured.epochs) * 1e6

    def keeps(self) -> dict[str, float]:
        """How many hosts each resource keeps in real time (memory: at all)."""
        m = self.measured
        writing_s = m.writing_s / m.run_s  # per simulated second, of all workers
        busy_s = max(m.busy_s / m.simulated_s - writing_s, 1e-9)
        most = {
            "cores": m.hosts * m.workers / busy_s,
            "driver": m.hosts / max(m.driver_s / m.simulated_s, 1e-9),
            "disk": m.hosts * m.workers / max(writing_s, 1e-9),
        }
        if self.resources.memory is not None:
            here = m.driver_bytes / m.hosts if self.resources.own_memory and m.worker_bytes else 0.0
            most["memory"] = self.resources.memory / max(self.bytes_per_host + here, 1.0)
        return most

    @property
    def bottleneck(self) -> str:
        keeps = self.keeps()
        return min(keeps, key=lambda what: keeps[what])

    def shares(self) -> dict[str, float]:
        """Of the wall time: a worker busy (mean), all waiting for the slowest, the controller; what is left is calls and this machine."""
        m = self.measured
        mean = m.busy_s / m.workers
        return {"busy": mean / m.wall_s, "waiting": (m.slowest_s - mean) / m.wall_s, "driver": m.driver_s / m.wall_s}

    def as_json(self) -> dict[str, Any]:
        figures = {
            "hosts_per_core_in_real_time": self.per_core,
            "efficiency": self.efficiency,
            "bytes_per_host": self.bytes_per_host,
            "record_bytes": CAPACITY.bytes_max,
            "driver_us_per_host_epoch": self.driver_us,
            "samples_per_s": self.measured.samples / (self.measured.run_s * self.measured.wall_s / self.measured.simulated_s),
            "hosts_kept": self.keeps(),
            "shares": self.shares(),
            "bottleneck": self.bottleneck,
        }
        return {**figures, "measured": asdict(self.measured), "alone": asdict(self.alone)}

    def cells(self) -> list[str]:
        m, alone = self.measured, self.alone
        samples_s = m.samples / (m.run_s * m.wall_s / m.simulated_s)
        return [
            f"{m.hosts:,}",
            f"{self.per_core:,.0f}",
            f"{self.efficiency:.0%}",
            f"{m.cpu_s / (m.hosts * m.simulated_s) * 1e6:.1f} ({alone.cpu_s / (alone.hosts * alone.simulated_s) * 1e6:.1f})",
            f"{self.bytes_per_host / 1024:,.0f} KiB",
            f"{self.driver_us:.2f}",
            f"{samples_s:,.0f}",
            f"{m.start_s:.1f} + {m.wall_s:.1f} + {m.seal_s:.1f}",
        ]

    def words(self) -> str:
        keeps, first = self.keeps(), self.bottleneck
        others = ", ".join(f"{what} {human(count)}" for what, count in sorted(keeps.items(), key=lambda pair: pair[1]) if what != first)
        shares = ", ".join(f"{what} {share:.0%}" for what, share in self.shares().items())
        limit = "at" if first == "memory" else "in real time up to"
        return (
            f"{self.measured.hosts:,} hosts: first bottleneck {first}, {limit} {human(keeps[first])} hosts ({others}): {CURE[first]}; "
            f"of the wall time {shares}"
        )


@dataclass(frozen=True)
class Skipped:
    hosts: int
    why: str

    def as_json(self) -> dict[str, Any]:
        return {"hosts": self.hosts, "skipped": self.why}


HEADS = ("hosts", "per core", "efficiency", "µs/host-s (alone)", "per host", "driver µs", "samples/s", "start + run + seal, s")


@dataclass(frozen=True)
class ScaleBench:
    where: str
    containers: int
    profile: str
    rows: tuple[Row | Skipped, ...]

    def as_json(self) -> dict[str, Any]:
        sizes = [row.as_json() for row in self.rows]
        return {"where": self.where, "containers": self.containers, "profile": self.profile, "sizes": sizes}

    def as_text(self) -> str:
        done = [row for row in self.rows if isinstance(row, Row)]
        table = [list(HEADS), *(row.cells() for row in done)]
        widths = [max(len(line[column]) for line in table) for column in range(len(HEADS))]
        record = f"a host's record {show_rounded(CAPACITY.bytes_max)}"
        lines = [f"{self.where}; {self.containers} containers per host, profile {self.profile}, {record}", ""]
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
        lines += [
            "",
            "per core: hosts that one core keeps in real time; efficiency: that, over one worker alone; µs/host-s: processor time of the",
            "workers; per host: memory of the workers; driver µs: the controller's own processor time per host and epoch of one second",
            "",
            *(row.words() for row in done),
            *(f"{row.hosts:,} hosts: skipped: {row.why}" for row in self.rows if isinstance(row, Skipped)),
        ]
        return "\n".join(lines)


def human(count: float) -> str:
    """To two digits, at most one in a thousand million."""
    if count >= 1e9:
        return "1e9 and more"
    digits = max(0, len(f"{count:.0f}") - 2)
    return f"{round(count / 10**digits) * 10**digits:,.0f}"
