# SPDX-License-Identifier: Apache-2.0
"""Any host with any programs: machines up to 64 GiB, any tree of cgroups, any setting of the kernel, every op of the language.

Sizes are drawn as shares of the machine's memory, so that a large one is as often in need as a small one; rates so that a
program gets somewhere in the seconds that a test looks at (none is unpaced: that is a question of speed, not of soundness).
`programs.py` draws small hosts of one shape and what is done to them.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.host.programs import Drawn

MIB_SMALLEST, DOUBLINGS = 80, 9.678  # up to 64 GiB; below about 76 MiB no host boots, and says so
PATTERNS = ("seq", "random", "hot:0.1:0.9", "hot:0.5:0.2")
LIMIT_FILES = ("memory.max", "memory.high", "memory.min", "memory.low", "memory.swap.max", "memory.oom.group")
SYSCTLS: dict[str, list[int]] = {
    "swappiness": [0, 1, 60, 100, 200],
    "overcommit_memory": [0, 1, 2],
    "overcommit_ratio": [20, 50, 100],
    "page-cluster": [0, 3, 5],
    "dirty_ratio": [1, 20, 60],
    "dirty_background_ratio": [1, 10, 50],
    "oom_kill_allocating_task": [0, 1],
    "watermark_scale_factor": [1, 10, 500, 1000],
    "zone_reclaim_mode": [0, 1, 3, 7],
}
MEMPOLICIES = ("default", "local", "bind:0", "bind:1", "bind:0-1", "preferred:1", "interleave:0-1", "interleave:1")


@st.composite
def sizes(draw: st.DrawFn, memory_mib: int) -> int:
    """MiB: mostly a part of the machine, sometimes more than all of it."""
    return max(1, int(memory_mib * draw(st.sampled_from([0.001, 0.01, 0.05, 0.2, 0.4, 0.7, 1.3]))))


@st.composite
def ops(draw: st.DrawFn, memory_mib: int, files: tuple[str, ...]) -> str:
    area, path = draw(st.sampled_from("AB")), draw(st.sampled_from(files))
    size = draw(sizes(memory_mib))
    rate = min(2000, draw(st.sampled_from([max(1, memory_mib // 50), max(1, memory_mib // 5), memory_mib])))
    pattern, lasting = draw(st.sampled_from(PATTERNS)), draw(st.sampled_from(["", " for=0.3", " for=2"]))
    endless = 0 if lasting else size
    every = draw(st.sampled_from([1, 2, 3, 8, 100]))
    part = draw(st.sampled_from(["0", "0.1", "0.5", "0.9", "1"]))
    least = draw(st.sampled_from([1, 16, 64, 700, 5000, 40_000, 140_000, 3_000_000]))
    most = least + draw(st.sampled_from([0, 1, 100, 9000]))
    blocks = min(2_000_000, size * (1 << 20) // least)
    kinds = {
        "grow": [f"mmap_anon {area} {size} | touch {area} {size} {rate}", f"shm {area} {size} | touch {area} {size} {rate}"],
        "map": [f"mmap_anon {area} {size}{draw(st.sampled_from(['', ' noreserve', ' thp', ' nothp']))}", f"shm {area} {size}"],
        "use": [
            f"touch {area} {size} {rate}",
            f"rewrite {area} {endless} {rate} {pattern}{lasting}",
            f"read {area} {endless} {rate} {pattern}{lasting}",
        ],
        "file": [
            f"read_file {path} {endless} {rate}{draw(st.sampled_from(['', ' rand']))}{lasting}",
            f"write_file {path} {size} {rate}{draw(st.sampled_from(['', ' over', ' wrap=8', ' fsync']))}",
            f"mmap_file M {path}{draw(st.sampled_from(['', ' shared']))}",
            f"read M {endless} {rate} {pattern}{lasting}",
            f"unlink {path}",
        ],
        "free": [f"free {area} munmap", f"free {area} dontneed all", "free M munmap"],
        "heap": [
            f"malloc {blocks} {least}-{most} {rate}",
            f"mfree keep_every:{every}",
            f"mfree first:{part}",
            f"mfree last:{part}",
            "mfree all",
            "mtrim",
        ],
        "else": [f"overcommit_probe {size} {4 * size}", "sleep 0.2", "until 3", f"exit {every}"],
        "numa": [f"pin {every}", *(f"mempolicy {mode}" for mode in MEMPOLICIES)],
    }
    kind = draw(st.sampled_from(["grow", "grow", "map", "use", "use", "file", "file", "free", "heap", "heap", "else", "numa"]))
    return draw(st.sampled_from(kinds[kind]))


@st.composite
def trees(draw: st.DrawFn, memory_mib: int, nodes: int) -> dict[str, dict[str, int]]:
    """Up to six cgroups, each below the root or below an earlier one, with any of the limits in MiB."""
    paths: list[str] = []
    tree = {}
    for n in range(draw(st.integers(0, 6))):
        parent = draw(st.sampled_from(["", *paths]))
        path = f"{parent}/g{n}".lstrip("/")
        paths.append(path)
        limits = draw(st.dictionaries(st.sampled_from(LIMIT_FILES), st.just(0), max_size=3))
        tree[path] = {file: draw(st.sampled_from([0, 1])) if "oom" in file else draw(sizes(memory_mib)) for file in limits}
        tree[path] |= draw(st.sampled_from([{}, {}, {}, {"cpuset.mems": 1}, {"cpuset.mems": nodes}]))
    return tree


@st.composite
def any_host(draw: st.DrawFn) -> Drawn:
    memory_mib = round(MIB_SMALLEST * 2 ** (DOUBLINGS * draw(st.integers(0, 100)) / 100))
    files = {f"/f{n}": draw(sizes(memory_mib)) for n in range(draw(st.integers(1, 3)))}
    cpus = draw(st.integers(1, 16))
    nodes = draw(st.sampled_from([1, 1, 2])) if cpus > 1 else 1
    tree = draw(trees(memory_mib, nodes))
    tasks, adj, restart = {}, {}, {}
    for n in range(draw(st.integers(1, 5))):
        path = draw(st.sampled_from(["", *tree]))
        lines = draw(st.lists(ops(memory_mib, (*files, "/dev/shm/t")), min_size=1, max_size=9))
        tasks[f"{path}/t{n}".lstrip("/")] = " | ".join(lines)
        adj[f"t{n}"] = draw(st.sampled_from([0, 0, 0, 300, -500, -1000]))
        restart[f"t{n}"] = draw(st.sampled_from([None, None, 0.5]))
    chosen = draw(st.dictionaries(st.sampled_from(sorted(SYSCTLS)), st.integers(0, 4), max_size=4))
    host: dict[str, Any] = {
        "memory_mib": memory_mib,
        "numa_nodes": nodes,
        "swap_mib": draw(st.sampled_from([0, 0, max(1, memory_mib // 8), memory_mib])),
        "cpus": cpus,
        "thp": draw(st.sampled_from(["never", "madvise", "always"])),
        "lru_gen": draw(st.sampled_from(["n", "n", "y", "1"])),
        "lru_gen_min_ttl_ms": draw(st.sampled_from([0, 0, 1000])),
        "tick_ms": draw(st.sampled_from([20.0, 200.0])),
        "cpu_profile": draw(st.sampled_from(["server", "lab"])),
        "sysctl": {name: SYSCTLS[name][k % len(SYSCTLS[name])] for name, k in chosen.items()},
        "files": files,
        "cgroups": tree,
        "tasks": tasks,
        "adj": adj,
        "restart_s": restart,
    }
    return Drawn(host)
