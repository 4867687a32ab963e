# SPDX-License-Identifier: Apache-2.0
"""Paths below /proc/sys, /sys and the cgroup tree that a task may write to, and what each line of text means.

    resolve("/proc/sys/vm/swappiness", "10")            → knob swappiness, 10
    resolve("/sys/fs/cgroup/app/memory.max", "200M")    → knob memory.max, cgroup app, 51,200 pages

A path of a kernel that this one has no law for resolves to the knob `nothing`; a path that no kernel has is refused.
Source: kernel/sysctl.c, mm/huge_memory.c, mm/hugetlb.c, mm/memcontrol.c memory_files (Linux 6.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleetsim.errors import BadInput
from fleetsim.linux.mm_types import NO_LIMIT
from fleetsim.linux.proc_sysctl import KNOB
from fleetsim.linux.sysctl import LONG_MAX, SYSCTLS, validate

PAGE = 4096
CGROUP_ROOTS = ("/sys/fs/cgroup/", "/cg/")
SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
THP_MODES = {"never": 0, "madvise": 1, "always": 2}
DEFRAG_MODES = {"never": 0, "madvise": 1, "defer": 2, "defer+madvise": 3, "always": 4}
ALL_CAPS = 7  # LRU_GEN_CORE, LRU_GEN_MM_WALK, LRU_GEN_NONLEAF_YOUNG
ZSWAP = {"enabled": "zswap_enabled", "max_pool_percent": "zswap_max_pool_percent"}
ZSWAP |= {"accept_threshold_percent": "zswap_accept_threshold_percent", "same_filled_pages_enabled": "zswap_same_filled"}
SWITCH = {"Y": 1, "y": 1, "1": 1, "N": 0, "n": 0, "0": 0}
POOLS = {"2048": 0, "1048576": 1}
LIMITS = ("memory.max", "memory.high", "memory.min", "memory.low", "memory.swap.max", "memory.swap.high", "memory.zswap.max")
CGROUP_FILES = (
    *LIMITS,
    "memory.oom.group",
    "memory.reclaim",
    *"memory.pressure cgroup.procs cgroup.subtree_control cgroup.freeze cgroup.kill".split(),
    *"cpu.max cpu.weight io.max io.weight pids.max".split(),
)
SYSFS = "/sys/kernel/mm/"
NO_LAW = (
    r"/sys/kernel/mm/transparent_hugepage/(khugepaged/\w+|shmem_enabled|use_zero_page)",
    r"/sys/kernel/mm/(ksm/\w+|swap/\w+|numa/\w+)",
    r"/sys/module/zswap/parameters/(zpool|compressor)",
    r"/sys/block/[\w-]+/queue/\w+",
    r"/proc/sys/(kernel|fs|net)/[\w/.-]+",
    r"/proc/(self|\d+)/oom_score_adj",
)
FORMS = (
    "/proc/sys/vm/KNOB, /sys/kernel/mm/transparent_hugepage/{enabled,defrag}, /sys/kernel/mm/lru_gen/{enabled,min_ttl_ms}, "
    "/sys/kernel/mm/hugepages/hugepages-{2048,1048576}kB/{nr_hugepages,nr_overcommit_hugepages}, "
    "/sys/fs/cgroup/NAME/{memory.max,memory.high,memory.min,memory.low,memory.swap.{max,high},memory.zswap.max,memory.oom.group,memory.reclaim}"
)


@dataclass(frozen=True)
class Write:
    knob: int  # position in proc_sysctl.KNOBS
    value: int = 0
    which: int = 0  # hugetlb pool
    cgroup: str = ""

    @property
    def has_law(self) -> bool:
        return self.knob != 0


def pages(text: str, where: str) -> int:
    """`200M`, `max`, `1048576`: a cgroup file's value, pages."""
    if text == "max":
        return NO_LIMIT
    match = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
    if not match:
        raise BadInput(f"{where} takes bytes such as 200M, or max; it was given {text!r}")
    return min(NO_LIMIT, int(match[1]) * SIZES[match[2]] // PAGE)


def whole(text: str, where: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) > LONG_MAX:
        raise BadInput(f"{where} takes a whole number; it was given {text!r}")
    return int(text)


def word(text: str, known: dict[str, int], where: str) -> int:
    if text not in known:
        raise BadInput(f"{where} takes one of {', '.join(known)}; it was given {text!r}")
    return known[text]


def of_cgroup(name: str, file: str, text: str, path: str) -> Write:
    if file not in CGROUP_FILES:
        raise BadInput(f"there is no file {path!r}: a cgroup has {', '.join(CGROUP_FILES)}")
    if file in LIMITS:
        return Write(KNOB[file], pages(text, path), cgroup=name)
    if file == "memory.reclaim":
        if text == "max":
            raise BadInput(f"{path} takes bytes such as 200M; it was given 'max'")
        return Write(KNOB[file], pages(text, path), cgroup=name)
    if file == "memory.oom.group":
        return Write(KNOB[file], word(text, {"0": 0, "1": 1}, path), cgroup=name)
    return Write(0)


def of_vm(name: str, text: str, path: str) -> Write:
    if name == "lowmem_reserve_ratio":
        return Write(0)
    value = validate(f"vm.{name}", whole(text, path))
    if name in ("nr_hugepages", "nr_overcommit_hugepages"):
        return Write(KNOB[name], value)
    return Write(KNOB.get(name.replace("-", "_"), 0), value)


def lru_gen_caps(text: str, path: str) -> int:
    """lru_gen/enabled takes y, n, or a number with one bit per part of MGLRU (mm/vmscan.c enabled_store)."""
    if text[:1].lower() in ("y", "n"):
        return ALL_CAPS if text[0].lower() == "y" else 0
    try:
        return int(text, 0) & ALL_CAPS
    except ValueError:
        raise BadInput(f"{path} takes y, n or a number such as 0x0007; it is {text!r}") from None


def of_mm(rest: str, text: str, path: str) -> Write:
    """Files below /sys/kernel/mm."""
    if rest == "transparent_hugepage/enabled":
        return Write(KNOB["thp_enabled"], word(text, THP_MODES, path))
    if rest == "transparent_hugepage/defrag":
        return Write(KNOB["thp_defrag"], word(text, DEFRAG_MODES, path))
    if rest == "lru_gen/enabled":
        return Write(KNOB["lru_gen"], lru_gen_caps(text, path))
    if rest == "lru_gen/min_ttl_ms":
        return Write(KNOB["lru_gen_min_ttl"], whole(text, path))
    pool = re.fullmatch(r"hugepages/hugepages-(2048|1048576)kB/(nr_hugepages|nr_overcommit_hugepages)", rest)
    if pool:
        return Write(KNOB[pool[2]], whole(text, path), which=POOLS[pool[1]])
    raise BadInput(f"there is no file {path!r} to write to; known are {FORMS}")


def of_zswap(name: str, text: str, path: str) -> Write:
    """Files of /sys/module/zswap/parameters."""
    if name not in ZSWAP:
        raise BadInput(f"there is no file {path!r}: zswap has {', '.join(ZSWAP)}, zpool, compressor")
    if not name.endswith("percent"):
        return Write(KNOB[ZSWAP[name]], word(text, SWITCH, path))
    value = whole(text, path)
    if value > 100:
        raise BadInput(f"{path} takes a percentage; it was given {text!r}")
    return Write(KNOB[ZSWAP[name]], value)


def resolve(path: str, text: str) -> Write:
    """What writing `text` to `path` asks for; BadInput if there is no such file, or it does not take this text."""
    for root in CGROUP_ROOTS:
        if path.startswith(root) and "/" in path[len(root) :]:
            name, file = path[len(root) :].rsplit("/", 1)
            return of_cgroup(name, file, text, path)
    if any(re.fullmatch(pattern, path) for pattern in NO_LAW):
        return Write(0)
    if path.startswith("/proc/sys/vm/"):
        return of_vm(path.removeprefix("/proc/sys/vm/"), text, path)
    if path.startswith("/sys/module/zswap/parameters/"):
        return of_zswap(path.rsplit("/", 1)[1], text, path)
    if path.startswith(SYSFS):
        return of_mm(path.removeprefix(SYSFS), text, path)
    raise BadInput(
        f"there is no file {path!r} to write to; known are {FORMS}; vm's are {', '.join(n[3:] for n in SYSCTLS if n.startswith('vm.'))}"
    )
