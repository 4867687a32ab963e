# SPDX-License-Identifier: Apache-2.0
"""Random small hosts with random programs and commands, as hypothesis strategies (`worlds()` draws what `world()` takes).

Nothing is excluded that a user could write: areas used before they are mapped or after they are freed, limits below what is
already used, scripts that end at once, kills of the dead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from fleetsim.host.spec import SwapSpec, ZswapSpec
from tests.host.worlds import FAST_DISK, MIB, DiskSpec

AREAS = ("A", "B")
FILES = {"/small": 20, "/large": 90}
WRITTEN = ("/small", "/large", "/log")
DISKS = (FAST_DISK, DiskSpec(bytes_per_s=20 << 20, latency_us=200.0, iops=500))
PATTERNS = ("seq", "random", "hot:0.2:0.8")
SIZES = st.sampled_from([1, 7, 30, 60, 120])
RATES = st.sampled_from([5, 40, 200, 900])
ADVICE = ("cold", "pageout", "free", "willneed", "dontneed", "hugepage")
CGROUPS = ("box", "box/inner", "other")


def said_of_memory(area: str, size: int) -> list[str]:
    """What a task may do to an area besides accessing it: parts given back, advice, locks."""
    parts = [f"free {area} dontneed keep_every:{1 + size % 9}", f"free {area} munmap first:{size // 4 + 1}"]
    parts += [f"free {area} dontneed last:{size // 4 + 1}", f"free {area} munmap last:{size // 5 + 1}", "free M dontneed all"]
    advice = [f"madvise {area} {word}" for word in ADVICE] + ["madvise M pageout", "madvise M cold"]
    return [*parts, *advice, f"mlock {area}", f"mlock {area} onfault", "mlock M onfault"]


def said_of_swap(area: str, size: int) -> list[str]:
    """What an administrator may do to swap, and pages that compress well, badly and not at all."""
    content = [f"mmap_anon {area} {size} noise={size * 37 % 4097}", f"mmap_anon {area} {size} noise=0"]
    zswap = [f"sysw /sys/module/zswap/parameters/{name}" for name in (f"max_pool_percent {size % 11}", f"enabled {size % 2}")]
    limits = [f"sysw /sys/fs/cgroup/box/memory.zswap.max {size % 7}M", f"sysw /sys/fs/cgroup/other/memory.swap.high {size // 4}M"]
    return ["swapoff /dev/s0", "swapoff /dev/s1", f"swapon /dev/s0 {size}", "swapon /dev/s1", *content, *zswap, *limits]


@st.composite
def ops(draw: st.DrawFn) -> str:
    area, path, size, rate = draw(st.sampled_from(AREAS)), draw(st.sampled_from(sorted(FILES))), draw(SIZES), draw(RATES)
    pattern, lasting = draw(st.sampled_from(PATTERNS)), draw(st.sampled_from(["", " for=0.7", " for=2.5"]))
    endless = 0 if lasting else size
    written, how = draw(st.sampled_from(WRITTEN)), draw(st.sampled_from(["", " fsync", " over", " over wrap=10", " over wrap=40 fsync"]))
    return draw(
        st.sampled_from(
            [
                f"mmap_anon {area} {size}",
                f"mmap_anon {area} {size} noreserve",
                f"touch {area} {size} {rate}",
                f"touch {area} {size} {rate}",
                f"rewrite {area} {endless} {rate} {pattern}{lasting}",
                f"read {area} {endless} {rate} {pattern}{lasting}",
                f"read_file {path} {endless} {rate}{lasting}",
                f"read_file {path} {endless} {rate} rand{lasting}",
                f"write_file {written} {size} {rate}{how}",
                f"write_file {written} {size} {rate}{how}",
                f"unlink {written}",
                f"mmap_file M {path}",
                f"mmap_file M {path} shared",
                f"read M {endless} {rate} {pattern}{lasting}",
                f"free {area} munmap",
                f"free {area} dontneed all",
                draw(st.sampled_from(said_of_memory(area, size))),
                draw(st.sampled_from(said_of_memory(area, size))),
                "free M munmap",
                f"overcommit_probe {size} {rate}",
                f"shm {area} {size}",
                f"write_file /dev/shm/f {size} {rate}",
                f"write_file /dev/shm/f {size} {rate} over wrap=7",
                f"read_file /dev/shm/f {endless} {rate}{lasting}",
                "mmap_file M /dev/shm/f shared",
                f"rewrite M {endless} {rate} {pattern}{lasting}",
                "unlink /dev/shm/f",
                "fork_hold 0.9",
                "fork_hold 2.5",
                f"stat_missing /w {size * 100} {rate * 100}",
                f"stat_files /many {size * 60} {rate * 30}",
                f"mkfiles /w {size * 30} {rate * 20}",
                f"mkfiles /dev/shm/w {size * 30} {rate * 20}",
                f"pipes {size * 10} {rate}",
                f"hugetlb H {size}",
                f"touch H {size} {rate}",
                "free H munmap",
                f"sysw /proc/sys/vm/nr_hugepages {size // 4}",
                f"sysw /proc/sys/vm/nr_overcommit_hugepages {size // 7}",
                f"sysw /proc/sys/vm/drop_caches {size % 3 + 1}",
                f"sysw /sys/fs/cgroup/other/memory.max {size}M",
                f"sysw /sys/fs/cgroup/box/memory.reclaim {size}M",
                "sysw /sys/kernel/mm/transparent_hugepage/enabled never",
                f"sysw /sys/kernel/mm/lru_gen/enabled {'yn'[size % 2]}",
                f"sysw /sys/kernel/mm/lru_gen/min_ttl_ms {size % 3 * 400}",
                draw(st.sampled_from(said_of_swap(area, size))),
                "sleep 0.4",
                f"exit {size}",
            ]
        )
    )


LIMITS = st.dictionaries(
    st.sampled_from(["memory.max", "memory.high", "memory.min", "memory.low", "memory.swap.max", "memory.swap.high", "memory.zswap.max"]),
    st.sampled_from([-1, 4, 25, 60, 110]),
    max_size=3,
)


@st.composite
def commands(draw: st.DrawFn, tasks: list[str]) -> tuple[float, str, dict[str, object]]:
    at, task = draw(st.floats(0, 7.5, allow_nan=False)), draw(st.sampled_from(tasks))
    cgroup, mib = draw(st.sampled_from(CGROUPS)), draw(st.sampled_from([2, 20, 80, -1]))
    cgroup = cgroup.rpartition("/")[2]
    return draw(
        st.sampled_from(
            [
                (at, "kill", {"task": task}),
                (at, "sysctl", {"name": "vm.swappiness", "value": (mib + 1) * 2 % 201}),
                (at, "sysctl", {"name": "vm.overcommit_memory", "value": mib % 3}),
                (at, "sysctl", {"name": "vm.min_free_kbytes", "value": 1024 * (1 + abs(mib) % 11)}),
                (at, "sysctl", {"name": "vm.oom_kill_allocating_task", "value": 1}),
                (at, "sysctl", {"name": "vm.dirty_bytes", "value": 8192 + abs(mib) * 100_000}),
                (at, "sysctl", {"name": "vm.dirty_background_ratio", "value": abs(mib)}),
                (at, "disk", {"disk": "data", "slow_percent": 100 + 10 * abs(mib), "failing": int(mib < 0)}),
                (at, "limit", {"cgroup": cgroup, "file": "memory.max", "bytes": mib * (1 << 20) if mib > 0 else -1}),
                (at, "limit", {"cgroup": cgroup, "file": "memory.high", "bytes": mib * (1 << 20) if mib > 0 else -1}),
                (at, "disk", {"disk": "swap", "slow_percent": 100 + 10 * abs(mib), "failing": int(mib < 20)}),
                (at, "disk", {"disk": "swap", "failing": 0}),
                (at, "sysctl", {"name": "vm.panic_on_oom", "value": abs(mib) % 3}),
                (at, "limit", {"cgroup": cgroup, "file": "memory.oom.group", "bytes": 1}),
                (at, "start_thread", {"task": task, "thread": "t", "ops": (f"mmap_anon T {abs(mib)}", f"touch T {abs(mib)} 100")}),
                (at, "stop_thread", {"task": task, "thread": "t"}),
            ]
        )
    )


@dataclass(frozen=True)
class Drawn:
    """Arguments of `world()`, and what happens to it afterwards."""

    host: dict[str, Any]
    commands: list[tuple[float, str, dict[str, object]]] = field(default_factory=list)


@st.composite
def swap_layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Two areas that the ops know, of any kind, used from the start or not; maybe zswap in front of them."""
    zswap = ZswapSpec(draw(st.sampled_from([1, 4, 20])), draw(st.sampled_from([10, 90])), draw(st.sampled_from(["zbud", "zsmalloc"])))
    kinds = draw(st.sampled_from([("partition", "partition"), ("partition", "partition"), ("zram", "partition"), ("file", "zram")]))
    areas = []
    for number, kind in enumerate(kinds):
        size, limit = draw(st.sampled_from([3, 24, 96])), draw(st.sampled_from([0, 2, 9]))
        disk = draw(st.sampled_from([None, *DISKS])) if kind != "zram" else None
        on, priority = draw(st.booleans()), draw(st.sampled_from([-1, -1, 5, 9]))
        areas.append(SwapSpec(f"/dev/s{number}", size * MIB, priority, kind, disk, on, limit * MIB if kind == "zram" else 0))
    built_in = "zram" not in kinds and draw(st.booleans())
    return {"swaps": tuple(areas), "zswap": zswap if built_in else None, "page_noise": draw(st.sampled_from([0, 8, 1500, 4090]))}


@st.composite
def worlds(draw: st.DrawFn) -> Drawn:
    names = [f"t{n}" for n in range(draw(st.integers(1, 3)))]
    placed = {name: draw(st.sampled_from(["", "box/", "box/inner/", "other/"])) + name for name in names}
    host: dict[str, Any] = {
        "memory_mib": draw(st.sampled_from([160, 200, 256])),
        **draw(swap_layouts()),
        "cpus": draw(st.sampled_from([1, 2])),
        "thp": draw(st.sampled_from(["never", "madvise"])),
        "lru_gen": draw(st.sampled_from(["n", "n", "y", "1"])),
        "oom_heuristic": draw(st.sampled_from(["5.9", "5.9", "2.6.11"])),
        "tick_ms": draw(st.sampled_from([1.0, 100.0])),
        "files": FILES,
        "disk": draw(st.sampled_from(DISKS)),
        "cgroups": {path: draw(LIMITS) for path in CGROUPS},
        "tasks": {placed[name]: " | ".join(draw(st.lists(ops(), min_size=1, max_size=7))) for name in names},
        "adj": {name: draw(st.sampled_from([0, 0, 500, -500, -1000])) for name in names},
        "restart_s": {name: draw(st.sampled_from([None, None, 0.5])) for name in names},
    }
    return Drawn(host, draw(st.lists(commands(names), max_size=4)))
